//! `roamhome mount`: settings, checks, then a daemon in the background or in this process.

use std::{
    ffi::OsString,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;

use super::{
    background, dead, mount_for, preflight,
    process::{self, Process},
    reach::{ReachArgs, Terminal, ask_secrets, while_refused},
    settings,
};
use crate::{
    config::{Env, Way, control_socket_name},
    control::Failure,
    daemon::{self, Access, MountRequest},
    logging,
};

/// What can be said to `mount`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The replica is kept in --state DIR, by default in a directory of its own for each home below
$XDG_STATE_HOME/roamhome (for root: /var/lib/roamhome). It holds what is not on the server yet, so
it must not be deleted before `roamhome umount` says that nothing is left.

For root, -o setuid=ACCOUNT mounts for an account, as from fstab: the daemon runs as the account,
and the replica is in /var/lib/roamhome/ACCOUNT.

A home that was mounted here before comes up without the network. The exit status tells why a mount
failed: see `roamhome --help`.")]
pub(super) struct MountArgs {
    #[command(flatten)]
    pub(super) reach: ReachArgs,
    /// An empty directory
    pub(super) mountpoint: PathBuf,
    /// Stay in the foreground and log to standard error
    #[arg(long)]
    foreground: bool,
    /// Where the replica is kept
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// This process is the daemon of a `mount` that waits for its report
    #[arg(long = background::CHILD_FLAG, hide = true)]
    pub(super) as_daemon: bool,
    /// Its standard input leads to who mounts for it
    #[arg(long = background::BROKER_FLAG, hide = true, requires = "as_daemon")]
    by_broker: bool,
}

/// Mounts; `args` is the whole command line.
pub(super) fn run(mount: MountArgs, args: &[OsString]) -> Result<(), Failure> {
    if let Some(account) = mount.reach.options()?.setuid
        && !mount.by_broker
    {
        return mount_for::run(&mount, &account, args);
    }
    if mount.as_daemon {
        let outcome = prepare(&mount).and_then(|mut request| {
            let (secrets, asker) = background::become_child()?;
            request.access.secrets = secrets;
            request.access.asker = asker;
            if mount.by_broker {
                let broker = background::become_brokered(&request.state_dir)?;
                request.broker = Some(Arc::new(broker));
            }
            serve(request, || background::report(Ok(())))
        });
        if let Err(failure) = &outcome {
            background::report(Err(failure.clone()));
        }
        return outcome;
    }
    let mut request = prepare(&mount)?;
    request.access.secrets.password = mount.reach.password()?;
    let attempt = |request: &MountRequest| {
        if mount.foreground {
            let at = request.mountpoint.display().to_string();
            let mut request = request.clone();
            request.access.asker = Terminal::asker();
            serve(request, move || {
                tracing::info!("mounted at {at}");
                // Without systemd there is nobody to tell.
                drop(sd_notify::notify(false, &[sd_notify::NotifyState::Ready]));
            })
        } else {
            background::start(args, &request.access.secrets, &request.state_dir)
        }
    };
    let outcome = attempt(&request);
    // ssh asks by itself.
    let asks = mount.reach.password_fd.is_none()
        && io::stdin().is_terminal()
        && matches!(request.access.way, Way::Russh(_));
    while_refused(asks, outcome, || {
        let secrets = ask_secrets(&request.access)?;
        // The failed attempt may have taken away what it had made.
        request = prepare(&mount)?;
        request.access.secrets = secrets;
        Ok(attempt(&request))
    })
}

/// The one place where a command becomes a daemon.
fn serve(request: MountRequest, ready: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    logging::init(&request.access.config.log);
    daemon::run(request, Box::new(ready))
}

impl MountArgs {
    /// What was said here and in the files, for the user of `env`.
    pub(super) fn access(&self, env: &Env) -> Result<Access, Failure> {
        let state = [("state_dir", "--state", self.state.as_deref())];
        self.reach.access(env, &self.reach.options()?, &state)
    }
}

/// All that can be said and checked without the server.
fn prepare(mount: &MountArgs) -> Result<MountRequest, Failure> {
    let env = settings::env()?;
    let options = mount.reach.options()?;
    let mut access = mount.access(&env)?;

    if !mount.by_broker {
        preflight::check_fuse(Path::new("/dev/fuse"))?;
        preflight::check_helper(env.uid, &std::env::var_os("PATH").unwrap_or_default())?;
        dead::clear(&mount.mountpoint)?;
    }
    let mounts = preflight::read_mounts()?;
    let mountpoint = preflight::check_mountpoint(&mount.mountpoint, &mounts, options.nonempty)?;
    let state_dir = access
        .config
        .state_dir
        .clone()
        .unwrap_or_else(|| env.state_root().join(access.target.slug(&env.user)));
    if let Way::Local(home) = &access.way {
        preflight::check_apart(Path::new(home), &mountpoint, &state_dir)?;
    }
    let state_dir = preflight::prepare_state_dir(&state_dir, &mountpoint, env.uid)?;

    access.state_dir = Some(state_dir.clone());
    access.for_login = mount.by_broker;

    let name = control_socket_name(&mountpoint);
    let mut dirs = env.runtime_dirs();
    if mount.by_broker {
        // It outlives the login, and /run/user/UID does not.
        dirs = vec![env.system_runtime_dir()];
    }
    if !mount.as_daemon {
        // Nothing is mounted there, so whoever still serves it is about to end.
        if let Some(daemon) = Process::serving(Some(&mountpoint)) {
            daemon.has_ended();
        }
        process::await_holder(&state_dir)?;
    }
    Ok(MountRequest {
        access,
        mountpoint,
        state_dir,
        control_sockets: dirs.iter().map(|dir| dir.join(&name)).collect(),
        // A broker mounts for all to look in, as far as modes let them.
        allow_other: options.allow_other || mount.by_broker,
        read_only: options.read_only,
        broker: None,
    })
}
