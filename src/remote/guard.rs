//! Open files of callers that may be dropped half way.

use super::{FileHandle, RemoteError, Session};

/// Closes its handle when dropped, without waiting. A future that is given up must not leave files open on the
/// server for as long as the session lives: servers bound their number.
pub(super) struct Guard<'a, S: Session + ?Sized> {
    session: &'a S,
    handle: FileHandle,
    open: bool,
}

impl<'a, S: Session + ?Sized> Guard<'a, S> {
    pub(super) fn new(session: &'a S, handle: FileHandle) -> Self {
        Self {
            session,
            handle,
            open: true,
        }
    }

    pub(super) fn get(&self) -> &FileHandle {
        &self.handle
    }

    /// Leaves the file open, for somebody else to close.
    pub(super) fn keep(mut self) -> FileHandle {
        self.open = false;
        self.handle.clone()
    }

    /// Closes the file and waits for it.
    pub(super) async fn close(mut self) -> Result<(), RemoteError> {
        self.open = false;
        self.session.close(self.handle.clone()).await
    }
}

impl<S: Session + ?Sized> Drop for Guard<'_, S> {
    fn drop(&mut self) {
        if self.open {
            self.session.abandon(self.handle.clone());
        }
    }
}
