//! What the user and the administrator chose: layers of TOML files and flags, merged into one typed
//! [`Config`], with the source of each value remembered.
//!
//! `config/defaults.toml` is the lowest layer, the list of known keys and the manual of the format at once.
//! Each value is checked when its layer is added, so that an error names the file and the key.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

use crate::sync::Prefer;

mod bandwidth;
mod dirs;
pub mod duration;
mod layers;
mod size;
mod target;
mod transport;

pub use bandwidth::Timetable;
pub use dirs::{Env, control_socket_name};
pub use layers::{ConfigError, DEFAULTS, Layers, Source, Value};
pub use target::{Place, Target, TargetError};
pub use transport::{Transport, Way, WayError};

/// What to do with a host whose key is not known. One whose key changed is always refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostKeyPolicy {
    /// Refuse it.
    Strict,
    /// Take note of its key and trust it from then on.
    AcceptNew,
}

/// Where people find what lost a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConflictCopies {
    /// Among the backups alone, and in `roamhome conflicts list`.
    Hidden,
    /// Beside the winner, too.
    Visible,
}

/// Whether the connection compresses what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// If the connection before was slow.
    Auto,
    /// Always, where the server can.
    On,
    /// Never.
    Off,
}

/// What happens to who logs in for the first time on a machine that cannot get their home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FirstLogin {
    /// They are not let in.
    Refuse,
    /// They work in an empty directory of this machine.
    Local,
}

/// What stays on this machine when nobody is logged in any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnLogout {
    /// All that was fetched, for the next login.
    Keep,
    /// No content that the server has.
    Purge,
}

/// When a machine gets a key of its own, by which it logs in where nobody types a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enrol {
    /// When somebody logs in with a password that the server takes.
    Login,
    /// When `roamhome enrol` is said.
    Never,
}

/// How a file on the server is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Publish {
    /// Keep the old version by a hard link, then rename over it: the name never vanishes.
    Link,
    /// Move the old version aside, then create: no race is left, but the name is gone for a moment.
    Aside,
}

/// All settings in force, as `config/defaults.toml` describes them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The home, unless the command line names it.
    #[serde(deserialize_with = "layers::optional")]
    pub server: Option<String>,
    /// How the home's directory is reached.
    pub transport: Transport,
    /// The program and its first arguments for `transport = "ssh"`.
    #[serde(deserialize_with = "transport::words")]
    pub ssh_command: Vec<String>,
    /// The program and its arguments for `transport = "command"`.
    #[serde(deserialize_with = "transport::words")]
    pub sftp_command: Vec<String>,
    /// The private key to log in with.
    #[serde(deserialize_with = "layers::optional")]
    pub identity: Option<PathBuf>,
    /// The file of known host keys.
    #[serde(deserialize_with = "layers::optional")]
    pub known_hosts: Option<PathBuf>,
    /// For hosts not in it.
    pub host_key_policy: HostKeyPolicy,
    /// Where the replica is kept.
    #[serde(deserialize_with = "layers::optional")]
    pub state_dir: Option<PathBuf>,
    /// The longest wait of a program for a connection on its way, and then for a server that says nothing.
    #[serde(deserialize_with = "duration::deserialize")]
    pub fetch_timeout: Duration,
    /// How long a file is left alone before it is sent.
    #[serde(deserialize_with = "duration::deserialize")]
    pub quiet_period: Duration,
    /// When a file that is never left alone is sent.
    #[serde(deserialize_with = "duration::deserialize")]
    pub max_dirty_age: Duration,
    /// How often all is compared.
    #[serde(deserialize_with = "duration::deserialize")]
    pub reconcile_interval: Duration,
    /// How long backups and trash are kept.
    #[serde(deserialize_with = "duration::deserialize")]
    pub retention: Duration,
    /// How many bytes of them are kept, on each side.
    #[serde(deserialize_with = "size::deserialize")]
    pub retention_size: u64,
    /// How many versions of one file are kept, on each side.
    pub kept_per_file: usize,
    /// How much room content may take on this machine's disk; `None`: as much as there is.
    #[serde(deserialize_with = "size::deserialize_limit")]
    pub cache_size: Option<u64>,
    /// How much room stays free there.
    #[serde(deserialize_with = "size::deserialize")]
    pub cache_min_free: u64,
    /// Whether what programs read soon after a mount is remembered in the home, and fetched where it lacks.
    pub boost: bool,
    /// How soon that is.
    #[serde(deserialize_with = "duration::deserialize")]
    pub boost_window: Duration,
    /// Who wins where times do not tell.
    pub prefer: Prefer,
    /// Whether what lost a conflict is put beside what won.
    pub conflict_copies: ConflictCopies,
    /// Whether the server keeps versions that their own user replaced.
    pub keep_replaced: bool,
    /// How files on the server are replaced.
    pub publish: Publish,
    /// Whether the server makes files durable before they replace others.
    pub server_fsync: bool,
    /// Whether the server copies what it has of a large file that changed.
    pub delta: bool,
    /// A pass that removes more files and directories than this, and more than the share below, asks first.
    pub guard_removed_count: u64,
    /// The share of all files and directories, 0 to 1.
    #[serde(deserialize_with = "layers::share")]
    pub guard_removed_share: f64,
    /// How fast content goes to the server.
    #[serde(deserialize_with = "bandwidth::deserialize")]
    pub bandwidth_up: Timetable,
    /// How fast it comes from there.
    #[serde(deserialize_with = "bandwidth::deserialize")]
    pub bandwidth_down: Timetable,
    /// Whether the connection compresses.
    pub compression: Compression,
    /// SFTP sessions over one connection.
    #[serde(deserialize_with = "layers::channels")]
    pub channels: u8,
    /// Files on their way to the server at once.
    #[serde(deserialize_with = "layers::uploads")]
    pub uploads_in_flight: u16,
    /// How long a login waits for a home that was here before.
    #[serde(deserialize_with = "duration::deserialize")]
    pub login_timeout: Duration,
    /// How long the last logout waits for what is left to be sent.
    #[serde(deserialize_with = "duration::deserialize")]
    pub logout_timeout: Duration,
    /// What happens to who logs in for the first time while the server is away.
    pub first_login: FirstLogin,
    /// What stays on this machine when nobody is logged in.
    pub on_logout: OnLogout,
    /// When this machine gets a key of its own.
    pub enrol: Enrol,
    /// After this time it gets another.
    #[serde(deserialize_with = "duration::deserialize")]
    pub key_lifetime: Duration,
    /// Accounts below this number have no home that follows them.
    pub login_min_uid: u32,
    /// The shipped patterns of what stays on this machine.
    pub host_scoped_defaults: Vec<String>,
    /// The user's own.
    pub host_scoped: Vec<String>,
    /// The shipped list of programs for which nothing large is fetched.
    pub restrained_programs_defaults: Vec<String>,
    /// The user's own.
    pub restrained_programs: Vec<String>,
    /// What counts as large for them, in bytes.
    #[serde(deserialize_with = "size::deserialize")]
    pub restrained_from: u64,
    /// The log's level or directives.
    #[serde(deserialize_with = "layers::log_level")]
    pub log: String,
}

impl Config {
    /// All patterns of what stays on this machine, in order: later ones win, as in a `.gitignore`.
    pub fn host_scoped_patterns(&self) -> impl Iterator<Item = &str> {
        self.host_scoped_defaults
            .iter()
            .chain(&self.host_scoped)
            .map(String::as_str)
    }

    /// All programs for which nothing large is fetched, in order: a later `!NAME` takes one out.
    pub fn restrained_entries(&self) -> impl Iterator<Item = &str> {
        self.restrained_programs_defaults
            .iter()
            .chain(&self.restrained_programs)
            .map(String::as_str)
    }
}

/// A file name out of `readable` and the hash of `identity`: only letters, digits and `@._-`, short, and
/// distinct for distinct identities.
fn slug(readable: &str, identity: &[u8]) -> String {
    const READABLE_MAX: usize = 48;
    let mut slug = String::new();
    for c in readable.chars() {
        let fits = c.is_ascii_alphanumeric() || matches!(c, '@' | '.' | '_');
        match (fits, slug.ends_with('-')) {
            (true, _) => slug.push(c),
            (false, false) if !slug.is_empty() => slug.push('-'),
            (false, _) => {}
        }
        if slug.len() >= READABLE_MAX {
            break;
        }
    }
    let hash = blake3::hash(identity).to_hex();
    let readable = slug.trim_matches(['-', '.']);
    format!(
        "{readable}{}{}",
        if readable.is_empty() { "" } else { "-" },
        &hash[..8]
    )
}
