//! A real sshd on loopback, for one test: own keys, a free port, nothing of the machine's configuration.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use roamhome::remote::{ConnectOptions, Target, generate_identity};

/// A running sshd; killed when dropped.
pub(crate) struct Sshd {
    /// Where it listens on 127.0.0.1.
    pub(crate) port: u16,
    /// A private key that it lets in.
    pub(crate) identity: PathBuf,
    /// A file that knows its host key.
    pub(crate) known_hosts: PathBuf,
    /// Who runs it, and so who can log in.
    pub(crate) user: String,
    child: Child,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // It may have died on its own.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Sshd {
    /// Starts one that keeps its keys in `dir`.
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_with(dir, |_| String::new())
    }

    /// The same, with lines of `sshd_config` that come first, and so count. They are asked for once `dir` holds
    /// `host_key` and `identity`, each with its `.pub`.
    pub(crate) fn start_with(dir: &Path, more: impl FnOnce(&Path) -> String) -> Self {
        let host_key = dir.join("host_key");
        let identity = dir.join("identity");
        let host_line = generate_identity(&host_key, "host").unwrap();
        let user_line = generate_identity(&identity, "user").unwrap();
        fs::write(dir.join("host_key.pub"), &host_line).unwrap();
        fs::write(dir.join("identity.pub"), &user_line).unwrap();
        fs::write(dir.join("authorized_keys"), user_line + "\n").unwrap();
        let more = more(dir);
        let user =
            String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
        if user.trim() == "root" {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        Self::run(dir, dir, (user.trim(), &host_line), &more)
    }

    /// Another one with the keys of `other`, as behind a balancer; its own files go to `dir`.
    pub(crate) fn twin(other: &Self, dir: &Path) -> Self {
        let keys = other.identity.parent().unwrap();
        let known = fs::read_to_string(&other.known_hosts).unwrap();
        let (_, host_line) = known.trim().split_once(' ').unwrap();
        Self::run(keys, dir, (&other.user, host_line), "")
    }

    fn run(keys: &Path, dir: &Path, (user, host_line): (&str, &str), more: &str) -> Self {
        // A port that is free may be another's in the next moment.
        let (port, child) = (0..10)
            .find_map(|_| Self::try_run(keys, dir, more))
            .expect("sshd finds a port");
        let known_hosts = dir.join("known_hosts");
        fs::write(&known_hosts, format!("[127.0.0.1]:{port} {host_line}\n")).unwrap();
        Self {
            port,
            identity: keys.join("identity"),
            known_hosts,
            user: user.to_owned(),
            child,
        }
    }

    /// None if somebody else took the port.
    fn try_run(keys: &Path, dir: &Path, more: &str) -> Option<(u16, Child)> {
        let port = free_port();
        let config = dir.join("sshd_config");
        let text = format!(
            "{more}ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             UsePAM no\nStrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nSubsystem sftp internal-sftp\n",
            keys.join("host_key").display(),
            keys.join("authorized_keys").display()
        );
        fs::write(&config, text).unwrap();
        let log = dir.join("sshd.log");
        let mut child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(&config)
            .stderr(Stdio::from(fs::File::create(&log).unwrap()))
            .spawn()
            .unwrap();
        for _ in 0..1_000 {
            let said = fs::read_to_string(&log).unwrap_or_default();
            if said.contains("Server listening") {
                return Some((port, child));
            }
            if child.try_wait().unwrap().is_some() {
                assert!(said.contains("in use"), "sshd: {said}");
                return None;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("sshd does not listen");
    }

    /// The directory `path` on it.
    pub(crate) fn target(&self, path: &Path) -> Target {
        Target {
            user: Some(self.user.clone()),
            host: "127.0.0.1".to_owned(),
            port: self.port,
            path: path.to_str().unwrap().to_owned(),
        }
    }

    /// Options that let a client in, and use nothing of whoever runs the test.
    pub(crate) fn options(&self) -> ConnectOptions {
        ConnectOptions {
            identities: vec![self.identity.clone()],
            default_identities: false,
            agent: false,
            known_hosts: vec![self.known_hosts.clone()],
            ..ConnectOptions::default()
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}
