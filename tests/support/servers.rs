//! Other SFTP servers on loopback, for one test each: own keys, a free port, nothing of the machine's configuration.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use roamhome::remote::{ConnectOptions, Remote, Target, connect};
use tempfile::TempDir;

use super::sshd::Sshd;

/// A running server; killed when dropped.
pub(crate) struct Server {
    /// Where it listens on 127.0.0.1.
    pub(crate) port: u16,
    /// Who can log in.
    pub(crate) user: String,
    /// A private key that it lets in.
    pub(crate) identity: PathBuf,
    /// A file that knows its host key.
    pub(crate) known_hosts: PathBuf,
    /// The directory of this machine that it serves.
    pub(crate) root: PathBuf,
    /// What it calls that directory.
    pub(crate) calls_root: String,
    /// Ends it.
    _process: Box<dyn Send + Sync>,
    _dir: TempDir,
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have died on its own.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What a server is started with.
struct Setting {
    dir: TempDir,
    port: u16,
}

impl Setting {
    fn new(parent: &Path) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("rh")
            .tempdir_in(parent)
            .unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        // As all servers take them.
        for name in ["host_key", "identity"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "rsa", "-m", "PEM", "-N", "", "-f"]);
            assert!(
                keygen
                    .arg(dir.path().join(name))
                    .status()
                    .unwrap()
                    .success()
            );
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let key = fs::read_to_string(dir.path().join("host_key.pub")).unwrap();
        let line = format!("[127.0.0.1]:{port} {key}");
        fs::write(dir.path().join("known_hosts"), line).unwrap();
        Self { dir, port }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The server that `command` starts, once it listens.
    fn server(self, user: &str, calls_root: &str, command: &mut Command) -> Server {
        let log = fs::File::create(self.path("log")).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let process = Process(child);
        for _ in 0..1000 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                return Server {
                    port: self.port,
                    user: user.to_owned(),
                    identity: self.path("identity"),
                    known_hosts: self.path("known_hosts"),
                    root: self.path("root"),
                    calls_root: calls_root.to_owned(),
                    _process: Box::new(process),
                    _dir: self.dir,
                };
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        panic!("{command:?} does not listen: {log}");
    }
}

impl Server {
    /// OpenSSH, whose users see nothing but one directory.
    pub(crate) fn chroot() -> Self {
        // Nobody but root may be able to exchange the directory.
        let setting = Setting::new(Path::new("/run"));
        let root = setting.path("root");
        let keys = setting.path("sshd");
        fs::create_dir(&keys).unwrap();
        let sshd = Sshd::start_with(&keys, |_| {
            format!(
                "ForceCommand internal-sftp\nChrootDirectory {}\n",
                root.display()
            )
        });
        Self {
            port: sshd.port,
            user: sshd.user.clone(),
            identity: sshd.identity.clone(),
            known_hosts: sshd.known_hosts.clone(),
            root,
            calls_root: String::new(),
            _process: Box::new(sshd),
            _dir: setting.dir,
        }
    }

    /// ProFTPD with `mod_sftp`.
    pub(crate) fn proftpd() -> Self {
        Self::proftpd_with("")
    }

    /// The same, with more lines of configuration.
    pub(crate) fn proftpd_with(more: &str) -> Self {
        let setting = Setting::new(&std::env::temp_dir());
        let at = |name: &str| setting.path(name).display().to_string();
        let keys = Command::new("ssh-keygen")
            .args(["-e", "-f"])
            .arg(setting.path("identity.pub"))
            .output()
            .unwrap();
        fs::write(setting.path("authorized"), keys.stdout).unwrap();
        let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
        let line = format!(
            "ann:*:{}:{}::{}:/bin/sh\n",
            uid.as_raw(),
            gid.as_raw(),
            at("root")
        );
        fs::write(setting.path("passwd"), line).unwrap();
        fs::set_permissions(setting.path("passwd"), fs::Permissions::from_mode(0o600)).unwrap();
        let text = format!(
            "ServerName test\nServerType standalone\nDefaultServer on\nUseIPv6 off\nDefaultAddress 127.0.0.1\n\
             Port {port}\nUseReverseDNS off\nRequireValidShell off\nRootLogin on\nAuthOrder mod_auth_file.c\n\
             AuthUserFile {passwd}\nUser root\nGroup root\nUmask 000\nPidFile {pid}\nScoreboardFile {scoreboard}\n\
             DelayEngine off\nWtmpLog off\nSystemLog {log}\nModulePath /usr/lib/proftpd\n\
             LoadModule mod_sftp.c\nAllowOverwrite on\nAllowStoreRestart on\n<Limit SITE_CHMOD>\nAllowAll\n</Limit>\n\
             SFTPEngine on\nSFTPLog {sftp_log}\nSFTPHostKey {host_key}\n\
             SFTPAuthMethods publickey\nSFTPAuthorizedUserKeys file:{authorized}\n{more}\n",
            port = setting.port,
            passwd = at("passwd"),
            pid = at("pid"),
            scoreboard = at("scoreboard"),
            log = at("system.log"),
            sftp_log = at("sftp.log"),
            host_key = at("host_key"),
            authorized = at("authorized"),
        );
        let config = setting.path("proftpd.conf");
        fs::write(&config, text).unwrap();
        let root = at("root");
        let mut command = Command::new("/usr/sbin/proftpd");
        setting.server("ann", &root, command.args(["-n", "-q", "-c"]).arg(&config))
    }

    /// `rclone serve sftp`.
    pub(crate) fn rclone() -> Self {
        let setting = Setting::new(&std::env::temp_dir());
        let mut command = Command::new("rclone");
        command
            .args(["serve", "sftp", "--vfs-cache-mode", "full", "--addr"])
            .arg(format!("127.0.0.1:{}", setting.port))
            .args([
                "--dir-cache-time",
                "0s",
                "--vfs-write-back",
                "0s",
                "--config",
                "/dev/null",
            ])
            .arg("--cache-dir")
            .arg(setting.path("cache"))
            .arg("--key")
            .arg(setting.path("host_key"))
            .arg("--authorized-keys")
            .arg(setting.path("identity.pub"))
            .arg(setting.path("root"));
        setting.server("ann", "", &mut command)
    }

    /// Paramiko's server half over a directory.
    pub(crate) fn paramiko() -> Self {
        Self::python("paramiko_server.py", |_| String::new())
    }

    /// asyncssh's server half as it comes.
    pub(crate) fn asyncssh() -> Self {
        // Below another root it cannot read relative links.
        Self::python("asyncssh_server.py", |root| root.display().to_string())
    }

    fn python(script: &str, calls_root: impl FnOnce(&Path) -> String) -> Self {
        let setting = Setting::new(&std::env::temp_dir());
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support");
        // The distribution's, for which its packages are.
        let mut command = Command::new("/usr/bin/python3");
        command
            .arg(scripts.join(script))
            .arg(setting.port.to_string())
            .arg(setting.path("host_key"))
            .arg(setting.path("identity.pub"))
            .arg(setting.path("root"));
        let calls_root = calls_root(&setting.path("root"));
        setting.server("ann", &calls_root, &mut command)
    }

    /// The directory `name` in what it serves, as it calls it.
    pub(crate) fn calls(&self, name: &str) -> String {
        format!("{}/{name}", self.calls_root)
    }

    /// A connection to the directory `name`.
    pub(crate) async fn open(&self, name: &str) -> Remote {
        let target = Target {
            user: Some(self.user.clone()),
            host: "127.0.0.1".to_owned(),
            port: self.port,
            path: self.calls(name),
        };
        let options = ConnectOptions {
            identities: vec![self.identity.clone()],
            default_identities: false,
            agent: false,
            known_hosts: vec![self.known_hosts.clone()],
            silence: Duration::from_secs(10),
            ..ConnectOptions::default()
        };
        connect(&target, &options).await.unwrap()
    }
}
