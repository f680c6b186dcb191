//! One SFTP conversation over any pair of byte streams: a writer task, a reader task, and the requests that
//! wait for their replies.
//!
//! Requests of one class go out in the order of `call`'s first poll, a more urgent class before all others, and each
//! when the line lets it. Memory is bounded by the callers, who bound their bytes in flight, and by `MAX_PACKET`. The
//! first fault ends the conversation: it fails what is outstanding and all that comes later, and nothing is ever sent
//! again. A link counts as dead when nothing arrives on the line for `silence` although this conversation is owed
//! replies, and a conversation alone when that takes many times as long: a server's disk may be slow, its network is
//! alive. Slow links make progress byte by byte.

mod fault;
mod packets;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

pub(super) use self::fault::Fault;
use self::packets::{greet, take_packet};
use super::line::{Admission, Class, Cost, HeldBack, Line, Ticket};
use super::wire::{Frame, Reply, Request, Version};

/// How much is read at once when no longer packet is expected.
const READ_CHUNK: usize = 64 * 1024;
/// A conversation that is owed a reply is given up after so many times `silence`, whatever else arrives on the line.
const ALONE: u32 = 6;

/// The conversation, shared by its tasks and its callers.
pub(super) struct Conn {
    state: Mutex<State>,
    ended: watch::Sender<bool>,
    /// Woken when the first reply becomes due.
    due: Notify,
    /// Wakes those who want to know that something arrived.
    arrivals: Notify,
    /// Wakes the writer.
    queued: Notify,
    line: Arc<Line>,
    silence: Duration,
}

struct State {
    next_id: u32,
    waiting: HashMap<u32, Waiting>,
    /// By class.
    queues: [VecDeque<Queued>; Class::COUNT],
    /// Requests that were sent and are not answered.
    due: usize,
    fault: Option<Fault>,
    /// When something last arrived, or the first reply became due; `None` while none is.
    due_since: Option<Instant>,
    ended: bool,
}

/// A caller, and what its request counts for once it is sent.
struct Waiting {
    to: oneshot::Sender<Delivery>,
    ticket: Option<Ticket>,
}

struct Queued {
    id: u32,
    frame: Frame,
    cost: Cost,
}

/// What the writer does next.
enum Next {
    Send(Frame),
    /// Nothing is asked.
    Idle,
    /// Something may not go yet, or not before then.
    Held(Option<Instant>, HeldBack),
    End,
}

impl State {
    /// Takes the first request of `class` to be sent: from now on its reply is due.
    fn send(&mut self, class: Class, ticket: Ticket, due: &Notify) -> Next {
        let Some(Queued { id, frame, .. }) = self.queues[class as usize].pop_front() else {
            return Next::Idle;
        };
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.ticket = Some(ticket);
        }
        self.due += 1;
        if self.due_since.is_none() {
            self.due_since = Some(Instant::now());
            due.notify_one();
        }
        Next::Send(frame)
    }
}

/// A conversation that ends with the last of the sessions that ask over it.
pub(super) struct Owned(pub(super) Arc<Conn>);

impl std::ops::Deref for Owned {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.0
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.end(Fault::disconnected("the session was ended"));
    }
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
            conn.forget(Class::Work, Request::Close(handle));
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
        line: Arc<Line>,
    ) -> Result<(Arc<Self>, Version), Fault>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let greeted = timeout(greeting, greet(&mut reader, &mut writer)).await;
        let version = greeted.map_err(|_| Fault::silence(greeting))??;
        let conn = Arc::new(Self {
            state: Mutex::new(State {
                next_id: 0,
                waiting: HashMap::new(),
                queues: Default::default(),
                due: 0,
                fault: None,
                due_since: None,
                ended: false,
            }),
            ended: watch::Sender::new(false),
            due: Notify::new(),
            arrivals: Notify::new(),
            queued: Notify::new(),
            line,
            silence,
        });
        tokio::spawn(conn.clone().read_until_end(reader));
        tokio::spawn(conn.clone().write_until_end(writer));
        Ok((conn, version))
    }

    /// Sends `request` and waits for its reply. It is queued at the first poll.
    pub(super) async fn call(&self, class: Class, request: Request) -> Result<Reply, Fault> {
        let (to, reply) = oneshot::channel();
        self.enqueue(class, &request, to)?;
        match reply.await {
            Ok(mut delivery) => delivery
                .reply
                .take()
                .ok_or_else(|| Fault::protocol("no reply")),
            Err(_) => Err(self.fault()),
        }
    }

    /// Sends `request` without waiting; its reply is dropped.
    pub(super) fn forget(&self, class: Class, request: Request) {
        // An ended conversation needs no tidying: the server closes its handles.
        drop(self.enqueue(class, &request, oneshot::channel().0));
    }

    fn enqueue(
        &self,
        class: Class,
        request: &Request,
        to: oneshot::Sender<Delivery>,
    ) -> Result<(), Fault> {
        let mut state = self.lock();
        if state.ended {
            drop(state);
            return Err(self.fault());
        }
        let id = state.next_id;
        state.next_id = id.wrapping_add(1);
        state.waiting.insert(id, Waiting { to, ticket: None });
        state.queues[class as usize].push_back(Queued {
            id,
            frame: request.encode(id),
            cost: Cost::of(request),
        });
        drop(state);
        self.queued.notify_one();
        Ok(())
    }

    /// Ends the conversation; only the first fault counts.
    pub(super) fn end(&self, fault: Fault) {
        let mut state = self.lock();
        state.fault.get_or_insert(fault);
        state.ended = true;
        state.due_since = None;
        state.due = 0;
        let waiting = std::mem::take(&mut state.waiting);
        let queues = std::mem::take(&mut state.queues);
        drop(state);
        drop((waiting, queues));
        self.ended.send_replace(true);
    }

    /// What it shares with the other conversations of its connection.
    pub(super) fn line(&self) -> Arc<Line> {
        Arc::clone(&self.line)
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

    async fn write_until_end<W: AsyncWrite + Unpin>(self: Arc<Self>, mut writer: W) {
        tokio::select! {
            () = self.ended() => {}
            result = self.write_frames(&mut writer) => {
                if let Err(error) = result {
                    self.end(Fault::disconnected(error));
                }
            }
        }
    }

    /// Writes what may go, and flushes when nothing may.
    async fn write_frames<W: AsyncWrite + Unpin>(&self, writer: &mut W) -> std::io::Result<()> {
        let mut out = tokio::io::BufWriter::with_capacity(READ_CHUNK, writer);
        loop {
            // Made before the look, so that nothing that happens after it is missed.
            let mut freed = std::pin::pin!(self.line.freed());
            freed.as_mut().enable();
            let (later, _held) = match self.next() {
                Next::End => return Ok(()),
                Next::Send(frame) => {
                    out.write_all(&frame.head).await?;
                    out.write_all(&frame.body).await?;
                    continue;
                }
                Next::Idle => (None, None),
                Next::Held(later, held) => (later, Some(held)),
            };
            out.flush().await?;
            let time = async {
                match later {
                    Some(later) => sleep_until(later).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.queued.notified() => {}
                () = freed => {}
                () = time => {}
            }
        }
    }

    /// The most urgent request, if it may go.
    fn next(&self) -> Next {
        let mut state = self.lock();
        if state.ended {
            return Next::End;
        }
        for class in Class::ALL {
            let State { queues, .. } = &mut *state;
            let Some(first) = queues[class as usize].front() else {
                continue;
            };
            let later = match self.line.admit(class, first.cost) {
                Admission::Go(ticket) => return state.send(class, ticket, &self.due),
                Admission::Full => None,
                Admission::Later(later) => Some(later),
            };
            return Next::Held(later, self.line.hold_back(class));
        }
        Next::Idle
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
        let mut state = self.lock();
        let waiting = state.waiting.remove(&id);
        let sent = waiting.filter(|waiting| waiting.ticket.is_some());
        let to = sent.map(|sent| sent.to);
        let to = to.ok_or_else(|| Fault::protocol("a reply to a request that was not made"))?;
        state.due = state.due.saturating_sub(1);
        drop(state);
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
        state.due_since = (state.due > 0).then(Instant::now);
        drop(state);
        self.line.heard();
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
                Some(since) => {
                    let line = self.line.last_heard().max(since);
                    let end = (line + self.silence).min(since + self.silence * ALONE);
                    if end <= Instant::now() {
                        return;
                    }
                    sleep_until(end).await;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
