//! What a server answers.

use bytes::Bytes;

use super::codec::{Decoder, Encoder};
use super::{Attrs, Frame, WireError};

const VERSION: u8 = 2;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;
const EXTENDED_REPLY: u8 = 201;

/// The shortest entry of a name list: two empty strings and empty attributes.
const MIN_NAME_ENTRY: usize = 12;

/// A status code; unknown ones count as failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Ok = 0,
    Eof = 1,
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    BadMessage = 5,
    NoConnection = 6,
    ConnectionLost = 7,
    OpUnsupported = 8,
}

impl Status {
    fn from_code(code: u32) -> Self {
        match code {
            0 => Self::Ok,
            1 => Self::Eof,
            2 => Self::NoSuchFile,
            3 => Self::PermissionDenied,
            5 => Self::BadMessage,
            6 => Self::NoConnection,
            7 => Self::ConnectionLost,
            8 => Self::OpUnsupported,
            _ => Self::Failure,
        }
    }
}

/// One entry of a name list, not yet checked to be a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NameEntry {
    pub(crate) name: Bytes,
    /// How many names the file has: all that is read of the `ls -l` line, which no standard describes.
    pub(crate) links: Option<u32>,
    pub(crate) attrs: Attrs,
}

/// An answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Status(Status, Bytes),
    Handle(Bytes),
    Data(Bytes),
    Names(Vec<NameEntry>),
    Attrs(Attrs),
    Extended(Bytes),
}

impl Reply {
    /// A bare status.
    pub(crate) fn status(status: Status) -> Self {
        Self::Status(status, Bytes::new())
    }

    /// The packet that answers request `id`.
    pub(crate) fn encode(&self, id: u32) -> Frame {
        let start = |kind| Encoder::new(kind).u32(id);
        match self {
            Self::Status(status, message) => start(STATUS)
                .u32(*status as u32)
                .string(message)
                .string(b"")
                .finish(),
            Self::Handle(handle) => start(HANDLE).string(handle).finish(),
            Self::Data(data) => start(DATA).u32(data.len() as u32).finish_with(data.clone()),
            Self::Names(names) => names
                .iter()
                .fold(start(NAME).u32(names.len() as u32), |to, entry| {
                    let line = entry.links.map(|links| format!("?????????? {links}"));
                    let line = line.unwrap_or_default();
                    entry
                        .attrs
                        .encode(to.string(&entry.name).string(line.as_bytes()))
                })
                .finish(),
            Self::Attrs(attrs) => attrs.encode(start(ATTRS)).finish(),
            Self::Extended(data) => start(EXTENDED_REPLY).raw(data).finish(),
        }
    }

    /// Reads a packet without its length: the request's id and the answer.
    pub(crate) fn decode(packet: Bytes) -> Result<(u32, Self), WireError> {
        let mut from = Decoder(packet);
        let kind = from.u8()?;
        let id = from.u32()?;
        let reply = match kind {
            STATUS => {
                let status = Status::from_code(from.u32()?);
                // Message and language came with version 3; some servers leave them out.
                let message = match from.is_empty() {
                    true => Bytes::new(),
                    false => from.string()?,
                };
                Self::Status(status, message)
            }
            HANDLE => Self::Handle(from.string()?),
            DATA => Self::Data(from.string()?),
            NAME => Self::Names(decode_names(&mut from)?),
            ATTRS => Self::Attrs(Attrs::decode(&mut from)?),
            EXTENDED_REPLY => Self::Extended(from.0),
            other => return Err(WireError::Type(other)),
        };
        Ok((id, reply))
    }
}

fn decode_names(from: &mut Decoder) -> Result<Vec<NameEntry>, WireError> {
    let count = from.u32()? as usize;
    if count > from.remaining() / MIN_NAME_ENTRY {
        return Err(WireError::Count);
    }
    let mut names = Vec::with_capacity(count);
    for _ in 0..count {
        let name = from.string()?;
        let links = links_of(&from.string()?);
        let attrs = Attrs::decode(from)?;
        names.push(NameEntry { name, links, attrs });
    }
    Ok(names)
}

/// The second word of a line like `-rw-r--r--    2 ann      users ...`.
fn links_of(line: &[u8]) -> Option<u32> {
    let mut words = line
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    std::str::from_utf8(words.nth(1)?).ok()?.parse().ok()
}

/// A server's first packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) version: u32,
    /// Names and versions of the extensions it offers.
    pub(crate) extensions: Vec<(Bytes, Bytes)>,
}

impl Version {
    pub(crate) fn encode(&self) -> Frame {
        let start = Encoder::new(VERSION).u32(self.version);
        let to = self.extensions.iter();
        to.fold(start, |to, (name, data)| to.string(name).string(data))
            .finish()
    }

    pub(crate) fn decode(packet: Bytes) -> Result<Self, WireError> {
        let mut from = Decoder(packet);
        match from.u8()? {
            VERSION => {}
            other => return Err(WireError::Type(other)),
        }
        let version = from.u32()?;
        let mut extensions = Vec::new();
        while !from.is_empty() {
            extensions.push((from.string()?, from.string()?));
        }
        Ok(Self {
            version,
            extensions,
        })
    }

    /// Whether `name` is offered in the version that is spoken here.
    pub(crate) fn offers(&self, name: &[u8], version: &[u8]) -> bool {
        self.extensions
            .iter()
            .any(|(n, v)| n == name && v == version)
    }
}

/// The answer to `limits@openssh.com`; 0 means unspecified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) packet: u64,
    pub(crate) read: u64,
    pub(crate) write: u64,
    pub(crate) handles: u64,
}

impl Limits {
    pub(crate) fn decode(data: Bytes) -> Result<Self, WireError> {
        let mut from = Decoder(data);
        Ok(Self {
            packet: from.u64()?,
            read: from.u64()?,
            write: from.u64()?,
            handles: from.u64()?,
        })
    }

    pub(crate) fn encode(&self) -> Bytes {
        words(&[self.packet, self.read, self.write, self.handles])
    }
}

/// What is used of the answer to `statvfs@openssh.com`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Vfs {
    /// Bytes in the units that follow.
    pub(crate) fragment_size: u64,
    pub(crate) blocks: u64,
    pub(crate) blocks_available: u64,
    pub(crate) files: u64,
    pub(crate) files_free: u64,
}

impl Vfs {
    pub(crate) fn decode(data: Bytes) -> Result<Self, WireError> {
        let mut from = Decoder(data);
        let mut words = [0; 11];
        for word in &mut words {
            *word = from.u64()?;
        }
        let [
            _,
            fragment_size,
            blocks,
            _,
            blocks_available,
            files,
            files_free,
            ..,
        ] = words;
        Ok(Self {
            fragment_size,
            blocks,
            blocks_available,
            files,
            files_free,
        })
    }

    pub(crate) fn encode(&self) -> Bytes {
        let (free, files_free) = (self.blocks_available, self.files_free);
        let size = self.fragment_size;
        words(&[
            size,
            size,
            self.blocks,
            free,
            free,
            self.files,
            files_free,
            files_free,
            0,
            0,
            255,
        ])
    }
}

fn words(values: &[u64]) -> Bytes {
    values.iter().flat_map(|v| v.to_be_bytes()).collect()
}
