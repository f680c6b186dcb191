//! A home becomes plain files again: the same files, wherever they were, and whenever that is cut off.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::support::exact::{assert_exact, exact, make_home};
use crate::support::machine::{Machine, Said, Site};
use crate::support::mounted::is_mounted;

fn leave(machine: &Machine, more: &[&str]) -> Said {
    let home = machine.home();
    let mut args = vec!["leave", home.to_str().unwrap()];
    args.extend(more);
    machine.try_run(&args)
}

/// Nothing is mounted any more, and nothing is left beside.
fn is_over(machine: &Machine) {
    machine.wait_for_end();
    machine.check();
    assert!(!machine.disk("mnt.leaving").exists());
}

#[test]
fn a_home_becomes_the_plain_files_that_it_showed() {
    let site = Site::new();
    let other = site.machine("other");
    other.mount();
    fs::create_dir(other.at("from-there")).unwrap();
    fs::write(other.at("from-there/file"), "fetched when it is needed").unwrap();
    other.umount();
    let machine = site.machine("m");
    machine.mount();
    make_home(&machine.home());
    assert_eq!(fs::read_dir(machine.at("from-there")).unwrap().count(), 1);
    let busy = fs::File::open(machine.at("large")).unwrap();
    leave(&machine, &[]).assert(8, &["programs use it"]);
    assert!(is_mounted(&machine.home()));
    fs::write(machine.at("written-after"), "taken").unwrap();
    drop(busy);
    leave(&machine, &[]).assert(0, &["copied and compared", "holds plain files now"]);
    is_over(&machine);
    let left = exact(&machine.home());
    // What it showed is what a new mount of its replica shows.
    fs::rename(machine.home(), machine.disk("left")).unwrap();
    fs::create_dir(machine.home()).unwrap();
    machine.mount();
    assert_exact(&left, &exact(&machine.home()));
    assert_eq!(fs::read(machine.at("written-after")).unwrap(), b"taken");
    machine.umount();
    leave(&machine, &[]).assert(13, &["mount the home first"]);
}

#[test]
fn what_is_not_here_or_not_sent_is_told_before_anything_is_done() {
    let site = Site::new();
    fs::write(site.home().join("there"), "only on the server").unwrap();
    let machine = site.machine("m");
    machine.mount();
    machine.reconcile();
    machine.ask("offline");
    fs::write(machine.at("here"), "not sent").unwrap();
    leave(&machine, &[]).assert(4, &["1 file or directory is not here"]);
    machine.ask("online");
    assert_eq!(
        fs::read(machine.at("there")).unwrap(),
        b"only on the server"
    );
    machine.flush();
    machine.ask("offline");
    fs::write(machine.at("here"), "not sent either").unwrap();
    leave(&machine, &[]).assert(3, &["here", "--unsent"]);
    assert!(is_mounted(&machine.home()));
    let to = machine.disk("plain");
    leave(&machine, &["--unsent", "--to", to.to_str().unwrap()])
        .assert(0, &["1 change was never sent", "plain holds plain files"]);
    machine.wait_for_end();
    assert!(!machine.disk("plain.leaving").exists());
    assert_eq!(fs::read(to.join("here")).unwrap(), b"not sent either");
    assert_eq!(fs::read(to.join("there")).unwrap(), b"only on the server");
    assert_eq!(fs::read_dir(machine.home()).unwrap().count(), 0);
    // It stays in the state directory, and goes with the next mount.
    machine.mount();
    machine.flush();
    machine.umount();
    assert_eq!(
        fs::read(site.home().join("here")).unwrap(),
        b"not sent either"
    );
}

#[test]
fn leaving_that_is_killed_again_and_again_goes_on() {
    let site = Site::new();
    let machine = site.machine("m");
    machine.mount();
    make_home(&machine.home());
    machine.flush();
    let seen = exact(&machine.home());
    let home = machine.home();
    let args = ["leave".into(), OsString::from(&home)];
    let args: Vec<_> = args.iter().map(OsString::as_os_str).collect();
    let mut killed = 0;
    for attempt in 1..200 {
        let mut command = machine.command(&args);
        command
            .process_group(0)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        sleep(Duration::from_millis(attempt * 15));
        if child.try_wait().unwrap().is_some() {
            break;
        }
        kill_process_group(Pid::from_child(&child), Signal::KILL).unwrap();
        child.wait().unwrap();
        killed += 1;
    }
    assert!(killed > 2, "it was hardly ever killed");
    if is_mounted(&home) {
        leave(&machine, &[]).assert(0, &[]);
    } else if machine.disk("mnt.leaving").exists() {
        // Killed between unmounting and what follows: it goes on, or wants to see the home again.
        if leave(&machine, &[]).status != 0 {
            machine.wait_for_end();
            machine.mount();
            leave(&machine, &[]).assert(0, &[]);
        }
    }
    is_over(&machine);
    assert_exact(&seen, &exact(&home));
}
