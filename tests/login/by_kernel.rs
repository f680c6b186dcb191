//! Homes of accounts, whose daemons may nothing, and whose files the kernel reads and writes by itself all the same.

use super::*;

/// What is opened before the daemon stands still is read and written while it does.
const SCRIPT: &str = r#"
set -e
cd /home/ann
head -c 33554432 /dev/urandom > big
cp big copy
roamhome flush > /dev/null
exec 3< big 4<> copy
printf 1 >&4
cd /
daemon=$(pgrep -u ann -f -- '--as-daemo[n]')
kill -STOP "$daemon"
timeout 20 md5sum <&3 || echo late
timeout 20 sh -c 'printf 23 >&4' || echo late
kill -CONT "$daemon"
exec 3<&- 4<&-
md5sum < /home/ann/big
head -c 3 /home/ann/copy
"#;

#[test]
fn the_broker_lets_the_kernel_read_and_write_an_accounts_files_without_its_daemon() {
    let lab = local_lab("");
    fs::create_dir_all(lab.path("home/ann")).unwrap();
    let mount = [
        "mount",
        "-t",
        "roamhome",
        "-o",
        "setuid=ann",
        "/home/server/ann",
        "/home/ann",
    ];
    lab.run(&mount);
    let id = ["--reuid=54001", "--regid=54001", "--clear-groups"];
    let said = lab.run(&[&["setpriv"], &id[..], &["sh", "-c", SCRIPT]].concat());
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert_eq!((lines[0], lines[2]), (lines[1], "123"));
    as_user(&lab, "roamhome umount /home/ann");
    lab.wait_until_quiet(ANN);
    let at = |name: &str| fs::read(lab.path("home/server/ann").join(name)).unwrap();
    let (mut big, copy) = (at("big"), at("copy"));
    big[..3].copy_from_slice(b"123");
    assert!(
        big.len() == 33_554_432 && big == copy,
        "what was written is sent"
    );
}
