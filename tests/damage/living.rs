//! Disks that rot under a daemon that runs: it says so, and sends nothing that nobody wrote.

use std::fs;

use roamhome::engine::Scope;
use roamhome::remote::MemoryServer;
use roamhome::replica::ReplicaError;
use roamhome::tree::RelPath;

use super::state::files;
use crate::support::client::{Client, Clock};

fn server(clock: &Clock) -> MemoryServer {
    let clock = clock.clone();
    MemoryServer::new(move || clock.now())
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

fn messages(client: &Client) -> Vec<String> {
    let problems = client.engine.status().unwrap().problems;
    problems
        .into_iter()
        .map(|problem| problem.message)
        .collect()
}

#[test]
fn content_that_rotted_is_never_sent() {
    let (dir, clock) = (crate::support::scratch(), Clock::new());
    let server = server(&clock);
    server
        .write_file(&path("a"), b"what was agreed on")
        .unwrap();
    clock.advance(10);
    let client = Client::start(dir.path().to_owned(), &server, &clock);
    client.sync();
    client.read("a").unwrap();
    client.offline();
    client.rename("a", "b");
    // It is only here from now on, under its new name: it has to be sent.
    server.remove(&path("a")).unwrap();
    let (content, _) = files(dir.path(), &["content"]).pop_first().unwrap();
    fs::write(dir.path().join(&content), b"what was agreed ON").unwrap();
    client.online();
    let full = Scope::Full {
        now: true,
        force_guard: false,
    };
    assert!(client.pass(full).failed > 0);
    let messages = messages(&client);
    assert!(
        messages
            .iter()
            .any(|m| m.contains("rotted") && m.contains("--content")),
        "{messages:?}"
    );
    let all = server.tree();
    assert!(all.values().all(|item| item.data != b"what was agreed ON"));
    // What was agreed on could be sent.
    fs::write(dir.path().join(&content), b"what was agreed on").unwrap();
    client.sync();
    assert_eq!(server.read_file(&path("b")).unwrap(), b"what was agreed on");
}

#[test]
fn an_index_that_is_damaged_under_a_daemon_shows_in_its_status() {
    let (dir, clock) = (crate::support::scratch(), Clock::new());
    let server = server(&clock);
    let client = Client::start(dir.path().to_owned(), &server, &clock);
    client.write("before", b"written before");
    client.replica.sync().unwrap();
    let db = rusqlite::Connection::open(dir.path().join("index.db")).unwrap();
    db.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    db.execute_batch("DROP TABLE in_flight").unwrap();
    drop(db);
    client.write("after", b"written after");
    let synced = client.replica.sync();
    assert!(
        matches!(synced, Err(ReplicaError::Damaged { .. })),
        "{synced:?}"
    );
    let told = messages(&client).join("\n");
    assert!(
        told.contains("is damaged") && told.contains("--repair"),
        "{told}"
    );
    // Nothing that was acknowledged is gone.
    let out = dir.path().join("out");
    roamhome::replica::rescue(dir.path(), &out).unwrap();
    let rescued: Vec<_> = files(&out, &[""]).into_values().collect();
    for text in ["written before", "written after"] {
        assert!(rescued.contains(&text.as_bytes().to_vec()), "{text}");
    }
}
