use std::sync::atomic::{AtomicU64, Ordering};

use super::super::memory::{MemoryServer, Trip};
use super::*;
use crate::tree::Time;

const PEOPLE: &str = "# mine\nssh-ed25519 AAAAmine ann@desk\nno-pty ssh-rsa AAAAother";

fn key(machine: &str) -> MachineKey {
    MachineKey {
        machine: machine.to_owned(),
        id: "01ab".to_owned(),
        since: "2026-11-27".to_owned(),
        key: format!("ssh-ed25519 AAAA{machine}"),
    }
}

fn server() -> MemoryServer {
    MemoryServer::new(|| Time::new(1_800_000_000, 0))
}

fn file() -> RelPath {
    path(b".ssh/authorized_keys")
}

fn text(server: &MemoryServer) -> String {
    String::from_utf8(server.read_file(&file()).unwrap()).unwrap()
}

fn names(server: &MemoryServer) -> Vec<String> {
    let tree = server.tree();
    let names = tree.keys().map(ToString::to_string);
    names.filter(|name| name.starts_with(".ssh/")).collect()
}

#[test]
fn lines_of_machines_are_known_by_their_comment() {
    let line = key("lab-07").line();
    assert_eq!(
        line,
        "restrict,command=\"internal-sftp\" ssh-ed25519 AAAAlab-07 roamhome:lab-07:01ab:2026-11-27"
    );
    assert_eq!(MachineKey::parse(&line), Some(key("lab-07")));
    for other in [
        &format!("#{line}"),
        "",
        "ssh-ed25519 AAAA ann@desk",
        "roamhome:a:b:c",
        "ssh-ed25519 AAAA roamhome:short",
    ] {
        assert_eq!(MachineKey::parse(other), None, "{other}");
    }
    assert_eq!(
        MachineKey::comment("a b:\n\u{e9}c", "1", "2"),
        "roamhome:abc:1:2"
    );
    let both = format!("{PEOPLE}\n{line}\n");
    assert_eq!(
        without_machines(both.as_bytes()),
        format!("{PEOPLE}\n").as_bytes()
    );
}

#[tokio::test]
async fn a_machine_comes_and_goes_and_the_lines_of_people_stay() {
    for (links, posix) in [(true, true), (false, true), (false, false)] {
        let server = server();
        server.set_features(|features| {
            features.hardlink = links;
            features.posix_rename = posix;
        });
        let keys = AuthorizedKeys::new(server.remote(0));
        keys.add(&key("first")).await.unwrap();
        assert_eq!(text(&server), key("first").line() + "\n");
        server.write_file(&file(), PEOPLE.as_bytes()).unwrap();
        for _ in 0..2 {
            keys.add(&key("a")).await.unwrap();
        }
        keys.add(&key("b")).await.unwrap();
        assert_eq!(keys.machines().await.unwrap(), [key("a"), key("b")]);
        keys.remove(|key| key.machine == "a").await.unwrap();
        assert_eq!(text(&server), format!("{PEOPLE}\n{}\n", key("b").line()));
        assert_eq!(names(&server), [".ssh/authorized_keys"]);
        assert_eq!(server.stat(&file()).unwrap().mode, 0o600);
    }
}

/// What happens before the request of this number counts from the change's first.
fn meddling(
    server: &MemoryServer,
    at: u64,
    what: impl Fn(&MemoryServer) + Send + Sync + 'static,
) -> AuthorizedKeys {
    let (count, meddled) = (AtomicU64::new(0), server.clone());
    let gate = move || {
        if count.fetch_add(1, Ordering::SeqCst) == at {
            what(&meddled);
        }
        true
    };
    let remote = server.remote_through(0, &(Arc::new(gate) as _));
    AuthorizedKeys::new(remote)
}

#[tokio::test]
async fn a_line_that_somebody_adds_at_any_moment_stays() {
    let mut moments = 0;
    for at in 0..40 {
        let server = server();
        server.write_file(&file(), PEOPLE.as_bytes()).unwrap();
        let keys = meddling(&server, at, |server| {
            let text = with_line(text(server).as_bytes(), b"ssh-rsa AAAAnew");
            server.write_file(&file(), &text).unwrap();
        });
        keys.add(&key("a")).await.unwrap();
        let text = text(&server);
        moments += u64::from(text.contains("AAAAnew"));
        let met = text.contains("AAAAnew") || server.requests() <= at;
        assert!(
            met && text.contains("AAAAa ") && text.starts_with(PEOPLE),
            "{at}: {text}"
        );
    }
    assert!(moments > 8, "{moments}");
}

#[tokio::test(start_paused = true)]
async fn whatever_a_machine_that_loses_its_link_leaves_nobody_loses_a_key() {
    for (links, trip) in [
        (true, Trip::CutBefore),
        (true, Trip::CutAfter),
        (false, Trip::CutAfter),
    ] {
        for at in 0..16 {
            let server = server();
            server.set_features(|features| features.hardlink = links);
            server.write_file(&file(), PEOPLE.as_bytes()).unwrap();
            server.trip(at, trip);
            drop(AuthorizedKeys::new(server.remote(0)).add(&key("a")).await);
            let keys = AuthorizedKeys::new(server.remote(0));
            keys.add(&key("b")).await.unwrap();
            let text = text(&server);
            assert!(
                text.starts_with(PEOPLE) && text.contains("AAAAb "),
                "{at}: {text}"
            );
            assert_eq!(names(&server), [".ssh/authorized_keys"], "{at}");
        }
    }
}

#[tokio::test]
async fn what_is_no_file_of_its_own_is_left_alone() {
    let server = server();
    server.make_dir(&path(b".ssh")).unwrap();
    server.make_symlink(&file(), b"../dotfiles/keys").unwrap();
    let keys = AuthorizedKeys::new(server.remote(0));
    let refused = keys.add(&key("a")).await.unwrap_err();
    assert!(refused.to_string().contains("authorized_keys"), "{refused}");
    assert_eq!(names(&server), [".ssh/authorized_keys"]);
}
