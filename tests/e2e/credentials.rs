//! Logins by certificates, by several means one after the other, and by answers that are good for once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::login::{Agent, PASSPHRASE, Terminal, mount_command, run, said, works};
use crate::support::machine::{Machine, Site, eventually};
use crate::support::passwords::PasswordServer;

/// A new key in `file`.
fn keygen(file: &Path, kind: &str) {
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-N", "", "-t", kind, "-f"]);
    run(keygen.arg(file));
}

/// Lets the authority `ca` sign `key`, for those in `flags`.
fn sign(ca: &Path, key: &Path, flags: &[&str]) {
    let mut keygen = Command::new("ssh-keygen");
    keygen.arg("-q").arg("-s").arg(ca).args(["-I", "test"]);
    let mut public = key.as_os_str().to_owned();
    public.push(".pub");
    run(keygen.args(flags).arg(public));
}

/// A server that lets in whom an authority vouches for, and nobody else; and the authority.
fn certified() -> (Site, PathBuf) {
    let mut ca = PathBuf::new();
    let site = Site::with(|dir| {
        ca = dir.join("user_ca");
        keygen(&ca, "ed25519");
        format!(
            "TrustedUserCAKeys {}.pub\nAuthorizedKeysFile none\n",
            ca.display()
        )
    });
    (site, ca)
}

#[test]
fn a_certificate_beside_each_kind_of_key_logs_in() {
    let (site, ca) = certified();
    let user = site.sshd.user.clone();
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let mut machine = site.machine(kind);
        machine.identity = machine.disk("id");
        keygen(&machine.identity, kind);
        said(&mut mount_command(&machine, true)).assert(6, &["tried key"]);
        for (flags, says) in [
            (["-n", "nobody-of-that-name", "-V", "+1h"], "certificate"),
            (["-n", &user, "-V", "20000101:20000102"], "certificate"),
        ] {
            sign(&ca, &machine.identity, &flags);
            said(&mut mount_command(&machine, true)).assert(6, &[says, "id-cert.pub"]);
        }
        sign(&ca, &machine.identity, &["-n", &user, "-V", "+1h"]);
        said(&mut mount_command(&machine, true)).assert(0, &[]);
        works(&machine, &site.home());
        fs::remove_file(site.home().join("file")).unwrap();
    }
}

#[test]
fn a_certificate_in_the_agent_logs_in() {
    let (site, ca) = certified();
    let machine = site.machine("m");
    let key = site.path("agents_key");
    keygen(&key, "rsa");
    sign(&ca, &key, &["-n", &site.sshd.user]);
    let agent = Agent::with(&site, &key);
    fs::remove_file(site.path("agents_key-cert.pub")).unwrap();
    fs::remove_file(&key).unwrap();
    let mut command = mount_command(&machine, false);
    said(command.env("SSH_AUTH_SOCK", &agent.socket)).assert(0, &[]);
    works(&machine, &site.home());
}

#[test]
fn a_server_that_wants_two_keys_gets_both() {
    let mut other = PathBuf::new();
    let site = Site::with(|dir| {
        other = dir.join("other");
        keygen(&other, "ecdsa");
        let both = ["identity.pub", "other.pub"].map(|name| fs::read_to_string(dir.join(name)));
        let both = both.map(Result::unwrap).join("\n");
        fs::write(dir.join("both"), both).unwrap();
        let file = dir.join("both");
        format!(
            "AuthenticationMethods publickey,publickey\nAuthorizedKeysFile {}\n",
            file.display()
        )
    });
    let machine = site.machine("m");
    said(&mut mount_command(&machine, true)).assert(6, &["taken, but not enough"]);
    let agent = Agent::with(&site, &machine.identity);
    agent.add(&other);
    let mut command = mount_command(&machine, false);
    said(command.env("SSH_AUTH_SOCK", &agent.socket)).assert(0, &[]);
    works(&machine, &site.home());
}

#[test]
fn what_a_server_asks_after_the_password_is_asked_on_the_terminal() {
    let site = Site::new();
    let server = PasswordServer::start_asking(
        &site.path("asking"),
        &site.home(),
        PASSPHRASE,
        Some("123456"),
    );
    let target = "ada@127.0.0.1:/".to_owned();
    let machine = site.machine_at("m", target, server.port, &server.known_hosts);
    said(&mut mount_command(&machine, false)).assert(6, &[]);
    let mut terminal = Terminal::run(&mount_command(&machine, false));
    terminal.answer("ada@127.0.0.1's password", PASSPHRASE);
    terminal.answer("Verification code:", "654321");
    terminal.answer("ada@127.0.0.1's password", PASSPHRASE);
    terminal.answer("Verification code:", "123456");
    let (status, shown) = terminal.end();
    assert_eq!(status, 0, "{shown}");
    assert_eq!(server.logins(), 1);
    fs::write(machine.at("file"), "sent").unwrap();
    machine.flush();
    assert_eq!(
        fs::read_to_string(site.home().join("file")).unwrap(),
        "sent"
    );
    // A code is good for once, and nobody is there to say another one.
    machine.ask("offline");
    machine.try_ask("online");
    eventually("a person is needed", || {
        machine.status()["link"]["state"] == "refused"
    });
    let mount = machine.home();
    machine
        .try_run(&["umount", "--no-flush", mount.to_str().unwrap()])
        .assert(0, &[]);
}

/// A server with a certificate for its key, and the authority that may sign another.
struct Vouched {
    site: Site,
    ca: PathBuf,
}

impl Vouched {
    fn new() -> Self {
        let mut ca = PathBuf::new();
        let site = Site::with(|dir| {
            ca = dir.join("host_ca");
            keygen(&ca, "ecdsa");
            sign(&ca, &dir.join("host_key"), &["-h", "-n", "127.0.0.1"]);
            format!(
                "HostCertificate {}\n",
                dir.join("host_key-cert.pub").display()
            )
        });
        Self { site, ca }
    }

    /// A machine that knows `authority` for `hosts`, and nothing else.
    fn machine(&self, name: &str, hosts: &str, authority: &Path) -> Machine {
        let machine = self.site.machine(name);
        let key = fs::read_to_string(format!("{}.pub", authority.display())).unwrap();
        let line = format!("@cert-authority {hosts} {key}");
        fs::write(machine.disk("known_hosts"), line).unwrap();
        machine
    }
}

#[test]
fn an_authority_vouches_for_a_server() {
    let vouched = Vouched::new();
    let Vouched { site, ca } = &vouched;
    for (name, hosts) in [("a", "*"), ("b", "127.0.0.1"), ("c", "[127.0.0.1]:*")] {
        let machine = vouched.machine(name, hosts, ca);
        machine.mount();
        works(&machine, &site.home());
    }
    // Of another authority, or for other hosts: the server is as unknown as without a certificate.
    let other = site.path("other_ca");
    keygen(&other, "ed25519");
    for (name, hosts, authority) in [("d", "*", &other), ("e", "example.org", ca)] {
        let machine = vouched.machine(name, hosts, authority);
        machine.try_mount(&[]).assert(5, &["is unknown"]);
    }
    // Whoever is revoked vouches for nobody.
    let machine = vouched.machine("f", "*", ca);
    let file = machine.disk("known_hosts");
    let text = fs::read_to_string(&file).unwrap();
    let revoked = text.replace("@cert-authority", "@revoked");
    fs::write(&file, text + &revoked).unwrap();
    machine.try_mount(&[]).assert(5, &["revoked"]);
}

#[test]
fn a_host_certificate_that_does_not_hold_is_refused() {
    for (flags, says) in [
        (&["-h", "-n", "example.org"][..], "it is for example.org"),
        (
            &["-h", "-n", "127.0.0.1", "-V", "20000101:20000102"],
            "not valid now",
        ),
    ] {
        let mut ca = PathBuf::new();
        let site = Site::with(|dir| {
            ca = dir.join("host_ca");
            keygen(&ca, "ed25519");
            sign(&ca, &dir.join("host_key"), flags);
            format!(
                "HostCertificate {}\n",
                dir.join("host_key-cert.pub").display()
            )
        });
        let vouched = Vouched { site, ca };
        let machine = vouched.machine("m", "*", &vouched.ca);
        machine.try_mount(&[]).assert(5, &["certificate", says]);
        assert!(!machine.state().exists());
    }
}
