"""The measurements of the link: large files, many files, who waits while others fill the line, and scans."""

import getpass
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import time

from stage import run, timed

LARGE_BYTES = int(os.environ.get("BENCH_LARGE_BYTES", 1 << 30))
SMALL_FILES = 60
SMALL_BYTES = 4096
SCAN_FILES = int(os.environ.get("BENCH_SCAN_FILES", 100_000))
SCAN_DIRS = int(os.environ.get("BENCH_SCAN_DIRS", 6_000))


def cpu_of(pid):
    """User and system time of a process so far, in seconds."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(*command, **options):
    """Runs a command: its time and its CPU time, both in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = timed(*command, **options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class LinkParts:
    """Parts of the bench about the link; mixed into it, which has `stage`, `far`, `rows`, `row` and `fact`."""

    def other_tools(self, port):
        """Commands that copy one file up (`to_server`) or down, by name."""
        ssh = self.stage.ssh_options(port)
        shell = f"ssh {ssh}"
        remote = (
            f":sftp,host=127.0.0.1,port={port},user={os.environ.get('USER') or 'root'},key_file={self.stage.identity},"
            "shell_type=none,disable_hashcheck=true:"
        )
        scp = ["scp", "-q", *ssh.replace("-p ", "-P ", 1).split()]

        def sftp(batch):
            options = ssh.replace("-p ", "-P ", 1).split()
            return ["sftp", "-q", "-b", batch, *options, "127.0.0.1"]

        def batch(text):
            path = self.stage.new("batch") / "batch"
            path.write_text(text)
            return path

        return {
            "sftp": (
                lambda source, to: sftp(batch(f"put {source} {to}\n")),
                lambda source, to: sftp(batch(f"get {source} {to}\n")),
            ),
            "scp": (
                lambda source, to: [*scp, source, f"127.0.0.1:{to}"],
                lambda source, to: [*scp, f"127.0.0.1:{source}", to],
            ),
            "rclone": (
                lambda source, to: ["rclone", "copyto", source, f"{remote}{to}"],
                lambda source, to: ["rclone", "copyto", f"{remote}{source}", to],
            ),
            "rsync": (
                lambda source, to: ["rsync", "-W", "-e", shell, source, f"127.0.0.1:{to}"],
                lambda source, to: ["rsync", "-W", "-e", shell, f"127.0.0.1:{source}", to],
            ),
        }

    def large_file(self):
        path = self.stage.work / "large"
        if not path.exists():
            with path.open("wb") as file:
                for _ in range(LARGE_BYTES >> 20):
                    file.write(os.urandom(1 << 20))
        return path

    def large_near(self):
        """One large file up and down, without the line."""
        self.large_at(0, self.stage.line_without_delay())

    def large_far(self):
        """The same, far away."""
        self.large_at(self.rtt, self.far)

    def large_at(self, rtt, port):
        source = self.large_file()
        tools = self.other_tools(port)
        up = {name: [] for name in ["roamhome", *tools]}
        down = {name: [] for name in ["roamhome", *tools]}
        for _ in range(self.runs):
            for name, (to_server, from_server) in tools.items():
                folder = self.stage.new("copy")
                up[name].append(measured(*to_server(source, folder / "up")))
                down[name].append(measured(*from_server(source, folder / "down")))
                shutil.rmtree(folder)
            home = self.stage.home(port, settings="server_fsync = false\n")
            home.command("offline")
            shutil.copyfile(source, home.at / "large")
            before = cpu_of(home.daemon_pid())
            took = home.command("online") + home.command("flush")
            up["roamhome"].append((took, cpu_of(home.daemon_pid()) - before))
            server = home.server
            run("cmp", source, server / "large")
            home.remove()
            home = self.stage.home(port, server)
            before = cpu_of(home.daemon_pid())
            took = timed("sh", "-c", "cat large >/dev/null", cwd=home.at)
            down["roamhome"].append((took, cpu_of(home.daemon_pid()) - before))
            run("cmp", source, home.at / "large")
            home.remove()
            shutil.rmtree(server)
            last = {name: (up[name][-1], down[name][-1]) for name in up}
            print(f"at {rtt} ms, up and down, seconds and CPU seconds: {last}", flush=True)
        for what, times in [("up", up), ("down", down)]:
            self.speeds(f"{LARGE_BYTES >> 20} MiB {what} at {rtt} ms", times, "≥ 1.2 × the fastest")

    def speeds(self, what, times, target):
        """A row of speeds in MB/s; the ratios are of speeds, above 1 where ours is faster."""
        wall = {name: statistics.median(took for took, _ in values) for name, values in times.items()}
        cpu = {name: statistics.median(cpu for _, cpu in values) for name, values in times.items()}
        ours = wall.pop("roamhome")
        speed = LARGE_BYTES / ours / 1e6
        others = ", ".join(
            f"{name} {LARGE_BYTES / took / 1e6:.0f} MB/s, {cpu[name]:.2f} s CPU (×{took / ours:.2f})"
            for name, took in wall.items()
        )
        self.rows.append((what, f"{speed:.0f} MB/s, {cpu['roamhome']:.2f} s CPU", others, target))
        print(f"{what}: {speed:.0f} MB/s, {cpu['roamhome']:.2f} s CPU; {others}; wanted: {target}", flush=True)

    def delta(self):
        """A small change in a large file that the server has."""
        for rtt, port in [(0, self.stage.line_without_delay()), (self.rtt, self.far)]:
            source = self.stage.new("copy") / "large"
            shutil.copyfile(self.large_file(), source)
            home, to = self.stage.home(port), self.stage.new("server")
            rsync = ["rsync", "-a", "-e", f"ssh {self.stage.ssh_options(port)}", source, f"127.0.0.1:{to}/"]
            shutil.copyfile(source, home.at / "large")
            home.command("flush")
            run(*rsync)
            times = {"roamhome": [], "rsync -a": []}
            for number in range(self.runs + 1):
                data, at = os.urandom(1 << 20), (number + 1) * LARGE_BYTES // (self.runs + 3)
                for path in (source, home.at / "large"):
                    with path.open("r+b") as file:
                        file.seek(at)
                        file.write(data)
                taken = {"roamhome": home.command("flush"), "rsync -a": timed(*rsync)}
                # The first round warms.
                for name in times if number > 0 else ():
                    times[name].append(taken[name])
            run("cmp", source, home.server / "large")
            home.remove()
            ours, others = self.medians(times)
            what = f"1 MiB changed in {LARGE_BYTES >> 20} MiB at {rtt} ms, to the server's disk"
            self.row(what, ours, others, "≤ 0.3 × rsync")

    def waiting(self):
        """A small file is read while a large one fills the line."""
        server = self.stage.new("server")
        # Each in a directory with nothing beside it that would be fetched ahead.
        for number in range(2 * SMALL_FILES):
            self.small(server, number).parent.mkdir(parents=True)
            self.small(server, number).write_bytes(os.urandom(SMALL_BYTES))
        source = self.large_file()
        home = self.stage.home(self.far, server, settings="server_fsync = false\n")
        run("ls", "-lR", home.at)
        alone = [self.read_once(self.small(home.at, n)) for n in range(SMALL_FILES)]
        home.command("offline")
        shutil.copyfile(source, home.at / "large")
        home.command("online")
        flush = subprocess.Popen([self.stage.roamhome, "flush", home.at])
        # Until it is under way at full speed.
        time.sleep(1)
        busy = []
        for number in range(SMALL_FILES, 2 * SMALL_FILES):
            took = self.read_once(self.small(home.at, number))
            if flush.poll() is not None:
                break
            busy.append(took)
            time.sleep(0.05)
        flush.wait()
        home.remove()
        what = f"cat of 4 KiB during an upload of {LARGE_BYTES >> 20} MiB at {self.rtt} ms"
        limit = 3 * self.rtt + 20
        text = f"{statistics.median(busy) * 1000:.0f} ms, at most {max(busy) * 1000:.0f} ms ({len(busy)} reads)"
        quiet = f"{statistics.median(alone) * 1000:.0f} ms without the upload"
        self.fact(what, f"{text}; {quiet}", f"≤ {limit} ms")

    @staticmethod
    def small(at, number):
        return at / f"a{number:03}" / f"b{number:03}" / "small"

    @staticmethod
    def read_once(path):
        started = time.monotonic()
        path.read_bytes()
        return time.monotonic() - started

    def many(self):
        """The first upload of many files, with and without durability, and the first download."""
        source = self.stage.new("source")
        self.extract(self.tar, source)
        shell = f"ssh {self.stage.ssh_options(self.far)}"
        up = {"roamhome": [], "durable": [], "rsync": []}
        down = {"roamhome": [], "rsync": []}
        for _ in range(self.runs):
            for name, settings in [("roamhome", "server_fsync = false\n"), ("durable", "")]:
                home = self.stage.home(self.far, settings=settings)
                home.command("offline")
                self.extract(self.tar, home.at)
                up[name].append(home.command("online") + home.command("flush"))
                home.remove()
            to = self.stage.new("server")
            up["rsync"].append(timed("rsync", "-a", "-e", shell, f"{source}/", f"127.0.0.1:{to}/"))
            back = self.stage.new("back")
            down["rsync"].append(timed("rsync", "-a", "-e", shell, f"127.0.0.1:{to}/", f"{back}/"))
            home = self.stage.home(self.far, to)
            read = "find . -type f -print0 | xargs -0 -n 25 -P 64 cat | wc -c"
            down["roamhome"].append(timed("sh", "-c", read, cwd=home.at))
            run("diff", "-r", "--exclude=.roamhome", source, home.at)
            home.remove()
            for path in (to, back):
                shutil.rmtree(path)
        files = self.files
        for name, what, target in [
            ("roamhome", "server fsync off", "< rsync"),
            ("durable", "server fsync on", "≤ 1.6 × rsync"),
        ]:
            ours, rsync = statistics.median(up[name]), statistics.median(up["rsync"])
            self.row(f"first upload of {files:,} files at {self.rtt} ms, {what}", ours, {"rsync -a": rsync}, target)
        ours, rsync = statistics.median(down["roamhome"]), statistics.median(down["rsync"])
        self.row(f"first download of {files:,} files at {self.rtt} ms", ours, {"rsync -a": rsync}, "≤ rsync")

    def scan(self):
        """A pass over everything, nothing of which has changed."""
        server = self.stage.new("server")
        per_dir = SCAN_FILES // SCAN_DIRS + 1
        for number in range(SCAN_DIRS):
            folder = server / f"d{number // 100:02}" / f"s{number % 100:02}"
            folder.mkdir(parents=True)
            for name in range(min(per_dir, SCAN_FILES - number * per_dir)):
                (folder / f"file{name:02}").write_bytes(b"x" * (name % 7))
        run("find", server, "-exec", "touch", "-h", "-d", "@1600000000", "{}", "+")
        home = self.stage.home(self.far, server)
        first = home.command("reconcile")
        home.command("reconcile")
        local = self.stage.new("local")
        run("cp", "-a", f"{server}/.", local)
        shutil.rmtree(local / ".roamhome", ignore_errors=True)
        environment = os.environ | {"UNISON": str(self.stage.new("unison"))}
        unison = [
            "unison", "-batch", "-ui", "text", "-times", "-auto", "-confirmbigdel=false", "-ignore", "Name .roamhome",
            "-sshargs", self.stage.ssh_options(self.far), local, f"ssh://127.0.0.1/{server}",
        ]
        run(*unison, env=environment)
        remote = self.other_tools(self.far)["rclone"][0](local, server)[-1]
        times = {"roamhome": [], "unison": [], "rclone lsf -R": []}
        for _ in range(self.runs):
            times["roamhome"].append(home.command("reconcile"))
            times["unison"].append(timed(*unison, env=environment))
            times["rclone lsf -R"].append(timed("rclone", "lsf", "-R", remote))
        home.remove()
        ours, others = self.medians(times)
        what = f"scan of {SCAN_FILES:,} files in {SCAN_DIRS:,} directories at {self.rtt} ms"
        self.row(what, ours, others, "≤ 0.5 × each")
        self.fact("the first scan of them", f"{first:.1f} s", "—")

    def idle(self):
        """What clients cost a server that have nothing to do."""
        program = self.stage.roamhome.parent / "examples" / "idle-clients"
        if not program.exists():
            print(f"{program} is missing: build it with `cargo build --release --example idle-clients`")
            return
        sshd = self.stage.children[0].pid
        port, keys = self.stage.line_without_delay(), (self.stage.identity, self.stage.known_hosts)
        environment = os.environ | {"USER": getpass.getuser()}
        said = run(program, port, *keys, self.stage.new("idle"), sshd, env=environment)
        for line in said.strip().splitlines():
            what, value = line.split(": ", 1)
            self.fact(what, value, "—")

