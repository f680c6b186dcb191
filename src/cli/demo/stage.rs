//! What the demo plays on: a temporary directory, the server in it, two machines mounted from it, and a shell
//! whose commands make the transcript.
//!
//! Nothing of it outlives [`Stage::clear`]. The directory is removed only when nothing is mounted in it, since
//! removing goes into mounts.

use std::{
    fs, io,
    os::unix::{
        fs::{DirBuilderExt, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    cli::{output, preflight::read_mounts, process::Process},
    control::{Code, Failure},
    remote::{Calls, EmbeddedServer, generate_identity},
};

/// Demos that one process may find in its way; only those of dead processes with its number are.
const DIRS_MAX: u32 = 100;

/// See the head of this file.
pub(super) struct Stage {
    dir: PathBuf,
    server: EmbeddedServer,
    daemons: Vec<Process>,
}

impl Stage {
    /// Makes the directory and starts the server.
    pub(super) async fn new() -> io::Result<Self> {
        let dir = make_dir()?;
        match start_server(&dir).await {
            Ok(server) => Ok(Self {
                dir,
                server,
                daemons: Vec::new(),
            }),
            Err(error) => {
                fs::remove_dir_all(&dir)?;
                Err(error)
            }
        }
    }

    /// Where everything is, and where the commands run.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The port of the server.
    pub(super) fn port(&self) -> u16 {
        self.server.address().port()
    }

    /// What the server was asked so far.
    pub(super) fn calls(&self) -> Calls {
        self.server.calls()
    }

    /// Says what comes next, and why.
    pub(super) fn say(&self, text: &str) {
        let lines: String = text.lines().map(|line| format!("# {line}\n")).collect();
        show(&lines);
    }

    /// Ends a scene.
    pub(super) fn pause(&self) {
        show("\n");
    }

    /// Shows a command, runs it, shows what it says, and answers that. A command that fails ends the demo.
    pub(super) async fn run(&self, command: &str) -> Result<String, Failure> {
        show(&format!("$ {command}\n"));
        let mut shell = tokio::process::Command::from(self.shell(command));
        let output = shell.kill_on_drop(true).output().await;
        let output = output.map_err(|error| Failure::new(Code::General, format!("sh: {error}")))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        show(&output::printable(&text));
        if output.status.success() {
            return Ok(text);
        }
        // Why it failed is why the demo fails.
        let status = output.status.code();
        let code = Code::TABLE
            .into_iter()
            .map(|(code, _)| code)
            .find(|code| Some(i32::from(code.status())) == status)
            .unwrap_or(Code::General);
        let message = format!("the demo's command failed: {command}");
        Err(Failure::new(code, message))
    }

    /// The same for a command whose output has to hold `expected`.
    pub(super) async fn see(&self, command: &str, expected: &str) -> Result<String, Failure> {
        let text = self.run(command).await?;
        match text.contains(expected) {
            true => Ok(text),
            false => Err(untold(&format!("`{command}` did not say {expected:?}"))),
        }
    }

    /// Mounts the home as the machine `name`.
    pub(super) async fn mount(&mut self, name: &str) -> Result<(), Failure> {
        let port = self.port();
        self.run(&format!(
            "roamhome mount demo@127.0.0.1: {name} --port {port} --identity key \
             --known-hosts known_hosts --state state/{name}"
        ))
        .await?;
        let daemon = Process::serving(Some(&self.dir.join(name)));
        let gone = || Failure::new(Code::NotRunning, format!("the daemon of {name} is gone"));
        self.daemons.push(daemon.ok_or_else(gone)?);
        Ok(())
    }

    /// A shell with our own program in its path, and without settings that are the user's own.
    fn shell(&self, command: &str) -> Command {
        let mut path = self.dir.join("bin").into_os_string();
        if let Some(usual) = std::env::var_os("PATH") {
            path.push(":");
            path.push(usual);
        }
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(format!("exec 2>&1\n{command}"))
            .current_dir(&self.dir)
            .env("PATH", path)
            .env("XDG_CONFIG_HOME", self.dir.join("config"))
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Ctrl-C on the terminal is for the demo, which ends its commands itself.
            .process_group(0);
        shell
    }

    /// Ends the daemons, takes their mounts away, and removes the directory.
    pub(super) fn clear(self) -> Result<(), Failure> {
        for daemon in &self.daemons {
            daemon.end();
        }
        for mount in self.mounts()? {
            // Its daemon is gone, so this asks nobody.
            let mount = mount.display();
            drop(self.shell(&format!("roamhome umount {mount}")).output());
        }
        if let Some(mount) = self.mounts()?.first() {
            let message = format!("{} could not be unmounted", mount.display());
            let remedy = format!(
                "leave it, then: fusermount3 -u {}; and remove {}",
                mount.display(),
                self.dir.display()
            );
            return Err(Failure::new(Code::Mountpoint, message).remedy(remedy));
        }
        fs::remove_dir_all(&self.dir).map_err(|error| {
            let message = format!("{} could not be removed: {error}", self.dir.display());
            Failure::new(Code::General, message)
        })
    }

    /// What is mounted in the directory.
    fn mounts(&self) -> Result<Vec<PathBuf>, Failure> {
        let points = read_mounts()?.into_iter().map(|mount| mount.point);
        Ok(points.filter(|at| at.starts_with(&self.dir)).collect())
    }
}

/// What was told did not come true.
pub(super) fn untold(what: &str) -> Failure {
    Failure::new(Code::General, format!("not as told: {what}"))
        .remedy("this is a mistake of roamhome: please report it with the transcript above")
}

fn show(text: &str) {
    // Who does not read any more is no reason to stop half-way.
    drop(output::emit(text));
}

/// A directory of the demo's own, for this user alone.
fn make_dir() -> io::Result<PathBuf> {
    let parent = std::env::temp_dir().canonicalize()?;
    let mut number = 0;
    loop {
        let dir = parent.join(format!("roamhome-demo-{}-{number}", std::process::id()));
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < DIRS_MAX => {
                number += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn start_server(dir: &Path) -> io::Result<EmbeddedServer> {
    for name in ["server", "laptop", "desktop", "bin"] {
        fs::create_dir(dir.join(name))?;
    }
    symlink(std::env::current_exe()?, dir.join("bin/roamhome"))?;
    let authorized = generate_identity(&dir.join("key"), "roamhome demo")?;
    let server = EmbeddedServer::start(&dir.join("server"), &authorized).await?;
    fs::write(dir.join("known_hosts"), server.known_hosts_line()?)?;
    Ok(server)
}
