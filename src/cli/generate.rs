//! `roamhome generate`: manual pages, and the scripts that complete the command line, made of the command line itself.
//! `make install` runs it. What is hidden in `--help` is hidden in them, too.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Command, CommandFactory, Subcommand};
use clap_complete::Shell;

use super::{Cli, output};
use crate::{
    config::DEFAULTS,
    control::{Code, Failure},
};

mod pages;
mod settings_page;

/// What can be made.
#[derive(Debug, Subcommand)]
pub(super) enum GenerateCommand {
    /// All manual pages, as files in directories man1 and man5
    Man {
        /// The directory, such as /usr/share/man
        dir: PathBuf,
    },
    /// Print the script that completes the command line
    Completions {
        /// For which shell
        shell: Shell,
    },
}

/// Makes it.
pub(super) fn run(what: &GenerateCommand) -> Result<(), Failure> {
    let command = without_hidden(&Cli::command());
    match what {
        GenerateCommand::Man { dir } => write_pages(command, dir),
        GenerateCommand::Completions { shell } => output::emit(&completions(command, *shell)),
    }
}

fn write_pages(command: Command, dir: &Path) -> Result<(), Failure> {
    let mut pages = pages::of_commands(command);
    pages.push(settings_page::page(DEFAULTS));
    for page in pages {
        let dir = dir.join(format!("man{}", page.section));
        let path = dir.join(format!("{}.{}", page.name, page.section));
        fs::create_dir_all(&dir)
            .and_then(|()| fs::write(&path, page.text))
            .map_err(|error| Failure::new(Code::General, format!("{}: {error}", path.display())))?;
    }
    Ok(())
}

fn completions(mut command: Command, shell: Shell) -> String {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The same command without what is not for people: the scripts would complete it.
fn without_hidden(command: &Command) -> Command {
    let mut visible = Command::new(command.get_name().to_owned())
        .disable_help_subcommand(true)
        .subcommand_required(command.is_subcommand_required_set())
        .visible_aliases(
            command
                .get_visible_aliases()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
        .args(command.get_arguments().filter(|arg| !arg.is_hide_set()))
        .subcommands(
            command
                .get_subcommands()
                .filter(|sub| !sub.is_hide_set())
                .map(without_hidden),
        );
    if let Some(about) = command.get_about() {
        visible = visible.about(about.clone());
    }
    if let Some(about) = command.get_long_about() {
        visible = visible.long_about(about.clone());
    }
    if let Some(version) = command.get_version() {
        visible = visible.version(version.to_owned());
    }
    visible
}

#[cfg(test)]
mod tests;
