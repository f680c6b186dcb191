"""What the measurements stand on: the tree, the server, the far line, and the file systems that are compared."""

import contextlib
import io
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import tarfile
import time

HERE = pathlib.Path(__file__).resolve().parent
MEDIAN_BYTES = 4096
LARGEST_BYTES = 256 * 1024
FILES_PER_DIR = 100
MTIME = 1_600_000_000


def run(*command, good=(0,), **options):
    """Runs a command that has to succeed, or to end with one of the statuses `good`."""
    done = subprocess.run([str(part) for part in command], capture_output=True, **options)
    if done.returncode not in good:
        text = (done.stdout + done.stderr).decode(errors="replace")[-2000:]
        sys.exit(f"{' '.join(map(str, command))}: status {done.returncode}\n{text}")
    return done.stdout.decode(errors="replace")


def timed(*command, **options):
    """Runs a command and returns how long it took, in seconds."""
    started = time.monotonic()
    run(*command, **options)
    return time.monotonic() - started


def write_tar(path, files):
    """A tar of `files` files, 100 a directory, the same each time: sizes log-normal around the median."""
    rng = random.Random(4711)
    with tarfile.open(path, "w") as tar:
        for number in range(files):
            top, sub = divmod(number // FILES_PER_DIR, 10)
            folder = f"d{top:02}/s{sub}"
            if number % (10 * FILES_PER_DIR) == 0:
                tar.addfile(entry(f"d{top:02}", 0o755, tarfile.DIRTYPE))
            if number % FILES_PER_DIR == 0:
                tar.addfile(entry(folder, 0o755, tarfile.DIRTYPE))
            size = min(int(rng.lognormvariate(0, 1) * MEDIAN_BYTES), LARGEST_BYTES)
            info = entry(f"{folder}/file{number:05}.txt", 0o644, tarfile.REGTYPE)
            info.size = size
            tar.addfile(info, io.BytesIO(rng.randbytes(size)))


def entry(name, mode, kind):
    info = tarfile.TarInfo(name)
    info.mode, info.mtime, info.type = mode, MTIME, kind
    return info


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port):
    for _ in range(500):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.01)
    sys.exit(f"nothing listens on port {port}")


class Stage:
    """A directory for everything, an sshd on loopback, and lines of any length to it."""

    def __init__(self, work, roamhome):
        self.work = pathlib.Path(work)
        self.roamhome = roamhome
        self.children = []
        self.mounts = []
        self.count = 0
        self.start_sshd()

    def new(self, name):
        """A new empty directory."""
        self.count += 1
        path = self.work / f"{self.count:03}-{name}"
        path.mkdir()
        return path

    def spawn(self, *command):
        child = subprocess.Popen([str(part) for part in command], stderr=subprocess.DEVNULL)
        self.children.append(child)
        return child

    def start_sshd(self):
        keys = self.new("sshd")
        for name in ("host_key", "identity"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / name)
        shutil.copy(keys / "identity.pub", keys / "authorized_keys")
        if os.getuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        self.sshd_port = free_port()
        self.identity = keys / "identity"
        self.known_hosts = keys / "known_hosts"
        config = keys / "sshd_config"
        config.write_text(
            f"ListenAddress 127.0.0.1:{self.sshd_port}\nHostKey {keys}/host_key\nPidFile none\n"
            f"AuthorizedKeysFile {keys}/authorized_keys\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n"
            "Subsystem sftp internal-sftp\n"
        )
        self.spawn("/usr/sbin/sshd", "-D", "-e", "-f", config)
        wait_for_port(self.sshd_port)

    def line(self, rtt_ms):
        """The port of a line to the sshd with this round-trip time."""
        port = free_port()
        self.spawn(HERE / "delay-proxy", port, self.sshd_port, rtt_ms)
        wait_for_port(port)
        self.know(port)
        return port

    def line_without_delay(self):
        """The port of the sshd itself."""
        self.know(self.sshd_port)
        return self.sshd_port

    def know(self, port):
        host_key = self.identity.with_name("host_key.pub").read_text()
        with self.known_hosts.open("a") as known:
            known.write(f"[127.0.0.1]:{port} {host_key}")

    def ssh_options(self, port):
        return (
            f"-p {port} -i {self.identity} -o UserKnownHostsFile={self.known_hosts} "
            "-o StrictHostKeyChecking=yes -o IdentitiesOnly=yes -F none"
        )

    def bindfs(self):
        below, at = self.new("below-bindfs"), self.new("bindfs")
        run("bindfs", below, at)
        self.mounts.append(at)
        return at

    def sshfs(self, port, directory):
        at = self.new("sshfs")
        run(
            "sshfs", f"127.0.0.1:{directory}", at, "-p", str(port), "-o", f"IdentityFile={self.identity}",
            "-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "IdentitiesOnly=yes",
        )
        self.mounts.append(at)
        return at

    def home(self, port, server=None, settings=""):
        return RoamHome(self, port, server or self.new("server"), settings)

    def unmount(self, at):
        if at in self.mounts:
            self.mounts.remove(at)
            run("fusermount3", "-u", at)

    def close(self):
        for at in self.mounts:
            subprocess.run(["fusermount3", "-uz", str(at)], check=False)
        for child in reversed(self.children):
            child.terminate()
            child.wait()


class RoamHome:
    """A home of the directory `server`, on a machine of its own."""

    def __init__(self, stage, port, server, settings=""):
        self.stage, self.port, self.server = stage, port, server
        self.config = stage.new("config") / "config.toml"
        self.config.write_text(settings)
        self.state, self.at = stage.new("state"), stage.new("home")
        self.mount()

    def mount(self):
        """Mounts, and returns how long that took."""
        took = timed(
            self.stage.roamhome, "mount", f"127.0.0.1:{self.server}", self.at, "--port", self.port,
            "--identity", self.stage.identity, "--known-hosts", self.stage.known_hosts, "--state", self.state,
            "--config", self.config,
        )
        self.stage.mounts.append(self.at)
        return took

    def command(self, *command):
        """Runs a command on the mount, and returns how long it took."""
        return timed(self.stage.roamhome, *command, self.at)

    def daemon_pid(self):
        return int((self.state / "lock").read_text())

    def unmount(self):
        # Status 3: something is not sent yet, which is as good here.
        run(self.stage.roamhome, "umount", "--no-flush", self.at, good=(0, 3))
        self.stage.mounts.remove(self.at)

    def remove(self):
        """Unmounts, and removes what is here of it."""
        self.unmount()
        shutil.rmtree(self.state)
