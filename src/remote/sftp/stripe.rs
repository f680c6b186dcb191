//! Large files over several conversations at once: a server lets each channel have only so much under way (OpenSSH's
//! 2 MiB, which is 100 MB/s at 20 ms), whatever the line could carry.
//!
//! Whoever writes does not see it: attributes, durability and the close wait for all writes, wherever they went, and are
//! done in their order. Until then nothing of the others' files is left open.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::{Mutex as Turn, Notify};

use super::SftpSession;
use crate::remote::wire::{Attrs, OPEN_WRITE, Request};
use crate::remote::{FileHandle, RemoteError};
use crate::tree::RelPath;

/// How much goes one way before the next is taken, in bytes.
const STRIPE: u64 = 512 * 1024;

/// The other conversations of a session, and the files that are open over them.
#[derive(Default)]
pub(super) struct Stripes {
    others: Vec<SftpSession>,
    files: Mutex<HashMap<Bytes, Arc<Striped>>>,
}

/// One file that is written over several conversations.
struct Striped {
    /// With the number of the conversation. Emptied when the writes are over.
    handles: Mutex<Vec<(usize, FileHandle)>>,
    under_way: AtomicUsize,
    done: Notify,
    /// What follows the writes goes one after the other.
    turn: Turn<()>,
}

/// A write under way.
struct Writing<'a>(&'a Striped);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
        self.0.done.notify_waiters();
    }
}

impl SftpSession {
    /// The same session, which writes over `others` as well.
    pub(in crate::remote) fn wide(&self, others: Vec<Self>) -> Self {
        Self {
            stripes: Stripes {
                others,
                files: Mutex::default(),
            },
            ..self.asking(self.class)
        }
    }

    fn striped(&self, handle: &FileHandle) -> Option<Arc<Striped>> {
        match self.stripes.others.is_empty() {
            true => None,
            false => lock(&self.stripes.files).get(&handle.id).cloned(),
        }
    }

    /// Opens a file that was just opened here over the other conversations too, those that can.
    pub(super) async fn widen(&self, path: &RelPath, handle: &FileHandle) {
        // A server whose word is not enough may empty a file that is opened again.
        if self.stripes.others.is_empty() || self.turns.is_some() {
            return;
        }
        let opens = self.stripes.others.iter().map(|other| {
            let request = Request::Open {
                path: self.absolute(path),
                flags: OPEN_WRITE,
                attrs: Attrs::default(),
            };
            other.ask_handle("open", path, request)
        });
        let opened = join_all(opens).await.into_iter().enumerate();
        let handles = opened.filter_map(|(number, open)| Some((number, open.ok()?)));
        let striped = Striped {
            handles: Mutex::new(handles.collect()),
            under_way: AtomicUsize::new(0),
            done: Notify::new(),
            turn: Turn::new(()),
        };
        lock(&self.stripes.files).insert(handle.id.clone(), Arc::new(striped));
    }

    /// Writes over the conversation whose turn it is at `offset`.
    pub(super) async fn write_striped(
        &self,
        handle: &FileHandle,
        offset: u64,
        data: Bytes,
    ) -> Result<(), RemoteError> {
        let Some(striped) = self.striped(handle) else {
            return self.write_here(handle, offset, data).await;
        };
        striped.under_way.fetch_add(1, Ordering::AcqRel);
        let _writing = Writing(&striped);
        let other = {
            let handles = lock(&striped.handles);
            let turn = (offset / STRIPE) as usize % (handles.len() + 1);
            turn.checked_sub(1).map(|turn| handles[turn].clone())
        };
        match other {
            None => self.write_here(handle, offset, data).await,
            Some((number, handle)) => {
                let other = &self.stripes.others[number];
                other.write_here(&handle, offset, data).await
            }
        }
    }

    async fn write_here(
        &self,
        handle: &FileHandle,
        offset: u64,
        data: Bytes,
    ) -> Result<(), RemoteError> {
        let request = Request::Write {
            handle: handle.id.clone(),
            offset,
            data,
        };
        self.ask_done("write", &handle.path, request).await
    }

    /// Does what follows the writes of a file, after them and in its turn; `last`, if no more are to come.
    pub(super) async fn after_writes<T>(
        &self,
        handle: &FileHandle,
        last: bool,
        work: impl Future<Output = Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        let Some(striped) = self.striped(handle) else {
            return work.await;
        };
        let _turn = striped.turn.lock().await;
        loop {
            let mut done = std::pin::pin!(striped.done.notified());
            done.as_mut().enable();
            if striped.under_way.load(Ordering::Acquire) == 0 {
                break;
            }
            done.await;
        }
        let handles = match last {
            true => std::mem::take(&mut *lock(&striped.handles)),
            false => Vec::new(),
        };
        let closes = handles.into_iter().map(|(number, other)| {
            let request = Request::Close(other.id);
            self.stripes.others[number].ask_done("close", &handle.path, request)
        });
        let closed = join_all(closes)
            .await
            .into_iter()
            .collect::<Result<(), _>>();
        // It is done in any case: the last of them is the close.
        let done = work.await;
        closed.and(done)
    }

    /// The file is closed, or is going to be.
    pub(super) fn forget_striped(&self, handle: &FileHandle) {
        if self.stripes.others.is_empty() {
            return;
        }
        let Some(striped) = lock(&self.stripes.files).remove(&handle.id) else {
            return;
        };
        let handles = std::mem::take(&mut *lock(&striped.handles));
        for (number, other) in handles {
            let other_session = &self.stripes.others[number];
            other_session
                .conn
                .forget(other_session.class, Request::Close(other.id));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
