//! Two machines and a server, each with a network of its own, and cables between them.

use super::*;

/// A server whose sshd asks PAM, on its own network. Its homes are in `/home/USER/roam`.
struct Nas {
    lab: Lab,
    host_key: String,
}

impl Nas {
    fn start() -> Self {
        let lab = Lab::on_its_own_network("");
        for dir in ["home/ann", "home/ann/roam"] {
            fs::create_dir_all(lab.path(dir)).unwrap();
            lab.give(&lab.path(dir), ANN);
        }
        let host_key =
            roamhome::remote::generate_identity(&lab.path("etc/nas_key"), "nas").unwrap();
        let pam = fs::read(lab.path("etc/pam.d/door")).unwrap();
        fs::write(lab.path("etc/pam.d/sshd"), pam).unwrap();
        fs::write(
            lab.path("etc/nas_config"),
            "Port 22\nHostKey /etc/nas_key\nPidFile none\nUsePAM yes\nPasswordAuthentication yes\n\
             KbdInteractiveAuthentication no\nSubsystem sftp internal-sftp\n",
        )
        .unwrap();
        lab.run(&[
            "/usr/sbin/sshd",
            "-E",
            "/etc/nas_log",
            "-f",
            "/etc/nas_config",
        ]);
        Self { lab, host_key }
    }

    /// A machine on the cable of this number, to which Ann was let in by her password.
    fn client(&self, n: u8) -> Lab {
        let lab = Lab::on_its_own_network(&format!(
            "server = \"{{user}}@10.77.{n}.1:roam\"\nquiet_period = \"100ms\"\nlogout_timeout = \"5s\"\n\
             log = \"roamhome=debug,info\"\n"
        ));
        self.lab.connect(&lab, n);
        let known = format!("10.77.{n}.1 {}\n", self.host_key);
        fs::write(lab.path("etc/ssh/ssh_known_hosts"), known).unwrap();
        at_door(&lab, ANN, PASSWORD, &IN_AND_OUT).assert(0, &["all is on the server"]);
        lab
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.lab.path("home/ann/roam").join(name)).unwrap_or_default()
    }
}

#[test]
fn two_machines_lose_their_cables_and_find_back_by_themselves() {
    let nas = Nas::start();
    let machines = [1, 2].map(|n| nas.client(n));
    let sessions = machines.each_ref().map(|lab| lab.stay(ANN));
    for lab in &machines {
        at_door(lab, ANN, PASSWORD, &IN_AND_OUT[..2]).assert(0, &[]);
    }
    as_user(&machines[0], "echo first > /home/ann/letter");
    eventually("it is sent", || nas.text("letter") == "first\n");
    as_user(
        &machines[1],
        "roamhome reconcile /home/ann; cat /home/ann/letter",
    );

    let cables = |state: &str| {
        for lab in &machines {
            lab.run(&["ip", "link", "set", "eth0", state]);
        }
    };
    let link = |lab: &Lab| lab.run(&[ROAMHOME, "status", "/home/ann"]);
    cables("down");
    as_user(
        &machines[0],
        "echo from one > /home/ann/letter; echo 1 > /home/ann/one",
    );
    as_user(
        &machines[1],
        "echo from two, later > /home/ann/letter; touch -d '+5 min' /home/ann/letter; echo 2 > /home/ann/two",
    );
    for lab in &machines {
        eventually("the lost cable is noticed", || {
            link(lab).contains("offline")
        });
    }
    // Nobody says that they are there again but the kernel; a back-off would have grown by now.
    cables("up");
    for lab in &machines {
        eventually("the cable is noticed", || link(lab).contains("ms away"));
    }
    eventually("all is there", || {
        nas.text("one") == "1\n"
            && nas.text("two") == "2\n"
            && nas.text("letter") == "from two, later\n"
    });
    let kept = |lab: &Lab| {
        as_user(lab, "roamhome reconcile /home/ann");
        lab.run(&[ROAMHOME, "backups", "list", "--mount", "/home/ann"])
    };
    eventually("the other letter is kept", || {
        machines.iter().any(|lab| kept(lab).contains("letter"))
    });
    for session in sessions {
        session.log_out();
    }
    for lab in &machines {
        lab.wait_until_quiet(ANN);
    }
}
