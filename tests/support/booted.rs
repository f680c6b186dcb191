//! What it takes to start a computer with the machine's own systemd as its first process: a root of its own, in which
//! nothing of this machine is but programs, and a part of the tree of control groups.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::lab::Lab;
use super::machine::eventually;

/// The new root is in memory, with the computer's own directories in it; then the old one is taken away. Devices are
/// made anew, since systemd changes their modes. The kernel's settings are everybody's, and cannot be written.
pub(crate) const BOOT: &str = r#"
set -e
lab=$1 program=$2 source=$3
mount --make-rprivate /
root=$lab/root
mkdir -p "$root"
mount -t tmpfs -o mode=755 root "$root"
cd "$root"
mkdir -p dev etc home mnt/old mnt/source proc root run sys tmp usr var/cache/debconf var/lib var/log var/tmp
for name in bin sbin lib lib64; do [ ! -e "/$name" ] || ln -s "usr/$name" "$name"; done
for dir in etc home var/lib; do mount --bind "$lab/$dir" "$dir"; done
mount --bind "$lab/debconf" var/cache/debconf
mount -t overlay usr -o "lowerdir=/usr,upperdir=$lab/usr,workdir=$lab/work" usr
touch usr/bin/roamhome
mount --bind "$program" usr/bin/roamhome
mount -o remount,bind,ro usr/bin/roamhome
mount --bind "$source" mnt/source
mount -o remount,bind,ro mnt/source
mount -t tmpfs -o mode=755 run run
mount -t tmpfs tmp tmp
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
[ ! -e proc/sysrq-trigger ] || mount --bind /dev/null proc/sysrq-trigger
mount -t sysfs -o ro sys sys
mount -t cgroup2 cgroup sys/fs/cgroup
mount -t tmpfs -o mode=755 dev dev
while read -r name major minor; do mknod -m 666 "dev/$name" c "$major" "$minor"; done <<NODES
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
fuse 10 229
NODES
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 pts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs shm dev/shm
touch "$lab/started"
pivot_root . mnt/old
cd /
umount -l /mnt/old
/mnt/source/pam/install "" /usr
DEBIAN_FRONTEND=noninteractive pam-auth-update --package --enable roamhome
umount /mnt/source
exec env -i container=lab PATH="$PATH" \
    setpriv --bounding-set=-sys_module,-sys_rawio,-sys_time,-mknod /lib/systemd/systemd --show-status=false
"#;

/// Into the control group `$0`, and there the program.
const ENTER: &str = r#"echo $$ >"$0/cgroup.procs" && exec "$@""#;

/// What is of no use there, or of somebody who is not there.
const MASKED: [&str; 8] = [
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "getty.target",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-udevd.service",
    "systemd-update-utmp.service",
];

/// Users' managers end at once with the last session, with all that was started there.
const LOGIND: &str = "[Login]\nUserStopDelaySec=0\nKillUserProcesses=yes\n";

/// Takes out of `etc` what would be started on the machine that it was copied from.
pub(crate) fn prepare(etc: &Path) {
    for name in ["systemd/system", "init.d"] {
        drop(fs::remove_dir_all(etc.join(name)));
    }
    let units = etc.join("systemd/system");
    fs::create_dir_all(&units).unwrap();
    for unit in MASKED {
        std::os::unix::fs::symlink("/dev/null", units.join(unit)).unwrap();
    }
    fs::create_dir_all(etc.join("systemd/logind.conf.d")).unwrap();
    fs::write(etc.join("systemd/logind.conf.d/lab.conf"), LOGIND).unwrap();
    drop(fs::remove_file(etc.join("fstab")));
    fs::write(etc.join("machine-id"), "").unwrap();
}

/// Whether systemd has started all that it was to start.
pub(crate) fn is_up(lab: &Lab) -> bool {
    let said = lab.try_run(&["systemctl", "is-system-running", "--wait"]);
    ["running", "degraded"].contains(&said.stdout.trim())
}

/// A part of the tree of control groups; all that runs in it is killed when it is dropped.
pub(crate) struct Group(PathBuf);

impl Group {
    pub(crate) fn new(name: &str) -> Self {
        let needs = "systemd needs a cgroup2 tree that root may make groups in";
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let of_two = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let at = of_two.and_then(|line| line.split(' ').nth(4));
        let at = at.unwrap_or_else(|| panic!("{needs}: none is mounted here"));
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let group = Path::new(at).join(own.unwrap_or_default()).join(name);
        // Whoever comes from outside has a group of their own: one that has members has no groups in it.
        fs::create_dir_all(group.join("outside"))
            .unwrap_or_else(|error| panic!("{needs}: {}: {error}", group.display()));
        Self(group)
    }

    /// The start of a command that runs the first process, in namespaces of its own.
    pub(crate) fn first(&self) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", ENTER]).arg(&self.0);
        command.args(["setpriv", "--pdeathsig", "KILL"]);
        command.args(["unshare", "--mount", "--pid", "--uts", "--ipc", "--cgroup"]);
        command.args(["--net", "--fork", "--kill-child", "bash", "-c", BOOT]);
        command
    }

    /// The start of a command that runs another one, which `first` is the first process of.
    pub(crate) fn enter(&self, first: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", ENTER]).arg(self.0.join("outside"));
        command.args(["timeout", "--kill-after=5", "120", "nsenter"]);
        command.args(["--target", first, "--mount", "--pid", "--uts", "--ipc"]);
        command.args(["--net", "--cgroup"]);
        command
    }

    /// Ends whoever came from outside, too.
    pub(crate) fn kill(&self) {
        fs::write(self.0.join("cgroup.kill"), "1").unwrap();
        let populated = || fs::read_to_string(self.0.join("cgroup.events")).unwrap();
        eventually("all is gone", || populated().contains("populated 0"));
        clear(&self.0);
        fs::create_dir_all(self.0.join("outside")).unwrap();
    }
}

fn clear(group: &Path) {
    for entry in fs::read_dir(group).unwrap().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            clear(&entry.path());
        }
    }
    fs::remove_dir(group).unwrap();
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
        clear(&self.0);
    }
}
