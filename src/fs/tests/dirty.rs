//! What is marked for the engine, and what stays on this machine.

use super::*;

fn set(fix: &Fixture, path: &str, set: SetAttr) {
    done(fix.home.set_attr(fix.id(path), set, ME)).unwrap();
}

type Case = (&'static str, fn(&Fixture), &'static [&'static str]);

/// On a home with `f` (also called `d/link`), `d`, `d/e/g` and a symlink `s`.
const CASES: &[Case] = &[
    (
        "create",
        |fix| {
            fix.write("d/new", b"x");
        },
        &["d/new"],
    ),
    (
        "mkdir",
        |fix| {
            fix.mkdir("d/new");
        },
        &["d/new"],
    ),
    (
        "write",
        |fix| {
            fix.write("f", b"y");
        },
        &["f", "d/link"],
    ),
    ("unlink", |fix| fix.unlink("s"), &["s"]),
    (
        "rename a file",
        |fix| fix.rename("d/e/g", "g", RenameMode::Replace).unwrap(),
        &["d/e/g", "g"],
    ),
    (
        "rename a directory",
        |fix| fix.rename("d", "z", RenameMode::Replace).unwrap(),
        &["d", "z"],
    ),
    (
        "replace",
        |fix| fix.rename("s", "d/e/g", RenameMode::Replace).unwrap(),
        &["s", "d/e/g"],
    ),
    (
        "exchange",
        |fix| fix.rename("s", "d", RenameMode::Exchange).unwrap(),
        &["s", "d"],
    ),
    (
        "link",
        |fix| {
            done(fix.home.link(fix.id("f"), ROOT, &name("l"))).unwrap();
        },
        &["l"],
    ),
    (
        "chmod",
        |fix| {
            set(
                fix,
                "d",
                SetAttr {
                    mode: Some(0o700),
                    ..SetAttr::default()
                },
            )
        },
        &["d"],
    ),
    (
        "utimens",
        |fix| {
            set(
                fix,
                "f",
                SetAttr {
                    mtime: Some(SetTime::Now),
                    ..SetAttr::default()
                },
            )
        },
        &["f", "d/link"],
    ),
    (
        "truncate",
        |fix| {
            set(
                fix,
                "d/e/g",
                SetAttr {
                    size: Some(1),
                    ..SetAttr::default()
                },
            )
        },
        &["d/e/g"],
    ),
    (
        "chown",
        |fix| {
            set(
                fix,
                "f",
                SetAttr {
                    uid: Some(1),
                    ..SetAttr::default()
                },
            )
        },
        &[],
    ),
    (
        "atime",
        |fix| {
            set(
                fix,
                "f",
                SetAttr {
                    atime: Some(SetTime::Now),
                    ..SetAttr::default()
                },
            )
        },
        &[],
    ),
    (
        "setxattr",
        |fix| {
            done(
                fix.home
                    .set_xattr(fix.id("d"), b"user.x", b"1", XattrMode::Any),
            )
            .unwrap()
        },
        &["d"],
    ),
    (
        "read",
        |fix| {
            fix.read(fix.id("f"));
        },
        &[],
    ),
    (
        "a pipe",
        |fix| {
            drop(done(fix.home.mknod(
                ROOT,
                &name("p"),
                SpecialKind::Fifo,
                0o600,
                ME,
            )))
        },
        &[],
    ),
    (
        "a lock",
        |fix| {
            fix.write("d/x.lock", b"x");
        },
        &[],
    ),
];

#[test]
fn what_travels_and_changes_is_marked_and_nothing_else() {
    for (what, change, expected) in CASES {
        let fix = fixture();
        let file = fix.write("f", b"x");
        fix.mkdir("d");
        fix.mkdir("d/e");
        fix.write("d/e/g", b"x");
        done(fix.home.link(file, fix.id("d"), &name("link"))).unwrap();
        done(fix.home.symlink(ROOT, &name("s"), b"to", ME)).unwrap();
        fix.clean();
        let told = fix.server.changes.load(Ordering::Relaxed);
        change(&fix);
        let expected: BTreeSet<_> = expected.iter().map(|path| (*path).to_owned()).collect();
        assert_eq!(fix.dirty(), expected, "{what}");
        if !expected.is_empty() {
            assert!(fix.server.changes.load(Ordering::Relaxed) > told, "{what}");
        }
    }
}

#[test]
fn everything_below_a_host_scoped_directory_stays_here() {
    let fix = fixture();
    fix.mkdir("scoped");
    fix.mkdir("scoped/d");
    fix.write("scoped/d/f", b"x");
    assert!(fix.dirty().is_empty());
    assert!(fix.node(fix.id("scoped/d/f")).unwrap().scoped);
}

#[test]
fn what_leaves_a_host_scoped_directory_begins_to_travel() {
    let fix = fixture();
    fix.mkdir("scoped");
    fix.mkdir("scoped/d");
    fix.write("scoped/d/f", b"x");
    fix.write("scoped/d/x.lock", b"x");
    fix.rename("scoped/d", "d", RenameMode::Replace).unwrap();
    let expected = ["d", "d/f"].map(str::to_owned);
    assert_eq!(fix.dirty(), BTreeSet::from(expected));
    assert!(!fix.node(fix.id("d/f")).unwrap().scoped);
    assert!(fix.node(fix.id("d/x.lock")).unwrap().scoped);
}

#[test]
fn what_goes_into_a_host_scoped_directory_is_gone_for_the_server() {
    let fix = fixture();
    fix.mkdir("scoped");
    fix.mkdir("d");
    let id = fix.write("f", b"x");
    fix.clean();
    fix.rename("f", "scoped/f", RenameMode::Replace).unwrap();
    fix.rename("d", "scoped/d", RenameMode::Replace).unwrap();
    assert_eq!(
        fix.dirty(),
        BTreeSet::from(["d".to_owned(), "f".to_owned()])
    );
    let node = fix.node(id).unwrap();
    assert!(
        node.scoped && node.data_changed,
        "the only copy from now on"
    );
    assert!(fix.node(fix.id("scoped/d")).unwrap().scoped);
}

#[test]
fn a_directory_with_something_in_it_has_to_be_copied_into_the_host_scope() {
    let fix = fixture();
    fix.mkdir("scoped");
    fix.mkdir("d");
    fix.write("d/f", b"x");
    fix.clean();
    let error = fix
        .rename("d", "scoped/d", RenameMode::Replace)
        .unwrap_err();
    assert_eq!(error.to_errno(), libc::EXDEV);
    assert_eq!(fix.dirty(), BTreeSet::new());
}

#[test]
fn a_file_with_one_name_outside_travels() {
    let fix = fixture();
    fix.mkdir("scoped");
    let id = fix.write("scoped/f", b"x");
    done(fix.home.link(id, ROOT, &name("f"))).unwrap();
    assert!(!fix.node(id).unwrap().scoped);
    fix.clean();
    fix.write("f", b"y");
    assert!(fix.dirty().contains("f"));
}
