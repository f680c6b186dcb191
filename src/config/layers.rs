//! The layers that settings come from, lowest first, and the checks on each value.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, de::Error as _};
use toml::Table;

use super::{Config, Env};

/// Every key at its default, with what it means: the manual of the format.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// It is roamhome's own.
    Default,
    /// A configuration file.
    File(PathBuf),
    /// A command line option, as it was spelled.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// Why the configuration cannot be used. All name the place and the key.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{path}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// With line and column.
        message: String,
    },
    /// No setting has this name.
    #[error("{source_of}: there is no setting {key:?}; did you mean {nearest:?}?")]
    UnknownKey {
        /// Where it stands.
        source_of: Source,
        /// The unknown key.
        key: String,
        /// The known key that is spelled most alike.
        nearest: String,
    },
    /// The value does not fit the setting.
    #[error("{source_of}: {key}: {message}")]
    BadValue {
        /// Where it stands.
        source_of: Source,
        /// The setting.
        key: String,
        /// What would fit.
        message: String,
    },
}

/// One setting with its source.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// The setting's name.
    pub key: String,
    /// In TOML.
    pub value: toml::Value,
    /// Who set it.
    pub source: Source,
}

/// The settings in force, and where each came from.
#[derive(Debug, Clone)]
pub struct Layers {
    values: Vec<Value>,
    config: Config,
}

impl Layers {
    /// The shipped defaults alone.
    pub fn defaults() -> Result<Self, ConfigError> {
        let table = parse_toml(Path::new("defaults.toml"), DEFAULTS)?;
        // In the order of the file, which is the order of `roamhome config`.
        let position = |key: &str| DEFAULTS.find(&format!("\n{key} = ")).unwrap_or(usize::MAX);
        let mut values: Vec<_> = table
            .into_iter()
            .map(|(key, value)| Value {
                key,
                value,
                source: Source::Default,
            })
            .collect();
        values.sort_by_key(|value| position(&value.key));
        let config = to_config(&values).map_err(|message| ConfigError::Syntax {
            path: PathBuf::from("defaults.toml"),
            message,
        })?;
        Ok(Self { values, config })
    }

    /// The defaults and the usual files of `env`'s user, then `extra`, which has to be there.
    pub fn load(env: &Env, extra: Option<&Path>) -> Result<Self, ConfigError> {
        let mut layers = Self::of_files(env.config_files(), env)?;
        if let Some(path) = extra {
            let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
                path: path.to_owned(),
                source,
            })?;
            layers.add_file(path, &text, env)?;
        }
        Ok(layers)
    }

    /// The defaults and the administrator's files: nothing of this has its user chosen.
    pub fn load_system(env: &Env) -> Result<Self, ConfigError> {
        Self::of_files(env.system_config_files(), env)
    }

    fn of_files(files: Vec<PathBuf>, env: &Env) -> Result<Self, ConfigError> {
        let mut layers = Self::defaults()?;
        for path in files {
            match std::fs::read_to_string(&path) {
                Ok(text) => layers.add_file(&path, &text, env)?,
                Err(error) if is_absent(&error) => {}
                Err(source) => return Err(ConfigError::Read { path, source }),
            }
        }
        Ok(layers)
    }

    /// Adds the text of a file on top; templates in it are filled in for `env`'s user.
    pub fn add_file(&mut self, path: &Path, text: &str, env: &Env) -> Result<(), ConfigError> {
        let source = Source::File(path.to_owned());
        for (key, mut value) in parse_toml(path, text)? {
            if let toml::Value::String(text) = &mut value {
                *text = env.fill_in(text);
            }
            self.set(&key, value, source.clone())?;
        }
        Ok(())
    }

    /// Sets one value, as a command line option does. `flag` is how the user spelled it. Where a setting is
    /// not a text, `value` is read as TOML.
    pub fn set_flag(&mut self, key: &str, value: &str, flag: &str) -> Result<(), ConfigError> {
        let is_text = |known: &Value| known.key == key && known.value.is_str();
        let parsed = if self.values.iter().any(is_text) {
            None
        } else {
            let table = format!("value = {value}").parse::<Table>().ok();
            table.and_then(|mut table| table.remove("value"))
        };
        let value = parsed.unwrap_or_else(|| value.into());
        self.set(key, value, Source::Flag(flag.to_owned()))
    }

    /// The settings in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Each setting with its source, in the order of the manual.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    fn set(&mut self, key: &str, value: toml::Value, source: Source) -> Result<(), ConfigError> {
        let Some(index) = self.values.iter().position(|known| known.key == key) else {
            return Err(ConfigError::UnknownKey {
                source_of: source,
                key: key.to_owned(),
                nearest: self.nearest(key),
            });
        };
        let mut values = self.values.clone();
        values[index].value = value;
        values[index].source = source.clone();
        self.config = to_config(&values).map_err(|message| ConfigError::BadValue {
            source_of: source,
            key: key.to_owned(),
            message,
        })?;
        self.values = values;
        Ok(())
    }

    fn nearest(&self, key: &str) -> String {
        self.values
            .iter()
            .map(|known| known.key.as_str())
            .min_by_key(|known| distance(key, known))
            .unwrap_or_default()
            .to_owned()
    }
}

/// A parent that is a file, or a directory that others may not enter, means that there is no such file for us.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn parse_toml(path: &Path, text: &str) -> Result<Table, ConfigError> {
    text.parse()
        .map_err(|error: toml::de::Error| ConfigError::Syntax {
            path: path.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })
}

fn to_config(values: &[Value]) -> Result<Config, String> {
    values
        .iter()
        .map(|value| (value.key.clone(), value.value.clone()))
        .collect::<Table>()
        .try_into()
        .map_err(|error: toml::de::Error| error.message().to_owned())
}

/// The number of letters to insert, remove or change (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

/// An empty text means that the setting is not set; TOML has no null.
pub(super) fn optional<'de, D, T>(input: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: From<String>,
{
    let text = String::deserialize(input)?;
    Ok(Some(text).filter(|text| !text.is_empty()).map(T::from))
}

pub(super) fn share<'de, D: Deserializer<'de>>(input: D) -> Result<f64, D::Error> {
    let share = f64::deserialize(input)?;
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        Err(D::Error::custom("a share lies between 0.0 and 1.0"))
    }
}

pub(super) fn channels<'de, D: Deserializer<'de>>(input: D) -> Result<u8, D::Error> {
    match u8::deserialize(input)? {
        channels @ 1..=8 => Ok(channels),
        _ => Err(D::Error::custom("a number from 1 to 8 is needed")),
    }
}

pub(super) fn uploads<'de, D: Deserializer<'de>>(input: D) -> Result<u16, D::Error> {
    match u16::deserialize(input)? {
        uploads @ 1..=1024 => Ok(uploads),
        _ => Err(D::Error::custom("a number from 1 to 1024 is needed")),
    }
}

pub(super) fn log_level<'de, D: Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    let level = String::deserialize(input)?;
    if crate::logging::is_valid_level(&level) {
        Ok(level)
    } else {
        Err(D::Error::custom(format!(
            "{level:?} is no level; use error, warn, info, debug or trace"
        )))
    }
}

#[cfg(test)]
mod tests;
