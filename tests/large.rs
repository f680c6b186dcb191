//! What large files cost: little is sent of what the server has, or had before the link broke. And what was put
//! together there is what it had to be.

use roamhome::engine::Scope;
use roamhome::remote::memory::Trip;
use roamhome::remote::{Calls, ErrorKind, SetStat};
use roamhome::tree::RelPath;

use crate::support::client::Client;
use crate::support::field::{Field, path_of};
use crate::support::rng::noise;

const MIB: usize = 1 << 20;
const SIZE: usize = 64 * MIB;

impl Field {
    /// A machine whose server has `f` with this content for a while.
    fn with(&self, content: &[u8]) -> Client {
        let client = self.client("a");
        client.write("f", content);
        self.send(&client);
        assert!(self.on_server("f") == content);
        client
    }

    /// Sends what is unsent, some time after it was written; what that took.
    fn send(&self, client: &Client) -> Calls {
        self.clock.advance(5);
        let before = client.calls();
        assert_eq!(client.flush(), 0);
        client.calls().since(&before)
    }

    /// Dates `f` on the server.
    fn date(&self, mtime: i64) {
        let set = SetStat {
            mtime: Some(mtime),
            ..SetStat::default()
        };
        self.server.set_stat(&path_of("f"), set).unwrap();
    }

    /// What is ours in the server's staging.
    fn staged(&self) -> usize {
        let tree = self.server.tree();
        let staged = |path: &&RelPath| path.to_string().starts_with(".roamhome/staging/");
        tree.keys().filter(staged).count()
    }
}

#[test]
fn a_change_in_the_middle_of_a_large_file_sends_little_more_than_the_change() {
    let field = Field::new();
    let mut content = noise(SIZE, 1);
    let client = field.with(&content);
    for round in 0..3 {
        let at = (10 + 20 * round) * MIB + 12_345;
        let change = noise(MIB, 2 + round as u64);
        content[at..at + MIB].copy_from_slice(&change);
        client.write_at("f", at as u64, &change);
        let took = field.send(&client);
        assert!(took.bytes_written < 3 * MIB as u64 / 2, "{took:?}");
        assert!(took.bytes_read < MIB as u64 / 4, "{took:?}");
        assert!(took.total() < 100, "{took:?}");
        assert!(field.on_server("f") == content, "{round}");
    }
    assert_eq!((client.sync().done, field.staged()), (0, 0));
}

#[test]
fn an_insertion_at_the_start_and_a_rewrite_by_rename_send_little() {
    let field = Field::new();
    let old = noise(SIZE, 1);
    let client = field.with(&old);
    let new = [&noise(100, 2)[..], &old[..]].concat();
    // As programs save: another file takes the name.
    client.write("f.tmp", &new);
    client.rename("f.tmp", "f");
    let took = field.send(&client);
    assert!(took.bytes_written < MIB as u64 / 2, "{took:?}");
    assert!(field.on_server("f") == new);
    // Emptied, and written anew.
    let moved = [&new[SIZE / 2..], &new[..SIZE / 2]].concat();
    client.write("f", &moved);
    let took = field.send(&client);
    assert!(took.bytes_written < MIB as u64 / 2, "{took:?}");
    assert!(field.on_server("f") == moved);
}

#[test]
fn a_file_that_another_machine_wrote_is_changed_by_a_delta_too() {
    let field = Field::new();
    let mut content = noise(SIZE, 1);
    field.server.write_file(&path_of("f"), &content).unwrap();
    field.clock.advance(5);
    let client = field.client("a");
    client.sync();
    assert!(client.read("f").unwrap() == content);
    content[MIB] ^= 1;
    client.write_at("f", MIB as u64, &content[MIB..=MIB]);
    let took = field.send(&client);
    assert!(took.bytes_written < MIB as u64 / 2, "{took:?}");
    assert!(field.on_server("f") == content);
}

#[test]
fn a_copy_and_a_move_by_copy_are_made_on_the_server() {
    let field = Field::new();
    let content = noise(SIZE, 1);
    let client = field.with(&content);
    client.write("copy", &content);
    let took = field.send(&client);
    assert!(took.bytes_written == 0, "{took:?}");
    assert!(field.on_server("copy") == content);
    client.unlink("copy");
    field.send(&client);
    // `mv` between two file systems, as it seems to it.
    client.write("moved", &content);
    client.unlink("f");
    let took = field.send(&client);
    assert!(took.bytes_written == 0, "{took:?}");
    assert!(field.on_server("moved") == content);
    // What is in the trash by now will do.
    client.unlink("moved");
    field.send(&client);
    client.write("back", &content);
    let took = field.send(&client);
    assert!(took.bytes_written == 0, "{took:?}");
    assert!(field.on_server("back") == content);
}

/// Changes a byte, and has all of it sent for that.
fn all_is_sent(field: &Field, client: &Client, content: &mut [u8]) {
    content[MIB] ^= 1;
    client.write_at("f", MIB as u64, &content[MIB..=MIB]);
    let took = field.send(client);
    assert_eq!(took.bytes_written, content.len() as u64);
    assert!(field.on_server("f") == content);
}

#[test]
fn a_server_that_cannot_copy_gets_all_of_it() {
    let field = Field::new();
    field
        .server
        .set_features(|features| features.copy_data = false);
    let mut content = noise(4 * MIB, 1);
    let client = field.with(&content);
    all_is_sent(&field, &client, &mut content);
}

#[test]
fn a_file_that_could_have_changed_within_its_second_is_not_copied_from() {
    let field = Field::new();
    let client = field.client("a");
    let mut content = noise(4 * MIB, 1);
    client.write("f", &content);
    // It stands there in the very second of its date.
    assert_eq!(client.flush(), 0);
    let looks = field.server.stat(&path_of("f")).unwrap();
    let mut other = content.clone();
    other[2 * MIB..].fill(7);
    field.server.write_file(&path_of("f"), &other).unwrap();
    assert_eq!(field.server.stat(&path_of("f")).unwrap(), looks);
    all_is_sent(&field, &client, &mut content);
}

#[test]
fn an_old_version_that_is_not_what_it_was_spoils_nothing() {
    let field = Field::new();
    let mut content = noise(4 * MIB, 1);
    let client = field.with(&content);
    // A disk that lost what it had said to keep, or a program that dated its work back.
    let stat = field.server.stat(&path_of("f")).unwrap();
    let mut rotten = content.clone();
    rotten[MIB..2 * MIB].fill(0);
    field.server.write_file(&path_of("f"), &rotten).unwrap();
    field.date(stat.mtime);
    content[0] ^= 1;
    client.write_at("f", 0, &content[..1]);
    let took = field.send(&client);
    assert!(took.of("copy_data") > 0, "{took:?}");
    assert!(field.on_server("f") == content);
    content[1] ^= 1;
    client.write_at("f", 1, &content[1..2]);
    field.send(&client);
    assert!(field.on_server("f") == content);
}

#[test]
fn a_copy_that_fails_is_sent_whole() {
    let field = Field::new();
    let mut content = noise(4 * MIB, 1);
    let client = field.with(&content);
    for skip in 0..40 {
        content[MIB] ^= 1;
        client.write_at("f", MIB as u64, &content[MIB..=MIB]);
        field.clock.advance(5);
        field.server.trip(skip, Trip::Fail(ErrorKind::Failure));
        client.flush();
        field.clock.advance(100);
        assert_eq!(client.flush(), 0);
        assert!(field.on_server("f") == content, "{skip}");
    }
    client.sync();
    assert_eq!((client.sync().done, field.staged()), (0, 0));
}

/// Breaks the link after `skip` more requests while what is unsent is sent, and sends it again; how much was sent in
/// all.
fn sent_with_a_cut(field: &Field, client: &Client, skip: u64, trip: Trip) -> u64 {
    let before = client.calls().bytes_written;
    cut_off(field, client, skip, trip);
    client.is_last_connection(false);
    client.reconnect();
    client.flush();
    client.calls().bytes_written - before
}

fn cut_off(field: &Field, client: &Client, skip: u64, trip: Trip) {
    field.clock.advance(5);
    field.server.trip(skip, trip);
    client.is_last_connection(true);
    let pass = client.engine.pass(Scope::Push { now: true });
    assert!(client.block_on(pass).is_err());
}

#[test]
fn an_upload_that_was_cut_off_goes_on() {
    for (n, skip) in [300, 700, 1000].into_iter().enumerate() {
        let field = Field::new();
        let client = field.client("a");
        let content = noise(SIZE, n as u64);
        client.write("f", &content);
        let sent = sent_with_a_cut(&field, &client, skip, Trip::CutBefore);
        assert!(
            sent >= SIZE as u64 && sent <= (SIZE + 8 * MIB) as u64,
            "{skip}: {sent}"
        );
        assert!(field.on_server("f") == content);
        client.sync();
        assert_eq!((client.sync().done, field.staged()), (0, 0), "{skip}");
    }
}

#[test]
fn an_upload_that_waits_for_its_name_when_the_link_breaks_is_not_sent_again() {
    for trip in [Trip::CutBefore, Trip::CutAfter] {
        let field = Field::new();
        let client = field.with(&noise(9 * MIB, 1));
        let size = 16 * MIB;
        let content = noise(size, 2);
        for skip in (257..282).step_by(2) {
            client.write("g", &content);
            let sent = sent_with_a_cut(&field, &client, skip, trip);
            assert!(sent <= (size + 2 * MIB) as u64, "{skip} {trip:?}: {sent}");
            assert!(field.on_server("g") == content);
            client.unlink("g");
            // Nothing is left that could be copied.
            field.send(&client);
            field.clock.advance(100 * 86_400);
            client.sync();
            client.sync();
            assert_eq!(field.staged(), 0, "{skip} {trip:?}");
        }
    }
}

#[test]
fn an_upload_goes_on_after_a_restart_and_only_with_the_same_content() {
    for changed in [false, true] {
        let field = Field::new();
        let client = field.client("a");
        let mut content = noise(SIZE, 1);
        client.write("f", &content);
        cut_off(&field, &client, 900, Trip::CutBefore);
        let first = client.calls().bytes_written;
        if changed {
            content[SIZE - 1] ^= 1;
            client.write_at("f", SIZE as u64 - 1, &content[SIZE - 1..]);
        }
        drop(client);
        let client = field.client("a");
        let rest = field.send(&client).bytes_written;
        match changed {
            false => assert!(first + rest <= (SIZE + 8 * MIB) as u64, "{first} {rest}"),
            true => assert_eq!(rest, SIZE as u64),
        }
        assert!(field.on_server("f") == content);
        client.sync();
        assert_eq!((client.sync().done, field.staged()), (0, 0));
    }
}

#[test]
fn what_a_server_lost_of_an_upload_with_its_power_is_sent_again() {
    let field = Field::new();
    let client = field.client("a");
    let content = noise(SIZE, 1);
    client.write("f", &content);
    cut_off(&field, &client, 900, Trip::CutBefore);
    // What it was asked to make durable stays.
    field.server.crash();
    client.is_last_connection(false);
    client.reconnect();
    client.flush();
    let sent = client.calls().bytes_written;
    assert!(
        sent > SIZE as u64 && sent < (SIZE + 40 * MIB) as u64,
        "{sent}"
    );
    assert!(field.on_server("f") == content);
}

#[test]
fn a_download_that_was_cut_off_goes_on() {
    for (n, restart) in [false, true].into_iter().enumerate() {
        let field = Field::new();
        let content = noise(SIZE, n as u64);
        field.server.write_file(&path_of("f"), &content).unwrap();
        field.clock.advance(5);
        let mut client = field.client("a");
        client.sync();
        field.server.trip(200, Trip::CutBefore);
        client.is_last_connection(true);
        assert!(client.read("f").is_err());
        client.is_last_connection(false);
        let first = client.calls().bytes_read;
        let mut before = first;
        if restart {
            drop(client);
            client = field.client("a");
            before = 0;
        } else {
            client.reconnect();
        }
        assert!(client.read("f").unwrap() == content);
        let rest = client.calls().bytes_read - before;
        assert!(first > 30 * MIB as u64, "{first}");
        assert!(first + rest <= (SIZE + 8 * MIB) as u64, "{first} {rest}");
    }
}

#[test]
fn a_download_goes_on_only_with_the_same_version() {
    for same_looks in [false, true] {
        let field = Field::new();
        let content = noise(SIZE, 1);
        field.server.write_file(&path_of("f"), &content).unwrap();
        field.clock.advance(5);
        let stat = field.server.stat(&path_of("f")).unwrap();
        let client = field.client("a");
        client.sync();
        field.server.trip(200, Trip::CutBefore);
        client.is_last_connection(true);
        assert!(client.read("f").is_err());
        client.is_last_connection(false);
        let other = noise(SIZE, 2);
        field.server.write_file(&path_of("f"), &other).unwrap();
        if same_looks {
            field.date(stat.mtime);
        }
        field.clock.advance(5);
        client.reconnect();
        client.sync();
        let read = client.read("f");
        if same_looks {
            // What is here is compared, and who reads of it is told that it is another file.
            let error = read.unwrap_err();
            assert_eq!(error.to_errno(), libc::ESTALE, "{error}");
        } else {
            assert!(read.unwrap() == other);
        }
        assert!(client.read("f").unwrap() == other, "{same_looks}");
    }
}

#[test]
fn a_renamed_directory_of_many_files_is_a_few_requests() {
    let field = Field::new();
    let client = field.client("a");
    client.mkdir("d");
    for n in 0..2000 {
        client.write(&format!("d/{n}"), &noise(100_000, n));
    }
    field.send(&client);
    client.rename("d", "e");
    let took = field.send(&client);
    assert!(took.total() < 20 && took.bytes_written == 0, "{took:?}");
    assert_eq!(field.on_server("e/1999"), noise(100_000, 1999));
}
