//! Two machines and a home on servers that are not OpenSSH, the weakest of all among them.

use std::fs;
use std::path::Path;

use crate::support::machine::{Machine, Site, eventually, tree};
use crate::support::servers::Server;

/// Names and contents below both mounts, without what servers do not keep.
#[track_caller]
fn assert_same_content(machines: [&Machine; 2]) {
    let [left, right] = machines.map(|machine| {
        let seen = tree(&machine.home()).into_iter();
        seen.map(|(name, seen)| (name, seen.kind, seen.content))
            .collect::<Vec<_>>()
    });
    assert_eq!(left, right);
}

/// Two machines work on one home: new, changed, renamed and removed files, a directory that moves, a conflict.
fn two_machines(server: &Server, keeps_links: bool) {
    let site = Site::new();
    fs::create_dir(server.root.join("home")).unwrap();
    let target = format!("{}@127.0.0.1:{}", server.user, server.calls("home"));
    let [one, two] = ["one", "two"].map(|name| {
        let mut machine = site.machine_at(name, target.clone(), server.port, &server.known_hosts);
        machine.identity = server.identity.clone();
        machine.mount();
        machine
    });
    fs::create_dir_all(one.at("dir/deep")).unwrap();
    let large: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 251 + i) as u8).collect();
    for (name, content) in [
        ("empty", &b""[..]),
        ("dir/small", b"1"),
        ("dir/deep/large", &large),
        ("gone", b"gone"),
        ("both", b"base"),
    ] {
        fs::write(one.at(name), content).unwrap();
    }
    if keeps_links {
        std::os::unix::fs::symlink("../dir/small", one.at("dir/link")).unwrap();
    }
    one.flush();
    two.reconcile();
    assert_eq!(fs::read(two.at("dir/deep/large")).unwrap(), large);
    assert_same_content([&one, &two]);

    fs::write(two.at("dir/small"), "changed").unwrap();
    fs::rename(two.at("dir"), two.at("renamed")).unwrap();
    fs::rename(two.at("empty"), two.at("renamed/empty")).unwrap();
    fs::remove_file(two.at("gone")).unwrap();
    two.flush();
    one.reconcile();
    assert_eq!(
        fs::read_to_string(one.at("renamed/small")).unwrap(),
        "changed"
    );
    assert_same_content([&one, &two]);

    in_conflict(&one, &two);
    // It may write a little later than it says.
    let contents = |root: &Path| {
        let tree = tree(root).into_iter();
        tree.map(|(name, seen)| (name, seen.kind, seen.content))
            .collect::<Vec<_>>()
    };
    let home = server.root.join("home");
    eventually("the server has all", || {
        contents(&home) == contents(&one.home())
    });
    for machine in [&one, &two] {
        machine.umount();
        machine.check();
    }
}

/// Both change one file, and make another one of the same name.
fn in_conflict(one: &Machine, two: &Machine) {
    one.ask("offline");
    for (machine, text) in [(one, "of one"), (two, "longer, of two")] {
        fs::write(machine.at("both"), text).unwrap();
        fs::write(machine.at("new"), text).unwrap();
    }
    two.flush();
    one.ask("online");
    one.reconcile();
    one.flush();
    two.reconcile();
    one.reconcile();
    assert_same_content([one, two]);
    for name in ["both", "new"] {
        let stands = fs::read_to_string(one.at(name)).unwrap();
        let mut kept = [one.backups(), two.backups()].concat();
        kept.push(stands);
        for text in ["of one", "longer, of two"] {
            assert!(
                kept.iter().any(|kept| kept == text),
                "{name}: {text:?} is not in {kept:?}"
            );
        }
    }
}

#[test]
fn two_machines_share_a_home_on_rclone() {
    two_machines(&Server::rclone(), false);
}

#[test]
fn two_machines_share_a_home_on_paramiko() {
    two_machines(&Server::paramiko(), true);
}

#[test]
fn two_machines_share_a_home_on_asyncssh() {
    two_machines(&Server::asyncssh(), true);
}

#[test]
fn two_machines_share_a_home_on_proftpd() {
    two_machines(&Server::proftpd(), false);
}

#[test]
fn what_a_server_cannot_keep_stays_here_and_is_told() {
    let site = Site::new();
    for (server, says) in [
        (Server::proftpd(), "makes relative links absolute"),
        (Server::rclone(), "link"),
    ] {
        fs::create_dir(server.root.join("home")).unwrap();
        let target = format!("{}@127.0.0.1:{}", server.user, server.calls("home"));
        let name = format!("m{}", server.port);
        let mut machine = site.machine_at(&name, target, server.port, &server.known_hosts);
        machine.identity = server.identity.clone();
        machine.mount();
        fs::write(machine.at("file"), "sent").unwrap();
        for link in ["one", "two"] {
            std::os::unix::fs::symlink("file", machine.at(link)).unwrap();
        }
        machine
            .try_run(&[
                "flush",
                "--timeout",
                "20s",
                machine.home().to_str().unwrap(),
            ])
            .assert(3, &[]);
        let problems = machine.status()["problems"].to_string();
        assert!(problems.contains(says), "{problems}");
        let home = server.root.join("home");
        assert_eq!(fs::read_to_string(home.join("file")).unwrap(), "sent");
        assert!(fs::symlink_metadata(home.join("one")).is_err());
        assert_eq!(
            fs::read_link(machine.at("one")).unwrap().to_str(),
            Some("file")
        );
        machine
            .try_run(&["umount", "--no-flush", machine.home().to_str().unwrap()])
            .assert(3, &[]);
    }
}
