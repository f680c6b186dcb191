//! What lives on this machine only: patterns in the syntax of `.gitignore`.
//!
//! Everything below a host-scoped directory is host-scoped, whatever it is called. An entry's scope is
//! decided when it is created or renamed; renaming a directory decides anew for what is inside only if the
//! directory's own scope changes.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::tree::RelPath;

/// A pattern that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("{pattern}: {reason}")]
pub struct ScopeError {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: ignore::Error,
}

/// Tells what is host-scoped.
#[derive(Clone)]
pub struct HostScope {
    patterns: Gitignore,
}

impl HostScope {
    /// Understands `patterns`, in the syntax of `.gitignore`; later ones win.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, ScopeError> {
        let mut builder = GitignoreBuilder::new("");
        // Else a slip of the pen becomes a pattern that names nothing.
        builder.allow_unclosed_class(false);
        for pattern in patterns.iter().map(AsRef::as_ref) {
            builder
                .add_line(None, pattern)
                .map_err(|reason| ScopeError {
                    pattern: pattern.to_owned(),
                    reason,
                })?;
        }
        let patterns = builder.build().map_err(|reason| ScopeError {
            pattern: "all patterns together".to_owned(),
            reason,
        })?;
        Ok(Self { patterns })
    }

    /// Whether there are no patterns at all.
    pub(super) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a pattern names `path` itself.
    pub fn names(&self, path: &RelPath, is_dir: bool) -> bool {
        if path.is_root() || self.is_empty() {
            return false;
        }
        let bytes = path.to_bytes();
        let path = Path::new(OsStr::from_bytes(&bytes));
        self.patterns.matched(path, is_dir).is_ignore()
    }
}

impl fmt::Debug for HostScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostScope({} patterns)", self.patterns.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    #[test]
    fn the_shipped_patterns_name_locks_and_caches_and_nothing_else() {
        let defaults = Layers::defaults().unwrap();
        let patterns: Vec<_> = defaults.config().host_scoped_patterns().collect();
        let scope = HostScope::new(&patterns).unwrap();
        for (path, is_dir, scoped) in [
            (".cache", true, true),
            ("src/.cache", true, false),
            (".Xauthority", false, true),
            (".Xauthority-c", false, true),
            ("doc/.~lock.letter.odt#", false, true),
            (".mozilla/firefox/x.default/lock", false, true),
            (".mozilla/firefox/x.default/prefs.js", false, false),
            (".config/google-chrome/SingletonLock", false, true),
            (".config/pulse", true, true),
            ("doc/.nfs00000000012", false, true),
            ("doc/.nfs-notes", false, false),
            ("lock", false, false),
            (".config/monitors.xml", false, true),
            ("", true, false),
        ] {
            let path = RelPath::parse(path.as_bytes()).unwrap();
            assert_eq!(scope.names(&path, is_dir), scoped, "{path}");
        }
    }

    #[test]
    fn a_pattern_that_makes_no_sense_is_named() {
        let error = HostScope::new(&["*.o", "a{z"]).unwrap_err();
        assert_eq!(error.pattern, "a{z");
    }
}
