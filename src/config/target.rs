//! Which home: `[USER@]HOST:PATH` or `ssh://[USER@]HOST[:PORT]/PATH` on a server, `/PATH` or `file:/PATH` on this
//! machine. Pure.

use std::fmt;

/// The port of SSH.
const DEFAULT_PORT: u16 = 22;

/// The directory that a home is kept equal to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// On a server.
    Server(Place),
    /// On this machine: another disk, or a network's file system. Absolute.
    Local(String),
}

/// A user's directory on a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// Who logs in there; whoever mounts, or as `ssh_config` says, if nobody is named.
    pub user: Option<String>,
    /// Name or address, without brackets; for `ssh` it may be an alias.
    pub host: String,
    /// The port of its sshd, if it was named.
    pub port: Option<u16>,
    /// The home on the server; relative to where the server lets the user in, and empty for that directory.
    pub path: String,
}

/// Why a text is not a [`Target`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} names no home: {why}; write [USER@]HOST:PATH, ssh://[USER@]HOST[:PORT]/PATH, or /PATH for a directory \
     of this machine"
)]
pub struct TargetError {
    text: String,
    why: &'static str,
}

impl Target {
    /// Reads a target.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        parts(text).map_err(|why| TargetError {
            text: text.to_owned(),
            why,
        })
    }

    /// A name for this home that is fit for a file name: readable, and distinct by the hash at its end. Where no
    /// user is named, it is the home of `default_user`.
    pub fn slug(&self, default_user: &str) -> String {
        match self {
            Self::Server(place) => {
                let Place { host, path, .. } = place;
                let user = place.user.as_deref().unwrap_or(default_user);
                let port = place.port();
                let identity = format!("{user}\0{host}\0{port}\0{path}");
                super::slug(&format!("{user}@{host}-{path}"), identity.as_bytes())
            }
            Self::Local(path) => super::slug(path, format!("file\0{path}").as_bytes()),
        }
    }
}

impl Place {
    /// The port that it has, named or not.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(DEFAULT_PORT)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(place) => place.fmt(f),
            Self::Local(path) => f.write_str(path),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map(|user| format!("{user}@"));
        let user = user.unwrap_or_default();
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        match self.port {
            None | Some(DEFAULT_PORT) => write!(f, "{user}{host}:{}", self.path),
            Some(port) => {
                // A path relative to the login directory has a way to be said in a URL, too.
                let path = match self.path.strip_prefix('/') {
                    Some(rest) => rest.to_owned(),
                    None if self.path.is_empty() => "~".to_owned(),
                    None => format!("~/{}", self.path),
                };
                write!(f, "ssh://{user}{host}:{port}/{path}")
            }
        }
    }
}

fn parts(text: &str) -> Result<Target, &'static str> {
    if text.contains(|c: char| c.is_control()) {
        return Err("it holds a control character");
    }
    if text.starts_with('/') {
        return Ok(Target::Local(normal_path(text)));
    }
    if let Some(path) = text.strip_prefix("file:") {
        // What stands between two and the next slash is a host.
        let path = match path.strip_prefix("//") {
            Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
            None => path,
        };
        return match path.starts_with('/') {
            true => Ok(Target::Local(normal_path(path))),
            false => {
                Err("the path after file: is not one of this machine that begins with a slash")
            }
        };
    }
    let (authority, port, path) = match text.strip_prefix("ssh://") {
        Some(url) => url_parts(url)?,
        None => {
            let (authority, path) =
                split_host(text).ok_or("the colon after the host is missing")?;
            (authority, None, path.to_owned())
        }
    };
    let (user, host) = match authority.rsplit_once('@') {
        Some(("", _)) => return Err("the user is empty"),
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
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
    if user.is_some_and(|user| user.starts_with('-')) {
        return Err("the user begins with a dash");
    }
    Ok(Target::Server(Place {
        user: user.map(str::to_owned),
        host: host.to_owned(),
        port,
        path: normal_path(&path),
    }))
}

/// `user@host:port/path`; `/~` and `/~/path` are relative to the login directory.
fn url_parts(url: &str) -> Result<(&str, Option<u16>, String), &'static str> {
    let (authority, path) = match url.find('/') {
        Some(at) => url.split_at(at),
        None => (url, "/~"),
    };
    let (host, port) = match split_host(authority) {
        Some((host, port)) => {
            let port = port.parse().map_err(|_| "the port is not a number")?;
            (host, Some(port))
        }
        None => (authority, None),
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
        Target::Server(Place {
            user: (!user.is_empty()).then(|| user.into()),
            host: host.into(),
            port: (port != 0).then_some(port),
            path: path.into(),
        })
    }

    #[test]
    fn every_spelling_of_a_home_is_read() {
        for (text, expected) in [
            ("nas:", target("", "nas", 0, "")),
            ("nas:homes/ann/", target("", "nas", 0, "homes/ann")),
            ("ann@nas:/homes//ann", target("ann", "nas", 0, "/homes/ann")),
            ("ann@nas:~/./x", target("ann", "nas", 0, "x")),
            ("ann@nas:/", target("ann", "nas", 0, "/")),
            ("a@b@nas:/x:y", target("a@b", "nas", 0, "/x:y")),
            ("ann@[fe80::1]:/h", target("ann", "fe80::1", 0, "/h")),
            ("ssh://nas", target("", "nas", 0, "")),
            (
                "ssh://ann@nas:2222/h/ann",
                target("ann", "nas", 2222, "/h/ann"),
            ),
            ("ssh://ann@nas/~/h", target("ann", "nas", 0, "h")),
            ("ssh://[::1]:2222/~", target("", "::1", 2222, "")),
            ("/media//usb/home/", Target::Local("/media/usb/home".into())),
            ("file:/media/usb", Target::Local("/media/usb".into())),
            ("file:///a:b@c", Target::Local("/a:b@c".into())),
            ("file://localhost/a", Target::Local("/a".into())),
        ] {
            assert_eq!(Target::parse(text).as_ref(), Ok(&expected), "{text}");
            assert_eq!(Target::parse(&expected.to_string()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_names_no_home_is_refused_with_the_right_spelling() {
        for text in [
            "",
            "nas",
            "file:home/ann",
            "file://nas/home",
            ":x",
            "@nas:x",
            "-oProxy:x",
            "-oProxy@nas:x",
            "a b:x",
            "ssh://",
            "ssh://n:p/x",
            "[::1:x",
            "nas:a\nb",
            "/a\nb",
        ] {
            let error = Target::parse(text).unwrap_err().to_string();
            assert!(error.contains("[USER@]HOST:PATH"), "{text}: {error}");
        }
    }

    #[test]
    fn slugs_are_readable_short_distinct_and_stable() {
        let slug = |text: &str| Target::parse(text).unwrap().slug("ann");
        assert_eq!(slug("nas:/homes/ann"), slug("ann@nas:/homes//ann/"));
        assert_eq!(slug("nas:/x"), slug("ssh://nas:22/x"));
        assert!(slug("nas:/homes/ann").starts_with("ann@nas-homes-ann-"));
        assert_ne!(slug("nas:/a/b"), slug("nas:/a-b"));
        assert_ne!(slug("nas:/a"), slug("ssh://nas:2222/a"));
        assert!(slug(&format!("nas:{}", "x/".repeat(500))).len() < 80);
        assert!(slug("/media/usb").starts_with("media-usb-"));
        assert_eq!(slug("/media/usb"), slug("file:///media/usb/"));
    }
}
