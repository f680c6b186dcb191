//! What a disk owes to a program after a power loss.
//!
//! Names: the state after some step that was not earlier than the last sync. Content: what was synced, or what was
//! written later, of which any part may be missing; what was synced before it is whole. A file that lost its last
//! name before the sync owes nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::writer::Step;

/// Files by name.
pub(super) type Found = BTreeMap<String, Vec<u8>>;

/// One content of a file.
struct Version {
    data: Vec<u8>,
    /// Bytes at its start that its writer left alone.
    kept: usize,
}

/// A file under whatever names.
struct File {
    versions: Vec<Version>,
    /// The last that was synced.
    synced: Option<usize>,
}

type Names = BTreeMap<String, usize>;

/// Everything a program did since it last knew its disk.
pub(super) struct Ledger {
    files: Vec<File>,
    names: Names,
    /// The names after each step since the last sync; first those of the sync.
    history: Vec<Names>,
    /// How many files were synced at some time.
    pub(super) syncs: u64,
}

impl Ledger {
    /// Starts with what is known to be on the disk.
    pub(super) fn new(found: &Found) -> Self {
        let file = |data: &Vec<u8>| File {
            versions: vec![Version {
                data: data.clone(),
                kept: 0,
            }],
            synced: Some(0),
        };
        let names: Names = found.keys().cloned().zip(0..).collect();
        Self {
            files: found.values().map(file).collect(),
            history: vec![names.clone()],
            names,
            syncs: 0,
        }
    }

    /// A step that may happen from now on.
    pub(super) fn begin(&mut self, step: &Step) {
        match step {
            Step::Write { name, data, .. } => {
                let version = Version {
                    data: data.clone(),
                    kept: 0,
                };
                match self.names.get(name) {
                    Some(id) => self.files[*id].versions.push(version),
                    None => {
                        self.names.insert(name.clone(), self.files.len());
                        self.files.push(File {
                            versions: vec![version],
                            synced: None,
                        });
                    }
                }
            }
            Step::Append { name, data, .. } => {
                let file = &mut self.files[self.names[name]];
                let old = &file.versions.last().unwrap().data;
                file.versions.push(Version {
                    kept: old.len(),
                    data: [&old[..], data].concat(),
                });
            }
            Step::Rename { from, to } => {
                let id = self.names.remove(from).unwrap();
                self.names.insert(to.clone(), id);
            }
            Step::Remove { name } => drop(self.names.remove(name)),
            Step::SyncDir { .. } => {}
        }
        if self.history.last() != Some(&self.names) {
            self.history.push(self.names.clone());
        }
    }

    /// The step was acknowledged.
    pub(super) fn done(&mut self, step: &Step) {
        let synced = match step {
            Step::Write { name, sync, .. } | Step::Append { name, sync, .. } if *sync => Some(name),
            Step::SyncDir { .. } => None,
            _ => return,
        };
        if let Some(name) = synced {
            let file = &mut self.files[self.names[name]];
            file.synced = Some(file.versions.len() - 1);
            self.syncs += 1;
        }
        self.history = vec![self.names.clone()];
    }

    /// What is wrong with what was found after the power came back; empty if nothing is. What the disk did not owe
    /// may be there. Of the files in `sent` the server alone has the content, which is not enough for what was
    /// synced and then left alone.
    pub(super) fn broken(&self, found: &Found, sent: &BTreeSet<String>) -> Vec<String> {
        let wrong_with = |names: &Names| -> Vec<String> {
            let wrong = names.iter().filter_map(|(name, id)| match found.get(name) {
                None if sent.contains(name) => {
                    let is_owed = self.files[*id].is_owed();
                    is_owed.then(|| format!("{name} was synced and is not here"))
                }
                None => Some(format!("{name} is missing")),
                Some(data) => self.files[*id]
                    .wrong(data)
                    .map(|why| format!("{name}: {why}")),
            });
            wrong.collect()
        };
        let each = self.history.iter().map(wrong_with).enumerate();
        let (step, mut wrong) = each
            .min_by_key(|(_, wrong)| wrong.len())
            .unwrap_or_default();
        if !wrong.is_empty() {
            let (last, names) = (self.history.len() - 1, &self.history[step]);
            wrong.push(format!(
                "that is state {step} of 0..={last} since the last sync: {names:?}"
            ));
            wrong.push(format!(
                "found: {:?}, on the server: {sent:?}",
                found.keys()
            ));
        }
        wrong
    }

    /// Files that were synced, and not removed or replaced since, of which nothing is among `found`.
    pub(super) fn lost(&self, found: &Found) -> Vec<String> {
        let owed = self.history[0].iter().filter(|(_, id)| {
            let lives = |names: &Names| names.values().any(|other| other == *id);
            self.files[**id].synced.is_some() && self.history.iter().all(lives)
        });
        owed.filter(|(_, id)| {
            !found
                .values()
                .any(|data| self.files[**id].wrong(data).is_none())
        })
        .map(|(name, _)| name.clone())
        .collect()
    }
}

impl File {
    /// Whether the disk owes exactly what is its content.
    fn is_owed(&self) -> bool {
        self.synced == Some(self.versions.len() - 1)
    }

    /// Why this cannot be what the disk holds of it.
    fn wrong(&self, found: &[u8]) -> Option<String> {
        let first = self.synced.unwrap_or(0);
        let mut whole = self.synced.map_or(0, |at| self.versions[at].data.len());
        for (number, version) in self.versions.iter().enumerate().skip(first) {
            if found == version.data {
                return None;
            }
            if Some(number) == self.synced {
                continue;
            }
            whole = whole.min(version.kept);
            if is_part(found, &self.versions[first..=number], whole) {
                return None;
            }
        }
        let synced = self.synced.map(|at| self.versions[at].data.len());
        let written = self.versions.len() - first;
        Some(format!(
            "{} bytes starting with {:?} are none of {written} versions from the synced {synced:?} bytes on",
            found.len(),
            String::from_utf8_lossy(&found[..found.len().min(12)]),
        ))
    }
}

/// Whether `found` is what a disk may hold of versions of which only the first may be synced: of each byte any state
/// that it had, but the first `whole` bytes, which are the same in all of them.
fn is_part(found: &[u8], versions: &[Version], whole: usize) -> bool {
    let longest = versions.iter().map(|version| version.data.len()).max();
    let fits = found.len() >= whole && Some(found.len()) <= longest;
    let was = |at: usize, byte: u8| versions.iter().any(|v| v.data.get(at) == Some(&byte));
    let mut bytes = found.iter().enumerate();
    fits && bytes.all(|(at, byte)| was(at, *byte) || *byte == 0 && at >= whole)
}

#[test]
fn the_ledger_knows_what_is_owed() {
    let write = |name: &str, data: &str, sync| Step::Write {
        name: name.to_owned(),
        data: data.into(),
        sync,
    };
    let append = |name: &str, data: &str, sync| Step::Append {
        name: name.to_owned(),
        data: data.into(),
        sync,
    };
    let rename = |from: &str, to: &str| Step::Rename {
        from: from.to_owned(),
        to: to.to_owned(),
    };
    let disk = |files: &[(&str, &str)]| -> Found {
        let file = |(name, data): &(&str, &str)| ((*name).to_owned(), data.as_bytes().to_vec());
        files.iter().map(file).collect()
    };
    let did = |steps: &[Step]| {
        let mut ledger = Ledger::new(&disk(&[("old", "old")]));
        for step in steps {
            ledger.begin(step);
            ledger.done(step);
        }
        ledger
    };
    let steps = [
        write("a", "synced", true),
        append("a", "+more", false),
        rename("a", "b"),
    ];
    let none = BTreeSet::new();
    let fine = [
        disk(&[("old", "old"), ("a", "synced")]),
        disk(&[("old", "old"), ("b", "synced+m")]),
        disk(&[("old", "old"), ("b", "synced\0\0or")]),
    ];
    for found in &fine {
        assert_eq!(did(&steps).broken(found, &none), [""; 0]);
        assert_eq!(did(&steps).lost(found), [""; 0]);
    }
    let wrong = [
        disk(&[("old", "old")]),
        disk(&[("old", "old"), ("a", "sync")]),
        disk(&[("old", "old"), ("a", "syn\0ed")]),
        disk(&[("old", "old"), ("b", "other")]),
        disk(&[("old", "ol"), ("b", "synced")]),
    ];
    for found in &wrong {
        assert!(!did(&steps).broken(found, &none).is_empty(), "{found:?}");
        assert_eq!(did(&steps).lost(found).len(), 1, "{found:?}");
    }
    // Names are one state of all: a removal that is not there cannot have been before a name that is.
    let steps = [rename("old", "new"), write("x", "x", false)];
    let found = disk(&[("new", "old")]);
    assert_eq!(did(&steps).broken(&found, &none), [""; 0]);
    let found = disk(&[("x", "x")]);
    assert!(!did(&steps).broken(&found, &none).is_empty());
    // What the server has is enough for what was not synced.
    let sent = BTreeSet::from(["old".to_owned()]);
    assert!(!did(&[]).broken(&disk(&[]), &sent).is_empty());
    let steps = [write("old", "newer", false)];
    assert_eq!(did(&steps).broken(&disk(&[]), &sent), [""; 0]);
    // What was written over without a sync may be anything of the new.
    let steps = [write("old", "newer", false)];
    assert_eq!(did(&steps).broken(&disk(&[("old", "")]), &none), [""; 0]);
    assert_eq!(
        did(&steps).broken(&disk(&[("old", "newe")]), &none),
        [""; 0]
    );
    let found = disk(&[("old", "other")]);
    assert!(!did(&steps).broken(&found, &none).is_empty());
}
