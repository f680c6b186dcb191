//! Homes of accounts on a machine that sleeps.

use crate::support::logind::{Logind, bus_config};

use super::*;

/// Where programs look for the system's bus.
const BUS: &str = "/run/dbus/system_bus_socket";

#[test]
fn homes_of_accounts_hear_of_sleep_on_the_systems_bus_whatever_the_environment_says() {
    let lab = local_lab("");
    // The second one is too large to be fetched ahead.
    for (name, len) in [("far", 3), ("farther", 1_000_000)] {
        fs::write(lab.path("home/server/ann").join(name), vec![b'x'; len]).unwrap();
        lab.give(&lab.path("home/server/ann").join(name), ANN);
    }
    fs::write(lab.path("etc/bus.conf"), bus_config(Path::new(BUS))).unwrap();
    lab.run(&["mkdir", "/run/dbus"]);
    let mut bus = lab
        .command("dbus-daemon")
        .args(["--config-file=/etc/bus.conf", "--nofork", "--nopidfile"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let socket = lab.live_path(BUS);
    eventually("the bus listens", || socket.exists());
    let logind = Logind::start(&socket);

    let session = lab.stay(ANN);
    logind.wait_until_inhibited();
    logind.say(true);
    logind.wait_until_free();
    as_user(&lab, "! cat /home/ann/far && ls -l /home/ann/far");
    // Who logs in now has what is here.
    lab.log_in(ANN, "ls far; echo in").assert(0, &["far", "in"]);
    logind.say(false);
    logind.wait_until_inhibited();
    as_user(&lab, "cat /home/ann/far");
    session.log_out();
    lab.wait_until_quiet(ANN);
    logind.wait_until_free();

    let elsewhere = "DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nowhere";
    let server = "/home/server/ann";
    let mount = ["mount", "-t", "roamhome", "-o", "setuid=ann", server];
    lab.run(&[&["env", elsewhere], &mount[..], &["/home/ann"]].concat());
    logind.wait_until_inhibited();
    logind.say(true);
    logind.wait_until_free();
    as_user(&lab, "! cat /home/ann/farther > /dev/null");
    logind.say(false);
    logind.wait_until_inhibited();
    lab.run(&["umount", "/home/ann"]);
    lab.wait_until_quiet(ANN);
    bus.kill().unwrap();
    bus.wait().unwrap();
}
