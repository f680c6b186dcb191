//! Logins on real computers, as far as a kernel can make some in one: accounts, PAM, su, sshd, and a home that follows.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::lab::{ANN, BOB, Lab, PASSWORD, ROAMHOME};
use crate::support::machine::{Said, eventually};
use crate::support::passwords::PasswordServer;
use crate::support::proxy::Proxy;

mod adopt;
mod authselect;
mod by_kernel;
mod install;
mod kerberos;
mod keys;
mod mounts;
mod network;
mod package;
mod setup;
mod sleep;
mod sshd;
mod systemd;
mod trouble;

/// A server that knows passwords alone, the network before it, and computers that use it.
struct Site {
    server: PasswordServer,
    proxy: Proxy,
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("rhsite").tempdir().unwrap();
        fs::set_permissions(
            dir.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let home = dir.path().join("server");
        fs::create_dir_all(&home).unwrap();
        let server = PasswordServer::start(&dir.path().join("keys"), &home, PASSWORD);
        let proxy = Proxy::start(server.port);
        Self { server, proxy, dir }
    }

    /// A file of the home, on the server.
    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join("server").join(name)
    }

    /// A computer whose homes are on this server, with more settings.
    fn lab(&self, more: &str) -> Lab {
        let lab = Lab::new("");
        let known = fs::read_to_string(&self.server.known_hosts).unwrap();
        let (_, key) = known.split_once(' ').unwrap();
        let line = format!("[127.0.0.1]:{} {key}", self.proxy.port);
        fs::write(lab.path("etc/known_hosts"), line).unwrap();
        lab.configure(&format!(
            "server = \"ssh://{{user}}@127.0.0.1:{}/\"\nknown_hosts = \"/etc/known_hosts\"\n\
             quiet_period = \"100ms\"\nlog = \"roamhome=debug,info\"\n{more}",
            self.proxy.port
        ));
        lab
    }
}

/// A directory of the computer's disk as the server, which needs no password.
fn local_lab(more: &str) -> Lab {
    let lab = Lab::new("");
    serve_locally(&lab, more);
    lab
}

/// Makes a directory of its own disk the server.
fn serve_locally(lab: &Lab, more: &str) {
    fs::create_dir_all(lab.path("home/server/ann")).unwrap();
    lab.give(&lab.path("home/server/ann"), ANN);
    lab.configure(&format!(
        "server = \"/home/server/{{user}}\"\nquiet_period = \"100ms\"\nlog = \"roamhome=debug,info\"\n{more}"
    ));
}

/// What pamtester does at a door that wants a password, all in one process.
fn at_door(lab: &Lab, who: (&str, u32), password: &str, steps: &[&str]) -> Said {
    let mut child = lab
        .command("pamtester")
        .args(["door", who.0])
        .args(steps)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A door that asks nobody has closed it.
    drop(writeln!(child.stdin.take().unwrap(), "{password}"));
    Said::new(&child.wait_with_output().unwrap())
}

/// Ann's commands outside of any session.
fn as_user(lab: &Lab, commands: &str) {
    let id = ["--reuid=54001", "--regid=54001", "--clear-groups"];
    lab.run(&[&["setpriv"], &id[..], &["sh", "-c", commands]].concat());
}

const IN_AND_OUT: [&str; 3] = ["authenticate", "open_session", "close_session"];

#[test]
fn the_password_typed_at_login_opens_the_home_and_the_last_logout_sends_all() {
    let site = Site::new();
    fs::write(site.at("letter"), "dear").unwrap();
    let lab = site.lab("");
    let refused = at_door(&lab, ANN, "wrong", &IN_AND_OUT);
    assert_ne!(refused.status, 0, "{refused:?}");
    assert_eq!((site.server.attempts(), lab.mounts(ANN)), (0, 0));

    let said = at_door(&lab, ANN, PASSWORD, &IN_AND_OUT);
    said.assert(0, &["all is on the server"]);
    assert_eq!(site.server.logins(), 1, "{}", lab.logs());
    lab.wait_until_quiet(ANN);
    // The home is known now: whoever comes by su, without a password, has what was fetched.
    let said = lab.log_in(ANN, "cat letter; id -un; echo new > new; stat -c %U . new");
    assert_eq!(said.status, 0, "{said:?}\n{}", lab.logs());
    assert!(said.stdout.ends_with("ann\nann\nann\n"), "{said:?}");
    // It was not sent, for nobody was let in; the next password sends it.
    assert!(!site.at("new").exists());
    at_door(&lab, ANN, PASSWORD, &IN_AND_OUT).assert(0, &["all is on the server"]);
    assert_eq!(fs::read_to_string(site.at("new")).unwrap(), "new\n");
    lab.wait_until_quiet(ANN);
    nothing_of_root_is_in(&lab.path("var/lib/roamhome/ann"));
}

fn nothing_of_root_is_in(dir: &Path) {
    let found = Command::new("find").arg(dir).args(["-uid", "0"]).output();
    let found = String::from_utf8(found.unwrap().stdout).unwrap();
    assert_eq!(found, "");
}

#[test]
fn sessions_are_counted_and_die_with_who_holds_them() {
    let lab = local_lab("");
    let first = lab.stay(ANN);
    let second = lab.stay(ANN);
    assert_eq!(lab.mounts(ANN), 1);
    lab.expect_one_process(&["ann", "--as-daemon"]);
    lab.expect_one_process(&["root", "/proc/self/exe keep"]);
    first.log_out();
    assert_eq!(lab.mounts(ANN), 1);
    as_user(&lab, "echo late > /home/ann/late");
    assert_eq!(lab.mounts(ANN), 1);
    second.kill9();
    lab.wait_until_quiet(ANN);
    let sent = fs::read_to_string(lab.path("home/server/ann/late"));
    assert_eq!(sent.unwrap(), "late\n");
}

#[test]
fn many_at_once_get_one_mount_and_one_daemon() {
    let lab = local_lab("");
    let sessions: Vec<_> = (0..8)
        .map(|number| {
            lab.session(ANN, &format!("echo x > {number}; sleep 2"))
                .spawn()
                .unwrap()
        })
        .collect();
    eventually("it is mounted", || lab.mounts(ANN) > 0);
    lab.expect_one_process(&["--as-daemon"]);
    for mut session in sessions {
        assert!(session.wait().unwrap().success());
        assert!(lab.mounts(ANN) <= 1);
    }
    lab.wait_until_quiet(ANN);
    for number in 0..8 {
        assert!(lab.path(format!("home/server/ann/{number}")).exists());
    }
}

#[test]
fn a_home_that_was_here_comes_up_without_the_server() {
    let site = Site::new();
    fs::write(site.at("letter"), "dear").unwrap();
    let lab = site.lab("logout_timeout = \"1s\"\n");
    at_door(&lab, ANN, PASSWORD, &IN_AND_OUT).assert(0, &[]);
    lab.wait_until_quiet(ANN);
    site.proxy.down();
    let said = lab.log_in(ANN, "ls; echo offline > offline");
    said.assert(0, &["letter"]);
    site.proxy.up();
    // The same with a server that takes connections and says nothing.
    site.proxy.stall();
    lab.log_in(ANN, "cat offline").assert(0, &["offline"]);
}

#[test]
fn who_comes_for_the_first_time_without_a_server_hears_so() {
    let site = Site::new();
    let lab = site.lab("");
    site.proxy.down();
    let refused = at_door(&lab, ANN, PASSWORD, &IN_AND_OUT);
    assert_ne!(refused.status, 0);
    refused.assert(
        refused.status,
        &["cannot be reached", "home that was mounted here before"],
    );
    assert_eq!(
        fs::read_dir(lab.path("var/lib/roamhome/ann"))
            .unwrap()
            .count(),
        0
    );

    let lab = site.lab("first_login = \"local\"\n");
    let said = at_door(&lab, ANN, PASSWORD, &["authenticate", "open_session"]);
    said.assert(0, &["cannot be reached"]);
    lab.log_in(ANN, "pwd; echo mine > mine && cat mine")
        .assert(0, &["/home/ann", "mine"]);
    // With the server back, nothing is mounted over what was made here.
    site.proxy.up();
    let said = at_door(&lab, ANN, PASSWORD, &["authenticate", "open_session"]);
    said.assert(0, &["not empty"]);
    assert_eq!(lab.mounts(ANN), 0);
    assert_eq!(
        fs::read_to_string(lab.path("home/ann/mine")).unwrap(),
        "mine\n"
    );
}

#[test]
fn the_last_logout_returns_in_time_and_the_machine_goes_on_sending() {
    let site = Site::new();
    let lab = site.lab("logout_timeout = \"1s\"\n");
    // Ann is there by su, and types her password at another door.
    at_door(&lab, ANN, PASSWORD, &IN_AND_OUT).assert(0, &["all is on the server"]);
    lab.wait_until_quiet(ANN);
    let session = lab.stay(ANN);
    at_door(&lab, ANN, PASSWORD, &IN_AND_OUT).assert(0, &[]);
    as_user(&lab, "echo x > /home/ann/small");
    eventually("it is online", || site.at("small").exists());

    site.proxy.throttle(20_000);
    as_user(&lab, "head -c 2000000 /dev/urandom > /home/ann/big");
    session.log_out();
    assert_eq!(lab.mounts(ANN), 1);
    assert!(!site.at("big").exists());
    // Whoever comes meanwhile has the same home, and hears what is left from before.
    at_door(&lab, ANN, PASSWORD, &IN_AND_OUT[..2])
        .assert(0, &["1 change made here earlier is not on the server yet"]);
    lab.log_in(ANN, "stat -c %s big").assert(0, &["2000000"]);
    site.proxy.throttle(100_000_000);
    lab.wait_until_quiet(ANN);
    assert_eq!(site.at("big").metadata().unwrap().len(), 2_000_000);
}

#[test]
fn a_killed_daemon_comes_back_and_so_does_a_killed_keeper() {
    let lab = local_lab("");
    let session = lab.stay(ANN);
    as_user(&lab, "echo one > /home/ann/one");
    let daemon = lab.pids(&["--as-daemon"]).remove(0);
    lab.run(&["kill", "-9", &daemon]);
    eventually("another daemon serves", || {
        lab.try_run(&["cat", "/home/ann/one"]).stdout == "one\n"
    });
    assert_eq!(lab.mounts(ANN), 1);

    let keeper = lab.pids(&["/proc/self/exe keep"]).remove(0);
    lab.run(&["kill", "-9", &keeper]);
    as_user(&lab, "echo two > /home/ann/two");
    session.log_out();
    lab.wait_until_quiet(ANN);

    // Both at once, as by the kernel's OOM killer: the next login finds a dead mount.
    let session = lab.stay(ANN);
    as_user(&lab, "echo three > /home/ann/three");
    for pid in lab.pids(&["/proc/self/exe"]) {
        // The server's processes end with the daemon.
        lab.try_run(&["kill", "-9", &pid]);
    }
    eventually("the mount is dead", || {
        lab.try_run(&["ls", "/home/ann"]).status != 0
    });
    lab.log_in(ANN, "cat three").assert(0, &["three"]);
    session.log_out();
    lab.wait_until_quiet(ANN);
    for name in ["one", "two", "three"] {
        let sent = fs::read_to_string(lab.path("home/server/ann").join(name));
        assert_eq!(sent.unwrap(), format!("{name}\n"));
    }
}

#[test]
fn a_purged_machine_holds_no_content_that_the_server_has() {
    let lab = local_lab("on_logout = \"purge\"\n");
    fs::write(lab.path("home/server/ann/letter"), "dear").unwrap();
    let content = || {
        let dirs = ["content", "unsent"].map(|dir| lab.path("var/lib/roamhome/ann").join(dir));
        let found = Command::new("find")
            .args(dirs)
            .args(["-type", "f", "-size", "+0"])
            .output();
        String::from_utf8(found.unwrap().stdout).unwrap()
    };
    let said = lab.log_in(ANN, "cat letter; echo mine > mine");
    said.assert(0, &["dear"]);
    lab.wait_until_quiet(ANN);
    assert_eq!(content(), "");
    // It comes back, and stays where the server is away.
    fs::remove_file(lab.path("home/server/ann/letter")).unwrap();
    let session = lab.stay(ANN);
    as_user(&lab, "cat /home/ann/mine");
    fs::rename(lab.path("home/server"), lab.path("home/away")).unwrap();
    session.log_out();
    lab.wait_until_quiet(ANN);
    assert!(content().contains("content/"), "{}", content());
}

#[test]
fn what_was_left_when_the_power_went_is_sent_when_the_machine_starts() {
    let mut lab = local_lab("logout_timeout = \"1s\"\n");
    lab.log_in(ANN, "true").assert(0, &[]);
    lab.wait_until_quiet(ANN);
    // The server's disk is away.
    fs::rename(lab.path("home/server"), lab.path("home/away")).unwrap();
    lab.log_in(ANN, "echo left > left; sync left")
        .assert(0, &[]);
    lab.reboot();
    assert_eq!(lab.mounts(ANN), 0);
    fs::rename(lab.path("home/away"), lab.path("home/server")).unwrap();
    lab.run(&[ROAMHOME, "resume"]);
    let sent = lab.path("home/server/ann/left");
    eventually("it is sent", || sent.exists());
    lab.wait_until_quiet(ANN);
    assert_eq!(fs::read_to_string(sent).unwrap(), "left\n");
    // Nothing is left, so nothing is started.
    lab.reboot();
    lab.run(&[ROAMHOME, "resume"]);
    assert_eq!(lab.processes(&["/proc/self/exe"]), Vec::<String>::new());
}

#[test]
fn accounts_without_a_home_on_the_server_and_mistakes_in_files_keep_nobody_out() {
    let lab = local_lab("login_min_uid = 54002\n");
    // Ann's number is below; bob's directory does not exist.
    lab.log_in(ANN, "true").assert(0, &[]);
    assert_eq!(lab.processes(&["/proc/self/exe"]), Vec::<String>::new());
    lab.run(&["su", "-", "-c", "true"]);
    let refused = at_door(&lab, BOB, PASSWORD, &IN_AND_OUT);
    assert_ne!(refused.status, 0);
    refused.assert(refused.status, &["/home/server/bob"]);

    for mistake in [
        "server = ",
        "no_such_key = 1",
        "login_timeout = \"soon\"",
        "server = \"a b:c\"",
    ] {
        lab.configure(mistake);
        lab.log_in(ANN, "echo in").assert(0, &["in"]);
    }
    lab.configure("");
    lab.log_in(ANN, "echo in").assert(0, &["in"]);
    assert_eq!(lab.mounts(ANN), 0);
}

#[test]
fn what_an_account_could_lead_astray_is_refused() {
    let lab = local_lab("");
    let elsewhere = lab.path("home/elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    // A link in the place of the home, and somebody else's directory.
    std::os::unix::fs::symlink("/home/elsewhere", lab.path("home/ann")).unwrap();
    let said = at_door(&lab, ANN, PASSWORD, &IN_AND_OUT);
    said.assert(said.status, &["/home/ann", "not a directory"]);
    fs::remove_file(lab.path("home/ann")).unwrap();
    fs::create_dir(lab.path("home/ann")).unwrap();
    lab.give(&lab.path("home/ann"), BOB);
    let said = at_door(&lab, ANN, PASSWORD, &IN_AND_OUT);
    said.assert(said.status, &["54002"]);
    assert_eq!(lab.mounts(ANN), 0);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

/// A step as pam_exec runs it, with these bytes as the password.
fn step(lab: &Lab, as_whom: &[&str], kind: &str, password: &[u8]) -> Said {
    let words = [as_whom, &["env", "PAM_USER=ann", "PAM_SERVICE=door"]].concat();
    let mut child = lab
        .command(words[0])
        .args(&words[1..])
        .arg(format!("PAM_TYPE={kind}"))
        .args([ROAMHOME, "login"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A step that does not care does not read.
    drop(child.stdin.take().unwrap().write_all(password));
    Said::new(&child.wait_with_output().unwrap())
}

#[test]
fn steps_bear_passwords_of_any_bytes_and_do_nothing_for_who_is_not_root() {
    let lab = local_lab("");
    let nobody = [
        "setpriv",
        "--reuid=54001",
        "--regid=54001",
        "--clear-groups",
    ];
    for kind in ["auth", "open_session", "setcred", "password"] {
        let said = step(&lab, &nobody, kind, b"secret\0");
        assert_eq!((said.status, said.stdout.as_str()), (0, ""), "{said:?}");
    }
    assert_eq!(lab.processes(&["/proc/self/exe"]), Vec::<String>::new());
    step(&lab, &["nice"], "auth", b"\xff\xfe\0").assert(0, &["not UTF-8"]);
    assert_eq!(lab.processes(&["/proc/self/exe"]), Vec::<String>::new());
    let endless = vec![b'x'; 100_000];
    for password in [&b""[..], b"\0", b"a\nb\0c", b"\"\\\x01\x7f", &endless] {
        let said = step(&lab, &["nice"], "auth", password);
        assert_eq!((said.status, said.stdout.as_str()), (0, ""), "{said:?}");
    }
    // The keeper that waits for a session heard them all.
    lab.expect_one_process(&["/proc/self/exe keep"]);
    assert_eq!(lab.mounts(ANN), 0);
    lab.log_in(ANN, "pwd").assert(0, &["/home/ann"]);
    lab.wait_until_quiet(ANN);
}
