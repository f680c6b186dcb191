//! Where a home is, as people write it.

use std::fmt;
use std::str::FromStr;

/// A directory on an SSH server: `[USER@]HOST:PATH` or `ssh://[USER@]HOST[:PORT]/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The login name; the local one if absent.
    pub user: Option<String>,
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The directory; relative to where logins start if it does not begin with a slash.
    pub path: String,
}

/// Why some text is no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a place on a server: {why}; write [USER@]HOST:PATH or ssh://[USER@]HOST[:PORT]/PATH"
)]
pub struct TargetError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// The port of SSH.
pub const SSH_PORT: u16 = 22;

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let parsed = match ["ssh://", "sftp://"]
            .iter()
            .find_map(|p| text.strip_prefix(p))
        {
            Some(rest) => parse_uri(rest),
            None => parse_scp(text),
        };
        let target = parsed.and_then(|target| match target.host.is_empty() {
            true => Err("the host is missing"),
            // It would be taken for an option by programs it is handed to.
            false if target.host.starts_with('-') => Err("a host cannot begin with a dash"),
            false if target.user.as_deref() == Some("") => Err("the user is missing before the @"),
            false if text.contains('\0') => Err("it contains a NUL"),
            false => Ok(target),
        });
        target.map_err(|why| TargetError {
            text: text.to_owned(),
            why,
        })
    }
}

fn parse_uri(rest: &str) -> Result<Target, &'static str> {
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, host_port) = split_user(authority);
    let (host, after) = split_host(host_port)?;
    let port = match after.strip_prefix(':') {
        Some(port) => port.parse().map_err(|_| "the port is not a number")?,
        None if after.is_empty() => SSH_PORT,
        None => return Err("something follows the host"),
    };
    // `/~/x` is the way to write a relative path in a URI.
    let path = match path.strip_prefix("/~") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.trim_start_matches('/'),
        _ => path,
    };
    Ok(Target {
        user,
        host: host.to_owned(),
        port,
        path: path.to_owned(),
    })
}

fn parse_scp(text: &str) -> Result<Target, &'static str> {
    // The user ends at the last @ before the path, which begins at the first colon outside of brackets.
    let at = text.find('[').map_or(0, |open| match text.find(':') {
        Some(colon) if colon < open => 0,
        _ => text[open..].find(']').map_or(0, |close| open + close),
    });
    let colon = text[at..].find(':').ok_or("the path is missing")? + at;
    let (user, host_part) = split_user(&text[..colon]);
    let (host, after) = split_host(host_part)?;
    if !after.is_empty() {
        return Err("something follows the host");
    }
    let path = &text[colon + 1..];
    let path = match path.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.trim_start_matches('/'),
        _ => path,
    };
    Ok(Target {
        user,
        host: host.to_owned(),
        port: SSH_PORT,
        path: path.to_owned(),
    })
}

fn split_user(text: &str) -> (Option<String>, &str) {
    match text.rsplit_once('@') {
        Some((user, host)) => (Some(user.to_owned()), host),
        None => (None, text),
    }
}

/// A host, out of its brackets, and what follows it.
fn split_host(text: &str) -> Result<(&str, &str), &'static str> {
    match text.strip_prefix('[') {
        Some(inner) => inner.split_once(']').ok_or("a bracket is not closed"),
        None => Ok(text.split_at(text.find(':').unwrap_or(text.len()))),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        if self.port != SSH_PORT {
            write!(f, ":{}", self.port)?;
        }
        match self.path.starts_with('/') {
            true => f.write_str(&self.path),
            false => write!(f, "/~/{}", self.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(user: Option<&str>, host: &str, port: u16, path: &str) -> Target {
        Target {
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        }
    }

    #[test]
    fn both_ways_of_writing_a_target_are_read_and_shown_again() {
        for (text, expected) in [
            ("h:/srv/a", target(None, "h", 22, "/srv/a")),
            ("ada@h:a b", target(Some("ada"), "h", 22, "a b")),
            ("h:", target(None, "h", 22, "")),
            ("h:~/x", target(None, "h", 22, "x")),
            ("h:~ada", target(None, "h", 22, "~ada")),
            ("a@b.c@h:x:y@[z]", target(Some("a@b.c"), "h", 22, "x:y@[z]")),
            ("ada@[::1]:/x", target(Some("ada"), "::1", 22, "/x")),
            ("ssh://ada@h:2222/x", target(Some("ada"), "h", 2222, "/x")),
            ("ssh://[fe80::1]:23/x", target(None, "fe80::1", 23, "/x")),
            ("ssh://h/~/x", target(None, "h", 22, "x")),
            ("sftp://h", target(None, "h", 22, "")),
        ] {
            let parsed: Target = text.parse().unwrap();
            assert_eq!(parsed, expected, "{text}");
            assert_eq!(parsed.to_string().parse(), Ok(parsed), "{text}");
        }
    }

    #[test]
    fn what_is_no_target_is_refused_with_a_reason() {
        for text in [
            "",
            "h",
            "/srv",
            ":x",
            "@h:x",
            "-oProxyCommand=x:y",
            "ssh://h:x/",
            "[::1:/x",
        ] {
            let refused = text.parse::<Target>();
            assert!(refused.is_err(), "{text}: {refused:?}");
        }
    }
}
