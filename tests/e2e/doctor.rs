//! `roamhome doctor` against real servers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::support::machine::{Machine, Said, Site};
use crate::support::servers::Server;

/// Runs the doctor as `machine` would mount.
fn doctor(machine: &Machine, more: &[&str]) -> Said {
    let port = machine.proxy.port.to_string();
    let known = machine.disk("known_hosts");
    let config = machine.disk("config.toml");
    let mut args = vec![
        "doctor",
        &machine.target,
        "--port",
        &port,
        "--identity",
        machine.identity.to_str().unwrap(),
        "--known-hosts",
        known.to_str().unwrap(),
        "--config",
        config.to_str().unwrap(),
    ];
    args.extend(more);
    machine.try_run(&args)
}

#[track_caller]
fn report(said: &Said) -> Value {
    said.assert(0, &[]);
    serde_json::from_str(&said.stdout).unwrap()
}

/// How each check ended.
fn outcome<'a>(report: &'a Value, name: &str) -> &'a str {
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == name).unwrap();
    check["outcome"].as_str().unwrap()
}

/// Every name below `dir`.
fn names(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.display().to_string());
            if path.is_dir() {
                dirs.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_directory_that_is_no_home_stays_as_it_is() {
    let site = Site::new();
    let machine = site.machine("m");
    fs::write(site.home().join("mine"), "x").unwrap();
    let before = names(&site.home());
    let said = doctor(&machine, &[]);
    said.assert(0, &["no home yet", "--create", "aes", "not tried"]);
    assert_eq!(names(&site.home()), before);
    let report = report(&doctor(&machine, &["--json", "--create"]));
    assert_eq!(names(&site.home()), before);
    assert_eq!(report["home"]["state"], "new");
    assert_eq!(outcome(&report, "hardlink"), "works");
    assert!(report["throughput"]["up_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn what_a_server_can_do_is_found_out_beside_a_mount() {
    let site = Site::with(|_| "MaxSessions 2\nCiphers chacha20-poly1305@openssh.com\n".to_owned());
    let machine = site.machine("m");
    machine.mount();
    fs::write(machine.at("file"), "sent").unwrap();
    machine.flush();
    // What a doctor left that was killed, and what is not a doctor's.
    let staging = site.home().join(".roamhome/staging");
    for name in ["doctor-0-old", "other-old"] {
        let file = fs::File::create(staging.join(name)).unwrap();
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        file.set_modified(long_ago).unwrap();
    }
    fs::write(staging.join("doctor-1-new"), "").unwrap();
    let mut before = names(&site.home());
    let report = report(&doctor(&machine, &["--json"]));
    before.retain(|name| !name.ends_with("doctor-0-old"));
    assert_eq!(names(&site.home()), before);
    for check in report["checks"].as_array().unwrap() {
        assert_eq!(check["outcome"], "works", "{check}");
    }
    let home = &report["home"];
    let identity = fs::read_to_string(site.home().join(".roamhome/home.toml")).unwrap();
    assert_eq!(home["state"], "home");
    assert!(identity.contains(home["identity"].as_str().unwrap()));
    assert_eq!(
        (&home["machines"], &report["sessions"]),
        (&1.into(), &2.into())
    );
    assert!(home["free_bytes"].as_u64().unwrap() > 0);
    assert!(report["round_trip"]["median_ms"].as_f64().unwrap() > 0.0);
    assert!(report["clock_offset"].as_f64().unwrap().abs() < 5.0);
    let extensions = report["extensions"].as_array().unwrap();
    assert!(extensions.contains(&"posix-rename@openssh.com 1".into()));
    let advice = report["advice"].to_string();
    for part in ["MaxSessions", "2 of 4 sessions", "aes128-gcm"] {
        assert!(advice.contains(part), "{advice} lacks {part}");
    }
    machine.umount();
}

#[test]
fn what_keeps_a_home_from_being_there_is_a_failure() {
    let site = Site::new();
    let machine = site.machine("m");
    machine.mount();
    machine.umount();
    let toml = site.home().join(".roamhome/home.toml");
    let before = fs::read(&toml).unwrap();
    fs::write(&toml, "format = 1\n").unwrap();
    doctor(&machine, &[]).assert(11, &["damaged", "home.toml"]);
    fs::write(&toml, before).unwrap();

    let mut missing = site.machine("missing");
    missing.target.push_str("/none");
    doctor(&missing, &[]).assert(7, &["not there"]);
    machine.proxy.down();
    doctor(&machine, &[]).assert(4, &["cannot be reached"]);
    machine.proxy.up();
    let mut nobody = site.machine("nobody");
    nobody.identity = nobody.disk("none");
    doctor(&nobody, &[]).assert(6, &["refuses"]);
}

#[test]
fn a_disk_is_examined_as_well() {
    let site = Site::new();
    let mut machine = site.machine("m");
    machine.target = site.home().to_str().unwrap().to_owned();
    let report = report(&doctor(&machine, &["--json", "--create"]));
    assert_eq!(report["transport"], "local");
    for check in report["checks"].as_array().unwrap() {
        assert_eq!(check["outcome"], "works", "{check}");
    }
    assert_eq!(names(&site.home()), Vec::<String>::new());
}

#[test]
fn proftpd_is_examined() {
    examine([("proftpd", Server::proftpd())]);
}

#[test]
fn each_server_is_examined() {
    examine([
        ("rclone", Server::rclone()),
        ("paramiko", Server::paramiko()),
        ("asyncssh", Server::asyncssh()),
    ]);
}

/// What the doctor says of each server, as `doc/SERVERS.md` has it.
fn examine<const N: usize>(servers: [(&str, Server); N]) {
    for (name, server) in servers {
        let site = Site::new();
        let home = server.root.join("home");
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).unwrap();
        let target = format!("{}@127.0.0.1:{}", server.user, server.calls("home"));
        let mut machine = site.machine_at("m", target, server.port, &server.known_hosts);
        machine.identity = server.identity.clone();
        let said = doctor(&machine, &["--create"]);
        println!("{name}: {}\n{}", said.stdout, said.stderr);
        assert!(!said.stdout.contains("MaxSessions"), "{name}");
        assert_eq!(names(&home), Vec::<String>::new(), "{name}");
    }
}
