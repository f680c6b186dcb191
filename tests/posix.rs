//! The home against the POSIX test suites that other file systems are tested with: `pjdfstest` for what each
//! system call means, `fsx` for what reads and writes of one file leave there. `make test` installs both.

use std::fmt::Debug;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::mounted::TestMount;

mod account;
mod devices;
mod files;
mod links;
mod names;
mod rights;
mod sharing;

/// Cases of pjdfstest that a home cannot or need not pass, with the reason. One of them that passes is an
/// error, too.
const EXPECTED_FAILURES: [(&str, &[&str]); 1] =
    [("a home holds no devices", devices::DEVICE_CASES)];

/// Cases that skip themselves: thirteen mount the home read-only, for which mount(8) wants our mount helper to
/// be installed, and of one the kernel does not know the limit (of hard links on any FUSE mount).
const SKIPPED: &str = "14 skipped";

const FSX_OPERATIONS: &str = "2000";

#[test]
fn every_system_call_does_what_posix_says() {
    let mount = TestMount::new();
    let config = mount.outside("config").join("pjdfstest.toml");
    let failures: Vec<_> = EXPECTED_FAILURES
        .iter()
        .flat_map(|(_, cases)| *cases)
        .collect();
    let text = format!(
        "[features]\nposix_fallocate = {{}}\nutimensat = {{}}\nutime_now = {{}}\nrename_ctime = {{}}\n\
         [settings]\nnaptime = 0.005\nexpected_failures = {failures:?}\n\
         [dummy_auth]\nentries = [[\"daemon\", \"daemon\"], [\"bin\", \"bin\"]]\n"
    );
    std::fs::write(&config, text).unwrap();
    let output = tool("pjdfstest")
        .arg("-c")
        .arg(&config)
        .arg("-p")
        .arg(mount.path())
        .arg("-s")
        .arg(mount.outside("other"))
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    expect_success(&output);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains(SKIPPED), "{told}");
}

#[test]
fn reads_see_what_writes_wrote_however_either_is_done() {
    let mount = TestMount::new();
    let config = mount.outside("config").join("fsx.toml");
    let text = "[weights]\nclose_open = 1\ninvalidate = 1\nfsync = 0.2\nfdatasync = 0.2\ntruncate = 5\n\
                posix_fallocate = 3\npunch_hole = 3\nsendfile = 5\nposix_fadvise = 1\ncopy_file_range = 5\n";
    std::fs::write(&config, text).unwrap();
    for seed in ["1", "2", "3"] {
        let output = tool("fsx")
            .args(["-N", FSX_OPERATIONS, "-S", seed, "-f"])
            .arg(&config)
            .arg("-P")
            .arg(mount.outside("artifacts"))
            .arg(mount.join("fsx"))
            .output()
            .unwrap();
        expect_success(&output);
    }
}

/// What `check` finds in a directory, which is the same in the home and in one of the disk.
#[track_caller]
fn both<T: Debug + PartialEq>(check: impl Fn(&Path) -> T) -> T {
    let mount = TestMount::new();
    let disk = mount.outside("disk");
    std::fs::set_permissions(&disk, PermissionsExt::from_mode(0o755)).unwrap();
    let expected = check(&disk);
    assert_eq!(check(&mount.path()), expected);
    expected
}

/// A tool that `make test` installs beside the build.
fn tool(name: &str) -> Command {
    let target = std::env::current_exe().unwrap();
    let installed: Option<PathBuf> = target
        .ancestors()
        .map(|dir| dir.join("tools/bin").join(name))
        .find(|path| Path::exists(path));
    let path = installed.unwrap_or_else(|| panic!("{name} is not installed: run `make test`"));
    Command::new(path)
}

fn expect_success(output: &Output) {
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
