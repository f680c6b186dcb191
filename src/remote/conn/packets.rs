//! Packets out of a stream of bytes, and the greeting.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Fault, READ_CHUNK};
use crate::remote::wire::{MAX_PACKET, PROTOCOL_VERSION, Version, init};

/// Cuts the next packet, without its length, off the front of `buf`; `None` while it is not complete.
pub(super) fn take_packet(buf: &mut BytesMut) -> Result<Option<Bytes>, Fault> {
    let Some((len, _)) = buf.split_first_chunk::<4>() else {
        buf.reserve(READ_CHUNK);
        return Ok(None);
    };
    let end = 4 + check_length(*len)?;
    if buf.len() < end {
        buf.reserve((end - buf.len()).max(READ_CHUNK));
        return Ok(None);
    }
    Ok(Some(buf.split_to(end).freeze().slice(4..)))
}

fn check_length(len: [u8; 4]) -> Result<usize, Fault> {
    match u32::from_be_bytes(len) {
        0 => Err(Fault::protocol("an empty packet")),
        len if len > MAX_PACKET => Err(Fault::protocol(format!("a packet of {len} bytes"))),
        len => Ok(len as usize),
    }
}

pub(super) async fn greet<R, W>(reader: &mut R, writer: &mut W) -> Result<Version, Fault>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let hello = async {
        writer.write_all(&init().head).await?;
        writer.flush().await?;
        let mut len = [0; 4];
        reader.read_exact(&mut len).await?;
        Ok::<_, std::io::Error>(len)
    };
    let len = hello.await.map_err(Fault::disconnected)?;
    let mut packet = vec![0; check_length(len)?];
    let read = reader.read_exact(&mut packet).await;
    read.map_err(Fault::disconnected)?;
    let version = Version::decode(packet.into()).map_err(Fault::protocol)?;
    match version.version {
        PROTOCOL_VERSION => Ok(version),
        other => Err(Fault::protocol(format!(
            "the server speaks version {other} of SFTP, not version {PROTOCOL_VERSION}"
        ))),
    }
}
