//! Disks rot, and people remove files: a replica that was damaged in ways that a seed decides opens or says clearly what
//! to do, `rescue` gets every unsent file out that is still there, and `check --repair` makes a sound replica of it.
//!
//! `ROAMHOME_SEED=n` runs one again, `ROAMHOME_SEEDS=a..b` all of a range.

mod harm;
mod living;
mod state;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use roamhome::replica::{Content, Node, Replica, ReplicaError, View, check_content, rescue};
use roamhome::tree::{Kind, NodeId};

use crate::support::client::Client;
use crate::support::rng::Rng;
use state::{Files, Original, copy, files};

/// How long the suite looks for damage that nobody thought of.
const BUDGET: Duration = Duration::from_secs(20);

/// Nothing takes nearly as long, unless it hangs.
const HANGS: Duration = Duration::from_secs(30);

/// Contents that only this machine has.
const OURS: [&str; 2] = ["unsent", "backups"];

type Contents = BTreeSet<Vec<u8>>;

/// What a person reads must name a file in `state` and what to do.
fn assert_clear(error: &ReplicaError, state: &Path) {
    let text = error.to_string();
    assert!(text.contains(state.to_str().unwrap()), "{text}");
    match error {
        ReplicaError::Damaged { .. } => {
            assert!(
                text.contains("roamhome rescue") && text.contains("--repair"),
                "{text}"
            );
        }
        ReplicaError::OtherVersion { .. } | ReplicaError::TooNew { .. } => {}
        other => panic!("not told as damage: {other:?}"),
    }
}

/// The files that are here whole.
fn whole_files(view: &View<'_>) -> Result<Vec<Node>, ReplicaError> {
    let mut found = Vec::new();
    let mut todo = vec![NodeId::ROOT];
    let mut seen = BTreeSet::new();
    while let Some(dir) = todo.pop() {
        if !seen.insert(dir) {
            continue;
        }
        for (_, id) in view.children(dir, None, 100_000)? {
            match view.node(id)? {
                Some(node) if node.kind == Kind::Dir => todo.push(id),
                Some(node) if node.content == Content::Whole => found.push(node),
                _ => {}
            }
        }
    }
    Ok(found)
}

fn contents(files: impl IntoIterator<Item = Result<fs::File, ReplicaError>>) -> Contents {
    let read = |mut file: fs::File| {
        let mut data = Vec::new();
        file.read_to_end(&mut data).unwrap();
        data
    };
    files.into_iter().flatten().map(read).collect()
}

/// Content that this machine shows or keeps.
fn shown(replica: &Replica) -> Result<Contents, ReplicaError> {
    let found = |view: &View<'_>| Ok::<_, ReplicaError>((whole_files(view)?, view.backups()?));
    let (nodes, backups) = replica.view(found)?;
    let store = replica.content();
    let nodes = nodes.into_iter();
    let nodes = nodes.map(|node| store.open_read(node.id, node.data_changed));
    let backups = backups.into_iter();
    let backups = backups.map(|backup| store.open_backup(backup.id));
    Ok(contents(nodes.chain(backups)))
}

/// What programs would read as what the server has.
fn served(state: &Path, original: &Original) -> Contents {
    let replica = Replica::open(state, original.now()).unwrap();
    let mut nodes = replica.view(whole_files).unwrap();
    nodes.retain(|node| !node.data_changed);
    let read = |node: Node| replica.content().open_read(node.id, false);
    let served = contents(nodes.into_iter().map(read));
    replica.close().unwrap();
    served
}

fn contents_of(state: &Path, dirs: &[&str]) -> Contents {
    files(state, dirs).into_values().collect()
}

fn rescued(state: &Path, out: &Path) -> Contents {
    let report = rescue(state, out).unwrap();
    assert_eq!(report.skipped, [], "{report:?}");
    files(out, &[""]).into_values().collect()
}

fn assert_holds(found: &Contents, wanted: &Contents, who: &str) {
    if let Some(content) = wanted.difference(found).next() {
        panic!("{who} lacks {:?}", String::from_utf8_lossy(content));
    }
}

/// Opens it as a daemon would, looks at everything, and closes it.
fn open(state: &Path, original: &Original) -> Result<Contents, ReplicaError> {
    let replica = Replica::open(state, original.now())?;
    let found = shown(&replica)?;
    replica.close()?;
    Ok(found)
}

/// What the server has, too, without what nobody reads any more, since there was an unsent version of it.
fn clean_files(state: &Path, before: &Files) -> Files {
    let unsent = |path: &Path| Path::new("unsent").join(path.strip_prefix("content").unwrap());
    let mut clean = files(state, &["content"]);
    clean.retain(|path, _| !before.contains_key(&unsent(path)));
    clean
}

fn one(original: &Original, seed: u64) {
    let mut rng = Rng::new(seed);
    let dir = crate::support::scratch();
    let state = dir.path().join("state");
    let killed = rng.one_in(2);
    copy(
        if killed {
            &original.killed
        } else {
            &original.ended
        },
        &state,
    );
    let before = files(&state, &OURS);
    let clean = clean_files(&state, &before);
    let truth = contents_of(&state, &["content", "unsent", "backups"]);
    let how = harm::harm(&mut rng, &state);
    eprintln!("{seed}: {} {how}", if killed { "killed" } else { "ended" });
    // What was not harmed itself.
    let after = files(&state, &OURS).into_iter();
    let intact = after.filter(|(path, content)| before.get(path) == Some(content));
    let intact: Contents = intact.map(|(_, content)| content).collect();

    assert_holds(&rescued(&state, &dir.path().join("out")), &intact, "rescue");
    if rng.one_in(2)
        && let Err(error) = open(&state, original)
    {
        assert_clear(&error, &state);
    }
    let told = match check_content(&state, false, original.now()) {
        Ok(report) => !report.is_sound(),
        Err(error) => {
            assert_clear(&error, &state);
            true
        }
    };
    // Content whose rows were spoiled may have become unsent; it is whole all the same.
    let now_there = contents_of(&state, &["content", "unsent"]);
    let harmed = clean.values().any(|content| !now_there.contains(content));
    assert!(told || !harmed, "harmed content passes for sound");
    assert_holds(
        &rescued(&state, &dir.path().join("again")),
        &intact,
        "a second rescue",
    );
    match check_content(&state, true, original.now()) {
        Ok(_) => {}
        Err(error @ (ReplicaError::OtherVersion { .. } | ReplicaError::TooNew { .. })) => {
            return assert_clear(&error, &state);
        }
        Err(error) => panic!("{error}"),
    }
    let report = check_content(&state, false, original.now()).unwrap();
    let lost = |what: &str| what.contains("unsent content is missing");
    assert!(
        report.findings.iter().all(|f| lost(&f.what)),
        "{:?}",
        report.findings
    );
    assert_holds(
        &open(&state, original).unwrap(),
        &intact,
        "the repaired replica",
    );
    let served = served(&state, original);
    assert_holds(&truth, &served, "the truth");
    if rng.one_in(8) {
        unite(original, &state, &intact);
    }
}

/// The repaired replica meets its server again: both have everything, and nothing is gone.
fn unite(original: &Original, state: &Path, intact: &Contents) {
    let server = roamhome::remote::MemoryServer::new({
        let clock = original.clock.clone();
        move || clock.now()
    });
    server.restore(&original.server.snapshot());
    let all = || -> Contents {
        let items = server.tree().into_values();
        items.map(|item| item.data).collect()
    };
    let mut before = all();
    // Where it is still known what was agreed on, this is what the unsent version replaces.
    before.retain(|content| !content.starts_with(b"the server's changed"));
    let client = Client::start(state.to_owned(), &server, &original.clock);
    client.sync();
    client.sync();
    assert_holds(&all(), &before, "the server");
    let mut here = shown(&client.replica).unwrap();
    here.extend(all());
    assert_holds(&here, intact, "the united home");
}

fn lives(original: &Original, seed: u64) -> bool {
    let start = Instant::now();
    let lived = catch_unwind(AssertUnwindSafe(|| {
        one(original, seed);
        assert!(start.elapsed() < HANGS, "it took {:?}", start.elapsed());
    }));
    if lived.is_err() {
        eprintln!("ROAMHOME_SEED={seed} cargo test --test suite damage::");
    }
    lived.is_ok()
}

#[test]
fn whatever_a_disk_does_unsent_files_come_out_and_a_repair_makes_it_sound() {
    crate::support::client::log();
    let original = Original::new();
    let (mut lived, mut failed) = (0, Vec::new());
    for seed in crate::hostile::seeds(BUDGET) {
        match lives(&original, seed) {
            true => lived += 1,
            false => failed.push(seed),
        }
    }
    eprintln!("damage: {lived} damages");
    assert!(failed.is_empty(), "seeds {failed:?} fail");
}
