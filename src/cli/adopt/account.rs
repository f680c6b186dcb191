//! Root adopts for an account: what reads the directory, and talks to the server, runs as the account.

use std::{
    ffi::{OsStr, OsString},
    io::{self, IsTerminal, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use super::{AdoptArgs, Done, check};
use crate::{
    cli::{
        background,
        keep::{PATH, Roaming, check_root, prepare, state_dir},
        output, preflight, process,
        reach::{Files, ask_secrets, while_refused},
    },
    config::{Env, Way},
    control::{Code, Failure},
    daemon::Access,
    login::{Account, Places},
};

/// The hidden flag of the process that does the work.
pub(super) const WORKER_FLAG: &str = "worker";

/// Adopts for the account `name`; `said` is the whole command line. Answers how the home is mounted afterwards, too.
pub(super) fn run(
    args: &AdoptArgs,
    name: &str,
    said: &[OsString],
) -> Result<(Done, String), Failure> {
    check_root("adopts for others")?;
    let unknown = |why: &str| Failure::new(Code::Usage, format!("{name}: {why}"));
    let account = Account::find(name)
        .map_err(|error| unknown(&error.to_string()))?
        .filter(|account| account.is_person(1))
        .ok_or_else(|| unknown("there is no such account for people"))?;
    let env = Env::of_account(&account.name, account.uid, &account.home);
    let state = [("state_dir", "--state", args.state.as_deref())];
    let target = args.target.as_deref();
    let options = args.way.options()?;
    let mut access = args
        .way
        .access(&env, Files::System, target, &options, &state)?;
    let source = check::source(&args.dir, account.uid, &preflight::read_mounts()?)?;
    let state_dir = state_dir(&account, &access.config);
    check::outside(&source, &state_dir)?;
    let at = Account {
        home: source,
        ..account.clone()
    };
    let places = prepare(&at, &state_dir, &access.way)?;
    process::await_holder(&places.state_dir)?;
    access.secrets.password = args.way.password()?;
    let done = work(&account, &places, &access, said);
    let asks = args.way.password_fd.is_none()
        && io::stdin().is_terminal()
        && matches!(access.way, Way::Russh(_));
    let done = while_refused(asks, done, || {
        access.secrets = ask_secrets(&access)?;
        Ok(work(&account, &places, &access, said))
    });
    Ok((done?, mounted_by(&account, &places, &access)?))
}

/// How the home will be mounted.
fn mounted_by(account: &Account, places: &Places, access: &Access) -> Result<String, Failure> {
    let follows = Roaming::find(&account.name)?.is_some() && account.home == places.mountpoint;
    Ok(match follows {
        true => format!("the next login of {} mounts the home there", account.name),
        false => format!(
            "mount the home: roamhome mount -o setuid={} {} {}",
            account.name,
            access.target,
            places.mountpoint.display()
        ),
    })
}

/// Has it done by a process of the account's.
fn work(
    account: &Account,
    places: &Places,
    access: &Access,
    said: &[OsString],
) -> Result<Done, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(Code::General, format!("the work cannot be done: {error}"))
    };
    let mut child = command(account, places, access, said)
        .spawn()
        .map_err(|error| failed(&error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that is gone already says so below.
        drop(background::hand_over(&mut stdin, &access.secrets, false));
    }
    let mut answer = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout
            .read_to_end(&mut answer)
            .map_err(|error| failed(&error))?;
    }
    let status = child.wait().map_err(|error| failed(&error))?;
    serde_json::from_slice::<Result<Done, Failure>>(&answer)
        .unwrap_or_else(|_| Err(failed(&status).remedy("run the same command again: it goes on")))
}

fn command(account: &Account, places: &Places, access: &Access, said: &[OsString]) -> Command {
    let option = |key: &str, value: &OsStr| {
        let mut option = OsString::from(format!("{key}="));
        option.push(value);
        option
    };
    // The program that this process is, also when another has been installed meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", &account.home)
        .env("USER", &account.name)
        .env("LOGNAME", &account.name)
        .envs(std::env::var_os("ROAMHOME_LOG").map(|log| ("ROAMHOME_LOG", log)))
        .uid(account.uid)
        .gid(account.gid)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .arg("adopt")
        // Right behind the command: what follows may hold a `--`.
        .arg(option(
            &format!("--{WORKER_FLAG}"),
            places.mountpoint.as_os_str(),
        ))
        .args([
            OsStr::new("-o"),
            &option("state", places.state_dir.as_os_str()),
        ])
        .args([
            OsStr::new("-o"),
            &option("server", OsStr::new(&access.target.to_string())),
        ])
        .args(said.iter().skip(2));
    command
}

/// In that process: tells what came of it.
pub(super) fn tell(outcome: &Result<Done, Failure>) -> Result<(), Failure> {
    let told = serde_json::to_string(outcome);
    output::emit(&told.map_err(|error| Failure::new(Code::General, error.to_string()))?)
}

/// In that process: it ends with the one that root started.
pub(super) fn end_with_parent() {
    use rustix::process::{Signal, set_parent_process_death_signal};
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        tracing::warn!(%error, "this process may outlive who started it");
    }
}

/// How the home of this process's user is mounted.
pub(super) fn mounted_here(target: &str, dir: &Path) -> String {
    format!("mount the home: roamhome mount {target} {}", dir.display())
}
