//! What cannot be done is refused: with a status for scripts, a message that names the thing and says what to
//! do, and nothing changed.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use roamhome::remote::generate_identity;

use crate::support::machine::{Machine, Site, assert_same};
use crate::support::mounted::is_mounted;

/// The mount is refused, and leaves no trace.
#[track_caller]
fn refused(machine: &Machine, more: &[&str], status: i32, says: &[&str]) {
    let said = machine.try_mount(more);
    said.assert(status, says);
    assert!(said.stderr.starts_with("roamhome: "), "{said:?}");
    assert!(
        said.stderr.lines().count() >= 2,
        "without a remedy: {said:?}"
    );
    assert!(!machine.state().exists(), "a replica was made");
    assert!(!is_mounted(&machine.home()));
    assert!(!machine.is_running());
}

fn closed_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn a_first_mount_needs_the_server_and_says_what_is_wrong_with_it() {
    let site = Site::new();
    let machine = site.machine("m");
    refused(
        &machine,
        &["--port", &closed_port().to_string()],
        4,
        &["127.0.0.1", "network"],
    );

    let nobody = site.path("nobody");
    fs::write(&nobody, "").unwrap();
    let nobody = nobody.to_str().unwrap();
    refused(
        &machine,
        &["--known-hosts", nobody],
        5,
        &["127.0.0.1", "host key"],
    );
    let other = generate_identity(&site.path("other"), "x").unwrap();
    let line = format!("[127.0.0.1]:{} {other}\n", machine.proxy.port);
    fs::write(site.path("changed"), line).unwrap();
    let changed = site.path("changed");
    let changed = changed.to_str().unwrap();
    refused(
        &machine,
        &["--known-hosts", changed],
        5,
        &["changed", "ssh-keygen -R"],
    );
    // No policy takes a key that changed.
    let trusting = ["--known-hosts", changed, "--host-key-policy", "accept-new"];
    refused(&machine, &trusting, 5, &["changed"]);

    let stranger = site.path("other");
    let stranger = stranger.to_str().unwrap();
    refused(
        &machine,
        &["--identity", stranger],
        6,
        &["127.0.0.1", "--identity"],
    );
    assert_eq!(
        fs::read_dir(site.home()).unwrap().count(),
        0,
        "the server was touched"
    );
}

#[test]
fn a_path_on_the_server_that_is_no_home_is_refused() {
    let site = Site::new();
    let missing = site.path("no-such-directory");
    refused(
        &site.machine_for("a", &missing),
        &[],
        7,
        &["no-such-directory", "create"],
    );
    assert!(!missing.exists());
    let file = site.path("a-file");
    fs::write(&file, "x").unwrap();
    refused(
        &site.machine_for("b", &file),
        &[],
        7,
        &["a-file", "directory"],
    );

    // Whoever runs the tests may not write there; only root may write anywhere, and so logs in as somebody else.
    let read_only = site.path("read-only");
    fs::create_dir(&read_only).unwrap();
    fs::write(read_only.join("theirs"), "x").unwrap();
    fs::set_permissions(
        &read_only,
        std::os::unix::fs::PermissionsExt::from_mode(0o555),
    )
    .unwrap();
    let mut machine = site.machine_for("c", &read_only);
    if rustix::process::geteuid().is_root() {
        let keys = site.path("sshd");
        fs::set_permissions(keys, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        machine.target = format!("nobody@127.0.0.1:{}", read_only.display());
    }
    refused(&machine, &[], 7, &["read-only", "writ"]);
    assert_eq!(fs::read_dir(&read_only).unwrap().count(), 1);
}

#[test]
fn a_mount_point_that_cannot_be_one_is_refused() {
    let site = Site::new();
    let machine = site.machine("m");
    fs::write(machine.at("in the way"), "").unwrap();
    refused(&machine, &[], 8, &["not empty", "nonempty"]);
    assert!(machine.at("in the way").exists());
    fs::remove_file(machine.at("in the way")).unwrap();
    fs::remove_dir(machine.home()).unwrap();
    refused(&machine, &[], 8, &["no such directory", "mkdir -p"]);
    fs::create_dir(machine.home()).unwrap();
    let inside = machine.at("state");
    refused(
        &machine,
        &["--state", inside.to_str().unwrap()],
        8,
        &["inside", "--state"],
    );
    assert_eq!(fs::read_dir(machine.home()).unwrap().count(), 0);

    machine.mount();
    machine
        .try_mount(&[])
        .assert(8, &["mounted there already", "roamhome status"]);
    fs::write(machine.at("still"), "served").unwrap();
    machine.umount();
    machine
        .try_ask("status")
        .assert(13, &["no roamhome serves"]);
    machine.try_ask("flush").assert(13, &["mount"]);
    machine.try_ask("umount").assert(8, &["is not mounted"]);
}

/// A second mount point on the same computer, with the same state directory.
fn second_mount_point(machine: &Machine) -> Vec<String> {
    let other = machine.disk("second");
    fs::create_dir_all(&other).unwrap();
    let args = machine.mount_args().into_iter();
    let mut args: Vec<_> = args.map(|arg| arg.into_string().unwrap()).collect();
    args[2] = other.to_str().unwrap().to_owned();
    args
}

#[test]
fn a_state_directory_that_is_not_free_or_not_ours_is_refused_untouched() {
    let site = Site::new();
    let machine = site.machine("m");
    machine.mount();
    fs::write(machine.at("file"), "x").unwrap();
    let args = second_mount_point(&machine);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    machine.try_run(&args).assert(9, &["state", "in use"]);
    let state = machine.state();
    let check = ["check", "--state", state.to_str().unwrap()];
    machine.try_run(&check).assert(9, &["in use"]);
    assert_eq!(fs::read_to_string(machine.at("file")).unwrap(), "x");
    machine.umount();

    let index = state.join("index.db");
    let pragma = |text: &str| {
        let status = Command::new("sqlite3")
            .arg(&index)
            .arg(text)
            .status()
            .unwrap();
        assert!(status.success());
    };
    let version = Command::new("sqlite3")
        .arg(&index)
        .arg("pragma user_version")
        .output()
        .unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    pragma("pragma user_version = 999");
    machine
        .try_mount(&[])
        .assert(9, &["index.db", "999", "newer"]);
    assert!(!is_mounted(&machine.home()));
    pragma(&format!("pragma user_version = {version}"));

    machine.mount();
    assert_eq!(fs::read_to_string(machine.at("file")).unwrap(), "x");
    machine.umount();
    machine.check();
}

#[test]
fn a_state_directory_of_another_user_is_refused_untouched() {
    let site = Site::new();
    let machine = site.machine("m");
    // Root can give one away; to others, what is root's is another user's.
    let (theirs, owner) = match rustix::process::geteuid().is_root() {
        true => (machine.disk("theirs"), 65_534),
        false => (PathBuf::from("/usr"), 0),
    };
    if owner != 0 {
        fs::create_dir(&theirs).unwrap();
        chown(&theirs, Some(owner), None).unwrap();
    }
    let before = fs::read_dir(&theirs).unwrap().count();
    let theirs_text = theirs.to_str().unwrap();
    refused(
        &machine,
        &["--state", theirs_text],
        9,
        &[theirs_text, &format!("user {owner}"), "--state"],
    );
    assert_eq!(fs::read_dir(&theirs).unwrap().count(), before);
    assert_eq!(theirs.metadata().unwrap().uid(), owner);
}

#[test]
fn a_key_that_does_not_exist_is_named_with_the_one_that_was_meant() {
    let site = Site::new();
    let machine = site.machine("m");
    let config = machine.disk("config.toml");
    fs::write(&config, "quiet_perod = \"1s\"\n").unwrap();
    refused(
        &machine,
        &[],
        2,
        &["config.toml", "quiet_perod", "quiet_period"],
    );
}

/// Puts the home that `from` is at `to` on the server.
fn exchange(from: &Path, to: &Path) {
    fs::copy(
        from.join(".roamhome/home.toml"),
        to.join(".roamhome/home.toml"),
    )
    .unwrap();
}

#[test]
fn a_directory_that_became_another_home_is_left_alone() {
    let site = Site::new();
    let (machine, other) = (site.machine("m"), site.path("other-home"));
    fs::create_dir(&other).unwrap();
    let stranger = site.machine_for("stranger", &other);
    stranger.mount();
    stranger.umount();
    machine.mount();
    fs::write(machine.at("file"), "kept").unwrap();
    machine.flush();
    let own = fs::read(site.home().join(".roamhome/home.toml")).unwrap();

    exchange(&other, &site.home());
    fs::remove_file(site.home().join("file")).unwrap();
    fs::write(machine.at("new"), "not for strangers").unwrap();
    machine.try_ask("reconcile").assert(11, &["another home"]);
    machine.try_ask("flush").assert(3, &["another home"]);
    assert_eq!(fs::read_to_string(machine.at("file")).unwrap(), "kept");
    assert!(!site.home().join("new").exists());
    let status = machine.status();
    assert_eq!(status["guard"]["guard"], "identity", "{status}");

    fs::write(site.home().join(".roamhome/home.toml"), own).unwrap();
    fs::write(site.home().join("file"), "kept").unwrap();
    machine.reconcile();
    machine.flush();
    assert_same(&site.home(), &machine.home());
    machine.umount();
    machine.check();
}

#[test]
fn a_known_home_comes_up_without_the_server() {
    let site = Site::new();
    let machine = site.machine("m");
    fs::write(site.home().join("cached"), "cached").unwrap();
    fs::write(site.home().join("far"), "far").unwrap();
    machine.mount();
    assert_eq!(fs::read_to_string(machine.at("cached")).unwrap(), "cached");
    machine.umount();
    machine.proxy.down();
    machine.mount();
    assert_eq!(fs::read_to_string(machine.at("cached")).unwrap(), "cached");
    assert_eq!(fs::metadata(machine.at("far")).unwrap().len(), 3);
    let error = fs::read(machine.at("far")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EHOSTUNREACH));
    fs::write(machine.at("new"), "made offline").unwrap();
    machine
        .try_ask("reconcile")
        .assert(4, &["cannot be reached", "status"]);
    let said = machine.try_run(&["flush", "--timeout", "0s", machine.home().to_str().unwrap()]);
    said.assert(3, &["new"]);

    machine.proxy.up();
    machine.ask("online");
    assert_eq!(fs::read_to_string(machine.at("far")).unwrap(), "far");
    machine.flush();
    assert_same(&site.home(), &machine.home());
    machine.umount();
}

#[test]
fn a_directory_with_files_in_it_never_becomes_a_replica_and_never_goes() {
    let site = Site::new();
    let machine = site.machine("m");
    let documents = machine.disk("documents");
    fs::create_dir(&documents).unwrap();
    fs::write(documents.join("thesis"), "years of work").unwrap();
    let mistyped = ["--state", documents.to_str().unwrap()];
    machine
        .try_mount(&mistyped)
        .assert(9, &["thesis", "--state"]);
    machine.proxy.down();
    machine
        .try_mount(&mistyped)
        .assert(9, &["thesis", "--state"]);
    machine.proxy.up();
    assert_eq!(
        fs::read_to_string(documents.join("thesis")).unwrap(),
        "years of work"
    );

    // A replica that lost its index is no new home either.
    machine.mount();
    machine.ask("offline");
    fs::write(machine.at("file"), "unsent").unwrap();
    machine.kill9();
    fs::remove_file(machine.state().join("index.db")).unwrap();
    machine
        .try_mount(&[])
        .assert(9, &["no replica", "roamhome rescue"]);
    let (state, out) = (machine.state(), machine.disk("rescued"));
    machine.run(&["rescue", state.to_str().unwrap(), out.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(out.join("file")).unwrap(), "unsent");
}
