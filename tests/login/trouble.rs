//! What goes wrong while somebody logs in: nobody is locked out by it, and nothing is left over.

use super::*;

/// Runs `step` again and again while `victim` is killed at another moment each time.
fn kill_during(lab: &Lab, victim: &str, step: &str) {
    for moment in 0..12 {
        let wait = f64::from(moment) * 0.02;
        let script = format!("{step} & sleep {wait}; pkill -9 -f '{victim}'; wait $!; true");
        lab.run(&["bash", "-c", &script]);
    }
}

#[test]
fn steps_that_are_killed_at_any_moment_leave_nobody_out_and_nothing_mounted() {
    let lab = local_lab("");
    lab.log_in(ANN, "echo before > before").assert(0, &[]);
    lab.wait_until_quiet(ANN);
    let in_and_out = "su - ann -c 'echo x >> log'";
    for victim in [
        "^/usr/bin/roamhome login",
        "^/usr/bin/roamhome logout",
        "exe [k]eep",
    ] {
        kill_during(&lab, victim, in_and_out);
        lab.log_in(ANN, "cat before; echo whole > after")
            .assert(0, &["before"]);
        lab.wait_until_quiet(ANN);
        let sent = |name: &str| fs::read_to_string(lab.path("home/server/ann").join(name));
        assert_eq!(sent("after").unwrap(), "whole\n", "{victim}");
        let lines = sent("log").unwrap();
        assert!(lines.lines().all(|line| line == "x"), "{victim}: {lines}");
    }
    kill_during(&lab, "[-]-as-daemon", in_and_out);
    lab.log_in(ANN, "cat before").assert(0, &["before"]);
    lab.wait_until_quiet(ANN);
    as_user(&lab, "roamhome check --state /var/lib/roamhome/ann");
    nothing_of_root_is_in(&lab.path("var/lib/roamhome/ann"));
}

#[test]
fn a_server_with_another_key_gets_no_password_and_keeps_nobody_out() {
    let site = Site::new();
    fs::write(site.at("letter"), "dear").unwrap();
    let lab = site.lab("");
    let known = lab.path("etc/known_hosts");
    let right = fs::read_to_string(&known).unwrap();
    let other = roamhome::remote::generate_identity(&lab.path("etc/other"), "other").unwrap();
    let wrong = format!("[127.0.0.1]:{} {other}\n", site.proxy.port);

    fs::write(&known, &wrong).unwrap();
    let refused = at_door(&lab, ANN, PASSWORD, &IN_AND_OUT);
    assert_ne!(refused.status, 0);
    refused.assert(refused.status, &["has changed", "/etc/known_hosts:1"]);
    assert_eq!(site.server.attempts(), 0);
    fs::write(&known, right).unwrap();
    at_door(&lab, ANN, PASSWORD, &IN_AND_OUT).assert(0, &["all is on the server"]);
    lab.wait_until_quiet(ANN);

    // A home that is here comes up from what is here.
    fs::write(&known, &wrong).unwrap();
    lab.log_in(ANN, "ls").assert(0, &["letter"]);
    let logins = site.server.logins();
    let session = lab.stay(ANN);
    at_door(&lab, ANN, PASSWORD, &IN_AND_OUT).assert(0, &[]);
    eventually("status tells why", || {
        lab.run(&[ROAMHOME, "status", "/home/ann"])
            .contains("has changed")
    });
    session.log_out();
    assert_eq!(site.server.logins(), logins);
}

#[test]
fn a_full_disk_keeps_nobody_out_and_costs_nothing() {
    let lab = local_lab("");
    lab.run(&[
        "sh",
        "-c",
        "mkdir -p /var/lib/roamhome && mount -t tmpfs -o size=24m,mode=755 disk /var/lib/roamhome",
    ]);
    lab.log_in(ANN, "echo before > before").assert(0, &[]);
    lab.wait_until_quiet(ANN);
    let fill = "dd if=/dev/zero of=/var/lib/roamhome/fill bs=64k 2>/dev/null; dd if=/dev/zero of=/var/lib/roamhome/fill2 bs=1 count=70000 2>/dev/null; true";
    lab.run(&["sh", "-c", fill]);
    // Whoever comes is let in, with or without the home; what is written fails with its reason or is kept.
    let said = lab.log_in(
        ANN,
        "cat before; head -c 3000000 /dev/zero > big || echo refused",
    );
    assert_eq!(said.status, 0, "{said:?}\n{}", lab.logs());
    lab.run(&["rm", "/var/lib/roamhome/fill", "/var/lib/roamhome/fill2"]);
    lab.log_in(ANN, "cat before; echo after > after")
        .assert(0, &["before"]);
    lab.wait_until_quiet(ANN);
    let sent = fs::read_to_string(lab.path("home/server/ann/after"));
    assert_eq!(sent.unwrap(), "after\n");
    as_user(&lab, "roamhome check --state /var/lib/roamhome/ann");
}
