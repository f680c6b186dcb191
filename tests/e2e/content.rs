//! What of the home is on this machine: it is told, fetched, kept and let go as its user says, and within its room.

use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use crate::support::machine::{Machine, Site, assert_same, eventually};

const SIZE: usize = 100_000;

/// A file of long ago. What changed a moment ago may change again without showing it, and stays until it was compared.
fn publish(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    let long_ago = UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    file.set_modified(long_ago).unwrap();
}

/// A home on the server with some directories of files.
fn site() -> Site {
    let site = Site::new();
    for dir in ["music", "photos", "odd \u{fffd}dir"] {
        fs::create_dir(site.home().join(dir)).unwrap();
        for number in 0..4_u8 {
            let path = site.home().join(dir).join(format!("f{number}"));
            publish(&path, &vec![number; SIZE]);
        }
    }
    site
}

/// The word for where a file is, as its attribute has it.
fn state(path: &Path) -> String {
    let mut buffer = [0; 100];
    let len = rustix::fs::getxattr(path, "user.roamhome.state", &mut buffer[..]).unwrap();
    String::from_utf8(buffer[..len].to_vec()).unwrap()
}

/// A command about paths of the home, which has to succeed.
#[track_caller]
fn run(machine: &Machine, args: &[&str], paths: &[&str]) -> String {
    let paths: Vec<String> = paths
        .iter()
        .map(|path| machine.at(path).to_str().unwrap().to_owned())
        .collect();
    let args: Vec<&str> = args
        .iter()
        .copied()
        .chain(paths.iter().map(String::as_str))
        .collect();
    machine.run(&args)
}

/// Each file of content on the machine's disk that the server has too.
fn for_each_cached(machine: &Machine, mut see: impl FnMut(&Path)) {
    for fan in fs::read_dir(machine.state().join("content")).unwrap() {
        for file in fs::read_dir(fan.unwrap().path()).unwrap() {
            see(&file.unwrap().path());
        }
    }
}

/// Their bytes.
fn cached(machine: &Machine) -> u64 {
    let mut bytes = 0;
    for_each_cached(machine, |path| {
        // It may be on its way.
        bytes += path.metadata().map_or(0, |found| found.len());
    });
    bytes
}

#[test]
fn content_is_fetched_let_go_and_kept_as_somebody_says() {
    let site = site();
    let machine = site.machine("a");
    machine.mount();
    let listed = run(&machine, &["ls"], &["music"]);
    assert_eq!(listed.lines().count(), 4, "{listed}");
    assert!(
        listed.lines().all(|line| line.starts_with("remote")),
        "{listed}"
    );
    assert_eq!(state(&machine.at("music/f1")), "remote");
    fs::read(machine.at("music/f1")).unwrap();
    assert_eq!(state(&machine.at("music/f1")), "local");

    // All of it, for the journey.
    let refused = machine.try_run(&["prefetch", machine.home().to_str().unwrap()]);
    refused.assert(2, &["is a directory", "--recursive"]);
    let fetched = run(&machine, &["prefetch", "-r"], &[""]);
    assert!(fetched.contains("11 files fetched"), "{fetched}");
    machine.ask("offline");
    assert_same(&site.home(), &machine.home());
    fs::write(machine.at("music/f0"), "newer").unwrap();
    fs::write(machine.at("new"), "new").unwrap();
    let json = run(&machine, &["ls", "--json"], &["music"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let states: Vec<_> = json["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["state"])
        .collect();
    assert_eq!(states, ["dirty", "local", "local", "local"]);
    // The server cannot be asked whether it has the rest.
    let home = machine.home();
    let evict = ["evict", "-r", home.to_str().unwrap()];
    machine.try_run(&evict).assert(4, &["offline"]);
    assert_eq!(cached(&machine), 12 * SIZE as u64);

    // Back again: what is pinned or open stays, and so does what is not sent.
    machine.ask("online");
    machine.flush();
    run(&machine, &["pin", "-r"], &["photos", "odd \u{fffd}dir"]);
    let open = fs::File::open(machine.at("music/f2")).unwrap();
    machine.ask("offline");
    fs::write(machine.at("music/f3"), "unsent").unwrap();
    machine.ask("online");
    let said = machine.run(&evict);
    drop(open);
    assert!(said.contains("stay"), "{said}");
    let states = ["photos/f0", "music/f1", "music/f2"].map(|file| state(&machine.at(file)));
    assert_eq!(states, ["local,pinned", "remote", "local"]);
    assert_eq!(fs::read(machine.at("music/f1")).unwrap(), vec![1; SIZE]);
    assert_eq!(fs::read(machine.at("music/f3")).unwrap(), b"unsent");

    // A pin outlives the mount, and holds for what comes later.
    machine.flush();
    machine.umount();
    publish(&site.home().join("photos/later"), b"later");
    machine.mount();
    machine.reconcile();
    eventually("what is new in a pinned directory is here", || {
        fs::read_dir(machine.at("photos")).unwrap().count() == 5
            && state(&machine.at("photos/later")) == "local,pinned"
    });
    let pins = machine.run(&["pin", "--list", machine.home().to_str().unwrap()]);
    assert!(
        pins.contains("5 files") && pins.contains("all here"),
        "{pins}"
    );
    run(&machine, &["unpin", "-r"], &["photos"]);
    assert_eq!(state(&machine.at("photos/later")), "local");
    let said = machine.run(&evict);
    assert_eq!(state(&machine.at("photos/later")), "remote", "{said}");
    assert_same(&site.home(), &machine.home());
    machine.umount();
    machine.check();
}

#[test]
fn the_state_of_a_file_is_told_and_neither_listed_nor_set() {
    let site = site();
    let machine = site.machine("a");
    machine.mount();
    let file = machine.at("music/f0");
    assert_eq!(state(&file), "remote");
    let mut names = [0; 200];
    assert_eq!(rustix::fs::listxattr(&file, &mut names[..]).unwrap(), 0);
    let set = rustix::fs::setxattr(
        &file,
        "user.roamhome.state",
        b"x",
        rustix::fs::XattrFlags::empty(),
    );
    assert_eq!(set, Err(rustix::io::Errno::PERM));
    machine.umount();
}

#[test]
fn content_stays_within_its_room_and_what_was_used_last_stays_longest() {
    let site = site();
    let machine = site.machine("a");
    let config = machine.disk("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}cache_size = \"{}\"\n", 5 * SIZE)).unwrap();
    machine
        .try_mount(&["--config", config.to_str().unwrap()])
        .assert(0, &[]);
    let read = |name: &str| assert_eq!(fs::read(machine.at(name)).unwrap().len(), SIZE);
    fs::write(machine.at("unsent"), vec![7; SIZE]).unwrap();
    let read_all = |dir: &str| (0..4).for_each(|number| read(&format!("{dir}/f{number}")));
    read_all("photos");
    // That was long ago.
    for_each_cached(&machine, |path| {
        let times = fs::FileTimes::new().set_accessed(UNIX_EPOCH);
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_times(times).unwrap();
    });
    read_all("music");
    eventually("there is no more content than there may be", || {
        cached(&machine) <= 5 * SIZE as u64
    });
    let states = ["photos/f0", "photos/f3", "music/f0", "music/f3"];
    let states = states.map(|file| state(&machine.at(file)));
    assert_eq!(states, ["remote", "remote", "local", "local"]);
    read_all("photos");
    machine.flush();
    assert_same(&site.home(), &machine.home());
    machine.umount();
    machine.check();
}
