//! Copies of content that share blocks where the disk can, and keep holes where it cannot.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

const BUFFER: usize = 256 * 1024;

/// Makes the empty file `to` share the blocks of `from`, as they are at one moment; `false` if the disk cannot.
pub(super) fn share_file(from: &File, to: &File) -> bool {
    rustix::fs::ioctl_ficlone(to, from).is_ok()
}

/// Makes the empty file `to` equal to `from`: shares its blocks, or copies what are not holes.
pub(super) fn clone_file(from: &File, to: &File) -> io::Result<()> {
    if share_file(from, to) {
        return Ok(());
    }
    let len = from.metadata()?.len();
    to.set_len(len)?;
    let mut buffer = vec![0; BUFFER];
    let mut at = 0;
    while let Some(start) = seek(from, SeekFrom::Data(at))? {
        let end = seek(from, SeekFrom::Hole(start))?.unwrap_or(len);
        at = start;
        while at < end {
            let most = usize::try_from(end - at).map_or(buffer.len(), |n| n.min(buffer.len()));
            let read = from.read_at(&mut buffer[..most], at)?;
            if read == 0 {
                return Ok(());
            }
            to.write_all_at(&buffer[..read], at)?;
            at += read as u64;
        }
    }
    Ok(())
}

/// Where data or a hole begins; `None` behind the last.
fn seek(file: &File, to: SeekFrom) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, to) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
