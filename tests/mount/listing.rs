//! Listing while entries come and go, as `rm -r` and mail programs do.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use roamhome::tree::NodeId;
use rustix::fs::{Dir, Mode, OFlags};

use crate::support::mounted::TestMount;

const MANY: usize = 100_000;

#[test]
fn a_directory_of_100000_entries_is_listed_whole_while_it_changes() {
    let mount = TestMount::new();
    let names: Vec<String> = (0..MANY).map(|n| format!("entry {n:06}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    mount.server.put_dir(NodeId::ROOT, "d", &all);
    let dir = mount.join("d");
    let mut seen = BTreeSet::new();
    for (number, entry) in fs::read_dir(&dir).unwrap().enumerate() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if number % 10_000 == 0 {
            // Gone behind whoever lists, come somewhere, and somebody else begins to list.
            fs::remove_file(dir.join(&name)).unwrap();
            fs::write(dir.join(format!("new {number}")), "").unwrap();
            assert!(fs::read_dir(&dir).unwrap().next().is_some());
        }
        assert!(seen.insert(name), "twice");
    }
    let missed = names.iter().filter(|name| !seen.contains(*name));
    assert_eq!(missed.count(), 0);
    let left = fs::read_dir(&dir).unwrap().count();
    assert_eq!(left, MANY);
}

#[test]
fn a_place_in_a_listing_stays_what_it_is_while_entries_come_and_go() {
    const STAYING: usize = 3_000;
    let mount = TestMount::new();
    let names: Vec<String> = (0..STAYING).map(|n| format!("stays {n:04}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    mount.server.put_dir(NodeId::ROOT, "d", &all);
    let dir = mount.join("d");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let (here, there) = (
                    dir.join(format!("comes {n}")),
                    dir.join(format!("goes {n}")),
                );
                fs::write(&here, "").unwrap();
                fs::rename(&here, &there).unwrap();
                fs::remove_file(&there).unwrap();
            }
        });
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let open = rustix::fs::open(&dir, flags, Mode::empty()).unwrap();
        let mut listing = Dir::new(open).unwrap();
        let next = |listing: &mut Dir| {
            let staying = listing.by_ref().map(Result::unwrap).find(|entry| {
                let name = entry.file_name().to_bytes();
                name.starts_with(b"stays")
            });
            staying.map(|entry| (entry.file_name().to_owned(), entry.offset()))
        };
        for _ in 0..3 {
            listing.rewind();
            let mut places = Vec::new();
            while let Some(place) = next(&mut listing) {
                places.push(place);
            }
            let names: BTreeSet<_> = places.iter().map(|(name, _)| name).collect();
            assert_eq!((places.len(), names.len()), (STAYING, STAYING));
            // Behind each entry is the next one, wherever one comes from.
            for pair in places.windows(2).step_by(97).rev() {
                listing.seek(pair[0].1).unwrap();
                assert_eq!(next(&mut listing).as_ref(), Some(&pair[1]));
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    let removed = Command::new("rm").arg("-r").arg(&dir).status();
    assert!(removed.unwrap().success());
    assert!(fs::symlink_metadata(&dir).is_err());
}
