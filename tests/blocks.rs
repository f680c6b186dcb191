//! Files that are read by block: little is fetched of what is read little of, all once of what is read all of, and
//! nobody ever reads of two versions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use roamhome::engine::{FetchError, Fetching};
use roamhome::fs::{FsError, Handle};
use roamhome::remote::SetStat;
use roamhome::remote::memory::Trip;
use roamhome::replica::{Content, ReplicaError, Residence};
use roamhome::tree::NodeId;

use crate::support::client::Client;
use crate::support::field::{Field, path_of};
use crate::support::rng::noise;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const SIZE: usize = 48 * MIB;
/// What the kernel asks for at once.
const READ: usize = 128 * KIB;

/// A machine that knows of `f` on the server, and has nothing of it.
fn beside(content: &[u8]) -> (Field, Client) {
    let field = Field::new();
    field.server.write_file(&path_of("f"), content).unwrap();
    field.clock.advance(5);
    let client = field.client("a");
    client.sync();
    (field, client)
}

impl Client {
    /// Reads on from `from` to the end.
    fn read_on(&self, handle: Handle, from: usize, size: usize) -> Result<Vec<u8>, FsError> {
        let mut data = Vec::new();
        while from + data.len() < size {
            let part = self.read_open(handle, (from + data.len()) as u64, READ)?;
            assert!(!part.is_empty());
            data.extend(part);
        }
        Ok(data)
    }

    /// Bytes that were read from the server while `work` was done.
    fn cost<T>(&self, work: impl FnOnce() -> T) -> (T, usize) {
        let before = self.calls().bytes_read;
        let value = work();
        (value, (self.calls().bytes_read - before) as usize)
    }

    /// Waits until all of `f` is here.
    fn wait_until_whole(&self) {
        for _ in 0..4000 {
            if self.residence() == Residence::Local {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it never came whole");
    }

    fn residence(&self) -> Residence {
        let entries = self.block_on(self.engine.entries(NodeId::ROOT)).unwrap();
        let entry = entries.iter().find(|entry| entry.name == path_of("f"));
        entry.unwrap().residence
    }
}

fn is_changed(error: &FsError) -> bool {
    error.to_errno() == libc::ESTALE
}

fn is_unreachable(error: &FsError) -> bool {
    matches!(error, FsError::Fetch(FetchError::Unreachable))
}

#[test]
fn who_jumps_about_fetches_little_and_opening_costs_one_look() {
    let content = noise(SIZE, 1);
    let (_field, client) = beside(&content);
    let before = client.calls();
    let handle = client.open_to_read("f").unwrap();
    let took = client.calls().since(&before);
    assert_eq!((took.of("lstat"), took.total()), (1, 1));
    assert_eq!(client.residence(), Residence::Remote);
    for nth in 0..10 {
        let at = (nth * 7_654_321 + 999) % (SIZE - 4 * KIB);
        let read = client.read_open(handle, at as u64, 4 * KIB).unwrap();
        assert!(read == content[at..at + 4 * KIB], "{nth}");
    }
    let took = client.calls().since(&before);
    assert!(took.bytes_read <= 20 * 128 * KIB as u64, "{took:?}");
    assert!(took.total() <= 10 * 7, "{took:?}");
    assert_eq!(client.residence(), Residence::Partial);
    let counts = client.engine.status().unwrap().counts;
    assert_eq!(counts.content_bytes, took.bytes_read);
    // What was read is here.
    client.offline();
    assert!(client.read_open(handle, 999, 4 * KIB).unwrap() == content[999..999 + 4 * KIB]);
    assert!(is_unreachable(
        &client.read_open(handle, 20 << 20, 1).unwrap_err()
    ));
    // Of what lies behind the end nothing is needed.
    assert_eq!(client.read_open(handle, SIZE as u64, 10).unwrap(), b"");
    client.close(handle);
    client.online();
    let handle = client.open_to_read("f").unwrap();
    let read = client.read_open(handle, 20 << 20, 1).unwrap();
    assert_eq!(read, [content[20 << 20]]);
    client.close(handle);
}

#[test]
fn what_another_machine_just_wrote_is_opened_and_no_reader_is_told_to_look_again() {
    let (field, client) = beside(&noise(SIZE, 1));
    for (round, size) in [(2, SIZE), (3, SIZE / 2)] {
        let other = noise(size, round);
        field.server.write_file(&path_of("f"), &other).unwrap();
        field.clock.advance(5);
        // No pass has seen it.
        assert!(client.read("f").unwrap() == other, "{round}");
        client.wait_until_whole();
        let id = client.engine.node_at(&path_of("f")).unwrap().unwrap().id;
        client.block_on(client.engine.evict(&[id])).unwrap();
        // What was asked a moment ago is not asked again.
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn who_reads_on_and_on_gets_all_of_it_once() {
    let content = noise(SIZE, 2);
    let (_field, client) = beside(&content);
    let before = client.calls();
    let handle = client.open_to_read("f").unwrap();
    assert!(client.read_on(handle, 0, SIZE).unwrap() == content);
    client.wait_until_whole();
    client.close(handle);
    let took = client.calls().since(&before);
    assert!(took.bytes_read <= (SIZE + 4 * MIB) as u64, "{took:?}");
    assert!(took.of("open_read") < 30, "{took:?}");
    client.offline();
    assert!(client.read("f").unwrap() == content);
}

#[test]
fn what_came_block_by_block_counts_as_whole_when_it_is() {
    let size = 9 * MIB;
    let content = noise(size, 13);
    let (_field, client) = beside(&content);
    let handle = client.open_to_read("f").unwrap();
    let (read, took) = client.cost(|| client.read_on(handle, 0, size));
    assert!(read.unwrap() == content);
    assert_eq!(took, size);
    client.wait_until_whole();
    client.close(handle);
    client.offline();
    // It can be written to.
    client.write_at("f", 5, b"x");
    assert_eq!(client.read("f").unwrap()[5], b'x');
}

#[test]
fn what_is_dated_here_while_somebody_reads_it_is_read_on() {
    let content = noise(SIZE, 14);
    let (field, client) = beside(&content);
    let handle = client.open_to_read("f").unwrap();
    client.read_open(handle, 0, MIB).unwrap();
    client.touch("f", 1_600_000_000);
    assert_eq!(client.flush(), 0);
    let stat = field.server.stat(&path_of("f")).unwrap();
    assert_eq!(stat.mtime, 1_600_000_000);
    assert!(client.read_on(handle, 0, SIZE).unwrap() == content);
    client.close(handle);
}

#[test]
fn what_nobody_reads_any_more_is_not_fetched_and_goes_on_later() {
    let content = noise(SIZE, 3);
    let (field, client) = beside(&content);
    let handle = client.open_to_read("f").unwrap();
    let (read, first) = client.cost(|| client.read_on(handle, SIZE / 2, SIZE / 2 + 9 * MIB));
    assert!(read.unwrap()[..] == content[SIZE / 2..][..9 * MIB]);
    client.close(handle);
    assert!(first < SIZE, "{first}");
    // Another life goes on with what is here.
    drop(client);
    let client = field.client("a");
    assert_eq!(client.residence(), Residence::Partial);
    let progress = Fetching::default();
    let id = client.engine.node_at(&path_of("f")).unwrap().unwrap().id;
    let fetch = || client.block_on(client.engine.prefetch(&[id], &progress));
    let (fetched, rest) = client.cost(fetch);
    assert_eq!(fetched.unwrap().failed, 0);
    assert!(rest <= SIZE - 9 * MIB + MIB, "{rest}");
    assert_eq!(client.residence(), Residence::Local);
    client.offline();
    assert!(client.read("f").unwrap() == content);
}

#[test]
fn two_readers_at_once_read_the_same_and_fetch_it_once() {
    let content = noise(SIZE, 4);
    let (_field, client) = beside(&content);
    let read = |from: usize| {
        let handle = client.open_to_read("f").unwrap();
        let data = client.read_on(handle, from, SIZE).unwrap();
        client.close(handle);
        assert!(data == content[from..], "{from}");
    };
    let ((), took) = client.cost(|| {
        std::thread::scope(|scope| {
            for from in [0, 0, SIZE / 2] {
                scope.spawn(move || read(from));
            }
        });
    });
    assert!(took <= SIZE + 12 * MIB, "{took}");
}

#[test]
fn what_is_replaced_on_the_server_is_never_mixed_with_what_was_read_before() {
    let (old, new) = (noise(SIZE, 5), noise(SIZE, 6));
    for known in [false, true] {
        let (field, client) = beside(&old);
        let handle = client.open_to_read("f").unwrap();
        assert!(client.read_open(handle, 0, READ).unwrap() == old[..READ]);
        field.server.write_file(&path_of("f"), &new).unwrap();
        field.clock.advance(5);
        if known {
            // A pass took the new one over. What is here of the old one is read by who has that open.
            client.sync();
            assert!(client.read_open(handle, 0, READ).unwrap() == old[..READ]);
        }
        let error = client.read_open(handle, 10 << 20, READ).unwrap_err();
        assert!(is_changed(&error), "{error}");
        if !known {
            let error = client.read_open(handle, 0, READ).unwrap_err();
            assert!(is_changed(&error), "{error}");
        }
        // Whoever opens it now gets the new one, without waiting for a pass.
        let next = client.open_to_read("f").unwrap();
        assert!(client.read_open(next, 0, READ).unwrap() == new[..READ]);
        client.close(handle);
        client.close(next);
        assert!(client.read("f").unwrap() == new);
        assert_eq!(client.sync().done, 0);
    }
}

#[test]
fn readers_while_a_file_is_replaced_again_and_again_never_see_two_versions() {
    let versions: Vec<_> = (0..8).map(|n| noise(9 * MIB, 10 + n)).collect();
    let (field, client) = beside(&versions[0]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for start in [0, 3 * MIB] {
            let (stop, client, versions) = (&stop, &client, &versions);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let handle = client.open_to_read("f").unwrap();
                    let mut read = Vec::new();
                    while start + read.len() < 9 * MIB
                        && let Ok(part) =
                            client.read_open(handle, (start + read.len()) as u64, READ)
                    {
                        read.extend(part);
                    }
                    client.close(handle);
                    let is_of = |version: &Vec<u8>| version[start..].starts_with(&read);
                    assert!(versions.iter().any(is_of), "a mixture");
                }
            });
        }
        for version in &versions[1..] {
            std::thread::sleep(Duration::from_millis(60));
            field.server.write_file(&path_of("f"), version).unwrap();
            field.clock.advance(5);
        }
        std::thread::sleep(Duration::from_millis(60));
        stop.store(true, Ordering::Relaxed);
    });
    client.sync();
    assert!(client.read("f").unwrap() == versions[7]);
}

#[test]
fn another_content_that_looks_the_same_is_another_file_as_soon_as_it_is_noticed() {
    let (old, new) = (noise(SIZE, 5), noise(SIZE, 6));
    let (field, client) = beside(&old);
    let stat = field.server.stat(&path_of("f")).unwrap();
    let handle = client.open_to_read("f").unwrap();
    client.read_open(handle, 0, READ).unwrap();
    client.close(handle);
    field.server.write_file(&path_of("f"), &new).unwrap();
    let set = SetStat {
        mtime: Some(stat.mtime),
        ..SetStat::default()
    };
    field.server.set_stat(&path_of("f"), set).unwrap();
    field.clock.advance(5);
    // What is here is compared before anything is added to it.
    let handle = client.open_to_read("f").unwrap();
    let error = client.read_open(handle, 20 << 20, READ).unwrap_err();
    assert!(is_changed(&error), "{error}");
    client.close(handle);
    assert!(client.read("f").unwrap() == new);
}

#[test]
fn what_is_not_what_was_agreed_on_never_counts_as_whole() {
    let old = noise(SIZE, 5);
    let field = Field::new();
    let client = field.client("a");
    client.write("f", &old);
    field.clock.advance(5);
    assert_eq!(client.flush(), 0);
    field.clock.advance(5);
    client.sync();
    let id = client.engine.node_at(&path_of("f")).unwrap().unwrap().id;
    client.block_on(client.engine.evict(&[id])).unwrap();
    // A disk of the server's that rots in a way that nobody sees.
    let stat = field.server.stat(&path_of("f")).unwrap();
    let mut new = old.clone();
    new[30 * MIB] ^= 1;
    field.server.write_file(&path_of("f"), &new).unwrap();
    let set = SetStat {
        mtime: Some(stat.mtime),
        ..SetStat::default()
    };
    field.server.set_stat(&path_of("f"), set).unwrap();
    let handle = client.open_to_read("f").unwrap();
    let read = client.read_on(handle, 0, SIZE);
    // It is noticed when all of it is here, and who reads of it is told.
    assert!(read.map_or_else(|error| is_changed(&error), |read| read == new));
    for _ in 0..4000 {
        if client
            .read_open(handle, 0, 1)
            .is_err_and(|error| is_changed(&error))
        {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let error = client.read_open(handle, 0, 1).unwrap_err();
    assert!(is_changed(&error), "{error}");
    client.close(handle);
    assert_ne!(
        client.engine.node_at(&path_of("f")).unwrap().unwrap().id,
        id
    );
    assert!(client.read("f").unwrap() == new);
}

#[test]
fn a_link_that_breaks_and_comes_back_costs_a_reader_nothing() {
    let content = noise(SIZE, 7);
    for skip in [0, 3, 30, 200] {
        let (field, client) = beside(&content);
        let handle = client.open_to_read("f").unwrap();
        field.server.trip(skip, Trip::CutBefore);
        let (read, took) = client.cost(|| client.read_on(handle, 0, SIZE));
        assert!(read.unwrap() == content, "{skip}");
        // What was under way when the link broke comes again.
        assert!(took <= SIZE + 14 * MIB, "{skip}: {took}");
        client.wait_until_whole();
        client.close(handle);
    }
}

#[test]
fn offline_what_is_here_is_read_and_the_rest_fails_until_the_link_is_back() {
    let content = noise(SIZE, 8);
    let (_field, client) = beside(&content);
    let handle = client.open_to_read("f").unwrap();
    client.read_open(handle, 0, MIB).unwrap();
    client.offline();
    let error = client.read_on(handle, 0, SIZE).unwrap_err();
    assert!(is_unreachable(&error), "{error}");
    assert!(client.read_open(handle, 0, MIB).unwrap() == content[..MIB]);
    // Opened offline, too.
    let other = client.open_to_read("f").unwrap();
    assert!(client.read_open(other, 0, MIB).unwrap() == content[..MIB]);
    client.close(other);
    client.online();
    assert!(client.read_on(handle, 0, SIZE).unwrap() == content);
    client.close(handle);
}

#[test]
fn writing_needs_all_of_it_and_goes_on_with_what_is_here() {
    let mut content = noise(SIZE, 9);
    let (field, client) = beside(&content);
    let handle = client.open_to_read("f").unwrap();
    client.read_open(handle, 4 << 20, 20 * MIB).unwrap();
    let ((), rest) = client.cost(|| client.write_at("f", 12_345, b"changed"));
    content[12_345..12_352].copy_from_slice(b"changed");
    assert!(rest <= 28 * MIB + MIB, "{rest}");
    // Who had it open sees what was written.
    assert!(client.read_on(handle, 0, SIZE).unwrap() == content);
    client.close(handle);
    field.clock.advance(5);
    assert_eq!(client.flush(), 0);
    assert!(field.on_server("f") == content);
}

#[test]
fn emptying_a_file_that_is_here_in_part_fetches_nothing() {
    let (field, client) = beside(&noise(SIZE, 10));
    let handle = client.open_to_read("f").unwrap();
    client.read_open(handle, 0, MIB).unwrap();
    let ((), took) = client.cost(|| client.write("f", b"anew"));
    assert_eq!(took, 0);
    assert_eq!(client.read_open(handle, 0, MIB).unwrap(), b"anew");
    client.close(handle);
    assert_eq!(client.read("f").unwrap(), b"anew");
    field.clock.advance(5);
    assert_eq!(client.flush(), 0);
    assert_eq!(field.on_server("f"), b"anew");
    let counts = client.engine.status().unwrap().counts;
    assert_eq!(counts.content_bytes, 4);
}

#[test]
fn a_part_makes_room_unless_it_is_open_or_pinned() {
    let content = noise(SIZE, 11);
    let (_field, client) = beside(&content);
    let handle = client.open_to_read("f").unwrap();
    client.read_open(handle, 0, MIB).unwrap();
    let id = client.engine.node_at(&path_of("f")).unwrap().unwrap().id;
    let evict = || client.block_on(client.engine.evict(&[id])).unwrap();
    let evicted = evict();
    assert_eq!((evicted.files, evicted.kept), (0, 1));
    client.close(handle);
    // Who brought it may not have let go of it yet.
    let evicted = (0..1000).map(|_| evict()).find(|evicted| evicted.kept == 0);
    let evicted = evicted.unwrap();
    assert_eq!(evicted.files, 1);
    assert!(evicted.bytes >= MIB as u64, "{evicted:?}");
    assert_eq!(client.residence(), Residence::Remote);
    assert_eq!(client.engine.status().unwrap().counts.content_bytes, 0);
    assert!(client.read("f").unwrap() == content);
}

#[test]
fn what_is_young_is_fetched_whole_before_it_is_opened() {
    let field = Field::new();
    let content = noise(9 * MIB, 12);
    field.server.write_file(&path_of("f"), &content).unwrap();
    let client = field.client("a");
    client.sync();
    let handle = client.open_to_read("f").unwrap();
    let whole = client.replica.view::<_, ReplicaError>(|view| {
        let files = view.children(NodeId::ROOT, None, 10)?;
        let node = view.node(files[0].1)?;
        Ok(node.unwrap().content == Content::Whole)
    });
    assert!(whole.unwrap());
    assert!(client.read_on(handle, 0, 9 * MIB).unwrap() == content);
    client.close(handle);
}
