//! Computers with accounts, on which roamhome is installed: each has mounts, processes, `/etc`, `/home`, `/run`, `/usr` and
//! `/var/lib` of its own, and the real PAM. When one is dropped or loses its power, all that ran on it is gone.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::booted::{self, Group};
use super::machine::{Said, eventually, needs_root};
use super::session::Session;

/// The program there.
pub(crate) const ROAMHOME: &str = "/usr/bin/roamhome";

/// What happens when it is switched on. Unless a package is to do so, roamhome is installed as by hand on any Debian. The first
/// process stays, and buries those that nobody waits for.
const START: &str = r#"
set -e
lab=$1 program=$2 source=$3 install=$4 alone=$5
mount --make-rprivate /
for dir in etc home var/lib; do mount --bind "$lab/$dir" "/$dir"; done
mount --bind "$lab/debconf" /var/cache/debconf
mount -t overlay usr -o "lowerdir=/usr,upperdir=$lab/usr,workdir=$lab/work" /usr
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/sshd
[ "$alone" = no ] || ip link set lo up
if [ "$install" = yes ]; then
    touch /usr/bin/roamhome
    mount --bind "$program" /usr/bin/roamhome
    "$source/pam/install" "" /usr
    DEBIAN_FRONTEND=noninteractive pam-auth-update --package --enable roamhome
else
    # What dpkg writes besides its database.
    mount -t tmpfs log /var/log
    [ ! -d /var/cache/man ] || mount -t tmpfs man /var/cache/man
fi
touch "$lab/started"
while :; do sleep 1000 & wait; done
"#;

/// A service that asks for a password, as login and sshd do.
const DOOR: &str = "@include common-auth\n@include common-account\n@include common-session\n";

/// Who has accounts everywhere, and their number.
pub(crate) const ANN: (&str, u32) = ("ann", 54_001);
pub(crate) const BOB: (&str, u32) = ("bob", 54_002);

/// The password of all accounts.
pub(crate) const PASSWORD: &str = "it's a long way";

/// A computer.
pub(crate) struct Lab {
    dir: TempDir,
    first: Option<Child>,
    installs: bool,
    /// Whether it has a network of its own, and not the machine's.
    alone: bool,
    /// Where systemd is its first process.
    group: Option<Group>,
}

impl Lab {
    /// Switched on, with `config` as `/etc/roamhome/config.toml`.
    pub(crate) fn new(config: &str) -> Self {
        let mut lab = Self::off();
        lab.installs = true;
        fs::create_dir_all(lab.path("etc/roamhome/users")).unwrap();
        lab.configure(config);
        lab.switch_on();
        lab
    }

    /// The same, with a network of its own, to which nothing is connected yet.
    pub(crate) fn on_its_own_network(config: &str) -> Self {
        let mut lab = Self::off();
        (lab.installs, lab.alone) = (true, true);
        fs::create_dir_all(lab.path("etc/roamhome/users")).unwrap();
        lab.configure(config);
        lab.switch_on();
        lab
    }

    /// Lays a cable to another one: `10.77.N.1` is here and `10.77.N.2` there, where it is plugged in as `eth0`.
    pub(crate) fn connect(&self, other: &Self, n: u8) {
        let (near, far) = (format!("to{n}"), other.first_pid());
        let near = near.as_str();
        let add = [
            "ip", "link", "add", near, "type", "veth", "peer", "name", "eth0", "netns",
        ];
        // By the number that it has outside: inside, it is another.
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.first_pid()]);
        let added = command.args(add).arg(far).status();
        assert!(added.unwrap().success());
        self.run(&["ip", "addr", "add", &format!("10.77.{n}.1/24"), "dev", near]);
        self.run(&["ip", "link", "set", near, "up"]);
        other.run(&[
            "ip",
            "addr",
            "add",
            &format!("10.77.{n}.2/24"),
            "dev",
            "eth0",
        ]);
        other.run(&["ip", "link", "set", "eth0", "up"]);
    }

    /// Switched on, without roamhome, and with a database of packages of its own.
    pub(crate) fn without_roamhome() -> Self {
        let mut lab = Self::off();
        lab.copy("/var/lib/dpkg", "var/lib/dpkg");
        lab.switch_on();
        lab
    }

    /// Switched on, and started by the machine's own systemd.
    pub(crate) fn booted(config: &str) -> Self {
        let mut lab = Self::off();
        booted::prepare(&lab.path("etc"));
        let name = lab.dir.path().file_name().unwrap().to_str().unwrap();
        lab.group = Some(Group::new(name));
        fs::create_dir_all(lab.path("etc/roamhome/users")).unwrap();
        lab.configure(config);
        lab.switch_on();
        lab
    }

    fn off() -> Self {
        needs_root("it makes accounts on computers of its own");
        let dir = tempfile::Builder::new().prefix("rhlab").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let lab = Self {
            dir,
            first: None,
            installs: false,
            alone: false,
            group: None,
        };
        for name in ["home", "var/lib", "usr", "work"] {
            fs::create_dir_all(lab.path(name)).unwrap();
        }
        for (from, to) in [
            ("/etc", "etc"),
            ("/var/cache/debconf", "debconf"),
            ("/var/lib/pam", "var/lib/pam"),
        ] {
            lab.copy(from, to);
        }
        for (name, uid) in [ANN, BOB] {
            lab.add_account(name, uid);
        }
        fs::write(lab.path("etc/pam.d/door"), DOOR).unwrap();
        lab
    }

    /// Gives it what this machine has.
    fn copy(&self, from: &str, to: &str) {
        let mut copy = Command::new("cp");
        let copied = copy.args(["-a", from]).arg(self.path(to)).status();
        assert!(copied.unwrap().success());
    }

    fn add_account(&self, name: &str, uid: u32) {
        let hash = Command::new("openssl")
            .args(["passwd", "-6", PASSWORD])
            .output()
            .unwrap();
        let hash = String::from_utf8(hash.stdout).unwrap();
        let hash = hash.trim();
        for (file, line) in [
            (
                "passwd",
                format!("{name}:x:{uid}:{uid}::/home/{name}:/bin/bash\n"),
            ),
            ("group", format!("{name}:x:{uid}:\n")),
            ("shadow", format!("{name}:{hash}:19000:0:99999:7:::\n")),
        ] {
            let path = self.path("etc").join(file);
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, text + &line).unwrap();
        }
    }

    /// Writes `/etc/roamhome/config.toml`.
    pub(crate) fn configure(&self, config: &str) {
        fs::write(self.path("etc/roamhome/config.toml"), config).unwrap();
    }

    /// What is at `/NAME` there, as seen from outside, and below all that is mounted there.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Gives a file outside of homes to an account.
    pub(crate) fn give(&self, path: &Path, (_, uid): (&str, u32)) {
        chown(path, Some(uid), Some(uid)).unwrap();
    }

    fn switch_on(&mut self) {
        let started = self.path("started");
        drop(fs::remove_file(&started));
        let mut command = match &self.group {
            Some(group) => group.first(),
            None => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
                command.args(self.alone.then_some("--net"));
                command.args(["bash", "-c", START]);
                command
            }
        };
        let child = command
            .arg("lab")
            .arg(self.dir.path())
            .arg(env!("CARGO_BIN_EXE_roamhome"))
            .arg(env!("CARGO_MANIFEST_DIR"))
            .args([self.installs, self.alone].map(|it| if it { "yes" } else { "no" }))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.first = Some(child);
        eventually("the computer is on", || started.exists());
        if self.group.is_some() {
            eventually("systemd has started all", || booted::is_up(self));
        }
    }

    /// Goes down in order, until only the power has to be taken.
    pub(crate) fn shut_down(&self) {
        let first = self.first_pid();
        self.try_run(&["systemctl", "poweroff"]);
        // When all units have stopped, systemd becomes the program that ends what is left.
        let command = || fs::read_to_string(format!("/proc/{first}/cmdline"));
        eventually("it has gone down", || {
            command().map_or(true, |line| line.contains("systemd-shutdown"))
        });
    }

    /// All that runs is gone in this moment; what is on the disk stays.
    pub(crate) fn lose_power(&mut self) {
        if let Some(mut first) = self.first.take() {
            first.kill().unwrap();
            first.wait().unwrap();
        }
        if let Some(group) = &self.group {
            group.kill();
        }
    }

    /// Loses its power, and is switched on again.
    pub(crate) fn reboot(&mut self) {
        self.lose_power();
        self.switch_on();
    }

    /// The number of its first process, as seen from outside.
    fn first_pid(&self) -> String {
        let unshare = self.first.as_ref().unwrap().id();
        let children = format!("/proc/{unshare}/task/{unshare}/children");
        fs::read_to_string(children).unwrap().trim().to_owned()
    }

    /// What is at `path` while it runs, with all that is mounted there.
    pub(crate) fn live_path(&self, path: &str) -> PathBuf {
        format!("/proc/{}/root{path}", self.first_pid()).into()
    }

    /// A command that runs there, as root.
    pub(crate) fn command(&self, program: &str) -> Command {
        let first = self.first_pid();
        let mut command = match &self.group {
            Some(group) => group.enter(&first),
            None => {
                let mut command = Command::new("timeout");
                command.args([
                    "--kill-after=5",
                    "120",
                    "nsenter",
                    "--mount",
                    "--pid",
                    "--net",
                ]);
                command.args(["--target", &first]);
                command
            }
        };
        command.arg(program).env_remove("XDG_RUNTIME_DIR");
        command
    }

    /// Runs it, whatever comes of it.
    pub(crate) fn try_run(&self, words: &[&str]) -> Said {
        Said::new(&self.command(words[0]).args(&words[1..]).output().unwrap())
    }

    /// Runs it, which has to succeed; answers what it printed.
    #[track_caller]
    pub(crate) fn run(&self, words: &[&str]) -> String {
        let said = self.try_run(words);
        assert_eq!(said.status, 0, "{words:?}: {said:?}\n{}", self.logs());
        said.stdout
    }

    /// A shell's commands in a session of an account, by su.
    pub(crate) fn session(&self, who: (&str, u32), commands: &str) -> Command {
        let mut command = self.command("su");
        command.args(["-", who.0, "-c", commands]);
        command
    }

    /// The same from begin to end, whatever comes of it.
    pub(crate) fn log_in(&self, who: (&str, u32), commands: &str) -> Said {
        Said::new(&self.session(who, commands).output().unwrap())
    }

    /// A session that lasts until it is told to end.
    pub(crate) fn stay(&self, who: (&str, u32)) -> Session<'_> {
        let mut child = self
            .session(who, "echo in; read _ || true")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 3];
        let out = child.stdout.as_mut().unwrap();
        std::io::Read::read_exact(out, &mut said)
            .unwrap_or_else(|_| panic!("nobody is let in\n{}", self.logs()));
        Session { lab: self, child }
    }

    /// The processes there whose command line holds all `words`.
    pub(crate) fn processes(&self, words: &[&str]) -> Vec<String> {
        let list = self.run(&["ps", "-e", "-o", "pid=,stat=,user=,args="]);
        let lines = list.lines().filter(|line| {
            let mut fields = line.split_whitespace();
            let dead = fields.nth(1).is_some_and(|stat| stat.starts_with('Z'));
            !dead && words.iter().all(|word| line.contains(word))
        });
        lines.map(str::to_owned).collect()
    }

    /// There is one such process. For a moment there may be two: one that was just made has its parent's command line.
    #[track_caller]
    pub(crate) fn expect_one_process(&self, words: &[&str]) {
        eventually("there is one such process", || {
            self.processes(words).len() == 1
        });
    }

    /// The numbers of those processes.
    pub(crate) fn pids(&self, words: &[&str]) -> Vec<String> {
        let pid = |line: String| line.split_whitespace().next().unwrap().to_owned();
        self.processes(words).into_iter().map(pid).collect()
    }

    /// What is mounted as an account's home: the number of homes.
    pub(crate) fn mounts(&self, (name, _): (&str, u32)) -> usize {
        let table = self.run(&["cat", "/proc/1/mountinfo"]);
        let at = format!(" /home/{name} ");
        let is_home = |line: &&str| line.contains(&at) && line.contains("fuse.roamhome");
        table.lines().filter(is_home).count()
    }

    /// Nobody is logged in, nothing is mounted, and nobody works for it.
    pub(crate) fn wait_until_quiet(&self, who: (&str, u32)) {
        let start = std::time::Instant::now();
        while self.mounts(who) > 0 {
            let late = start.elapsed() > std::time::Duration::from_secs(60);
            assert!(!late, "never unmounted\n{}", self.logs());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        eventually("daemon and keeper have ended", || {
            self.processes(&["/proc/self/exe"]).is_empty()
        });
    }

    /// What keepers and daemons logged.
    pub(crate) fn logs(&self) -> String {
        let mut text = self
            .try_run(&["sh", "-c", "tail -n 30 /run/roamhome/keepers/*.log"])
            .stdout;
        for (name, _) in [ANN, BOB] {
            let log = self.path(format!("var/lib/roamhome/{name}/daemon.log"));
            let log = fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            text += &lines[lines.len().saturating_sub(30)..].join("\n");
        }
        text
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.lose_power();
    }
}
