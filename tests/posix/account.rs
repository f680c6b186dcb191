//! The same for somebody without privileges, who mounts by `fusermount3`.

use std::fs;
use std::os::unix::fs::chown;

use super::{expect_success, tool};
use crate::support::machine::needs_root;

/// An account that every machine has, which `fusermount3` asks for: `daemon`.
const ACCOUNT: u32 = 1;

/// In namespaces of its own: everything ends with it, and the device may be opened there by everybody, as udev has it on
/// most machines. `$1` is a directory of the account's, `$2` the program, `$3` the suite.
const SCRIPT: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs device "$1/device"
mknod "$1/device/fuse" c 10 229
chmod 666 "$1/device/fuse"
mount --bind "$1/device/fuse" /dev/fuse
mount -t tmpfs -o mode=777 other "$1/other"
cd "$1"
as_account() {
    setpriv --reuid 1 --regid 1 --clear-groups --inh-caps=-all -- \
        env HOME="$PWD" XDG_CONFIG_HOME="$PWD" XDG_RUNTIME_DIR="$PWD" NO_COLOR=1 "$@"
}
as_account "$2" mount "$PWD/server" "$PWD/home" --state "$PWD/state"
as_account "$3" -c pjdfstest.toml -p home -s other
as_account "$2" umount home
"#;

const CONFIG: &str = "[features]\nposix_fallocate = {}\nutimensat = {}\nutime_now = {}\nrename_ctime = {}\n\
    [settings]\nnaptime = 0.005\n[dummy_auth]\nentries = [[\"daemon\", \"daemon\"], [\"bin\", \"bin\"]]\n";

#[test]
fn every_system_call_does_what_posix_says_to_a_user_without_privileges() {
    needs_root("it becomes somebody else");
    let dir = tempfile::tempdir().unwrap();
    for sub in ["", "server", "home", "device", "other"] {
        let sub = dir.path().join(sub);
        fs::create_dir_all(&sub).unwrap();
        chown(&sub, Some(ACCOUNT), Some(ACCOUNT)).unwrap();
    }
    fs::write(dir.path().join("pjdfstest.toml"), CONFIG).unwrap();
    // Wherever they are built, the account has to reach them.
    let [program, suite] = ["roamhome", "pjdfstest"].map(|name| dir.path().join(name));
    fs::copy(env!("CARGO_BIN_EXE_roamhome"), &program).unwrap();
    fs::copy(tool("pjdfstest").get_program(), &suite).unwrap();
    let output = std::process::Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["sh", "-c", SCRIPT, "sh"])
        .args([dir.path(), &program, &suite])
        .output()
        .unwrap();
    expect_success(&output);
    let told = String::from_utf8_lossy(&output.stdout);
    // What it skips takes privileges.
    assert!(
        told.contains("Summary: 0 failed, 144 skipped, 254 passed"),
        "{told}"
    );
}
