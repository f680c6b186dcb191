//! The units at work: computers that the machine's own systemd starts and shuts down, with logind and users' managers.

use super::*;

/// A unit of the user's own, which needs the home from begin to end.
const MINE: &str = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=cp %h/letter %h/copy\n\
    ExecStop=sleep 1\nExecStop=cp %h/letter %h/last\n";

/// The settings of the mount that the user makes.
const OTHER: &str = "SERVER=/home/server/other\nMOUNTPOINT=/home/ann/other\n";

fn booted_lab(more: &str) -> Lab {
    let lab = Lab::booted("");
    serve_locally(&lab, more);
    lab
}

fn put(lab: &Lab, name: &str, text: &str) {
    let file = lab.path("home/server").join(name);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, text).unwrap();
    lab.run(&["chown", "-R", "ann:ann", "/home/server"]);
}

/// A property of a unit.
fn show(lab: &Lab, unit: &str, property: &str) -> String {
    let value = lab.run(&["systemctl", "show", "--value", "--property", property, unit]);
    value.trim().to_owned()
}

/// When the keeper's service has ended by itself, all is on the server.
fn wait_until_kept_no_more(lab: &Lab) {
    eventually("the service ends", || {
        show(lab, "roamhome@54001", "ActiveState") == "inactive"
    });
    assert_eq!(show(lab, "roamhome@54001", "Result"), "success");
    assert!(!lab.path("var/lib/roamhome/.unsent/54001").exists());
    lab.wait_until_quiet(ANN);
}

#[test]
fn the_home_is_there_before_the_users_manager_and_until_it_has_ended() {
    let lab = booted_lab("");
    put(&lab, "ann/letter", "dear");
    put(&lab, "ann/.config/systemd/user/mine.service", MINE);
    put(&lab, "ann/.config/roamhome/other.mount", OTHER);
    let wants = lab.path("home/server/ann/.config/systemd/user/default.target.wants");
    fs::create_dir(&wants).unwrap();
    std::os::unix::fs::symlink("../mine.service", wants.join("mine.service")).unwrap();
    fs::create_dir(lab.path("home/server/ann/other")).unwrap();
    put(&lab, "other/theirs", "far");

    // The manager found its units in the home, and knows them without being told to look again.
    let session = lab.stay(ANN);
    eventually("the user's own unit has run", || {
        lab.path("home/server/ann/copy").exists()
    });
    let keeper = |property| show(&lab, "roamhome@54001", property);
    assert_eq!(keeper("ActiveState"), "active");
    assert_eq!(keeper("Type"), "notify");
    assert_eq!(keeper("WatchdogUSec"), "2min");
    let group = keeper("ControlGroup");
    assert!(group.starts_with("/system.slice/"), "{group}");
    let micros = |text: String| text.parse::<u64>().unwrap();
    let serves = micros(keeper("ActiveEnterTimestampMonotonic"));
    let manager = show(&lab, "user@54001", "ExecMainStartTimestampMonotonic");
    assert!(serves <= micros(manager), "the manager came first");
    eventually("the real logind lets the machine wait for the home", || {
        let list = lab.run(&["systemd-inhibit", "--list", "--no-legend", "--no-pager"]);
        list.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some("roamhome")
                && words.any(|word| word == "sleep")
                && line.contains("delay")
        })
    });

    let mount = "systemctl --user enable --now roamhome-mount@other && cat other/theirs && cp letter other/";
    lab.log_in(ANN, mount).assert(0, &["far"]);

    // All processes of all sessions are killed, and the manager is told to end.
    lab.run(&["loginctl", "terminate-user", "ann"]);
    session.log_out();
    wait_until_kept_no_more(&lab);
    for name in ["ann/last", "other/letter"] {
        let text = fs::read_to_string(lab.path("home/server").join(name)).unwrap();
        assert_eq!(text, "dear", "{name}");
    }
}

#[test]
fn a_machine_that_went_down_without_the_server_sends_what_is_left_when_it_starts() {
    let mut lab = booted_lab("logout_timeout = \"1s\"\n");
    lab.run(&["systemctl", "enable", "roamhome-resume.service"]);
    put(&lab, "ann/letter", "dear");
    lab.log_in(ANN, "cat letter").assert(0, &["dear"]);
    wait_until_kept_no_more(&lab);

    // Stopped by hand: the service sends what there is.
    let session = lab.stay(ANN);
    as_user(&lab, "echo stopped > /home/ann/stopped");
    lab.run(&["systemctl", "stop", "roamhome@54001"]);
    assert_eq!(lab.mounts(ANN), 0);
    let sent = fs::read_to_string(lab.path("home/server/ann/stopped")).unwrap();
    assert_eq!(sent, "stopped\n");
    session.log_out();

    let session = lab.stay(ANN);
    fs::rename(lab.path("home/server/ann"), lab.path("home/server/gone")).unwrap();
    as_user(
        &lab,
        "mkdir -m 700 /home/ann/dir && echo left > /home/ann/dir/left",
    );
    // With somebody logged in.
    lab.shut_down();
    drop(session);
    assert!(lab.path("var/lib/roamhome/.unsent/54001").exists());
    fs::rename(lab.path("home/server/gone"), lab.path("home/server/ann")).unwrap();
    assert!(!lab.path("home/server/ann/dir").exists());

    lab.reboot();
    wait_until_kept_no_more(&lab);
    let sent = fs::read_to_string(lab.path("home/server/ann/dir/left")).unwrap();
    assert_eq!(sent, "left\n");
}
