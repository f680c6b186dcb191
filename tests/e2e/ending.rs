//! How a mount ends: by its owner, by others, by signals; what is not sent waits for the next one.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::support::machine::{Machine, Site, assert_same, eventually, needs_root, tree};

/// Mounts again and finds everything, here and on the server.
fn comes_back(site: &Site, machine: &Machine, content: &str) {
    machine.check();
    machine.mount();
    assert_eq!(fs::read_to_string(machine.at("file")).unwrap(), content);
    machine.umount();
    assert_same_as_server(site, content);
}

#[track_caller]
fn assert_same_as_server(site: &Site, content: &str) {
    assert_eq!(
        fs::read_to_string(site.home().join("file")).unwrap(),
        content
    );
}

#[test]
fn umount_sends_all_that_is_left() {
    let site = Site::new();
    let machine = site.machine("m");
    machine.mount();
    for n in 0..200 {
        fs::write(machine.at(format!("{n}")), format!("{n}")).unwrap();
    }
    let said = machine.try_ask("umount");
    said.assert(0, &[]);
    machine.wait_for_end();
    assert_eq!(tree(&site.home()).len(), 200);
    machine.check();
}

#[test]
fn umount_without_the_server_says_what_is_left_and_the_next_mount_sends_it() {
    let site = Site::new();
    let machine = site.machine("m");
    machine.mount();
    fs::write(machine.at("file"), "old").unwrap();
    machine.flush();
    machine.ask("offline");
    fs::write(machine.at("file"), "unsent").unwrap();
    fs::create_dir(machine.at("dir")).unwrap();
    fs::write(machine.at("dir/more"), "unsent too").unwrap();
    machine.try_ask("umount").assert(
        3,
        &["file", "dir/more", "3 changes", "kept on this machine"],
    );
    machine.wait_for_end();
    machine.check();
    assert_same_as_server(&site, "old");

    let out = machine.disk("rescued");
    let state = machine.state();
    machine.run(&["rescue", state.to_str().unwrap(), out.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(out.join("file")).unwrap(), "unsent");
    assert_eq!(
        fs::read_to_string(out.join("dir/more")).unwrap(),
        "unsent too"
    );

    comes_back(&site, &machine, "unsent");
    assert_eq!(
        fs::read_to_string(site.home().join("dir/more")).unwrap(),
        "unsent too"
    );
}

#[test]
fn umount_refuses_while_a_program_works_in_the_home() {
    let site = Site::new();
    let machine = site.machine("m");
    machine.mount();
    let open = fs::File::create(machine.at("file")).unwrap();
    machine.try_ask("umount").assert(8, &["mnt", "fuser -vm"]);
    // It goes on as before.
    fs::write(machine.at("other"), "x").unwrap();
    std::io::Write::write_all(&mut &open, b"late").unwrap();
    drop(open);
    machine.umount();
    assert_same_as_server(&site, "late");
}

#[test]
fn a_mount_that_others_end_loses_nothing() {
    needs_root("umount(8) of what fstab does not name");
    let site = Site::new();
    let machine = site.machine("m");
    let home = machine.home();
    let home = home.to_str().unwrap();
    for command in [&["fusermount3", "-u", home][..], &["umount", home]] {
        machine.mount();
        machine.ask("offline");
        fs::write(machine.at("file"), command[0]).unwrap();
        let status = Command::new(command[0])
            .args(&command[1..])
            .status()
            .unwrap();
        assert!(status.success());
        machine.wait_for_end();
        comes_back(&site, &machine, command[0]);
    }
}

#[test]
fn who_comes_right_after_a_plain_umount_finds_the_home_free() {
    needs_root("umount(8) of what fstab does not name");
    let site = Site::new();
    let machine = site.machine("m");
    let home = machine.home();
    let umount = || {
        let status = Command::new("umount").arg(&home).status().unwrap();
        assert!(status.success());
    };
    for round in 0..10 {
        machine.mount();
        fs::write(machine.at("file"), format!("{round}")).unwrap();
        umount();
        match round % 2 {
            // The next one mounts.
            0 => machine.mount(),
            // The next one unmounts.
            _ => machine.try_ask("umount").assert(8, &["mnt is not mounted"]),
        }
        if round % 2 == 0 {
            machine.umount();
            assert_same_as_server(&site, &format!("{round}"));
        }
        // Whoever unmounts has waited for the daemon.
        machine.check();
    }
}

#[test]
fn a_home_that_is_out_of_sight_is_sent_before_its_daemon_ends() {
    needs_root("umount(8) of what fstab does not name");
    let site = Site::new();
    let machine = site.machine("m");
    machine.mount();
    machine.ask("offline");
    fs::write(machine.at("file"), "late").unwrap();
    let holder = fs::File::open(machine.at("file")).unwrap();
    let status = Command::new("umount")
        .arg("--lazy")
        .arg(machine.home())
        .status();
    assert!(status.unwrap().success());
    machine.ask("online");
    machine.ask("flush");
    assert_same_as_server(&site, "late");
    drop(holder);
    machine.wait_for_end();
    machine.check();
}

#[test]
fn a_daemon_that_is_told_to_end_loses_nothing() {
    let site = Site::new();
    let machine = site.machine("m");
    for (signal, content) in [(Signal::TERM, "terminated"), (Signal::INT, "interrupted")] {
        machine.mount();
        fs::write(machine.at("file"), content).unwrap();
        machine.signal(signal);
        machine.wait_for_end();
        comes_back(&site, &machine, content);
    }
}

#[test]
fn a_daemon_can_be_told_to_end_as_soon_as_it_serves() {
    let site = Site::new();
    let machine = site.machine("m");
    for _ in 0..10 {
        machine.mount();
        machine.signal(Signal::TERM);
        machine.wait_for_end();
    }
    machine.check();
}

#[test]
fn what_a_killed_daemon_had_not_sent_can_be_rescued_without_it() {
    let site = Site::new();
    let machine = site.machine("m");
    machine.mount();
    fs::create_dir(machine.at("dir")).unwrap();
    fs::write(machine.at("dir/sent"), "sent").unwrap();
    machine.flush();
    machine.ask("offline");
    fs::write(machine.at("dir/unsent"), "unsent").unwrap();
    fs::write(machine.at("dir/before"), "moved").unwrap();
    fs::rename(machine.at("dir/before"), machine.at("dir/after")).unwrap();
    machine.kill9();
    let (state, out) = (machine.state(), machine.disk("rescued"));
    // Not even the index is needed.
    for index in ["index.db", "index.db-wal", "index.db-shm"] {
        drop(fs::rename(state.join(index), machine.disk(index)));
    }
    machine.run(&["rescue", state.to_str().unwrap(), out.to_str().unwrap()]);
    assert_eq!(
        fs::read_to_string(out.join("dir/unsent")).unwrap(),
        "unsent"
    );
    assert_eq!(fs::read_to_string(out.join("dir/after")).unwrap(), "moved");
    assert!(!out.join("dir/sent").exists());
    for index in ["index.db", "index.db-wal", "index.db-shm"] {
        drop(fs::rename(machine.disk(index), state.join(index)));
    }
    machine.mount();
    machine.ask("online");
    machine.flush();
    assert_same(&site.home(), &machine.home());
    machine.umount();
}

#[test]
fn a_mount_that_nobody_uses_any_more_ends_its_daemon_and_its_socket() {
    let site = Site::new();
    let machine = site.machine("m");
    machine.mount();
    let holder = fs::File::open(machine.home()).unwrap();
    machine.signal(Signal::TERM);
    // Taken from the tree at once, though somebody still has it open.
    eventually("it is out of sight", || {
        fs::read_dir(machine.home()).is_ok_and(|d| d.count() == 0)
    });
    drop(holder);
    machine.wait_for_end();
    machine.try_ask("status").assert(13, &[]);
    machine.check();
}
