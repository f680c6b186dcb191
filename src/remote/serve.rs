//! The server's half of SFTP, in front of any [`Session`]: for the demo, and for tests of the client's half.
//!
//! Requests are worked on one after the other, as OpenSSH does. Names are bytes here as well. The session's root is `/`.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};

use super::wire::{
    Attrs, Extended, Frame, Limits, MAX_DATA, MAX_PACKET, NameEntry, OPEN_CREATE, OPEN_EXCLUSIVE,
    OPEN_TRUNCATE, OPEN_WRITE, PROTOCOL_VERSION, Reply, Request, Status, Version, Vfs, decode_init,
    extension,
};
use super::{DirEntry, ErrorKind, Features, FileHandle, RemoteError, Session, SetStat, Stat};
use crate::tree::{Kind, Name, RelPath};

/// Entries in one reply, as many as OpenSSH sends.
const ENTRIES_PER_REPLY: usize = 100;
/// Links that a `stat` follows.
const MAX_LINKS: usize = 40;

/// Serves `session` until the client hangs up.
pub async fn serve<R, W>(reader: R, writer: W, session: Arc<dyn Session>) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut reader = BufReader::with_capacity(64 * 1024, reader);
    let mut writer = BufWriter::with_capacity(64 * 1024, writer);
    let mut server = Server {
        session,
        files: HashMap::new(),
        listings: HashMap::new(),
        next_listing: 0,
    };
    let Some(hello) = read_packet(&mut reader).await? else {
        return Ok(());
    };
    decode_init(hello).map_err(io::Error::other)?;
    write_frame(&mut writer, &server.version().encode()).await?;
    writer.flush().await?;
    while let Some(packet) = read_packet(&mut reader).await? {
        let (id, request) = Request::decode(packet).map_err(io::Error::other)?;
        let reply = server.answer(request).await;
        write_frame(&mut writer, &reply.unwrap_or_else(failure).encode(id)).await?;
        // A burst of requests is answered by a burst.
        if reader.buffer().is_empty() {
            writer.flush().await?;
        }
    }
    Ok(())
}

async fn read_packet<R: AsyncRead + Unpin>(reader: &mut R) -> io::Result<Option<Bytes>> {
    let len = match reader.read_u32().await {
        Ok(len) => len,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if len == 0 || len > MAX_PACKET {
        return Err(io::Error::other(format!("a packet of {len} bytes")));
    }
    let mut packet = vec![0; len as usize];
    reader.read_exact(&mut packet).await?;
    Ok(Some(packet.into()))
}

async fn write_frame<W: AsyncWrite + Unpin>(writer: &mut W, frame: &Frame) -> io::Result<()> {
    writer.write_all(&frame.head).await?;
    writer.write_all(&frame.body).await
}

fn failure(error: RemoteError) -> Reply {
    let status = match error.kind {
        ErrorKind::NotFound => Status::NoSuchFile,
        ErrorKind::PermissionDenied => Status::PermissionDenied,
        ErrorKind::Unsupported => Status::OpUnsupported,
        ErrorKind::Disconnected | ErrorKind::Timeout => Status::ConnectionLost,
        ErrorKind::Failure | ErrorKind::Protocol => Status::Failure,
    };
    Reply::Status(status, error.message.into())
}

struct Server {
    session: Arc<dyn Session>,
    /// Open files, by what the client calls them.
    files: HashMap<Bytes, FileHandle>,
    /// Open directories: what is still to be sent.
    listings: HashMap<Bytes, Vec<DirEntry>>,
    next_listing: u64,
}

type Answer = Result<Reply, RemoteError>;

fn done(_: ()) -> Reply {
    Reply::status(Status::Ok)
}

fn told(stat: Stat) -> Reply {
    Reply::Attrs(attrs(stat))
}

impl Server {
    fn version(&self) -> Version {
        let f = self.session.features();
        let offered = [
            (f.posix_rename, extension::POSIX_RENAME),
            (f.hardlink, extension::HARDLINK),
            (f.fsync, extension::FSYNC),
            (f.lsetstat, extension::LSETSTAT),
            (f.statvfs, extension::STATVFS),
            (f.copy_data, extension::COPY_DATA),
            (true, extension::LIMITS),
        ];
        let named = |(name, version)| (Bytes::from_static(name), Bytes::from_static(version));
        Version {
            version: PROTOCOL_VERSION,
            extensions: offered
                .into_iter()
                .filter(|(on, _)| *on)
                .map(|(_, extension)| named(extension))
                .collect(),
        }
    }

    async fn answer(&mut self, request: Request) -> Answer {
        let s = self.session.clone();
        match request {
            Request::Open { path, flags, attrs } => {
                let handle = self.open(&rel(&path)?, flags, attrs).await?;
                let id = Bytes::from([b"f", &handle.id[..]].concat());
                self.files.insert(id.clone(), handle);
                Ok(Reply::Handle(id))
            }
            Request::Close(id) => match self.listings.remove(&id) {
                Some(_) => Ok(Reply::status(Status::Ok)),
                None => {
                    let handle = self.file(&id)?;
                    self.files.remove(&id);
                    s.close(handle).await.map(done)
                }
            },
            Request::Read {
                handle,
                offset,
                len,
            } => {
                let data = s
                    .read(&self.file(&handle)?, offset, len.min(MAX_DATA))
                    .await?;
                Ok(match data.is_empty() {
                    true => Reply::status(Status::Eof),
                    false => Reply::Data(data),
                })
            }
            Request::Write {
                handle,
                offset,
                data,
            } => s.write(&self.file(&handle)?, offset, data).await.map(done),
            Request::Lstat(path) => s.lstat(&rel(&path)?).await.map(told),
            Request::Stat(path) => self.stat(rel(&path)?).await.map(told),
            Request::Fstat(id) => s.fstat(&self.file(&id)?).await.map(told),
            Request::Setstat(path, attrs) => s.setstat(&rel(&path)?, set(attrs)).await.map(done),
            Request::Fsetstat(id, attrs) => {
                s.fsetstat(&self.file(&id)?, set(attrs)).await.map(done)
            }
            Request::Opendir(path) => self.opendir(&rel(&path)?).await,
            Request::Readdir(id) => self.readdir(&id),
            Request::Remove(path) => s.remove(&rel(&path)?).await.map(done),
            Request::Mkdir(path, attrs) => {
                let mode = attrs.permissions.unwrap_or(0o777);
                s.mkdir(&rel(&path)?, mode).await.map(done)
            }
            Request::Rmdir(path) => s.rmdir(&rel(&path)?).await.map(done),
            Request::Realpath(path) => {
                let resolved = [b"/", &rel(&path)?.to_bytes()[..]].concat();
                Ok(one_name(resolved))
            }
            Request::Rename { from, to } => s.rename(&rel(&from)?, &rel(&to)?).await.map(done),
            Request::Readlink(path) => s.readlink(&rel(&path)?).await.map(one_name),
            Request::Symlink { target, link } => s.symlink(&rel(&link)?, &target).await.map(done),
            Request::Extended(extended) => self.extended(extended).await,
        }
    }

    async fn extended(&self, request: Extended) -> Answer {
        let s = &self.session;
        match request {
            Extended::PosixRename { from, to } => {
                s.posix_rename(&rel(&from)?, &rel(&to)?).await.map(done)
            }
            Extended::Hardlink { from, to } => s.hardlink(&rel(&from)?, &rel(&to)?).await.map(done),
            Extended::Fsync(id) => s.fsync(&self.file(&id)?).await.map(done),
            Extended::Lsetstat(path, attrs) => s.lsetstat(&rel(&path)?, set(attrs)).await.map(done),
            Extended::Statvfs(_) => {
                let vfs = s.statvfs().await?;
                let vfs = Vfs {
                    fragment_size: 1,
                    blocks: vfs.total_bytes,
                    blocks_available: vfs.available_bytes,
                    files: vfs.files,
                    files_free: vfs.files_free,
                };
                Ok(Reply::Extended(vfs.encode()))
            }
            Extended::Limits => Ok(Reply::Extended(self.limits(s.features()).encode())),
            Extended::CopyData {
                from,
                from_offset,
                len,
                to,
                to_offset,
            } => {
                let (from, to) = (self.file(&from)?, self.file(&to)?);
                let copied = s.copy_data(&from, from_offset, len, &to, to_offset);
                copied.await.map(done)
            }
            Extended::Other(_) => Ok(Reply::status(Status::OpUnsupported)),
        }
    }

    /// With the path that it was opened as, which tells content from notes.
    fn file(&self, id: &Bytes) -> Result<FileHandle, RemoteError> {
        self.files.get(id).cloned().ok_or_else(|| {
            let root = RelPath::root();
            RemoteError::new(ErrorKind::Failure, "handle", &root, "no such open file")
        })
    }

    fn limits(&self, features: Features) -> Limits {
        Limits {
            packet: u64::from(MAX_PACKET),
            read: u64::from(features.max_read.min(MAX_DATA)),
            write: u64::from(features.max_write.min(MAX_DATA)),
            handles: 0,
        }
    }

    async fn open(
        &self,
        path: &RelPath,
        flags: u32,
        attrs: Attrs,
    ) -> Result<FileHandle, RemoteError> {
        if flags & OPEN_WRITE == 0 {
            return self.session.open_read(path).await;
        }
        if flags & OPEN_CREATE == 0 {
            self.session.lstat(path).await?;
        }
        let mode = attrs.permissions.unwrap_or(0o666);
        let exclusive = flags & OPEN_EXCLUSIVE != 0;
        let handle = self.session.open_write(path, mode, exclusive).await?;
        if flags & OPEN_TRUNCATE != 0 {
            let empty = SetStat {
                size: Some(0),
                ..SetStat::default()
            };
            self.session.fsetstat(&handle, empty).await?;
        }
        Ok(handle)
    }

    async fn stat(&self, mut path: RelPath) -> Result<Stat, RemoteError> {
        for _ in 0..MAX_LINKS {
            let stat = self.session.lstat(&path).await?;
            if stat.kind != Kind::Symlink {
                return Ok(stat);
            }
            let target = self.session.readlink(&path).await?;
            let mut above = path.to_bytes();
            above.extend(b"/../");
            path = match target.starts_with(b"/") {
                true => rel(&target)?,
                false => rel(&[above, target].concat())?,
            };
        }
        Err(RemoteError::new(
            ErrorKind::NotFound,
            "stat",
            &path,
            "too many links",
        ))
    }

    async fn opendir(&mut self, path: &RelPath) -> Answer {
        let mut entries = self.session.list(path).await?;
        entries.reverse();
        let id = Bytes::from(format!("d{}", self.next_listing));
        self.next_listing += 1;
        self.listings.insert(id.clone(), entries);
        Ok(Reply::Handle(id))
    }

    fn readdir(&mut self, id: &Bytes) -> Answer {
        let Some(left) = self.listings.get_mut(id) else {
            return Ok(Reply::status(Status::Failure));
        };
        if left.is_empty() {
            return Ok(Reply::status(Status::Eof));
        }
        let batch = left.split_off(left.len().saturating_sub(ENTRIES_PER_REPLY));
        let entry = |entry: DirEntry| NameEntry {
            name: Bytes::copy_from_slice(entry.name.as_bytes()),
            links: entry.links,
            attrs: attrs(entry.stat),
        };
        Ok(Reply::Names(batch.into_iter().rev().map(entry).collect()))
    }
}

fn one_name(name: Vec<u8>) -> Reply {
    Reply::Names(vec![NameEntry {
        name: name.into(),
        links: None,
        attrs: Attrs::default(),
    }])
}

/// A client's path below the root; `..` never leads out of it.
fn rel(path: &[u8]) -> Result<RelPath, RemoteError> {
    let mut names = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            part => names.push(Name::new(part).map_err(|error| {
                RemoteError::new(
                    ErrorKind::Failure,
                    "path",
                    &RelPath::root(),
                    error.to_string(),
                )
            })?),
        }
    }
    Ok(names.into_iter().collect())
}

fn set(attrs: Attrs) -> SetStat {
    SetStat {
        size: attrs.size,
        mode: attrs.permissions.map(|p| p & 0o7777),
        mtime: attrs.times.map(|(_, mtime)| i64::from(mtime)),
    }
}

fn attrs(stat: Stat) -> Attrs {
    let kind = match stat.kind {
        Kind::File => 0o100_000,
        Kind::Dir => 0o040_000,
        Kind::Symlink => 0o120_000,
        Kind::Fifo => 0o010_000,
        Kind::Socket => 0o140_000,
        Kind::Other => 0o020_000,
    };
    let mtime = stat.mtime.clamp(0, i64::from(u32::MAX)) as u32;
    Attrs {
        size: Some(stat.size),
        owner: Some((stat.uid, stat.gid)),
        permissions: Some(kind | stat.mode),
        times: Some((mtime, mtime)),
    }
}
