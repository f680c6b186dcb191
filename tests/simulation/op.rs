//! What can happen in a simulation, and how a seed chooses it.

use roamhome::engine::{Large, Publish};
use roamhome::remote::ErrorKind;
use roamhome::remote::memory::Trip;
use roamhome::sync::{GuardLimits, Prefer};

use super::machine::Settings;
use super::plug::Death;
use crate::support::rng::Rng;

/// One thing that a program on a machine does.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// Makes or overwrites a file, taking so many milliseconds between open, write and close.
    Write(String, u64),
    Append(String),
    Truncate(String),
    Rewrite(String),
    Read(String),
    /// Reads so many bytes from so many thousandths of a file on, one after the other, with so many milliseconds
    /// between them.
    ReadParts(String, Vec<(u64, u64)>, u64),
    Mkdir(String),
    Rmdir(String),
    Unlink(String),
    Rename(String, String),
    Exchange(String, String),
    Link(String, String),
    Symlink(String, String),
    Chmod(String, u32),
    /// Sets the mtime to so many seconds ago.
    Touch(String, i64),
    /// Opens a file for writing, and leaves it open.
    Open(String),
    /// Adds to the file that is open for longest.
    WriteLate,
    /// Closes the file that is open for longest.
    Close,
    /// Makes a file survive a loss of power.
    Fsync(String),
    /// Keeps content on the machine, or no longer.
    Pin(String, bool),
}

/// What stands in the home's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Away {
    /// An empty directory, as where a disk is not mounted.
    Empty,
    /// The home of somebody else.
    Other,
}

/// What a foreign writer does to the server's directory.
#[derive(Debug, Clone)]
pub(super) enum Meddle {
    Write(String),
    Remove(String),
    Rename(String, String),
    Mkdir(String),
    Symlink(String, String),
    Chmod(String, u32),
    Touch(String, i64),
}

/// One step of a simulation.
#[derive(Debug, Clone)]
pub(super) enum Op {
    On(usize, Act),
    Meddle(Meddle),
    Advance(i64),
    Offline(usize),
    Online(usize),
    /// A pass that looks at the server.
    Sync(usize),
    /// A pass that writes back only.
    Push(usize),
    /// A pass that looks at the server, and does what it would ask about.
    Answer(usize),
    /// What is in the journal gets into the database.
    Commit(usize),
    /// Content that came from the server is synced.
    Settle(usize),
    /// All content that may go does.
    Evict(usize),
    /// The machine dies and starts again.
    Die(usize, Death),
    /// The same after so many more system calls and requests of its own.
    DieAfter(usize, u64, Death),
    /// The machine's disk is full, or has room again.
    DiskFull(usize, bool),
    /// The machine's clock jumps by so many seconds.
    Jump(usize, i64),
    /// All connections break.
    Cut,
    /// The server loses its power, and starts again.
    Crash,
    /// Something else stands in the home's place.
    Away(Away),
    /// The home is back.
    Back,
    /// The server's administrator keeps a copy of the home.
    BackUp,
    /// That copy is put back.
    RollBack,
    /// The request after so many more goes wrong.
    Trip(u64, Trip),
    /// The server lets nothing more be written, or again everything.
    Full(bool),
    /// All requests about a path fail, or none any more.
    Refuse(String, Option<ErrorKind>),
    /// The machine must show something there.
    Shows(usize, String),
    /// All at once, each after so many milliseconds.
    Together(Vec<(u64, Self)>),
}

/// What a simulation may contain.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mix {
    pub(super) machines: usize,
    pub(super) steps: u64,
    pub(super) meddle: bool,
    pub(super) together: bool,
    pub(super) faults: bool,
    pub(super) kills: bool,
    pub(super) power: bool,
    /// Clocks differ, and jump.
    pub(super) skew: bool,
    /// Little may be removed unasked.
    pub(super) guard: bool,
    /// The server is exchanged and rolled back.
    pub(super) exchange: bool,
    /// The server offers nothing beyond plain SFTP.
    pub(super) plain: bool,
    /// What is replaced is moved aside first.
    pub(super) aside: bool,
    /// What decides conflicts of one time.
    pub(super) prefer: Prefer,
    pub(super) keep_replaced: bool,
    /// Files are written over with as many bytes. Nobody sets times then: a version that is dated back looks like one
    /// before it.
    pub(super) alike: bool,
    /// Most files count as large ones, and take many requests.
    pub(super) large: bool,
}

impl Mix {
    /// What the simulation with this seed contains.
    pub(super) fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0xa5a5);
        Self {
            machines: 1 + rng.below(4) as usize,
            steps: 200 + rng.below(100),
            meddle: rng.one_in(2),
            together: rng.one_in(2),
            faults: rng.one_in(2),
            kills: rng.one_in(3),
            skew: rng.one_in(3),
            power: rng.one_in(3),
            guard: rng.one_in(6),
            exchange: rng.one_in(6),
            plain: rng.one_in(5),
            aside: rng.one_in(5),
            prefer: rng.pick(&[Prefer::Local, Prefer::Remote]),
            keep_replaced: rng.one_in(5),
            alike: rng.one_in(3),
            large: rng.one_in(2),
        }
    }
}

impl Mix {
    /// How its machines are set.
    pub(super) fn settings(self) -> Settings {
        let guard = match self.guard {
            true => GuardLimits {
                removed_count: 2,
                removed_share: 0.2,
                attrs_count: 3,
                attrs_share: 0.3,
            },
            false => GuardLimits::default(),
        };
        Settings {
            guard,
            publish: match self.aside {
                true => Publish::Aside,
                false => Publish::Link,
            },
            prefer: self.prefer,
            keep_replaced: self.keep_replaced,
            large: match self.large {
                true => Large {
                    resume_from: 100,
                    delta_from: 300,
                    delta: true,
                    chunk: 256,
                    sync_every: 500,
                    note_every: 400,
                    by_block_from: 200,
                    block: 64,
                },
                false => Large::default(),
            },
        }
    }
}

/// The steps of a simulation.
pub(super) fn ops(rng: &mut Rng, mix: Mix) -> Vec<Op> {
    let mut ops = Vec::new();
    if rng.one_in(2) {
        for path in ["a", "b", "a/a", "a/b", "b/c"] {
            let act = match (path, rng.one_in(3)) {
                ("a" | "b", _) | (_, true) => Act::Mkdir(path.into()),
                _ => Act::Write(path.into(), 0),
            };
            ops.push(Op::On(0, act));
        }
        ops.extend((0..mix.machines).map(Op::Sync));
    }
    for _ in 0..mix.steps {
        ops.push(op(rng, mix, mix.together));
        if mix.large {
            ops.extend(growth(rng, mix));
        }
    }
    ops
}

/// Files that grow and are sent once they were left alone, over a link that breaks meanwhile.
fn growth(rng: &mut Rng, mix: Mix) -> Vec<Op> {
    let who = rng.below(mix.machines as u64) as usize;
    match rng.below(12) {
        0..=1 => {
            let name = rng.pick(&["a", "b", "c", "a/a", "b/a"]).to_owned();
            vec![
                Op::On(who, Act::Append(name)),
                Op::Advance(3),
                Op::Push(who),
            ]
        }
        2 if mix.faults => {
            let trip = rng.pick(&[Trip::CutBefore, Trip::CutAfter, Trip::EndAfter]);
            vec![Op::Advance(3), Op::Trip(rng.below(40), trip), Op::Push(who)]
        }
        3 => vec![Op::Advance(3), Op::Push(who)],
        4..=7 => vec![Op::Evict(who), read_parts(rng, who)],
        8 => {
            // While the server gets another version.
            let read = read_parts(rng, who);
            let other = match mix.meddle {
                true => Op::Meddle(Meddle::Write(path(rng))),
                false => Op::Sync(who),
            };
            let parts = vec![
                (0, read),
                (rng.below(30), other),
                (rng.below(60), Op::Sync(who)),
            ];
            vec![Op::Evict(who), Op::Together(parts)]
        }
        _ => Vec::new(),
    }
}

/// A program that reads some of a large file.
fn read_parts(rng: &mut Rng, who: usize) -> Op {
    let count = 1 + rng.below(4);
    let part = |rng: &mut Rng| (rng.below(1000), rng.pick(&[1, 64, 300, 4000]));
    let parts = (0..count).map(|_| part(rng)).collect();
    Op::On(who, Act::ReadParts(path(rng), parts, rng.pick(&[0, 5, 20])))
}

fn op(rng: &mut Rng, mix: Mix, together: bool) -> Op {
    let who = rng.below(mix.machines as u64) as usize;
    loop {
        return match rng.below(48) {
            47 => Op::Evict(who),
            0..=16 => Op::On(who, act(rng, mix)),
            17..=20 if mix.meddle => Op::Meddle(meddle(rng, mix)),
            21..=23 => Op::Advance(rng.pick(&[1, 1, 2, 5, 100, 10_000])),
            24 => Op::Offline(who),
            25 => Op::Online(who),
            26..=29 => Op::Sync(who),
            30..=31 => Op::Push(who),
            32 if mix.kills => Op::Die(who, Death::Kill),
            40 if mix.kills => Op::DieAfter(who, rng.below(200), Death::Kill),
            41 if mix.power && rng.one_in(2) => Op::Die(who, Death::PowerLoss),
            41 if mix.power => Op::DieAfter(who, rng.below(200), Death::PowerLoss),
            42 => Op::Commit(who),
            43 => Op::Settle(who),
            44 if mix.faults => Op::Crash,
            44 if mix.faults && rng.one_in(3) => Op::DiskFull(who, rng.one_in(2)),
            45 if mix.skew => Op::Jump(who, rng.pick(&[-86_400, -10, -1, 1, 10, 86_400])),
            45 if mix.guard => Op::Answer(who),
            46 if mix.exchange => exchange(rng),
            33 if mix.faults => Op::Cut,
            34 | 35 if mix.faults => Op::Trip(rng.below(60), trip(rng)),
            36 if mix.faults && rng.one_in(4) => Op::Full(rng.one_in(2)),
            37 if mix.faults && rng.one_in(2) => {
                let kinds = [
                    None,
                    Some(ErrorKind::Failure),
                    Some(ErrorKind::PermissionDenied),
                ];
                Op::Refuse(path(rng), rng.pick(&kinds))
            }
            38..=39 if together => {
                let n = 2 + rng.below(5);
                let part = |rng: &mut Rng| (rng.below(40), op(rng, mix, false));
                let mut parts: Vec<_> = (0..n).map(|_| part(rng)).collect();
                parts.push((0, Op::Sync(who)));
                Op::Together(parts)
            }
            _ => continue,
        };
    }
}

fn exchange(rng: &mut Rng) -> Op {
    match rng.below(7) {
        0 => Op::Away(Away::Empty),
        1 => Op::Away(Away::Other),
        2..=4 => Op::Back,
        5 => Op::BackUp,
        _ => Op::RollBack,
    }
}

fn trip(rng: &mut Rng) -> Trip {
    rng.pick(&[
        Trip::CutBefore,
        Trip::EndBefore,
        Trip::EndAfter,
        Trip::Silence,
        Trip::CutAfter,
        Trip::CutAfter,
        Trip::Fail(ErrorKind::Failure),
        Trip::Fail(ErrorKind::PermissionDenied),
    ])
}

fn path(rng: &mut Rng) -> String {
    let depth = rng.pick(&[1, 1, 2, 2, 2, 3]);
    let names: Vec<_> = (0..depth).map(|_| rng.pick(&["a", "b", "c"])).collect();
    names.join("/")
}

fn act(rng: &mut Rng, mix: Mix) -> Act {
    let (a, b) = (path(rng), path(rng));
    match rng.below(48) {
        47 => Act::Pin(a, rng.one_in(2)),
        40..=41 => Act::Open(a),
        42..=43 => Act::WriteLate,
        44 => Act::Close,
        45..=46 => Act::Fsync(a),
        0..=3 if mix.alike => Act::Rewrite(a),
        0..=8 => Act::Write(a, rng.pick(&[0, 0, 0, 5])),
        9..=10 => Act::Append(a),
        11 => Act::Truncate(a),
        12..=13 => Act::Read(a),
        14..=18 => Act::Mkdir(a),
        19..=20 => Act::Rmdir(a),
        21..=24 => Act::Unlink(a),
        25..=32 => Act::Rename(a, b),
        33 => Act::Exchange(a, b),
        34..=35 => Act::Link(a, b),
        36..=37 => Act::Symlink(b, a),
        38 => Act::Chmod(a, rng.pick(&[0o600, 0o644, 0o755, 0o700])),
        _ if mix.alike => Act::Rewrite(a),
        _ => Act::Touch(a, rng.pick(&[0, 1000, -1000])),
    }
}

fn meddle(rng: &mut Rng, mix: Mix) -> Meddle {
    let (a, b) = (path(rng), path(rng));
    match rng.below(16) {
        0..=5 => Meddle::Write(a),
        6..=7 => Meddle::Remove(a),
        8..=10 => Meddle::Rename(a, b),
        11..=12 => Meddle::Mkdir(a),
        13 => Meddle::Symlink(b, a),
        14 => Meddle::Chmod(a, rng.pick(&[0o600, 0o644, 0o755, 0o700])),
        _ if mix.alike => Meddle::Write(a),
        _ => Meddle::Touch(a, rng.pick(&[0, 1000, -1000])),
    }
}
