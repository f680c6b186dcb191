//! Manual pages of the command and of each sub-command. Pure.

use clap::Command;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::super::reference;

/// A manual page.
pub(super) struct Page {
    /// Such as `roamhome-mount`.
    pub(super) name: String,
    /// Of the manual.
    pub(super) section: u8,
    /// In roff's language.
    pub(super) text: Vec<u8>,
}

/// Pages that are worth reading after one, besides those of roamhome itself.
const SEE_ALSO: [(&str, &[&str]); 9] = [
    (
        "roamhome",
        &["sftp(1)", "ssh(1)", "mount(8)", "roamhome.toml(5)"],
    ),
    (
        "roamhome-mount",
        &["roamhome-umount(1)", "mount(8)", "roamhome.toml(5)"],
    ),
    ("roamhome-umount", &["roamhome-mount(1)", "umount(8)"]),
    ("roamhome-config", &["roamhome.toml(5)"]),
    (
        "roamhome-login",
        &[
            "roamhome-logout(1)",
            "pam_exec(8)",
            "pam-auth-update(8)",
            "authselect(8)",
            "roamhome.toml(5)",
        ],
    ),
    (
        "roamhome-logout",
        &["roamhome-login(1)", "pam_exec(8)", "roamhome.toml(5)"],
    ),
    ("roamhome-pin", &["roamhome-prefetch(1)", "roamhome-ls(1)"]),
    ("roamhome-check", &["roamhome-rescue(1)"]),
    ("roamhome-rescue", &["roamhome-check(1)"]),
];

/// The pages of a command and of all below it.
pub(super) fn of_commands(mut command: Command) -> Vec<Page> {
    // Gives each sub-command its full name.
    command.build();
    let mut pages = Vec::new();
    add(&command, &mut pages);
    pages
}

fn add(command: &Command, pages: &mut Vec<Page>) {
    let name = command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
        .to_owned();
    for sub in command.get_subcommands() {
        add(sub, pages);
    }
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .source(format!("roamhome {}", env!("CARGO_PKG_VERSION")))
        .manual("roamhome");
    let mut text = Vec::new();
    let rendered = body(&man, command, &mut text);
    debug_assert!(rendered.is_ok(), "memory takes all that is written");
    text.extend(end(&name).into_bytes());
    pages.push(Page {
        name,
        section: 1,
        text,
    });
}

/// What clap knows of it.
fn body(man: &Man, command: &Command, text: &mut Vec<u8>) -> std::io::Result<()> {
    man.render_title(text)?;
    man.render_name_section(text)?;
    text.extend(synopsis(command.clone()).into_bytes());
    man.render_description_section(text)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(text)?;
    }
    if command.get_subcommands().next().is_some() {
        man.render_subcommands_section(text)?;
    }
    Ok(())
}

/// As in `--help`; all options are in a section of their own.
fn synopsis(mut command: Command) -> String {
    let usage = command.render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([roman(usage)]);
    roff.render()
}

/// What it does not know.
fn end(name: &str) -> String {
    let mut roff = Roff::new();
    let is_whole = name == "roamhome";
    roff.control("SH", ["EXIT STATUS"]);
    if is_whole {
        let statuses = reference::exit_statuses();
        table(
            &mut roff,
            statuses.map(|(status, meaning)| (status.to_string(), meaning)),
        );
        roff.control("SH", ["FILES"]);
        table(&mut roff, reference::FILES.into_iter());
        roff.control("SH", ["ENVIRONMENT"]);
        table(&mut roff, reference::ENVIRONMENT.into_iter());
    } else {
        let text =
            "0 if it went well; each kind of failure has a number of its own, see roamhome(1).";
        roff.text([roman(text)]);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(see_also(name).join(", "))]);
    roff.render()
}

/// Terms, each with its meaning.
pub(super) fn table<T: Into<String>>(
    roff: &mut Roff,
    rows: impl Iterator<Item = (T, &'static str)>,
) {
    for (term, meaning) in rows {
        roff.control("TP", []);
        roff.text([bold(term)]);
        roff.text([roman(meaning)]);
    }
}

fn see_also(name: &str) -> Vec<String> {
    let mut pages = Vec::new();
    // The command that it belongs to, and those above.
    let mut above = name;
    while let Some((parent, _)) = above.rsplit_once('-') {
        pages.push(format!("{parent}(1)"));
        above = parent;
    }
    let others = SEE_ALSO.iter().filter(|(of, _)| *of == name);
    pages.extend(
        others
            .flat_map(|(_, pages)| *pages)
            .map(|page| (*page).to_owned()),
    );
    pages
}
