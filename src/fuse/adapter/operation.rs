//! Operations that may need the network, with the kind of reply that they have.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use fuser::{Errno, INodeNo, ReplyEmpty, ReplyEntry, ReplyWrite, Request};

use super::super::translate::{errno, name, node, xattr_mode};
use super::super::{answer, groups};
use super::Adapter;
use crate::fs::{AclKind, Attr, Entries, FsError, Home, MOST_COPIED, RenameMode, Stop, contain};
use crate::tree::{Name, NodeId};

impl Adapter {
    /// Lets the home do something with a name, which may need the network, and answers with an entry.
    pub(super) fn entry(
        &self,
        bytes: &OsStr,
        reply: ReplyEntry,
        operation: impl Fn(&Home, &Name) -> Result<Option<Attr>, Stop> + Send + 'static,
    ) {
        let name = match name(bytes) {
            Ok(name) => name,
            Err(error) => return reply.error(errno(&error)),
        };
        self.home.run(
            move |home| operation(home, &name),
            |done| answer::entry(reply, done),
        );
    }

    /// The same for what is answered without a value.
    pub(super) fn named(
        &self,
        bytes: &OsStr,
        reply: ReplyEmpty,
        operation: impl Fn(&Home, &Name) -> Result<(), Stop> + Send + 'static,
    ) {
        match name(bytes) {
            Ok(name) => self.action(reply, move |home| operation(home, &name)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    /// Lets the home do something that may need the network.
    pub(super) fn action(
        &self,
        reply: ReplyEmpty,
        operation: impl Fn(&Home) -> Result<(), Stop> + Send + 'static,
    ) {
        self.home.run(operation, |done| answer::done(reply, done));
    }

    /// Sets an attribute, or an access control list, which goes by the groups of who asks.
    pub(super) fn set_xattr(
        &self,
        request: &Request,
        id: NodeId,
        name: &OsStr,
        (value, flags): (&[u8], i32),
        reply: ReplyEmpty,
    ) {
        let Some(mode) = xattr_mode(flags) else {
            return reply.error(Errno::EINVAL);
        };
        let (name, value) = (name.as_bytes().to_vec(), value.to_vec());
        let Some(kind) = AclKind::of(&name) else {
            return self.action(reply, move |home| home.set_xattr(id, &name, &value, mode));
        };
        let groups = groups::of(request);
        self.action(reply, move |home| home.set_acl(id, kind, &value, &groups));
    }

    /// Writes. Where the disk is full, the data is kept until content has made room for it.
    pub(super) fn written(
        &self,
        data: &[u8],
        reply: ReplyWrite,
        write: impl Fn(&Home, &[u8]) -> Result<usize, FsError> + Send + 'static,
    ) {
        let bytes = data.len() as u64;
        contain(|| {
            if !self.home.is_short_of_room(bytes) {
                match write(&self.home, data) {
                    Err(error) if error.is_full() => {}
                    done => return answer::written(reply, done),
                }
            }
            let data = data.to_vec();
            let write = move |home: &Home| write(home, &data);
            self.copying(bytes, reply, write);
        });
    }

    /// The same for what takes room without data.
    pub(super) fn allocating(
        &self,
        bytes: u64,
        reply: ReplyEmpty,
        operation: impl Fn(&Home) -> Result<(), FsError> + Send + 'static,
    ) {
        self.home
            .run_with_room(bytes, operation, |done| answer::done(reply, done));
    }

    /// The same for what copies data that is here, or was kept.
    pub(super) fn copying(
        &self,
        bytes: u64,
        reply: ReplyWrite,
        operation: impl Fn(&Home) -> Result<usize, FsError> + Send + 'static,
    ) {
        let bytes = bytes.min(MOST_COPIED);
        self.home
            .run_with_room(bytes, operation, |done| answer::written(reply, done));
    }

    /// Renames; what the kernel was not told yet of the old name, it is told of the new one.
    pub(super) fn renamed(
        &self,
        from: (NodeId, Name),
        to: (NodeId, Name),
        mode: RenameMode,
        reply: ReplyEmpty,
    ) {
        let board = Arc::clone(&self.board);
        self.action(reply, move |home| {
            home.rename((from.0, &from.1), (to.0, &to.1), mode)?;
            board.renamed(&from, &to);
            if mode == RenameMode::Exchange {
                board.renamed(&to, &from);
            }
            Ok(())
        });
    }

    /// Looks for the entries of a directory behind `offset`, which may need the network.
    pub(super) fn listing(
        &self,
        dir: INodeNo,
        offset: u64,
        answer: impl FnOnce(Result<Entries<'_>, FsError>) + Send + 'static,
    ) {
        let home = Arc::clone(&self.home);
        self.home.run(
            move |home| home.read_dir(node(dir), offset),
            move |done| answer(done.map(|listing| listing.entries(&home))),
        );
    }
}
