//! What the kernel tells of a process.

use std::cell::OnceCell;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

/// More of the words that a process was started with is not looked at.
const WORDS_MAX_BYTES: u64 = 16 * 1024;

/// What it may be known by.
#[derive(Debug)]
pub(super) struct Names {
    /// What the thread is called, and what the first thread of its process is.
    pub(super) comms: Vec<Vec<u8>>,
    /// The name of the file that it runs; of another user's process it is not told.
    pub(super) exe: Option<Vec<u8>>,
    /// The words that it was started with, once somebody asked.
    pub(super) words: OnceCell<Vec<Vec<u8>>>,
    /// The number of the process.
    pub(super) leader: u32,
}

impl Names {
    /// The words that it was started with. They are in its memory, so they are read only if they matter.
    pub(super) fn words(&self) -> &[Vec<u8>] {
        self.words.get_or_init(|| {
            let mut bytes = Vec::new();
            let read = File::open(format!("/proc/{}/cmdline", self.leader))
                .and_then(|file| file.take(WORDS_MAX_BYTES).read_to_end(&mut bytes));
            match read {
                Ok(_) => bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect(),
                // It has gone.
                Err(_) => Vec::new(),
            }
        })
    }
}

/// What a thread, and the process that it belongs to, may be known by; `None` if it is gone.
pub(super) fn names(thread: u32) -> Option<Names> {
    let comm = |number: u32| {
        let mut comm = fs::read(format!("/proc/{number}/comm")).ok()?;
        comm.pop_if(|last| *last == b'\n');
        Some(comm)
    };
    let mut comms = vec![comm(thread)?];
    let leader = leader_of(thread)?;
    if leader != thread {
        comms.extend(comm(leader));
    }
    let exe = fs::read_link(format!("/proc/{leader}/exe")).ok();
    let exe = exe.and_then(|exe| Some(exe.file_name()?.as_bytes().to_vec()));
    Some(Names {
        comms,
        exe: exe.map(|name| match name.strip_suffix(b" (deleted)") {
            Some(name) => name.to_vec(),
            None => name,
        }),
        words: OnceCell::new(),
        leader,
    })
}

/// The process of a thread.
fn leader_of(thread: u32) -> Option<u32> {
    let status = fs::read(format!("/proc/{thread}/status")).ok()?;
    let mut lines = status.split(|byte| *byte == b'\n');
    let number = lines.find_map(|line| line.strip_prefix(b"Tgid:"))?;
    std::str::from_utf8(number).ok()?.trim().parse().ok()
}
