//! Databases that a program writes to without pause, while they are sent again and again: what stands on the
//! server between two passes is a database.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, UNIX_EPOCH};

use rusqlite::Connection;

use crate::support::machine::{Machine, Site, eventually};

/// Tells the writing process which database is its own, and how it keeps it.
const DATABASE: &str = "TEST_DATABASE";
const MODE: &str = "TEST_DATABASE_MODE";

/// What all accounts hold together.
const TOTAL: i64 = 1_000_000;
const ACCOUNTS: i64 = 200;

/// Nothing is sent unless the test says so.
const SETTINGS: &str = "quiet_period = \"1h\"\nmax_dirty_age = \"1h\"\nreconcile_interval = \"1h\"\n\
    fetch_timeout = \"20s\"\nlog = \"roamhome=debug,info\"\n";

/// How many transactions it makes, if it ends by itself.
const TRANSACTIONS: &str = "TEST_DATABASE_TRANSACTIONS";

/// Moves money between accounts until it is killed, or ends without a word to SQLite. Rows are wide, so that a transaction changes many pages, and
/// are removed and made again, so that the trees change their shape.
fn write(path: &Path, mode: &str, transactions: i64) {
    let mut db = Connection::open(path).unwrap();
    let set: String = db
        .query_row(&format!("PRAGMA journal_mode={mode}"), [], |row| row.get(0))
        .unwrap();
    assert_eq!(set, mode);
    db.execute_batch(
        "PRAGMA wal_autocheckpoint=40; PRAGMA cache_size=10;
         CREATE TABLE IF NOT EXISTS accounts (id INTEGER PRIMARY KEY, amount INTEGER, note BLOB);
         CREATE INDEX IF NOT EXISTS by_note ON accounts (note);
         CREATE TABLE IF NOT EXISTS moves (n INTEGER PRIMARY KEY);",
    )
    .unwrap();
    let setup = db.transaction().unwrap();
    for id in 0..ACCOUNTS {
        let row = (id, TOTAL / ACCOUNTS);
        setup
            .execute(
                "INSERT OR IGNORE INTO accounts VALUES (?, ?, randomblob(900))",
                row,
            )
            .unwrap();
    }
    setup
        .execute("INSERT OR IGNORE INTO moves VALUES (0)", [])
        .unwrap();
    let last: i64 = setup
        .query_row("SELECT max(n) FROM moves", [], |row| row.get(0))
        .unwrap();
    setup.commit().unwrap();
    for n in (last + 1..).take(transactions as usize) {
        let tx = db.transaction().unwrap();
        for step in 0..10 {
            let (from, to) = ((n * 7 + step) % ACCOUNTS, (n * 13 + step * 5) % ACCOUNTS);
            tx.execute(
                "UPDATE accounts SET amount = amount - 3 WHERE id = ?",
                [from],
            )
            .unwrap();
            tx.execute(
                "UPDATE accounts SET amount = amount + 3, note = randomblob(900) WHERE id = ?",
                [to],
            )
            .unwrap();
        }
        tx.execute("INSERT INTO moves VALUES (?)", [n]).unwrap();
        tx.execute("DELETE FROM moves WHERE n < ?", [n - 50])
            .unwrap();
        tx.commit().unwrap();
    }
    std::process::exit(0);
}

/// In a process of its own: SQLite holds a lock of the whole process while it opens a file.
fn writer(test: &str, path: &Path, mode: &str, transactions: i64) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env(DATABASE, path)
        .env(MODE, mode)
        .env(TRANSACTIONS, transactions.to_string());
    command
}

/// Whether this is the process that writes, which does not return.
fn write_if_told() {
    if let Some(path) = std::env::var_os(DATABASE) {
        let transactions = std::env::var(TRANSACTIONS).unwrap().parse().unwrap();
        write(
            Path::new(&path),
            &std::env::var(MODE).unwrap(),
            transactions,
        );
    }
}

/// Ends the writer, however the test ends.
struct Writer(Child);

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Copies a database with what stands beside it, and says how far its writer had come. It is sound.
#[track_caller]
fn examine(from: &Path, to: &Path) -> i64 {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let is_memory = entry.file_name() == "bank-shm";
        if entry.file_type().unwrap().is_file() && !is_memory {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    let names: Vec<_> = fs::read_dir(to)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    let db = Connection::open(to.join("bank")).unwrap();
    let ask = |question: &str| {
        let answer = db.query_row(question, [], |row| row.get::<_, rusqlite::types::Value>(0));
        answer.unwrap_or_else(|error| panic!("{names:?}: {question}: {error}"))
    };
    assert_eq!(
        ask("PRAGMA integrity_check"),
        "ok".to_owned().into(),
        "{names:?}"
    );
    assert_eq!(
        ask("SELECT sum(amount) FROM accounts"),
        TOTAL.into(),
        "{names:?}"
    );
    match ask("SELECT max(n) FROM moves") {
        rusqlite::types::Value::Integer(n) => n,
        other => panic!("{other:?}"),
    }
}

/// A database in this mode is sound on the server after each of many passes, while it is written to.
fn stays_sound(test: &str, mode: &str) {
    write_if_told();
    let site = Site::new();
    let machine = site.machine("a");
    fs::write(machine.disk("config.toml"), SETTINGS).unwrap();
    machine.mount();
    let mut writer = writer(test, &machine.at("bank"), mode, i64::MAX);
    let mut writer = Writer(writer.spawn().unwrap());
    eventually("the database is there", || {
        fs::metadata(machine.at("bank")).is_ok_and(|meta| meta.len() > 200_000)
    });
    let mut seen = Vec::new();
    for round in 0..25 {
        machine.flush();
        seen.push(examine(&site.home(), &site.path(&format!("copy-{round}"))));
        assert_eq!(writer.0.try_wait().unwrap(), None, "the writer has ended");
    }
    assert!(seen.is_sorted(), "{seen:?}");
    seen.dedup();
    assert!(seen.len() > 15, "it was written to meanwhile: {seen:?}");
    assert!(!site.home().join("bank-shm").exists());
    drop(writer);
    machine.flush();
    examine(&site.home(), &site.path("last"));
    machine.umount();
    machine.check();
}

#[test]
fn a_database_with_a_log_is_sound_on_the_server_while_it_is_written_to() {
    stays_sound(
        "e2e::databases::a_database_with_a_log_is_sound_on_the_server_while_it_is_written_to",
        "wal",
    );
}

#[test]
fn a_database_with_a_journal_is_sound_on_the_server_while_it_is_written_to() {
    stays_sound(
        "e2e::databases::a_database_with_a_journal_is_sound_on_the_server_while_it_is_written_to",
        "delete",
    );
}

/// Every content that is kept on the server.
fn kept(dir: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => kept(&path),
            false => vec![fs::read(&path).unwrap()],
        })
        .collect()
}

#[test]
fn a_database_that_two_machines_changed_offline_is_that_of_one_of_them() {
    let test =
        "e2e::databases::a_database_that_two_machines_changed_offline_is_that_of_one_of_them";
    write_if_told();
    let site = Site::new();
    let (a, b) = (site.machine("a"), site.machine("b"));
    let work = |machine: &Machine, transactions| {
        let mut writer = writer(test, &machine.at("bank"), "wal", transactions);
        assert!(writer.status().unwrap().success());
    };
    for machine in [&a, &b] {
        fs::write(machine.disk("config.toml"), SETTINGS).unwrap();
        machine.mount();
    }
    work(&a, 5);
    a.flush();
    b.reconcile();
    assert_eq!(examine(&b.home(), &site.path("before")), 5);
    a.ask("offline");
    b.ask("offline");
    work(&a, 20);
    work(&b, 30);
    let names = ["bank", "bank-wal"];
    for name in names {
        // It leaves no doubt which of them is newer.
        let file = fs::File::options().write(true).open(a.at(name)).unwrap();
        let long_ago = UNIX_EPOCH + Duration::from_secs(1_600_000_000);
        file.set_modified(long_ago).unwrap();
    }
    let lost = names.map(|name| fs::read(a.at(name)).unwrap());
    a.ask("online");
    a.flush();
    assert_eq!(examine(&site.home(), &site.path("first")), 25);
    b.ask("online");
    for machine in [&b, &a, &b] {
        machine.reconcile();
        machine.flush();
    }
    for (n, home) in [site.home(), a.home(), b.home()].iter().enumerate() {
        assert_eq!(examine(home, &site.path(&format!("after-{n}"))), 35);
    }
    let kept = kept(&site.home().join(".roamhome/backups"));
    for (name, lost) in names.iter().zip(&lost) {
        assert!(kept.contains(lost), "{name} is not kept");
    }
    a.umount();
    b.umount();
}
