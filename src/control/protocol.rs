//! The control protocol: what a command may ask of a daemon, and what it answers. Pure.
//!
//! The client sends one [`RequestLine`], a JSON object in one line. The daemon answers with any number of
//! [`Reply::Progress`] and [`Reply::Alive`] lines, then one final [`ReplyLine`] of another kind. A daemon
//! that speaks another version says so in an error. Fields are only ever added; a reader skips fields that
//! it does not know. Times are whole seconds since 1970 (UTC). Paths are relative to the home, with bytes
//! that are not printable UTF-8 shown as `\xNN`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Failure, Secret};

mod content;
mod kept;
mod keys;
mod passes;
mod replica;

pub use content::{Brought, ContentAction, Entries, Entry, LetGo, NODES_MAX, Pin, Pins};
pub use kept::{
    BackupsAction, Conflict, ConflictVersion, Conflicts, ConflictsAction, Items, Keep, KeptItem,
    Location, Shown, Side, TrashAction,
};
pub use keys::{KeysAction, Machine, Machines};
pub use passes::{NotUndone, PassDeeds, Passes, Undone};
pub use replica::{ReplicaView, RoomView};

/// The version that both ends have to agree on.
pub const VERSION: u32 = 1;

/// The version of the `status --json` schema; grows when a field changes its meaning.
pub const STATUS_VERSION: u32 = 1;

/// The longest request line, in bytes.
pub const REQUEST_MAX_BYTES: usize = 64 * 1024;

/// How many items a list of what is left names at most.
pub const LEFT_ITEMS_MAX: usize = 100;

/// A time as requests have it.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What travels from client to daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestLine {
    /// [`VERSION`].
    pub version: u32,
    /// What is asked.
    pub request: Request,
}

/// What a client may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Who is there? Answered by `Pong`.
    Ping,
    /// How is it? Answered by `Status`.
    Status,
    /// Send what is dirty. Answered by `Flushed`.
    Flush {
        /// When to give up; without it, when nothing moves for 60 s.
        timeout_ms: Option<u64>,
    },
    /// Run a pass now. Answered by `Plan` for a dry run, else by `Pass`.
    Reconcile {
        /// Only say what a pass would do.
        dry_run: bool,
        /// Do what the guard would refuse.
        force_guard: bool,
    },
    /// Leave the server alone until `Online`. Answered by `Done`.
    Offline,
    /// Connect again. Answered by `Done`.
    Online,
    /// Take no writes, so that the home can be copied as it is at one moment. Answered by `Done`.
    Freeze {
        /// For so long, unless it is asked again; 0 ends it.
        seconds: u64,
        /// Leave the server alone meanwhile, too.
        hold: bool,
    },
    /// Log in with this password where no key does. Answered by `Done`.
    Password {
        /// Somebody typed it.
        password: Secret,
    },
    /// What it takes to get in may have changed: connect now, unless `Offline` holds. Answered by `Done`.
    TryAgain,
    /// About the versions that lost a conflict or were replaced.
    Backups {
        /// What to do with them.
        #[serde(flatten)]
        action: BackupsAction,
    },
    /// About what was deleted.
    Trash {
        /// What to do with it.
        #[serde(flatten)]
        action: TrashAction,
    },
    /// About the versions that lost a conflict, until somebody has decided.
    Conflicts {
        /// What to do with them.
        #[serde(flatten)]
        action: ConflictsAction,
    },
    /// About the content that is on this machine.
    Content {
        /// What to do with it.
        #[serde(flatten)]
        action: ContentAction,
    },
    /// About the keys of machines.
    Keys {
        /// What to do with them.
        #[serde(flatten)]
        action: KeysAction,
    },
    /// What did passes do? Answered by `Passes`.
    Passes,
    /// Take back what a pass did. Answered by `Undone`.
    Undo {
        /// Which pass.
        pass: u64,
        /// Only say what would be done.
        dry_run: bool,
    },
    /// Stop serving. Answered by `Flushed`, after the mount is gone.
    Unmount {
        /// Whether to send what is dirty before.
        flush: bool,
        /// When to give up sending, and unmount all the same; without it, after 60 s.
        timeout_ms: Option<u64>,
    },
}

/// What travels from daemon to client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplyLine {
    /// [`VERSION`].
    pub version: u32,
    /// What is answered.
    pub reply: Reply,
}

/// What a daemon may answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reply {
    /// The daemon still works on it. Sent at least every few seconds; not final.
    Alive,
    /// How far it is. Not final.
    Progress(Progress),
    /// To `Ping`.
    Pong(Pong),
    /// To `Status`.
    Status(Box<Status>),
    /// To `Flush` and `Unmount`.
    Flushed(Left),
    /// To `Reconcile` with `dry_run`.
    Plan(PlanView),
    /// To `Reconcile`.
    Pass(Pass),
    /// To the lists.
    Items(Items),
    /// To `Backups` with `Show`.
    Shown(Shown),
    /// To `Conflicts` with `List`.
    Conflicts(Conflicts),
    /// To `Content` with `Prefetch`.
    Brought(Brought),
    /// To `Content` with `Evict`.
    LetGo(LetGo),
    /// To `Content` with `Pins`.
    Pins(Pins),
    /// To `Content` with `List`.
    Entries(Entries),
    /// To `Keys` with `List`.
    Machines(Machines),
    /// To `Passes`.
    Passes(Passes),
    /// To `Undo`.
    Undone(Undone),
    /// It is done.
    Done {
        /// What was done, for people.
        message: String,
    },
    /// It failed.
    Error(Failure),
}

/// How far a flush, an unmount or a pass is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is going on, for people.
    pub message: String,
    /// Files not on the server yet.
    pub left_files: u64,
    /// Their bytes.
    pub left_bytes: u64,
}

/// Who serves the mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// The daemon's process.
    pub pid: u32,
    /// Where the home is mounted.
    pub mountpoint: String,
    /// Which home.
    pub server: String,
}

/// What is not on the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// How many files, directories and links in all.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first [`LEFT_ITEMS_MAX`] of them.
    pub items: Vec<LeftItem>,
}

/// One thing that is not on the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftItem {
    /// Which.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Why not, for people.
    pub why: String,
}

/// What a pass would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanView {
    /// One step a line, in order, for people.
    pub lines: Vec<String>,
    /// Questions that a person would have to answer first.
    pub guards: Vec<GuardQuestion>,
    /// All in one line, for people.
    pub summary: String,
}

/// Why a pass waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardQuestion {
    /// Which guard, such as `mass_removal`.
    pub guard: String,
    /// What it saw, and what the ways out are.
    pub message: String,
}

/// A pass that has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// Counts the passes of this replica.
    pub id: u64,
    /// When it ended.
    pub at: i64,
    /// What it did, for people.
    pub summary: String,
    /// How many paths could not be brought to agree.
    pub problems: u64,
}

/// All about a mount: what `status --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`STATUS_VERSION`].
    pub version: u32,
    /// Where the home is mounted.
    pub mountpoint: String,
    /// Which home.
    pub server: String,
    /// Where the replica is.
    pub state_dir: String,
    /// The connection.
    pub link: Link,
    /// What is not on the server yet.
    pub unsent: Unsent,
    /// What is under way.
    pub transfers: Vec<Transfer>,
    /// The last pass that ended; null before the first.
    pub last_pass: Option<Pass>,
    /// What a person should know, until it is solved.
    pub problems: Vec<StatusProblem>,
    /// What this machine holds.
    pub replica: ReplicaView,
    /// Conflicts that nobody has decided about yet.
    #[serde(default)]
    pub conflicts: u64,
    /// What the server lacks, and what that costs, while there is a link; for people.
    #[serde(default)]
    pub lacks: Vec<String>,
    /// The day of the key by which this machine logs in, in UTC; null if it has none of its own.
    #[serde(default)]
    pub key_since: Option<String>,
    /// When the Kerberos ticket expires by which this machine logs in; null if it has none in a file.
    #[serde(default)]
    pub ticket_until: Option<i64>,
    /// A question that holds up passes; null usually.
    pub guard: Option<GuardQuestion>,
}

/// The connection to the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its state.
    pub state: LinkState,
    /// Since when.
    pub since: i64,
    /// Why, for people; empty when there is nothing to say.
    pub detail: String,
}

/// The states of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// No connection; tried again now and then, unless told not to.
    Offline,
    /// On its way.
    Connecting,
    /// Connected.
    Online,
    /// The server refused; a person has to act.
    Refused,
}

/// What is not on the server yet, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsent {
    /// How many files, directories and links.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Since when the oldest of them waits; null if nothing waits.
    pub oldest: Option<i64>,
}

/// A transfer under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Of what.
    pub path: String,
    /// Which way.
    pub direction: Direction,
    /// How far.
    pub done_bytes: u64,
    /// Of how much.
    pub total_bytes: u64,
}

/// Which way a transfer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To the server.
    Up,
    /// From the server.
    Down,
}

/// A problem with one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusProblem {
    /// Where.
    pub path: String,
    /// What, and the remedy.
    pub message: String,
    /// Since when.
    pub since: i64,
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
