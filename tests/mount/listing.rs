//! Listing while entries come and go, as `rm -r` and mail programs do.

use std::collections::BTreeSet;
use std::fs;

use roamhome::tree::NodeId;

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
