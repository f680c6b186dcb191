//! The daemon is killed at any moment, as by the kernel's OOM killer: what a program was told is done, is done.
//!
//! The server's answer to an upload may die with the daemon. The next daemon knows its predecessor's work all the
//! same: nothing comes back that was removed since, and nothing older wins.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::chance::rounds;
use crate::support::machine::{Machine, Site, assert_same, eventually};
use crate::support::mounted::is_mounted;
use crate::support::rng::Rng;
use crate::support::writer::{DIRS, Writer, start};

/// Machines that run side by side, and how often the daemon of each is killed; `ROAMHOME_KILLS` is another number.
const MACHINES: u64 = 4;
const KILLS: u64 = 25;

/// Writes until the daemon is killed, comes back, and looks at what is left; again and again.
fn kill_again_and_again(site: &Site, seed: u64) {
    let home = site.path(&format!("server-{seed}"));
    fs::create_dir(&home).unwrap();
    let machine = site.machine_for(&format!("machine-{seed}"), &home);
    let mut rng = Rng::new(seed);
    machine.mount();
    for dir in DIRS.into_iter().chain(["elsewhere"]) {
        fs::create_dir(machine.at(dir)).unwrap();
    }
    machine.flush();
    let mut writer = Writer::default();
    // One of them does not see the server before the end.
    let offline = seed == 1;
    if offline {
        machine.proxy.down();
    }
    let kills = rounds("ROAMHOME_KILLS", KILLS);
    for round in 0..kills {
        // Somebody else's work, for the passes that are killed.
        fs::write(home.join(format!("elsewhere/{round}")), vec![b'x'; 50_000]).unwrap();
        let over = AtomicBool::new(false);
        let mut commands = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut rng = Rng::new(seed * 1_000 + round);
                while !over.load(Ordering::Relaxed) {
                    let step = writer.choose(&mut rng);
                    if writer.act(&machine.home(), step).is_err() {
                        break;
                    }
                }
            });
            thread::sleep(Duration::from_millis(rng.below(150)));
            commands.extend(match rng.below(3) {
                0 => Some(start(&machine, "reconcile")),
                1 => Some(start(&machine, "flush")),
                _ => None,
            });
            thread::sleep(Duration::from_millis(rng.below(250)));
            machine.kill9();
            over.store(true, Ordering::Relaxed);
        });
        for mut command in commands {
            command.wait().unwrap();
        }
        machine.mount();
        writer.verify(&machine);
    }
    machine.proxy.up();
    machine.ask("online");
    assert!(
        writer.done > kills * 10,
        "{} steps are no test",
        writer.done
    );
    machine.flush();
    machine.reconcile();
    machine.flush();
    writer.verify(&machine);
    assert_eq!(
        fs::read_dir(machine.at("elsewhere")).unwrap().count() as u64,
        kills
    );
    assert_same(&home, &machine.home());
    machine.umount();
    machine.check();
}

#[test]
fn what_was_acknowledged_survives_any_kill_of_the_daemon() {
    let site = Site::new();
    thread::scope(|scope| {
        for seed in 1..=MACHINES {
            let site = &site;
            scope.spawn(move || kill_again_and_again(site, seed));
        }
    });
}

#[test]
fn a_home_can_be_mounted_over_the_mount_that_a_dead_daemon_left() {
    let site = Site::new();
    let machine = site.machine("m");
    machine.mount();
    fs::write(machine.at("file"), "here").unwrap();
    for _ in 0..2 {
        machine.kill9();
        let error = fs::read_dir(machine.home()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));
        machine.mount();
        assert_eq!(fs::read_to_string(machine.at("file")).unwrap(), "here");
    }
    machine.umount();
    assert!(!is_mounted(&machine.home()), "no dead mount is left below");
    machine.mount();
    machine.kill9();
    // Who does not want it again takes it away.
    machine
        .try_ask("umount")
        .assert(3, &["its daemon was gone"]);
    assert!(!is_mounted(&machine.home()));
    machine.check();
}

#[test]
fn a_daemon_that_dies_while_it_is_asked_is_as_dead_as_one_that_died_before() {
    let site = Site::new();
    let machine = site.machine("m");
    machine.mount();
    machine.signal(Signal::STOP);
    let mut next = machine
        .command(
            &machine
                .mount_args()
                .iter()
                .map(|arg| arg.as_os_str())
                .collect::<Vec<_>>(),
        )
        .spawn()
        .unwrap();
    eventually("the next mount waits for an answer of the last one", || {
        waits_for_fuse(&machine)
    });
    machine.signal(Signal::KILL);
    assert!(next.wait().unwrap().success());
    machine.umount();
    machine.check();
}

/// Whether a process of the machine is inside statfs(2), which a home answers from its daemon.
fn waits_for_fuse(machine: &Machine) -> bool {
    machine.processes().into_iter().any(|pid| {
        let path = format!("/proc/{}/wchan", pid.as_raw_nonzero());
        let at = fs::read_to_string(path).unwrap_or_default();
        at == "request_wait_answer"
    })
}
