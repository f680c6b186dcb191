//! Operations that may need the network, with the kind of reply that they have.

use std::ffi::OsStr;

use fuser::{ReplyEmpty, ReplyEntry};

use super::super::answer;
use super::super::translate::{errno, name};
use super::Adapter;
use crate::fs::{Attr, Home, Stop};
use crate::tree::Name;

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
}
