//! Databases and what stands beside them, without kernel or network: at every cut of the link, and on two machines.

use std::fs;
use std::path::Path;

use roamhome::engine::Scope;
use roamhome::remote::MemoryServer;
use roamhome::remote::memory::Trip;
use roamhome::tree::RelPath;
use rusqlite::Connection;

use crate::support::client::{Client, Clock};

/// A database as it lies on a disk: itself, and its log if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Set {
    database: Vec<u8>,
    log: Option<Vec<u8>>,
}

/// Long enough that a log alone holds only some of the pages.
const ROWS: i64 = 40;

/// A database with one number in all rows: first `settled`, which is in the database itself, then `logged`, if any,
/// of which the log tells.
fn set(settled: i64, logged: Option<i64>) -> Set {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "PRAGMA page_size=512; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0;
         CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, filler TEXT);
         CREATE INDEX by_number ON t (n, filler);",
    )
    .unwrap();
    for id in 0..ROWS {
        let row = (id, settled, "x".repeat(150));
        db.execute("INSERT INTO t VALUES (?, ?, ?)", row).unwrap();
    }
    db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    if let Some(logged) = logged {
        // Rows move to other pages, so that pages of two states do not fit together.
        db.execute("DELETE FROM t WHERE id % 3 = ?", [logged % 3])
            .unwrap();
        db.execute("UPDATE t SET n = ?", [logged]).unwrap();
    }
    let log = logged.map(|_| fs::read(dir.path().join("db-wal")).unwrap());
    let database = fs::read(&path).unwrap();
    Set { database, log }
}

impl Set {
    /// The number that is in all rows of a sound database.
    #[track_caller]
    fn number(&self) -> i64 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        fs::write(&path, &self.database).unwrap();
        if let Some(log) = &self.log {
            fs::write(dir.path().join("db-wal"), log).unwrap();
        }
        let db = Connection::open(&path).unwrap();
        let check: String = db
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(check, "ok");
        let (least, most): (i64, i64) = db
            .query_row("SELECT min(n), max(n) FROM t", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!(least, most);
        least
    }

    fn put(&self, client: &Client, path: &str) {
        client.write(path, &self.database);
        let log = format!("{path}-wal");
        match &self.log {
            Some(bytes) => client.write(&log, bytes),
            None if client.read(&log).is_ok() => client.unlink(&log),
            None => {}
        }
    }

    /// What the server has; `None` if not even the database is there.
    fn on(server: &MemoryServer, path: &str) -> Option<Self> {
        let read = |path: &str| server.read_file(&path_of(path)).ok();
        Some(Self {
            database: read(path)?,
            log: read(&format!("{path}-wal")),
        })
    }
}

fn path_of(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).unwrap()
}

fn server(clock: &Clock) -> MemoryServer {
    let clock = clock.clone();
    MemoryServer::new(move || clock.now())
}

fn client(dir: &Path, name: &str, server: &MemoryServer, clock: &Clock) -> Client {
    Client::start(dir.join(name), server, clock)
}

/// One state follows another; before each request of its publication the link is cut, and the database that is
/// there then is sound, as before or as after, without its log at worst. Tells how many requests there are.
fn is_sound_at_every_cut(before: &Set, after: &Set, aside: bool) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::new();
    let server = server(&clock);
    server.set_features(|all| all.hardlink = !aside);
    let client = client(dir.path(), "a", &server, &clock);
    for requests in 0.. {
        before.put(&client, "db");
        clock.advance(10);
        assert_eq!(client.flush(), 0);
        assert_eq!(Set::on(&server, "db").as_ref(), Some(before));
        clock.advance(10);
        after.put(&client, "db");
        clock.advance(10);
        server.trip(requests, Trip::CutBefore);
        let pass = client.engine.pass(Scope::Push { now: true });
        if client.block_on(pass).is_ok() {
            assert_eq!(Set::on(&server, "db").as_ref(), Some(after));
            return requests;
        }
        match Set::on(&server, "db") {
            Some(there) => {
                let alone = |set: &Set| {
                    Set {
                        log: None,
                        ..set.clone()
                    }
                    .number()
                };
                let known = [before.number(), alone(before), alone(after), after.number()];
                assert!(known.contains(&there.number()), "after {requests} requests");
            }
            None => assert!(aside, "nothing is there after {requests} requests"),
        }
        client.reconnect();
        clock.advance(10);
        assert_eq!(client.flush(), 0);
        assert_eq!(Set::on(&server, "db").as_ref(), Some(after));
        assert_eq!(client.sync().conflicts, 0);
    }
    0
}

fn all_are_sound_at_every_cut(aside: bool) {
    let (one, other, closed) = (set(1, Some(2)), set(3, Some(4)), set(5, None));
    for (before, after) in [(&one, &other), (&one, &closed), (&closed, &one)] {
        let requests = is_sound_at_every_cut(before, after, aside);
        assert!(requests > 15, "only {requests}");
    }
}

#[test]
fn a_database_is_sound_wherever_the_link_is_cut_while_it_is_published() {
    all_are_sound_at_every_cut(false);
}

#[test]
fn a_database_that_is_moved_aside_is_sound_wherever_the_link_is_cut() {
    all_are_sound_at_every_cut(true);
}
