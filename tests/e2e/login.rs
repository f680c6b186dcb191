//! How a mount logs in, and whom it trusts: keys, an agent, passphrases, passwords, and known hosts.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use roamhome::remote::generate_identity;

use crate::support::machine::{Machine, Said, Site, eventually};
use crate::support::mounted::is_mounted;
use crate::support::passwords::PasswordServer;

/// An ssh-agent of its own; killed when dropped.
pub(super) struct Agent {
    child: Child,
    pub(super) socket: PathBuf,
}

impl Agent {
    /// Starts one that holds the key in the file `identity`.
    pub(super) fn with(site: &Site, identity: &Path) -> Self {
        let socket = site.path("agent");
        let child = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let agent = Self { child, socket };
        eventually("the agent listens", || agent.socket.exists());
        agent.add(identity);
        agent
    }

    /// Gives it another key, with the certificate that lies beside it.
    pub(super) fn add(&self, identity: &Path) {
        let mut add = Command::new("ssh-add");
        add.arg("-q").arg(identity);
        run(add.env("SSH_AUTH_SOCK", &self.socket));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have died on its own.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[track_caller]
pub(super) fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
}

pub(super) const PASSPHRASE: &str = "it's a long way";

/// Locks the key in the file `identity`.
fn lock(identity: &Path) {
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-p", "-P", "", "-N", PASSPHRASE, "-f"]);
    run(keygen.arg(identity));
}

/// The command that mounts, with or without `--identity`, and with no agent.
pub(super) fn mount_command(machine: &Machine, identity: bool) -> Command {
    let mut args = machine.mount_args();
    if !identity {
        let at = args.iter().position(|arg| arg == "--identity").unwrap();
        args.drain(at..at + 2);
    }
    let args: Vec<_> = args.iter().map(OsString::as_os_str).collect();
    let mut command = machine.command(&args);
    command.env_remove("SSH_AUTH_SOCK").stdin(Stdio::null());
    command
}

pub(super) fn said(command: &mut Command) -> Said {
    Said::new(&command.output().unwrap())
}

/// The home is there, and the daemon can log in once more by itself.
#[track_caller]
pub(super) fn works(machine: &Machine, on_server: &Path) {
    assert!(is_mounted(&machine.home()));
    fs::write(machine.at("file"), "sent").unwrap();
    machine.flush();
    machine.ask("offline");
    machine.ask("online");
    fs::write(machine.at("file"), "sent again").unwrap();
    machine.umount();
    let sent = fs::read_to_string(on_server.join("file")).unwrap();
    assert_eq!(sent, "sent again");
    machine.check();
}

#[test]
fn a_key_that_only_the_agent_has_logs_in() {
    let site = Site::new();
    let machine = site.machine("m");
    said(&mut mount_command(&machine, false)).assert(6, &["127.0.0.1", "ssh-agent"]);
    let agent = Agent::with(&site, &machine.identity);
    let mut command = mount_command(&machine, false);
    said(command.env("SSH_AUTH_SOCK", &agent.socket)).assert(0, &[]);
    works(&machine, &site.home());
}

#[test]
fn a_locked_key_is_refused_without_a_terminal_unless_an_agent_has_it() {
    let site = Site::new();
    let machine = site.machine("m");
    let agent = Agent::with(&site, &machine.identity);
    lock(&machine.identity);
    let identity = machine.identity.to_str().unwrap();
    let refused = said(&mut mount_command(&machine, true));
    refused.assert(6, &["locked", "ssh-add", identity]);
    assert!(!machine.state().exists());

    let mut command = mount_command(&machine, true);
    said(command.env("SSH_AUTH_SOCK", &agent.socket)).assert(0, &[]);
    works(&machine, &site.home());
}

/// A command on a terminal.
pub(super) struct Terminal {
    child: Child,
    shown: String,
}

impl Terminal {
    pub(super) fn run(command: &Command) -> Self {
        let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().unwrap());
        let mut words: Vec<_> = [command.get_program()].map(quoted).to_vec();
        // Else it would keep the command from reading the terminal.
        words.push("--foreground".to_owned());
        words.extend(command.get_args().map(quoted));
        let mut script = Command::new("script");
        script
            .args([
                "--quiet",
                "--return",
                "--command",
                &words.join(" "),
                "/dev/null",
            ])
            .current_dir(command.get_current_dir().unwrap());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => script.env(name, value),
                None => script.env_remove(name),
            };
        }
        let child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        Self {
            child: child.unwrap(),
            shown: String::new(),
        }
    }

    /// Waits for a question that was not shown before, and types the answer.
    #[track_caller]
    pub(super) fn answer(&mut self, question: &str, answer: &str) {
        let before = self.shown.len();
        let output = self.child.stdout.as_mut().unwrap();
        while !self.shown[before..].contains(question) {
            let mut piece = [0; 1_000];
            let read = output.read(&mut piece).unwrap();
            assert!(read > 0, "never asked {question:?}: {:?}", self.shown);
            self.shown += &String::from_utf8_lossy(&piece[..read]);
        }
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(format!("{answer}\n").as_bytes()).unwrap();
    }

    /// How it ended, and all that it showed.
    pub(super) fn end(mut self) -> (i32, String) {
        let mut output = self.child.stdout.take().unwrap();
        output.read_to_string(&mut self.shown).unwrap();
        let status = self.child.wait().unwrap();
        (status.code().unwrap(), self.shown)
    }
}

#[test]
fn a_passphrase_is_asked_for_on_a_terminal() {
    let site = Site::new();
    let machine = site.machine("m");
    lock(&machine.identity);
    let mut terminal = Terminal::run(&mount_command(&machine, true));
    terminal.answer("passphrase of", "wrong");
    terminal.answer("passphrase of", PASSPHRASE);
    let (status, shown) = terminal.end();
    assert_eq!(status, 0, "{shown}");
    works(&machine, &site.home());

    // Nobody waits for ever: three times, and that is it.
    let other = site.machine("other");
    let mut terminal = Terminal::run(&mount_command(&other, true));
    for _ in 0..3 {
        terminal.answer("passphrase of", "wrong");
    }
    let (status, shown) = terminal.end();
    assert_eq!(status, 6, "{shown}");
}

/// A server that knows passwords alone, and a machine whose mount means it.
pub(super) fn password_server(site: &Site) -> (PasswordServer, Machine) {
    let server = PasswordServer::start(&site.path("passwords"), &site.home(), PASSPHRASE);
    let target = "ada@127.0.0.1:/".to_owned();
    let machine = site.machine_at("m", target, server.port, &server.known_hosts);
    (server, machine)
}

#[test]
fn a_password_comes_from_a_descriptor() {
    let site = Site::new();
    let (_server, machine) = password_server(&site);
    said(&mut mount_command(&machine, true)).assert(6, &["--password-fd"]);
    for (password, status) in [("wrong", 6), ("", 6), (PASSPHRASE, 0)] {
        let mut command = mount_command(&machine, true);
        let mut child = command
            .args(["--password-fd", "0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(format!("{password}\n").as_bytes()).unwrap();
        drop(input);
        let said = Said::new(&child.wait_with_output().unwrap());
        said.assert(status, &[]);
        assert_eq!(machine.state().exists(), status == 0, "{said:?}");
    }
    works(&machine, &site.home());
}

#[test]
fn a_password_is_asked_for_on_a_terminal() {
    let site = Site::new();
    let (_server, machine) = password_server(&site);
    // A key that the server does not take: the person chooses the password.
    lock(&machine.identity);
    let mut terminal = Terminal::run(&mount_command(&machine, true));
    terminal.answer("passphrase of", "");
    terminal.answer("ada@127.0.0.1's password", "wrong");
    terminal.answer("passphrase of", "");
    terminal.answer("ada@127.0.0.1's password", PASSPHRASE);
    let (status, shown) = terminal.end();
    assert_eq!(status, 0, "{shown}");
    works(&machine, &site.home());
}

/// The lines of a machine's file of known hosts.
fn known_hosts(machine: &Machine) -> (PathBuf, String) {
    let file = machine.disk("known_hosts");
    let text = fs::read_to_string(&file).unwrap();
    (file, text)
}

#[test]
fn a_server_is_known_by_a_hashed_line_and_refused_when_its_key_changes() {
    let site = Site::new();
    let machine = site.machine("m");
    let (file, text) = known_hosts(&machine);
    run(Command::new("ssh-keygen")
        .args(["-q", "-H", "-f"])
        .arg(&file));
    let hashed = fs::read_to_string(&file).unwrap();
    assert!(hashed.starts_with("|1|"), "{hashed}");
    machine.mount();
    works(&machine, &site.home());

    let other = generate_identity(&site.path("other"), "x").unwrap();
    let (_, key) = text.trim().split_once(' ').unwrap();
    let changed = hashed.replace(key, &other);
    assert_ne!(changed, hashed);
    fs::write(&file, format!("# theirs\n{changed}")).unwrap();
    let stranger = site.machine("stranger");
    for policy in ["strict", "accept-new"] {
        let file = file.to_str().unwrap();
        let flags = [
            "--known-hosts",
            file,
            "--host-key-policy",
            policy,
            "--port",
            &machine.proxy.port.to_string(),
        ];
        let said = stranger.try_mount(&flags);
        said.assert(5, &["changed", "known_hosts:2", "ssh-keygen -R"]);
    }
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        format!("# theirs\n{changed}")
    );
}

#[test]
fn a_new_server_is_remembered_only_if_that_is_wanted() {
    let site = Site::new();
    let machine = site.machine("m");
    let file = machine.disk("new/known_hosts");
    let flags = ["--known-hosts", file.to_str().unwrap()];
    machine.try_mount(&flags).assert(5, &["unknown", "SHA256:"]);
    assert!(!file.exists());

    let accepting = [&flags[..], &["--host-key-policy", "accept-new"]].concat();
    machine.try_mount(&accepting).assert(0, &[]);
    works(&machine, &site.home());
    let learnt = fs::read_to_string(&file).unwrap();
    assert!(
        known_hosts(&machine).1.starts_with(learnt.trim()),
        "{learnt}"
    );
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // Known from now on.
    machine.try_mount(&flags).assert(0, &[]);
    works(&machine, &site.home());
}

#[test]
fn nobody_passes_for_new_by_what_is_not_understood() {
    let site = Site::new();
    let machine = site.machine("m");
    let (file, text) = known_hosts(&machine);
    let (host, key) = text.trim().split_once(' ').unwrap();
    let flags = ["--host-key-policy", "accept-new"];
    for (line, says) in [
        (format!("{host} sk-new@example.org AAAA\n"), "changed"),
        (format!("@revoked * {key}\n{text}"), "revoked"),
    ] {
        fs::write(&file, &line).unwrap();
        machine.try_mount(&flags).assert(5, &[says]);
        assert_eq!(fs::read_to_string(&file).unwrap(), line);
    }
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    machine.try_mount(&flags).assert(1, &["known_hosts"]);
    fs::remove_dir(&file).unwrap();
    assert!(!machine.state().exists());
    // What is beside it is understood all the same.
    let strange = format!("@strange {host} x y\n\u{fffd}\n{host} sk-new@example.org AAAA\n{text}");
    fs::write(&file, strange).unwrap();
    machine.mount();
    works(&machine, &site.home());
}
