//! What commands that go to a server share: which home, by what way, with which key, and whom to ask.

use std::{
    fs::File,
    io::{self, BufReader, IsTerminal, Write},
    ops::Deref,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use clap::{Args, ValueEnum};

use super::{
    background,
    options::{self, MountOptions},
};
use crate::{
    config::{Env, Layers, Target, WayError},
    control::{Code, Failure},
    daemon::{self, Access, Ask, Asker, Secret, Secrets},
};

/// The home, and how to get there.
#[derive(Debug, Args)]
pub(super) struct ReachArgs {
    /// The home: [USER@]HOST:PATH, ssh://[USER@]HOST[:PORT]/PATH, or /PATH for a directory of this machine
    ///
    /// A PATH after a HOST without a leading slash is relative to the directory where the server lets the user in.
    #[arg(value_name = "[USER@]HOST:PATH")]
    target: String,
    #[command(flatten)]
    way: WayArgs,
}

/// How to get to a home.
#[derive(Debug, Args)]
pub(super) struct WayArgs {
    /// The port of the server's sshd
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// The private key to log in with, instead of the agent's and those in ~/.ssh
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// The file of known host keys, instead of the usual ones
    #[arg(long, value_name = "FILE")]
    known_hosts: Option<PathBuf>,
    /// What to do with a host whose key is not known; a changed key is always refused
    #[arg(long, value_enum, value_name = "POLICY")]
    host_key_policy: Option<PolicyArg>,
    /// How the home is reached; for `command`, set sftp_command, too
    #[arg(long, value_enum, value_name = "HOW")]
    transport: Option<TransportArg>,
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
    pub(super) password_fd: Option<u32>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PolicyArg {
    /// Refuse it
    Strict,
    /// Take note of its key, and trust it from then on
    AcceptNew,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TransportArg {
    /// By SSH that roamhome speaks itself, the fastest
    Russh,
    /// By the system's ssh, with all of ssh_config
    Ssh,
    /// By a program that speaks SFTP on its standard streams
    Command,
    /// Not at all: it is a directory of this machine
    Local,
}

impl From<WayError> for Failure {
    fn from(error: WayError) -> Self {
        Self::new(Code::Usage, error.to_string())
            .remedy("`roamhome config` lists all settings and where each came from")
    }
}

impl Deref for ReachArgs {
    type Target = WayArgs;

    fn deref(&self) -> &WayArgs {
        &self.way
    }
}

impl ReachArgs {
    /// What was said here and in the files; `more` are settings by flags that only one command has.
    pub(super) fn access(
        &self,
        env: &Env,
        options: &MountOptions,
        more: &[(&str, &str, Option<&Path>)],
    ) -> Result<Access, Failure> {
        self.way
            .access(env, Files::All, Some(&self.target), options, more)
    }
}

/// Which files of settings are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Files {
    /// Also the user's own.
    All,
    /// The administrator's.
    System,
}

impl WayArgs {
    /// The options after `-o`.
    pub(super) fn options(&self) -> Result<MountOptions, Failure> {
        options::parse(&self.options).map_err(|message| Failure::new(Code::Usage, message))
    }

    /// What was said here and in the files; without a target, the home is the one that they name. `more` are settings
    /// by flags that only one command has.
    pub(super) fn access(
        &self,
        env: &Env,
        files: Files,
        target: Option<&str>,
        options: &MountOptions,
        more: &[(&str, &str, Option<&Path>)],
    ) -> Result<Access, Failure> {
        let mut said = more.to_vec();
        said.push(("server", "the command line", target.map(Path::new)));
        let layers = self.layers(options, env, files, &said)?;
        let config = layers.config().clone();
        let server = config.server.as_deref().ok_or_else(|| {
            Failure::new(Code::Usage, "which home is meant?")
                .remedy("name it: [USER@]HOST:PATH, or set `server` in a configuration file")
        })?;
        let mut target = Target::parse(server)?;
        if let (Some(port), Target::Server(place)) = (self.port.or(options.port), &mut target) {
            place.port = Some(port);
        }
        Ok(Access {
            way: config.way(&target)?,
            target,
            user: env.user.clone(),
            config,
            secrets: Secrets::default(),
            asker: Asker::default(),
            state_dir: None,
            for_login: false,
        })
    }

    /// The usual files, then `-o`, then the flags. Relative paths count from here, since a daemon works in `/`.
    fn layers(
        &self,
        options: &MountOptions,
        env: &Env,
        files: Files,
        more: &[(&str, &str, Option<&Path>)],
    ) -> Result<Layers, Failure> {
        let file = self
            .config
            .clone()
            .or(options.config.clone().map(PathBuf::from));
        let mut layers = match (files, file) {
            (Files::System, None) => Layers::load_system(env)?,
            // Who names a file means it.
            (_, file) => Layers::load(env, file.as_deref())?,
        };
        for (key, value) in &options.settings {
            layers.set_flag(key, &anchored(key, value)?, &format!("-o {key}="))?;
        }
        let policy = self.host_key_policy.map(|policy| match policy {
            PolicyArg::Strict => "strict",
            PolicyArg::AcceptNew => "accept-new",
        });
        let transport = self.transport.map(|transport| match transport {
            TransportArg::Russh => "russh",
            TransportArg::Ssh => "ssh",
            TransportArg::Command => "command",
            TransportArg::Local => "local",
        });
        let mut flags = vec![
            ("host_key_policy", "--host-key-policy", policy),
            ("transport", "--transport", transport),
        ];
        let paths = [
            ("identity", "--identity", self.identity.as_deref()),
            ("known_hosts", "--known-hosts", self.known_hosts.as_deref()),
        ];
        for (key, flag, path) in paths.iter().chain(more) {
            flags.push((key, flag, text(*path)?));
        }
        for (key, flag, value) in flags {
            if let Some(value) = value {
                layers.set_flag(key, &anchored(key, value)?, flag)?;
            }
        }
        Ok(layers)
    }

    /// The password from the descriptor that was named.
    pub(super) fn password(&self) -> Result<Option<Secret>, Failure> {
        let Some(number) = self.password_fd else {
            return Ok(None);
        };
        File::open(format!("/proc/self/fd/{number}"))
            .and_then(|file| background::read_secret(&mut BufReader::new(file)))
            .map_err(|error| {
                let message = format!("no password can be read from descriptor {number}: {error}");
                Failure::new(Code::Usage, message)
            })
    }
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

/// How often a person may mistype a password.
pub(super) const PASSWORD_TRIES: usize = 3;

/// Does it again, for as long as the login is refused and there is somebody to ask. `again` asks, which may fail, and then
/// tells what came of it.
pub(super) fn while_refused<T>(
    asks: bool,
    mut outcome: Result<T, Failure>,
    mut again: impl FnMut() -> Result<Result<T, Failure>, Failure>,
) -> Result<T, Failure> {
    for _ in 0..PASSWORD_TRIES {
        match &outcome {
            Err(failure) if failure.code == Code::Authentication && asks => outcome = again()?,
            _ => break,
        }
    }
    outcome
}

/// Asks for what the login lacks: the passphrase of a locked key or, where there is none or nothing was typed, the
/// password.
pub(super) fn ask_secrets(access: &Access) -> Result<Secrets, Failure> {
    let Secrets {
        password,
        mut passphrase,
    } = access.secrets.clone();
    if let Some(identity) = daemon::locked_identity(access) {
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
    let whose = match &access.target {
        Target::Server(place) => {
            let user = place.user.as_deref().unwrap_or(&access.user);
            format!("{user}@{}", place.host)
        }
        Target::Local(path) => path.clone(),
    };
    Ok(Secrets {
        password: prompt(&format!("{whose}'s password: "))?,
        passphrase,
    })
}

fn prompt(question: &str) -> Result<Option<Secret>, Failure> {
    let typed = rpassword::prompt_password(question)
        .map_err(|error| Failure::new(Code::Authentication, format!("no answer: {error}")))?;
    Ok((!typed.is_empty()).then(|| Secret::new(typed)))
}

/// Whoever sits at the terminal of this process.
pub(super) struct Terminal(Mutex<()>);

impl Terminal {
    /// If there is a terminal.
    pub(super) fn new() -> Option<Self> {
        io::stdin().is_terminal().then(|| Self(Mutex::new(())))
    }

    /// The same, as somebody to ask.
    pub(super) fn asker() -> Asker {
        Self::new().map_or_else(Asker::default, Asker::new)
    }
}

impl Ask for Terminal {
    fn is_there(&self) -> bool {
        true
    }

    fn ask(&self, question: &str, echo: bool) -> Option<String> {
        // One question after the other.
        let _turn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !echo {
            let typed = rpassword::prompt_password(question).ok();
            return typed.filter(|typed| !typed.is_empty());
        }
        let mut err = io::stderr();
        err.write_all(question.as_bytes()).ok()?;
        err.flush().ok()?;
        let mut typed = String::new();
        io::stdin().read_line(&mut typed).ok()?;
        let typed = typed.trim_end_matches(['\n', '\r']);
        (!typed.is_empty()).then(|| typed.to_owned())
    }

    fn tell(&self, text: &str) {
        super::output::print_note(text);
    }
}
