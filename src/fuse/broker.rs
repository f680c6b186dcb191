//! The broker: mounts and unmounts for a daemon that is not root.
//!
//! Only root may mount a home that root, sshd and sudo may look into, and a daemon that serves a user's files is better
//! off without root's powers. So a process that has them holds one end of a socket pair, and the daemon the other. The
//! daemon can ask for its home to be mounted and to be unmounted, and for the kernel to read and write content of its
//! replica by itself, and for nothing else: what is mounted where, and for whom, is the broker's [`Place`], which nothing
//! that is said can change.
//!
//! A request is one byte; that to open content comes with its descriptor, that to close it is followed by its number.
//! The answer is an errno, 0 if it was done, in four bytes, and a number in four; with the one to a mount comes the
//! descriptor at which the kernel asks.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::root::{self, Owner};
use super::session::{Unmount, source_name};
use crate::fs::Passage;

mod backing;

use backing::Backings;

const MOUNT: u8 = b'm';
const UNMOUNT: u8 = b'u';
const UNMOUNT_LAZILY: u8 = b'l';
const OPEN_CONTENT: u8 = b'o';
const CLOSE_CONTENT: u8 = b'c';

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
    /// Where its replica is, without links, in a directory that only root can change.
    pub state_dir: PathBuf,
}

impl Place {
    /// Takes the mount away; fine if others have done so.
    pub fn unmount(&self, how: Unmount) -> io::Result<()> {
        Ok(root::unmount(&self.at, how)?)
    }

    /// Does what the daemon at the other end of `stream` asks for, until it hangs up. Nothing stays open then by which
    /// the kernel could go on waiting for a daemon that is gone.
    pub fn serve(&self, mut stream: UnixStream) {
        let mut mounted = None;
        self.hear(&mut stream, &mut mounted);
        // Who goes on using a file keeps it; all others are open for nobody any more.
        mounted.iter_mut().for_each(Backings::close_all);
    }

    fn hear(&self, stream: &mut UnixStream, mounted: &mut Option<Backings>) {
        while let Ok(Some((request, content))) = next_request(stream) {
            let asked = match (request, content) {
                (MOUNT, None) => self.mount(stream, mounted),
                (UNMOUNT, None) => done(stream, self.unmount(Unmount::IfUnused)),
                (UNMOUNT_LAZILY, None) => done(stream, self.unmount(Unmount::Lazily)),
                (OPEN_CONTENT, Some(content)) => {
                    let opened = with(mounted, |backings| backings.open(&content));
                    answer(stream, opened, None)
                }
                (CLOSE_CONTENT, None) => {
                    let mut id = [0; 4];
                    let read = stream.read_exact(&mut id);
                    let id = u32::from_le_bytes(id);
                    read.and_then(|()| done(stream, with(mounted, |backings| backings.close(id))))
                }
                _ => return,
            };
            if asked.is_err() {
                return;
            }
        }
    }

    fn mount(&self, stream: &UnixStream, mounted: &mut Option<Backings>) -> io::Result<()> {
        let (uid, gid) = (self.uid, self.gid);
        let owner = Owner { uid, gid };
        match root::mount(&source_name(&self.home), &self.at, owner, true) {
            Ok(fuse) => {
                answer(stream, Ok(0), Some(&fuse))?;
                *mounted = Some(Backings::new(fuse, &self.state_dir, (uid, gid)));
                Ok(())
            }
            Err(error) => done(stream, Err(error)),
        }
    }
}

/// What can be done only when there is a mount.
fn with<T>(
    mounted: &mut Option<Backings>,
    f: impl FnOnce(&mut Backings) -> io::Result<T>,
) -> io::Result<T> {
    f(mounted.as_mut().ok_or(Errno::NOTCONN)?)
}

/// The next request, with the one descriptor that came along, if any; `None` when the daemon has hung up.
fn next_request(stream: &UnixStream) -> io::Result<Option<(u8, Option<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut request = [0];
    let received = recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut request)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut came: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            came.extend(fds);
        }
    }
    // The kernel closes what there is no room for.
    if received.flags.contains(ReturnFlags::CTRUNC) || came.len() > 1 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Some((request[0], came.pop())))
}

fn done(stream: &UnixStream, done: io::Result<()>) -> io::Result<()> {
    answer(stream, done.map(|()| 0), None)
}

fn answer(stream: &UnixStream, done: io::Result<u32>, fuse: Option<&OwnedFd>) -> io::Result<()> {
    let unknown = Errno::IO.raw_os_error();
    let (errno, number) = match done {
        Ok(number) => (0, number),
        Err(error) => (error.raw_os_error().unwrap_or(unknown), 0),
    };
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&errno.to_le_bytes());
    bytes[4..].copy_from_slice(&number.to_le_bytes());
    send(stream, &bytes, fuse.map(AsFd::as_fd))
}

fn send(stream: &UnixStream, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if let Some(fd) = &fd {
        control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(fd)));
    }
    let sent = sendmsg(
        stream,
        &[IoSlice::new(bytes)],
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
        self.ask(&[MOUNT], None)?.1.ok_or_else(no_descriptor)
    }

    /// Has it unmounted; fine if others have done so.
    pub(super) fn unmount(&self, how: Unmount) -> io::Result<()> {
        let request = match how {
            Unmount::IfUnused => UNMOUNT,
            Unmount::Lazily => UNMOUNT_LAZILY,
        };
        self.ask(&[request], None).map(drop)
    }

    fn ask(
        &self,
        request: &[u8],
        content: Option<BorrowedFd<'_>>,
    ) -> io::Result<(u32, Option<OwnedFd>)> {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        send(&stream, request, content)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 8];
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
        let [a, b, c, d, number @ ..] = bytes;
        match i32::from_le_bytes([a, b, c, d]) {
            0 => Ok((u32::from_le_bytes(number), fds)),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

impl Passage for Broker {
    fn open(&self, file: &File) -> io::Result<u32> {
        Ok(self.ask(&[OPEN_CONTENT], Some(file.as_fd()))?.0)
    }

    fn close(&self, id: u32) -> io::Result<()> {
        let [a, b, c, d] = id.to_le_bytes();
        self.ask(&[CLOSE_CONTENT, a, b, c, d], None).map(drop)
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
            state_dir: "/nonexistent/state".into(),
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
    fn content_comes_with_one_descriptor_and_nothing_else_with_any() {
        let fd = File::open("/dev/null").unwrap();
        let one = Some(fd.as_fd());
        // What is not heard ends the conversation.
        for (request, with) in [
            (b"o", None),
            (b"m", one),
            (b"u", one),
            (b"c", one),
            (b"x", one),
        ] {
            let (ours, serving) = served(nowhere());
            send(&ours, request, with).unwrap();
            serving.join().unwrap();
        }
        let (ours, serving) = served(nowhere());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let two = [fd.as_fd(), fd.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&two));
        sendmsg(
            &ours,
            &[IoSlice::new(b"o")],
            &mut control,
            SendFlags::NOSIGNAL,
        )
        .unwrap();
        serving.join().unwrap();
    }

    #[test]
    fn before_a_mount_there_is_nothing_to_be_told_to_the_kernel() {
        let (ours, serving) = served(nowhere());
        let broker = Broker::new(ours);
        let early = |refused: io::Error| Errno::from_io_error(&refused) == Some(Errno::NOTCONN);
        assert!(early(
            broker
                .open(&File::open("/etc/passwd").unwrap())
                .unwrap_err()
        ));
        assert!(early(broker.close(1).unwrap_err()));
        drop(broker);
        serving.join().unwrap();
    }

    #[test]
    fn a_broker_that_is_gone_is_an_error_and_no_hang() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(Broker::new(ours).mount().is_err());
    }
}
