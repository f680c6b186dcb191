//! What the daemon answers to the commands.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use async_trait::async_trait;

use super::conflicts;
use super::content;
use super::enrol;
use super::failure;
use super::freeze::Freezing;
use super::lifecycle::{Daemon, Event};
use super::{restore, undo};
use crate::control::protocol::{
    self, Items, Left, Link, Machines, Pass, PlanView, Pong, Progress, ReplicaView, STATUS_VERSION,
    Shown, Status, StatusProblem, Unsent,
};
use crate::control::server::{Control, Reporter};
use crate::control::{Code, Failure, Secret};
use crate::engine::{self, KeptWhere, Scope};
use crate::fuse::Unmount;

mod view;

use super::link::describe;
pub(super) use view::THE_SERVER;
use view::{items_of, left_of, link_state, pass_of, question_of, room_of, ticket_until, transfers};

/// How long an unmount sends at most, unless it is told otherwise.
const UNMOUNT_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest wait for a connection to be closed.
const HOLD_MAX: Duration = Duration::from_secs(2);

/// How long a pass's answer waits for the kernel to know what changed.
const KERNEL_PATIENCE: Duration = Duration::from_secs(1);

/// How often a flush tells how far it is.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

pub(super) struct Answers {
    daemon: Arc<Daemon>,
    events: mpsc::Sender<Event>,
    freezing: Arc<Freezing>,
}

impl Answers {
    pub(super) fn new(daemon: Arc<Daemon>, events: mpsc::Sender<Event>) -> Self {
        Self {
            daemon,
            events,
            freezing: Arc::default(),
        }
    }

    async fn flush_reporting(
        &self,
        limit: Option<Duration>,
        progress: &Reporter,
    ) -> Result<engine::Left, Failure> {
        let flush = self.daemon.engine.flush(limit);
        tokio::pin!(flush);
        let mut ticks = tokio::time::interval(REPORT_INTERVAL);
        loop {
            tokio::select! {
                left = &mut flush => return left.map_err(failure::replica),
                _ = ticks.tick() => {
                    let status = self.daemon.engine.status().map_err(failure::replica)?;
                    progress.report(Progress {
                        message: "sending".into(),
                        left_files: status.counts.unsent_files,
                        left_bytes: status.counts.unsent_bytes,
                    });
                }
            }
        }
    }

    async fn flush_and_unmount(
        &self,
        flush: bool,
        timeout: Option<Duration>,
        progress: &Reporter,
    ) -> Result<Left, Failure> {
        let why = match flush {
            true => {
                let limit = Some(timeout.unwrap_or(UNMOUNT_TIMEOUT));
                self.flush_reporting(limit, progress).await?.why
            }
            false => Some("not sent, as told".into()),
        };
        // Nothing can be written any more, so all that is unsent counts.
        let unsent = self.daemon.engine.unsent().map_err(failure::replica)?;
        self.unmount_now().await?;
        Ok(left_of(&engine::Left { why, ..unsent }))
    }

    async fn unmount_now(&self) -> Result<(), Failure> {
        let (reply, unmounted) = mpsc::channel();
        let request = Event::Unmount {
            how: Unmount::IfUnused,
            reply: Some(reply),
        };
        let ending = || Failure::new(Code::General, "the daemon is ending already");
        self.events.send(request).map_err(|_gone| ending())?;
        let at = self.daemon.request.mountpoint.display().to_string();
        let answer = tokio::task::spawn_blocking(move || unmounted.recv()).await;
        match answer {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(Failure::new(
                Code::Mountpoint,
                format!("{at} cannot be unmounted: {error}"),
            )
            .remedy(format!("programs use it: `fuser -vm {at}` shows which"))),
            _ => Err(ending()),
        }
    }
}

/// Does it to the end, even if who asked goes away.
async fn finish(
    work: impl Future<Output = Result<String, Failure>> + Send + 'static,
) -> Result<String, Failure> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|error| Err(Failure::new(Code::General, error.to_string())))
}

#[async_trait]
impl Control for Answers {
    fn pong(&self) -> Pong {
        Pong {
            pid: std::process::id(),
            mountpoint: self.daemon.request.mountpoint.display().to_string(),
            server: self.daemon.request.access.target.to_string(),
        }
    }

    async fn status(&self) -> Result<Status, Failure> {
        let status = self.daemon.engine.status().map_err(failure::replica)?;
        let request = &self.daemon.request;
        Ok(Status {
            version: STATUS_VERSION,
            mountpoint: request.mountpoint.display().to_string(),
            server: request.access.target.to_string(),
            state_dir: request.state_dir.display().to_string(),
            link: Link {
                state: link_state(&status.link.state),
                since: status.link.since.secs(),
                detail: match &status.line {
                    Some(line) => describe(line),
                    None => status.link.state.detail(),
                },
            },
            unsent: Unsent {
                files: status.counts.dirty_places,
                bytes: status.counts.unsent_bytes,
                oldest: status.oldest_unsent.map(|time| time.secs()),
            },
            transfers: transfers(&status),
            last_pass: status.last_pass.as_ref().map(pass_of),
            problems: status
                .problems
                .iter()
                .map(|problem| StatusProblem {
                    path: problem.path.to_string(),
                    message: problem.message.clone(),
                    since: problem.since.secs(),
                })
                .collect(),
            replica: ReplicaView {
                nodes: status.counts.nodes,
                files: status.counts.files,
                content_bytes: status.counts.content_bytes,
                backups: status.backups,
                room: status.room.as_ref().map(room_of),
            },
            conflicts: status.conflicts,
            lacks: status.lacks,
            key_since: enrol::since(&request.state_dir),
            ticket_until: ticket_until(request),
            guard: status.guards.first().map(question_of),
        })
    }

    async fn flush(&self, timeout: Option<Duration>, progress: Reporter) -> Result<Left, Failure> {
        let left = self.flush_reporting(timeout, &progress).await?;
        Ok(left_of(&left))
    }

    async fn plan(&self) -> Result<PlanView, Failure> {
        let plan = self
            .daemon
            .engine
            .dry_run()
            .await
            .map_err(|error| failure::pass(&error))?;
        let summary = match plan.lines.len() {
            0 => "nothing to do".to_owned(),
            1 => "1 step".to_owned(),
            n => format!("{n} steps"),
        };
        let guards = plan.guards.iter().map(question_of).collect();
        Ok(PlanView {
            lines: plan.lines,
            guards,
            summary,
        })
    }

    async fn reconcile(&self, force_guard: bool, _progress: Reporter) -> Result<Pass, Failure> {
        let pass = self
            .daemon
            .engine
            .pass(Scope::Full {
                now: true,
                force_guard,
            })
            .await;
        let report = pass.map_err(|error| failure::pass(&error))?;
        // Who reads next sees what the pass brought.
        let notices = Arc::clone(&self.daemon.notices);
        let told = tokio::task::spawn_blocking(move || notices.wait_until_told(KERNEL_PATIENCE));
        told.await
            .map_err(|error| Failure::new(Code::General, error.to_string()))?;
        match report.guards.first() {
            None => Ok(pass_of(&report)),
            Some(guard) => {
                // What it says is for people; without it the question is the same.
                let plan = self.daemon.engine.dry_run().await.unwrap_or_default();
                Err(failure::guard_with(guard, &plan.lines))
            }
        }
    }

    async fn set_password(&self, password: Secret) -> Result<String, Failure> {
        self.daemon.connector.set_password(password);
        self.daemon.engine.try_again();
        Ok("the next connection may use it".into())
    }

    async fn try_again(&self) -> Result<String, Failure> {
        self.daemon.engine.try_again();
        Ok("a link that is down is tried now".into())
    }

    async fn machines(&self) -> Result<Machines, Failure> {
        enrol::list(&self.daemon).await
    }

    async fn enrol(&self, anew: bool) -> Result<String, Failure> {
        let daemon = Arc::clone(&self.daemon);
        finish(async move { enrol::enrol(&daemon, anew).await }).await
    }

    async fn key_line(&self) -> Result<String, Failure> {
        enrol::line(&self.daemon)
    }

    async fn revoke(&self, machine: String) -> Result<String, Failure> {
        let daemon = Arc::clone(&self.daemon);
        finish(async move { enrol::revoke(&daemon, &machine).await }).await
    }

    async fn set_offline(&self, offline: bool) -> Result<String, Failure> {
        self.daemon.engine.hold(offline);
        if offline {
            // It is held from now on, even if what is under way takes longer to end.
            self.daemon.engine.settled_link(HOLD_MAX).await;
            return Ok("offline until `roamhome online`".into());
        }
        let link = self
            .daemon
            .engine
            .settled_link(self.daemon.request.access.config.fetch_timeout)
            .await;
        match link.state {
            engine::LinkState::Online => Ok("online".into()),
            state => Ok(format!("{}: {}", state.word(), state.detail())),
        }
    }

    async fn freeze(&self, seconds: u64, hold: bool) -> Result<String, Failure> {
        Ok(self.freezing.freeze(&self.daemon, seconds, hold).await)
    }

    async fn backups(&self) -> Result<Items, Failure> {
        self.kept(KeptWhere::Backups).await
    }

    async fn show_backup(&self, id: String) -> Result<Shown, Failure> {
        let Items { items, .. } = self.kept(KeptWhere::Backups).await?;
        let item = items
            .into_iter()
            .find(|item| item.id == id)
            .ok_or_else(|| restore::unknown(&id))?;
        let (file, _) = restore::to_scratch(&self.daemon, &id).await?;
        Ok(Shown {
            item,
            file: file.display().to_string(),
        })
    }

    async fn restore_backup(&self, id: String, to: Option<String>) -> Result<String, Failure> {
        let Items { items, .. } = self.kept(KeptWhere::Backups).await?;
        restore::restore(&self.daemon, &items, &id, to).await
    }

    async fn trash(&self) -> Result<Items, Failure> {
        self.kept(KeptWhere::Trash).await
    }

    async fn restore_trash(&self, id: String, to: Option<String>) -> Result<String, Failure> {
        let Items { items, .. } = self.kept(KeptWhere::Trash).await?;
        restore::restore(&self.daemon, &items, &id, to).await
    }

    async fn empty_trash(&self, older_than: Option<Duration>) -> Result<String, Failure> {
        let emptied = self.daemon.engine.empty_trash(older_than).await;
        let removed = emptied.map_err(|error| failure::pass(&error))?;
        Ok(format!("{removed} removed for good"))
    }

    async fn conflicts(&self) -> Result<protocol::Conflicts, Failure> {
        let found = self.daemon.engine.conflicts().await;
        let found = found.map_err(|error| failure::pass(&error))?;
        Ok(view::conflicts_of(found, &conflicts::host()))
    }

    async fn resolve_conflict(&self, id: String, keep: protocol::Keep) -> Result<String, Failure> {
        conflicts::resolve(&self.daemon, &id, keep).await
    }

    async fn pin(&self, nodes: Vec<u64>, pinned: bool) -> Result<String, Failure> {
        content::pin(&self.daemon, &nodes, pinned)
    }

    async fn prefetch(
        &self,
        nodes: Vec<u64>,
        progress: Reporter,
    ) -> Result<protocol::Brought, Failure> {
        content::prefetch(&self.daemon, &nodes, &progress).await
    }

    async fn evict(&self, nodes: Vec<u64>) -> Result<protocol::LetGo, Failure> {
        content::evict(&self.daemon, &nodes).await
    }

    async fn pins(&self) -> Result<protocol::Pins, Failure> {
        content::pins(&self.daemon)
    }

    async fn entries(&self, node: u64) -> Result<protocol::Entries, Failure> {
        content::entries(&self.daemon, node).await
    }

    async fn passes(&self) -> Result<protocol::Passes, Failure> {
        let passes = self.daemon.engine.passes().map_err(failure::replica)?;
        Ok(view::passes_of(passes))
    }

    async fn undo(&self, pass: u64, dry_run: bool) -> Result<protocol::Undone, Failure> {
        undo::undo(&self.daemon, pass, dry_run).await
    }

    async fn unmount(
        &self,
        flush: bool,
        timeout: Option<Duration>,
        progress: Reporter,
    ) -> Result<Left, Failure> {
        self.daemon.home.set_read_only(true);
        let unmounted = self.flush_and_unmount(flush, timeout, &progress).await;
        if unmounted.is_err() {
            self.daemon
                .home
                .set_read_only(self.daemon.request.read_only);
        }
        unmounted
    }
}

impl Answers {
    async fn kept(&self, which: KeptWhere) -> Result<Items, Failure> {
        let shelf = self.daemon.engine.kept(which).await;
        Ok(items_of(shelf.map_err(|error| failure::pass(&error))?))
    }
}
