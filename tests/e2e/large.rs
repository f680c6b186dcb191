//! What large files cost on the wire, with a real sshd and its SFTP server.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

use crate::support::chance::content;
use crate::support::machine::{Machine, Site, assert_same, eventually};

const MIB: usize = 1 << 20;
const SIZE: usize = 64 * MIB;

/// What passes while `work` is done and all is sent.
fn passed(machine: &Machine, work: impl FnOnce()) -> usize {
    let before = machine.proxy.passed();
    work();
    machine.flush();
    (machine.proxy.passed() - before) as usize
}

#[test]
fn little_crosses_the_wire_of_what_the_server_has() {
    let site = Site::new();
    let machine = site.machine("m");
    machine.mount();
    let mut data = content(1, SIZE);
    let all = passed(&machine, || fs::write(machine.at("f"), &data).unwrap());
    assert!(all > SIZE, "{all}");
    let change = content(2, MIB);
    let took = passed(&machine, || {
        let file = OpenOptions::new()
            .write(true)
            .open(machine.at("f"))
            .unwrap();
        file.write_all_at(&change, 30 << 20).unwrap();
    });
    data[30 * MIB..31 * MIB].copy_from_slice(&change);
    assert!(took < 3 * MIB / 2, "a change: {took}");
    assert!(fs::read(site.home().join("f")).unwrap() == data);
    data.splice(0..0, content(3, 100));
    let took = passed(&machine, || {
        fs::write(machine.at("f.new"), &data).unwrap();
        fs::rename(machine.at("f.new"), machine.at("f")).unwrap();
    });
    assert!(took < MIB, "an insertion: {took}");
    assert!(fs::read(site.home().join("f")).unwrap() == data);
    let took = passed(&machine, || {
        fs::copy(machine.at("f"), machine.at("copy")).unwrap();
    });
    assert!(took < MIB / 8, "a copy: {took}");
    assert_same(&site.home(), &machine.home());
    machine.umount();
    machine.check();
}

#[test]
fn transfers_go_on_after_the_daemon_was_killed() {
    let site = Site::new();
    let machine = site.machine("m");
    machine.mount();
    machine.proxy.throttle(40 << 20);
    let data = content(1, 2 * SIZE);
    fs::write(machine.at("up"), &data).unwrap();
    let most = machine.proxy.passed() + 96 * MIB as u64;
    eventually("most of it is there", || machine.proxy.passed() > most);
    machine.kill9();
    let first = machine.proxy.passed();
    machine.proxy.up();
    machine.mount();
    machine.flush();
    let rest = (machine.proxy.passed() - first) as usize;
    // What the server was not asked to sync is read back.
    assert!(rest < (32 + 36 + 8) * MIB, "{rest}");
    let sent_again = fs::read(site.home().join("up")).unwrap();
    assert!(sent_again == data);

    fs::write(site.home().join("down"), content(2, SIZE)).unwrap();
    // What is young may be written to once more.
    thread::sleep(Duration::from_secs(4));
    machine.reconcile();
    machine.proxy.throttle(40 << 20);
    let before = machine.proxy.passed();
    let file = machine.at("down");
    let reader = thread::spawn(move || {
        // The daemon dies meanwhile.
        let _read = File::open(file).and_then(|mut file| io::copy(&mut file, &mut io::sink()));
    });
    let half = before + SIZE as u64 / 2;
    eventually("half of it is here", || machine.proxy.passed() > half);
    machine.kill9();
    reader.join().unwrap();
    let first = machine.proxy.passed();
    machine.proxy.up();
    machine.mount();
    assert!(fs::read(machine.at("down")).unwrap() == content(2, SIZE));
    let rest = (machine.proxy.passed() - first) as usize;
    assert!(rest < SIZE / 2 + 8 * MIB, "{rest}");
    assert_same(&site.home(), &machine.home());
    machine.umount();
    machine.check();
}
