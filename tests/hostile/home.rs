//! A whole machine against a server that lies: what was written here stays here, whatever is told about the server.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use roamhome::engine::Scope;
use roamhome::remote::MemoryServer;
use roamhome::replica::check;
use roamhome::tree::{RelPath, Time};

use super::peer::Lying;
use crate::simulation::machine::Machine;
use crate::simulation::plug::Death;
use crate::support::client::Clock;
use crate::support::rng::Rng;

const STEPS: u64 = 12;
const PATHS: [&str; 7] = [
    "one",
    "two",
    "dir/one",
    "dir/two",
    "dir/deep/one",
    "fresh",
    "local",
];
const DIRS: [&str; 3] = ["dir", "dir/deep", "fresh"];

/// What the user wrote last, by path; it must be somewhere.
type Written = BTreeMap<String, Vec<u8>>;

/// Everything below `dir` but the replica.
fn outside(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if !name.starts_with("state") {
            let content = std::fs::read_to_string(&path).unwrap();
            found.insert(format!("{}: {content}", path.display()));
        }
    }
    found
}

fn full(force_guard: bool) -> Scope {
    Scope::Full {
        now: true,
        force_guard,
    }
}

/// One life with the peer; what is wrong then panics.
pub(super) async fn run(peer: Lying, rng: &mut Rng, dir: &Path) {
    std::fs::write(dir.join("outside"), "not of the home").unwrap();
    std::fs::write(dir.join("one"), "not of the home either").unwrap();
    let before = outside(dir);
    let clock = Clock::new();
    let peer = Arc::new(peer);
    // Some homes were agreed on before the server went bad; the others never saw the truth.
    let one_in = peer.one_in.load(Ordering::Relaxed);
    let agreed = !rng.one_in(4);
    if agreed {
        peer.one_in.store(0, Ordering::Relaxed);
    }
    let way = Arc::clone(&peer);
    let way = Arc::new(move |_| Arc::clone(&way) as _);
    let machine = Machine::alone(dir, way, &clock, rng);
    let mut written = Written::new();
    if agreed {
        machine.online().await;
        machine.pass(full(false)).await.unwrap();
        for path in &PATHS[..3] {
            drop(machine.read(path).await);
        }
        machine.offline().await;
        peer.one_in.store(one_in, Ordering::Relaxed);
    }
    for step in 0..STEPS {
        act(&machine, rng, step, &mut written).await;
        clock.advance(3);
    }
    machine.offline().await;
    is_kept(&machine, &written);
    // It must not matter whether it ends well, or dies with what it has got.
    if rng.one_in(4) {
        machine.replica.close().unwrap();
    }
    machine.die(Death::Kill);
    let left = machine.disk.left();
    let report = check(left, false, Time(0)).unwrap();
    assert_eq!(report.findings, []);
    std::fs::remove_dir_all(left).unwrap();
    assert_eq!(outside(dir), before);
}

async fn act(machine: &Machine, rng: &mut Rng, step: u64, written: &mut Written) {
    let path = rng.pick(&PATHS);
    match rng.below(10) {
        0..=2 => {
            let content = format!("written in step {step} to {path}").into_bytes();
            let wrote = machine
                .write(path, || content.clone(), Duration::ZERO)
                .await;
            if wrote.is_ok() {
                written.insert(path.to_owned(), content);
            }
        }
        3 => drop(machine.read(path).await),
        4 => drop(machine.mkdir(rng.pick(&DIRS)).await),
        5 => drop(machine.tree().await),
        6 => machine.offline().await,
        _ => {
            machine.engine.hold(false);
            // Whatever the answer: what counts is what is here afterwards.
            drop(machine.pass(full(rng.one_in(3))).await);
        }
    }
}

fn is_kept(machine: &Machine, written: &Written) {
    let found: BTreeSet<_> = machine.held().into_iter().collect();
    for (path, content) in written {
        let text = String::from_utf8_lossy(content);
        assert!(found.contains(content), "{path}: {text:?} is lost");
    }
}

/// A home with some files in it.
pub(super) fn server() -> MemoryServer {
    let server = MemoryServer::new(|| Time::new(1_700_000_000, 0));
    let path = |text: &str| RelPath::parse(text.as_bytes()).unwrap();
    for name in ["one", "two", "dir/one", "dir/two", "dir/deep/one"] {
        let content = format!("the server's {name}");
        server.write_file(&path(name), content.as_bytes()).unwrap();
    }
    server.make_symlink(&path("dir/link"), b"one").unwrap();
    server
        .write_file(&path("large"), &vec![b'l'; 400_000])
        .unwrap();
    server
}
