//! The power goes, at any moment: what was synced is there again, and all that is left goes to the server.
//!
//! The real program on the real file systems, each on a disk whose power is cut while programs write, while
//! content is fetched, while a pass runs, and while the server owes an answer. `ROAMHOME_CUTS` is another number of
//! cuts for each file system.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, kill_process};

use self::computer::Computer;
use self::disk::{Cut, kernel_has};
use self::ledger::{Found, Ledger};
use crate::support::chance::{content, rounds};
use crate::support::machine::{Site, assert_same, eventually, needs_root};
use crate::support::rng::Rng;
use crate::support::writer::{DIRS, Writer, found_in, start};

mod computer;
pub(crate) mod disk;
mod ledger;

/// Files that somebody else puts on the server before each cut.
const FAR: u64 = 40;

/// What somebody else wrote: file `number` of `round`.
fn far(round: u64, number: u64) -> Vec<u8> {
    let len = if number == 0 { 1_500_000 } else { 9_000 };
    content(round * FAR + number, len)
}

/// A computer whose power is cut again and again.
struct Story {
    site: Site,
    computer: Computer,
    writer: Writer,
    ledger: Ledger,
    /// How many files were read from the server while the power went.
    fetched: u64,
    /// Files that were synced.
    syncs: u64,
}

impl Story {
    fn new(kind: &'static str) -> Self {
        let site = Site::new();
        let computer = Computer::new(&site, kind);
        computer.machine.mount();
        for dir in DIRS.into_iter().chain(["far"]) {
            fs::create_dir(computer.machine.at(dir)).unwrap();
        }
        computer.machine.flush();
        Self {
            site,
            computer,
            writer: Writer::default(),
            ledger: Ledger::new(&Found::new()),
            fetched: 0,
            syncs: 0,
        }
    }

    /// Works until the power goes.
    fn work(&mut self, round: u64, rng: &mut Rng) {
        let machine = &self.computer.machine;
        let home = machine.home();
        let dir = self.site.home().join(format!("far/{round}"));
        fs::create_dir(&dir).unwrap();
        for number in 0..FAR {
            fs::write(dir.join(number.to_string()), far(round, number)).unwrap();
        }
        // Sometimes the pass that finds them is cut, sometimes what comes after it.
        let known = rng.below(3) > 0;
        if known {
            machine.reconcile();
        }
        // All is on the disk: from here on, the ledger is told what comes.
        for name in self.writer.files.keys() {
            File::open(home.join(name)).unwrap().sync_all().unwrap();
        }
        File::open(&home).unwrap().sync_all().unwrap();
        self.ledger = Ledger::new(&self.writer.files);
        let (over, off) = (AtomicBool::new(false), AtomicBool::new(false));
        let (writer, ledger, fetched) = (&mut self.writer, &mut self.ledger, &mut self.fetched);
        let (mut steps, mut reads) = (Rng::new(rng.next()), Rng::new(rng.next()));
        let pid = machine.pid();
        let mut command = None;
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    if !try_step(writer, ledger, &home, &mut steps, &off) {
                        break;
                    }
                }
            });
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let number = reads.below(FAR);
                    let read = fs::read(home.join(format!("far/{round}/{number}")));
                    if let Ok(read) = read {
                        assert!(read == far(round, number), "far/{round}/{number} is wrong");
                        *fetched += 1;
                    }
                    thread::sleep(Duration::from_millis(2));
                }
            });
            thread::sleep(Duration::from_millis(rng.below(700)));
            command = match rng.below(3) {
                0 => Some(start(machine, "reconcile")),
                1 => Some(start(machine, "flush")),
                _ => None,
            };
            thread::sleep(Duration::from_millis(rng.below(400)));
            match rng.below(3) {
                // The server owes an answer.
                0 => machine.proxy.stall(),
                1 => machine.proxy.delay(Duration::from_millis(5)),
                _ => {}
            }
            thread::sleep(Duration::from_millis(rng.below(60)));
            let cuts = self.computer.cuts();
            off.store(true, Ordering::SeqCst);
            self.computer
                .cut(cuts[rng.below(cuts.len() as u64) as usize]);
            // What the daemon did not put on its disk may still reach the server.
            thread::sleep(Duration::from_millis(rng.below(40)));
            machine.proxy.down();
            over.store(true, Ordering::Relaxed);
            // All that ran is gone.
            kill_process(pid.unwrap(), Signal::KILL).unwrap();
        });
        if let Some(mut command) = command {
            command.wait().unwrap();
        }
        self.computer.power_on();
    }

    /// Without the server, all that was synced is there, and nothing is wrong.
    fn look(&mut self, context: &str) {
        let machine = &self.computer.machine;
        self.check(context);
        let before = machine.proxy.passed();
        machine.mount();
        let (found, sent) = found_offline(&machine.home());
        let broken = self.ledger.broken(&found, &sent);
        assert!(
            broken.is_empty(),
            "{context}: {broken:#?}\n{}",
            machine.log_end()
        );
        assert_eq!(machine.proxy.passed(), before, "the server was asked");
        self.syncs += self.ledger.syncs;
        for dir in fs::read_dir(machine.at("far")).unwrap() {
            let dir = dir.unwrap();
            let round: u64 = dir.file_name().to_str().unwrap().parse().unwrap();
            let files: Result<Vec<_>, _> = fs::read_dir(dir.path()).and_then(Iterator::collect);
            let files = match files {
                // It was never listed.
                Err(error) if error.raw_os_error() == Some(libc::EHOSTUNREACH) => continue,
                files => files.unwrap(),
            };
            for file in files {
                let name = file.file_name();
                let number: u64 = name.to_str().unwrap().parse().unwrap();
                // Here, or not here: never something else.
                match fs::read(dir.path().join(number.to_string())) {
                    Ok(read) => assert!(
                        read == far(round, number),
                        "{context}: far/{round}/{number} is wrong"
                    ),
                    Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EHOSTUNREACH)),
                }
            }
        }
        self.writer.pending = None;
        self.writer.files = found;
    }

    /// The state directory is sound. Content may be there whose row was never synced: that is not taken for a file,
    /// but named, and left for who wants it. Content that both agree on may still be in `unsent/`, where it is found
    /// as well.
    fn check(&self, context: &str) {
        let machine = &self.computer.machine;
        let said = machine.try_run(&["check", "--state", machine.state().to_str().unwrap()]);
        let harmless = [
            "the index does not know",
            "nothing needs it",
            "sent, but among the unsent",
        ];
        let found = said.stderr.lines().filter(|line| line.contains("found: "));
        let wrong: Vec<_> = found
            .filter(|line| !harmless.iter().any(|part| line.contains(part)))
            .collect();
        assert!(wrong.is_empty(), "{context}: {wrong:#?}");
        assert!([0, 9].contains(&said.status), "{context}: {said:?}");
    }

    /// With the server, both become the same, and nothing is lost on the way.
    fn meet(&mut self, context: &str) {
        let machine = &self.computer.machine;
        machine.proxy.up();
        machine.ask("online");
        machine.flush();
        machine.reconcile();
        machine.flush();
        assert_same(&self.site.home(), &machine.home());
        let found = found_in(&machine.home());
        let lost = self.ledger.lost(&found);
        assert!(lost.is_empty(), "{context}: {lost:?} are lost");
        self.writer.files = found;
    }
}

/// Does a step and takes note of it; whether there may be another one.
fn try_step(
    writer: &mut Writer,
    ledger: &mut Ledger,
    home: &Path,
    rng: &mut Rng,
    off: &AtomicBool,
) -> bool {
    let step = writer.choose(rng);
    ledger.begin(&step);
    // The kernel has acknowledged syncs of a disk that had just lost its power (a commit of the log that failed is no
    // longer waited for by who comes a moment later): nobody hears of those.
    if writer.act(home, step.clone()).is_err() || off.load(Ordering::SeqCst) {
        return false;
    }
    ledger.done(&step);
    true
}

/// The writer's files that are here, and the names of those whose content the server alone has.
fn found_offline(home: &Path) -> (Found, BTreeSet<String>) {
    let (mut found, mut sent) = (Found::new(), BTreeSet::new());
    for dir in DIRS {
        for entry in fs::read_dir(home.join(dir)).unwrap() {
            let name = format!("{dir}/{}", entry.unwrap().file_name().to_string_lossy());
            match fs::read(home.join(&name)) {
                Ok(data) => drop(found.insert(name, data)),
                Err(error) if error.raw_os_error() == Some(libc::EHOSTUNREACH) => {
                    sent.insert(name);
                }
                Err(error) => panic!("{name}: {error}"),
            }
        }
    }
    (found, sent)
}

fn cut_again_and_again(kind: &'static str, default: u64) {
    needs_root("mount a disk");
    if !kernel_has(kind) {
        return;
    }
    let cuts = rounds("ROAMHOME_CUTS", default);
    let mut story = Story::new(kind);
    for round in 0..cuts {
        let context = format!("{kind}, cut {round}");
        let mut rng = Rng::new(round);
        story.work(round, &mut rng);
        story.look(&context);
        story.meet(&context);
    }
    let machine = &story.computer.machine;
    machine.umount();
    story.check("at the end");
    let (steps, syncs, fetched) = (story.writer.done, story.syncs, story.fetched);
    println!("{kind}: {cuts} cuts, {steps} steps, {syncs} files synced, {fetched} read");
    assert!(syncs > cuts && fetched > cuts, "this is no test");
}

#[test]
fn what_was_synced_survives_power_loss_on_ext4() {
    cut_again_and_again("ext4", 6);
}

#[test]
fn what_was_synced_survives_power_loss_on_xfs() {
    cut_again_and_again("xfs", 2);
}

#[test]
fn what_was_synced_survives_power_loss_on_btrfs() {
    cut_again_and_again("btrfs", 2);
}

#[test]
fn a_start_after_power_loss_looks_at_what_was_unsent_and_at_nothing_else() {
    needs_root("mount a disk");
    let site = Site::new();
    let mut computer = Computer::new(&site, "ext4");
    for number in 0..300 {
        fs::write(site.home().join(format!("far{number}")), far(0, 1)).unwrap();
    }
    let machine = &mut computer.machine;
    machine.mount();
    machine.reconcile();
    for number in 0..300 {
        fs::read(machine.at(format!("far{number}"))).unwrap();
    }
    // What is on the disk by now.
    machine.umount();
    machine.proxy.down();
    machine.mount();
    for number in 0..3 {
        let mut file = File::create(machine.at(format!("unsent{number}"))).unwrap();
        file.write_all(b"unsent").unwrap();
        file.sync_all().unwrap();
    }
    let pid = machine.pid().unwrap();
    computer.cut(Cut::Seal);
    kill_process(pid, Signal::KILL).unwrap();
    computer.power_on();

    let machine = &mut computer.machine;
    let trace = machine.disk("trace");
    // The tracer is nobody's parent, so that the command returns while the daemon is traced.
    let strace = [
        "strace",
        "-DDD",
        "-f",
        "-qq",
        "-y",
        "-e",
        "trace=%file,getdents64",
    ];
    machine.via.extend(strace.map(OsString::from));
    machine.via.extend(["-o".into(), trace.clone().into()]);
    // The tracer would hold the command's pipes.
    let args = machine.mount_args();
    let args: Vec<_> = args.iter().map(OsString::as_os_str).collect();
    let mut mount = machine.command(&args);
    let status = mount.stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.unwrap().success(), "{}", machine.log_end());
    let asked = machine.proxy.passed();
    for number in 0..3 {
        let read = fs::read(machine.at(format!("unsent{number}"))).unwrap();
        assert_eq!(read, b"unsent");
    }
    assert_eq!(machine.proxy.passed(), asked);
    machine.signal(Signal::KILL);
    let lines_with = |part: &str| {
        let text = fs::read_to_string(&trace).unwrap_or_default();
        text.lines().filter(|line| line.contains(part)).count()
    };
    eventually("the trace is written", || lines_with("+++ killed") > 0);
    assert!(lines_with("/state/unsent/") > 3, "the trace shows nothing");
    // Of what the server has too, only where unsent files would be if they had not moved yet.
    assert!(
        lines_with("/state/content/") <= 6,
        "cached files were looked at"
    );
}
