//! Through a real sshd that asks PAM.

use super::*;

/// An sshd on a computer of the lab, whose password is asked for by a program.
pub(super) struct Door<'a> {
    lab: &'a Lab,
    pub(super) port: u16,
    ask: PathBuf,
}

impl<'a> Door<'a> {
    pub(super) fn open(lab: &'a Lab) -> Self {
        Self::open_with(lab, "")
    }

    /// With more lines of sshd_config.
    pub(super) fn open_with(lab: &'a Lab, more: &str) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let pam = fs::read(lab.path("etc/pam.d/door")).unwrap();
        fs::write(lab.path("etc/pam.d/sshd"), pam).unwrap();
        let key = lab.path("etc/door_key");
        roamhome::remote::generate_identity(&key, "door").unwrap();
        fs::write(
            lab.path("etc/door_config"),
            format!(
                "ListenAddress 127.0.0.1:{port}\nHostKey /etc/door_key\nPidFile none\nUsePAM yes\n\
                 PasswordAuthentication yes\nKbdInteractiveAuthentication no\n\
                 Subsystem sftp internal-sftp\n{more}"
            ),
        )
        .unwrap();
        lab.run(&[
            "/usr/sbin/sshd",
            "-E",
            "/etc/door_log",
            "-f",
            "/etc/door_config",
        ]);
        eventually("sshd listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        let ask = lab.path("etc/ask");
        fs::write(&ask, format!("#!/bin/sh\ncat <<'END'\n{PASSWORD}\nEND\n")).unwrap();
        fs::set_permissions(&ask, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        Self { lab, port, ask }
    }

    /// Its host key as `known_hosts` has it.
    pub(super) fn known(&self) -> String {
        let line = roamhome::remote::public_line(&self.lab.path("etc/door_key")).unwrap();
        format!("[127.0.0.1]:{} {line}\n", self.port)
    }

    /// Ann comes with the password.
    fn ssh(&self, commands: &str) -> Said {
        let said = self.try_ssh(&["-oPreferredAuthentications=password"], commands);
        let log = || fs::read_to_string(self.lab.path("etc/door_log")).unwrap();
        assert_eq!(said.status, 0, "{said:?}\n{}", self.lab.logs() + &log());
        said
    }

    /// Ann comes as `options` say, whatever comes of it.
    pub(super) fn try_ssh(&self, options: &[&str], commands: &str) -> Said {
        let mut ssh = Command::new("timeout");
        ssh.args(["60", "ssh", "-p", &self.port.to_string()])
            .args([
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
            ])
            .args(options)
            .args(["-o", "LogLevel=ERROR"])
            .args(["ann@127.0.0.1", commands])
            .env("SSH_ASKPASS", &self.ask)
            .env("SSH_ASKPASS_REQUIRE", "force")
            .stdin(Stdio::null());
        Said::new(&ssh.output().unwrap())
    }
}

#[test]
fn a_password_at_sshd_is_the_homes_password_too() {
    let site = Site::new();
    fs::write(site.at("letter"), "dear").unwrap();
    let lab = site.lab("");
    let door = Door::open(&lab);
    door.ssh("pwd; cat letter; echo answer > answer")
        .assert(0, &["/home/ann", "dear"]);
    lab.wait_until_quiet(ANN);
    assert_eq!(fs::read_to_string(site.at("answer")).unwrap(), "answer\n");
}
