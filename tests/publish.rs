//! A foreign program that changes a file on the server in the very moment in which a machine replaces it: at every
//! point of the exchange, in virtual time.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use roamhome::engine::{
    Connect, Engine, EngineOptions, KeptItem, KeptWhere, LinkError, Publish, Scope,
};
use roamhome::fs::{Home, HomeOptions, HostScope, OpenOptions, Restraint};
use roamhome::remote::{MemoryServer, Remote};
use roamhome::replica::{Replica, ReplicaError};
use roamhome::tree::{Name, NodeId, RelPath};

use crate::support::client::{Clock, ME};

/// Of one request, so that a moment falls between any two.
const ROUND_TRIP: Duration = Duration::from_millis(10);
/// More than a replacement takes.
const MOMENTS: u32 = 40;

struct ToServer(MemoryServer);

#[async_trait]
impl Connect for ToServer {
    async fn connect(&self) -> Result<Remote, LinkError> {
        Ok(self.0.remote(2))
    }
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

fn machine(
    dir: &std::path::Path,
    server: &MemoryServer,
    clock: &Clock,
    publish: Publish,
) -> (Engine, Arc<Replica>, Home) {
    let now = {
        let clock = clock.clone();
        move || clock.now()
    };
    let replica = Arc::new(Replica::open(dir, now()).unwrap());
    let options = EngineOptions {
        publish,
        quiet_period: Duration::from_secs(1_000_000),
        reconcile_interval: Duration::from_secs(1_000_000),
        ..EngineOptions::new(Arc::new(now.clone()), 1000, 1000)
    };
    let runtime = tokio::runtime::Handle::current();
    let connector = Arc::new(ToServer(server.clone()));
    let engine = Engine::start(&runtime, Arc::clone(&replica), connector, options).unwrap();
    let options = HomeOptions {
        uid: 1000,
        gid: 1000,
        host_scoped: HostScope::new::<&str>(&[]).unwrap(),
        restraint: Restraint::default(),
        now: Box::new(now),
    };
    let home = Home::new(Arc::clone(&replica), Arc::new(engine.clone()), options).unwrap();
    (engine, replica, home)
}

fn write(home: &Home, data: &[u8]) {
    let options = OpenOptions {
        write: true,
        truncate: true,
        ..OpenOptions::default()
    };
    let name = Name::new(b"f").unwrap();
    let opened = home.create(NodeId::ROOT, &name, 0o644, options, ME);
    let handle = opened.unwrap().handle;
    home.write(handle, 0, data, false).unwrap();
    home.release(handle).unwrap();
}

/// Everything that can be found again: on the server, and in this machine's backups.
fn reachable(server: &MemoryServer, replica: &Replica) -> Vec<Vec<u8>> {
    let mut all: Vec<_> = server.tree().into_values().map(|item| item.data).collect();
    let backups = replica.view::<_, ReplicaError>(|view| view.backups());
    for backup in backups.unwrap() {
        let mut data = Vec::new();
        let mut file = replica.content().open_backup(backup.id).unwrap();
        file.read_to_end(&mut data).unwrap();
        all.push(data);
    }
    all
}

/// Replaces `base` by `ours` while `meddle` happens after `moment`; both are found afterwards. Tells whether the
/// backup says that it was a race.
async fn race(publish: Publish, moment: Duration, meddle: impl Fn(&MemoryServer)) -> bool {
    let clock = Clock::new();
    let server = {
        let clock = clock.clone();
        MemoryServer::new(move || clock.now())
    };
    let dir = tempfile::tempdir().unwrap();
    let (engine, replica, home) = machine(dir.path(), &server, &clock, publish);
    engine.settled_link(Duration::from_secs(10)).await;
    let full = Scope::Full {
        now: true,
        force_guard: false,
    };
    engine.pass(full).await.unwrap();
    write(&home, b"base");
    engine.pass(full).await.unwrap();
    clock.advance(10);
    write(&home, b"ours, which is newer");
    server.set_round_trip(ROUND_TRIP);
    let pass = tokio::spawn({
        let engine = engine.clone();
        async move { engine.pass(Scope::Push { now: true }).await }
    });
    tokio::time::sleep(moment).await;
    meddle(&server);
    pass.await.unwrap().unwrap();
    server.set_round_trip(Duration::ZERO);
    for _ in 0..3 {
        clock.advance(10);
        engine.pass(full).await.unwrap();
    }
    let found = reachable(&server, &replica);
    for content in [&b"theirs"[..], b"ours, which is newer"] {
        assert!(
            found.iter().any(|data| data == content),
            "{publish:?} after {moment:?}: {:?} is lost",
            String::from_utf8_lossy(content)
        );
    }
    let there = home.lookup(NodeId::ROOT, &Name::new(b"f").unwrap());
    assert!(there.is_ok_and(|attr| attr.is_some()), "the name is gone");
    let backups = engine.kept(KeptWhere::Backups).await.unwrap().items;
    engine.stop();
    let raced = |item: &KeptItem| item.why == "changed while it was being replaced";
    backups.iter().any(raced)
}

/// Tells at how many moments it was seen to be a race.
fn at_every_moment(publish: Publish, meddle: impl Fn(&MemoryServer)) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let raced = |moment: &u32| {
        let moment = ROUND_TRIP / 4 * *moment;
        runtime.block_on(race(publish, moment, &meddle))
    };
    (0..MOMENTS).filter(raced).count()
}

#[test]
fn a_program_that_writes_in_place_while_we_replace_loses_nothing() {
    let raced = at_every_moment(Publish::Link, |server| {
        server.write_file(&path("f"), b"theirs").unwrap();
    });
    assert!(raced > 0);
}

#[test]
fn with_publish_aside_a_program_that_renames_over_it_while_we_replace_loses_nothing() {
    at_every_moment(Publish::Aside, |server| {
        server.write_file(&path("new"), b"theirs").unwrap();
        server.rename(&path("new"), &path("f")).unwrap();
    });
}
