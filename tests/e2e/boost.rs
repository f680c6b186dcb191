//! What a login reads on one machine is on the next one before anybody asks, with the real program.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use crate::support::machine::{Machine, Site, eventually};

/// A file of long ago: what changed a moment ago is compared by its content, and fetched for that.
fn publish(site: &Site, path: &str, content: &[u8]) {
    let path = site.home().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    let long_ago = UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    file.set_modified(long_ago).unwrap();
}

/// Where a file's content is.
fn state(machine: &Machine, path: &str) -> String {
    let mut buffer = [0; 100];
    let path = machine.at(path);
    let len = rustix::fs::getxattr(path, "user.roamhome.state", &mut buffer[..]).unwrap();
    String::from_utf8(buffer[..len].to_vec()).unwrap()
}

fn cat(program: &Path, path: &Path) -> Vec<u8> {
    Command::new(program).arg(path).output().unwrap().stdout
}

#[test]
fn what_a_login_reads_is_on_the_next_machine_before_anybody_asks() {
    let site = Site::new();
    let large = vec![7; 3 << 20];
    for (path, content) in [
        ("config/settings", &b"settings"[..]),
        ("config/deep/er/state", b"state"),
        ("photo", &large),
        ("pictures/thumbnail", b"looked at by an indexer"),
        ("film", &large),
        ("other/left", b"left"),
    ] {
        publish(&site, path, content);
    }
    let a = site.machine("a");
    a.mount();
    let cat_itself = Path::new("/bin/cat");
    assert_eq!(cat(cat_itself, &a.at("config/settings")), b"settings");
    assert_eq!(cat(cat_itself, &a.at("config/deep/er/state")), b"state");
    assert_eq!(cat(cat_itself, &a.at("photo")), large);
    // Of what an indexer reads nothing follows, and what is large it does not get.
    let indexer = a.disk("tracker-extract-3");
    fs::copy(cat_itself, &indexer).unwrap();
    let looked = cat(&indexer, &a.at("pictures/thumbnail"));
    assert_eq!(looked, b"looked at by an indexer");
    assert_eq!(cat(&indexer, &a.at("film")), b"");
    assert_eq!(state(&a, "film"), "remote");
    a.umount();
    // That was short, so the next mount tells.
    a.mount();
    let lists = site.home().join(".roamhome/boost");
    eventually("the home knows what was read", || lists.is_dir());
    a.umount();

    let b = site.machine("b");
    b.mount();
    let read = ["config/settings", "config/deep/er/state", "photo"];
    eventually("all is here", || {
        read.iter().all(|path| state(&b, path) == "local")
    });
    b.reconcile();
    b.ask("offline");
    for path in ["pictures/thumbnail", "film", "other/left"] {
        assert_eq!(state(&b, path), "remote", "{path}");
    }
    assert_eq!(fs::read(b.at("config/deep/er/state")).unwrap(), b"state");

    let c = site.machine("c");
    let config = c.disk("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text + "boost = false\n").unwrap();
    c.mount();
    c.reconcile();
    for path in read {
        assert_eq!(state(&c, path), "remote", "{path}");
    }
}
