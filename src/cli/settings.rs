//! `roamhome config`, and how commands come to their settings.

use std::path::Path;

use super::output;
use crate::{
    config::{ConfigError, Env, Layers, TargetError},
    control::{Code, Failure},
};

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Code::Usage, error.to_string())
            .remedy("`roamhome config` lists all settings and where each came from")
    }
}

impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Self {
        Self::new(Code::Usage, error.to_string())
    }
}

/// The user of this process.
pub(super) fn env() -> Result<Env, Failure> {
    Env::current()
        .map_err(|error| Failure::new(Code::General, format!("cannot tell who you are: {error}")))
}

/// Prints all settings.
pub(super) fn run(extra: Option<&Path>) -> Result<(), Failure> {
    let layers = Layers::load(&env()?, extra)?;
    output::emit(&listing(&layers))
}

fn listing(layers: &Layers) -> String {
    let line = |value: &crate::config::Value| {
        let setting = format!("{} = {}", value.key, value.value);
        vec![setting, format!("# {}", value.source)]
    };
    // Long lists would push all other sources out of sight.
    const WIDTH_MAX: usize = 60;
    let (short, long): (Vec<_>, Vec<_>) = layers
        .values()
        .iter()
        .map(line)
        .partition(|row| row[0].chars().count() <= WIDTH_MAX);
    let mut text = output::table(&short);
    for row in long {
        text.push_str(&format!("{}  {}\n", row[0], row[1]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_is_listed_with_its_source_as_valid_toml() {
        let mut layers = Layers::defaults().unwrap();
        layers.set_flag("identity", "/k", "--identity").unwrap();
        let text = listing(&layers);
        let line = |key: &str| text.lines().find(|line| line.starts_with(key)).unwrap();
        assert!(line("fetch_timeout = \"30s\"").ends_with("# default"));
        assert!(line("identity = \"/k\"").ends_with("# --identity"));
        let parsed: toml::Table = text.parse().unwrap();
        assert_eq!(parsed.len(), layers.values().len());
    }
}
