//! A program that works in a home and remembers what it was told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::machine::Machine;
use super::rng::Rng;

/// What a program does to its files.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Write {
        name: String,
        data: Vec<u8>,
        sync: bool,
    },
    Append {
        name: String,
        data: Vec<u8>,
        sync: bool,
    },
    Rename {
        from: String,
        to: String,
    },
    Remove {
        name: String,
    },
    SyncDir {
        name: String,
    },
}

/// The directories of its files.
pub(crate) const DIRS: [&str; 3] = ["d0", "d1", "d2"];

/// A program that remembers what it was told.
#[derive(Default)]
pub(crate) struct Writer {
    /// What is acknowledged.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// What was asked and not acknowledged: it may have happened, in part or whole.
    pub(crate) pending: Option<Step>,
    /// How many steps were.
    pub(crate) done: u64,
}

impl Writer {
    /// What to do next.
    pub(crate) fn choose(&self, rng: &mut Rng) -> Step {
        let name = |rng: &mut Rng| format!("d{}/f{}", rng.below(3), rng.below(20));
        let known = |rng: &mut Rng| {
            let nth = rng.below(self.files.len().max(1) as u64) as usize;
            self.files.keys().nth(nth).cloned()
        };
        let data = |rng: &mut Rng, max: u64| {
            let stamp = format!("{}:", self.done).into_bytes();
            let len = rng.below(max) as usize;
            let byte = rng.below(256) as u8;
            [stamp, vec![byte; len]].concat()
        };
        match (rng.below(11), known(rng)) {
            (10, _) => Step::SyncDir {
                name: DIRS[rng.below(3) as usize].to_owned(),
            },
            (0, Some(name)) => Step::Remove { name },
            (1..=2, Some(from)) => Step::Rename {
                from,
                to: name(rng),
            },
            (3..=4, Some(name)) => Step::Append {
                name,
                data: data(rng, 5_000),
                sync: rng.below(4) == 0,
            },
            (roll, _) => {
                let max = if rng.below(8) == 0 { 400_000 } else { 9_000 };
                Step::Write {
                    name: name(rng),
                    data: data(rng, max),
                    sync: roll == 5,
                }
            }
        }
    }

    /// Does it as far as the daemon lives.
    pub(crate) fn act(&mut self, root: &Path, step: Step) -> std::io::Result<()> {
        self.pending = Some(step.clone());
        match &step {
            Step::Write { name, data, sync } => put(File::create(root.join(name))?, data, *sync)?,
            Step::Append { name, data, sync } => {
                let file = File::options().append(true).open(root.join(name))?;
                put(file, data, *sync)?;
            }
            Step::SyncDir { name } => File::open(root.join(name))?.sync_all()?,
            Step::Rename { from, to } => fs::rename(root.join(from), root.join(to))?,
            Step::Remove { name } => fs::remove_file(root.join(name))?,
        }
        self.pending = None;
        self.done += 1;
        match step {
            Step::Write { name, data, .. } => drop(self.files.insert(name, data)),
            Step::Append { name, data, .. } => self.files.get_mut(&name).unwrap().extend(data),
            Step::SyncDir { .. } => {}
            Step::Rename { from, to } => {
                let data = self.files.remove(&from).unwrap();
                self.files.insert(to, data);
            }
            Step::Remove { name } => drop(self.files.remove(&name)),
        }
        Ok(())
    }

    /// All that was acknowledged is there; of the step that was under way, what happened is taken over.
    pub(crate) fn verify(&mut self, machine: &Machine) {
        let root = &machine.home();
        let read = |name: &str| fs::read(root.join(name)).ok();
        match self.pending.take() {
            None | Some(Step::SyncDir { .. }) => {}
            Some(Step::Write { name, data, .. }) => {
                let found = read(&name);
                let whole = found == self.files.get(&name).cloned();
                let part = found.as_ref().is_some_and(|found| data.starts_with(found));
                assert!(whole || part, "{name} holds neither the old nor the new");
                self.adopt(name, found);
            }
            Some(Step::Append { name, data, .. }) => {
                let found = read(&name).unwrap();
                let old = &self.files[&name];
                let added = found.strip_prefix(&old[..]);
                let fits = added.is_some_and(|added| data.starts_with(added));
                assert!(fits, "{name} lost what was there before");
                self.adopt(name, Some(found));
            }
            Some(Step::Rename { from, to }) => {
                let found = (read(&from), read(&to));
                let before = (self.files.get(&from).cloned(), self.files.get(&to).cloned());
                let after = (None, before.0.clone());
                assert!(
                    found == before || (found == after && from != to),
                    "{from} to {to}"
                );
                self.adopt(from, found.0);
                self.adopt(to, found.1);
            }
            Some(Step::Remove { name }) => {
                let found = read(&name);
                assert!(found.is_none() || found.as_ref() == self.files.get(&name));
                self.adopt(name, found);
            }
        }
        let found = found_in(root);
        let brief = |data: Option<&Vec<u8>>| data.map(|data| (data.len(), stamp(data)));
        let names: BTreeSet<_> = self.files.keys().chain(found.keys()).collect();
        let wrong: Vec<_> = names
            .into_iter()
            .filter(|name| self.files.get(*name) != found.get(*name))
            .map(|name| (name, brief(self.files.get(name)), brief(found.get(name))))
            .collect();
        assert!(
            wrong.is_empty(),
            "name, acknowledged, found: {wrong:?}\n{}",
            machine.log_end()
        );
    }

    fn adopt(&mut self, name: String, found: Option<Vec<u8>>) {
        match found {
            Some(data) => drop(self.files.insert(name, data)),
            None => drop(self.files.remove(&name)),
        }
    }
}

/// The number of the step that wrote a content.
fn stamp(data: &[u8]) -> String {
    let end = data.iter().position(|byte| *byte == b':').unwrap_or(0);
    String::from_utf8_lossy(&data[..end]).into_owned()
}

/// All files of the writer that are there.
pub(crate) fn found_in(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for dir in DIRS {
        for entry in fs::read_dir(root.join(dir)).unwrap() {
            let name = format!("{dir}/{}", entry.unwrap().file_name().to_string_lossy());
            // The passes go on meanwhile.
            if let Ok(data) = fs::read(root.join(&name)) {
                found.insert(name, data);
            }
        }
    }
    found
}

/// Writes, and closes with the answer that a drop would hide.
fn put(mut file: File, data: &[u8], sync: bool) -> std::io::Result<()> {
    file.write_all(data)?;
    if sync {
        file.sync_all()?;
    }
    Ok(nix::unistd::close(file)?)
}

/// A command that is not waited for, and may fail: its daemon is about to die.
pub(crate) fn start(machine: &Machine, command: &str) -> Child {
    let home = machine.home();
    let mut child: Command = machine.command(&[command.as_ref(), home.as_os_str()]);
    child
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
