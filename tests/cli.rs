//! The program as scripts see it: exit statuses, and messages that say what to do. Nothing here needs a server.

use std::{
    path::Path,
    process::{Command, Output},
};

/// Runs `roamhome` with its user's directories below `dir`.
fn roamhome(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_roamhome"))
        .args(args)
        .current_dir(dir)
        .env("HOME", dir)
        .env("XDG_CONFIG_HOME", dir.join("config"))
        .env("XDG_STATE_HOME", dir.join("state"))
        .env("XDG_RUNTIME_DIR", dir.join("run"))
        .env_remove("ROAMHOME_LOG")
        .output()
        .unwrap()
}

#[track_caller]
fn assert_fails(dir: &Path, args: &[&str], status: i32, says: &[&str]) {
    let output = roamhome(dir, args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{args:?}: {stderr}");
    assert!(stderr.starts_with("roamhome: "), "{stderr}");
    for part in says {
        assert!(stderr.contains(part), "{args:?}: {stderr:?} lacks {part:?}");
    }
}

#[test]
fn failures_have_their_status_and_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("m")).unwrap();
    std::fs::create_dir(at("full")).unwrap();
    std::fs::write(at("full/x"), "").unwrap();
    for (args, status, says) in [
        (&["mount", "nas", "m"][..], 2, &["[USER@]HOST:PATH"][..]),
        (&["mount", "nas:", "m", "-o", "bogus"], 2, &["bogus"]),
        (
            &["mount", "nas:", "m", "-o", "retenton=1d"],
            2,
            &["\"retention\""],
        ),
        (&["mount", "nas:", "m", "--config", "none"], 2, &["none"]),
        (&["mount", "nas:", "none"], 8, &["mkdir -p none"]),
        (&["mount", "nas:", "full"], 8, &["not empty"]),
        (
            &["mount", "nas:", "m", "--state", "m/s"],
            8,
            &["inside", "--state"],
        ),
        (&["mount", "nas:", "m", "--state", "full/x"], 9, &["full/x"]),
        (&["status", "m"], 13, &["no roamhome serves"]),
        (&["umount", "m"], 8, &["is not mounted"]),
        (&["check", "--state", "none"], 9, &["no such directory"]),
    ] {
        assert_fails(dir.path(), args, status, says);
    }
    assert!(!at("m/s").exists(), "a refused mount makes nothing");
}

#[test]
fn settings_are_shown_with_their_sources_and_mistakes_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config/roamhome/config.toml");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "channels = 2\n").unwrap();
    let output = roamhome(dir.path(), &["config"]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let line = stdout.lines().find(|line| line.starts_with("channels = 2"));
    assert!(
        line.unwrap().ends_with(&format!("# {}", file.display())),
        "{stdout}"
    );

    std::fs::write(&file, "chanels = 2\n").unwrap();
    let path = file.display().to_string();
    assert_fails(
        dir.path(),
        &["config"],
        2,
        &[&path, "\"chanels\"", "\"channels\""],
    );
}
