//! An existing directory becomes part of a home: nothing of it is lost, whatever is on the server, and whenever it is
//! cut off.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::support::exact::{Exact, assert_exact, exact, make_home, set_time};
use crate::support::machine::{Machine, Said, Site, assert_same, eventually, tree};

/// The arguments of `adopt` for the directory `dir`.
fn args(machine: &Machine, dir: &Path, more: &[&str]) -> Vec<OsString> {
    let mount = machine.mount_args();
    let mut args: Vec<OsString> = vec!["adopt".into(), dir.into(), mount[1].clone()];
    args.extend(mount[3..].iter().cloned());
    args.extend(more.iter().map(OsString::from));
    args
}

fn adopt(machine: &Machine, dir: &Path, more: &[&str]) -> Said {
    let args = args(machine, dir, more);
    let args: Vec<_> = args.iter().map(OsString::as_os_str).collect();
    Said::new(&machine.command(&args).output().unwrap())
}

/// A directory with a home in it, and all that is to be seen of it.
fn old_home(machine: &Machine) -> (PathBuf, BTreeMap<OsString, Exact>) {
    let dir = machine.disk("old");
    fs::create_dir(&dir).unwrap();
    make_home(&dir);
    let seen = exact(&dir);
    (dir, seen)
}

/// What a mount shows is what the directory had, without asking the server for anything.
fn shows(machine: &Machine, seen: &BTreeMap<OsString, Exact>) {
    machine.mount();
    machine.ask("offline");
    assert_exact(seen, &exact(&machine.home()));
    machine.ask("online");
    machine.umount();
    machine.check();
}

#[test]
fn an_existing_home_comes_to_the_server_and_into_the_replica_whole() {
    let site = Site::new();
    let machine = site.machine("m");
    let (dir, seen) = old_home(&machine);
    let said = adopt(&machine, &dir, &[]);
    said.assert(
        0,
        &["0 on the server already, no conflicts", "is as it was"],
    );
    assert_exact(&seen, &exact(&dir));
    let stays = [".cache", ".cache/x", ".cache/x/y", "pipe", "data.db-shm"];
    let mut names: Vec<_> = seen.keys().filter(|name| !name.is_empty()).collect();
    names.retain(|name| !stays.iter().any(|stays| name == stays));
    let sent = tree(&site.home());
    let mut on_server: Vec<_> = sent.keys().collect();
    names.sort();
    on_server.sort();
    assert_eq!(names, on_server);
    for (name, sent) in &sent {
        let there = seen[name].kind == 'd' || sent.content == seen[name].content;
        assert!(there, "{name:?}");
    }
    shows(&machine, &seen);
    // Again: all of it is here already.
    let again = adopt(&machine, &dir, &[]);
    again.assert(0, &["0 (0 B) sent", "here already"]);
    assert!(!machine.state().join("adoption").exists());
    shows(&machine, &seen);
}

/// A file's time and content.
type Kept = Option<(i64, &'static str)>;

/// Files by what the directory and the server have of them.
const DIFFERENT: [(&str, Kept, Kept); 5] = [
    (
        "here-newer",
        Some((1_700_000_000, "here, newer")),
        Some((1_600_000_000, "there")),
    ),
    (
        "both/there-newer",
        Some((1_600_000_000, "here, longer")),
        Some((1_700_000_000, "there, newer")),
    ),
    (
        "both/inner/equal",
        Some((1_600_000_000, "equal")),
        Some((1_650_000_000, "equal")),
    ),
    ("both/here", Some((1_600_000_000, "only here")), None),
    (
        "both/inner/there",
        None,
        Some((1_600_000_000, "only there")),
    ),
];

#[test]
fn of_files_that_differ_the_newest_wins_and_the_other_one_is_kept() {
    let site = Site::new();
    let machine = site.machine("m");
    let dir = machine.disk("old");
    for root in [&dir, &site.home()] {
        fs::create_dir_all(root.join("both/inner")).unwrap();
    }
    for (path, here, there) in DIFFERENT {
        for (root, what) in [(&dir, here), (&site.home(), there)] {
            if let Some((time, text)) = what {
                fs::write(root.join(path), text).unwrap();
                set_time(&root.join(path), time);
            }
        }
    }
    let (before, server) = (exact(&dir), exact(&site.home()));

    let said = adopt(&machine, &dir, &["--dry-run"]);
    said.assert(
        0,
        &[
            "4 files",
            "2 (20 B) would be sent",
            "2 of equal size compared",
            "1 conflict\n",
        ],
    );
    assert_exact(&server, &exact(&site.home()));
    assert_exact(&before, &exact(&dir));
    assert!(!machine.state().exists(), "nothing of a dry run stays");

    adopt(&machine, &dir, &[]).assert(
        0,
        &["4 files: 2 (20 B) sent, 1 on the server already, 2 conflicts"],
    );
    assert_exact(&before, &exact(&dir));
    machine.mount();
    for (path, text) in [
        ("here-newer", "here, newer"),
        ("both/there-newer", "there, newer"),
        ("both/inner/equal", "equal"),
        ("both/here", "only here"),
        ("both/inner/there", "only there"),
    ] {
        assert_eq!(fs::read_to_string(machine.at(path)).unwrap(), text);
    }
    assert_same(&machine.home(), &site.home());
    let mut kept = machine.backups();
    kept.sort();
    assert_eq!(kept, ["here, longer", "there"]);
    assert_eq!(machine.status()["conflicts"], 2);
    machine.umount();
}

#[test]
fn what_loses_is_kept_by_a_machine_that_has_the_home_already() {
    let site = Site::new();
    let machine = site.machine("m");
    machine.mount();
    fs::write(machine.at("file"), "the home's").unwrap();
    fs::write(machine.at("unsent"), "not sent").unwrap();
    machine.flush();
    machine.ask("offline");
    fs::write(machine.at("unsent"), "not sent yet").unwrap();
    let dir = machine.disk("old");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "of long ago").unwrap();
    set_time(&dir.join("file"), 1_500_000_000);
    fs::write(dir.join("new"), "new").unwrap();
    adopt(&machine, &dir, &[]).assert(9, &["in use"]);
    machine.try_ask("umount").assert(3, &[]);
    machine.wait_for_end();
    adopt(&machine, &dir, &[]).assert(0, &["2 files: 1 (3 B) sent", "1 conflict"]);
    assert!(!machine.state().join("adoption").exists());
    machine.mount();
    machine.reconcile();
    assert_eq!(
        fs::read_to_string(machine.at("file")).unwrap(),
        "the home's"
    );
    assert_eq!(fs::read_to_string(machine.at("new")).unwrap(), "new");
    assert_eq!(
        fs::read_to_string(site.home().join("unsent")).unwrap(),
        "not sent yet"
    );
    assert_eq!(machine.backups(), ["of long ago"]);
    machine.umount();
    machine.check();
}

#[test]
fn an_adoption_that_is_killed_again_and_again_goes_on() {
    let site = Site::new();
    let machine = site.machine("m");
    let (dir, seen) = old_home(&machine);
    let args = args(&machine, &dir, &[]);
    let args: Vec<_> = args.iter().map(OsString::as_os_str).collect();
    let mut killed = 0;
    for attempt in 1..200 {
        let mut child = machine
            .command(&args)
            .process_group(0)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        sleep(Duration::from_millis(attempt * 25));
        if child.try_wait().unwrap().is_some() {
            break;
        }
        kill_process_group(Pid::from_child(&child), Signal::KILL).unwrap();
        child.wait().unwrap();
        eventually("its files are closed", || !machine.is_running());
        killed += 1;
    }
    assert!(killed > 3, "it was hardly ever killed");
    adopt(&machine, &dir, &[]).assert(0, &["no conflicts"]);
    assert_exact(&seen, &exact(&dir));
    shows(&machine, &seen);
}

#[test]
fn a_home_that_is_being_read_is_not_mounted_and_moves_aside_when_it_is_there() {
    let site = Site::new();
    let machine = site.machine("m");
    let (dir, seen) = old_home(&machine);
    // So much that it is killed while it is read.
    for n in 0..20_000 {
        fs::write(dir.join(format!("many/more-{n}")), "x").unwrap();
    }
    let args = args(&machine, &dir, &[]);
    let args: Vec<_> = args.iter().map(OsString::as_os_str).collect();
    let mut child = machine.command(&args).process_group(0).spawn().unwrap();
    eventually("something was read", || {
        let unsent = fs::read_dir(machine.state().join("unsent"));
        unsent.is_ok_and(|mut entries| entries.next().is_some())
    });
    kill_process_group(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    eventually("its files are closed", || !machine.is_running());
    let refused = machine.try_mount(&[]);
    refused.assert(9, &["not finished", "roamhome adopt '", "/old'"]);
    for n in 0..20_000 {
        fs::remove_file(dir.join(format!("many/more-{n}"))).unwrap();
    }
    set_time(&dir.join("many"), 1_600_000_000);
    let other = machine.disk("other");
    fs::create_dir(&other).unwrap();
    adopt(&machine, &other, &[]).assert(9, &["/old is being taken over"]);

    adopt(&machine, &dir, &["--move-aside"]).assert(0, &["/old.before-roamhome now"]);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    let mut seen = seen;
    let aside = exact(&machine.disk("old.before-roamhome"));
    // Its time is that of the removals.
    seen.insert("many".into(), aside[OsStr::new("many")].clone());
    assert_exact(&seen, &aside);
    shows(&machine, &seen);
    adopt(&machine, &dir, &["--move-aside"]).assert(8, &["already", "move it away"]);
}

#[test]
fn what_cannot_be_taken_over_is_named_and_never_left_out_in_silence() {
    let site = Site::new();
    let machine = site.machine("m");
    let dir = machine.disk("old");
    fs::create_dir_all(dir.join(".roamhome")).unwrap();
    fs::write(dir.join("file"), "x").unwrap();
    let said = adopt(&machine, &dir, &["--move-aside"]);
    said.assert(3, &["old/.roamhome: ", "1 entry could not be taken over"]);
    assert_eq!(fs::read_to_string(site.home().join("file")).unwrap(), "x");
    assert!(dir.join("file").exists(), "it is not moved aside");
    fs::remove_dir(dir.join(".roamhome")).unwrap();
    adopt(&machine, &dir, &["--move-aside"]).assert(0, &["1 was here already"]);

    machine.mount();
    let (home, state) = (machine.home(), machine.state());
    adopt(&machine, &home, &[]).assert(2, &["a home is mounted at"]);
    machine.umount();
    adopt(&machine, &state, &[]).assert(9, &["lies inside"]);
    adopt(&machine, &dir.join("none"), &[]).assert(2, &["No such file"]);
}
