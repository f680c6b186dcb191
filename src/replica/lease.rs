//! Whether anybody but us has a file open, or mapped after closing it: a lease can be had only where nobody has.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Of fcntl(2); `libc` does not have it.
const F_SETSIG: libc::c_int = 10;

/// Whether `file`, which is open here only once, is used by others. An error where the file system has no leases.
#[allow(unsafe_code)] // No safe crate has leases.
pub fn is_used_by_others(file: &File) -> io::Result<bool> {
    let ask = |command, value: libc::c_int| {
        // SAFETY: each of these commands takes a number, and none reads or writes memory of ours.
        match unsafe { libc::fcntl(file.as_raw_fd(), command, value) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // Somebody who opens it in this moment waits until the lease is gone, and the kernel tells us by a signal. This one
    // ends nobody.
    ask(F_SETSIG, libc::SIGURG)?;
    match ask(libc::F_SETLEASE, libc::F_WRLCK) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
        Err(error) => return Err(error),
    }
    ask(libc::F_SETLEASE, libc::F_UNLCK)?;
    Ok(false)
}
