//! What a foreign writer does on the server, and what befalls the server itself.

use std::collections::BTreeSet;

use roamhome::engine::Publish;
use roamhome::remote::layout::{self, HomeToml};
use roamhome::remote::memory::Item;
use roamhome::remote::{RemoteError, SetStat};
use roamhome::tree::RelPath;

use super::history::Sight;
use super::op::{Away, Meddle};
use super::programs::{Looks, path_of};
use super::world::{World, seen};

impl World {
    /// What is on the server outside of what is ours. What a loss of power left of something is no copy of it.
    fn server_files(&self) -> Sight {
        let tree = self.server.tree();
        let history = self.history.borrow();
        let is_theirs = |(path, item): &(&RelPath, &Item)| {
            !layout::is_ours(path) && history.is_whole(&item.data)
        };
        let theirs = tree.iter().filter(is_theirs);
        seen(theirs.map(|(_, item)| (item.stat.kind, item.data.len() as u64)))
    }

    pub(super) fn meddle(&self, meddle: &Meddle) {
        // What is written to another directory is not written to the home.
        if self.away.borrow().is_some() {
            return;
        }
        let before = self.server_files();
        // What cannot be done is not done.
        let _done = self.try_meddle(meddle);
        let after = self.server_files();
        let replaced = self.being_replaced();
        let mut history = self.history.borrow_mut();
        history.out_of_sight(&before, &after);
        // Who wrote over one of two copies had the other in sight; who removes that one now has the first.
        let left = |length| after.get(length).copied().unwrap_or_default();
        let thinned = before
            .iter()
            .filter(|(length, count)| left(length) < **count);
        let gone = thinned.filter(|(length, _)| {
            let replaced = replaced.get(length).copied().unwrap_or_default();
            left(length) <= replaced
        });
        history.give_up_lengths(gone.map(|(length, _)| *length));
    }

    /// What is on the server where a machine shows something else by now.
    fn being_replaced(&self) -> Sight {
        let machines = self.machines.borrow();
        let all: Vec<_> = machines.iter().map(|machine| machine.looks()).collect();
        let looks = |item: &Item| (item.stat.kind, item.data.len() as u64);
        let tree = self.server.tree();
        let replaced = tree.iter().filter(|(path, item)| {
            let path = path.to_string();
            let is_another =
                |shown: &Looks| shown.get(&path).is_some_and(|shown| *shown != looks(item));
            all.iter().any(is_another)
        });
        seen(replaced.map(|(_, item)| looks(item)))
    }

    /// Whether what stands there was linked into the backups, and its successor may be about to take its name: whoever
    /// renames something else over it in this moment loses that. Where it is moved aside, nobody does.
    fn is_being_replaced(&self, path: &str) -> bool {
        if self.machine(0).setup.settings.publish == Publish::Aside {
            return false;
        }
        let tree = self.server.tree();
        let Some(there) = tree.get(&path_of(path)) else {
            return false;
        };
        let mut aside = tree
            .iter()
            .filter(|(path, _)| path.names().starts_with(layout::backups().names()));
        aside.any(|(_, item)| item.data == there.data)
    }

    fn try_meddle(&self, meddle: &Meddle) -> Result<(), RemoteError> {
        match meddle {
            Meddle::Write(path) => {
                let content = self.history.borrow_mut().begin_with(&[], |_| true);
                let content = content.unwrap_or_default();
                self.server.write_file(&path_of(path), &content)?;
                self.history.borrow_mut().close(&content);
                Ok(())
            }
            Meddle::Remove(path) => self.server.remove(&path_of(path)),
            Meddle::Rename(_, to) if self.is_being_replaced(to) => Ok(()),
            Meddle::Rename(from, to) => self.server.rename(&path_of(from), &path_of(to)),
            Meddle::Mkdir(path) => self.server.make_dir(&path_of(path)),
            Meddle::Symlink(target, path) => {
                let path = path_of(path);
                self.server.make_symlink(&path, target.as_bytes())
            }
            Meddle::Chmod(path, mode) => {
                let set = SetStat {
                    mode: Some(*mode),
                    ..SetStat::default()
                };
                self.server.set_stat(&path_of(path), set)
            }
            Meddle::Touch(path, ago) => {
                let set = SetStat {
                    mtime: Some(self.clock.now().secs() - ago),
                    ..SetStat::default()
                };
                self.server.set_stat(&path_of(path), set)
            }
        }
    }

    /// Another directory stands where the home was.
    pub(super) fn go_away(&self, how: Away) {
        if self.away.borrow().is_some() {
            return;
        }
        let home = self.server.snapshot();
        self.server.restore(&self.blank);
        if how == Away::Other {
            let other = HomeToml::new(0xfeed).format();
            let written = self
                .server
                .write_file(&layout::home_toml(), other.as_bytes());
            written.unwrap();
            self.server
                .write_file(&path_of("a"), b"of somebody else")
                .unwrap();
        }
        let tree = self.server.tree();
        *self.away.borrow_mut() = Some((home, tree));
    }

    /// The home is in its place again. Nobody may have touched what stood there.
    pub(super) fn come_back(&self) {
        let Some((home, left)) = self.away.borrow_mut().take() else {
            return;
        };
        if self.server.tree() != left {
            self.note_broken(|| "somebody touched a directory that is not the home".into());
        }
        self.server.restore(&home);
    }

    /// Keeps a copy of the server, as its administrator does.
    pub(super) fn back_up(&self) {
        if self.away.borrow().is_none() {
            *self.backup.borrow_mut() = Some(self.server.snapshot());
        }
    }

    /// The administrator puts the copy back. What only the server had is lost, and no fault of ours.
    pub(super) fn roll_back(&self) {
        let Some(backup) = self.backup.borrow_mut().take() else {
            return;
        };
        if self.away.borrow().is_some() {
            return;
        }
        self.server.restore(&backup);
        self.expect_questions();
        let mut held = BTreeSet::new();
        for machine in self.machines.borrow().iter() {
            held.extend(self.ids(machine.held()));
        }
        let there = self.server.tree().into_values().map(|item| item.data);
        held.extend(self.ids(there.collect()));
        let mut history = self.history.borrow_mut();
        for id in history.all() {
            if !held.contains(&id) {
                history.give_up_if_closed(id);
            }
        }
    }
}
