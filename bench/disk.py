"""The measurements of the mount beside the disk: a large file, a database, programs, and a very large home."""

import os
import pathlib
import random
import shutil
import sqlite3
import statistics
import time

from stage import run, timed

BIG_BYTES = int(os.environ.get("BENCH_BIG_BYTES", 1 << 30))
BLOCK = 1 << 20
PAGE = 4096
RANDOM_PAGES = 20_000
COMMITS = 500
MANY = int(os.environ.get("BENCH_MANY_FILES", 1_000_000))
CRATE_MODULES = 60


def sequential_write(path):
    data = os.urandom(BLOCK)
    started = time.monotonic()
    with open(path, "wb", buffering=0) as file:
        for _ in range(BIG_BYTES // BLOCK):
            file.write(data)
    return time.monotonic() - started


def sequential_read(path):
    started = time.monotonic()
    with open(path, "rb", buffering=0) as file:
        while file.read(BLOCK):
            pass
    return time.monotonic() - started


def random_pages():
    rng = random.Random(4711)
    return [rng.randrange(BIG_BYTES // PAGE) * PAGE for _ in range(RANDOM_PAGES)]


def at_random(path, flags, touch):
    file = os.open(path, flags)
    started = time.monotonic()
    for at in random_pages():
        touch(file, at)
    took = time.monotonic() - started
    os.close(file)
    return took


def random_read(path):
    return at_random(path, os.O_RDONLY, lambda file, at: os.pread(file, PAGE, at))


def random_write(path):
    data = os.urandom(PAGE)
    return at_random(path, os.O_WRONLY, lambda file, at: os.pwrite(file, data, at))


def transactions(path, mode):
    """So many commits of one row, each durable."""
    base = sqlite3.connect(path, isolation_level=None)
    base.execute(f"PRAGMA journal_mode={mode}")
    base.execute("CREATE TABLE IF NOT EXISTS t (k INTEGER PRIMARY KEY, v TEXT)")
    started = time.monotonic()
    for number in range(COMMITS):
        base.execute("INSERT INTO t (v) VALUES (?)", (f"row {number}" * 10,))
    took = time.monotonic() - started
    base.close()
    return took


class DiskParts:
    """Parts of the bench about the mount beside the disk; mixed into it."""

    def places(self):
        """A home of root's own mount, and a directory of the disk."""
        home = self.stage.home(self.far, settings="server_fsync = false\n")
        return home, {"roamhome": home.at, "ext4": self.stage.new("ext4")}

    def side_by_side(self, what, places, measure, target, rounds=None):
        """A row of medians of `measure(place)`, taking turns; the first round warms."""
        times = {name: [] for name in places}
        for number in range((rounds or self.runs) + 1):
            for name, at in places.items():
                took = measure(at)
                if number > 0:
                    times[name].append(took)
        ours, others = self.medians(times)
        self.row(what, ours, others, target)

    def large(self):
        """One large file and a database, warm."""
        home, places = self.places()
        home.command("offline")
        size = f"{BIG_BYTES >> 20} MiB"
        for what, measure in [
            (f"write of {size}, one after the other", sequential_write),
            (f"read of {size}, one after the other", sequential_read),
            (f"read of {RANDOM_PAGES:,} pages of it at random", random_read),
            (f"write of {RANDOM_PAGES:,} pages of it at random", random_write),
        ]:
            self.side_by_side(what, places, lambda at, do=measure: do(at / "big"), "≤ 1.05 × ext4")
        for mode in ("DELETE", "WAL"):
            what = f"{COMMITS} commits of SQLite, journal_mode={mode}"
            self.side_by_side(what, places, lambda at, m=mode: transactions(at / m, m), "≤ 1.11 × ext4")
        home.remove()
        shutil.rmtree(places["ext4"])

    def programs(self):
        """What people run in a home, warm."""
        home, places = self.places()
        places["bindfs"] = self.stage.bindfs()
        for at in places.values():
            self.extract(self.tar, at)
            run("sh", "-c", "git init -q . && git config gc.auto 0 && git add -A . && git -c user.name=n -c user.email=e@x commit -qm x", cwd=at)
            make_crate(at / "crate")
        home.command("flush")
        home.command("offline")
        for what, shell, target in [
            ("git status of 10,000 files", "git status --short", "≤ 1.1 × ext4"),
            ("grep -r in 10,000 files", "grep -rq nothing-like-it . --exclude-dir=.git || true", "≤ 1.5 × ext4"),
            ("compile of a small crate", "cd crate && rm -rf t && cargo build -q --offline --target-dir t", "≤ 1.1 × ext4"),
            ("create and remove 5,000 files", "mkdir x && cd x && seq 5000 | xargs touch && seq 5000 | xargs rm", "≤ 0.8 × bindfs"),
        ]:
            tidy = "rm -rf x; "
            self.side_by_side(what, places, lambda at, s=tidy + shell: timed("sh", "-c", s, cwd=at), target)
        times = {name: [timed("sh", "-c", "rm -rf d*", cwd=at)] for name, at in places.items()}
        ours, others = self.medians(times)
        self.row("rm -rf of 10,000 files", ours, others, "≤ 0.8 × bindfs")
        self.stage.unmount(places["bindfs"])
        home.remove()

    def million(self):
        """A very large home: how it comes up on a new machine and on one that knows it, and what that takes."""
        server = self.stage.new("server")
        per_dir = 10
        for number in range(MANY // per_dir):
            folder = server / f"d{number // 1000:03}" / f"s{number % 1000:03}"
            folder.mkdir(parents=True)
            for name in range(per_dir):
                (folder / f"file{name}").write_bytes(b"x" * (name % 7))
        home = self.stage.home(self.far, server)
        first = timed("ls", "-l", home.at)
        self.fact(f"first ls of a home of {MANY:,} files at {self.rtt} ms", f"{first * 1000:.0f} ms", "≤ 5 round trips")
        took = home.command("reconcile")
        self.fact("the first pass over all of it", f"{took:.0f} s", "—")
        home.unmount()
        known = []
        for _ in range(self.runs):
            known.append(home.mount())
            run("sh", "-c", "find . | head -n 100000 | xargs stat >/dev/null", cwd=home.at)
            took = home.command("reconcile")
            rss = memory(home.daemon_pid())
            home.unmount()
        self.row(f"mount of a known home, {MANY:,} files", statistics.median(known), {}, "≤ 1 s")
        self.fact("a pass over all of it, nothing changed", f"{took:.0f} s", "—")
        self.fact("daemon's memory (RSS) after it", f"{rss / 1024:.0f} MiB", "≤ 300 MB")
        index = (home.state / "index.db").stat().st_size
        self.fact("index, per file", f"{index / MANY:.0f} bytes", "≤ 400 bytes")


def memory(pid):
    """Resident memory of a process, in KiB."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def make_crate(at):
    """A crate of some modules, without dependencies."""
    (at / "src").mkdir(parents=True)
    (at / "Cargo.toml").write_text('[package]\nname = "small"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n')
    names = [f"m{number}" for number in range(CRATE_MODULES)]
    for name in names:
        code = "\n".join(f"pub fn f{n}(x: u64) -> u64 {{ x.wrapping_mul({n}) + {n} }}" for n in range(40))
        (at / "src" / f"{name}.rs").write_text(code)
    uses = "\n".join(f"mod {name};" for name in names)
    calls = " + ".join(f"{name}::f1(1)" for name in names)
    (at / "src/main.rs").write_text(f'{uses}\nfn main() {{ println!("{{}}", {calls}); }}\n')
