//! The daemon is killed in each phase of its life: while it starts, while it fetches, while it sends and compares over
//! a slow network. `ROAMHOME_KILLS` is another number of kills for each.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, kill_process};

use crate::support::chance::{content, rounds};
use crate::support::machine::{Machine, Site, assert_same, eventually};
use crate::support::rng::Rng;
use crate::support::writer::{DIRS, Writer, start};

const KILLS: u64 = 12;

/// Begins to mount, and kills what came of it after `patience`.
fn kill_a_start(machine: &Machine, patience: Duration) {
    let args = machine.mount_args();
    let args: Vec<_> = args.iter().map(|arg| arg.as_os_str()).collect();
    let mut child = machine.command(&args).spawn().unwrap();
    thread::sleep(patience);
    // The command may start its daemon in this moment.
    eventually("all of it is dead", || {
        let found = machine.processes();
        for pid in &found {
            // It may have ended meanwhile.
            let _killed = kill_process(*pid, Signal::KILL);
        }
        let _ended = child.try_wait().unwrap();
        found.is_empty()
    });
    child.wait().unwrap();
}

#[test]
fn a_start_can_be_killed_at_any_moment_again_and_again() {
    let site = Site::new();
    let machine = site.machine("m");
    let (mut rng, mut moments, mut writer) = (Rng::new(1), Rng::new(11), Writer::default());
    for dir in DIRS {
        fs::create_dir(site.home().join(dir)).unwrap();
    }
    for round in 0..rounds("ROAMHOME_KILLS", KILLS) {
        println!("round {round}");
        // Without the server there is more to do after it.
        if round % 2 == 1 {
            machine.proxy.down();
        }
        machine.mount();
        writer.verify(&machine);
        thread::scope(|scope| {
            scope.spawn(|| {
                loop {
                    let step = writer.choose(&mut rng);
                    if writer.act(&machine.home(), step).is_err() {
                        break;
                    }
                }
            });
            thread::sleep(Duration::from_millis(100));
            machine.kill9();
        });
        for _ in 0..4 {
            kill_a_start(&machine, Duration::from_millis(moments.below(90)));
        }
        machine.proxy.up();
    }
    machine.mount();
    writer.verify(&machine);
    machine.ask("online");
    machine.flush();
    machine.reconcile();
    assert_same(&site.home(), &machine.home());
    writer.verify(&machine);
    machine.umount();
    machine.check();
}

#[test]
fn a_first_mount_can_be_killed_at_any_moment() {
    let site = Site::new();
    fs::write(site.home().join("far"), "far").unwrap();
    let mut rng = Rng::new(2);
    for round in 0..rounds("ROAMHOME_KILLS", KILLS) {
        let machine = site.machine(&format!("m{round}"));
        let patience = rng.below(150);
        println!("killed after {patience} ms");
        kill_a_start(&machine, Duration::from_millis(patience));
        machine.mount();
        assert_eq!(fs::read_to_string(machine.at("far")).unwrap(), "far");
        fs::write(machine.at("new"), format!("{round}")).unwrap();
        machine.umount();
        machine.check();
    }
}

/// Files that somebody else puts on the server before each kill.
const FAR: u64 = 40;

fn far(round: u64, number: u64) -> Vec<u8> {
    content(
        round * FAR + number,
        if number == 0 { 3_000_000 } else { 9_000 },
    )
}

#[test]
fn what_is_fetched_when_the_daemon_is_killed_is_fetched_whole_or_again() {
    let site = Site::new();
    let machine = site.machine("m");
    let mut rng = Rng::new(3);
    let kills = rounds("ROAMHOME_KILLS", KILLS);
    let read = AtomicU64::new(0);
    machine.mount();
    for round in 0..kills {
        println!("round {round}");
        let dir = site.home().join(format!("{round}"));
        fs::create_dir(&dir).unwrap();
        for number in 0..FAR {
            fs::write(dir.join(number.to_string()), far(round, number)).unwrap();
        }
        machine.reconcile();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..4 {
                let (mut rng, home) = (Rng::new(rng.next()), machine.home());
                let (over, read) = (&over, &read);
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        let number = rng.below(FAR);
                        if let Ok(data) = fs::read(home.join(format!("{round}/{number}"))) {
                            assert!(data == far(round, number), "{round}/{number} is wrong");
                            read.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            thread::sleep(Duration::from_millis(rng.below(60)));
            machine.kill9();
            over.store(true, Ordering::Relaxed);
        });
        machine.mount();
    }
    assert!(read.load(Ordering::Relaxed) > kills, "this is no test");
    for round in 0..kills {
        for number in 0..FAR {
            let data = fs::read(machine.at(format!("{round}/{number}"))).unwrap();
            assert!(data == far(round, number), "{round}/{number} is wrong");
        }
    }
    assert_same(&site.home(), &machine.home());
    machine.umount();
    machine.check();
}

#[test]
fn what_is_sent_and_compared_over_a_slow_network_survives_kills() {
    let site = Site::new();
    let machine = site.machine("m");
    let (mut rng, mut writer) = (Rng::new(4), Writer::default());
    machine.mount();
    for dir in DIRS.into_iter().chain(["elsewhere"]) {
        fs::create_dir(machine.at(dir)).unwrap();
    }
    machine.flush();
    let kills = rounds("ROAMHOME_KILLS", KILLS);
    for round in 0..kills {
        println!("round {round}");
        for _ in 0..40 {
            let step = writer.choose(&mut rng);
            writer.act(&machine.home(), step).unwrap();
        }
        fs::write(site.home().join(format!("elsewhere/{round}")), "x").unwrap();
        // Most of the time the server owes some answer.
        machine.proxy.delay(Duration::from_millis(rng.below(20)));
        let command = ["flush", "reconcile"][rng.below(2) as usize];
        let mut command = start(&machine, command);
        thread::sleep(Duration::from_millis(rng.below(600)));
        if rng.below(3) == 0 {
            machine.proxy.stall();
            thread::sleep(Duration::from_millis(rng.below(200)));
        }
        machine.kill9();
        machine.proxy.up();
        command.wait().unwrap();
        machine.mount();
        writer.verify(&machine);
    }
    machine.ask("online");
    machine.flush();
    machine.reconcile();
    machine.flush();
    writer.verify(&machine);
    assert_same(&site.home(), &machine.home());
    machine.umount();
    machine.check();
}
