//! What `make install` puts in place, and what the system makes of it.

use super::*;

#[test]
fn the_steps_come_after_the_password_was_right_and_before_the_users_systemd() {
    let lab = Lab::new("");
    for (file, steps) in [
        ("common-auth", ["pam_deny", "roamhome login", "pam_permit"]),
        (
            "common-session",
            ["pam_unix", "roamhome login", "pam_systemd"],
        ),
    ] {
        let text = fs::read_to_string(lab.path("etc/pam.d").join(file)).unwrap();
        let at = |what: &str| {
            let line = |line: &&str| !line.starts_with('#') && line.contains(what);
            let lines: Vec<_> = text.lines().collect();
            lines
                .iter()
                .rposition(line)
                .unwrap_or_else(|| panic!("{what}: {text}"))
        };
        let [before, ours, other] = steps.map(at);
        assert!(before < ours, "{text}");
        if file == "common-session" {
            assert!(ours < other, "{text}");
        }
    }
    lab.run(&["pam-auth-update", "--package", "--disable", "roamhome"]);
    let text = fs::read_to_string(lab.path("etc/pam.d/common-session")).unwrap();
    assert!(!text.contains("roamhome"), "{text}");
}

#[test]
fn systemd_understands_the_units() {
    let lab = Lab::new("");
    let units = [
        "roamhome@1000.service",
        "roamhome-resume.service",
        "user@1000.service",
    ];
    let said = lab.try_run(&[&["systemd-analyze", "verify"], &units[..]].concat());
    assert_eq!((said.status, said.stderr.as_str()), (0, ""), "{said:?}");
    let said = lab.try_run(&[
        "env",
        "XDG_RUNTIME_DIR=/run",
        "systemd-analyze",
        "verify",
        "--user",
        "roamhome-mount@x.service",
    ]);
    assert_eq!((said.status, said.stderr.as_str()), (0, ""), "{said:?}");
}

#[test]
fn the_configuration_that_is_installed_is_valid_and_changes_nothing() {
    let lab = Lab::new("");
    let installed = lab.path("etc/roamhome/config.toml");
    let mine = fs::read_to_string(&installed).unwrap();
    assert_eq!(mine, "");
    fs::remove_file(&installed).unwrap();
    let source = env!("CARGO_MANIFEST_DIR");
    lab.run(&[&format!("{source}/pam/install"), "", "/usr"]);
    let with = lab.run(&[ROAMHOME, "config"]);
    assert!(!with.contains("config.toml"), "{with}");
    // With every key taken in, all is as before, and from there.
    let text = fs::read_to_string(&installed).unwrap();
    let all: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            // Words of the manual begin with a blank, items of a list with some.
            Some(key) if !key.starts_with(' ') || key.starts_with("   ") => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    fs::write(&installed, all).unwrap();
    let from_file = lab.run(&[ROAMHOME, "config"]);
    assert!(!from_file.contains("# default"), "{from_file}");
    let values = |text: &str| -> Vec<String> {
        let value = |line: &str| line.rsplit_once('#').unwrap().0.trim_end().to_owned();
        text.lines().map(value).collect()
    };
    assert_eq!(values(&from_file), values(&with));
}
