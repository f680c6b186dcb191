//! The names in `.roamhome/`, the one directory on the server that is ours.
//!
//! ```text
//! .roamhome/home.toml                              which home this is
//! .roamhome/staging/<client>-<node>-<number>       uploads that are not in place yet
//! .roamhome/trash/<time>-<number>-<why>~<path>     what was removed
//! .roamhome/backups/<time>-<number>-<why>~<path>   what lost a conflict or was replaced
//! .roamhome/feed/<client>-<number>                 what clients tell each other
//! .roamhome/boost/<client>                         what programs read first there
//! ```
//!
//! A put-aside file tells all about itself in its name: when (seconds in UTC, padded so that names sort by time), why,
//! and the path it had, percent-encoded. A path too long for that keeps its end, behind the hash of the whole.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::tree::{Name, NodeId, RelPath, Time};

mod boost;
mod feed;

pub use boost::{BOOST_BYTES_MAX, BOOST_FILES_MAX, BoostList};
pub use feed::{FeedRecord, PUBLISHED_MAX, Published};

/// The directory at the home's root; hidden from the mount.
pub const DIRECTORY: &str = ".roamhome";
/// The version of this layout.
pub const FORMAT: u32 = 1;
/// The longest name that servers take.
const NAME_MAX: usize = 255;

fn below(parts: &[&str]) -> RelPath {
    let names = std::iter::once(&DIRECTORY).chain(parts);
    // Built from constants and from `Aside` and friends, which are names by construction.
    names
        .filter_map(|part| Name::new(part.as_bytes()).ok())
        .collect()
}

/// `.roamhome`.
pub fn directory() -> RelPath {
    below(&[])
}

/// `.roamhome/home.toml`.
pub fn home_toml() -> RelPath {
    below(&["home.toml"])
}

/// `.roamhome/staging`.
pub fn staging() -> RelPath {
    below(&["staging"])
}

/// `.roamhome/trash`.
pub fn trash() -> RelPath {
    below(&["trash"])
}

/// `.roamhome/backups`.
pub fn backups() -> RelPath {
    below(&["backups"])
}

/// `.roamhome/feed`.
pub fn feed() -> RelPath {
    below(&["feed"])
}

/// All directories that a home needs, parents first.
pub fn directories() -> [RelPath; 5] {
    [directory(), staging(), trash(), backups(), feed()]
}

/// Whether `path` is ours rather than the user's.
pub fn is_ours(path: &RelPath) -> bool {
    path.names()
        .first()
        .is_some_and(|n| n.as_bytes() == DIRECTORY.as_bytes())
}

/// The machine that a name in staging or feed belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClientId(pub u64);

impl std::fmt::Display for ClientId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The staging file of `node`, unique as long as `client` never uses a `number` twice for it.
pub fn staging_name(client: ClientId, node: NodeId, number: u64) -> String {
    format!("{client}-{node}-{number}")
}

/// The client, node and number of a staging name.
pub fn parse_staging_name(name: &Name) -> Option<(ClientId, NodeId, u64)> {
    let text = std::str::from_utf8(name.as_bytes()).ok()?;
    let mut parts = text.split('-');
    let client = parse_client(parts.next()?)?;
    let node = NodeId(parts.next()?.parse().ok()?);
    let number = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some((client, node, number))
}

/// The path of a staging file.
pub fn staging_path(name: &str) -> RelPath {
    below(&["staging", name])
}

/// The path of a client's feed record.
pub fn feed_path(client: ClientId, number: u64) -> RelPath {
    below(&["feed", &format!("{client}-{number:020}")])
}

/// The client and number of a feed record's name.
pub fn parse_feed_name(name: &Name) -> Option<(ClientId, u64)> {
    let text = std::str::from_utf8(name.as_bytes()).ok()?;
    let (client, number) = text.split_once('-')?;
    Some((parse_client(client)?, number.parse().ok()?))
}

/// `.roamhome/boost`; made when somebody has something to put there.
pub fn boost() -> RelPath {
    below(&["boost"])
}

/// The path of a client's list of what programs read first.
pub fn boost_path(client: ClientId) -> RelPath {
    below(&["boost", &client.to_string()])
}

/// Its next version, before it has that name.
pub fn boost_staged(client: ClientId) -> RelPath {
    staging_path(&format!("{client}-boost"))
}

/// Whether it is the name of such a list.
pub fn is_boost_name(name: &Name) -> bool {
    let text = std::str::from_utf8(name.as_bytes());
    text.is_ok_and(|text| parse_client(text).is_some())
}

fn parse_client(text: &str) -> Option<ClientId> {
    let valid = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    valid.then(|| u64::from_str_radix(text, 16).ok().map(ClientId))?
}

/// Why something was put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A user removed it.
    Removed,
    /// A newer version of this home's user replaced it.
    Replaced,
    /// It lost a conflict.
    Conflict,
    /// Somebody changed it in the moment of its replacement.
    Race,
}

impl Reason {
    const ALL: [Self; 4] = [Self::Removed, Self::Replaced, Self::Conflict, Self::Race];

    fn word(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Replaced => "replaced",
            Self::Conflict => "conflict",
            Self::Race => "race",
        }
    }
}

/// Where a put-aside file stood.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// There.
    Path(RelPath),
    /// The path was too long for the name; this is its end, and some of the hash of the whole.
    Long {
        /// The first 16 hexadecimal digits of the path's BLAKE3 hash.
        hash: String,
        /// The last bytes of the path.
        end: Vec<u8>,
    },
}

/// What a name in `trash/` or `backups/` tells.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Aside {
    /// When, in server time, whole seconds.
    pub at: Time,
    /// Tells apart what was put aside in one second; random.
    pub number: u32,
    /// Why.
    pub reason: Reason,
    /// Where it stood.
    pub origin: Origin,
}

impl Aside {
    /// What was at `path`.
    pub fn new(at: Time, number: u32, reason: Reason, path: &RelPath) -> Self {
        let bytes = path.to_bytes();
        let mut aside = Self {
            at: Time::new(at.secs().max(0), 0),
            number,
            reason,
            origin: Origin::Path(path.clone()),
        };
        if aside.name().len() > NAME_MAX {
            let hash = blake3::hash(&bytes).to_hex()[..16].to_owned();
            let mut end = bytes;
            while {
                let origin = Origin::Long {
                    hash: hash.clone(),
                    end: end.clone(),
                };
                aside.origin = origin;
                aside.name().len() > NAME_MAX
            } {
                let excess = aside.name().len() - NAME_MAX;
                // Each byte dropped shortens the name by one to three.
                end.drain(..excess.div_ceil(3));
            }
        }
        aside
    }

    /// The name of its file.
    pub fn name(&self) -> String {
        let Self { number, reason, .. } = self;
        let mut name = format!("{:010}-{number:08x}-{}", self.at.secs(), reason.word());
        match &self.origin {
            Origin::Path(path) => {
                name.push('~');
                encode(&path.to_bytes(), &mut name);
            }
            Origin::Long { hash, end } => {
                name.push('~');
                name.push_str(hash);
                name.push('~');
                encode(end, &mut name);
            }
        }
        name
    }

    /// Reads a name; `None` if it is not one of ours.
    pub fn parse(name: &Name) -> Option<Self> {
        let text = std::str::from_utf8(name.as_bytes()).ok()?;
        let (head, origin) = text.split_once('~')?;
        let mut head = head.split('-');
        let at = Time::new(head.next()?.parse().ok().filter(|s| *s >= 0)?, 0);
        let number = u32::from_str_radix(head.next()?, 16).ok()?;
        let word = head.next()?;
        let reason = Reason::ALL.into_iter().find(|r| r.word() == word)?;
        let origin = match origin.split_once('~') {
            Some((hash, end)) => Origin::Long {
                hash: hash.to_owned(),
                end: decode(end)?,
            },
            None => Origin::Path(RelPath::parse(&decode(origin)?).ok()?),
        };
        let aside = Self {
            at,
            number,
            reason,
            origin,
        };
        // Only what would be written that way is ours.
        (head.next().is_none() && aside.name() == text).then_some(aside)
    }
}

/// The path of what was put into the trash.
pub fn trash_path(aside: &Aside) -> RelPath {
    below(&["trash", &aside.name()])
}

/// The path of a backup.
pub fn backup_path(aside: &Aside) -> RelPath {
    below(&["backups", &aside.name()])
}

/// Percent-encodes all but what is plain everywhere. `~` is taken by the names themselves.
fn encode(bytes: &[u8], to: &mut String) {
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'+' | b'=' | b',' => {
                to.push(char::from(*byte));
            }
            // Writing to a string cannot fail.
            _ => drop(write!(to, "%{byte:02X}")),
        }
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    Some(bytes)
}

/// What `home.toml` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeToml {
    /// Version of this layout.
    pub format: u32,
    /// 128 random bits in hexadecimal, given once: which home this is.
    pub identity: String,
}

/// Why a `home.toml` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HomeTomlError {
    /// It is damaged.
    #[error(".roamhome/home.toml is damaged: {0}")]
    Damaged(String),
    /// It was written by a newer program.
    #[error(
        ".roamhome/home.toml has format {found}, this program knows up to {FORMAT}; update roamhome"
    )]
    TooNew {
        /// Its format.
        found: u32,
    },
}

impl HomeToml {
    /// A new home.
    pub fn new(random: u128) -> Self {
        Self {
            format: FORMAT,
            identity: format!("{random:032x}"),
        }
    }

    /// Reads the file.
    pub fn parse(bytes: &[u8]) -> Result<Self, HomeTomlError> {
        let damaged = |why: &dyn ToString| HomeTomlError::Damaged(why.to_string());
        let text = std::str::from_utf8(bytes).map_err(|e| damaged(&e))?;
        let home: Self = toml::from_str(text).map_err(|e| damaged(&e.message()))?;
        if home.format > FORMAT {
            return Err(HomeTomlError::TooNew { found: home.format });
        }
        let hex = home.identity.bytes().all(|b| b.is_ascii_hexdigit());
        if home.identity.len() != 32 || !hex {
            return Err(damaged(&"the identity is not 32 hexadecimal digits"));
        }
        Ok(home)
    }

    /// The file's content.
    pub fn format(&self) -> String {
        let Self { format, identity } = self;
        format!(
            "# Tells roamhome which home this is. Without it, clients stop until told otherwise.\n\
             format = {format}\nidentity = \"{identity}\"\n"
        )
    }
}

#[cfg(test)]
mod tests;
