//! Names in `.roamhome/`, the one directory on the server that is ours. Pure.
//!
//! ```text
//! .roamhome/home.toml              identity and format version
//! .roamhome/staging/<name>         uploads under way
//! .roamhome/trash/<kept>           what was deleted on purpose
//! .roamhome/backups/<kept>         what lost a conflict or was replaced
//! .roamhome/feed/<client>.counter  how often this client published
//! ```
//!
//! A kept file is called `<seconds>-<tag>-<path>`, where `/` and `%` of the path are written `%2F` and
//! `%25`. A path too long for one name is cut at its front and stands whole in `<seconds>-<tag>.origin`.

use serde::{Deserialize, Serialize};

use crate::tree::{Name, RelPath};

/// The directory, in the home's root.
pub const HIDDEN_DIR: &[u8] = b".roamhome";

/// The version of this layout. A greater one in `home.toml` is not touched.
pub const FORMAT: u32 = 1;

/// The longest file name that servers take, in bytes.
const NAME_MAX: usize = 255;

/// Marks a kept file's name whose path was cut.
const CUT: u8 = b'~';

const ORIGIN_SUFFIX: &str = ".origin";

/// Where kept files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shelf {
    /// What was deleted on purpose.
    Trash,
    /// What lost a conflict or was replaced.
    Backups,
}

impl Shelf {
    fn dir_name(self) -> &'static [u8] {
        match self {
            Self::Trash => b"trash",
            Self::Backups => b"backups",
        }
    }

    /// The shelf's directory.
    pub fn dir(self) -> RelPath {
        ours(&[self.dir_name()])
    }
}

/// Where a file is kept, and what must be written beside it first if its path does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPath {
    /// The kept file.
    pub file: RelPath,
    /// A file that holds the whole original path.
    pub origin: Option<(RelPath, Vec<u8>)>,
}

/// What a kept file's name tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptName {
    /// When it was put there, seconds since the epoch by the server's clock.
    pub at: i64,
    /// Makes the name unique.
    pub tag: String,
    /// Where it was; `None` if that stands in the `.origin` file beside it.
    pub path: Option<RelPath>,
}

/// The content of `home.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeToml {
    /// 128 random bits in hexadecimal.
    pub identity: String,
    /// See [`FORMAT`].
    pub format: u32,
}

impl HomeToml {
    /// A new home with these random bytes as its identity.
    pub fn found(random: [u8; 16]) -> Self {
        Self { identity: random.iter().map(|b| format!("{b:02x}")).collect(), format: FORMAT }
    }

    /// Reads the file's text; the error is in words for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let home: Self = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        if home.format > FORMAT {
            return Err(format!(
                "it has format {}, and this roamhome knows formats up to {FORMAT}: install a newer one",
                home.format
            ));
        }
        if home.identity.len() < 16 {
            return Err("its identity is too short".into());
        }
        Ok(home)
    }

    /// The file's text.
    pub fn format(&self) -> String {
        format!("# The identity of this roamhome home. Do not copy it to another one.\nidentity = \"{}\"\nformat = {}\n", self.identity, self.format)
    }
}

/// All directories, parents first.
pub fn directories() -> Vec<RelPath> {
    let mut dirs = vec![ours(&[])];
    dirs.extend([&b"staging"[..], b"trash", b"backups", b"feed"].map(|name| ours(&[name])));
    dirs
}

/// The identity file.
pub fn home_toml() -> RelPath {
    ours(&[b"home.toml"])
}

/// The directory of uploads under way.
pub fn staging_dir() -> RelPath {
    ours(&[b"staging"])
}

/// An upload under way.
pub fn staging(name: &str) -> RelPath {
    ours(&[b"staging", name.as_bytes()])
}

/// How often a client published.
pub fn feed_counter(client: &str) -> RelPath {
    ours(&[b"feed", format!("{client}.counter").as_bytes()])
}

/// Where the file at `path` is kept. `tag` is unique among the client's files of that second and has
/// letters and digits only.
pub fn kept(shelf: Shelf, at: i64, tag: &str, path: &RelPath) -> KeptPath {
    let mut name = format!("{at}-{tag}-").into_bytes();
    let encoded = encode(&path.to_bytes());
    let room = NAME_MAX.saturating_sub(name.len());
    if encoded.len() <= room {
        name.extend(encoded);
        return KeptPath { file: ours(&[shelf.dir_name(), &name]), origin: None };
    }
    name.push(CUT);
    name.extend(&encoded[encoded.len() - (room - 1)..]);
    let origin = ours(&[shelf.dir_name(), format!("{at}-{tag}{ORIGIN_SUFFIX}").as_bytes()]);
    KeptPath {
        file: ours(&[shelf.dir_name(), &name]),
        origin: Some((origin, path.to_bytes())),
    }
}

/// The file that holds the whole path of a kept file whose name was cut.
pub fn origin_of(shelf: Shelf, kept: &KeptName) -> RelPath {
    ours(&[shelf.dir_name(), format!("{}-{}{ORIGIN_SUFFIX}", kept.at, kept.tag).as_bytes()])
}

/// Reads a kept file's name; `None` for anything else that lies there.
pub fn parse_kept(name: &Name) -> Option<KeptName> {
    let bytes = name.as_bytes();
    if bytes.ends_with(ORIGIN_SUFFIX.as_bytes()) && bytes.iter().filter(|b| **b == b'-').count() < 2 {
        return None;
    }
    let mut parts = bytes.splitn(3, |b| *b == b'-');
    let at = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let tag = std::str::from_utf8(parts.next()?).ok()?.to_owned();
    let path = match parts.next()? {
        [CUT, ..] => None,
        encoded => Some(RelPath::parse(&decode(encoded)?).ok()?),
    };
    Some(KeptName { at, tag, path })
}

fn ours(names: &[&[u8]]) -> RelPath {
    let all = std::iter::once(HIDDEN_DIR).chain(names.iter().copied());
    // Only names made here, which are valid; anything else would be cut out, not let through.
    all.filter_map(|name| Name::new(name).ok()).collect()
}

/// A leading `~` is written `%7E`, since it marks names that were cut.
fn encode(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for (i, b) in path.iter().enumerate() {
        match b {
            b'/' => out.extend(b"%2F"),
            b'%' => out.extend(b"%25"),
            &CUT if i == 0 => out.extend(b"%7E"),
            b => out.push(*b),
        }
    }
    out
}

fn decode(encoded: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((b, after)) = rest.split_first() {
        if *b == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            out.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            out.push(*b);
            rest = after;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(path: &RelPath) -> Name {
        path.names().last().unwrap().clone()
    }

    #[test]
    fn a_kept_name_tells_where_the_file_was() {
        for path in ["notes.txt", "a/b-c/100%.txt", "~/x", "caf\u{e9}/.hidden", "x.origin"] {
            let path = RelPath::parse(path.as_bytes()).unwrap();
            let kept = kept(Shelf::Trash, 1_700_000_000, "k3", &path);
            let name = parse_kept(&last(&kept.file)).unwrap();
            assert_eq!(name, KeptName { at: 1_700_000_000, tag: "k3".into(), path: Some(path) });
            assert_eq!(kept.origin, None);
        }
    }

    #[test]
    fn a_path_too_long_for_a_name_stands_beside_it() {
        let path = RelPath::parse("directory/".repeat(40).as_bytes()).unwrap();
        let kept = kept(Shelf::Backups, 5, "t", &path);
        assert!(last(&kept.file).as_bytes().len() <= NAME_MAX);
        let name = parse_kept(&last(&kept.file)).unwrap();
        assert_eq!(name.path, None);
        let (origin, bytes) = kept.origin.unwrap();
        assert_eq!((origin_of(Shelf::Backups, &name), path.to_bytes()), (origin.clone(), bytes));
        assert_eq!(parse_kept(&last(&origin)), None);
    }

    #[test]
    fn foreign_names_on_a_shelf_are_not_kept_files() {
        for name in ["x", "12", "12-t", "x-t-p", "12-t-%zz", "12-t-a%2F..%2Fb"] {
            assert_eq!(parse_kept(&Name::new(name.as_bytes()).unwrap()), None, "{name}");
        }
    }

    #[test]
    fn home_toml_round_trips_and_newer_formats_are_refused() {
        let home = HomeToml::found([7; 16]);
        assert_eq!(HomeToml::parse(&home.format()), Ok(home.clone()));
        let newer = HomeToml { format: FORMAT + 1, ..home };
        assert!(HomeToml::parse(&newer.format()).unwrap_err().contains("install a newer one"));
        assert!(HomeToml::parse("rubbish").is_err());
    }
}
