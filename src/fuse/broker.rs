//! The broker: mounts and unmounts for a daemon that is not root.
//!
//! Only root may mount a home that root, sshd and sudo may look into, and a daemon that serves a user's files is better
//! off without root's powers. So a process that has them holds one end of a socket pair, and the daemon the other. The
//! daemon can ask for its home to be mounted and to be unmounted, and for nothing else: what is mounted where, and for
//! whom, is the broker's [`Place`], which nothing that is said can change.
//!
//! A request is one byte. The answer is an errno, 0 if it was done, in four bytes; with the one to a mount comes the
//! descriptor at which the kernel asks.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::root::{self, Owner};
use super::session::{Unmount, source_name};

const MOUNT: u8 = b'm';
const UNMOUNT: u8 = b'u';
const UNMOUNT_LAZILY: u8 = b'l';

/// What may be mounted, and where.
#[derive(Debug, Clone)]
pub struct Place {
    /// The home, such as `user@server:/path`.
    pub home: String,
    /// The mount point, without links, in directories that only root can change.
    pub at: PathBuf,
    /// Whose daemon serves it.
    pub uid: u32,
    /// The main group of that user.
    pub gid: u32,
}

impl Place {
    /// Takes the mount away; fine if others have done so.
    pub fn unmount(&self, how: Unmount) -> io::Result<()> {
        Ok(root::unmount(&self.at, how)?)
    }

    /// Does what the daemon at the other end of `stream` asks for, until it hangs up.
    pub fn serve(&self, mut stream: UnixStream) {
        let mut request = [0];
        while stream.read_exact(&mut request).is_ok() {
            let answered = match request[0] {
                MOUNT => self.mount(&stream),
                UNMOUNT => answer(&stream, self.unmount(Unmount::IfUnused), None),
                UNMOUNT_LAZILY => answer(&stream, self.unmount(Unmount::Lazily), None),
                _ => return,
            };
            if answered.is_err() {
                return;
            }
        }
    }

    fn mount(&self, stream: &UnixStream) -> io::Result<()> {
        let owner = Owner {
            uid: self.uid,
            gid: self.gid,
        };
        match root::mount(&source_name(&self.home), &self.at, owner, true) {
            Ok(fuse) => answer(stream, Ok(()), Some(&fuse)),
            Err(error) => answer(stream, Err(error), None),
        }
    }
}

fn answer(stream: &UnixStream, done: io::Result<()>, fuse: Option<&OwnedFd>) -> io::Result<()> {
    let unknown = Errno::IO.raw_os_error();
    let errno = done.map_or_else(|error| error.raw_os_error().unwrap_or(unknown), |()| 0);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fuse.map(AsFd::as_fd);
    if let Some(fd) = &fds {
        control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(fd)));
    }
    let bytes = errno.to_le_bytes();
    let sent = sendmsg(
        stream,
        &[IoSlice::new(&bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    match sent == bytes.len() {
        true => Ok(()),
        false => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// The daemon's end.
#[derive(Debug)]
pub struct Broker(Mutex<UnixStream>);

impl Broker {
    /// Speaks to the broker at the other end.
    pub fn new(stream: UnixStream) -> Self {
        Self(Mutex::new(stream))
    }

    /// Has the home mounted; the answer is where the kernel asks.
    pub(super) fn mount(&self) -> io::Result<OwnedFd> {
        let no_descriptor = || io::Error::other("the broker sent no descriptor");
        self.ask(MOUNT)?.ok_or_else(no_descriptor)
    }

    /// Has it unmounted; fine if others have done so.
    pub(super) fn unmount(&self, how: Unmount) -> io::Result<()> {
        self.ask(match how {
            Unmount::IfUnused => UNMOUNT,
            Unmount::Lazily => UNMOUNT_LAZILY,
        })
        .map(drop)
    }

    fn ask(&self, request: u8) -> io::Result<Option<OwnedFd>> {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut nothing = SendAncillaryBuffer::default();
        sendmsg(
            &*stream,
            &[IoSlice::new(&[request])],
            &mut nothing,
            SendFlags::NOSIGNAL,
        )?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 4];
        let received = recvmsg(
            &*stream,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL,
        )?;
        if received.bytes < bytes.len() {
            return Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the process that mounts for this daemon is gone",
            ));
        }
        let fds = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        match i32::from_le_bytes(bytes) {
            0 => Ok(fds),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::thread;

    use super::*;

    fn served(place: Place) -> (UnixStream, thread::JoinHandle<()>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (ours, thread::spawn(move || place.serve(theirs)))
    }

    fn nowhere() -> Place {
        Place {
            home: "nothing".into(),
            at: "/nonexistent/place".into(),
            uid: 1,
            gid: 1,
        }
    }

    #[test]
    fn the_daemon_hears_why_it_could_not_be() {
        let (ours, serving) = served(nowhere());
        let broker = Broker::new(ours);
        let refused = broker.mount().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
        let refused = broker.unmount(Unmount::IfUnused).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
        drop(broker);
        serving.join().unwrap();
    }

    #[test]
    fn whoever_asks_for_anything_else_is_not_heard_any_more() {
        for strange in [&b"x"[..], b"\0", b"/etc"] {
            let (mut ours, serving) = served(nowhere());
            ours.write_all(strange).unwrap();
            serving.join().unwrap();
        }
    }

    #[test]
    fn a_broker_that_is_gone_is_an_error_and_no_hang() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(Broker::new(ours).mount().is_err());
    }
}
