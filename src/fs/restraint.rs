//! Programs that look into every file there is, such as thumbnailers and indexers: nothing large is fetched for them.
//!
//! A process is told by what the kernel calls it, which costs a look into /proc. So it is asked only where something
//! would be fetched, or remembered for the next login.

mod process;

use std::fmt;

use self::process::Names;
use super::{Caller, FsError, Home, Need, Stop};
use crate::replica::{Node, ReplicaError};

/// The kernel cuts the name of a process to so many bytes.
const COMM_MAX: usize = 15;

/// An entry that names no program.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no name of a program")]
pub struct RestraintError(String);

/// Tells for whom nothing large is fetched.
#[derive(Clone, Default)]
pub struct Restraint {
    programs: Vec<Program>,
    /// Files of at least so many bytes are not fetched for them.
    from: u64,
}

/// A program, or all whose names begin so, or one that was started with some word.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Program {
    name: String,
    begins: bool,
    word: Option<String>,
}

impl Restraint {
    /// Understands `entries`: `NAME`, `NAME*`, or `NAME WORD` for a program that was started with that word. `!ENTRY`
    /// takes an earlier one out.
    pub fn new<S: AsRef<str>>(entries: &[S], from: u64) -> Result<Self, RestraintError> {
        let mut programs = Vec::new();
        for entry in entries.iter().map(AsRef::as_ref) {
            match entry.strip_prefix('!') {
                Some(entry) => {
                    let out = Program::parse(entry)?;
                    programs.retain(|program| *program != out);
                }
                None => programs.push(Program::parse(entry)?),
            }
        }
        Ok(Self { programs, from })
    }

    /// Whether a thread is of such a program. One that nothing is known of is not.
    pub(super) fn holds(&self, pid: u32) -> bool {
        if self.programs.is_empty() || pid == 0 {
            return false;
        }
        process::names(pid).is_some_and(|names| self.names_one_of(&names))
    }

    fn names_one_of(&self, names: &Names) -> bool {
        self.programs.iter().any(|program| program.is(names))
    }
}

impl fmt::Debug for Restraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Restraint({} programs)", self.programs.len())
    }
}

impl Program {
    fn parse(entry: &str) -> Result<Self, RestraintError> {
        let mut parts = entry.split_whitespace();
        let name = parts.next().unwrap_or_default();
        let word = parts.next().map(str::to_owned);
        let (name, begins) = match name.strip_suffix('*') {
            Some(name) => (name, true),
            None => (name, false),
        };
        let makes_sense = !name.is_empty() && !name.contains(['/', '*']) && parts.next().is_none();
        match makes_sense {
            true => Ok(Self {
                name: name.to_owned(),
                begins,
                word,
            }),
            false => Err(RestraintError(entry.to_owned())),
        }
    }

    fn is(&self, names: &Names) -> bool {
        let name = self.name.as_bytes();
        let is_name = |found: &Vec<u8>| match self.begins {
            true => found.starts_with(name),
            false => found == name,
        };
        let is_comm = |found: &Vec<u8>| {
            let cut = found.len() == COMM_MAX && name.len() >= COMM_MAX;
            is_name(found) || (cut && name.starts_with(found))
        };
        let found = names.comms.iter().any(is_comm) || names.exe.as_ref().is_some_and(is_name);
        let said = |word: &String| names.words().iter().any(|found| found == word.as_bytes());
        found && self.word.as_ref().is_none_or(said)
    }
}

impl Home {
    /// What `stop` is for who asked: for a restrained program nothing large is fetched, and nothing beside what it asks
    /// for.
    pub(super) fn restrain(&self, stop: Stop, caller: Caller) -> Stop {
        let Stop::Needs(Need::Content(id)) = stop else {
            return stop;
        };
        if !self.restraint.holds(caller.pid) {
            return stop;
        }
        let node = self.replica.view::<_, ReplicaError>(|view| view.node(id));
        match node {
            Ok(Some(node)) if node.size >= self.restraint.from => {
                tracing::debug!(pid = caller.pid, ?id, "a restrained program goes without");
                Stop::Failed(FsError::Restrained)
            }
            Ok(_) => Stop::Needs(Need::ContentAlone(id)),
            Err(error) => error.into(),
        }
    }

    /// The engine hears what programs read, unless they read everything.
    pub(super) fn note_reading(&self, node: &Node, caller: Caller) {
        let is_programs = caller.pid != 0 && !node.scoped && node.size > 0;
        if is_programs && self.fetch.is_news(node.id) && !self.restraint.holds(caller.pid) {
            self.fetch.is_read(node.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    fn names(comms: &[&str], exe: &str, words: &[&str]) -> Names {
        let bytes = |text: &&str| text.as_bytes().to_vec();
        Names {
            comms: comms.iter().map(bytes).collect(),
            exe: Some(exe.as_bytes().to_vec()),
            words: std::cell::OnceCell::from(words.iter().map(bytes).collect::<Vec<_>>()),
            leader: 0,
        }
    }

    #[test]
    fn the_shipped_programs_are_thumbnailers_and_indexers_and_nothing_else() {
        let defaults = Layers::defaults().unwrap();
        let entries: Vec<_> = defaults.config().restrained_entries().collect();
        let restraint = Restraint::new(&entries, 0).unwrap();
        for (comms, exe, words, held) in [
            (&["tumblerd"][..], "tumblerd", &[][..], true),
            // Another thread of it.
            (&["pool-tumblerd-1", "tumblerd"], "tumblerd", &[], true),
            // Cut by the kernel.
            (&["gnome-desktop-t"], "gnome-desktop-thumbnailer", &[], true),
            (&["tracker-miner-f"], "tracker-miner-fs-3", &[], true),
            (&["localsearch-ext"], "localsearch-extractor-3", &[], true),
            (&["baloo_file_extr"], "baloo_file_extractor", &[], true),
            (&["gmain"], "tracker-extract-3", &[], true),
            (&["updatedb.plocat"], "updatedb.plocate", &[], true),
            (&["kioworker"], "kioworker", &["x.so", "thumbnail"], true),
            (&["kioworker"], "kioworker", &["file.so", "file"], false),
            (&["cat"], "cat", &["tumblerd"], false),
            (&["bash"], "bash", &[], false),
            (&["find"], "find", &[], false),
            (&["tumbler"], "tumbler", &[], false),
            (&["gnome-desktop-"], "gnome-desktop-", &[], false),
        ] {
            let names = names(comms, exe, words);
            assert_eq!(restraint.names_one_of(&names), held, "{comms:?} {words:?}");
        }
    }

    #[test]
    fn entries_add_and_take_out_and_those_that_name_nothing_are_refused() {
        let of = |entries: &[&str]| Restraint::new(entries, 0);
        let cat = names(&["cat"], "cat", &["-n"]);
        let holds = |entries: &[&str]| of(entries).unwrap().names_one_of(&cat);
        assert!(holds(&["cat"]) && holds(&["c*"]) && holds(&["cat -n"]));
        assert!(!holds(&["cat -v"]) && !holds(&["ca"]) && !holds(&["cat", "!cat"]));
        assert!(holds(&["cat", "!dog"]) && holds(&["!cat", "cat"]));
        for none in ["", " ", "!", "*", "/usr/bin/cat", "a b c", "a*b"] {
            assert!(of(&[none]).is_err(), "{none:?}");
        }
    }

    #[test]
    fn processes_that_cannot_be_named_are_not_held() {
        let restraint = Restraint::new(&["a*"], 0).unwrap();
        assert!(!restraint.holds(0) && !restraint.holds(u32::MAX));
    }

    #[test]
    fn a_thread_is_known_by_its_program_whatever_it_calls_itself() {
        let own = process::names(std::process::id()).unwrap();
        let exe = String::from_utf8(own.exe.clone().unwrap()).unwrap();
        let restraint = Restraint::new(&[exe], 0).unwrap();
        let thread = std::thread::Builder::new().name("a-thread".into());
        let held = move || restraint.holds(rustix::thread::gettid().as_raw_nonzero().get() as u32);
        assert!(thread.spawn(held).unwrap().join().unwrap());
        assert!(own.words().first().is_some_and(|word| !word.is_empty()));
    }
}
