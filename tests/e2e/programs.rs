//! Real work in a home that is being sent at the same time.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::machine::{Site, assert_same};

/// Runs a script of `sh` in `dir`; answers what it printed.
#[track_caller]
fn sh(dir: &Path, script: &str) -> String {
    let output = Command::new("sh")
        .args(["-euc", script])
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_AUTHOR_NAME", "me")
        .env("GIT_AUTHOR_EMAIL", "me@example.org")
        .env("GIT_COMMITTER_NAME", "me")
        .env("GIT_COMMITTER_EMAIL", "me@example.org")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

const GIT: &str = "
    git init -q repo
    cd repo
    for n in $(seq 60); do mkdir -p d$((n % 7)); seq $n > d$((n % 7))/f$n; done
    git add -A
    git commit -qm one
    git mv d1 e1
    echo more >> e1/f1
    git commit -qam two
    cd ..
    git clone -q repo clone
    git -C clone fsck --strict
    git -C clone gc -q
    git -C repo pull -q ../clone
    git -C repo status --porcelain";

const SQLITE: &str = "
    for mode in wal delete; do
        sqlite3 $mode.db \"pragma journal_mode=$mode; create table t(id integer primary key, data blob)\"
        for n in $(seq 10); do
            sqlite3 $mode.db \"insert into t(data) select randomblob(2000) from generate_series(1, 50)\"
        done
        sqlite3 $mode.db 'delete from t where id % 3 = 0; vacuum; pragma integrity_check; select count(*) from t'
    done";

const CARGO: &str = "
    mkdir -p tiny/src
    printf '[package]\\nname = \"tiny\"\\nversion = \"0.1.0\"\\nedition = \"2024\"\\n' > tiny/Cargo.toml
    printf 'fn main() { println!(\"it runs\") }\\n' > tiny/src/main.rs
    cd tiny
    CARGO_TARGET_DIR=target cargo run -q --offline
    CARGO_TARGET_DIR=target cargo build --offline 2>&1 | grep -c Compiling || true";

#[test]
fn repositories_databases_builds_and_archives_work_and_arrive() {
    let site = Site::new();
    let (a, b) = (site.machine("a"), site.machine("b"));
    a.mount();
    assert_eq!(sh(&a.home(), GIT), "");
    assert_eq!(sh(&a.home(), SQLITE), "wal\nok\n334\ndelete\nok\n334\n");
    assert_eq!(sh(&a.home(), CARGO), "it runs\n0\n");

    let sums = "find . -type f | LC_ALL=C sort | xargs sha256sum";
    fs::create_dir(a.disk("out")).unwrap();
    let tar = a.disk("repo.tar");
    sh(&a.home(), &format!("tar cf {} repo", tar.display()));
    sh(&a.disk("out"), &format!("tar xf {}", tar.display()));
    fs::create_dir(a.at("in")).unwrap();
    sh(&a.at("in"), &format!("tar xf {}", tar.display()));
    let original = sh(&a.at("repo"), sums);
    assert_eq!(sh(&a.disk("out/repo"), sums), original);
    assert_eq!(sh(&a.at("in/repo"), sums), original);
    a.umount();

    assert_eq!(sh(&site.home().join("repo"), sums), original);
    b.mount();
    b.reconcile();
    assert_eq!(
        sh(&b.at("repo"), "git fsck --strict; git status --porcelain"),
        ""
    );
    let integrity = "for mode in wal delete; do sqlite3 $mode.db 'pragma integrity_check'; done";
    assert_eq!(sh(&b.home(), integrity), "ok\nok\n");
    b.flush();
    assert_same(&site.home(), &b.home());
    b.umount();
    a.check();
    b.check();
}
