//! The command line: what can be said, and which file does it.
//!
//! Each command is a file. Commands act through a running daemon (`control::client`), except `mount`, which
//! becomes one, `adopt`, which does a daemon's work for once, `demo`, which runs the others, and `check` and `rescue`, which work on a state directory that
//! no daemon has.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};

use crate::{
    config::duration,
    control::{Failure, protocol::Request},
    daemon,
};

mod adopt;
mod background;
mod conflicts;
mod content;
mod dead;
mod demo;
mod doctor;
mod find;
mod flush;
mod generate;
mod keep;
mod kept;
mod keys;
mod leave;
mod link;
mod login;
mod mount;
mod mount_for;
mod options;
mod output;
mod passes;
mod preflight;
mod process;
mod reach;
mod reconcile;
mod reference;
mod settings;
mod setup;
mod state;
mod status;
mod ticket;
mod umount;

/// A home directory that follows its user.
///
/// roamhome mounts a directory of any SSH server. Everything is served from a replica on this machine, so the
/// home works at the disk's speed and without the network; changes are sent to the server in the background,
/// and what changed on both sides is merged: the newest wins, the other is kept as a backup. The server needs
/// nothing but SFTP, and the directory there stays an ordinary one.
#[derive(Debug, Parser)]
#[command(name = "roamhome", version, after_long_help = reference::after_help(), disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Mount a home; returns when the mount serves
    Mount(Box<mount::MountArgs>),
    /// Take an existing directory of this machine over into a home, before that is mounted there
    Adopt(Box<adopt::AdoptArgs>),
    /// Send what is left, then unmount
    #[command(visible_alias = "unmount")]
    Umount(umount::UmountArgs),
    /// Make plain local files of a mounted home again
    Leave(leave::LeaveArgs),
    /// Show connection, unsent files, transfers and problems
    Status {
        #[command(flatten)]
        which: Which,
        /// Print one JSON object with a stable schema
        #[arg(long)]
        json: bool,
    },
    /// Send all that is not on the server yet, and wait for it
    Flush {
        #[command(flatten)]
        which: Which,
        /// Give up after this time, such as 30s or 5min; without it, when nothing moves for 60 s
        #[arg(long, value_name = "T", value_parser = duration::parse)]
        timeout: Option<Duration>,
    },
    /// Compare this machine with the server now, and make both equal
    Reconcile {
        #[command(flatten)]
        which: Which,
        /// Only show what would be done
        #[arg(long)]
        dry_run: bool,
        /// Do it even if much is removed or changed at once; look at --dry-run first
        #[arg(long)]
        force_guard: bool,
    },
    /// Leave the server alone until `roamhome online`
    Offline {
        #[command(flatten)]
        which: Which,
    },
    /// Connect to the server again, at once
    Online {
        #[command(flatten)]
        which: Which,
    },
    /// Versions that lost a conflict or were replaced: list, show, restore
    Backups {
        #[command(subcommand)]
        action: kept::BackupsCommand,
        #[command(flatten)]
        which: MountOption,
    },
    /// What changed on two sides, where one version lost: list, show, resolve
    Conflicts {
        #[command(subcommand)]
        action: conflicts::ConflictsCommand,
        #[command(flatten)]
        which: MountOption,
    },
    /// What passes did that changed something here or on the server, the latest first
    Passes {
        #[command(flatten)]
        which: Which,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Take back what a pass did, as far as nothing changed since
    Undo {
        /// The pass, as `roamhome passes` numbers it
        pass: u64,
        #[command(flatten)]
        which: MountOption,
        /// Only show what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// What was deleted and is kept for a while: list, restore, empty
    Trash {
        #[command(subcommand)]
        action: kept::TrashCommand,
        #[command(flatten)]
        which: MountOption,
    },
    /// List a directory, and where each file's content is: local, remote, dirty, host-scoped
    Ls(content::ListArgs),
    /// Keep content on this machine, and fetch what is missing
    Pin(content::PinArgs),
    /// Let content go again when there is no room for it
    Unpin(content::Paths),
    /// Fetch content, so that it can be read without the server
    Prefetch(content::Paths),
    /// Let content go that the server has: it is fetched again when it is opened
    Evict(content::Paths),
    /// Verify a state directory that no daemon uses
    Check {
        /// The state directory; may be left out when there is exactly one
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
        /// Repair what can be repaired without losing anything; an index that is damaged is made anew, and the old one
        /// kept
        #[arg(long)]
        repair: bool,
        /// Also read all content that the server has, too, and tell what has rotted on the disk; with --repair, that
        /// is put aside and fetched again
        #[arg(long)]
        content: bool,
    },
    /// Copy every file that was never sent out of a state directory, without daemon, index or server
    Rescue {
        /// The state directory
        state_dir: PathBuf,
        /// Where the files go; made if it is not there
        out_dir: PathBuf,
    },
    /// Find out what a server can do, what its lack means, and what to improve
    Doctor(Box<doctor::DoctorArgs>),
    /// Show all settings in force, and where each came from
    Config {
        /// Read this file, too, after the usual ones
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Let this machine log in by a key of its own, so that it needs no password
    Enrol(keys::EnrolArgs),
    /// Let a machine log in no more by its key
    Revoke {
        /// Its name, or its id where several have that name: see `roamhome enrol --list`
        machine: String,
        #[command(flatten)]
        which: MountOption,
    },
    /// The keys that let an account in on this machine, for sshd's AuthorizedKeysCommand
    ///
    /// They are those of the home's .ssh/authorized_keys, as this machine saw it last: sshd asks before the home is
    /// mounted.
    AuthorizedKeys {
        /// The account's name
        account: String,
    },
    /// Set this machine up, so that homes follow logins: server, policy, and PAM when told
    Setup(setup::SetupArgs),
    /// What PAM runs when somebody logs in: mounts their home for as long as they are there
    ///
    /// pam_exec runs it in `auth`, with `expose_authtok`, where it takes the password for the server, and in `session`,
    /// where it returns when the home is there. See pam/README.md. Accounts whose home stays where it is are left alone.
    Login,
    /// What PAM runs when somebody logs out: sends what is left, then unmounts
    ///
    /// The last logout waits for that up to logout_timeout; then this machine goes on sending. Status 3: something is left.
    Logout,
    /// Keep the home of an account mounted while somebody needs it
    #[command(hide = true)]
    Keep(keep::KeepArgs),
    /// Take the Kerberos ticket of who logs in into a state directory, as the account
    #[command(hide = true)]
    TakeTicket(ticket::TicketArgs),
    /// Send what was left when this machine was last used, for all accounts; for its start
    #[command(hide = true)]
    Resume,
    /// Serve a directory of this machine to the daemon that started this process
    #[command(name = daemon::SERVE_COMMAND, hide = true)]
    ServeDirectory {
        /// There was a home in it
        #[arg(long = daemon::SERVE_KNOWN)]
        known: bool,
        directory: PathBuf,
    },
    /// Print what a package installs besides the program: manual pages, and what completes the command line in shells
    #[command(hide = true)]
    Generate {
        #[command(subcommand)]
        what: generate::GenerateCommand,
    },
    /// Show roamhome at work: a throw-away server, and one home mounted from it on two machines
    Demo {
        /// Leave both mounted to try things out, until Enter or Ctrl-C
        #[arg(long)]
        keep: bool,
    },
}

/// Which mount a command is about.
#[derive(Debug, Args)]
struct Which {
    /// The mount; may be left out inside of it, or when there is exactly one
    mountpoint: Option<PathBuf>,
}

impl Which {
    /// The mount, or `other` if none is named.
    fn or<'a>(&'a self, other: Option<&'a Path>) -> Option<&'a Path> {
        self.mountpoint.as_deref().or(other)
    }
}

/// The same, for commands with sub-commands.
#[derive(Debug, Args)]
struct MountOption {
    /// The mount; may be left out inside of it, or when there is exactly one
    #[arg(long, global = true, value_name = "MOUNTPOINT")]
    mount: Option<PathBuf>,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    if let Some(answered) = daemon::answer_ssh() {
        return ExitCode::from(u8::from(!answered));
    }
    let args: Vec<OsString> = std::env::args_os().collect();
    // Errors of usage exit with 2, which is Code::Usage.
    let cli = Cli::parse_from(&args);
    let for_pam = matches!(cli.command, Command::Login | Command::Logout);
    match run(cli, &args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            match for_pam {
                true => output::tell_failure(&failure),
                false => output::print_failure(&failure),
            }
            ExitCode::from(failure.code.status())
        }
    }
}

fn run(cli: Cli, args: &[OsString]) -> Result<(), Failure> {
    match cli.command {
        Command::Mount(mount) => mount::run(*mount, args),
        Command::Adopt(adopt) => adopt::run(&adopt, args),
        Command::Umount(umount) => umount::run(&umount),
        Command::Leave(leave) => leave::run(&leave),
        Command::Status { which, json } => status::run(which.mountpoint.as_deref(), json),
        Command::Flush { which, timeout } => flush::run(which.mountpoint.as_deref(), timeout),
        Command::Reconcile {
            which,
            dry_run,
            force_guard,
        } => reconcile::run(which.mountpoint.as_deref(), dry_run, force_guard),
        Command::Offline { which } => link::run(which.mountpoint.as_deref(), Request::Offline),
        Command::Online { which } => link::run(which.mountpoint.as_deref(), Request::Online),
        Command::Backups { action, which } => kept::backups(action, which.mount.as_deref()),
        Command::Conflicts { action, which } => conflicts::run(action, which.mount.as_deref()),
        Command::Passes { which, json } => passes::list(which.mountpoint.as_deref(), json),
        Command::Undo {
            pass,
            which,
            dry_run,
        } => passes::undo(which.mount.as_deref(), pass, dry_run),
        Command::Trash { action, which } => kept::trash(action, which.mount.as_deref()),
        Command::Ls(args) => content::list(&args),
        Command::Pin(args) => content::pin(&args),
        Command::Unpin(paths) => content::unpin(&paths),
        Command::Prefetch(paths) => content::prefetch(&paths),
        Command::Evict(paths) => content::evict(&paths),
        Command::Check {
            state,
            repair,
            content,
        } => state::check(state, repair, content),
        Command::Rescue { state_dir, out_dir } => state::rescue(&state_dir, &out_dir),
        Command::Doctor(args) => doctor::run(&args),
        Command::Config { config } => settings::run(config.as_deref()),
        Command::Enrol(args) => keys::enrol(&args),
        Command::Revoke { machine, which } => keys::revoke(machine, which.mount.as_deref()),
        Command::AuthorizedKeys { account } => keys::authorized(&account),
        Command::Setup(args) => setup::run(&args),
        Command::Login => login::login(),
        Command::Logout => login::logout(),
        Command::Keep(args) => keep::run(&args),
        Command::TakeTicket(args) => ticket::run(&args),
        Command::Resume => login::resume(),
        Command::ServeDirectory { known, directory } => daemon::serve_directory(&directory, known),
        Command::Generate { what } => generate::run(&what),
        Command::Demo { keep } => demo::run(keep),
    }
}

#[cfg(test)]
mod tests;
