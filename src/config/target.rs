//! Which home on which server: `[USER@]HOST:PATH` or `ssh://[USER@]HOST[:PORT]/PATH`. Pure.

use std::fmt;

/// The port of SSH.
const DEFAULT_PORT: u16 = 22;

/// A user's directory on an SSH server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// Who logs in there.
    pub user: String,
    /// Name or address, without brackets.
    pub host: String,
    /// The port of its sshd.
    pub port: u16,
    /// The home on the server; relative to where the server lets the user in, and empty for that directory.
    pub path: String,
}

/// Why a text is not a [`Target`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} names no home: {why}; write [USER@]HOST:PATH or ssh://[USER@]HOST[:PORT]/PATH")]
pub struct TargetError {
    text: String,
    why: &'static str,
}

impl Target {
    /// Reads a target. `default_user` logs in where the text names nobody.
    pub fn parse(text: &str, default_user: &str) -> Result<Self, TargetError> {
        parts(text, default_user).map_err(|why| TargetError {
            text: text.to_owned(),
            why,
        })
    }

    /// A name for this home that is fit for a file name: readable, and distinct by the hash at its end.
    pub fn slug(&self) -> String {
        let identity = format!("{}\0{}\0{}\0{}", self.user, self.host, self.port, self.path);
        super::slug(
            &format!("{}@{}-{}", self.user, self.host, self.path),
            identity.as_bytes(),
        )
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if self.port == DEFAULT_PORT {
            write!(f, "{}@{host}:{}", self.user, self.path)
        } else {
            // A path relative to the login directory has a way to be said in a URL, too.
            let path = match self.path.strip_prefix('/') {
                Some(rest) => rest.to_owned(),
                None if self.path.is_empty() => "~".to_owned(),
                None => format!("~/{}", self.path),
            };
            write!(f, "ssh://{}@{host}:{}/{path}", self.user, self.port)
        }
    }
}

fn parts(text: &str, default_user: &str) -> Result<Target, &'static str> {
    if text.contains(|c: char| c.is_control()) {
        return Err("it holds a control character");
    }
    let (authority, port, path) = match text.strip_prefix("ssh://") {
        Some(url) => url_parts(url)?,
        None => {
            let (authority, path) =
                split_host(text).ok_or("the colon after the host is missing")?;
            (authority, DEFAULT_PORT, path.to_owned())
        }
    };
    let (user, host) = match authority.rsplit_once('@') {
        Some(("", _)) => return Err("the user is empty"),
        Some((user, host)) => (user, host),
        None => (default_user, authority),
    };
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if host.is_empty() {
        return Err("the host is empty");
    }
    if host.starts_with('-') || host.contains(['/', '[', ']', ' ']) {
        return Err("the host is not a name or an address");
    }
    Ok(Target {
        user: user.to_owned(),
        host: host.to_owned(),
        port,
        path: normal_path(&path),
    })
}

/// `user@host:port/path`; `/~` and `/~/path` are relative to the login directory.
fn url_parts(url: &str) -> Result<(&str, u16, String), &'static str> {
    let (authority, path) = match url.find('/') {
        Some(at) => url.split_at(at),
        None => (url, "/~"),
    };
    let (host, port) = match split_host(authority) {
        Some((host, port)) => (host, port.parse().map_err(|_| "the port is not a number")?),
        None => (authority, DEFAULT_PORT),
    };
    let path = match path.strip_prefix("/~") {
        Some("") => "",
        Some(rest) if rest.starts_with('/') => &rest[1..],
        _ => path,
    };
    Ok((host, port, path.to_owned()))
}

/// Splits at the colon after the host; colons inside `[…]` belong to the host.
fn split_host(text: &str) -> Option<(&str, &str)> {
    let after_brackets = match (text.find('['), text.find("]:"), text.find(':')) {
        (Some(open), Some(close), Some(colon)) if open < colon => close + 1,
        (Some(open), None, Some(colon)) if open < colon => return None,
        (_, _, colon) => colon?,
    };
    Some((&text[..after_brackets], &text[after_brackets + 1..]))
}

/// One spelling for one directory: no doubled or trailing slashes, no `.` components, `~` for the login
/// directory left out.
fn normal_path(path: &str) -> String {
    let path = match path.strip_prefix('~') {
        Some("") => "",
        Some(rest) if rest.starts_with('/') => rest.trim_start_matches('/'),
        _ => path,
    };
    let parts: Vec<_> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    let root = if path.starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(user: &str, host: &str, port: u16, path: &str) -> Target {
        Target {
            user: user.into(),
            host: host.into(),
            port,
            path: path.into(),
        }
    }

    #[test]
    fn every_spelling_of_a_home_is_read() {
        for (text, expected) in [
            ("nas:", target("me", "nas", 22, "")),
            ("nas:homes/ann/", target("me", "nas", 22, "homes/ann")),
            (
                "ann@nas:/homes//ann",
                target("ann", "nas", 22, "/homes/ann"),
            ),
            ("ann@nas:~/./x", target("ann", "nas", 22, "x")),
            ("ann@nas:/", target("ann", "nas", 22, "/")),
            ("a@b@nas:/x:y", target("a@b", "nas", 22, "/x:y")),
            ("ann@[fe80::1]:/h", target("ann", "fe80::1", 22, "/h")),
            ("ssh://nas", target("me", "nas", 22, "")),
            (
                "ssh://ann@nas:2222/h/ann",
                target("ann", "nas", 2222, "/h/ann"),
            ),
            ("ssh://ann@nas/~/h", target("ann", "nas", 22, "h")),
            ("ssh://[::1]:2222/~", target("me", "::1", 2222, "")),
        ] {
            assert_eq!(Target::parse(text, "me").as_ref(), Ok(&expected), "{text}");
            assert_eq!(
                Target::parse(&expected.to_string(), "x"),
                Ok(expected),
                "{text}"
            );
        }
    }

    #[test]
    fn what_names_no_home_is_refused_with_the_right_spelling() {
        for text in [
            "",
            "nas",
            "/home/ann",
            ":x",
            "@nas:x",
            "-oProxy:x",
            "a b:x",
            "ssh://",
            "ssh://n:p/x",
            "[::1:x",
            "nas:a\nb",
        ] {
            let error = Target::parse(text, "me").unwrap_err().to_string();
            assert!(error.contains("[USER@]HOST:PATH"), "{text}: {error}");
        }
    }

    #[test]
    fn slugs_are_readable_short_distinct_and_stable() {
        let slug = |text| Target::parse(text, "ann").unwrap().slug();
        assert_eq!(slug("nas:/homes/ann"), slug("ann@nas:/homes//ann/"));
        assert!(slug("nas:/homes/ann").starts_with("ann@nas-homes-ann-"));
        assert_ne!(slug("nas:/a/b"), slug("nas:/a-b"));
        assert_ne!(slug("nas:/a"), slug("ssh://nas:2222/a"));
        assert!(slug(&format!("nas:{}", "x/".repeat(500))).len() < 80);
    }
}
