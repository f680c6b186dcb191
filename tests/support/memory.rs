//! Memory that is shared with a file.

use std::fs::File;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A mapping.
pub(crate) struct Shared(*mut u8, usize);

#[allow(unsafe_code)] // Memory that is shared with a file is what is tested.
impl Shared {
    /// The first `len` bytes of a file; to be written to as well if `write` says so.
    pub(crate) fn of(file: &File, len: usize, write: bool) -> Self {
        let prot = match write {
            true => ProtFlags::READ | ProtFlags::WRITE,
            false => ProtFlags::READ,
        };
        // SAFETY: a new mapping, which nothing else refers to.
        let at = unsafe { mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, file, 0) };
        Self(at.unwrap().cast(), len)
    }

    fn at(&self, at: usize) -> &AtomicU8 {
        assert!(at < self.1);
        // SAFETY: within the mapping, which lives as long as this.
        unsafe { &*self.0.add(at).cast() }
    }

    /// A byte of it.
    pub(crate) fn get(&self, at: usize) -> u8 {
        self.at(at).load(Ordering::Relaxed)
    }

    /// Stores a byte, where it can be written.
    pub(crate) fn set(&self, at: usize, byte: u8) {
        self.at(at).store(byte, Ordering::Relaxed);
    }
}

#[allow(unsafe_code)]
impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: it was mapped so, and nothing refers to it any more.
        unsafe { munmap(self.0.cast(), self.1) }.unwrap();
    }
}

// SAFETY: memory of the process, of which every access is atomic.
#[allow(unsafe_code)]
unsafe impl Send for Shared {}

// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Shared {}
