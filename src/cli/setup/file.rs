//! The administrator's configuration, changed line by line: what is written there by hand stays.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::{
    config::Layers,
    control::{Code, Failure},
};

/// All of it; empty if there is none.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(|error| at(path, &error)),
    }
}

/// What the text sets, with its templates, or the default.
pub(super) fn value(text: &str, key: &str) -> Result<String, Failure> {
    let table: toml::Table = text
        .parse()
        .map_err(|error| Failure::new(Code::Usage, format!("{error}")))?;
    let default = || {
        let layers = Layers::defaults()?;
        let found = layers.values().iter().find(|value| value.key == key);
        let text = found.and_then(|value| value.value.as_str());
        Ok::<_, Failure>(text.unwrap_or_default().to_owned())
    };
    match table.get(key).and_then(toml::Value::as_str) {
        Some(set) => Ok(set.to_owned()),
        None => default(),
    }
}

/// The text with these settings: in the line that sets one already, or in the comment that shows it, or at the end.
pub(super) fn set(text: &str, settings: &[(&str, String)]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (key, value) in settings {
        let line = format!("{key} = {}", toml::Value::String(value.clone()));
        let sets = |line: &String, mark: &str| {
            let rest = line.trim_start().strip_prefix(mark);
            let rest = rest.and_then(|rest| rest.strip_prefix(key));
            rest.is_some_and(|rest| rest.trim_start().starts_with('='))
        };
        let find = |mark: &str| lines.iter().position(|line| sets(line, mark));
        match find("").or_else(|| find("#")) {
            Some(at) => lines[at] = line,
            None => lines.push(line),
        }
    }
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

/// The lines that are new, for people.
pub(super) fn changed_lines(before: &str, after: &str) -> String {
    let is_new = |line: &&str| !before.lines().any(|old| old == *line);
    let lines = after.lines().filter(is_new);
    lines.map(|line| format!("  {line}\n")).collect()
}

/// Writes it, in place of the old one.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let next = path.with_extension("toml.next");
    let written = || -> io::Result<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&next)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, path)
    };
    written().map_err(|error| at(path, &error))
}

fn at(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Code::Usage, format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_find_their_line_and_all_else_stays() {
        let text =
            "# The home.\n#server = \"\"\n# on_logout is a word\non_logout = \"keep\" # mine\n";
        let to = |key, value: &str| (key, value.to_owned());
        let settings = [
            to("server", "{user}@nas:a \"b\""),
            to("on_logout", "purge"),
            to("first_login", "local"),
        ];
        let expected = "# The home.\nserver = '{user}@nas:a \"b\"'\n# on_logout is a word\non_logout = \"purge\"\n\
                        first_login = \"local\"\n";
        let changed = set(text, &settings);
        assert_eq!(changed, expected);
        assert_eq!(set(&changed, &settings), expected);
        let values =
            ["server", "on_logout", "first_login", "log"].map(|key| value(&changed, key).unwrap());
        assert_eq!(values, ["{user}@nas:a \"b\"", "purge", "local", "info"]);
        assert!(value("a = ", "a").is_err());
        assert_eq!(set("", &settings[2..]), "first_login = \"local\"\n");
        let lines = changed_lines(text, &changed);
        assert_eq!(lines.lines().count(), 3, "{lines}");
    }
}
