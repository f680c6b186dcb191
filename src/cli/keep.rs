//! `roamhome keep`: the keeper's process, which root runs for one account. Not for people: systemd starts it, or the first
//! step of a login does.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use clap::Args;

use super::{background, dead, output, preflight, process::Process};
use crate::{
    config::{Config, Env, FirstLogin, Layers, OnLogout, Target, Way, control_socket_name},
    control::{Code, Failure, Secret, client},
    daemon::{self, Place, Secrets, Unmount},
    logging,
    login::{self, Account, Daemon, Job, Places, Started},
};

/// Where replicas are.
const STATE_ROOT: &str = "/var/lib/roamhome";

/// What a login waits for beyond the server's own patience.
const MARGIN: Duration = Duration::from_secs(5);

/// A daemon runs with this and nothing of whoever logged in.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An account whose home follows it.
pub(super) struct Roaming {
    pub(super) account: Account,
    pub(super) config: Config,
    target: Target,
    way: Way,
    server: String,
    pub(super) state_dir: PathBuf,
}

impl Roaming {
    /// By name or number; none for accounts whose home stays where it is.
    pub(super) fn find(name: &str) -> Result<Option<Self>, Failure> {
        let account = Account::find(name).map_err(|error| {
            Failure::new(
                Code::General,
                format!("{name}: the account cannot be looked up: {error}"),
            )
        })?;
        // Before the configuration, which must not keep root out.
        let Some(account) = account.filter(|account| account.is_person(1)) else {
            return Ok(None);
        };
        let env = Env::of_account(&account.name, account.uid, &account.home);
        let config = Layers::load_system(&env)?.config().clone();
        let Some(server) = config.server.clone() else {
            return Ok(None);
        };
        if !account.is_person(config.login_min_uid) {
            return Ok(None);
        }
        let target = Target::parse(&server)?;
        Ok(Some(Self {
            state_dir: state_dir(&account, &config),
            way: config.way(&target)?,
            account,
            config,
            target,
            server,
        }))
    }

    /// Its directories, made.
    pub(super) fn prepare(&self) -> Result<Places, Failure> {
        prepare(&self.account, &self.state_dir, &self.way)
    }

    /// Whether the system's ssh goes to the server, which may have a Kerberos ticket let it in.
    pub(super) fn is_by_ssh(&self) -> bool {
        matches!(self.way, Way::Ssh { .. })
    }

    /// Whether the home was here before.
    pub(super) fn is_known(&self) -> bool {
        daemon::is_known(&self.state_dir)
    }
}

/// Where the replica of an account's home is.
pub(super) fn state_dir(account: &Account, config: &Config) -> PathBuf {
    let usual = || Path::new(STATE_ROOT).join(&account.name);
    config.state_dir.clone().unwrap_or_else(usual)
}

/// The directories of an account's home, made. A mount there whose daemon is gone is taken away.
pub(super) fn prepare(account: &Account, state_dir: &Path, way: &Way) -> Result<Places, Failure> {
    dead::clear(&account.home)?;
    let places = Places::prepare(account, state_dir)?;
    if let Way::Local(home) = way {
        preflight::check_apart(Path::new(home), &places.mountpoint, &places.state_dir)?;
    }
    Ok(places)
}

/// What can be said to `keep`.
#[derive(Debug, Args)]
pub(super) struct KeepArgs {
    /// The account's name or number
    account: String,
    /// Only tell by the exit status whether a home follows the account
    #[arg(long)]
    check: bool,
    /// Only print where that home is
    #[arg(long)]
    server: bool,
}

/// Keeps the home of an account until nobody needs it.
pub(super) fn run(args: &KeepArgs) -> Result<(), Failure> {
    let name = &args.account;
    let Some(roaming) = Roaming::find(name)? else {
        let message = format!("{name}: no home follows this account");
        return Err(Failure::new(Code::Usage, message).remedy(
            "set `server` in /etc/roamhome/config.toml; accounts below login_min_uid have none",
        ));
    };
    if args.server {
        return output::emit(&format!("{}\n", roaming.server));
    }
    if args.check {
        return Ok(());
    }
    check_root("keeps homes for others")?;
    logging::init(&roaming.config.log);
    keep_secrets();
    // Not of the session that came first. It may be the leader of one already.
    let _already = rustix::process::setsid();
    let places = roaming.prepare()?;
    let config = &roaming.config;
    let job = Job {
        uid: roaming.account.uid,
        login_timeout: config.login_timeout,
        first_timeout: config.fetch_timeout + MARGIN,
        logout_timeout: config.logout_timeout,
        purge: config.on_logout == OnLogout::Purge,
        local_without_home: config.first_login == FirstLogin::Local,
        alive: Box::new(|| {
            drop(sd_notify::notify(
                false,
                &[sd_notify::NotifyState::Watchdog],
            ))
        }),
        daemon: Box::new(UserDaemon::new(&roaming, places)),
    };
    login::keep(job, || {
        // Without systemd there is nobody to tell.
        drop(sd_notify::notify(false, &[sd_notify::NotifyState::Ready]));
    })
}

/// Only root can run what mounts for others.
pub(super) fn check_root(what: &str) -> Result<(), Failure> {
    match rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => Err(Failure::new(Code::Usage, format!("only root {what}"))),
    }
}

/// What this process holds does not reach a swap disk or a core file, as far as the system lets it be.
fn keep_secrets() {
    use rustix::{
        mm::{MlockAllFlags, mlockall},
        process::{DumpableBehavior, set_dumpable_behavior},
    };
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if let Err(error) = mlockall(all) {
        tracing::warn!(%error, "memory is not locked");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "a core file could be made");
    }
}

/// The daemon of an account, which runs as the account.
pub(super) struct UserDaemon {
    pub(super) account: Account,
    pub(super) places: Places,
    pub(super) target: Target,
    /// What is said to `mount`.
    pub(super) args: Vec<OsString>,
}

impl UserDaemon {
    fn new(roaming: &Roaming, places: Places) -> Self {
        let args = [
            "--state".as_ref(),
            places.state_dir.as_os_str(),
            roaming.server.as_ref(),
            places.mountpoint.as_os_str(),
        ];
        Self {
            args: args.map(OsString::from).to_vec(),
            account: roaming.account.clone(),
            places,
            target: roaming.target.clone(),
        }
    }

    fn place(&self) -> Place {
        Place {
            home: self.target.to_string(),
            at: self.places.mountpoint.clone(),
            uid: self.account.uid,
            gid: self.account.gid,
            state_dir: self.places.state_dir.clone(),
        }
    }

    fn command(&self) -> Command {
        use std::os::unix::process::CommandExt;
        // The program that this process is, also when another has been installed meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", &self.account.home)
            .env("USER", &self.account.name)
            .env("LOGNAME", &self.account.name)
            .current_dir("/")
            .uid(self.account.uid)
            .gid(self.account.gid)
            .arg("mount")
            // Right behind the command: what follows may hold a `--`.
            .arg(format!("--{}", background::CHILD_FLAG))
            .arg(format!("--{}", background::BROKER_FLAG))
            .args(&self.args);
        command
    }
}

impl Daemon for UserDaemon {
    fn is_known(&self) -> bool {
        daemon::is_known(&self.places.state_dir)
    }

    fn control_socket(&self) -> PathBuf {
        let name = control_socket_name(&self.places.mountpoint);
        self.places.runtime_dir.join(name)
    }

    fn start(&self, password: Option<Secret>) -> Result<Started, Failure> {
        if let Some(pong) = client::ping(&self.control_socket()) {
            return Ok(Started::Other(pong.pid));
        }
        preflight::check_fuse(Path::new("/dev/fuse"))?;
        let at = &self.places.mountpoint;
        dead::clear(at)?;
        let mounts = preflight::read_mounts()?;
        preflight::check_mountpoint(at, &mounts, false)?;
        if let Some(before) = daemon::holder(&self.places.state_dir).and_then(Process::of) {
            before.has_ended();
        }
        let secrets = Secrets {
            password,
            passphrase: None,
        };
        let command = self.command();
        background::start_for(command, self.place(), &secrets, &self.places.state_dir)
            .map(Started::Child)
    }

    fn unmount(&self, lazily: bool) -> io::Result<()> {
        self.place().unmount(match lazily {
            true => Unmount::Lazily,
            false => Unmount::IfUnused,
        })
    }

    fn hand_over(&self) -> io::Result<()> {
        self.places.hand_over(&self.account)
    }
}
