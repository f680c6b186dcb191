//! How a home's directory is reached: what the settings say, put together with what its name says. Pure.

use serde::{Deserialize, Deserializer, de::Error as _};

use super::{Config, Place, Target};

/// What carries SFTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// SSH that roamhome speaks itself.
    Russh,
    /// The system's `ssh`.
    Ssh,
    /// A program that speaks SFTP on its standard streams.
    Command,
    /// A directory of this machine.
    Local,
}

/// The way to one home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// By our own SSH.
    Russh(Place),
    /// By `ssh` and the first arguments of its command.
    Ssh {
        /// Never empty.
        command: Vec<String>,
        /// Where `ssh` is to go.
        place: Place,
    },
    /// By a program.
    Command {
        /// Never empty.
        command: Vec<String>,
        /// As the program calls the directory; empty for where it starts.
        path: String,
    },
    /// None: it is here.
    Local(String),
}

/// Why there is no way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WayError {
    /// The transport lacks its program.
    #[error("transport = \"{transport}\" needs a program: set {key}")]
    NoCommand {
        /// The transport.
        transport: &'static str,
        /// The setting that is empty.
        key: &'static str,
    },
    /// The home is on a server.
    #[error(
        "{0} is on a server, and transport = \"local\" reaches directories of this machine alone: write /PATH"
    )]
    NotLocal(Place),
}

impl Config {
    /// The way to `target`.
    pub fn way(&self, target: &Target) -> Result<Way, WayError> {
        let command = |command: &Vec<String>, transport, key| match command.is_empty() {
            true => Err(WayError::NoCommand { transport, key }),
            false => Ok(command.clone()),
        };
        let by_program = |path: &String| {
            Ok(Way::Command {
                command: command(&self.sftp_command, "command", "sftp_command")?,
                path: path.clone(),
            })
        };
        match (self.transport, target) {
            (Transport::Command, Target::Local(path)) => by_program(path),
            // There is but one other way to a directory of this machine.
            (_, Target::Local(path)) => Ok(Way::Local(path.clone())),
            (Transport::Command, Target::Server(place)) => by_program(&place.path),
            (Transport::Russh, Target::Server(place)) => Ok(Way::Russh(place.clone())),
            (Transport::Ssh, Target::Server(place)) => Ok(Way::Ssh {
                command: command(&self.ssh_command, "ssh", "ssh_command")?,
                place: place.clone(),
            }),
            (Transport::Local, Target::Server(place)) => Err(WayError::NotLocal(place.clone())),
        }
    }
}

/// Reads a command as a shell splits it: at blanks outside of quotes; nothing else is special.
pub(super) fn words<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<String>, D::Error> {
    split(&String::deserialize(input)?).map_err(D::Error::custom)
}

fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                let next = chars.next().ok_or("nothing follows the last backslash")?;
                word.get_or_insert_default().push(next);
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    match quote {
        Some(_) => Err("a quote is not closed"),
        None => Ok(words),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Layers;
    use super::*;

    #[test]
    fn commands_are_split_as_a_shell_does() {
        for (text, words) in [
            ("", &[][..]),
            (" ssh  -F\t/c ", &["ssh", "-F", "/c"]),
            (
                r#"a 'b c' "d'e" f\ g "h\"i" '' j"k"l"#,
                &["a", "b c", "d'e", "f g", "h\"i", "", "jkl"],
            ),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
        for text in ["a 'b", "a \"b", "a\\"] {
            assert!(split(text).is_err(), "{text}");
        }
    }

    #[test]
    fn name_and_settings_together_tell_the_way() {
        let way = |settings: &[(&str, &str)], target: &str| {
            let mut layers = Layers::defaults().unwrap();
            for (key, value) in settings {
                layers.set_flag(key, value, "test").unwrap();
            }
            layers.config().way(&Target::parse(target).unwrap())
        };
        let ssh = ("transport", "ssh");
        let command = ("transport", "command");
        assert!(matches!(way(&[], "nas:x"), Ok(Way::Russh(_))));
        assert!(matches!(way(&[ssh], "nas:x"), Ok(Way::Ssh { command, .. }) if command == ["ssh"]));
        for settings in [&[][..], &[ssh], &[("transport", "local")]] {
            assert_eq!(way(settings, "/x"), Ok(Way::Local("/x".into())));
        }
        let program = ("sftp_command", "sudo sftp-server");
        for (target, path) in [("nas:x", "x"), ("/x", "/x"), ("nas:", "")] {
            let expected = Way::Command {
                command: vec!["sudo".into(), "sftp-server".into()],
                path: path.into(),
            };
            assert_eq!(way(&[command, program], target), Ok(expected));
        }
        for (settings, says) in [
            (&[command][..], "set sftp_command"),
            (&[ssh, ("ssh_command", "")], "set ssh_command"),
            (&[("transport", "local")], "nas:x is on a server"),
        ] {
            let error = way(settings, "nas:x").unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
