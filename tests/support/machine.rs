//! Machines that share a home: the real program, a real sshd, real mounts. Whatever happens to a test, its
//! mounts and daemons do not outlive it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock, statvfs};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::mounted::is_mounted;
use super::proxy::Proxy;
use super::sshd::Sshd;

/// A command that takes longer hangs.
const PATIENCE_SECS: &str = "120";

/// How long something that has to happen may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The settings of all machines: passes run when tests say so, or soon after a change.
const SETTINGS: &str = "quiet_period = \"100ms\"\nreconcile_interval = \"1h\"\nfetch_timeout = \"20s\"\n\
    log = \"roamhome=debug,info\"\n";

/// A server with one home on it, and the network before it.
pub(crate) struct Site {
    pub(crate) sshd: Sshd,
    dir: TempDir,
}

impl Site {
    /// A new server, and an empty directory for the home.
    pub(crate) fn new() -> Self {
        Self::with(|_| String::new())
    }

    /// The same, with an sshd that has more lines in its configuration.
    pub(crate) fn with(more: impl FnOnce(&Path) -> String) -> Self {
        let dir = tempfile::Builder::new().prefix("rh").tempdir().unwrap();
        // Users without privileges log in, too.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let keys = dir.path().join("sshd");
        fs::create_dir(&keys).unwrap();
        fs::create_dir(dir.path().join("server")).unwrap();
        Self {
            sshd: Sshd::start_with(&keys, more),
            dir,
        }
    }

    /// The home's directory on the server.
    pub(crate) fn home(&self) -> PathBuf {
        self.path("server")
    }

    /// A path on the server's and all machines' disk, beside the home.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new machine with its own way to the server's directory; nothing is mounted yet.
    pub(crate) fn machine(&self, name: &str) -> Machine {
        self.machine_for(name, &self.home())
    }

    /// The same, for another directory on the server.
    pub(crate) fn machine_for(&self, name: &str, home: &Path) -> Machine {
        let target = format!("{}@127.0.0.1:{}", self.sshd.user, home.display());
        self.machine_at(name, target, self.sshd.port, &self.sshd.known_hosts)
    }

    /// The same, for a server of another kind.
    pub(crate) fn machine_at(
        &self,
        name: &str,
        target: String,
        port: u16,
        known_hosts: &Path,
    ) -> Machine {
        let proxy = Proxy::start(port);
        let dir = self.path(name);
        for sub in ["mnt", "config", "run"] {
            fs::create_dir_all(dir.join(sub)).unwrap();
        }
        let host_key = fs::read_to_string(known_hosts).unwrap();
        let (_, host_key) = host_key.split_once(' ').unwrap();
        let line = format!("[127.0.0.1]:{} {host_key}", proxy.port);
        fs::write(dir.join("known_hosts"), line).unwrap();
        fs::write(dir.join("config.toml"), SETTINGS).unwrap();
        Machine {
            target,
            identity: self.sshd.identity.clone(),
            proxy,
            via: Vec::new(),
            dir,
        }
    }
}

/// A computer on which the home can be mounted.
pub(crate) struct Machine {
    /// Its network.
    pub(crate) proxy: Proxy,
    /// `USER@HOST:PATH`.
    pub(crate) target: String,
    /// The key that it logs in with.
    pub(crate) identity: PathBuf,
    /// A command that runs `roamhome` for it.
    pub(crate) via: Vec<OsString>,
    dir: PathBuf,
}

impl Machine {
    /// Where the home is mounted.
    pub(crate) fn home(&self) -> PathBuf {
        self.dir.join("mnt")
    }

    /// A path in the home.
    pub(crate) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.home().join(path)
    }

    /// Where the replica is kept.
    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// A path on this machine's disk, outside of the home.
    pub(crate) fn disk(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The command with this machine's environment.
    pub(crate) fn command(&self, args: &[&OsStr]) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=5", PATIENCE_SECS])
            .args(&self.via)
            .arg(env!("CARGO_BIN_EXE_roamhome"))
            .args(args)
            .current_dir(&self.dir)
            .env("HOME", &self.dir)
            .env("XDG_CONFIG_HOME", self.dir.join("config"))
            .env("XDG_STATE_HOME", self.dir.join("xdg-state"))
            .env("XDG_RUNTIME_DIR", self.dir.join("run"))
            .env_remove("ROAMHOME_LOG");
        command
    }

    /// Runs `roamhome`, whatever comes of it.
    pub(crate) fn try_run(&self, args: &[&str]) -> Said {
        let args: Vec<_> = args.iter().map(OsStr::new).collect();
        Said::new(&self.command(&args).output().unwrap())
    }

    /// Runs `roamhome`, which has to succeed; answers what it printed.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> String {
        let said = self.try_run(args);
        if said.status != 0 {
            panic!("{args:?}: {said:?}\n{}", self.log_end());
        }
        said.stdout
    }

    /// A command about this machine's mount.
    #[track_caller]
    pub(crate) fn ask(&self, command: &str) -> String {
        self.run(&[command, self.home().to_str().unwrap()])
    }

    /// The same, whatever comes of it.
    pub(crate) fn try_ask(&self, command: &str) -> Said {
        self.try_run(&[command, self.home().to_str().unwrap()])
    }

    /// The arguments of `mount`.
    pub(crate) fn mount_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = ["mount", &self.target].map(OsString::from).to_vec();
        args.push(self.home().into());
        for (flag, value) in [
            ("--port", self.proxy.port.to_string().into()),
            ("--identity", self.identity.clone().into_os_string()),
            ("--known-hosts", self.dir.join("known_hosts").into()),
            ("--state", self.state().into()),
            ("--config", self.dir.join("config.toml").into()),
        ] {
            args.extend([flag.into(), value]);
        }
        args
    }

    /// Mounts, whatever comes of it; `more` are pairs of a flag and its value.
    pub(crate) fn try_mount(&self, more: &[&str]) -> Said {
        let mut args = self.mount_args();
        for [flag, value] in more.as_chunks().0 {
            match args.iter().position(|arg| arg == flag) {
                Some(at) => args[at + 1] = value.into(),
                None => args.extend([flag, value].map(OsString::from)),
            }
        }
        let args: Vec<_> = args.iter().map(OsString::as_os_str).collect();
        Said::new(&self.command(&args).output().unwrap())
    }

    /// Mounts the home.
    #[track_caller]
    pub(crate) fn mount(&self) {
        let said = self.try_mount(&[]);
        if said.status != 0 {
            panic!("mount: {said:?}\n{}", self.log_end());
        }
        // As the README shows it.
        assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", ""));
        assert!(is_mounted(&self.home()));
    }

    /// Sends all and unmounts.
    #[track_caller]
    pub(crate) fn umount(&self) {
        self.ask("umount");
        self.wait_for_end();
    }

    /// Waits until nothing is mounted, and nobody has the state directory.
    pub(crate) fn wait_for_end(&self) {
        eventually("the daemon has ended", || {
            !is_mounted(&self.home()) && !self.is_running()
        });
    }

    /// Kills the daemon as the kernel's OOM killer does, and waits for its death. The dead mount stays.
    pub(crate) fn kill9(&self) {
        self.signal(Signal::KILL);
        eventually("the killed daemon's files are closed", || self.is_dead());
    }

    /// Whether a mount without a daemon is there, and the state directory is free.
    fn is_dead(&self) -> bool {
        let lock = fs::File::open(self.state().join("lock")).unwrap();
        let free = flock(&lock, FlockOperation::NonBlockingLockShared).is_ok();
        free && statvfs(self.home()).is_err_and(|error| error == Errno::NOTCONN)
    }

    /// Sends the daemon a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid().unwrap(), signal).unwrap();
    }

    /// The process that has, or last had, the state directory.
    pub(crate) fn pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.state().join("lock")).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    /// What lives of the machine: the processes that were told of its state directory.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let number = entry.unwrap().file_name().to_str()?.parse().ok()?;
            Pid::from_raw(number)
        });
        numbers.filter(|pid| self.is_told(*pid)).collect()
    }

    /// Whether that process was told of its state directory.
    fn is_told(&self, pid: Pid) -> bool {
        // The dead that wait for their parent have no command.
        let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
        let command = fs::read(path).unwrap_or_default();
        let state = self.state();
        let state = state.as_os_str().as_bytes();
        command.split(|byte| *byte == 0).any(|arg| arg == state)
    }

    /// Whether the daemon lives: its number may be another's by now, and the dead wait for their parent.
    pub(crate) fn is_running(&self) -> bool {
        self.pid().is_some_and(|pid| self.is_told(pid))
    }

    /// `status --json`.
    pub(crate) fn status(&self) -> serde_json::Value {
        let text = self.run(&["status", "--json", self.home().to_str().unwrap()]);
        serde_json::from_str(&text).unwrap()
    }

    /// Sends all that is unsent.
    #[track_caller]
    pub(crate) fn flush(&self) {
        self.ask("flush");
    }

    /// Compares all with the server.
    #[track_caller]
    pub(crate) fn reconcile(&self) {
        self.ask("reconcile");
    }

    /// Every content that is kept as a backup.
    pub(crate) fn backups(&self) -> Vec<String> {
        let mount = self.home();
        let list = ["backups", "--mount", mount.to_str().unwrap(), "list"];
        self.run(&list)
            .lines()
            .filter(|line| *line != "nothing is kept")
            .map(|line| {
                let id = line.split_whitespace().next().unwrap();
                self.run(&["backups", "--mount", mount.to_str().unwrap(), "show", id])
            })
            .collect()
    }

    /// The state directory is as it should be, which no daemon may have.
    #[track_caller]
    pub(crate) fn check(&self) {
        self.run(&["check", "--state", self.state().to_str().unwrap()]);
    }

    /// What the daemon logged last.
    pub(crate) fn log_end(&self) -> String {
        let log = fs::read(self.state().join("daemon.log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both may be gone already.
        let _unmounted = unmount(self.home(), UnmountFlags::DETACH);
        if self.is_running()
            && let Some(pid) = self.pid()
        {
            let _killed = kill_process(pid, Signal::KILL);
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    pub(crate) fn new(output: &Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// It ended with `status`, and its messages hold each of `parts`.
    #[track_caller]
    pub(crate) fn assert(&self, status: i32, parts: &[&str]) {
        assert_eq!(self.status, status, "{self:?}");
        let text = format!("{}{}", self.stdout, self.stderr);
        for part in parts {
            assert!(text.contains(part), "{self:?} lacks {part:?}");
        }
    }
}

/// Only root can do what a test does.
#[track_caller]
pub(crate) fn needs_root(what: &str) {
    let is_root = rustix::process::geteuid().is_root();
    assert!(is_root, "this test has to be run by root: {what}");
}

/// Waits until `done`; not for ever.
#[track_caller]
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What can be seen of a file on any side: what it is, its permissions, its time in seconds, and its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: &'static str,
    mode: u32,
    pub(crate) mtime: i64,
    pub(crate) content: blake3::Hash,
}

/// Everything below `root` but the server's own directory.
pub(crate) fn tree(root: &Path) -> BTreeMap<OsString, Seen> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{dir:?}: {error}"));
        for entry in entries {
            let path = entry
                .unwrap_or_else(|error| panic!("{dir:?}: {error}"))
                .path();
            let name = path.strip_prefix(root).unwrap().as_os_str().to_owned();
            if name == ".roamhome" {
                continue;
            }
            let meta = path.symlink_metadata();
            let meta = meta.unwrap_or_else(|error| panic!("{path:?}: {error}"));
            let (kind, content, mtime) = if meta.is_dir() {
                dirs.push(path);
                // Their times do not travel.
                ("directory", Vec::new(), 0)
            } else if meta.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                ("link", target.as_os_str().as_bytes().to_vec(), 0)
            } else {
                ("file", fs::read(&path).unwrap(), meta.mtime())
            };
            let seen = Seen {
                kind,
                mode: meta.mode() & 0o7777,
                mtime,
                content: blake3::hash(&content),
            };
            found.insert(name, seen);
        }
    }
    found
}

/// Both directories hold the same.
#[track_caller]
pub(crate) fn assert_same(one: &Path, other: &Path) {
    let (left, right) = (tree(one), tree(other));
    if left == right {
        return;
    }
    let mut names: Vec<_> = left.keys().chain(right.keys()).collect();
    names.sort();
    names.dedup();
    let differ = names.iter().filter(|n| left.get(**n) != right.get(**n));
    let lines: Vec<_> = differ
        .take(20)
        .map(|n| format!("{n:?}: {:?} / {:?}", left.get(*n), right.get(*n)))
        .collect();
    panic!(
        "{} and {} differ:\n{}",
        one.display(),
        other.display(),
        lines.join("\n")
    );
}
