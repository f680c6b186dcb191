//! A machine that sleeps: nothing waits for the network before and meanwhile, and all goes on afterwards.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use crate::support::chance::content;
use crate::support::logind::{Bus, Logind, pretend_to_sleep};
use crate::support::machine::{Machine, Site, assert_same, eventually};

const UNREACHABLE: Option<i32> = Some(libc::EHOSTUNREACH);

/// A machine of `site` on a bus.
fn machine(site: &Site, bus: &Bus) -> Machine {
    let mut machine = site.machine("m");
    machine.via = vec!["env".into(), bus.variable().into()];
    machine
}

/// A program that reads a file; its errno, or how much it read.
fn reader(path: PathBuf) -> JoinHandle<Result<usize, Option<i32>>> {
    thread::spawn(move || {
        let read = fs::read(path).map_err(|error| error.raw_os_error());
        read.map(|content| content.len())
    })
}

fn read(machine: &Machine, name: &str) -> Result<usize, Option<i32>> {
    reader(machine.at(name)).join().unwrap()
}

/// How the link stands, for people.
fn link(machine: &Machine) -> String {
    let link = &machine.status()["link"];
    format!("{}: {}", link["state"], link["detail"])
}

fn is_asleep(machine: &Machine) -> bool {
    link(machine).contains("the machine is going to sleep")
}

#[test]
fn nothing_waits_for_the_network_while_the_machine_sleeps_and_all_goes_on_when_it_wakes() {
    let site = Site::new();
    let bus = Bus::start(&site.path(""));
    let logind = Logind::start(&bus.socket);
    for name in ["cached", "far", "farther"] {
        fs::write(site.home().join(name), name).unwrap();
    }
    let machine = machine(&site, &bus);
    machine.mount();
    assert_eq!(read(&machine, "cached"), Ok(6));
    logind.wait_until_inhibited();

    machine.proxy.stall();
    let waiting = reader(machine.at("far"));
    eventually("a program waits for the server", || {
        machine.status()["transfers"][0]["path"] == "far"
    });
    assert!(!waiting.is_finished() && logind.inhibitors().len() == 1);
    logind.say(true);
    assert_eq!(waiting.join().unwrap(), Err(UNREACHABLE));
    logind.wait_until_free();
    assert!(is_asleep(&machine), "{}", link(&machine));

    // The network is there, and nobody uses it.
    machine.proxy.up();
    let (passed, connections) = (machine.proxy.passed(), machine.proxy.connections());
    assert_eq!(read(&machine, "cached"), Ok(6));
    fs::write(machine.at("new"), "new").unwrap();
    assert_eq!(read(&machine, "new"), Ok(3));
    for name in ["far", "farther"] {
        assert_eq!(read(&machine, name), Err(UNREACHABLE));
    }
    machine.try_ask("online").assert(0, &["going to sleep"]);
    machine.try_ask("reconcile").assert(4, &["going to sleep"]);
    assert_eq!(read(&machine, "far"), Err(UNREACHABLE));
    assert_eq!(machine.proxy.connections(), connections);
    // The old connection was taken leave of, at most.
    assert!(machine.proxy.passed() - passed < 4096);

    logind.say(false);
    logind.wait_until_inhibited();
    // It is waited for a link that is coming.
    assert_eq!(read(&machine, "far"), Ok(3));
    assert!(machine.proxy.connections() > connections);
    machine.flush();
    assert_same(&site.home(), &machine.home());
    machine.umount();
    logind.wait_until_free();
    machine.check();
}

#[test]
fn what_is_held_offline_stays_so_when_the_machine_wakes() {
    let site = Site::new();
    let bus = Bus::start(&site.path(""));
    let logind = Logind::start(&bus.socket);
    let machine = machine(&site, &bus);
    machine.mount();
    logind.wait_until_inhibited();
    machine.ask("offline");
    let connections = machine.proxy.connections();
    for asleep in [true, false] {
        logind.say(asleep);
        match asleep {
            true => logind.wait_until_free(),
            false => logind.wait_until_inhibited(),
        }
        assert!(link(&machine).contains("held by"), "{}", link(&machine));
    }
    assert_eq!(machine.proxy.connections(), connections);
    machine.ask("online");
    machine.umount();
}

#[test]
fn a_transfer_that_the_sleep_stops_goes_on_where_it_was() {
    const LEN: usize = 24_000_000;
    let site = Site::new();
    let bus = Bus::start(&site.path(""));
    let logind = Logind::start(&bus.socket);
    let large = site.home().join("large");
    fs::write(&large, content(1, LEN)).unwrap();
    // What is young could change unseen meanwhile.
    let old = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
    let file = fs::File::options().write(true).open(&large).unwrap();
    file.set_times(old).unwrap();
    let machine = machine(&site, &bus);
    machine.mount();
    logind.wait_until_inhibited();
    let before = machine.proxy.passed();
    machine.proxy.stall_after(15_000_000);
    let waiting = reader(machine.at("large"));
    eventually("half of it is here", || {
        machine.proxy.passed() > before + 14_900_000
    });
    logind.say(true);
    assert_eq!(waiting.join().unwrap(), Err(UNREACHABLE));
    logind.wait_until_free();
    machine.proxy.up();
    logind.say(false);
    logind.wait_until_inhibited();
    assert_eq!(read(&machine, "large"), Ok(LEN));
    let passed = machine.proxy.passed() - before;
    assert!(
        passed < LEN as u64 + 6_000_000,
        "{passed}\n{}",
        machine.log_end()
    );
    assert_same(&site.home(), &machine.home());
    machine.umount();
}

#[test]
fn a_machine_that_cannot_be_told_that_it_is_awake_finds_out() {
    let site = Site::new();
    let bus = Bus::start(&site.path(""));
    let mut logind = Logind::start(&bus.socket);
    fs::write(site.home().join("far"), "far").unwrap();
    let machine = machine(&site, &bus);
    machine.mount();
    logind.wait_until_inhibited();
    // Anybody may say anything on a bus.
    pretend_to_sleep(&bus.socket);
    assert!(link(&machine).contains("online"), "{}", link(&machine));
    assert_eq!(logind.inhibitors().len(), 1);

    let fall_asleep = |logind: &Logind| {
        logind.wait_until_inhibited();
        logind.say(true);
        logind.wait_until_free();
        assert!(is_asleep(&machine), "{}", link(&machine));
    };
    let wakes = || eventually("it is awake", || link(&machine).contains("online"));
    // Nobody hears it.
    fall_asleep(&logind);
    logind.turn(false);
    wakes();
    // logind ends, and another one comes.
    fall_asleep(&logind);
    drop(logind);
    wakes();
    logind = Logind::start(&bus.socket);
    // The bus ends, and another one comes.
    fall_asleep(&logind);
    drop((logind, bus));
    wakes();
    assert_eq!(read(&machine, "far"), Ok(3));
    let bus = Bus::start(&site.path(""));
    let logind = Logind::start(&bus.socket);
    fall_asleep(&logind);
    logind.say(false);
    wakes();
    machine.umount();
}

#[test]
fn a_home_that_is_mounted_while_the_machine_is_about_to_sleep_waits_for_nothing() {
    let site = Site::new();
    let bus = Bus::start(&site.path(""));
    let logind = Logind::start(&bus.socket);
    fs::write(site.home().join("far"), "far").unwrap();
    let machine = machine(&site, &bus);
    machine.mount();
    machine.umount();
    logind.turn(true);
    machine.mount();
    eventually("it knows", || is_asleep(&machine));
    assert_eq!(fs::metadata(machine.at("far")).unwrap().size(), 3);
    assert_eq!(read(&machine, "far"), Err(UNREACHABLE));
    assert_eq!(logind.inhibitors().len(), 0);
    logind.say(false);
    logind.wait_until_inhibited();
    assert_eq!(read(&machine, "far"), Ok(3));
    machine.umount();
}

#[test]
fn without_a_bus_and_with_a_logind_that_never_answers_all_else_works() {
    let site = Site::new();
    fs::write(site.home().join("far"), "far").unwrap();
    let mut machine = site.machine("m");
    let address = |path: PathBuf| {
        let address = format!("DBUS_SYSTEM_BUS_ADDRESS=unix:path={}", path.display());
        vec!["env".into(), address.into()]
    };
    machine.via = address(site.path("nothing"));
    machine.mount();
    assert_eq!(read(&machine, "far"), Ok(3));
    let log = || fs::read_to_string(machine.state().join("daemon.log")).unwrap();
    eventually("it tries again", || log().matches("still not").count() > 1);
    let told = "does not wait for this home";
    assert_eq!(log().matches(told).count(), 1);
    machine.umount();

    let bus = Bus::start(&site.path(""));
    let _logind = Logind::start_mute(&bus.socket);
    machine.via = address(bus.socket.clone());
    machine.mount();
    fs::write(machine.at("new"), "new").unwrap();
    machine.umount();
    assert_eq!(fs::read(site.home().join("new")).unwrap(), b"new");
    machine.check();
}
