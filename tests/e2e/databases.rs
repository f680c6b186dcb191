//! Databases that a program writes to without pause, while they are sent again and again: what stands on the
//! server between two passes is a database.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};

use rusqlite::Connection;

use crate::support::machine::{Site, eventually};

/// Tells the writing process which database is its own, and how it keeps it.
const DATABASE: &str = "TEST_DATABASE";
const MODE: &str = "TEST_DATABASE_MODE";

/// What all accounts hold together.
const TOTAL: i64 = 1_000_000;
const ACCOUNTS: i64 = 200;

/// Nothing is sent unless the test says so.
const SETTINGS: &str = "quiet_period = \"1h\"\nmax_dirty_age = \"1h\"\nreconcile_interval = \"1h\"\n\
    fetch_timeout = \"20s\"\nlog = \"roamhome=debug,info\"\n";

/// Moves money between accounts until it is killed. Rows are wide, so that a transaction changes many pages, and
/// are removed and made again, so that the trees change their shape.
fn write_without_end(path: &Path, mode: &str) {
    let mut db = Connection::open(path).unwrap();
    let set: String = db
        .query_row(&format!("PRAGMA journal_mode={mode}"), [], |row| row.get(0))
        .unwrap();
    assert_eq!(set, mode);
    db.execute_batch(
        "PRAGMA wal_autocheckpoint=40; PRAGMA cache_size=10;
         CREATE TABLE accounts (id INTEGER PRIMARY KEY, amount INTEGER, note BLOB);
         CREATE INDEX by_note ON accounts (note);
         CREATE TABLE moves (n INTEGER PRIMARY KEY);",
    )
    .unwrap();
    let setup = db.transaction().unwrap();
    for id in 0..ACCOUNTS {
        let row = (id, TOTAL / ACCOUNTS);
        setup
            .execute("INSERT INTO accounts VALUES (?, ?, randomblob(900))", row)
            .unwrap();
    }
    setup.execute("INSERT INTO moves VALUES (0)", []).unwrap();
    setup.commit().unwrap();
    for n in 1.. {
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
        if entry.file_type().unwrap().is_file() {
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
    if let Some(path) = std::env::var_os(DATABASE) {
        return write_without_end(Path::new(&path), &std::env::var(MODE).unwrap());
    }
    let site = Site::new();
    let machine = site.machine("a");
    fs::write(machine.disk("config.toml"), SETTINGS).unwrap();
    machine.mount();
    let writer = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DATABASE, machine.at("bank"))
        .env(MODE, mode)
        .spawn();
    let mut writer = Writer(writer.unwrap());
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
