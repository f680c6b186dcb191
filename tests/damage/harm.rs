//! What disks and people do to a state directory.

use std::fs;
use std::path::{Path, PathBuf};

use super::state::files;
use crate::support::rng::Rng;

const PAGE: usize = 4096;

/// Damages `state`; tells how.
pub(super) fn harm(rng: &mut Rng, state: &Path) -> String {
    let times = if rng.one_in(3) { 1 + rng.below(3) } else { 1 };
    let done: Vec<String> = (0..times).map(|_| one(rng, state)).collect();
    done.join(", ")
}

fn one(rng: &mut Rng, state: &Path) -> String {
    match rng.below(16) {
        0..=9 => {
            let Some(file) = index_file(rng, state) else {
                return "nothing left to harm".into();
            };
            spoil_file(rng, &file)
        }
        10..=13 => {
            let dirs = ["content", "unsent", "backups"];
            let all: Vec<PathBuf> = files(state, &dirs).into_keys().collect();
            if all.is_empty() {
                return "no content left to harm".into();
            }
            let file = state.join(rng.pick(&all));
            spoil_file(rng, &file)
        }
        14 => {
            let dir = rng.pick(&["staging", "backups", "content", "unsent"]);
            drop(fs::remove_dir_all(state.join(dir)));
            format!("{dir} removed")
        }
        _ => {
            // Of the index nothing is left but what journals and files tell.
            for name in ["index.db", "index.db-wal"] {
                drop(fs::remove_file(state.join(name)));
            }
            "index removed".into()
        }
    }
}

/// One of the index's files, the database more often than the others.
fn index_file(rng: &mut Rng, state: &Path) -> Option<PathBuf> {
    let database = state.join("index.db");
    if database.exists() && rng.one_in(2) {
        return Some(database);
    }
    let entries = fs::read_dir(state).unwrap();
    let mut all: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        path.is_file() && (name.starts_with("index.db") || name.starts_with("journal."))
    });
    all.sort();
    (!all.is_empty()).then(|| rng.pick(&all))
}

fn spoil_file(rng: &mut Rng, file: &Path) -> String {
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    let mut bytes = fs::read(file).unwrap();
    let len = bytes.len() as u64;
    if len == 0 {
        return format!("{name} is empty");
    }
    let at = rng.below(len) as usize;
    let page = at / PAGE * PAGE;
    let end = (page + PAGE).min(bytes.len());
    let what = match rng.below(8) {
        0..=2 => {
            let count = 1 << rng.below(8);
            for _ in 0..count {
                bytes[rng.below(len) as usize] ^= 1 << rng.below(8);
            }
            format!("{count} bits flipped")
        }
        3 => {
            bytes.truncate(at);
            format!("cut to {at}")
        }
        4 => {
            bytes[page..end].fill(0);
            format!("zeros from {page}")
        }
        5 => {
            for byte in &mut bytes[page..end] {
                *byte = rng.next() as u8;
            }
            format!("noise from {page}")
        }
        6 => {
            let from = rng.below(len) as usize / PAGE * PAGE;
            let copied = bytes[from..].to_vec();
            for (to, from) in bytes[page..end].iter_mut().zip(copied) {
                *to = from;
            }
            format!("page at {page} is the one at {from}")
        }
        _ => {
            fs::remove_file(file).unwrap();
            return format!("{name} removed");
        }
    };
    fs::write(file, bytes).unwrap();
    format!("{name}: {what}")
}
