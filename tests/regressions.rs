//! What the simulations found, as stories.

use roamhome::engine::Scope;
use roamhome::remote::memory::Trip;
use roamhome::remote::{ErrorKind, layout};
use roamhome::tree::RelPath;

use crate::support::client::Client;
use crate::support::field::{Field, path_of};

impl Field {
    fn below(&self, dir: &RelPath) -> usize {
        let tree = self.server.tree();
        let inside = |path: &&RelPath| *path != dir && path.names().starts_with(dir.names());
        tree.keys().filter(inside).count()
    }
}

const LOOK: Scope = Scope::Full {
    now: true,
    force_guard: false,
};

#[test]
fn a_link_that_is_up_stays_when_it_is_asked_for_again() {
    let field = Field::new();
    let a = field.client("a");
    a.sync();
    let before = field.server.calls();
    a.engine.hold(false);
    std::thread::sleep(std::time::Duration::from_millis(20));
    a.settle();
    assert_eq!(field.server.calls(), before);
}

#[test]
fn a_file_renamed_here_and_changed_on_the_server_is_both() {
    let field = Field::new();
    let a = field.client("a");
    a.mkdir("d");
    a.write("d/old", b"one");
    a.flush();
    field.clock.advance(10);
    field
        .server
        .write_file(&path_of("d/old"), b"changed there")
        .unwrap();
    a.rename("d/old", "new");
    a.sync();
    assert_eq!(a.sync().failed, 0);
    assert_eq!(a.read("new").unwrap(), b"changed there");
    assert_eq!(
        field.server.read_file(&path_of("new")).unwrap(),
        b"changed there"
    );
}

#[test]
fn what_appeared_in_a_directory_that_was_removed_here_is_found() {
    for full in [true, false] {
        let field = Field::new();
        let a = field.client("a");
        a.mkdir("a");
        a.mkdir("b");
        a.flush();
        field.server.make_dir(&path_of("b/new")).unwrap();
        a.rename("a", "b");
        if full {
            a.sync();
            assert_eq!(a.sync().failed, 0);
        } else {
            assert_eq!(a.flush(), 0);
            a.sync();
        }
        let paths: Vec<_> = a.tree().into_iter().map(|(path, ..)| path).collect();
        assert_eq!(paths, ["b", "b/new"], "{full}");
    }
}

#[test]
fn a_file_emptied_on_the_server_is_empty_here() {
    let field = Field::new();
    let a = field.client("a");
    a.write("f", b"full");
    a.flush();
    field.clock.advance(10);
    field.server.write_file(&path_of("f"), b"").unwrap();
    a.sync();
    assert_eq!(a.read("f").unwrap(), b"");
}

#[test]
fn a_directory_that_can_be_listed_again_is_no_problem_any_more() {
    let field = Field::new();
    let a = field.client("a");
    a.mkdir("d");
    a.flush();
    field
        .server
        .refuse(&path_of("d"), Some(ErrorKind::PermissionDenied));
    a.pass(LOOK);
    assert_eq!(a.engine.status().unwrap().problems.len(), 1);
    field.server.refuse(&path_of("d"), None);
    a.pass(LOOK);
    assert_eq!(a.engine.status().unwrap().problems, []);
}

#[test]
fn an_upload_that_failed_leaves_nothing_in_staging_whatever_its_times() {
    let field = Field::new();
    let a = field.client("a");
    field.server.set_capacity(0);
    a.write("f", b"does not fit");
    a.pass(Scope::Push { now: true });
    assert_eq!(field.below(&layout::staging()), 0);
    let problems = a.engine.status().unwrap().problems;
    assert!(problems[0].message.contains("may be full"), "{problems:?}");
    a.pass(LOOK);
    field.server.set_capacity(1 << 40);
    a.pass(LOOK);
    assert_eq!(field.below(&layout::staging()), 0);
    assert_eq!(
        field.server.read_file(&path_of("f")).unwrap(),
        b"does not fit"
    );
}

#[test]
fn a_cut_while_a_pass_is_announced_leaves_one_counter() {
    for skip in 0..24 {
        let field = Field::new();
        let a = field.client("a");
        a.sync();
        a.write("f", b"one");
        field.server.trip(skip, Trip::CutAfter);
        // Cut somewhere on its way.
        drop(a.block_on(a.engine.pass(LOOK)));
        a.reconnect();
        drop(a.block_on(a.engine.pass(LOOK)));
        a.reconnect();
        a.write("g", b"two");
        a.sync();
        assert_eq!(field.below(&layout::feed()), 1, "{skip}");
    }
}

#[test]
fn a_directory_renamed_here_and_removed_on_the_server_is_there_with_all_in_it() {
    let field = Field::new();
    let a = field.client("a");
    for dir in ["b", "b/a", "c"] {
        a.mkdir(dir);
    }
    a.write("b/a/f", b"inside");
    a.flush();
    field.server.remove(&path_of("b")).unwrap();
    a.rename("c", "t");
    a.rename("b", "c");
    a.rename("t", "b");
    a.flush();
    a.sync();
    let on_server = field.server.read_file(&path_of("c/a/f"));
    match a.read("c/a/f") {
        Ok(here) => assert_eq!(here, on_server.unwrap()),
        Err(_) => assert!(on_server.is_err()),
    }
    let dirs = |path: &str| field.server.stat(&path_of(path)).is_ok();
    for (path, ..) in a.tree() {
        assert!(dirs(&path), "{path}");
    }
}

/// Does `act`, sends it over a link that is cut after so many more requests, does `then` before the link is
/// back, and tells what is left on the server.
fn left_after_a_cut(skip: u64, act: impl Fn(&Client), then: impl Fn(&Client)) -> Vec<String> {
    let field = Field::new();
    let a = field.client("a");
    a.mkdir("d");
    a.write("d/old", b"was there before");
    a.flush();
    act(&a);
    let tripped = field.server.requests() + skip;
    field.server.trip(skip, Trip::CutAfter);
    // Cut somewhere on its way, or not at all.
    drop(a.block_on(a.engine.pass(LOOK)));
    a.offline();
    then(&a);
    while field.server.requests() <= tripped {
        drop(a.block_on(field.server.session().lstat(&path_of("d"))));
    }
    a.online();
    a.sync();
    assert_eq!(a.sync().failed, 0);
    let here: Vec<_> = a.tree().into_iter().map(|(path, ..)| path).collect();
    let tree = field.server.tree();
    let theirs = tree.keys().filter(|path| !layout::is_ours(path));
    let there: Vec<_> = theirs.map(ToString::to_string).collect();
    assert_eq!(here, there, "cut after {skip}");
    here
}

#[test]
fn what_was_sent_when_the_link_was_cut_does_not_come_back_once_it_is_removed() {
    for skip in (0..36).step_by(3) {
        let write = |a: &Client| a.write("d/new", b"new");
        let left = left_after_a_cut(skip, write, |a| a.unlink("d/new"));
        assert_eq!(left, ["d", "d/old"], "created, cut after {skip}");
        let write = |a: &Client| a.write("d/old", b"replaced");
        let left = left_after_a_cut(skip, write, |a| a.unlink("d/old"));
        assert_eq!(left, ["d"], "replaced, cut after {skip}");
        let rename = |a: &Client| a.rename("d/old", "d/new");
        let left = left_after_a_cut(skip, rename, |a| a.unlink("d/new"));
        assert_eq!(left, ["d"], "renamed, cut after {skip}");
        let left = left_after_a_cut(skip, |a| a.mkdir("d/e"), |a| a.rmdir("d/e"));
        assert_eq!(left, ["d", "d/old"], "made, cut after {skip}");
        let left = left_after_a_cut(skip, |a| a.rename("d", "e"), |a| a.rename("e", "f"));
        assert_eq!(left, ["f", "f/old"], "renamed twice, cut after {skip}");
    }
}

#[test]
fn content_that_a_plan_needs_and_cannot_have_is_a_problem_of_its_file() {
    let field = Field::new();
    let (a, b) = (field.client("a"), field.client("b"));
    a.write("f", b"never read on b");
    a.flush();
    b.sync();
    let refuse = |kind| field.server.refuse(&path_of("f"), kind);
    refuse(Some(ErrorKind::PermissionDenied));
    b.link("f", "g");
    b.write("other", b"goes its way");
    b.pass(LOOK);
    assert_eq!(
        field.server.read_file(&path_of("other")).unwrap(),
        b"goes its way"
    );
    let problems = b.engine.status().unwrap().problems;
    assert!(problems[0].message.contains("made to fail"), "{problems:?}");
    refuse(None);
    b.sync();
    assert_eq!(
        field.server.read_file(&path_of("g")).unwrap(),
        b"never read on b"
    );
    assert_eq!(b.engine.status().unwrap().problems, []);
}

#[test]
fn nothing_is_left_of_a_directory_that_both_replaced_by_an_empty_file() {
    let field = Field::new();
    let a = field.client("a");
    a.mkdir("d");
    a.mkdir("d/s");
    a.write("d/s/f", b"one");
    a.flush();
    a.offline();
    a.rename("d/s", "s");
    a.rmdir("d");
    a.write("d", b"");
    field.clock.advance(10);
    field.server.remove(&path_of("d")).unwrap();
    field.server.write_file(&path_of("d"), b"").unwrap();
    a.online();
    a.sync();
    assert_eq!(a.sync().failed, 0);
    assert_eq!(a.flush(), 0);
}

#[test]
fn what_could_not_be_compared_again_is_compared_once_it_can_be() {
    let field = Field::new();
    let a = field.client("a");
    let path = path_of("f");
    field.server.write_file(&path, b"one").unwrap();
    a.sync();
    assert_eq!(a.read("f").unwrap(), b"one");
    field.server.write_file(&path, b"two").unwrap();
    field
        .server
        .refuse(&path, Some(ErrorKind::PermissionDenied));
    a.sync();
    field.server.refuse(&path, None);
    a.sync();
    assert_eq!(a.read("f").unwrap(), b"two");
}
