//! The manual page of the configuration, roamhome.toml(5), made of the file that has every key with its meaning. Pure.

use clap_mangen::roff::{Roff, bold, italic, roman};

use super::pages::{Page, table};

/// Keys that are explained together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Group<'a> {
    /// Sentences, in lines.
    text: Vec<&'a str>,
    /// Each `key = value`, a list in several lines.
    keys: Vec<Vec<&'a str>>,
}

const FILES: [(&str, &str); 3] = [
    (
        "/etc/roamhome/config.toml",
        "For all accounts. Packages install it with every key commented out.",
    ),
    ("/etc/roamhome/users/USER.toml", "For one account."),
    (
        "$XDG_CONFIG_HOME/roamhome/config.toml",
        "The user's own, ~/.config/roamhome/config.toml without the variable; not for homes that root mounts at login.",
    ),
];

/// The page that the text of the defaults makes.
pub(super) fn page(defaults: &str) -> Page {
    let groups = read(defaults);
    let mut roff = Roff::new();
    let source = format!("roamhome {}", env!("CARGO_PKG_VERSION"));
    roff.control("TH", ["ROAMHOME.TOML", "5", "", &source, "roamhome"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("roamhome.toml - configuration of roamhome")]);
    roff.control("SH", ["DESCRIPTION"]);
    for group in groups.iter().filter(|group| group.keys.is_empty()) {
        paragraph(&mut roff, &group.text);
    }
    roff.control("SH", ["SETTINGS"]);
    for group in groups.iter().filter(|group| !group.keys.is_empty()) {
        setting(&mut roff, group);
    }
    roff.control("SH", ["FILES"]);
    table(&mut roff, FILES.into_iter());
    roff.control("SH", ["EXAMPLE"]);
    let example = [
        "server = \"{user}@nas:homes/{user}\"",
        "known_hosts = \"/etc/ssh/ssh_known_hosts\"",
        "cache_size = \"20GiB\"",
    ];
    verbatim(&mut roff, &example);
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(
        "roamhome(1), roamhome-config(1), roamhome-mount(1), roamhome-login(1), gitignore(5)",
    )]);
    Page {
        name: "roamhome.toml".into(),
        section: 5,
        text: roff.render().into_bytes(),
    }
}

fn setting(roff: &mut Roff, group: &Group<'_>) {
    for (number, key) in group.keys.iter().enumerate() {
        roff.control(if number == 0 { "TP" } else { "TQ" }, []);
        let (name, value) = key[0].split_once(" = ").unwrap_or((key[0], ""));
        roff.text([bold(name), roman(" = "), italic(value)]);
    }
    roff.text([roman(group.text.join("\n"))]);
    for list in group.keys.iter().filter(|key| key.len() > 1) {
        roff.control("RS", []);
        verbatim(roff, &list[1..]);
        roff.control("RE", []);
    }
}

fn paragraph(roff: &mut Roff, text: &[&str]) {
    roff.control("PP", []);
    roff.text([roman(text.join("\n"))]);
}

fn verbatim(roff: &mut Roff, lines: &[&str]) {
    roff.control("nf", []);
    roff.text([roman(lines.join("\n"))]);
    roff.control("fi", []);
}

/// Comments, and the keys that follow them.
fn read(defaults: &str) -> Vec<Group<'_>> {
    let mut groups = vec![Group::default()];
    for line in defaults.lines() {
        let Some(last) = groups.last_mut() else {
            break;
        };
        if let Some(text) = line.strip_prefix('#') {
            let text = text.trim();
            match last.keys.is_empty() {
                true => last.text.push(text),
                false => groups.push(Group {
                    text: vec![text],
                    keys: Vec::new(),
                }),
            }
        } else if line.is_empty() {
            groups.push(Group::default());
        } else {
            match last.keys.last_mut() {
                Some(list) if line.starts_with([' ', ']']) => list.push(line),
                _ => last.keys.push(vec![line]),
            }
        }
    }
    groups.retain(|group| !group.text.is_empty());
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_below_one_another_share_what_is_said_above() {
        let groups = read("# All.\n\n# One\n# key.\na = 1\n# Two.\nb = 2\nc = [\n    \"x\",\n]\n");
        let group = |text: &[&'static str], keys: &[&[&'static str]]| Group {
            text: text.to_vec(),
            keys: keys.iter().map(|lines| lines.to_vec()).collect(),
        };
        assert_eq!(
            groups,
            [
                group(&["All."], &[]),
                group(&["One", "key."], &[&["a = 1"]]),
                group(&["Two."], &[&["b = 2"], &["c = [", "    \"x\",", "]"]]),
            ]
        );
    }
}
