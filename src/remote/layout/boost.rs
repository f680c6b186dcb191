//! What one client's programs read in the first minutes after its mounts, in a file that others of its home look at when
//! they come up without those contents. A hint from whoever can write there: a path that makes no sense is passed over,
//! and of what is too long the rest is.
//!
//! ```text
//! roamhome-boost 1
//! 0 .config/dconf/user                   mounts since it was read last, path
//! 2 notes/to%20do.txt
//! ```

use std::collections::HashSet;

use super::{decode, encode, is_ours};
use crate::tree::RelPath;

/// The first line, with the version of the form.
const HEAD: &str = "roamhome-boost 1\n";
/// So many files are listed at most.
pub const BOOST_FILES_MAX: usize = 4000;
/// A list is no longer than this, in bytes.
pub const BOOST_BYTES_MAX: usize = 256 * 1024;
/// What was not read in so many mounts, one after the other, is not listed any more.
const FORGOTTEN_AFTER: u32 = 3;
/// Deeper paths are not listed.
const DEEPEST: usize = 64;

/// What programs read after mounts, what was read last first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BoostList(Vec<Listed>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    /// Mounts since it was read.
    age: u32,
    path: RelPath,
}

impl BoostList {
    /// The list after one more mount, in which `read` was read. A mount in which nobody read anything does not count.
    #[must_use]
    pub fn after(self, read: Vec<RelPath>) -> Self {
        if read.is_empty() {
            return self;
        }
        let now = read.into_iter().map(|path| Listed { age: 0, path });
        let before = self.0.into_iter().map(|listed| Listed {
            age: listed.age + 1,
            path: listed.path,
        });
        Self::of(now.chain(before))
    }

    /// What is listed and may be, each path once, within the limits.
    fn of(listed: impl Iterator<Item = Listed>) -> Self {
        let mut seen = HashSet::new();
        let is_path =
            |path: &RelPath| !is_ours(path) && (1..=DEEPEST).contains(&path.names().len());
        let mut list: Vec<_> = listed
            .filter(|listed| listed.age < FORGOTTEN_AFTER && is_path(&listed.path))
            .filter(|listed| seen.insert(listed.path.clone()))
            .collect();
        list.sort_by_key(|listed| listed.age);
        list.truncate(BOOST_FILES_MAX);
        Self(list)
    }

    /// The paths, those that were read last first.
    pub fn paths(&self) -> impl Iterator<Item = &RelPath> {
        self.0.iter().map(|listed| &listed.path)
    }

    /// Whether it lists much that `told` does not, or the other way round: one path in ten.
    pub fn is_news_to(&self, told: &Self) -> bool {
        let mine: HashSet<_> = self.paths().collect();
        let theirs: HashSet<_> = told.paths().collect();
        let differ = mine.symmetric_difference(&theirs).count();
        differ > theirs.len() / 10
    }

    /// What several clients list, each path once: those of the first before those of the second.
    pub fn merged(lists: &[Self]) -> Vec<RelPath> {
        let mut seen = HashSet::new();
        let paths = lists.iter().flat_map(Self::paths);
        let new = paths.filter(|path| seen.insert(*path));
        new.take(BOOST_FILES_MAX).cloned().collect()
    }

    /// The file's content; what does not fit in is left out.
    pub fn format(&self) -> String {
        let mut text = HEAD.to_owned();
        for Listed { age, path } in &self.0 {
            let mut line = format!("{age} ");
            for (i, name) in path.names().iter().enumerate() {
                line.push_str(if i > 0 { "/" } else { "" });
                encode(name.as_bytes(), &mut line);
            }
            line.push('\n');
            if text.len() + line.len() > BOOST_BYTES_MAX {
                break;
            }
            text.push_str(&line);
        }
        text
    }

    /// Reads a list; of what is none, an empty one.
    pub fn parse(bytes: &[u8]) -> Self {
        let bytes = bytes.get(..BOOST_BYTES_MAX).unwrap_or(bytes);
        let Some(lines) = bytes.strip_prefix(HEAD.as_bytes()) else {
            return Self::default();
        };
        // The last line of a longer one may be cut.
        let end = lines.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        let lines = lines[..end].split(|byte| *byte == b'\n');
        Self::of(lines.filter_map(Listed::parse))
    }
}

impl Listed {
    fn parse(line: &[u8]) -> Option<Self> {
        let (age, encoded) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        let bytes = decode(encoded)?;
        let path = RelPath::parse(&bytes).ok()?;
        // Only what would be written that way is a path in the home.
        (path.to_bytes() == bytes).then_some(Self {
            age: age.parse().ok()?,
            path,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> Vec<RelPath> {
        let path = |name: &&str| RelPath::parse(name.as_bytes()).unwrap();
        names.iter().map(path).collect()
    }

    fn told(list: &BoostList) -> Vec<String> {
        list.paths().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_not_read_for_three_mounts_is_forgotten_and_what_is_read_comes_first() {
        let list = BoostList::default().after(paths(&["a", "b"]));
        let list = list.after(paths(&["c", "b"]));
        assert_eq!(told(&list), ["c", "b", "a"]);
        // Nobody logged in.
        let list = list.after(Vec::new());
        let list = list.after(paths(&["c"]));
        assert_eq!(told(&list), ["c", "b", "a"]);
        let list = list.after(paths(&["c"]));
        assert_eq!(told(&list), ["c", "b"]);
        assert_eq!(told(&list.after(paths(&["d"]))), ["d", "c"]);
    }

    #[test]
    fn a_list_is_read_as_it_was_written_and_never_longer_than_it_may_be() {
        let odd = RelPath::parse(b"d/a b\n\xff~%").unwrap();
        let list = BoostList::default().after(vec![odd]).after(paths(&["e/f"]));
        let text = list.format();
        assert!(text.is_ascii());
        assert_eq!(BoostList::parse(text.as_bytes()), list);

        let many: Vec<_> = (0..BOOST_FILES_MAX + 5).map(|i| format!("f{i}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let list = BoostList::default().after(paths(&many));
        assert_eq!(list.paths().count(), BOOST_FILES_MAX);
        assert_eq!(BoostList::parse(list.format().as_bytes()), list);

        let long: Vec<_> = (0..3000)
            .map(|i| format!("{i}/{}", "x".repeat(200)))
            .collect();
        let long: Vec<_> = long.iter().map(String::as_str).collect();
        let text = BoostList::default().after(paths(&long)).format();
        assert!(text.len() <= BOOST_BYTES_MAX);
        assert!(BoostList::parse(text.as_bytes()).paths().count() > 1000);
    }

    #[test]
    fn lists_of_several_machines_become_one_the_newest_first() {
        let list = |names: &[&str]| BoostList::default().after(paths(names));
        let merged = BoostList::merged(&[list(&["b", "a"]), list(&["a", "c"])]);
        assert_eq!(merged, paths(&["b", "a", "c"]));
        let names: Vec<_> = (0..BOOST_FILES_MAX).map(|i| format!("f{i}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let merged = BoostList::merged(&[list(&["a"]), list(&names)]);
        assert_eq!(merged.len(), BOOST_FILES_MAX);
        assert_eq!(merged[0], paths(&["a"])[0]);
    }

    #[test]
    fn little_that_changed_is_no_news() {
        let names: Vec<_> = (0..40).map(|i| format!("f{i}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let list = |names: &[&str]| BoostList::default().after(paths(names));
        let before = list(&names);
        assert!(before.is_news_to(&BoostList::default()));
        assert!(!list(&names[2..]).is_news_to(&before));
        assert!(list(&names[5..]).is_news_to(&before));
        // Only how long ago it was read.
        let later = before.clone().after(paths(&names[..3]));
        assert!(!later.is_news_to(&before));
    }

    #[test]
    fn a_hostile_list_names_nothing_outside_of_the_home_and_costs_little() {
        for none in [&b""[..], b"\xff\xfe", b"roamhome-boost 2\n0 a\n", b"0 a\n"] {
            assert_eq!(BoostList::parse(none), BoostList::default(), "{none:?}");
        }
        let deep = "d/".repeat(DEEPEST) + "f";
        let lines = format!(
            "0 ../up\n0 a/../b\n0 ./a\n0 /etc/passwd\n0 %2Fetc\n0 a//b\n0 a/\n0 \n0\n\n0 a%00b\n\
             0 %ZZ\n0 .roamhome/home.toml\n-1 a\n99999999999 a\n3 a\nx a\n0 {deep}\n0 {}\n0 good\n0 good\n1 cut",
            "y".repeat(300)
        );
        let mut text = HEAD.as_bytes().to_vec();
        text.extend_from_slice(lines.as_bytes());
        assert_eq!(told(&BoostList::parse(&text)), ["good"]);

        let mut huge = HEAD.as_bytes().to_vec();
        while huge.len() < 40 * BOOST_BYTES_MAX {
            huge.extend_from_slice(format!("0 {}\n", huge.len()).as_bytes());
        }
        assert_eq!(BoostList::parse(&huge).paths().count(), BOOST_FILES_MAX);
        let mut garbage = HEAD.as_bytes().to_vec();
        garbage.extend((0..100_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8));
        BoostList::parse(&garbage);
    }
}
