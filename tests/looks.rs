//! Versions of one size and one second, which a listing cannot tell apart: everybody gets the one that is meant.

use roamhome::remote::memory::Item;
use roamhome::remote::{MemoryServer, layout};
use roamhome::tree::{RelPath, Time};

use crate::support::client::{Client, Clock};

/// Two machines that know the same files.
struct Field {
    server: MemoryServer,
    a: Client,
    b: Client,
    _dir: tempfile::TempDir,
}

impl Field {
    /// The server's clock is ahead: what is new there is old, and nobody looks twice.
    fn with(files: &[(&str, &str)]) -> Self {
        let clock = Clock::new();
        let server = {
            let clock = clock.clone();
            MemoryServer::new(move || Time::new(clock.secs() + 100, 0))
        };
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| Client::start(dir.path().join(name), &server, &clock));
        for (path, content) in files {
            a.write(path, content.as_bytes());
        }
        a.flush();
        b.sync();
        let field = Self {
            server,
            a,
            b,
            _dir: dir,
        };
        field.shows(files);
        field
    }

    /// Everybody has exactly these files.
    #[track_caller]
    fn shows(&self, files: &[(&str, &str)]) {
        for (path, content) in files {
            for client in [&self.a, &self.b] {
                let read = client.read(path).unwrap();
                assert_eq!(String::from_utf8_lossy(&read), *content, "{path}");
            }
        }
        let of_server = self.server.tree();
        for client in [&self.a, &self.b] {
            let shown = client.tree().len();
            assert_eq!(shown, files.len());
        }
        let there = of_server.keys().filter(|path| path.names().len() == 1);
        assert_eq!(there.count(), files.len() + 1, "and our own directory");
    }

    fn spread(&self) {
        self.a.flush();
        self.a.sync();
        self.b.sync();
    }
}

#[test]
fn a_file_written_twice_in_one_second_arrives_twice() {
    let field = Field::with(&[("f", "one")]);
    for content in ["two", "six", "ten"] {
        field.a.write("f", content.as_bytes());
        field.spread();
        field.shows(&[("f", content)]);
    }
}

#[test]
fn all_names_of_a_file_written_twice_in_one_second_arrive_twice() {
    let field = Field::with(&[("f", "one")]);
    field.a.link("f", "g");
    field.spread();
    field.shows(&[("f", "one"), ("g", "one")]);
    field.a.write("g", b"two");
    field.spread();
    field.shows(&[("f", "two"), ("g", "two")]);
    assert_eq!(field.a.sync().done, 0);
}

#[test]
fn a_file_that_takes_the_place_of_one_that_looks_the_same_arrives() {
    let field = Field::with(&[("f", "one"), ("g", "two")]);
    field.a.rename("g", "f");
    field.spread();
    field.shows(&[("f", "two")]);
}

#[test]
fn files_that_look_the_same_can_change_places() {
    let field = Field::with(&[("f", "one"), ("g", "two")]);
    field.a.rename("f", "t");
    field.a.rename("g", "f");
    field.a.rename("t", "g");
    field.spread();
    field.shows(&[("f", "two"), ("g", "one")]);
}

#[test]
fn a_file_that_was_removed_and_made_anew_within_the_second_arrives() {
    let field = Field::with(&[("f", "one"), ("g", "six")]);
    field.a.unlink("f");
    field.a.rename("g", "h");
    field.a.flush();
    field.a.write("f", b"two");
    field.a.write("g", b"ten");
    field.spread();
    field.shows(&[("f", "two"), ("g", "ten"), ("h", "six")]);
}

#[test]
fn who_changed_what_looked_the_same_keeps_both() {
    let field = Field::with(&[("f", "one")]);
    field.a.write("f", b"two");
    field.b.write("f", b"six");
    field.spread();
    field.spread();
    let read = field.a.read("f").unwrap();
    assert_eq!(read, field.b.read("f").unwrap());
    let backup = |path: &roamhome::tree::RelPath| path.to_string().contains("backups/");
    let kept: Vec<_> = field
        .server
        .tree()
        .into_iter()
        .filter(|(path, item)| backup(path) && !item.data.is_empty())
        .map(|(_, item)| item.data)
        .collect();
    let all: Vec<_> = kept.iter().chain([&read]).map(Vec::as_slice).collect();
    for content in [&b"two"[..], b"six"] {
        assert!(all.contains(&content), "{kept:?}");
    }
}

/// A home with one file, which a machine has read in the second in which it was written.
fn read_at_once() -> (MemoryServer, Clock, tempfile::TempDir, Client) {
    let clock = Clock::new();
    let server = {
        let clock = clock.clone();
        MemoryServer::new(move || clock.now())
    };
    let dir = tempfile::tempdir().unwrap();
    let client = Client::start(dir.path().join("a"), &server, &clock);
    server.write_file(&path("f"), b"one").unwrap();
    client.sync();
    assert_eq!(client.read("f").unwrap(), b"one");
    (server, clock, dir, client)
}

fn path(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).unwrap()
}

#[test]
fn what_another_program_wrote_twice_in_one_second_is_seen_after_a_restart() {
    let (server, clock, dir, client) = read_at_once();
    server.write_file(&path("f"), b"two").unwrap();
    drop(client);
    clock.advance(100);
    let client = Client::start(dir.path().join("a"), &server, &clock);
    client.sync();
    assert_eq!(client.read("f").unwrap(), b"two");
}

#[test]
fn what_another_program_wrote_within_the_second_is_kept_when_it_is_written_over() {
    let (server, clock, _dir, client) = read_at_once();
    server.write_file(&path("f"), b"two").unwrap();
    clock.advance(100);
    client.write("f", b"mine");
    client.flush();
    let tree = server.tree();
    assert_eq!(tree[&path("f")].data, b"mine");
    let kept = |(at, item): (&RelPath, &Item)| layout::is_ours(at) && item.data == b"two";
    assert!(tree.iter().any(kept), "{:?}", tree.keys());
}
