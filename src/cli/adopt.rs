//! `roamhome adopt`: takes an existing directory of this machine over into a home, before that is mounted over it.

use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

use clap::Args;

use super::{
    background,
    output::{ProgressLine, count, emit, printable, size},
    preflight, process,
    reach::{Files, Terminal, WayArgs, ask_secrets, while_refused},
    settings,
};
use crate::{
    config::Way,
    control::{Code, Failure},
    daemon::{self, AdoptRequest, Adopted, Foretold},
    logging,
};

mod account;
mod aside;
mod check;

/// What can be said to `adopt`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
DIR is only read. All of it is first copied into the replica (which takes no room where the disk can share blocks),
then merged with the server as any two machines are: what only one side has is on both afterwards, of a file that
differs the newest version wins, and the other one is kept: `roamhome conflicts list`, `roamhome backups list`.

Cut off at any point, the same command goes on. What could not be read or sent is named, and the status is 3.

Root adopts for an account as a login would mount it: --account NAME, the home from `server` in the
administrator's files, the replica in /var/lib/roamhome/NAME.")]
pub(super) struct AdoptArgs {
    /// The directory, such as /home/ann
    dir: PathBuf,
    /// The home; without it, the one that the configuration names
    #[arg(value_name = "[USER@]HOST:PATH")]
    target: Option<String>,
    #[command(flatten)]
    way: WayArgs,
    /// Where the replica is or will be kept, as for `mount`; not inside of DIR
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// For root: whose home it is
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Only show what would be done; nothing is written to the server
    #[arg(long)]
    dry_run: bool,
    /// When all is on the server, rename DIR to DIR.before-roamhome, and make an empty DIR to mount at
    #[arg(long)]
    move_aside: bool,
    /// This process works for root, on this directory
    #[arg(long = account::WORKER_FLAG, hide = true, value_name = "DIR")]
    worker: Option<PathBuf>,
}

/// What came of the work, told by the process that did it.
#[derive(serde::Serialize, serde::Deserialize)]
enum Done {
    Adopted(Adopted),
    Foretold(Foretold),
}

/// Adopts, or tells what would come of it.
pub(super) fn run(args: &AdoptArgs, said: &[std::ffi::OsString]) -> Result<(), Failure> {
    if let Some(dir) = &args.worker {
        account::end_with_parent();
        let outcome = args.work_for_root(dir);
        return account::tell(&outcome);
    }
    let account = args.account.clone().or(args.way.options()?.setuid);
    if args.move_aside {
        aside::check(&dir(args)?)?;
    }
    let (done, mount) = match account {
        Some(name) => account::run(args, &name, said)?,
        None => args.work_here()?,
    };
    match done {
        Done::Foretold(foretold) => foresee(&foretold),
        Done::Adopted(adopted) => {
            emit(&summary(&adopted))?;
            check_complete(args, &adopted)?;
            let dir = dir(args)?;
            if args.move_aside {
                aside::move_aside(&dir)?;
                let aside = aside::name_of(&dir);
                return emit(&format!(
                    "what was in {} is {} now; {mount}\n",
                    dir.display(),
                    aside.display()
                ));
            }
            let dir = dir.display();
            emit(&format!(
                "{dir} is as it was; the same command with --move-aside makes room there, then {mount}\n"
            ))
        }
    }
}

/// The directory without links: what leads to it keeps its name.
fn dir(args: &AdoptArgs) -> Result<PathBuf, Failure> {
    args.dir
        .canonicalize()
        .map_err(|error| Failure::new(Code::Usage, format!("{}: {error}", args.dir.display())))
}

impl AdoptArgs {
    /// In this process, for who started it.
    fn work_here(&self) -> Result<(Done, String), Failure> {
        let mut request = self.request(&self.dir, true)?;
        request.access.secrets.password = self.way.password()?;
        request.access.asker = Terminal::asker();
        let done = self.work(&request);
        let asks = self.way.password_fd.is_none()
            && io::stdin().is_terminal()
            && matches!(request.access.way, Way::Russh(_));
        let done = while_refused(asks, done, || {
            let secrets = ask_secrets(&request.access)?;
            // The failed attempt may have taken away what it had made.
            request = self.request(&self.dir, true)?;
            request.access.secrets = secrets;
            Ok(self.work(&request))
        });
        let target = request.access.target.to_string();
        Ok((done?, account::mounted_here(&target, &request.source)))
    }

    /// In this process, which root started as the account.
    fn work_for_root(&self, dir: &Path) -> Result<Done, Failure> {
        let (secrets, asker) = background::become_child()?;
        let mut request = self.request(dir, false)?;
        request.access.secrets = secrets;
        request.access.asker = asker;
        self.work(&request)
    }

    fn work(&self, request: &AdoptRequest) -> Result<Done, Failure> {
        let mut line = ProgressLine::new();
        let mut watcher = |progress: &_| line.show(progress);
        match self.dry_run {
            true => daemon::foretell(request, &mut watcher).map(Done::Foretold),
            false => daemon::adopt(request, &mut watcher).map(Done::Adopted),
        }
    }

    /// All that can be said and checked without the server. `make` says whether the state directory is to be made.
    fn request(&self, dir: &Path, make: bool) -> Result<AdoptRequest, Failure> {
        let env = settings::env()?;
        let options = self.way.options()?;
        let state = [("state_dir", "--state", self.state.as_deref())];
        let target = self.target.as_deref();
        let mut access = self
            .way
            .access(&env, Files::All, target, &options, &state)?;
        logging::init(if std::env::var_os("ROAMHOME_LOG").is_some() {
            &access.config.log
        } else {
            "error"
        });
        let mounts = preflight::read_mounts()?;
        let source = check::source(dir, env.uid, &mounts)?;
        let usual = || env.state_root().join(access.target.slug(&env.user));
        let state_dir = access.config.state_dir.clone().unwrap_or_else(usual);
        check::outside(&source, &state_dir)?;
        if let Way::Local(home) = &access.way {
            preflight::check_apart(Path::new(home), &source, &state_dir)?;
        }
        let state_dir = match make {
            true => preflight::prepare_state_dir(&state_dir, &source, env.uid)?,
            false => state_dir,
        };
        process::await_holder(&state_dir)?;
        access.state_dir = Some(state_dir.clone());
        Ok(AdoptRequest {
            access,
            mounts: check::below(&source, &mounts),
            source,
            state_dir,
        })
    }
}

/// Tells what would be done.
fn foresee(foretold: &Foretold) -> Result<(), Failure> {
    let lines = foretold.lines.iter();
    let mut text: String = lines.map(|line| printable(line) + "\n").collect();
    text.push_str(&format!(
        "{} ({}): {} ({}) would be sent, {} of equal size compared, {} would be taken over from the server; {}\n",
        count(foretold.files, "file"),
        size(foretold.bytes),
        foretold.sent,
        size(foretold.sent_bytes),
        foretold.compared,
        foretold.taken,
        conflicts(foretold.conflicts),
    ));
    for at in &foretold.mounts {
        text.push_str(&left_out(at));
    }
    emit(&text)?;
    failed(&foretold.problems, "would not be taken over")
}

fn entries(number: u64) -> String {
    match number {
        1 => "1 entry".to_owned(),
        number => format!("{number} entries"),
    }
}

fn conflicts(number: u64) -> String {
    match number {
        0 => "no conflicts".to_owned(),
        number => count(number, "conflict"),
    }
}

fn left_out(mount: &str) -> String {
    format!(
        "left out, since something is mounted there: {}\n",
        printable(mount)
    )
}

/// What came of it, in one line and what is to be known beside.
fn summary(adopted: &Adopted) -> String {
    let mut text = format!(
        "{}: {} ({}) sent, {} on the server already, {}\n",
        count(adopted.files, "file"),
        adopted.sent,
        size(adopted.sent_bytes),
        adopted.equal,
        conflicts(adopted.conflicts),
    );
    if adopted.conflicts > 0 {
        text.push_str("of each conflict both versions are kept: `roamhome conflicts list`, `roamhome backups list`\n");
    }
    let notes = [
        (
            adopted.known,
            "was here already, as it is",
            "were here already, as they are",
        ),
        (
            adopted.scoped,
            "stays on its machine, and was left out",
            "stay on their machine, and were left out",
        ),
        (
            adopted.with_acl,
            "has an access control list, which stays on this machine",
            "have access control lists, which stay on this machine",
        ),
    ];
    for (number, one, many) in notes {
        match number {
            0 => {}
            1 => text.push_str(&format!("1 {one}\n")),
            _ => text.push_str(&format!("{number} {many}\n")),
        }
    }
    adopted
        .mounts
        .iter()
        .for_each(|at| text.push_str(&left_out(at)));
    text
}

/// Whether all of the directory is in the home.
fn check_complete(args: &AdoptArgs, adopted: &Adopted) -> Result<(), Failure> {
    failed(&adopted.problems, "could not be taken over")?;
    let dir = args.dir.display();
    if adopted.changed > 0 {
        let changed: Vec<_> = adopted
            .changed_paths
            .iter()
            .map(|path| printable(path))
            .collect();
        let message = format!(
            "{dir} changed while the rest of it was being sent ({}, such as {})",
            entries(adopted.changed),
            changed.join(", ")
        );
        return Err(Failure::new(Code::Unsent, message).remedy(
            "end what works in there, and run the same command again: it takes over what changed",
        ));
    }
    if args.move_aside && !adopted.mounts.is_empty() {
        let message = format!("{dir} is not moved aside: something is mounted in it");
        return Err(Failure::new(Code::Mountpoint, message)
            .remedy("unmount that, and run the same command again"));
    }
    Ok(())
}

/// Names the problems.
fn failed(problems: &[String], what: &str) -> Result<(), Failure> {
    if problems.is_empty() {
        return Ok(());
    }
    let lines = problems.iter();
    let lines: String = lines.map(|line| format!("{}\n", printable(line))).collect();
    emit(&lines)?;
    let number = entries(problems.len() as u64);
    Err(
        Failure::new(Code::Unsent, format!("{number} {what}, as listed"))
            .remedy("mend that, and run the same command again"),
    )
}
