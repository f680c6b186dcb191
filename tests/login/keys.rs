//! Keys of machines and keys of people, with a real sshd on both sides.

use super::sshd::Door;
use super::*;

/// Gives ann a home on the server, in `/home/ann/roam`.
pub(super) fn home_on(nas: &Lab) {
    for dir in ["home/ann", "home/ann/roam"] {
        fs::create_dir_all(nas.path(dir)).unwrap();
        nas.give(&nas.path(dir), ANN);
    }
}

/// A server with accounts, whose sshd asks PAM, and a computer whose homes are there, in `/home/USER/roam`.
fn client_of(door: &Door<'_>, nas: &Lab) -> Lab {
    home_on(nas);
    let lab = Lab::new(&format!(
        "server = \"ssh://{{user}}@127.0.0.1:{}/~/roam\"\nquiet_period = \"100ms\"\nlogout_timeout = \"2s\"\n\
         log = \"roamhome=debug,info\"\n",
        door.port
    ));
    fs::write(lab.path("etc/ssh/ssh_known_hosts"), door.known()).unwrap();
    lab
}

/// Ann logs in with her password, and comes again, so that there is time for what happens then; until `done`.
fn log_in_until(lab: &Lab, what: &str, done: impl Fn() -> bool) {
    at_door(lab, ANN, PASSWORD, &IN_AND_OUT).assert(0, &[]);
    let session = lab.stay(ANN);
    at_door(lab, ANN, PASSWORD, &IN_AND_OUT);
    eventually(what, done);
    session.log_out();
    lab.wait_until_quiet(ANN);
}

#[test]
fn a_machine_that_knew_the_password_once_needs_it_no_more() {
    let nas = Lab::new("");
    let door = Door::open(&nas);
    let mut lab = client_of(&door, &nas);
    let keys = nas.path("home/ann/.ssh/authorized_keys");
    let mine = "ssh-ed25519 AAAAmine ann@desk";
    fs::create_dir(nas.path("home/ann/.ssh")).unwrap();
    fs::write(&keys, mine).unwrap();
    for path in ["home/ann/.ssh", "home/ann/.ssh/authorized_keys"] {
        nas.give(&nas.path(path), ANN);
    }
    let key = lab.path("var/lib/roamhome/ann/machine_key");
    log_in_until(&lab, "the machine enrols", || key.exists());
    let text = fs::read_to_string(&keys).unwrap();
    let (first, second) = text.trim_end().split_once('\n').unwrap();
    assert_eq!(first, mine);
    assert!(
        second.starts_with("restrict,command=\"internal-sftp\" ssh-ed25519 "),
        "{text}"
    );
    assert!(!nas.path("home/ann/roam/.ssh").exists());

    // Nobody types a password, after a restart.
    lab.reboot();
    let sent = |name: &str| {
        let said = lab.log_in(ANN, &format!("echo x > {name}; roamhome status"));
        lab.wait_until_quiet(ANN);
        (said, nas.path("home/ann/roam").join(name).exists())
    };
    let (said, is_sent) = sent("by-key");
    said.assert(0, &["logs in by", "this machine's key"]);
    assert!(is_sent, "{}", lab.logs());
    // It opens nothing else.
    let by_key = format!("-i{}", key.display());
    let only = [
        by_key.as_str(),
        "-oIdentitiesOnly=yes",
        "-oPasswordAuthentication=no",
    ];
    let said = door.try_ssh(&only, "id");
    assert!(said.status != 0 && !said.stdout.contains("uid"), "{said:?}");

    let said = lab.log_in(
        ANN,
        "roamhome enrol; roamhome enrol --rotate; roamhome enrol --list",
    );
    said.assert(
        0,
        &[
            "has a key for 127.0.0.1 since",
            "key of its own",
            "this machine",
        ],
    );
    lab.wait_until_quiet(ANN);
    let rotated = fs::read_to_string(&keys).unwrap();
    assert!(rotated.starts_with(mine) && rotated != text, "{rotated}");
    assert_eq!(rotated.lines().count(), 2, "{rotated}");
    assert!(sent("by-the-next-key").1, "{}", lab.logs());

    let said = lab.log_in(
        ANN,
        "roamhome revoke nobody; roamhome revoke $(roamhome enrol --list | cut -d' ' -f1)",
    );
    said.assert(0, &["is let in no more"]);
    assert!(
        said.stderr.contains("no key of a machine nobody"),
        "{said:?}"
    );
    lab.wait_until_quiet(ANN);
    assert_eq!(fs::read_to_string(&keys).unwrap().trim_end(), mine);
    assert!(!key.exists());
    let said = lab.log_in(ANN, "echo x > not-by-key");
    said.assert(0, &[]);
    assert!(!nas.path("home/ann/roam/not-by-key").exists());
}

#[test]
fn who_comes_with_a_key_of_the_home_is_let_in_before_it_is_mounted() {
    let nas = Lab::new("");
    let door = Door::open(&nas);
    let lab = client_of(&door, &nas);
    let identity = nas.path("etc/ann_key");
    let line = roamhome::remote::generate_identity(&identity, "ann@desk").unwrap();
    let machine =
        "restrict,command=\"internal-sftp\" ssh-ed25519 AAAA roamhome:lab-07:01ab:2026-11-27";
    let ssh = nas.path("home/ann/roam/.ssh");
    fs::create_dir(&ssh).unwrap();
    fs::write(ssh.join("authorized_keys"), format!("{machine}\n{line}\n")).unwrap();
    for path in [ssh.clone(), ssh.join("authorized_keys")] {
        nas.give(&path, ANN);
    }
    assert_eq!(lab.run(&[ROAMHOME, "authorized-keys", "ann"]), "");
    let dir = lab.path("var/lib/roamhome/ann");
    let is_there = |name: &str| fs::metadata(dir.join(name)).is_ok_and(|meta| meta.len() > 0);
    log_in_until(&lab, "keys are copied", || {
        is_there("machine_key") && is_there("authorized_keys")
    });
    // Of people alone.
    assert_eq!(
        lab.run(&[ROAMHOME, "authorized-keys", "ann"]),
        format!("{line}\n")
    );
    assert_eq!(lab.run(&[ROAMHOME, "authorized-keys", "root"]), "");
    let home = Door::open_with(
        &lab,
        "AuthorizedKeysCommand /usr/bin/roamhome authorized-keys %u\nAuthorizedKeysCommandUser root\n",
    );
    let by_key = format!("-i{}", identity.display());
    let only = [
        by_key.as_str(),
        "-oIdentitiesOnly=yes",
        "-oPasswordAuthentication=no",
    ];
    let said = home.try_ssh(&only, "pwd; echo here > by-key");
    said.assert(0, &["/home/ann"]);
    lab.wait_until_quiet(ANN);
    assert!(nas.path("home/ann/roam/by-key").exists(), "{}", lab.logs());

    // What stands in place of the copy is read as its user: root's files are not told.
    fs::remove_file(dir.join("authorized_keys")).unwrap();
    std::os::unix::fs::symlink("/etc/shadow", dir.join("authorized_keys")).unwrap();
    let said = lab.try_run(&[ROAMHOME, "authorized-keys", "ann"]);
    assert!(said.status != 0 && said.stdout.is_empty(), "{said:?}");
}
