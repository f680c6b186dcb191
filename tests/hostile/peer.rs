//! A server that lies: an honest one whose every answer passes a liar on its way. The requests pass him untouched, so
//! that he gets deep: the handshake holds, files open, and then comes something else than what was asked for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use roamhome::engine::{Connect, LinkError};
use roamhome::remote::{MemoryServer, Remote, RemoteError, SftpConfig, SftpSession, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, duplex, split};

use super::packet::{self, ATTRS, DATA, HANDLE, NAME, STATUS};
use crate::support::rng::Rng;

/// Listings with more entries are given up; a million as usual would only take longer.
const ENTRIES_MAX: usize = 2_000;

/// What one server makes of the truth.
struct Liar {
    rng: Rng,
    /// One answer in so many is a lie.
    one_in: u64,
    /// Listings do not end from now on.
    endless: bool,
}

/// What goes to the client instead of an answer.
enum Say {
    These(Vec<u8>),
    /// These bytes, and the end of the stream.
    Last(Vec<u8>),
    /// Nothing, from now on.
    Silence,
}

impl Liar {
    fn answer(&mut self, body: &[u8]) -> Say {
        let truth = packet::string(body);
        let (kind, id) = match body {
            [kind, a, b, c, d, ..] => (*kind, u32::from_be_bytes([*a, *b, *c, *d])),
            _ => return Say::These(truth),
        };
        // The listing's own end is a status.
        let ends = kind == STATUS && body.get(5..9) == Some(&[0, 0, 0, 1]);
        if self.endless && (kind == NAME || ends) {
            return Say::These(packet::more_names(&mut self.rng, id));
        }
        match self.rng.one_in(self.one_in) {
            false => Say::These(truth),
            true => self.lie(kind, id, truth),
        }
    }

    fn lie(&mut self, kind: u8, id: u32, truth: Vec<u8>) -> Say {
        let rng = &mut self.rng;
        // What breaks the connection at once is rare, or nothing else would ever be seen.
        match rng.below(40) {
            0 => return Say::Silence,
            1 => {
                let at = rng.below(truth.len() as u64) as usize;
                return Say::Last(truth[..at].to_vec());
            }
            2 => return Say::These(packet::packet(kind, id ^ 1 << rng.below(32), &truth[9..])),
            3 => return Say::These([truth.clone(), truth].concat()),
            4 => return Say::These(packet::string(&spoiled(rng, truth[4..].to_vec()))),
            5 => return Say::These(spoiled(rng, truth)),
            6 => {
                let kind = rng.pick(&[2, STATUS, HANDLE, DATA, NAME, ATTRS, 201, 0]);
                return Say::These(packet::packet(kind, id, &truth[9..]));
            }
            7 => {
                self.endless = true;
                return Say::These(packet::more_names(rng, id));
            }
            _ => {}
        }
        Say::These(match (kind, rng.below(4)) {
            (_, 0) => packet::status(rng, id),
            (NAME, 1) => packet::end(id),
            (NAME, _) => packet::names(rng, id),
            (ATTRS, _) => packet::packet(ATTRS, id, &packet::attrs(rng)),
            (DATA, 1) => packet::end(id),
            (DATA, _) => packet::packet(DATA, id, &packet::string(&other_data(rng, &truth[13..]))),
            (STATUS, 1) => packet::names(rng, id),
            _ => truth,
        })
    }
}

fn spoiled(rng: &mut Rng, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..=rng.below(3) {
        let at = rng.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << rng.below(8);
    }
    bytes
}

/// Content that is shorter, longer, empty or not what is stored.
fn other_data(rng: &mut Rng, data: &[u8]) -> Vec<u8> {
    match rng.below(4) {
        0 => Vec::new(),
        1 => data[..data.len() / 2].to_vec(),
        2 => [data, b"and more than was asked for"].concat(),
        _ => data.iter().map(|byte| byte ^ 0x20).collect(),
    }
}

async fn read_packet<R: AsyncReadExt + Unpin>(from: &mut R) -> Option<Vec<u8>> {
    let len = from.read_u32().await.ok()?;
    let mut body = vec![0; len as usize];
    from.read_exact(&mut body).await.ok()?;
    Some(body)
}

type Stream = tokio::io::DuplexStream;

async fn pass_on(mut liar: Liar, mut honest: ReadHalf<Stream>, mut client: WriteHalf<Stream>) {
    let mut first = true;
    while let Some(body) = read_packet(&mut honest).await {
        let greets = std::mem::take(&mut first) && !liar.rng.one_in(20);
        let say = match greets {
            true => Say::These(packet::string(&body)),
            false => liar.answer(&body),
        };
        let (bytes, more) = match say {
            Say::These(bytes) => (bytes, true),
            Say::Last(bytes) => (bytes, false),
            Say::Silence => return std::future::pending().await,
        };
        if client.write_all(&bytes).await.is_err() || !more {
            break;
        }
    }
    // The client hears of the end.
    drop(client.shutdown().await);
}

/// Connections to `server` that all pass a liar.
pub(super) struct Lying {
    pub(super) server: MemoryServer,
    pub(super) seed: u64,
    /// One answer in so many is a lie; 0: none.
    pub(super) one_in: AtomicU64,
    made: AtomicU64,
}

impl Lying {
    pub(super) fn new(server: &MemoryServer, seed: u64, one_in: u64) -> Self {
        Self {
            server: server.clone(),
            seed,
            one_in: AtomicU64::new(one_in),
            made: AtomicU64::new(0),
        }
    }

    pub(super) async fn session(&self) -> Result<SftpSession, RemoteError> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let (client, middle) = duplex(1 << 16);
        let (ours, theirs) = duplex(1 << 16);
        let (honest_in, honest_out) = split(theirs);
        tokio::spawn(serve(honest_in, honest_out, self.server.session()));
        let (mut from_client, to_client) = split(middle);
        let (from_honest, mut to_honest) = split(ours);
        let one_in = self.one_in.load(Ordering::Relaxed);
        let liar = Liar {
            rng: Rng::new(self.seed ^ number << 32),
            one_in: if one_in == 0 { u64::MAX } else { one_in },
            endless: false,
        };
        tokio::spawn(async move {
            // Ends with the session.
            drop(tokio::io::copy(&mut from_client, &mut to_honest).await);
            drop(to_honest.shutdown().await);
        });
        tokio::spawn(pass_on(liar, from_honest, to_client));
        let (reader, writer) = split(client);
        let config = SftpConfig {
            entries_max: ENTRIES_MAX,
            silence: Duration::from_secs(10),
            ..SftpConfig::default()
        };
        SftpSession::start(reader, writer, config).await
    }
}

#[async_trait]
impl Connect for Lying {
    async fn connect(&self) -> Result<Remote, LinkError> {
        let lost = |error: RemoteError| LinkError {
            message: error.to_string(),
            remedy: String::new(),
            needs_person: false,
        };
        let first = self.session().await.map_err(lost)?;
        let second = self.session().await.map_err(lost)?;
        let first = std::sync::Arc::new(first);
        Ok(Remote::new(first, vec![std::sync::Arc::new(second)], ()))
    }
}
