//! What of the home is on this machine: it is told, fetched, kept and let go as its user says, and within its room.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::support::machine::{Machine, Site, assert_same, eventually, needs_root};

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

/// A disk that goes with its test.
struct SmallDisk(PathBuf);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

/// A machine whose replica is on a small disk.
fn on_a_small_disk(site: &Site) -> (SmallDisk, Machine) {
    needs_root("it mounts a small disk");
    let machine = site.machine("small");
    let state = machine.state();
    fs::create_dir(&state).unwrap();
    let size = c"size=48m,mode=700";
    mount("disk", &state, "tmpfs", MountFlags::empty(), size).unwrap();
    (SmallDisk(state), machine)
}

/// What `df` says can be written, and what it says is there in all.
fn room(machine: &Machine) -> (u64, u64) {
    let room = rustix::fs::statvfs(machine.home()).unwrap();
    (room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize)
}

#[test]
fn content_makes_room_on_a_full_disk_for_what_is_written_and_df_counts_on_it() {
    const MIB: usize = 1 << 20;
    let site = Site::new();
    for number in 0..8_u8 {
        publish(
            &site.home().join(format!("f{number}")),
            &vec![number; 4 * MIB],
        );
    }
    let (_disk, machine) = on_a_small_disk(&site);
    machine.mount();
    for number in 0..8 {
        fs::read(machine.at(format!("f{number}"))).unwrap();
    }
    // More than is free: 32 MiB are taken by what the server has.
    let new = vec![9; 24 * MIB];
    let free = |machine: &Machine| {
        let disk = rustix::fs::statvfs(machine.state()).unwrap();
        disk.f_bavail * disk.f_frsize
    };
    assert!(free(&machine) < new.len() as u64);
    eventually("df counts what can go", || {
        room(&machine).0 >= new.len() as u64
    });

    // Without the server nothing goes, and df knows.
    machine.ask("offline");
    assert!(room(&machine).0 <= free(&machine));
    let full = fs::write(machine.at("refused"), &new).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
    fs::remove_file(machine.at("refused")).unwrap();
    eventually("what was removed takes no room", || {
        free(&machine) > 8 * MIB as u64
    });
    machine.ask("online");

    let written = fs::write(machine.at("new"), &new);
    written.unwrap_or_else(|error| panic!("{error}\n{}", machine.log_end()));
    assert_eq!(fs::read(machine.at("new")).unwrap(), new);
    machine.flush();
    assert_eq!(fs::read(site.home().join("new")).unwrap(), new);
    // What there never is room for fails at once, and costs nobody their content.
    let before = cached(&machine);
    let file = fs::File::create(machine.at("huge")).unwrap();
    let flags = rustix::fs::FallocateFlags::empty();
    let huge = rustix::fs::fallocate(&file, flags, 0, 1 << 30).unwrap_err();
    assert_eq!(huge, rustix::io::Errno::NOSPC);
    assert_eq!(cached(&machine), before);
    drop(file);
    machine.umount();
}

#[test]
fn df_tells_how_large_the_servers_disk_is_and_what_is_taken_there() {
    let site = site();
    let machine = site.machine("a");
    machine.mount();
    let there = rustix::fs::statvfs(site.home()).unwrap();
    let total = there.f_blocks * there.f_frsize;
    eventually("the server's disk is known", || {
        room(&machine).1 / 4096 == total / 4096
    });
    let here = rustix::fs::statvfs(machine.home()).unwrap();
    // Others write to that disk, too.
    let taken = (here.f_blocks - here.f_bfree) * here.f_frsize;
    let taken_there = (there.f_blocks - there.f_bavail) * there.f_frsize;
    assert!(
        taken.abs_diff(taken_there) < total / 20,
        "{taken} {taken_there}"
    );
    assert!(here.f_bavail <= here.f_bfree);
}

#[test]
fn the_status_tells_the_room_and_its_limits() {
    let site = site();
    let machine = site.machine("a");
    let config = machine.disk("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    let limits = "cache_size = \"1GiB\"\ncache_min_free = \"1MiB\"\n";
    fs::write(&config, text + limits).unwrap();
    machine.mount();
    let room = &machine.status()["replica"]["room"];
    assert_eq!(
        (&room["cache_size"], &room["min_free"]),
        (&(1 << 30).into(), &(1 << 20).into())
    );
    assert!(room["free"].as_u64() <= room["disk"].as_u64() && room["disk"].as_u64() > Some(0));
    let said = machine.ask("status");
    assert!(said.contains(" of 1.0 GiB for content, "), "{said}");
}

#[test]
fn without_a_link_commands_say_what_holds_it_and_what_to_do() {
    let site = site();
    let machine = site.machine("a");
    machine.mount();
    let at = |path: &str| machine.at(path).to_str().unwrap().to_owned();
    fs::read(machine.at("music/f0")).unwrap();
    machine.ask("offline");
    let (here, there, home) = (at("music/f0"), at("photos/f0"), at(""));
    for args in [
        &["evict", &here][..],
        &["prefetch", &there],
        &["pin", &there],
        &["reconcile", &home],
        &["reconcile", "--dry-run", &home],
        &["trash", "--mount", &home, "list"],
        &["backups", "--mount", &home, "list"],
    ] {
        let said = machine.try_run(args);
        said.assert(
            4,
            &["held by `roamhome offline`; `roamhome online` lets it come back"],
        );
        assert!(!said.stderr.contains("look ."), "{said:?}");
    }
    let said = machine.try_run(&["evict", &here]);
    said.assert(4, &["asked first whether it still has"]);
}
