//! The Debian package on a computer with a database of packages of its own: installed, upgraded and taken away while homes
//! are mounted.

use super::*;

/// A computer and packages for it.
struct Packaged {
    lab: Lab,
}

impl Packaged {
    fn new() -> Self {
        let lab = Lab::without_roamhome();
        Self { lab }
    }

    /// Packs the program that is tested, and installs it.
    #[track_caller]
    fn install(&self, version: &str) -> String {
        let dir = self.lab.path("home/packages");
        fs::create_dir_all(&dir).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("pam/packages/deb");
        let packed = Command::new(script)
            .args([Path::new(env!("CARGO_BIN_EXE_roamhome")), &dir])
            .arg(version)
            .env("DPKG_DEB_COMPRESSOR_TYPE", "gzip")
            .env("DPKG_DEB_COMPRESSOR_LEVEL", "1")
            .output()
            .unwrap();
        let said = Said::new(&packed);
        assert_eq!(said.status, 0, "{said:?}");
        let files = fs::read_dir(&dir).unwrap().map(|file| file.unwrap());
        let names = files.map(|file| file.file_name().into_string().unwrap());
        let prefix = format!("roamhome_{version}_");
        let name = names.into_iter().find(|name| name.starts_with(&prefix));
        self.dpkg(&["--install", &format!("/home/packages/{}", name.unwrap())])
    }

    #[track_caller]
    fn dpkg(&self, words: &[&str]) -> String {
        let dpkg = [
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "dpkg",
            "--force-unsafe-io",
        ];
        self.lab.run(&[&dpkg, words].concat())
    }

    /// What an administrator does after that.
    fn set_up(&self) {
        serve_locally(&self.lab, "logout_timeout = \"1s\"\n");
        self.lab.run(&["pam-auth-update", "--enable", "roamhome"]);
    }

    /// Whether PAM's files have the steps.
    fn is_enabled(&self) -> bool {
        let has = |file: &str| {
            let text = fs::read_to_string(self.lab.path("etc/pam.d").join(file)).unwrap();
            text.contains("roamhome")
        };
        let [auth, session] = ["common-auth", "common-session"].map(has);
        assert_eq!(auth, session);
        auth
    }

    /// What holds content that only this machine has.
    fn unsent(&self) -> String {
        let dir = self.lab.path("var/lib/roamhome/ann/unsent");
        let found = Command::new("find").arg(dir).args(["-type", "f"]).output();
        String::from_utf8(found.unwrap().stdout).unwrap()
    }
}

#[test]
fn a_package_enables_nothing_and_its_upgrade_leaves_mounted_homes_to_those_who_serve_them() {
    let machine = Packaged::new();
    let lab = &machine.lab;
    let said = machine.install("0.1.0");
    assert!(said.contains("pam-auth-update --enable"), "{said}");
    assert!(!machine.is_enabled());
    let wants = "etc/systemd/system/multi-user.target.wants/roamhome-resume.service";
    assert!(lab.path(wants).is_symlink());
    lab.log_in(ANN, "pwd").assert(0, &[]);
    assert_eq!(lab.processes(&["/proc/self/exe"]), Vec::<String>::new());

    machine.set_up();
    let config = fs::read_to_string(lab.path("etc/roamhome/config.toml")).unwrap();
    let said = at_door(lab, ANN, PASSWORD, &IN_AND_OUT);
    said.assert(0, &["all is on the server"]);
    lab.wait_until_quiet(ANN);
    let session = lab.stay(ANN);
    as_user(lab, "echo before > /home/ann/before");
    let pids = || lab.pids(&["/proc/self/exe"]);
    lab.expect_one_process(&["--as-daemon"]);
    let (daemon, before) = (lab.pids(&["--as-daemon"]), pids());

    machine.install("0.1.1");
    assert_eq!(
        lab.run(&["dpkg-query", "-W", "roamhome"]).trim(),
        "roamhome\t0.1.1"
    );
    assert_eq!((pids(), lab.mounts(ANN)), (before, 1));
    assert!(machine.is_enabled());
    let kept = fs::read_to_string(lab.path("etc/roamhome/config.toml")).unwrap();
    assert_eq!(kept, config);
    // What is installed now gets on with what runs, and a daemon that dies comes back as it was.
    let status = lab.run(&[ROAMHOME, "status", "/home/ann"]);
    assert!(status.contains("/home/server/ann"), "{status}");
    lab.log_in(ANN, "cat before; echo after > after")
        .assert(0, &["before"]);
    assert_eq!(
        (lab.pids(&["--as-daemon"]), lab.mounts(ANN)),
        (daemon.clone(), 1)
    );
    lab.run(&["kill", "-9", &daemon[0]]);
    eventually("another daemon serves", || {
        lab.try_run(&["cat", "/home/ann/after"]).stdout == "after\n"
    });
    session.log_out();
    lab.wait_until_quiet(ANN);
    assert!(lab.path("home/server/ann/after").exists());
    // The next one is the new program's.
    lab.log_in(ANN, "cat after").assert(0, &["after"]);
    lab.wait_until_quiet(ANN);
}

#[test]
fn it_is_not_removed_while_a_file_of_pams_needs_it() {
    let machine = Packaged::new();
    let lab = &machine.lab;
    machine.install("0.1.0");
    machine.set_up();
    let door = lab.path("etc/pam.d/door");
    let text = fs::read_to_string(&door).unwrap();
    let step = "session required pam_exec.so type=open_session /usr/bin/roamhome login\n";
    fs::write(&door, format!("{text}{step}")).unwrap();
    let said = lab.try_run(&["dpkg", "--remove", "roamhome"]);
    said.assert(1, &["/etc/pam.d/door", "by hand"]);
    at_door(lab, ANN, PASSWORD, &IN_AND_OUT).assert(0, &[]);
    lab.wait_until_quiet(ANN);
    fs::write(&door, format!("{text}#{step}")).unwrap();
    machine.dpkg(&["--remove", "roamhome"]);
    at_door(lab, ANN, PASSWORD, &IN_AND_OUT).assert(0, &[]);
}

#[test]
fn a_removal_leaves_homes_mounted_and_a_purge_leaves_what_is_unsent() {
    let machine = Packaged::new();
    let lab = &machine.lab;
    machine.install("0.1.0");
    machine.set_up();
    lab.log_in(ANN, "true").assert(0, &[]);
    lab.wait_until_quiet(ANN);
    // The server's disk is away.
    fs::rename(lab.path("home/server"), lab.path("home/away")).unwrap();
    let session = lab.stay(ANN);
    as_user(lab, "echo left > /home/ann/left; sync /home/ann/left");
    let pids = lab.pids(&["/proc/self/exe"]);

    let said = machine.dpkg(&["--remove", "roamhome"]);
    assert!(
        said.contains("stay mounted") && said.contains("/home/ann"),
        "{said}"
    );
    assert!(!machine.is_enabled());
    assert!(!lab.path("usr/bin/roamhome").exists());
    as_user(lab, "cat /home/ann/left; echo more > /home/ann/more");
    assert_eq!(
        (lab.pids(&["/proc/self/exe"]), lab.mounts(ANN)),
        (pids.clone(), 1)
    );
    session.log_out();
    lab.log_in(ANN, "cat left").assert(0, &["left"]);

    let said = machine.dpkg(&["--purge", "roamhome"]);
    let stays = "/var/lib/roamhome/ann stays: it holds a home's replica, which may have files that are not on the server";
    assert!(
        said.contains(stays) && said.contains("roamhome rescue"),
        "{said}"
    );
    assert!(!lab.path("etc/roamhome").exists());
    for pid in &pids {
        lab.try_run(&["kill", "-9", pid]);
    }
    assert_eq!(machine.unsent().lines().count(), 2, "{}", machine.unsent());

    // With the package and the server back, it is sent.
    fs::rename(lab.path("home/away"), lab.path("home/server")).unwrap();
    machine.install("0.1.1");
    machine.set_up();
    lab.log_in(ANN, "cat left more").assert(0, &["left\nmore"]);
    lab.wait_until_quiet(ANN);
    assert!(lab.path("home/server/ann/more").exists());
    fs::create_dir_all(lab.path("var/lib/roamhome/bob/unsent")).unwrap();
    let said = machine.dpkg(&["--purge", "roamhome"]);
    assert!(
        said.contains("ann stays: it holds a home's replica."),
        "{said}"
    );
    assert!(!lab.path("var/lib/roamhome/bob").exists());
    fs::remove_dir_all(lab.path("var/lib/roamhome/ann")).unwrap();
    machine.install("0.1.1");
    let said = machine.dpkg(&["--purge", "roamhome"]);
    assert!(!said.contains("stay"), "{said}");
    assert!(!lab.path("var/lib/roamhome").exists());
}
