//! Faults of the network at random places of real conversations, and a network that says nothing for a minute.
//!
//! `ROAMHOME_FAULTS` is another number of rounds; `ROAMHOME_FAULT_SEED` begins with another seed. A failure says
//! which it was.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::chance::{content, rounds};
use crate::support::machine::{Machine, Site, assert_same};
use crate::support::rng::Rng;
use crate::support::writer::start;

/// What happens to a machine's network, at a random byte of what it says next.
fn disturb(machine: &Machine, rng: &mut Rng) -> String {
    let proxy = &machine.proxy;
    let at = match rng.below(2) {
        0 => rng.below(20_000),
        _ => rng.below(1_500_000),
    };
    match rng.below(5) {
        0 => proxy.throttle(100_000 + rng.below(2_000_000)),
        1 => proxy.delay(Duration::from_millis(rng.below(15))),
        2 => proxy.stall_after(at),
        _ => proxy.cut_after(at),
    }
    format!("at {at}")
}

/// What was written last under each name.
type Written = BTreeMap<String, Vec<u8>>;

/// One machine's program writes below its own directory, and reads what others wrote there.
fn work(machine: &Machine, own: &str, written: &mut Written, others: &Written, rng: &mut Rng) {
    for _ in 0..6 {
        let name = format!("{own}/{}", rng.below(30));
        if rng.below(6) == 0 && written.remove(&name).is_some() {
            fs::remove_file(machine.at(&name)).unwrap();
            continue;
        }
        let len = if rng.below(5) == 0 { 900_000 } else { 15_000 };
        let data = content(rng.next(), len);
        fs::write(machine.at(&name), &data).unwrap();
        written.insert(name, data);
    }
    for _ in 0..6 {
        let nth = rng.below(others.len().max(1) as u64) as usize;
        if let Some((name, data)) = others.iter().nth(nth)
            && let Ok(read) = fs::read(machine.at(name))
        {
            // Its passes may not have seen the last version, but whatever it is was written whole.
            let whole = [15_000, 900_000].contains(&read.len());
            assert!(whole, "{name} has {} bytes", read.len());
            if read.len() == data.len() && read[..8] == data[..8] {
                assert!(read == *data, "{name} is torn");
            }
        }
    }
}

#[test]
fn faults_at_any_byte_lose_nothing_and_both_machines_agree() {
    let site = Site::new();
    let (a, b) = (site.machine("a"), site.machine("b"));
    a.mount();
    for dir in ["a", "b"] {
        fs::create_dir(a.at(dir)).unwrap();
    }
    a.flush();
    b.mount();
    b.reconcile();
    let (mut of_a, mut of_b) = (Written::new(), Written::new());
    let first = rounds("ROAMHOME_FAULT_SEED", 1);
    for seed in first..first + rounds("ROAMHOME_FAULTS", 15) {
        let mut rng = Rng::new(seed);
        let what = [&a, &b].map(|machine| disturb(machine, &mut rng));
        println!("ROAMHOME_FAULT_SEED={seed}: {what:?}");
        work(&a, "a", &mut of_a, &of_b, &mut rng);
        work(&b, "b", &mut of_b, &of_a, &mut rng);
        let commands = [&a, &b].map(|machine| {
            let command = ["online", "reconcile", "flush"][rng.below(3) as usize];
            start(machine, command)
        });
        thread::sleep(Duration::from_millis(rng.below(800)));
        for machine in [&a, &b] {
            machine.proxy.up();
        }
        for mut command in commands {
            // Whether it succeeded is the network's luck.
            command.wait().unwrap();
        }
    }
    for _ in 0..2 {
        for machine in [&a, &b] {
            machine.ask("online");
            machine.flush();
            machine.reconcile();
        }
    }
    for machine in [&a, &b] {
        assert_same(&site.home(), &machine.home());
        for (name, data) in of_a.iter().chain(&of_b) {
            let read = fs::read(machine.at(name));
            assert!(read.is_ok_and(|read| read == *data), "{name} is lost");
        }
    }
    let here: usize = ["a", "b"]
        .map(|dir| fs::read_dir(a.at(dir)).unwrap().count())
        .iter()
        .sum();
    assert_eq!(here, of_a.len() + of_b.len(), "what was removed is gone");
    for machine in [&a, &b] {
        machine.umount();
        machine.check();
    }
}

/// More than what is fetched before somebody asks for it.
const FAR: usize = 300_000;

/// How long the network says nothing.
const STALL: Duration = Duration::from_secs(60);

/// Nothing that is here takes so long, on however busy a machine.
const DEADLINE: Duration = Duration::from_secs(2);

/// Does it, which must not wait for the network.
#[track_caller]
fn at_once<T: Send + 'static>(what: &str, act: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, outcome) = mpsc::channel();
    thread::spawn(move || {
        // Nobody listens any more if it came too late.
        drop(done.send(act()));
    });
    match outcome.recv_timeout(DEADLINE) {
        Ok(outcome) => outcome,
        Err(_) => panic!("{what} took part in the stall, or failed"),
    }
}

/// Runs a program of the system at once; answers what it printed.
#[track_caller]
fn run(program: &'static str, args: &[&str]) -> String {
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    let output = at_once(&format!("{program} {args:?}"), move || {
        Command::new(program).args(args).output().unwrap()
    });
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Uses everything that needs no network, as programs do.
fn use_what_is_here(machine: &Machine, git: &[&str], time: u64) {
    let home = machine.home();
    run("df", &[home.to_str().unwrap()]);
    assert!(run("ls", &["-lR", home.to_str().unwrap()]).contains("far29"));
    let status = run("git", &[git, &["status", "--short"]].concat());
    assert_eq!(status, "");
    for n in 0..10 {
        let path = home.join(format!("far{n}"));
        let read = at_once("reading", move || fs::read(path).unwrap());
        assert!(read == content(n, FAR));
    }
    let path = home.join(format!("new{}", time % 5));
    at_once("writing", move || {
        fs::write(&path, "new").unwrap();
        fs::rename(&path, path.with_extension("x")).unwrap();
        fs::write(path.with_extension("x"), "newer").unwrap();
    });
}

#[test]
fn nothing_that_is_here_takes_part_in_a_stall_of_a_minute() {
    let site = Site::new();
    let machine = site.machine("m");
    for n in 0..30 {
        fs::write(site.home().join(format!("far{n}")), content(n, FAR)).unwrap();
    }
    machine.mount();
    let repository = machine.at("repository");
    let repository = repository.to_str().unwrap();
    let git = [
        "-C",
        repository,
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b",
    ];
    fs::create_dir(repository).unwrap();
    for n in 0..50 {
        fs::write(machine.at(format!("repository/{n}")), format!("{n}")).unwrap();
    }
    for args in [
        &["init", "-q"][..],
        &["add", "."],
        &["commit", "-q", "-m", "first"],
    ] {
        let done = Command::new("git").args(git).args(args).status().unwrap();
        assert!(done.success());
    }
    machine.flush();
    machine.reconcile();
    for n in 0..10 {
        fs::read(machine.at(format!("far{n}"))).unwrap();
    }
    // Something is sent, something is fetched, and a pass looks, when the network falls silent.
    fs::write(machine.at("large"), content(99, 20_000_000)).unwrap();
    let begun = machine.proxy.passed();
    let mut flush = start(&machine, "flush");
    while machine.proxy.passed() < begun + 1_000_000 {
        thread::sleep(Duration::from_millis(1));
    }
    machine.proxy.stall();
    let begin = Instant::now();
    let waiting: Vec<_> = (10..20)
        .map(|n| {
            let path = machine.at(format!("far{n}"));
            thread::spawn(move || fs::read(path))
        })
        .collect();
    let mut times = 0;
    while begin.elapsed() < STALL {
        use_what_is_here(&machine, &git, times);
        times += 1;
        thread::sleep(Duration::from_millis(300));
    }
    assert!(times > 10, "it was tried {times} times");
    for reader in waiting {
        let error = reader.join().unwrap().map(drop).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EHOSTUNREACH));
    }
    machine.proxy.cut();
    machine.proxy.up();
    flush.wait().unwrap();
    machine.ask("online");
    machine.flush();
    machine.reconcile();
    assert_same(&site.home(), &machine.home());
    machine.umount();
    machine.check();
}
