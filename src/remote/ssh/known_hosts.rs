//! The `known_hosts` files of ssh, as sshd(8) describes them. Whoever is known must not pass for new, so a key that
//! is not understood counts as well.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use russh::keys::PublicKey;
use russh::keys::ssh_key::known_hosts::HostPatterns;
use sha1::Sha1;

/// The port that a name in such a file does not tell.
const PORT: u16 = 22;

/// What a line says of a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// In its file, from 1.
    pub(super) number: usize,
    /// The key; nothing if it is of a kind that we do not speak.
    pub(super) key: Option<PublicKey>,
    /// What the key is good for.
    pub(super) mark: Mark,
}

/// What a line says of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// It is the server's.
    Own,
    /// It vouches for servers by certificates.
    Authority,
    /// Nobody with this key is to be trusted.
    Revoked,
}

/// The server as such files call it.
pub(super) fn name(host: &str, port: u16) -> String {
    match port {
        PORT => host.to_ascii_lowercase(),
        port => format!("[{}]:{port}", host.to_ascii_lowercase()),
    }
}

/// All that a file says of the server `name`; nothing if there is no such file.
pub(super) fn read(file: &Path, name: &str) -> io::Result<Vec<Line>> {
    match std::fs::read(file) {
        Ok(text) => Ok(about(&text, name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn about(text: &[u8], name: &str) -> Vec<Line> {
    let lines = text.split(|byte| *byte == b'\n').enumerate();
    let parsed = lines.filter_map(|(index, line)| parse(index + 1, line, name));
    parsed.collect()
}

/// A line about the server `name`.
fn parse(number: usize, line: &[u8], name: &str) -> Option<Line> {
    let line = String::from_utf8_lossy(line);
    let mut fields = line.split_ascii_whitespace().peekable();
    let mark = fields.next_if(|field| field.starts_with('@'));
    let mark = match mark {
        None => Mark::Own,
        Some("@revoked") => Mark::Revoked,
        Some("@cert-authority") => Mark::Authority,
        Some(_) => return None,
    };
    let (hosts, kind, key) = (fields.next()?, fields.next()?, fields.next()?);
    if hosts.starts_with('#') || !names(hosts, name) {
        return None;
    }
    Some(Line {
        number,
        key: PublicKey::from_openssh(&format!("{kind} {key}")).ok(),
        mark,
    })
}

/// Whether the first field of a line means the server `name`.
fn names(hosts: &str, name: &str) -> bool {
    match hosts.parse() {
        Ok(HostPatterns::HashedName { salt, hash }) => Hmac::<Sha1>::new_from_slice(&salt)
            .is_ok_and(|hmac| hmac.chain_update(name).verify_slice(&hash).is_ok()),
        Ok(HostPatterns::Patterns(patterns)) => {
            let is_meant =
                |pattern: &str| matches(pattern.to_ascii_lowercase().as_bytes(), name.as_bytes());
            let (but, of): (Vec<_>, Vec<_>) = patterns
                .iter()
                .map(|pattern| (pattern.strip_prefix('!'), pattern.as_str()))
                .partition(|(but, _)| but.is_some());
            let is_excluded = but.iter().any(|(but, _)| but.is_some_and(is_meant));
            !is_excluded && of.iter().any(|(_, pattern)| is_meant(pattern))
        }
        Err(_) => false,
    }
}

/// Whether `pattern`, in which `*` is anything and `?` any character, fits all of `text`.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // Where to go on if what follows the last star does not fit.
    let mut star = None;
    let (mut at, mut seen) = (0, 0);
    while seen < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(c) if *c == b'?' || *c == text[seen] => {
                at += 1;
                seen += 1;
            }
            _ => match star {
                Some((star_at, from)) => {
                    star = Some((star_at, from + 1));
                    (at, seen) = (star_at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|c| *c == b'*')
}

/// Remembers a server's key.
pub(super) fn learn(file: &Path, name: &str, key: &PublicKey) -> io::Result<()> {
    if let Some(dir) = file.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600);
    let mut known = options.open(file)?;
    let mut last = [b'\n'];
    if known.metadata()?.len() > 0 {
        known.seek(SeekFrom::End(-1))?;
        known.read_exact(&mut last)?;
    }
    let begin = if last == [b'\n'] { "" } else { "\n" };
    let key = key.to_openssh().map_err(io::Error::other)?;
    known.write_all(format!("{begin}{name} {key}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::identity::random_key;
    use super::*;

    /// Three keys as such files have them.
    fn keys() -> [String; 3] {
        [(); 3].map(|()| random_key().unwrap().public_key().to_openssh().unwrap())
    }

    fn numbers(text: &str, host: &str, port: u16) -> Vec<usize> {
        let lines = about(text.as_bytes(), &name(host, port));
        lines.iter().map(|line| line.number).collect()
    }

    #[test]
    fn each_way_to_name_a_host_is_understood() {
        let [key, ..] = keys();
        let hosts = [
            "plain.example.org",
            "one,Two.Example.Org",
            "[plain.example.org]:2222",
            "*.example.org,!secret.example.org",
            "192.0.2.?",
        ];
        let text: String = hosts
            .map(|hosts| format!("{hosts}\t {key} comment\n"))
            .concat();
        let text = format!("# plain.example.org {key}\n\n{text}nonsense\n\u{fffd} x y\n");
        for (host, port, lines) in [
            ("plain.example.org", 22, &[3, 6][..]),
            ("PLAIN.example.org", 22, &[3, 6]),
            ("plain.example.org", 2222, &[5]),
            ("two.example.org", 22, &[4, 6]),
            ("secret.example.org", 22, &[]),
            ("192.0.2.1", 22, &[7]),
            ("192.0.2.11", 22, &[]),
            ("example.org", 22, &[]),
        ] {
            assert_eq!(numbers(&text, host, port), lines, "{host}:{port}");
        }
        // As `ssh-keygen -H` writes it.
        let hashed = format!("|1|O33ESRMWPVkMYIwJ1Uw+n877jTo=|nuuC5vEqXlEZ/8BXQR7m619W6Ak= {key}");
        assert_eq!(numbers(&hashed, "example.com", 22), [1]);
        assert!(numbers(&hashed, "example.org", 22).is_empty());
    }

    #[test]
    fn what_is_not_understood_hides_nothing_else() {
        let [key, other, revoked] = keys();
        let text = format!(
            "host sk-strange@example.org AAAA\nhost {key}\n@revoked * {revoked}\n@cert-authority * {other}\n"
        );
        let lines = about(&[text.as_bytes(), b"\xff\xff\n"].concat(), "host");
        let found: Vec<_> = lines
            .iter()
            .map(|line| (line.number, line.key.is_some(), line.mark))
            .collect();
        assert_eq!(
            found,
            [
                (1, false, Mark::Own),
                (2, true, Mark::Own),
                (3, true, Mark::Revoked),
                (4, true, Mark::Authority)
            ]
        );
    }

    #[test]
    fn what_is_learnt_is_known_and_nobody_else_may_write_there() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ssh/known_hosts");
        let keys = [(); 2].map(|()| random_key().unwrap().public_key().clone());
        assert_eq!(read(&file, "host").unwrap(), []);
        for (key, name) in keys.iter().zip(["host", "[other]:2222"]) {
            learn(&file, name, key).unwrap();
            let known = read(&file, name).unwrap();
            assert_eq!(known.len(), 1);
            let data = known[0].key.as_ref().map(PublicKey::key_data);
            assert_eq!(data, Some(key.key_data()));
        }
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
        // A last line that somebody left open stays one of its own.
        std::fs::write(&file, "# theirs").unwrap();
        learn(&file, "host", &keys[0]).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert_eq!(read(&file, "host").unwrap().len(), 1);
    }
}
