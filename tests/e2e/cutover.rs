//! Another server in front of the same directory, in the middle of transfers: nothing of ours lives in a server's
//! process, so nothing is lost with one.

use std::fs;

use crate::support::chance::content;
use crate::support::machine::{Site, assert_same, eventually};
use crate::support::sshd::Sshd;

#[test]
fn transfers_go_on_over_another_server_of_the_same_directory() {
    let site = Site::new();
    let keys = site.path("twin");
    fs::create_dir(&keys).unwrap();
    let twin = Sshd::twin(&site.sshd, &keys);
    let (a, b) = (site.machine("a"), site.machine("b"));
    fs::create_dir(site.home().join("down")).unwrap();
    for n in 0..30 {
        let name = site.home().join(format!("down/f{n}"));
        fs::write(name, content(1000 + n, 200_000)).unwrap();
    }
    a.mount();
    b.mount();
    for n in 0..60 {
        // Some so large that they are sent over several channels.
        let len = if n % 20 == 0 { 12_000_000 } else { 30_000 };
        fs::write(a.at(format!("up{n}")), content(n, len)).unwrap();
    }
    // To and fro, each time somewhere in the conversation.
    for (n, port) in [twin.port, site.sshd.port, twin.port]
        .into_iter()
        .enumerate()
    {
        for machine in [&a, &b] {
            let before = machine.proxy.passed();
            machine.ask("online");
            let down = fs::read(machine.at(format!("down/f{n}")));
            if let Ok(read) = down {
                assert!(read == content(1000 + n as u64, 200_000));
            }
            eventually("something passes, or all has", || {
                machine.proxy.passed() > before + 500_000
                    || machine.status()["unsent"]["files"] == 0
            });
            machine.proxy.retarget(port);
        }
    }
    for machine in [&a, &b] {
        machine.ask("online");
        machine.flush();
        machine.reconcile();
    }
    b.reconcile();
    assert_same(&site.home(), &a.home());
    assert_same(&site.home(), &b.home());
    for n in 0..60 {
        let len = if n % 20 == 0 { 12_000_000 } else { 30_000 };
        assert!(
            fs::read(b.at(format!("up{n}"))).unwrap() == content(n, len),
            "up{n}"
        );
    }
    for machine in [&a, &b] {
        machine.umount();
        machine.check();
    }
}
