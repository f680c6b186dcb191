//! Rename: every kind over every kind, in every mode.

use super::*;

const KINDS: [&str; 6] = ["nothing", "file", "empty", "full", "symlink", "fifo"];

fn make(fix: &Fixture, kind: &str, path: &str) {
    let Place { parent, name } = fix.place(path);
    match kind {
        "nothing" => {}
        "file" => {
            fix.write(path, b"x");
        }
        "empty" => {
            fix.mkdir(path);
        }
        "full" => {
            fix.mkdir(path);
            fix.write(&format!("{path}/inside"), b"x");
        }
        "symlink" => {
            done(fix.home.symlink(parent, &name, b"to", ME)).unwrap();
        }
        _ => {
            let fifo = SpecialKind::Fifo;
            done(fix.home.mknod(parent, &name, fifo, 0o600, ME)).unwrap();
        }
    }
}

/// What rename(2) says.
fn expected(from: &str, to: &str, mode: RenameMode) -> i32 {
    let is_dir = |kind| matches!(kind, "empty" | "full");
    match (from, to, mode) {
        ("nothing", _, _) | (_, "nothing", RenameMode::Exchange) => libc::ENOENT,
        (_, "nothing", _) | (_, _, RenameMode::Exchange) => 0,
        (_, _, RenameMode::NoReplace) => libc::EEXIST,
        (from, to, _) if is_dir(from) && !is_dir(to) => libc::ENOTDIR,
        (from, to, _) if !is_dir(from) && is_dir(to) => libc::EISDIR,
        (_, "full", _) => libc::ENOTEMPTY,
        _ => 0,
    }
}

#[test]
fn every_kind_over_every_kind_does_what_posix_says() {
    for mode in [
        RenameMode::Replace,
        RenameMode::NoReplace,
        RenameMode::Exchange,
    ] {
        let fix = fixture();
        for (a, from) in KINDS.into_iter().enumerate() {
            for (b, to) in KINDS.into_iter().enumerate() {
                let case = format!("{mode:?} {from} to {to}");
                let (dir, other) = (format!("from{a}{b}"), format!("to{a}{b}"));
                fix.mkdir(&dir);
                fix.mkdir(&other);
                let (source, target) = (format!("{dir}/x"), format!("{other}/y"));
                make(&fix, from, &source);
                make(&fix, to, &target);
                let (moved, replaced) = (fix.attr(&source), fix.attr(&target));
                assert_eq!(
                    errno(fix.rename(&source, &target, mode)),
                    expected(from, to, mode),
                    "{case}"
                );
                let (now, then) = match (expected(from, to, mode), mode) {
                    (0, RenameMode::Exchange) => (replaced, moved),
                    (0, _) => (None, moved),
                    _ => (moved, replaced),
                };
                let id = |attr: Option<Attr>| attr.map(|attr| attr.id);
                assert_eq!(id(fix.attr(&source)), id(now), "{case}");
                assert_eq!(id(fix.attr(&target)), id(then), "{case}");
                for dir in [dir, other] {
                    check_link_count(&fix, &dir, &case);
                }
            }
        }
    }
}

fn check_link_count(fix: &Fixture, dir: &str, case: &str) {
    let attr = fix.attr(dir).unwrap();
    let entries = listed(fix, attr.id)
        .into_iter()
        .filter(|name| !name.starts_with('.'));
    let dirs = entries
        .filter(|name| fix.attr(&format!("{dir}/{name}")).unwrap().kind == Kind::Dir)
        .count();
    assert_eq!(attr.nlink as usize, 2 + dirs, "{case}");
}

#[test]
fn a_directory_cannot_go_into_itself() {
    let fix = fixture();
    fix.mkdir("d");
    fix.mkdir("d/e");
    fix.mkdir("d/e/f");
    for (from, to, mode) in [
        ("d", "d/e/x", RenameMode::Replace),
        ("d", "d/e/f", RenameMode::Exchange),
        ("d/e/f", "d", RenameMode::Exchange),
    ] {
        assert_eq!(errno(fix.rename(from, to, mode)), libc::EINVAL);
    }
}

#[test]
fn two_names_of_one_file_stay_both() {
    let fix = fixture();
    let id = fix.write("a", b"x");
    done(fix.home.link(id, ROOT, &name("b"))).unwrap();
    fix.clean();
    fix.rename("a", "b", RenameMode::Replace).unwrap();
    assert_eq!(fix.attr("a").unwrap().nlink, 2);
    assert!(fix.dirty().is_empty());
}

#[test]
fn what_is_open_can_be_replaced() {
    let fix = fixture();
    let (old, new) = (fix.write("f", b"old"), fix.write("f.new", b"new"));
    let reader = fix.open(old, false);
    fix.rename("f.new", "f", RenameMode::Replace).unwrap();
    assert_eq!(fix.home.read(reader, 0, 10).unwrap(), b"old");
    assert_eq!(fix.read(fix.id("f")), b"new");
    fix.home.release(reader).unwrap();
    assert_eq!((fix.node(old), fix.id("f")), (None, new));
}
