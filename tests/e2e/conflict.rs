//! Two machines with one home: what one does, the other sees, and where both did something nothing is lost.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{CWD, Mode, mkfifoat};

use crate::support::machine::{Machine, Said, Site, assert_same, eventually, tree};

/// Times that leave no doubt which of two versions is newer.
const OLD: u64 = 1_600_000_000;
const NEW: u64 = OLD + 86_400;

fn write(path: &Path, content: &str, mtime: u64) {
    fs::write(path, content).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(mtime))
        .unwrap();
}

/// Both machines and the server agree on everything.
#[track_caller]
fn settle(site: &Site, machines: [&Machine; 2]) {
    // What one sends, the other has to look at, and may have to answer.
    for _ in 0..2 {
        for machine in machines {
            machine.flush();
            machine.reconcile();
        }
    }
    for machine in machines {
        machine.flush();
        assert_same(&site.home(), &machine.home());
        let status = machine.status();
        assert_eq!(status["unsent"]["files"], 0, "{status}");
        assert_eq!(status["problems"].as_array().unwrap().len(), 0, "{status}");
    }
}

#[test]
fn what_one_machine_does_the_other_sees() {
    let site = Site::new();
    let (a, b) = (site.machine("a"), site.machine("b"));
    a.mount();
    b.mount();
    fs::create_dir_all(a.at("docs/deep")).unwrap();
    fs::write(a.at("docs/deep/from-a"), "a").unwrap();
    fs::set_permissions(a.at("docs/deep/from-a"), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("deep/from-a", a.at("docs/link")).unwrap();
    a.flush();
    b.reconcile();
    assert_eq!(fs::read_to_string(b.at("docs/link")).unwrap(), "a");

    fs::write(b.at("docs/from-b"), "b").unwrap();
    fs::write(b.at("docs/deep/from-a"), "a, changed").unwrap();
    fs::remove_file(b.at("docs/link")).unwrap();
    fs::rename(b.at("docs/deep"), b.at("docs/shallow")).unwrap();
    b.flush();
    a.reconcile();
    assert_eq!(
        fs::read_to_string(a.at("docs/shallow/from-a")).unwrap(),
        "a, changed"
    );
    assert!(!a.at("docs/link").exists() && !a.at("docs/deep").exists());

    a.umount();
    b.umount();
    a.check();
    b.check();
    a.mount();
    b.mount();
    settle(&site, [&a, &b]);
    assert_eq!(tree(&a.home()).len(), 4);
}

#[test]
fn what_both_machines_did_merges_and_no_content_is_lost() {
    let site = Site::new();
    let (a, b) = (site.machine("a"), site.machine("b"));
    a.mount();
    for name in [
        "edited",
        "edited-deleted",
        "deleted",
        "moved-edited",
        "moved-twice",
    ] {
        write(&a.at(name), &format!("{name}: base"), OLD - 86_400);
    }
    a.flush();
    b.mount();
    settle(&site, [&a, &b]);

    // b is the later to meet the server in all of this.
    b.ask("offline");
    write(&a.at("edited"), "edited: loses", OLD);
    write(&b.at("edited"), "edited: wins", NEW);
    write(&a.at("edited-deleted"), "edited, not deleted", OLD);
    fs::remove_file(b.at("edited-deleted")).unwrap();
    fs::remove_file(a.at("deleted")).unwrap();
    fs::remove_file(b.at("deleted")).unwrap();
    write(&a.at("created-equal"), "equal", OLD);
    write(&b.at("created-equal"), "equal", OLD);
    write(&a.at("created"), "created: wins", NEW);
    write(&b.at("created"), "created: loses", OLD);
    write(&a.at("file-or-directory"), "file there", OLD);
    fs::create_dir(b.at("file-or-directory")).unwrap();
    write(
        &b.at("file-or-directory/child"),
        "child of the directory",
        OLD,
    );
    fs::rename(a.at("moved-edited"), a.at("moved-edited-there")).unwrap();
    write(&b.at("moved-edited"), "moved-edited: edited", NEW);
    fs::rename(a.at("moved-twice"), a.at("moved-twice-a")).unwrap();
    fs::rename(b.at("moved-twice"), b.at("moved-twice-b")).unwrap();
    a.flush();
    b.ask("online");
    settle(&site, [&a, &b]);

    let read = |path: &str| fs::read_to_string(a.at(path)).unwrap();
    assert_eq!(read("edited"), "edited: wins");
    assert_eq!(read("edited-deleted"), "edited, not deleted");
    assert!(!a.at("deleted").exists());
    assert_eq!(read("created-equal"), "equal");
    assert_eq!(read("created"), "created: wins");

    let mut kept = a.backups();
    kept.extend(b.backups());
    for (name, _) in tree(&a.home()) {
        kept.extend(fs::read_to_string(a.at(name)).ok());
    }
    for content in [
        "edited: loses",
        "created: loses",
        "file there",
        "child of the directory",
        "moved-edited: edited",
        "moved-edited: base",
        "moved-twice: base",
    ] {
        assert!(kept.iter().any(|k| k == content), "{content}: {kept:?}");
    }
    assert_eq!(kept.iter().filter(|k| *k == "equal").count(), 1);

    a.umount();
    b.umount();
    a.check();
    b.check();
    a.mount();
    b.mount();
    settle(&site, [&a, &b]);
}

/// A file of which b's version won and a's lost, on the server if `sent`, else here.
fn quarrel(a: &Machine, b: &Machine, name: &str, sent: bool) {
    write(&a.at(name), "base", OLD - 86_400);
    a.flush();
    b.reconcile();
    let (loser, winner, last) = (a, b, if sent { b } else { a });
    last.ask("offline");
    write(&loser.at(name), "loses", OLD);
    write(&winner.at(name), "wins, of course", NEW);
    let first = if sent { loser } else { winner };
    first.flush();
    last.ask("online");
    last.reconcile();
    first.reconcile();
}

fn conflicts(machine: &Machine, args: &[&str]) -> String {
    let mount = machine.home();
    let mut all = vec!["conflicts", "--mount", mount.to_str().unwrap()];
    all.extend(args);
    machine.run(&all)
}

fn listed(machine: &Machine) -> Vec<serde_json::Value> {
    let list = conflicts(machine, &["list", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    list["conflicts"].as_array().unwrap().clone()
}

/// This machine's name.
fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    name.trim_end().to_owned()
}

/// Decides about what b's version won, and looks what came of it.
fn decide(a: &Machine, b: &Machine, (sent, keep, stands): (bool, &str, &str)) {
    let name = format!("{keep} {sent}.txt");
    quarrel(a, b, &name, sent);
    let machine = if sent { b } else { a };
    let found = listed(machine);
    let case = format!("{sent} {keep}: {found:?}");
    assert_eq!(found.len(), 1, "{case}");
    assert_eq!(machine.status()["conflicts"], 1, "{case}");
    assert_eq!(found[0]["lost"], if sent { "theirs" } else { "mine" });
    let id = found[0]["id"].as_str().unwrap();
    let shown = conflicts(machine, &["show", id]);
    assert!(
        shown.contains(" 5 B ") && shown.contains(" 15 B "),
        "{shown}"
    );
    conflicts(machine, &["resolve", id, "--keep", keep]);
    let read = |name: &Path| fs::read_to_string(machine.at(name)).unwrap();
    assert_eq!(read(Path::new(&name)), stands, "{case}");
    let mut copies: Vec<_> = tree(&machine.home()).into_keys().collect();
    copies.retain(|name| name.to_string_lossy().contains("conflicting copy"));
    assert_eq!(copies.len(), usize::from(keep == "both"), "{copies:?}");
    if sent && keep == "both" {
        // Both machines of the test are this one.
        let copy = format!("both true ({}'s conflicting copy 2020-09-13).txt", host());
        assert_eq!(copies, [copy.as_str()]);
    }
    for copy in copies {
        assert_eq!(read(Path::new(&copy)), "loses");
        fs::remove_file(machine.at(&copy)).unwrap();
    }
    assert!(listed(machine).is_empty(), "{case}");
    assert_eq!(machine.status()["conflicts"], 0, "{case}");
    let backups = machine.backups();
    assert!(backups.iter().any(|kept| kept == "loses"), "{backups:?}");
}

#[test]
fn a_person_decides_which_version_of_a_conflict_stands_and_both_stay_kept() {
    let site = Site::new();
    let (a, b) = (site.machine("a"), site.machine("b"));
    a.mount();
    b.mount();
    for case in [
        (true, "mine", "wins, of course"),
        (true, "theirs", "loses"),
        (true, "both", "wins, of course"),
        (false, "mine", "loses"),
        (false, "theirs", "wins, of course"),
        (false, "both", "wins, of course"),
    ] {
        decide(&a, &b, case);
        let (decided, other) = if case.0 { (&b, &a) } else { (&a, &b) };
        decided.flush();
        other.reconcile();
        for conflict in listed(other) {
            let id = conflict["id"].as_str().unwrap();
            conflicts(other, &["resolve", id, "--keep", "theirs"]);
        }
        settle(&site, [&a, &b]);
    }
    let mount = a.home();
    let args = [
        "conflicts",
        "--mount",
        mount.to_str().unwrap(),
        "show",
        "9-9",
    ];
    a.try_run(&args).assert(1, &["9-9", "conflicts list"]);
    a.umount();
    b.umount();
}

#[test]
fn what_loses_is_shown_beside_the_winner_if_the_configuration_says_so() {
    let site = Site::new();
    let (a, b) = (site.machine("a"), site.machine("b"));
    for machine in [&a, &b] {
        let config = machine.disk("config.toml");
        let settings = fs::read_to_string(&config).unwrap();
        fs::write(&config, settings + "conflict_copies = \"visible\"\n").unwrap();
        machine.mount();
    }
    quarrel(&a, &b, "there.txt", true);
    quarrel(&a, &b, "here.txt", false);
    let there = format!("there ({}'s conflicting copy 2020-09-13).txt", host());
    eventually("both losers are shown", || {
        let shown = |name: &str, machine: &Machine| {
            let names = tree(&machine.home()).into_keys();
            let copies = names.filter(|known| {
                let known = known.to_string_lossy();
                known.starts_with(name) && known.contains("conflicting copy")
            });
            copies.count() == 1
        };
        shown("there", &b) && shown("here", &a)
    });
    assert_eq!(fs::read_to_string(b.at(&there)).unwrap(), "loses");
    settle(&site, [&a, &b]);
    // One copy of each, whoever looks, and nothing is left to be decided where it was put aside.
    assert_eq!(tree(&a.home()).len(), 4, "{:?}", tree(&a.home()));
    assert!(listed(&b).is_empty());
    settle(&site, [&a, &b]);
    assert_eq!(tree(&b.home()).len(), 4);
    a.umount();
    b.umount();
}

fn undo(machine: &Machine, pass: u64, dry_run: bool) -> Said {
    let (mount, pass) = (machine.home(), pass.to_string());
    let mut args = vec!["undo", &pass, "--mount", mount.to_str().unwrap()];
    args.extend(dry_run.then_some("--dry-run"));
    machine.try_run(&args)
}

/// The latest pass that did something.
fn last_pass(machine: &Machine) -> u64 {
    let list = machine.run(&["passes", "--json", machine.home().to_str().unwrap()]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    list["passes"][0]["id"].as_u64().unwrap()
}

#[test]
fn a_pass_is_taken_back_and_what_changed_since_stays() {
    let site = Site::new();
    let machine = site.machine("m");
    machine.mount();
    let there = site.home();
    for name in ["gone", "replaced", "touched", "dir/inside"] {
        fs::create_dir_all(machine.at("dir")).unwrap();
        write(&machine.at(name), &format!("{name}: base"), OLD);
    }
    machine.flush();
    machine.reconcile();
    let before = tree(&machine.home());

    // Somebody's script ran on the server.
    fs::remove_file(there.join("gone")).unwrap();
    write(&there.join("replaced"), "replaced: by a script", NEW);
    write(&there.join("touched"), "touched: by a script", NEW);
    write(&there.join("new"), "new: by a script", NEW);
    fs::create_dir(there.join("newdir")).unwrap();
    fs::remove_dir_all(there.join("dir")).unwrap();
    machine.reconcile();
    let pass = last_pass(&machine);
    let ruined = tree(&machine.home());
    assert!(!machine.at("gone").exists() && !machine.at("dir").exists());
    undo(&machine, pass, true).assert(0, &["put back gone", "remove new", "make directory dir"]);
    assert_eq!(tree(&machine.home()), ruined, "--dry-run only tells");

    // A person has gone on with one of the files.
    fs::write(machine.at("touched"), "touched: by hand").unwrap();
    undo(&machine, pass, false).assert(3, &["stays: touched: it changed since"]);
    let mut after = tree(&machine.home());
    let touched = after.remove(OsStr::new("touched"));
    assert_ne!(touched.as_ref(), before.get(OsStr::new("touched")));
    let mut expected = before;
    expected.remove(OsStr::new("touched"));
    assert_eq!(after, expected);
    machine.flush();
    assert_same(&there, &machine.home());
    // What the script wrote is kept.
    let backups = machine.backups();
    assert!(
        backups.contains(&"replaced: by a script".to_owned()),
        "{backups:?}"
    );
    let trash = machine.run(&["trash", "--mount", machine.home().to_str().unwrap(), "list"]);
    assert!(trash.contains(" new "), "{trash}");

    // What went to the server comes back from there, and moves are moved back.
    fs::rename(machine.at("replaced"), machine.at("renamed")).unwrap();
    fs::remove_file(machine.at("gone")).unwrap();
    machine.flush();
    undo(&machine, last_pass(&machine), false).assert(0, &["put back gone", "move renamed back"]);
    machine.flush();
    assert_eq!(
        fs::read_to_string(there.join("gone")).unwrap(),
        "gone: base"
    );
    assert!(there.join("replaced").exists() && !there.join("renamed").exists());
    undo(&machine, 999, false).assert(1, &["pass 999", "roamhome passes"]);
    machine.umount();
    machine.check();
}

#[test]
fn a_question_names_what_a_yes_would_do_and_a_no_changes_nothing() {
    let site = Site::new();
    let machine = site.machine("m");
    machine.mount();
    fs::create_dir(machine.at("many")).unwrap();
    for i in 0..120 {
        fs::write(machine.at(format!("many/{i:03}")), "x").unwrap();
    }
    machine.flush();
    machine.reconcile();
    let before = tree(&machine.home());
    fs::remove_dir_all(site.home().join("many")).unwrap();
    let said = machine.try_ask("reconcile");
    said.assert(
        12,
        &[
            "121 of 122 files and directories would be removed on this machine",
            "remove 121 files and directories on this machine",
            "remove many/000",
            "and 116 more",
            "--dry-run",
        ],
    );
    assert_eq!(tree(&machine.home()), before);
    let home = machine.home();
    machine.run(&["reconcile", "--force-guard", home.to_str().unwrap()]);
    assert!(tree(&machine.home()).is_empty());
    // Which was wrong, and is taken back.
    undo(&machine, last_pass(&machine), false).assert(0, &["put back many/000"]);
    // What could be taken for the version before it is dated a little later.
    let (mut back, mut before) = (tree(&machine.home()), before);
    for seen in back.values_mut().chain(before.values_mut()) {
        seen.mtime = 0;
    }
    assert_eq!(back, before);
    machine.umount();
}

#[test]
fn a_link_comes_back_from_the_trash_and_from_the_backups_as_a_link() {
    let site = Site::new();
    let machine = site.machine("m");
    machine.mount();
    let mount = machine.home();
    let kept = |args: &[&str]| {
        let (shelf, rest) = args.split_first().unwrap();
        let mut all = vec![*shelf, "--mount", mount.to_str().unwrap()];
        all.extend(rest);
        machine.run(&all)
    };
    let first_id = |list: String| list.split_whitespace().next().unwrap().to_owned();
    let link = machine.at("link");
    symlink("first", &link).unwrap();
    machine.flush();
    fs::remove_file(&link).unwrap();
    machine.flush();
    let id = first_id(kept(&["trash", "list"]));
    kept(&["trash", "restore", &id]);
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("first"));
    machine.flush();
    // All that lists takes the mount as `status` does.
    for shelf in ["trash", "backups", "conflicts"] {
        let by_option = kept(&[shelf, "list"]);
        assert_eq!(
            machine.run(&[shelf, "list", mount.to_str().unwrap()]),
            by_option
        );
    }

    // Somebody else's takes its place, and is replaced in its turn.
    fs::remove_file(site.home().join("link")).unwrap();
    symlink("other", site.home().join("link")).unwrap();
    machine.reconcile();
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("other"));
    let list = kept(&["backups", "list"]);
    assert!(list.contains(" 5 B "), "{list}");
    let id = first_id(list);
    assert_eq!(kept(&["backups", "show", &id]), "first");
    kept(&["backups", "restore", &id]);
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("first"));
    machine.flush();
    assert_same(&site.home(), &machine.home());
    assert!(machine.backups().contains(&"other".to_owned()));
    machine.umount();
}

#[test]
fn what_is_in_the_way_on_the_server_is_a_problem_until_it_is_gone() {
    let site = Site::new();
    let machine = site.machine("m");
    machine.mount();
    let pipe = site.home().join("name");
    mkfifoat(CWD, &pipe, Mode::from_raw_mode(0o600)).unwrap();
    fs::write(machine.at("name"), "unsent").unwrap();
    let mount = machine.home();
    let said = machine.try_run(&["flush", "--timeout", "2s", mount.to_str().unwrap()]);
    said.assert(3, &["name"]);
    let problems = machine.status()["problems"].clone();
    assert_eq!(problems[0]["path"], "name", "{problems}");
    let message = problems[0]["message"].as_str().unwrap();
    assert!(message.contains("on the server"), "{message}");
    fs::remove_file(&pipe).unwrap();
    machine.reconcile();
    machine.flush();
    assert_eq!(fs::read_to_string(&pipe).unwrap(), "unsent");
    assert_eq!(machine.status()["problems"].as_array().unwrap().len(), 0);
    machine.umount();
}

#[test]
fn offline_the_lists_of_what_is_kept_say_what_they_lack() {
    let site = Site::new();
    let machine = site.machine("m");
    machine.mount();
    let list = |shelf: &str| {
        let mount = machine.home();
        machine.try_run(&[shelf, "--mount", mount.to_str().unwrap(), "list"])
    };
    machine.ask("offline");
    for shelf in ["trash", "backups"] {
        list(shelf).assert(4, &["the server cannot be reached", "roamhome status"]);
    }
    machine.ask("online");
    fs::write(machine.at("f"), "here").unwrap();
    machine.flush();
    fs::write(site.home().join("f"), "somebody else's").unwrap();
    machine.reconcile();
    list("trash").assert(0, &["nothing is kept"]);
    machine.ask("offline");
    let said = list("backups");
    said.assert(0, &["local-0", "on the server is not shown"]);
    assert!(!said.stdout.contains("not shown"), "{said:?}");
    list("trash").assert(4, &[]);
    machine.umount();
}
