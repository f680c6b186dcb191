//! Programs at work on a machine, and what of it the history has to know.

use std::cell::Cell;
use std::time::Duration;

use roamhome::fs::{FsError, RenameMode, SetAttr, SetTime};
use roamhome::replica::{ReplicaError, View};
use roamhome::tree::{Kind, Time};

use super::history::Sight;
use super::machine::Machine;
use super::op::Act;
use super::programs::path_of;
use super::world::{World, seen};

impl World {
    pub(super) async fn act(&self, who: usize, act: &Act) {
        let machine = self.machine(who);
        let full = machine.disk.is_full();
        if let Err(error) = self.perform(who, &machine, act).await
            && is_fault(&error)
            && machine.is_alive()
            && !(full || machine.disk.is_full())
        {
            self.note_broken(|| format!("{act:?}: {error}"));
        }
    }

    /// What the machine showed before and shows no longer was given up knowingly. That it died meanwhile does not
    /// mean that it was not done.
    fn note(&self, machine: &Machine, before: &Sight) {
        let after = seen(machine.looks().into_values());
        self.history.borrow_mut().out_of_sight(before, &after);
        // What was being sent of a file when the machine lost its power goes with what is left of it here.
        let being_sent = |view: &View<'_>| {
            let intents = view.intents()?.into_iter();
            let gone = intents.map(|(_, intent)| Ok((view.node(intent.node)?, intent)));
            gone.collect::<Result<Vec<_>, ReplicaError>>()
        };
        let being_sent = machine.replica.view(being_sent).unwrap();
        let gone = being_sent.into_iter().filter(|(node, _)| node.is_none());
        let gone = gone.map(|(_, intent)| intent.version.size as usize);
        self.history.borrow_mut().give_up_lengths(gone);
    }

    /// What an operation waits for may change what is seen; only its own effect counts as given up.
    async fn perform(&self, who: usize, machine: &Machine, act: &Act) -> Result<(), FsError> {
        match act {
            Act::Write(path, pause) => return self.write(machine, path, *pause).await,
            Act::Append(path) => {
                let fits = |old, n| n > old && n < old + 500;
                self.alter(machine, path, fits).await?;
            }
            Act::Truncate(path) => self.alter(machine, path, |old, n| n < old).await?,
            Act::Rewrite(path) => self.rewrite(machine, path).await?,
            Act::Read(path) => {
                let content = machine.read(path).await?;
                self.expect_known(&content, path);
            }
            Act::ReadParts(path, parts, pause) => {
                return self.read_parts(machine, path, parts, *pause).await;
            }
            Act::Mkdir(path) => machine.mkdir(path).await?,
            Act::Rmdir(path) => machine.rmdir(path).await?,
            Act::Unlink(path) => {
                machine.warm(path).await;
                let before = seen(machine.looks().into_values());
                let done = machine.unlink(path).await;
                self.note(machine, &before);
                done?;
            }
            Act::Rename(from, to) => {
                machine.warm(from).await;
                machine.warm(to).await;
                let before = seen(machine.looks().into_values());
                let done = machine.rename(from, to, RenameMode::Replace).await;
                self.note(machine, &before);
                done?;
            }
            Act::Exchange(from, to) => machine.rename(from, to, RenameMode::Exchange).await?,
            Act::Link(from, to) => machine.link(from, to).await?,
            Act::Symlink(target, path) => machine.symlink(target, path).await?,
            Act::Chmod(path, mode) => {
                let set = SetAttr {
                    mode: Some(*mode),
                    ..SetAttr::default()
                };
                machine.set_attr(path, set).await?;
            }
            Act::Touch(path, ago) => {
                let at = Time::new(self.clock.now().secs() - ago, 0);
                let set = SetAttr {
                    mtime: Some(SetTime::At(at)),
                    ..SetAttr::default()
                };
                machine.set_attr(path, set).await?;
            }
            Act::Open(path) => machine.open(path).await?,
            Act::WriteLate | Act::Close => return self.use_open(machine, act),
            Act::Pin(path, pinned) => {
                let id = machine.find(path_of(path).names()).await?;
                // Of a disk that is full nothing is asked.
                drop(machine.engine.set_pins(&[id], *pinned));
            }
            Act::Fsync(path) => {
                if let Some(content) = machine.fsync(path).await? {
                    self.expect_known(&content, path);
                    let id = self.history.borrow().id(&content);
                    self.synced.borrow_mut()[who].extend(id);
                }
            }
        }
        Ok(())
    }

    /// What is read of a file in parts is of one content.
    async fn read_parts(
        &self,
        machine: &Machine,
        path: &str,
        parts: &[(u64, u64)],
        pause: u64,
    ) -> Result<(), FsError> {
        let pause = Duration::from_millis(pause);
        if let Some((length, read)) = machine.read_parts(path, parts, pause).await?
            && !self.history.borrow().knows_parts(length, &read)
        {
            let parts: Vec<_> = read.iter().map(|(at, part)| (at, part.len())).collect();
            self.note_broken(|| format!("{path}: of no content of {length} bytes are {parts:?}"));
        }
        Ok(())
    }

    async fn write(&self, machine: &Machine, path: &str, pause: u64) -> Result<(), FsError> {
        if !machine.warm(path).await {
            // Whoever overwrites something without having seen it is not what this is about.
            return Ok(());
        }
        let size = self.size_at(machine, path);
        let content = || {
            self.replaced(machine, size);
            // What another program wrote since this one opened the file is covered whole.
            let written = self.size_at(machine, path).unwrap_or_default();
            let mut history = self.history.borrow_mut();
            history.give_up_lengths([written]);
            history.begin_with(&[], |n| n > written).unwrap_or_default()
        };
        let pause = Duration::from_millis(pause);
        if let Some(content) = machine.write(path, content, pause).await? {
            self.closed(machine, &content);
        }
        Ok(())
    }

    /// What is done with a file that was opened long ago.
    fn use_open(&self, machine: &Machine, act: &Act) -> Result<(), FsError> {
        if let Act::Close = act {
            if let Some((path, content)) = machine.close()? {
                self.expect_known(&content, &path);
                self.closed(machine, &content);
            }
            return Ok(());
        }
        let before = Cell::new(None);
        let more = |old: &[u8]| {
            before.set(Some(old.len()));
            let mut history = self.history.borrow_mut();
            history.begin_with(old, |n| n > old.len() && n < old.len() + 500)
        };
        let written = machine.write_late(more);
        self.replaced(machine, before.get());
        written
    }

    /// A file that was removed while it was open goes with its last close.
    pub(super) fn closed(&self, machine: &Machine, content: &[u8]) {
        let mut shown = seen(machine.looks().into_values()).contains_key(&content.len());
        let mut history = self.history.borrow_mut();
        if history.are_alike(content.len()) {
            shown = machine.held().iter().any(|held| held == content);
        }
        history.close(content);
        if !shown {
            history.give_up_lengths([content.len()]);
        }
    }

    fn size_at(&self, machine: &Machine, path: &str) -> Option<usize> {
        let (kind, size) = machine.looks().get(path).copied()?;
        (kind == Kind::File).then_some(size as usize)
    }

    /// A content that was seen was replaced; somewhere else it may still be in sight.
    fn replaced(&self, machine: &Machine, size: Option<usize>) {
        let after = seen(machine.looks().into_values());
        let mut history = self.history.borrow_mut();
        if let Some(size) = size
            && (!after.contains_key(&size) || history.are_alike(size))
        {
            history.give_up_lengths([size]);
        }
    }

    /// Writes over all of a file, which stays as long as it is.
    async fn rewrite(&self, machine: &Machine, path: &str) -> Result<(), FsError> {
        let change = |old: &[u8]| {
            self.expect_known(old, &path);
            let mut history = self.history.borrow_mut();
            let new = history.begin_alike(old);
            // Another copy of it in sight cannot be told from one of what took its place.
            if new.is_some()
                && let Some(old) = history.id(old)
            {
                history.give_up(old);
            }
            new
        };
        if let Some((_, new)) = machine.alter(path, change).await? {
            self.history.borrow_mut().close(&new);
        }
        Ok(())
    }

    async fn alter(
        &self,
        machine: &Machine,
        path: &str,
        fits: impl Fn(usize, usize) -> bool,
    ) -> Result<(), FsError> {
        let before = Cell::new(None);
        let change = |old: &[u8]| {
            before.set(Some(old.len()));
            self.expect_known(old, &path);
            let mut history = self.history.borrow_mut();
            history.begin_with(old, |n| fits(old.len(), n))
        };
        let altered = machine.alter(path, change).await;
        self.replaced(machine, before.get());
        if let Some((_, new)) = altered? {
            self.history.borrow_mut().close(&new);
        }
        Ok(())
    }
}

/// Whether a program would be told of a failure that is not its own doing.
fn is_fault(error: &FsError) -> bool {
    matches!(
        error,
        FsError::Replica(_) | FsError::Content(_) | FsError::BadHandle
    )
}
