//! A network that breaks: what is here can be used, and all arrives in the end.

use std::fs;
use std::time::Duration;

use crate::support::chance::content;
use crate::support::machine::{Site, assert_same, eventually, tree};

#[test]
fn uploads_and_downloads_get_through_a_link_that_is_cut_again_and_again() {
    let site = Site::new();
    let (a, b) = (site.machine("a"), site.machine("b"));
    a.mount();
    for n in 0..40 {
        let len = if n % 10 == 0 { 2_000_000 } else { 20_000 };
        fs::write(a.at(format!("f{n}")), content(n, len)).unwrap();
    }
    // Each cut falls on another place of the conversation.
    for n in 0..12 {
        a.proxy.cut_after(5_000 + n * 97_003);
        let before = a.proxy.passed();
        a.ask("online");
        eventually("something passes, or all has", || {
            a.proxy.passed() > before + n * 50_000 || a.status()["unsent"]["files"] == 0
        });
        assert_eq!(fs::read(a.at("f1")).unwrap(), content(1, 20_000));
    }
    a.proxy.up();
    a.ask("online");
    a.flush();
    assert_same(&site.home(), &a.home());

    b.mount();
    for n in 0..40 {
        b.proxy.cut_after(3_000 + n * 10_007);
        // Whether a read survives a cut is luck; wrong content it never gets.
        if let Ok(read) = fs::read(b.at(format!("f{n}"))) {
            let len = if n % 10 == 0 { 2_000_000 } else { 20_000 };
            assert!(read == content(n, len), "f{n}");
        }
    }
    b.proxy.up();
    b.ask("online");
    b.reconcile();
    assert_same(&site.home(), &b.home());
    assert_same(&site.home(), &a.home());
    // Nothing of a broken transfer is left where homes are made of.
    assert_eq!(tree(&site.home()).len(), 40);
    a.umount();
    b.umount();
    a.check();
    b.check();
}

#[test]
fn what_is_cached_is_served_while_the_network_swallows_everything() {
    let site = Site::new();
    let machine = site.machine("m");
    fs::write(site.home().join("cached"), "cached").unwrap();
    fs::write(site.home().join("far"), "far").unwrap();
    machine.mount();
    assert_eq!(fs::read_to_string(machine.at("cached")).unwrap(), "cached");
    machine.proxy.stall();
    // The daemon does not know yet that the link is dead.
    assert_eq!(machine.status()["link"]["state"], "online");
    assert_eq!(fs::read_to_string(machine.at("cached")).unwrap(), "cached");
    fs::write(machine.at("new"), "new").unwrap();
    fs::rename(machine.at("cached"), machine.at("renamed")).unwrap();
    assert_eq!(fs::read_dir(machine.home()).unwrap().count(), 3);
    let error = fs::read(machine.at("far")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EHOSTUNREACH));
    eventually("the dead link is noticed", || {
        machine.status()["link"]["state"] != "online"
    });
    machine.proxy.cut();
    machine.proxy.up();
    machine.ask("online");
    assert_eq!(fs::read_to_string(machine.at("far")).unwrap(), "far");
    machine.flush();
    assert_same(&site.home(), &machine.home());
    machine.umount();
    machine.check();
}

#[test]
fn a_slow_link_changes_nothing_but_the_time() {
    let site = Site::new();
    let machine = site.machine("m");
    machine.proxy.delay(Duration::from_millis(20));
    machine.mount();
    for n in 0..20 {
        fs::create_dir_all(machine.at(format!("d{}", n % 4))).unwrap();
        fs::write(machine.at(format!("d{}/{n}", n % 4)), content(n, 3_000)).unwrap();
    }
    machine.umount();
    assert_eq!(tree(&site.home()).len(), 24);
    machine.check();
}
