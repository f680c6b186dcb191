//! `roamhome mount`: settings, checks, then a daemon in the background or in this process.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, BufReader, IsTerminal},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use super::{
    background, dead,
    options::{self, MountOptions},
    preflight,
    process::{self, Process},
    settings,
};
use crate::{
    config::{Env, Layers, Target, control_socket_name},
    control::{Code, Failure},
    daemon::{self, MountRequest, Secret, Secrets},
    logging,
};

/// How often a person may mistype a password.
const PASSWORD_TRIES: usize = 3;

/// What can be said to `mount`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The replica is kept in --state DIR, by default in a directory of its own for each home below
$XDG_STATE_HOME/roamhome (for root: /var/lib/roamhome). It holds what is not on the server yet, so
it must not be deleted before `roamhome umount` says that nothing is left.

A home that was mounted here before comes up without the network. The exit status tells why a mount
failed: see `roamhome --help`.")]
pub(super) struct MountArgs {
    /// The home: [USER@]HOST:PATH or ssh://[USER@]HOST[:PORT]/PATH
    ///
    /// A PATH without a leading slash is relative to the directory where the server lets the user in.
    #[arg(value_name = "[USER@]HOST:PATH")]
    target: String,
    /// An empty directory
    mountpoint: PathBuf,
    /// Stay in the foreground and log to standard error
    #[arg(long)]
    foreground: bool,
    /// The port of the server's sshd
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// The private key to log in with, instead of the agent's and those in ~/.ssh
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// The file of known host keys, instead of the usual ones
    #[arg(long, value_name = "FILE")]
    known_hosts: Option<PathBuf>,
    /// Where the replica is kept
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// What to do with a host whose key is not known; a changed key is always refused
    #[arg(long, value_enum, value_name = "POLICY")]
    host_key_policy: Option<PolicyArg>,
    /// Read this file of settings, too, after the usual ones
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Options as in fstab: port=, identity=, state=, allow_other, ro, or KEY=VALUE of any setting
    ///
    /// What is meant for mount(8) or systemd (_netdev, noauto, nofail, x-systemd.*, comment= and so on) is
    /// accepted and skipped.
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<String>,
    /// Read the password from this file descriptor, up to the end of the line
    #[arg(long, value_name = "N")]
    password_fd: Option<u32>,
    /// This process is the daemon of a `mount` that waits for its report
    #[arg(long = background::CHILD_FLAG, hide = true)]
    as_daemon: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PolicyArg {
    /// Refuse it
    Strict,
    /// Take note of its key, and trust it from then on
    AcceptNew,
}

/// Mounts; `args` is the whole command line.
pub(super) fn run(mount: MountArgs, args: &[OsString]) -> Result<(), Failure> {
    if mount.as_daemon {
        let outcome = prepare(&mount).and_then(|request| {
            let secrets = background::become_child()?;
            serve(MountRequest { secrets, ..request }, || {
                background::report(Ok(()))
            })
        });
        if let Err(failure) = &outcome {
            background::report(Err(failure.clone()));
        }
        return outcome;
    }
    let mut request = prepare(&mount)?;
    request.secrets.password = mount.password_fd.map(read_fd).transpose()?.flatten();
    let attempt = |request: &MountRequest| {
        if mount.foreground {
            let at = request.mountpoint.display().to_string();
            serve(request.clone(), move || tracing::info!("mounted at {at}"))
        } else {
            background::start(args, &request.secrets, &request.state_dir)
        }
    };
    let mut outcome = attempt(&request);
    for _ in 0..PASSWORD_TRIES {
        match &outcome {
            Err(failure)
                if failure.code == Code::Authentication
                    && mount.password_fd.is_none()
                    && io::stdin().is_terminal() =>
            {
                let secrets = ask_secrets(&request)?;
                // The failed attempt may have taken away what it had made.
                request = MountRequest {
                    secrets,
                    ..prepare(&mount)?
                };
                outcome = attempt(&request);
            }
            _ => break,
        }
    }
    outcome
}

/// The one place where a command becomes a daemon.
fn serve(request: MountRequest, ready: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    logging::init(&request.config.log);
    daemon::run(request, Box::new(ready))
}

/// All that can be said and checked without the server.
fn prepare(mount: &MountArgs) -> Result<MountRequest, Failure> {
    let env = settings::env()?;
    let options =
        options::parse(&mount.options).map_err(|message| Failure::new(Code::Usage, message))?;
    let layers = layers(mount, &options, &env)?;
    let config = layers.config().clone();
    let mut target = Target::parse(&mount.target, &env.user)?;
    if let Some(port) = mount.port.or(options.port) {
        target.port = port;
    }

    preflight::check_fuse(Path::new("/dev/fuse"))?;
    preflight::check_helper(env.uid, &std::env::var_os("PATH").unwrap_or_default())?;
    dead::clear(&mount.mountpoint)?;
    let mounts = preflight::read_mounts()?;
    let mountpoint = preflight::check_mountpoint(&mount.mountpoint, &mounts, options.nonempty)?;
    let state_dir = config
        .state_dir
        .clone()
        .unwrap_or_else(|| env.state_root().join(target.slug()));
    let state_dir = preflight::prepare_state_dir(&state_dir, &mountpoint, env.uid)?;

    let name = control_socket_name(&mountpoint);
    let dirs = env.runtime_dirs();
    if !mount.as_daemon {
        // Nothing is mounted there, so whoever still serves it is about to end.
        if let Some(daemon) = Process::serving(Some(&mountpoint)) {
            daemon.has_ended();
        }
        process::await_holder(&state_dir)?;
    }
    Ok(MountRequest {
        target,
        mountpoint,
        state_dir,
        control_sockets: dirs.iter().map(|dir| dir.join(&name)).collect(),
        config,
        secrets: Secrets::default(),
        allow_other: options.allow_other,
        read_only: options.read_only,
    })
}

/// The usual files, then `-o`, then the flags. Relative paths count from here, since a daemon works in `/`.
fn layers(mount: &MountArgs, options: &MountOptions, env: &Env) -> Result<Layers, Failure> {
    let file = mount
        .config
        .clone()
        .or(options.config.clone().map(PathBuf::from));
    let mut layers = Layers::load(env, file.as_deref())?;
    for (key, value) in &options.settings {
        layers.set_flag(key, &anchored(key, value)?, &format!("-o {key}="))?;
    }
    let policy = mount.host_key_policy.map(|policy| match policy {
        PolicyArg::Strict => "strict",
        PolicyArg::AcceptNew => "accept-new",
    });
    for (key, flag, value) in [
        ("identity", "--identity", text(mount.identity.as_deref())?),
        (
            "known_hosts",
            "--known-hosts",
            text(mount.known_hosts.as_deref())?,
        ),
        ("state_dir", "--state", text(mount.state.as_deref())?),
        ("host_key_policy", "--host-key-policy", policy),
        ("server", "the command line", Some(mount.target.as_str())),
    ] {
        if let Some(value) = value {
            layers.set_flag(key, &anchored(key, value)?, flag)?;
        }
    }
    Ok(layers)
}

fn text(path: Option<&Path>) -> Result<Option<&str>, Failure> {
    let refuse = |path: &Path| {
        let message = format!("{}: settings are UTF-8 text", path.display());
        Failure::new(Code::Usage, message)
    };
    path.map(|path| path.to_str().ok_or_else(|| refuse(path)))
        .transpose()
}

/// The value; a relative path made absolute.
fn anchored(key: &str, value: &str) -> Result<String, Failure> {
    if !matches!(key, "identity" | "known_hosts" | "state_dir") || value.is_empty() {
        return Ok(value.to_owned());
    }
    let path = std::path::absolute(value)
        .map_err(|error| Failure::new(Code::Usage, format!("{value}: {error}")))?;
    Ok(path.to_string_lossy().into_owned())
}

fn read_fd(number: u32) -> Result<Option<Secret>, Failure> {
    File::open(format!("/proc/self/fd/{number}"))
        .and_then(|file| background::read_secret(&mut BufReader::new(file)))
        .map_err(|error| {
            let message = format!("no password can be read from descriptor {number}: {error}");
            Failure::new(Code::Usage, message)
        })
}

/// Asks for what the login lacks: the passphrase of a locked key or, where there is none or nothing was typed, the
/// password.
fn ask_secrets(request: &MountRequest) -> Result<Secrets, Failure> {
    let Secrets {
        password,
        mut passphrase,
    } = request.secrets.clone();
    if let Some(identity) = daemon::locked_identity(request) {
        passphrase = prompt(&format!(
            "passphrase of {} (empty: use the password instead): ",
            identity.display()
        ))?;
        if passphrase.is_some() {
            return Ok(Secrets {
                password,
                passphrase,
            });
        }
    }
    let Target { user, host, .. } = &request.target;
    Ok(Secrets {
        password: prompt(&format!("{user}@{host}'s password: "))?,
        passphrase,
    })
}

fn prompt(question: &str) -> Result<Option<Secret>, Failure> {
    let typed = rpassword::prompt_password(question)
        .map_err(|error| Failure::new(Code::Authentication, format!("no answer: {error}")))?;
    Ok((!typed.is_empty()).then(|| Secret::new(typed)))
}
