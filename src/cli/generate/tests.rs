use super::*;

/// Names that are not for people.
const HIDDEN: [&str; 6] = [
    "keep",
    "resume",
    "generate",
    "serve-directory",
    "--as-daemon",
    "--by-broker",
];

#[test]
fn every_command_has_a_page_and_what_is_hidden_has_none() {
    let pages = pages::of_commands(without_hidden(&Cli::command()));
    let names: Vec<_> = pages.iter().map(|page| page.name.as_str()).collect();
    for name in ["roamhome", "roamhome-mount", "roamhome-backups-restore"] {
        assert!(names.contains(&name), "{names:?}");
    }
    for page in &pages {
        let text = str::from_utf8(&page.text).unwrap();
        for section in [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "\"EXIT STATUS\"",
            "\"SEE ALSO\"",
        ] {
            assert_eq!(
                text.matches(&format!(".SH {section}\n")).count(),
                1,
                "{section}: {text}"
            );
        }
    }
    let all = || names.join(" ") + str::from_utf8(&pages.last().unwrap().text).unwrap();
    for hidden in &HIDDEN[..4] {
        assert!(!all().contains(&format!("roamhome-{hidden}")), "{hidden}");
    }
}

#[test]
fn the_page_of_the_configuration_has_every_key() {
    let page = settings_page::page(DEFAULTS);
    let text = String::from_utf8(page.text).unwrap();
    let table: toml::Table = DEFAULTS.parse().unwrap();
    for key in table.keys() {
        assert!(text.contains(&format!("\\fB{key}\\fR = ")), "{key}: {text}");
    }
}

#[test]
fn completions_offer_no_hidden_commands_and_options() {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let script = completions(without_hidden(&Cli::command()), shell);
        assert!(script.contains("reconcile") && script.contains("known-hosts"));
        for hidden in HIDDEN {
            let words = script.split(|c: char| !(c.is_alphanumeric() || c == '-'));
            let is_offered = words.into_iter().any(|word| word == hidden);
            // `demo --keep` is for people.
            assert!(!is_offered || hidden == "keep", "{shell}: {hidden}");
        }
    }
}
