//! Large files that the kernel reads and writes by itself, with real daemons that are killed meanwhile.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::thread;
use std::time::Duration;

use crate::support::chance::content;
use crate::support::machine::{Machine, Site, assert_same, eventually};
use crate::support::memory::Shared;

const SIZE: usize = 20 << 20;
const PAGE: usize = 4096;

fn rw(machine: &Machine, name: &str) -> File {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .open(machine.at(name))
        .unwrap()
}

fn on_server(site: &Site, name: &str, at: usize) -> u8 {
    fs::read(site.home().join(name)).unwrap()[at]
}

#[test]
fn what_the_kernel_wrote_is_sent_whoever_is_killed_and_what_nobody_wrote_is_not() {
    let site = Site::new();
    let machine = site.machine("m");
    machine.mount();
    for name in ["written", "mapped", "unwritten"] {
        fs::write(machine.at(name), content(1, SIZE)).unwrap();
    }
    machine.flush();
    let dates = |name: &str| fs::metadata(site.home().join(name)).unwrap().mtime();
    let before = dates("unwritten");
    thread::sleep(Duration::from_millis(1100));
    let [written, unwritten] = ["written", "unwritten"].map(|name| rw(&machine, name));
    written.write_all_at(b"W", 5).unwrap();
    machine.kill9();
    drop((written, unwritten));
    machine.mount();
    machine.flush();
    assert_eq!(on_server(&site, "written", 5), b'W');
    assert_eq!(dates("unwritten"), before);
    let mapped = rw(&machine, "mapped");
    let memory = Shared::of(&mapped, SIZE, true);
    drop(mapped);
    memory.set(PAGE, b'M');
    machine.kill9();
    machine.mount();
    machine.flush();
    assert_eq!(on_server(&site, "mapped", PAGE), b'M');
    // Who maps it outlived the daemon, and goes on writing.
    memory.set(PAGE, b'N');
    memory.set(9 * PAGE, b'O');
    eventually("what is written by who outlived a daemon is sent", || {
        machine.flush();
        on_server(&site, "mapped", PAGE) == b'N' && on_server(&site, "mapped", 9 * PAGE) == b'O'
    });
    // Whoever opens it by the new daemon sees the same.
    let again = rw(&machine, "mapped");
    again.write_all_at(b"P", 2 * PAGE as u64).unwrap();
    assert_eq!(memory.get(2 * PAGE), b'P');
    drop((again, memory));
    machine.flush();
    assert_eq!(on_server(&site, "mapped", 2 * PAGE), b'P');
    assert_same(&site.home(), &machine.home());
    machine.umount();
    machine.check();
}

#[test]
fn a_large_file_that_is_written_by_the_kernel_all_the_time_is_whole_on_the_server() {
    let site = Site::new();
    let machine = site.machine("m");
    machine.mount();
    fs::write(machine.at("f"), vec![1; SIZE]).unwrap();
    machine.flush();
    let file = rw(&machine, "f");
    for byte in 2..12_u8 {
        file.write_all_at(&vec![byte; SIZE], 0).unwrap();
        if byte % 2 == 0 {
            machine.ask("reconcile");
        }
        let there = fs::read(site.home().join("f")).unwrap();
        assert!(
            there.len() == SIZE && there.iter().all(|b| *b == there[0]),
            "torn"
        );
    }
    drop(file);
    machine.flush();
    assert_eq!(on_server(&site, "f", 7), 11);
    assert_same(&site.home(), &machine.home());
    machine.umount();
    machine.check();
}
