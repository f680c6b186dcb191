//! One SFTP conversation over any pair of byte streams: a writer task, a reader task, and the requests that
//! wait for their replies.
//!
//! Requests go out in the order of `call`'s first poll. Memory is bounded by the callers, who bound their bytes
//! in flight, and by `MAX_PACKET`. The first fault ends the conversation: it fails what is outstanding and
//! all that comes later, and nothing is ever sent again. A link counts as dead when nothing arrives for
//! `silence` although replies are due; slow links make progress byte by byte.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::ErrorKind;
use super::wire::{Frame, MAX_PACKET, PROTOCOL_VERSION, Reply, Request, Version, init};

/// How much is read at once when no longer packet is expected.
const READ_CHUNK: usize = 64 * 1024;

/// Why a conversation ended.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) kind: ErrorKind,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn protocol(message: impl ToString) -> Self {
        Self {
            kind: ErrorKind::Protocol,
            message: message.to_string(),
        }
    }

    pub(super) fn disconnected(message: impl ToString) -> Self {
        Self {
            kind: ErrorKind::Disconnected,
            message: message.to_string(),
        }
    }

    fn silence(silence: Duration) -> Self {
        Self {
            kind: ErrorKind::Timeout,
            message: format!("the server said nothing for {} s", silence.as_secs()),
        }
    }
}

/// The conversation, shared by its tasks and its callers.
pub(super) struct Conn {
    state: Mutex<State>,
    ended: watch::Sender<bool>,
    /// Woken when the first reply becomes due.
    due: Notify,
    /// Wakes those who want to know that something arrived.
    arrivals: Notify,
    silence: Duration,
}

struct State {
    next_id: u32,
    waiting: HashMap<u32, oneshot::Sender<Delivery>>,
    /// Gone once the conversation has ended.
    queue: Option<mpsc::UnboundedSender<Frame>>,
    fault: Option<Fault>,
    /// When something last arrived, or the first reply became due; `None` while none is.
    due_since: Option<Instant>,
}

/// A reply on its way to a caller. A handle whose caller is gone is closed, or it would stay open on the
/// server as long as the session.
struct Delivery {
    reply: Option<Reply>,
    conn: Weak<Conn>,
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let (Some(Reply::Handle(handle)), Some(conn)) = (self.reply.take(), self.conn.upgrade())
        {
            conn.forget(Request::Close(handle));
        }
    }
}

impl Conn {
    /// Greets the server and starts the tasks.
    pub(super) async fn start<R, W>(
        mut reader: R,
        mut writer: W,
        greeting: Duration,
        silence: Duration,
    ) -> Result<(Arc<Self>, Version), Fault>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let greeted = timeout(greeting, greet(&mut reader, &mut writer)).await;
        let version = greeted.map_err(|_| Fault::silence(greeting))??;
        let (queue, frames) = mpsc::unbounded_channel();
        let conn = Arc::new(Self {
            state: Mutex::new(State {
                next_id: 0,
                waiting: HashMap::new(),
                queue: Some(queue),
                fault: None,
                due_since: None,
            }),
            ended: watch::Sender::new(false),
            due: Notify::new(),
            arrivals: Notify::new(),
            silence,
        });
        tokio::spawn(conn.clone().read_until_end(reader));
        tokio::spawn(conn.clone().write_until_end(writer, frames));
        Ok((conn, version))
    }

    /// Sends `request` and waits for its reply. It is queued at the first poll.
    pub(super) async fn call(&self, request: Request) -> Result<Reply, Fault> {
        let (to, reply) = oneshot::channel();
        self.enqueue(&request, to)?;
        match reply.await {
            Ok(mut delivery) => delivery
                .reply
                .take()
                .ok_or_else(|| Fault::protocol("no reply")),
            Err(_) => Err(self.fault()),
        }
    }

    /// Sends `request` without waiting; its reply is dropped.
    pub(super) fn forget(&self, request: Request) {
        // An ended conversation needs no tidying: the server closes its handles.
        drop(self.enqueue(&request, oneshot::channel().0));
    }

    fn enqueue(&self, request: &Request, to: oneshot::Sender<Delivery>) -> Result<(), Fault> {
        let mut state = self.lock();
        let id = state.next_id;
        let sent = match &state.queue {
            Some(queue) => queue.send(request.encode(id)).is_ok(),
            None => false,
        };
        if !sent {
            drop(state);
            return Err(self.fault());
        }
        state.next_id = id.wrapping_add(1);
        state.waiting.insert(id, to);
        if state.due_since.is_none() {
            state.due_since = Some(Instant::now());
            self.due.notify_one();
        }
        Ok(())
    }

    /// Ends the conversation; only the first fault counts.
    pub(super) fn end(&self, fault: Fault) {
        let mut state = self.lock();
        state.fault.get_or_insert(fault);
        state.queue = None;
        state.due_since = None;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
        self.ended.send_replace(true);
    }

    pub(super) fn is_ended(&self) -> bool {
        *self.ended.borrow()
    }

    pub(super) async fn ended(&self) {
        // The sender lives as long as `self`, so this cannot fail.
        drop(self.ended.subscribe().wait_for(|ended| *ended).await);
    }

    fn fault(&self) -> Fault {
        let fault = self.lock().fault.clone();
        fault.unwrap_or_else(|| Fault::disconnected("the session has ended"))
    }

    async fn write_until_end<W: AsyncWrite + Unpin>(
        self: Arc<Self>,
        mut writer: W,
        mut frames: mpsc::UnboundedReceiver<Frame>,
    ) {
        tokio::select! {
            () = self.ended() => {}
            result = write_frames(&mut writer, &mut frames) => {
                if let Err(error) = result {
                    self.end(Fault::disconnected(error));
                }
            }
        }
    }

    async fn read_until_end<R: AsyncRead + Unpin>(self: Arc<Self>, reader: R) {
        tokio::select! {
            () = self.ended() => {}
            fault = self.read_replies(reader) => self.end(fault),
        }
    }

    async fn read_replies<R: AsyncRead + Unpin>(self: &Arc<Self>, mut reader: R) -> Fault {
        let mut buf = BytesMut::new();
        loop {
            let read = tokio::select! {
                read = reader.read_buf(&mut buf) => read,
                () = self.silent() => return Fault::silence(self.silence),
            };
            match read {
                Ok(0) => return Fault::disconnected("the server closed the connection"),
                Ok(_) => {}
                Err(error) => return Fault::disconnected(error),
            }
            loop {
                match take_packet(&mut buf).and_then(|p| p.map(|p| self.deliver(p)).transpose()) {
                    Ok(Some(())) => {}
                    Ok(None) => break,
                    Err(fault) => return fault,
                }
            }
            self.heard();
        }
    }

    fn deliver(self: &Arc<Self>, packet: Bytes) -> Result<(), Fault> {
        let (id, reply) = Reply::decode(packet).map_err(Fault::protocol)?;
        let to = self.lock().waiting.remove(&id);
        let to = to.ok_or_else(|| Fault::protocol("a reply to a request that was not made"))?;
        let delivery = Delivery {
            reply: Some(reply),
            conn: Arc::downgrade(self),
        };
        // A caller that is gone leaves the delivery to its `Drop`.
        drop(to.send(delivery));
        Ok(())
    }

    /// Notes that bytes arrived.
    fn heard(&self) {
        let mut state = self.lock();
        state.due_since = (!state.waiting.is_empty()).then(Instant::now);
        drop(state);
        self.arrivals.notify_waiters();
    }

    /// Resolves when bytes arrive.
    pub(super) async fn arrival(&self) {
        self.arrivals.notified().await;
    }

    /// Resolves when the server has been silent for too long.
    async fn silent(&self) {
        loop {
            let due_since = self.lock().due_since;
            match due_since {
                None => self.due.notified().await,
                Some(since) if since.elapsed() >= self.silence => return,
                Some(since) => sleep_until(since + self.silence).await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cuts the next packet, without its length, off the front of `buf`; `None` while it is not complete.
fn take_packet(buf: &mut BytesMut) -> Result<Option<Bytes>, Fault> {
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

async fn greet<R, W>(reader: &mut R, writer: &mut W) -> Result<Version, Fault>
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

/// Writes what is queued, and flushes when the queue is empty.
async fn write_frames<W: AsyncWrite + Unpin>(
    writer: &mut W,
    frames: &mut mpsc::UnboundedReceiver<Frame>,
) -> std::io::Result<()> {
    let mut out = tokio::io::BufWriter::with_capacity(READ_CHUNK, writer);
    while let Some(first) = frames.recv().await {
        let mut next = Some(first);
        while let Some(frame) = next {
            out.write_all(&frame.head).await?;
            out.write_all(&frame.body).await?;
            next = frames.try_recv().ok();
        }
        out.flush().await?;
    }
    Ok(())
}
