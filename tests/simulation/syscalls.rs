//! System calls that change a disk, on their way to the kernel: the linker finds these before the C library's,
//! for the standard library and for SQLite alike. On a thread that watches nothing they are the plain calls.

#![allow(unsafe_code)] // The C library's own signatures.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is told of the calls.
pub(super) trait Watch {
    /// Where the disk is.
    fn root(&self) -> &Path;
    /// A call that changes something is about to have its effect; whether there is room for it.
    fn before(&self, grows: bool) -> bool;
    /// A file or directory is on the disk for good.
    fn synced(&self, path: &Path);
}

thread_local! {
    /// Under the number of each disk.
    static WATCHES: RefCell<Vec<(u64, Rc<dyn Watch>)>> = const { RefCell::new(Vec::new()) };
    /// Set while a watch itself is at work.
    static AT_WORK: Cell<bool> = const { Cell::new(false) };
}

/// The number of the next disk.
static NEXT: AtomicU64 = AtomicU64::new(NO_DISK + 1);
/// The disk that each descriptor leads to, from its first use until it is closed: to ask the kernel costs more than
/// most calls. Files are renamed, but never from one disk to another.
static LEADS_TO: [AtomicU64; 1024] = [const { AtomicU64::new(UNKNOWN) }; 1024];
const UNKNOWN: u64 = 0;
const NO_DISK: u64 = 1;

/// Tells `watch` of this thread's calls from now on.
pub(super) fn watch(watch: Rc<dyn Watch>) {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    WATCHES.with(|watches| watches.borrow_mut().push((number, watch)));
}

/// Tells nobody any more of what happens at `root`.
pub(super) fn forget(root: &Path) {
    WATCHES.with(|watches| {
        watches
            .borrow_mut()
            .retain(|(_, watch)| watch.root() != root)
    });
}

/// Runs `act` with the watch of the disk of that number, if there is one and it is not itself at work.
fn watched<T>(disk: impl FnOnce() -> u64, act: impl FnOnce(&dyn Watch) -> T) -> Option<T> {
    if AT_WORK.try_with(Cell::get) != Ok(false) {
        return None;
    }
    let any = WATCHES.try_with(|watches| {
        watches
            .try_borrow()
            .is_ok_and(|watches| !watches.is_empty())
    });
    if any != Ok(true) {
        return None;
    }
    unwatched(|| {
        let disk = disk();
        let watch = WATCHES.with(|watches| {
            let watches = watches.borrow();
            let found = watches.iter().find(|(number, _)| *number == disk);
            found.map(|(_, watch)| Rc::clone(watch))
        });
        watch.map(|watch| act(&*watch))
    })
}

/// Runs `act` without telling anybody of its calls.
pub(super) fn unwatched<T>(act: impl FnOnce() -> T) -> T {
    let before = AT_WORK.replace(true);
    let done = act();
    AT_WORK.set(before);
    done
}

/// Something happens to whoever uses the disk at `root`, from which it may die.
pub(super) fn event(root: &Path) {
    touches(|| disk_at(root));
}

/// The disk that `path` is on.
fn disk_at(path: &Path) -> u64 {
    WATCHES.with(|watches| {
        let watches = watches.borrow();
        let found = watches
            .iter()
            .find(|(_, watch)| path.starts_with(watch.root()));
        found.map_or(NO_DISK, |(number, _)| *number)
    })
}

/// What is remembered of a descriptor, if it is one of the first many.
fn leads_to(fd: c_int) -> Option<&'static AtomicU64> {
    LEADS_TO.get(usize::try_from(fd).ok()?)
}

/// The disk that a descriptor leads to.
fn disk_of(fd: c_int) -> u64 {
    let known = leads_to(fd);
    match known.map_or(UNKNOWN, |known| known.load(Ordering::Relaxed)) {
        UNKNOWN => {
            let disk = path_of(fd).map_or(NO_DISK, |path| disk_at(&path));
            if let Some(known) = known {
                known.store(disk, Ordering::Relaxed);
            }
            disk
        }
        disk => disk,
    }
}

fn path_of(fd: c_int) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()
}

/// The disk of what a program named.
///
/// # Safety
/// `path` is a C string.
unsafe fn named(path: *const c_char) -> u64 {
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(path) }.to_bytes();
    disk_at(Path::new(OsStr::from_bytes(bytes)))
}

fn no_space() -> c_int {
    // SAFETY: the place of this thread's errno is always valid.
    unsafe { *libc::__errno_location() = libc::ENOSPC };
    -1
}

fn has_room(disk: impl FnOnce() -> u64) -> bool {
    watched(disk, |watch| watch.before(true)).unwrap_or(true)
}

fn touches(disk: impl FnOnce() -> u64) {
    watched(disk, |watch| watch.before(false));
}

fn sync(fd: c_int, call: libc::c_long) -> c_int {
    touches(|| disk_of(fd));
    // SAFETY: takes a number only.
    let done = unsafe { libc::syscall(call, fd) } as c_int;
    if done == 0 {
        let synced = |watch: &dyn Watch| path_of(fd).map(|path| watch.synced(&path));
        watched(|| disk_of(fd), synced);
    }
    done
}

/// The number may be another's as soon as the kernel has it back.
#[unsafe(no_mangle)]
extern "C" fn close(fd: c_int) -> c_int {
    if let Some(known) = leads_to(fd) {
        known.store(UNKNOWN, Ordering::Relaxed);
    }
    // SAFETY: takes a number only.
    unsafe { libc::syscall(libc::SYS_close, fd) as c_int }
}

#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    sync(fd, libc::SYS_fsync)
}

#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    sync(fd, libc::SYS_fdatasync)
}

/// # Safety
/// As write(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, data: *const c_void, len: usize) -> isize {
    if !has_room(|| disk_of(fd)) {
        return no_space() as isize;
    }
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_write, fd, data, len) as isize }
}

/// # Safety
/// As pwrite(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(fd: c_int, data: *const c_void, len: usize, at: i64) -> isize {
    if !has_room(|| disk_of(fd)) {
        return no_space() as isize;
    }
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_pwrite64, fd, data, len, at) as isize }
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate64(fd: c_int, len: i64) -> c_int {
    touches(|| disk_of(fd));
    // SAFETY: takes numbers only.
    unsafe { libc::syscall(libc::SYS_ftruncate, fd, len) as c_int }
}

/// # Safety
/// As rename(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    touches(|| unsafe { named(from) });
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_renameat, libc::AT_FDCWD, from, libc::AT_FDCWD, to) as c_int }
}

/// # Safety
/// As unlink(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    touches(|| unsafe { named(path) });
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0) as c_int }
}

/// # Safety
/// As open(2); the mode counts only if a file is made.
#[unsafe(no_mangle)]
unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller's promise.
    if flags & libc::O_CREAT != 0 && !has_room(|| unsafe { named(path) }) {
        return no_space();
    }
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) as c_int }
}
