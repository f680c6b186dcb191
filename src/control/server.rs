//! The daemon's end of the control socket.
//!
//! One task per connection, one request per connection. Only the user whom the daemon serves and root are
//! heard. While a request is worked on, the client gets a sign of life every second; when the client goes
//! away, the work is dropped, so whatever has to be finished is spawned by the [`Control`].

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::{Semaphore, mpsc},
};

use super::{
    Code, Failure, Secret,
    protocol::{
        BackupsAction, Brought, Conflicts, ConflictsAction, ContentAction, Entries, Items, Keep,
        KeysAction, Left, LetGo, Machines, Pass, Passes, Pins, PlanView, Pong, Progress,
        REQUEST_MAX_BYTES, Reply, ReplyLine, Request, RequestLine, Shown, Status, TrashAction,
        Undone, VERSION,
    },
    socket,
};

/// Between two signs of life.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// A client that has not sent its request by then is dropped.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections served at once; more wait in the socket's backlog.
const CONNECTIONS_MAX: u32 = 32;
/// So long an end waits for the answers to what was asked before.
const ANSWERS_MAX: Duration = Duration::from_secs(2);

/// What a daemon does for its clients. Each future is dropped when its client goes away.
#[async_trait]
pub trait Control: Send + Sync + 'static {
    /// Who serves what.
    fn pong(&self) -> Pong;
    /// All about the mount.
    async fn status(&self) -> Result<Status, Failure>;
    /// Sends what is dirty until nothing is, or until `timeout`; answers what is left.
    async fn flush(&self, timeout: Option<Duration>, progress: Reporter) -> Result<Left, Failure>;
    /// What a pass would do.
    async fn plan(&self) -> Result<PlanView, Failure>;
    /// Runs a pass; refused with [`Code::Guard`] if a guard objects and is not forced.
    async fn reconcile(&self, force_guard: bool, progress: Reporter) -> Result<Pass, Failure>;
    /// Leaves the server alone, or connects again; answers what it did.
    async fn set_offline(&self, offline: bool) -> Result<String, Failure>;
    /// Takes no writes for so many seconds, and leaves the server alone if told to; 0 ends both. Answers what it did.
    async fn freeze(&self, seconds: u64, hold: bool) -> Result<String, Failure>;
    /// Logs in with this password where no key does; answers what it did.
    async fn set_password(&self, password: Secret) -> Result<String, Failure>;
    /// Connects now if it may, since it may get in now; answers what it did.
    async fn try_again(&self) -> Result<String, Failure>;
    /// All backups, newest first.
    async fn backups(&self) -> Result<Items, Failure>;
    /// A backup's content.
    async fn show_backup(&self, id: String) -> Result<Shown, Failure>;
    /// Puts a backup back, to `to` or to where it was; answers what it did.
    async fn restore_backup(&self, id: String, to: Option<String>) -> Result<String, Failure>;
    /// All that was deleted and is kept, newest first.
    async fn trash(&self) -> Result<Items, Failure>;
    /// Puts something deleted back; answers what it did.
    async fn restore_trash(&self, id: String, to: Option<String>) -> Result<String, Failure>;
    /// Removes for good what was deleted longer ago than `older_than`; answers what it did.
    async fn empty_trash(&self, older_than: Option<Duration>) -> Result<String, Failure>;
    /// Conflicts that nobody has decided about, newest first.
    async fn conflicts(&self) -> Result<Conflicts, Failure>;
    /// Does what a person decided about a conflict; answers what it did.
    async fn resolve_conflict(&self, id: String, keep: Keep) -> Result<String, Failure>;
    /// Keeps content here from now on, or no longer; answers what it did.
    async fn pin(&self, nodes: Vec<u64>, pinned: bool) -> Result<String, Failure>;
    /// Brings content here.
    async fn prefetch(&self, nodes: Vec<u64>, progress: Reporter) -> Result<Brought, Failure>;
    /// Lets content go.
    async fn evict(&self, nodes: Vec<u64>) -> Result<LetGo, Failure>;
    /// What is pinned.
    async fn pins(&self) -> Result<Pins, Failure>;
    /// What is in a directory, and where it is.
    async fn entries(&self, node: u64) -> Result<Entries, Failure>;
    /// The machines that may log in by keys of their own.
    async fn machines(&self) -> Result<Machines, Failure>;
    /// Gives this machine a key of its own; answers what it did.
    async fn enrol(&self, anew: bool) -> Result<String, Failure>;
    /// What the server has to know of this machine's key, which is made if there is none.
    async fn key_line(&self) -> Result<String, Failure>;
    /// Lets a machine in no more; answers what it did.
    async fn revoke(&self, machine: String) -> Result<String, Failure>;
    /// The passes that did something, the latest first.
    async fn passes(&self) -> Result<Passes, Failure>;
    /// Takes back what a pass did, as far as nothing changed since.
    async fn undo(&self, pass: u64, dry_run: bool) -> Result<Undone, Failure>;
    /// Flushes if told to, unmounts, and answers what is left; the process ends soon after.
    async fn unmount(
        &self,
        flush: bool,
        timeout: Option<Duration>,
        progress: Reporter,
    ) -> Result<Left, Failure>;
}

/// Tells the client how far it is. Never blocks; what the client is too slow for is left out.
#[derive(Debug, Clone)]
pub struct Reporter(mpsc::Sender<Progress>);

impl Reporter {
    /// Tells it.
    pub fn report(&self, progress: Progress) {
        // Full or closed: the next one will do, or nobody listens.
        drop(self.0.try_send(progress));
    }
}

/// A bound control socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    uid: u32,
}

impl Server {
    /// Binds `path` for the user `uid`, see [`socket::bind`]. Has to be called within a Tokio runtime.
    pub fn bind(path: &Path, uid: u32) -> io::Result<Self> {
        let listener = socket::bind(path, uid)?.ok_or_else(|| {
            let message = format!("{}: another daemon listens there", path.display());
            io::Error::new(io::ErrorKind::AddrInUse, message)
        })?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener: UnixListener::from_std(listener)?,
            path: path.to_owned(),
            uid,
        })
    }

    /// Serves `control` until `over`; then frees the socket's name, and lets those who were heard have their
    /// answers, for a moment.
    pub async fn serve(self, control: Arc<dyn Control>, over: impl Future<Output = ()>) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
        let mut over = std::pin::pin!(over);
        loop {
            let next = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (self.listener.accept().await, slot)
            };
            let (accepted, slot) = tokio::select! {
                () = &mut over => break,
                next = next => next,
            };
            match accepted {
                Ok((stream, _)) => {
                    let control = Arc::clone(&control);
                    let uid = self.uid;
                    tokio::spawn(async move {
                        if let Err(error) = converse(stream, uid, control).await {
                            tracing::debug!(%error, "a control client went away");
                        }
                        drop(slot);
                    });
                }
                Err(error) => {
                    // Out of descriptors, usually: wait for others to close theirs.
                    tracing::warn!(%error, "the control socket does not accept");
                    tokio::time::sleep(ALIVE_INTERVAL).await;
                }
            }
        }
        drop(self);
        let answered = slots.acquire_many(CONNECTIONS_MAX);
        if tokio::time::timeout(ANSWERS_MAX, answered).await.is_err() {
            tracing::warn!("somebody is left without an answer");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
    }
}

async fn converse(stream: UnixStream, uid: u32, control: Arc<dyn Control>) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let (read, mut write) = stream.into_split();
    if peer != uid && peer != 0 {
        let refusal = Failure::new(Code::General, "this mount belongs to another user");
        return send(&mut write, Reply::Error(refusal)).await;
    }
    let mut line = Vec::new();
    let limit = REQUEST_MAX_BYTES as u64 + 1;
    let mut reader = BufReader::new(read.take(limit));
    tokio::time::timeout(REQUEST_TIMEOUT, reader.read_until(b'\n', &mut line)).await??;
    let request = match parse_request(&line) {
        Ok(request) => request,
        Err(failure) => return send(&mut write, Reply::Error(failure)).await,
    };

    let (sender, mut progress) = mpsc::channel(8);
    let mut work = std::pin::pin!(answer(request, control.as_ref(), Reporter(sender)));
    let mut alive = tokio::time::interval(ALIVE_INTERVAL);
    let reply = loop {
        tokio::select! {
            reply = &mut work => break reply,
            Some(progress) = progress.recv() => send(&mut write, Reply::Progress(progress)).await?,
            _ = alive.tick() => send(&mut write, Reply::Alive).await?,
        }
    };
    send(&mut write, reply.unwrap_or_else(Reply::Error)).await
}

fn parse_request(line: &[u8]) -> Result<Request, Failure> {
    let invalid =
        |why: String| Failure::new(Code::Usage, format!("invalid control request: {why}"));
    if line.len() > REQUEST_MAX_BYTES {
        return Err(invalid(format!("longer than {REQUEST_MAX_BYTES} bytes")));
    }
    // The version first: a request of another version may have any form.
    let line: serde_json::Value =
        serde_json::from_slice(line).map_err(|error| invalid(error.to_string()))?;
    if line["version"] != VERSION {
        return Err(Failure::new(
            Code::General,
            format!(
                "the daemon speaks version {VERSION} of the control protocol, not {}",
                line["version"]
            ),
        )
        .remedy("unmount with the roamhome that mounted it, then mount again"));
    }
    serde_json::from_value::<RequestLine>(line)
        .map(|line| line.request)
        .map_err(|error| invalid(error.to_string()))
}

async fn answer(
    request: Request,
    control: &dyn Control,
    progress: Reporter,
) -> Result<Reply, Failure> {
    let millis = |ms: Option<u64>| ms.map(Duration::from_millis);
    let done = |message| Reply::Done { message };
    Ok(match request {
        Request::Ping => Reply::Pong(control.pong()),
        Request::Status => Reply::Status(Box::new(control.status().await?)),
        Request::Flush { timeout_ms } => {
            Reply::Flushed(control.flush(millis(timeout_ms), progress).await?)
        }
        Request::Reconcile { dry_run: true, .. } => Reply::Plan(control.plan().await?),
        Request::Reconcile { force_guard, .. } => {
            Reply::Pass(control.reconcile(force_guard, progress).await?)
        }
        Request::Offline => done(control.set_offline(true).await?),
        Request::Online => done(control.set_offline(false).await?),
        Request::Freeze { seconds, hold } => done(control.freeze(seconds, hold).await?),
        Request::Password { password } => done(control.set_password(password).await?),
        Request::TryAgain => done(control.try_again().await?),
        Request::Backups { action } => match action {
            BackupsAction::List => Reply::Items(control.backups().await?),
            BackupsAction::Show { id } => Reply::Shown(control.show_backup(id).await?),
            BackupsAction::Restore { id, to } => done(control.restore_backup(id, to).await?),
        },
        Request::Trash { action } => match action {
            TrashAction::List => Reply::Items(control.trash().await?),
            TrashAction::Restore { id, to } => done(control.restore_trash(id, to).await?),
            TrashAction::Empty { older_than_ms } => {
                done(control.empty_trash(millis(older_than_ms)).await?)
            }
        },
        Request::Conflicts { action } => match action {
            ConflictsAction::List => Reply::Conflicts(control.conflicts().await?),
            ConflictsAction::Resolve { id, keep } => {
                done(control.resolve_conflict(id, keep).await?)
            }
        },
        Request::Content { action } => match action {
            ContentAction::Pin { nodes, pinned } => done(control.pin(nodes, pinned).await?),
            ContentAction::Prefetch { nodes } => {
                Reply::Brought(control.prefetch(nodes, progress).await?)
            }
            ContentAction::Evict { nodes } => Reply::LetGo(control.evict(nodes).await?),
            ContentAction::Pins => Reply::Pins(control.pins().await?),
            ContentAction::List { node } => Reply::Entries(control.entries(node).await?),
        },
        Request::Keys { action } => match action {
            KeysAction::List => Reply::Machines(control.machines().await?),
            KeysAction::Enrol { anew } => done(control.enrol(anew).await?),
            KeysAction::Line => done(control.key_line().await?),
            KeysAction::Revoke { machine } => done(control.revoke(machine).await?),
        },
        Request::Passes => Reply::Passes(control.passes().await?),
        Request::Undo { pass, dry_run } => Reply::Undone(control.undo(pass, dry_run).await?),
        Request::Unmount { flush, timeout_ms } => {
            Reply::Flushed(control.unmount(flush, millis(timeout_ms), progress).await?)
        }
    })
}

async fn send(write: &mut OwnedWriteHalf, reply: Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(&ReplyLine {
        version: VERSION,
        reply,
    })?;
    line.push(b'\n');
    write.write_all(&line).await
}

#[cfg(test)]
mod tests;
