//! Homes that root mounts for accounts: mount(8), umount(8), and automount.

use super::*;

const SERVER: &str = "/home/server/ann";

#[test]
fn mount_8_mounts_for_an_account_and_umount_8_sends_what_is_left() {
    let lab = local_lab("");
    for (kind, at) in [("roamhome", "/home/ann"), ("fuse.roamhome", "/home/ann/")] {
        let options = "noauto,nofail,_netdev,x-systemd.automount,setuid=ann";
        fs::create_dir_all(lab.path("home/ann")).unwrap();
        lab.run(&["mount", "-t", kind, "-o", options, SERVER, at]);
        assert_eq!(lab.mounts(ANN), 1);
        lab.expect_one_process(&["ann ", "--as-daemon", "--by-broker"]);
        as_user(
            &lab,
            &format!("echo {kind} > /home/ann/{kind}; echo {kind} >> /home/ann/both"),
        );
        // Root and others may look in, as far as modes let them.
        assert_eq!(
            lab.run(&["cat", &format!("/home/ann/{kind}")]),
            format!("{kind}\n")
        );
        let status = lab.run(&[ROAMHOME, "status", "/home/ann"]);
        assert!(status.contains(SERVER), "{status}");
        lab.run(&["umount", "/home/ann"]);
        lab.wait_until_quiet(ANN);
        assert!(lab.path("home/server/ann").join(kind).exists());
    }
    let both = fs::read_to_string(lab.path("home/server/ann/both")).unwrap();
    assert_eq!(both, "roamhome\nfuse.roamhome\n");
    nothing_of_root_is_in(&lab.path("var/lib/roamhome/ann"));
    // The user may unmount it, too.
    lab.run(&[
        "mount",
        "-t",
        "roamhome",
        "-o",
        "setuid=ann",
        SERVER,
        "/home/ann",
    ]);
    as_user(&lab, "roamhome umount /home/ann");
    lab.wait_until_quiet(ANN);
}

#[test]
fn nobody_is_mounted_for_who_is_no_person_or_does_not_exist() {
    let lab = local_lab("");
    fs::create_dir_all(lab.path("home/ann")).unwrap();
    for account in ["root", "nobody-there", "../ann", ""] {
        let options = format!("setuid={account}");
        let said = lab.try_run(&[
            "mount",
            "-t",
            "roamhome",
            "-o",
            &options,
            SERVER,
            "/home/ann",
        ]);
        said.assert(said.status, &["setuid=", "no such account"]);
        assert_ne!(said.status, 0);
    }
    let id = ["--reuid=54002", "--regid=54002", "--clear-groups"];
    let mount = [ROAMHOME, "mount", "-o", "setuid=ann", SERVER, "/home/ann"];
    let said = lab.try_run(&[&["setpriv"], &id[..], &mount].concat());
    said.assert(2, &["only root"]);
    assert_eq!(lab.mounts(ANN), 0);
}

#[test]
fn automount_mounts_homes_when_they_are_looked_into_also_without_the_server() {
    let lab = local_lab("");
    fs::create_dir(lab.path("home/auto")).unwrap();
    fs::write(
        lab.path("etc/auto.master"),
        "/home/auto /etc/auto.homes --timeout=300\n/home/program /etc/auto.roamhome --timeout=300\n",
    )
    .unwrap();
    fs::write(
        lab.path("etc/auto.homes"),
        "* -fstype=fuse.roamhome,setuid=& :/home/server/&\n",
    )
    .unwrap();
    fs::write(lab.path("home/server/ann/letter"), "dear").unwrap();
    // The kernel is told of its process group, which has to be one of that computer.
    let mut automount = lab.command("setsid");
    automount.args([
        "--wait",
        "automount",
        "--foreground",
        "--pid-file",
        "/run/automount.pid",
    ]);
    let log = lab.path("etc/automount.log");
    let said = fs::File::create(&log).unwrap();
    let mut automount = automount
        .arg("--verbose")
        .stdin(Stdio::null())
        .stderr(said)
        .spawn()
        .unwrap();
    eventually("automount watches", || {
        let mounts = lab.run(&["cat", "/proc/1/mountinfo"]);
        if let Some(ended) = automount.try_wait().unwrap() {
            panic!("{ended}: {}", fs::read_to_string(&log).unwrap());
        }
        ["/home/auto ", "/home/program "]
            .iter()
            .all(|at| mounts.contains(at))
    });
    let cat = |dir: &str| lab.run(&["cat", &format!("{dir}/ann/letter")]);
    assert_eq!(cat("/home/auto"), "dear");
    lab.run(&["umount", "/home/auto/ann"]);
    fs::rename(lab.path("home/server/ann"), lab.path("home/away")).unwrap();
    assert_eq!(cat("/home/auto"), "dear");
    lab.run(&["umount", "/home/auto/ann"]);
    // The program map asks the settings.
    assert_eq!(cat("/home/program"), "dear");
    let said = lab.try_run(&["ls", "/home/program/nobody-there"]);
    assert_ne!(said.status, 0);
    lab.run(&["umount", "/home/program/ann"]);
    lab.run(&["sh", "-c", "kill $(cat /run/automount.pid)"]);
    automount.wait().unwrap();
}
