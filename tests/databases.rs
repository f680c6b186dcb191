//! Databases and what stands beside them, without kernel or network: at every cut of the link, and on two machines.

use std::fs;
use std::path::Path;

use roamhome::engine::{KeptWhere, Scope};
use roamhome::fs::Handle;
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

/// So many that the log holds only some of the pages.
const ROWS: i64 = 40;
/// The first rows, of which the log tells.
const LOGGED: i64 = 10;

/// A database with one number in all rows, `settled`, which is in the database itself; the first rows have `logged`,
/// if any, of which the log tells. Another table says what they should have.
fn set(settled: i64, logged: Option<i64>) -> Set {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "PRAGMA synchronous=OFF; PRAGMA page_size=512; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0;
         CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, filler TEXT);
         CREATE TABLE expected (first INTEGER, others INTEGER);
         CREATE INDEX by_number ON t (n, filler);",
    )
    .unwrap();
    db.execute("INSERT INTO expected VALUES (?1, ?1)", [settled])
        .unwrap();
    for id in 0..ROWS {
        let row = (id, settled, "x".repeat(150));
        db.execute("INSERT INTO t VALUES (?, ?, ?)", row).unwrap();
    }
    db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    if let Some(logged) = logged {
        db.execute("UPDATE t SET n = ? WHERE id < ?", [logged, LOGGED])
            .unwrap();
        db.execute("UPDATE expected SET first = ?", [logged])
            .unwrap();
    }
    let log = logged.map(|_| fs::read(dir.path().join("db-wal")).unwrap());
    let database = fs::read(&path).unwrap();
    Set { database, log }
}

impl Set {
    /// The number in the first rows of a sound database.
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
        let (first, others): (i64, i64) = db
            .query_row("SELECT first, others FROM expected", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        let odd: i64 = db
            .query_row(
                "SELECT count(*) FROM t WHERE n <> CASE WHEN id < ? THEN ? ELSE ? END",
                [LOGGED, first, others],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(odd, 0, "rows of another state are among those of {first}");
        first
    }

    fn put(&self, client: &Client, path: &str) {
        for handle in self.put_open(client, path) {
            client.close(handle);
        }
    }

    /// The same by a program that goes on to have the files open.
    fn put_open(&self, client: &Client, path: &str) -> Vec<Handle> {
        let open = |path: &str, data: &[u8]| {
            let handle = client.open_to_write(path);
            client.write_open(handle, data);
            handle
        };
        let mut handles = vec![open(path, &self.database)];
        let log = format!("{path}-wal");
        match &self.log {
            Some(bytes) => handles.push(open(&log, bytes)),
            None if client.read(&log).is_ok() => client.unlink(&log),
            None => {}
        }
        handles
    }

    /// What the server has; `None` if not even the database is there.
    fn on(server: &MemoryServer, path: &str) -> Option<Self> {
        let read = |path: &str| server.read_file(&path_of(path)).ok();
        Some(Self {
            database: read(path)?,
            log: read(&format!("{path}-wal")),
        })
    }

    /// What a machine has.
    fn of(client: &Client, path: &str) -> Self {
        Self {
            database: client.read(path).unwrap(),
            log: client.read(&format!("{path}-wal")).ok(),
        }
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
        // It lives on, so that nothing that seems to come from the server could be taken over.
        let open = after.put_open(&client, "db");
        clock.advance(10);
        server.trip(requests, Trip::CutBefore);
        let pass = client.engine.pass(Scope::Push { now: true });
        if client.block_on(pass).is_ok() {
            assert_eq!(Set::on(&server, "db").as_ref(), Some(after));
            open.into_iter().for_each(|handle| client.close(handle));
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
        open.into_iter().for_each(|handle| client.close(handle));
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

/// All contents that are kept, on the server and on this machine.
fn kept(client: &Client, dir: &Path) -> Vec<Vec<u8>> {
    let shelf = client.block_on(client.engine.kept(KeptWhere::Backups));
    let to = dir.join("kept");
    let content = |id: &str| {
        client
            .block_on(client.engine.restore_kept(id, &to))
            .unwrap();
        let data = fs::read(&to).unwrap();
        fs::remove_file(&to).unwrap();
        data
    };
    let items = shelf.unwrap().items;
    items.iter().map(|item| content(&item.id)).collect()
}

/// Two machines change a database apart; the first of them comes back first. What they both have then is what the
/// later one made, and all that the other made is kept where it lost.
fn the_later_wins(first: &Set, second: &Set, second_is_later: bool) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::new();
    let server = server(&clock);
    let one = client(dir.path(), "one", &server, &clock);
    let other = client(dir.path(), "other", &server, &clock);
    set(1, Some(2)).put(&one, "db");
    one.flush();
    other.sync();
    assert_eq!(Set::of(&other, "db").number(), 2);
    one.offline();
    other.offline();
    let mut changes = [(&one, first), (&other, second)];
    changes[..].rotate_left(usize::from(!second_is_later));
    for (client, set) in changes {
        clock.advance(10);
        set.put(client, "db");
    }
    clock.advance(10);
    one.online();
    assert_eq!(one.flush(), 0);
    other.online();
    other.sync();
    one.sync();
    let (winner, loser) = match second_is_later {
        true => (second, first),
        false => (first, second),
    };
    assert_eq!(Set::on(&server, "db").as_ref(), Some(winner));
    for client in [&one, &other] {
        assert_eq!(&Set::of(client, "db"), winner);
    }
    assert_eq!(winner.number(), Set::of(&other, "db").number());
    let kept = kept(&other, dir.path());
    for lost in [Some(&loser.database), loser.log.as_ref()] {
        assert!(lost.is_none_or(|lost| kept.contains(lost)));
    }
    assert_eq!(one.sync().done + other.sync().done, 0);
}

#[test]
fn two_machines_that_changed_a_database_apart_end_with_one_of_them_whole() {
    let (logged, closed) = (set(3, Some(4)), set(5, None));
    let log_alone = Set {
        database: set(1, Some(2)).database,
        log: set(1, Some(6)).log,
    };
    for (first, second) in [(&logged, &closed), (&closed, &log_alone)] {
        for second_is_later in [true, false] {
            the_later_wins(first, second, second_is_later);
        }
    }
}

#[test]
fn what_belongs_to_a_replaced_database_does_not_stay_beside_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::new();
    let server = server(&clock);
    let one = client(dir.path(), "one", &server, &clock);
    let other = client(dir.path(), "other", &server, &clock);
    set(1, Some(2)).put(&one, "db");
    one.flush();
    other.sync();
    assert_eq!(Set::of(&other, "db").number(), 2);
    // An index of the log, for the programs of one machine.
    other.write("db-shm", b"shared memory");
    other.write("other-shm", b"a file like others");
    other.flush();
    assert!(server.read_file(&path_of("db-shm")).is_err());
    server.read_file(&path_of("other-shm")).unwrap();
    clock.advance(10);
    set(3, None).put(&one, "db");
    one.flush();
    other.sync();
    assert_eq!(Set::of(&other, "db"), set(3, None));
    assert!(other.read("db-shm").is_err());
    assert_eq!(other.read("other-shm").unwrap(), b"a file like others");
}
