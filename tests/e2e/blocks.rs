//! Large files of which a part is read, with a real sshd and its SFTP server.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

use crate::support::chance::content;
use crate::support::machine::{Machine, Site, assert_same, eventually};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A machine whose server has a file that is not young.
fn beside(make: impl FnOnce(&File)) -> (Site, Machine) {
    let site = Site::new();
    let machine = site.machine("m");
    let file = File::create(site.home().join("large")).unwrap();
    make(&file);
    thread::sleep(Duration::from_secs(4));
    machine.mount();
    machine.reconcile();
    (site, machine)
}

fn place(nth: u64) -> u64 {
    (nth * 1_234_567_891 + 12_345) % (10 * GIB - 4 * KIB)
}

#[test]
fn random_reads_of_a_file_of_10_gib_fetch_a_few_megabytes() {
    let piece = |nth: u64| content(nth, 4 * KIB as usize);
    let (_site, machine) = beside(|file| {
        file.set_len(10 * GIB).unwrap();
        for nth in 0..10 {
            file.write_all_at(&piece(nth), place(nth)).unwrap();
        }
    });
    let before = machine.proxy.passed();
    let file = File::open(machine.at("large")).unwrap();
    for nth in 0..10 {
        let mut read = vec![0; 4 * KIB as usize];
        file.read_exact_at(&mut read, place(nth)).unwrap();
        assert!(read == piece(nth), "{nth}");
    }
    let passed = machine.proxy.passed() - before;
    assert!(passed < 8 * MIB, "{passed}");
    let listed = machine.run(&["ls", machine.home().to_str().unwrap()]);
    assert!(listed.contains("partial"), "{listed}");
    drop(file);
    machine.umount();
    machine.check();
}

#[test]
fn a_killed_daemon_goes_on_with_what_it_had() {
    let size = 64 * MIB;
    let data = content(3, size as usize);
    let (site, machine) = beside(|file| file.write_all_at(&data, 0).unwrap());
    machine.proxy.throttle(20 << 20);
    let before = machine.proxy.passed();
    let at = machine.at("large");
    // The daemon dies meanwhile.
    let reader = thread::spawn(move || {
        drop(File::open(at).and_then(|mut file| io::copy(&mut file, &mut io::sink())));
    });
    eventually("half of it is here", || {
        machine.proxy.passed() > before + size / 2
    });
    machine.kill9();
    reader.join().unwrap();
    let first = machine.proxy.passed();
    machine.proxy.up();
    machine.mount();
    // What was here is here.
    machine.ask("offline");
    let mut read = vec![0; MIB as usize];
    let file = File::open(machine.at("large")).unwrap();
    file.read_exact_at(&mut read, MIB).unwrap();
    assert!(read[..] == data[MIB as usize..][..MIB as usize]);
    let error = file.read_exact_at(&mut read, size - MIB).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EHOSTUNREACH));
    machine.ask("online");
    assert!(fs::read(machine.at("large")).unwrap() == data);
    drop(file);
    let rest = machine.proxy.passed() - first;
    assert!(rest < size / 2 + 12 * MIB, "{rest}");
    assert_same(&site.home(), &machine.home());
    machine.umount();
    machine.check();
}
