//! A machine that is set up by the command that does so.

use super::*;

/// A computer on which roamhome is installed and does nothing yet.
fn bare_lab() -> Lab {
    let lab = Lab::new("# by hand\nquiet_period = \"100ms\"\n");
    lab.run(&["pam-auth-update", "--disable", "roamhome"]);
    lab
}

fn config(lab: &Lab) -> String {
    fs::read_to_string(lab.path("etc/roamhome/config.toml")).unwrap()
}

#[test]
fn a_machine_is_set_up_by_flags_and_nothing_happens_unasked() {
    let site = Site::new();
    fs::write(site.at("letter"), "dear").unwrap();
    let lab = bare_lab();
    let before = config(&lab);
    let server = format!("ssh://{{user}}@127.0.0.1:{}/", site.proxy.port);
    let setup =
        |more: &[&str]| lab.try_run(&[&[ROAMHOME, "setup", "--server", &server], more].concat());

    // A server that nobody knows, and one that is not there, change nothing.
    setup(&[]).assert(5, &["127.0.0.1 is unknown", "--trust-new-host"]);
    site.proxy.down();
    setup(&["--trust-new-host"]).assert(4, &["cannot be reached"]);
    site.proxy.up();
    setup(&["--trust-new-host", "--dry-run"])
        .assert(0, &["answers, and is known", "roamhome login"]);
    for wrong in ["ann@nas:homes/ann", "no home", ""] {
        let said = lab.try_run(&[ROAMHOME, "setup", "--server", wrong]);
        assert_eq!(said.status, 2, "{wrong}: {said:?}");
    }
    assert_eq!(config(&lab), before);

    let said = setup(&["--trust-new-host", "--on-logout", "purge"]);
    said.assert(
        0,
        &[
            "on_logout",
            "PAM is not changed",
            "pam_exec.so type=open_session",
        ],
    );
    assert_eq!(
        config(&lab),
        format!("{before}server = \"{server}\"\non_logout = \"purge\"\n")
    );
    at_door(&lab, ANN, PASSWORD, &IN_AND_OUT);
    assert_eq!(site.server.attempts(), 0);

    // Once more, which changes PAM and nothing else; ann's daemon knows the server.
    let said = lab.try_run(&[ROAMHOME, "setup", "--pam"]);
    said.assert(0, &["stays as it is"]);
    at_door(&lab, ANN, PASSWORD, &IN_AND_OUT).assert(0, &["all is on the server"]);
    assert_eq!(site.server.logins(), 1, "{}", lab.logs());
    lab.wait_until_quiet(ANN);
    lab.try_run(&[ROAMHOME, "setup", "--pam"])
        .assert(0, &["PAM has the steps already"]);
}

#[test]
fn a_machine_is_set_up_by_answers() {
    let lab = bare_lab();
    fs::create_dir_all(lab.path("home/server/ann")).unwrap();
    lab.give(&lab.path("home/server/ann"), ANN);
    let answers = [
        "/home/server/{user}",
        "nobody",
        "local",
        "",
        "ann",
        "y",
        "n",
    ]
    .join("\\n");
    let typed = format!("printf '{answers}\\n' | script -qec '{ROAMHOME} setup' /dev/null");
    let said = lab.try_run(&["sh", "-c", &typed]);
    said.assert(
        0,
        &[
            "one of: refuse, local",
            "was let in for ann",
            "PAM is not changed",
        ],
    );
    assert!(config(&lab).ends_with("server = \"/home/server/{user}\"\nfirst_login = \"local\"\n"));
    let said = lab.try_run(&[
        "setpriv",
        "--reuid=54001",
        "--clear-groups",
        ROAMHOME,
        "setup",
    ]);
    said.assert(2, &["only root"]);
}
