//! The keeper: one thread that hears what happened, asks `session` what follows, and has it done by others, so that it
//! never waits for a server, a daemon or a disk.

use std::io;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::desk::{Caller, Desk};
use super::protocol::{Answer, Ask};
use super::session::{Holder, Home, Kind, Leases, Next, Sending, Situation, next};
use crate::control::protocol::{Left, Progress, Reply, Request};
use crate::control::{Code, Failure, Secret, client};

mod hear;
mod records;
mod work;

/// A password that no session followed is forgotten, and a keeper without one ends.
const PASSWORD_MAX: Duration = Duration::from_secs(120);
/// Between two attempts to unmount what somebody uses.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// Between two attempts to send what is left, or to start a daemon for it. The daemon itself goes on meanwhile.
const LEFT_WAIT: Duration = Duration::from_secs(30);
/// A daemon that ended is started again, so often within [`RESTARTS_WITHIN`].
const RESTARTS_MAX: usize = 5;
const RESTARTS_WITHIN: Duration = Duration::from_secs(60);
/// A keeper that starts hears first who has it started: they may have a password.
const HEARING: Duration = Duration::from_secs(1);
/// How long a daemon may take to end when the machine shuts down.
const END_MAX: Duration = Duration::from_secs(5);

/// Whose home is kept, and how.
pub struct Job {
    /// The account's number.
    pub uid: u32,
    /// How long a session waits for a home that was here before.
    pub login_timeout: Duration,
    /// How long one waits for a home that was never here.
    pub first_timeout: Duration,
    /// How long the last logout waits for what is left to be sent.
    pub logout_timeout: Duration,
    /// Whether content goes from this machine when all is sent and nobody is logged in.
    pub purge: bool,
    /// Whether people work without their home while it was never here and cannot be had.
    pub local_without_home: bool,
    /// Called now and then: the keeper is not stuck.
    pub alive: Box<dyn Fn() + Send + Sync>,
    /// The user's daemon.
    pub daemon: Box<dyn Daemon>,
}

/// What it takes to have a home mounted.
pub trait Daemon: Send + Sync {
    /// Whether the home was here before, so that no server is needed.
    fn is_known(&self) -> bool;
    /// Where the daemon can be asked.
    fn control_socket(&self) -> PathBuf;
    /// Starts the daemon, and returns when the home is mounted.
    fn start(&self, password: Option<Secret>) -> Result<Started, Failure>;
    /// Unmounts: with `lazily` even if somebody uses it.
    fn unmount(&self, lazily: bool) -> io::Result<()>;
    /// The mount point is the account's for this session, since there is no home to mount.
    fn hand_over(&self) -> io::Result<()>;
}

/// A daemon that serves.
#[derive(Debug)]
pub enum Started {
    /// It was started now.
    Child(Child),
    /// It served already, as this process.
    Other(u32),
}

/// What the keeper's thread hears.
enum Event {
    /// A step asks.
    Asked(Ask, Caller),
    /// A process with leases ended.
    Ended(Holder),
    /// The daemon serves, and so many changes from before are not on the server; or it could not be started.
    Started(Result<u64, Failure>),
    /// The daemon that was started as this one ended.
    DaemonEnded(u64),
    /// The daemon has the password, or knows of the ticket.
    Handed,
    /// How far the sending is.
    Progress(Progress),
    /// The sending is over; what is left.
    Flushed(Result<Left, Failure>),
    /// The mount is gone, and what was left; or it is in use.
    Unmounted(Result<Unmounted, Failure>),
    /// The service is stopped.
    Stop,
}

/// What is known of a home that was unmounted.
enum Unmounted {
    /// All of it is on the server.
    Clean,
    /// Something may not be.
    Unknown,
}

/// A step that waits.
struct Waiting {
    caller: Caller,
    until: Instant,
}

/// A password on its way to the daemon.
struct Typed {
    password: Secret,
    /// When it is forgotten.
    until: Instant,
    /// Whether the daemon that serves or starts has it.
    handed: bool,
}

struct Keeper {
    job: Arc<Job>,
    events: mpsc::Sender<Event>,
    leases: Leases,
    home: Home,
    sending: Sending,
    /// How often a daemon was started.
    starts: u64,
    /// The home may be gone in a moment.
    unmounting: bool,
    /// Changes from before that are not on the server, for who logs in next.
    overdue: u64,
    /// Content was let go since somebody had a session.
    purged: bool,
    /// A Kerberos ticket came that the daemon was not told of.
    ticket: bool,
    /// The daemon is being told a password or a ticket, by which it may get in.
    handing: bool,
    /// Not before this time is the next thing done.
    not_before: Option<Instant>,
    /// A session waits no more for a home that could not be mounted; the next one tries again.
    given_up: bool,
    stopping: bool,
    password: Option<Typed>,
    opening: Vec<Waiting>,
    closing: Vec<Waiting>,
    restarts: Vec<Instant>,
    /// When to end if nobody comes.
    idle_until: Instant,
}

/// Keeps the home of an account until nobody needs it and nothing is left to do. `ready` is called when it can be
/// asked. Returns at once if another keeper does so already.
pub fn keep(job: Job, ready: impl FnOnce()) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        Failure::new(Code::General, format!("the keeper cannot listen: {error}"))
    };
    let (events, inbox) = mpsc::channel();
    work::on_stop(events.clone()).map_err(failed)?;
    let asked = events.clone();
    let heard = move |ask, caller| drop(asked.send(Event::Asked(ask, caller)));
    let Some(_desk) = Desk::open(job.uid, heard).map_err(failed)? else {
        ready();
        return Ok(());
    };
    let mut keeper = Keeper::new(Arc::new(job), events);
    keeper.recall();
    ready();
    keeper.run(&inbox);
    Ok(())
}

impl Keeper {
    fn new(job: Arc<Job>, events: mpsc::Sender<Event>) -> Self {
        // It is sent although nobody logs in.
        let sending = match records::may_be_unsent(job.uid) {
            true => Sending::Left,
            false => Sending::Due,
        };
        Self {
            job,
            events,
            leases: Leases::default(),
            home: Home::Absent,
            sending,
            starts: 0,
            unmounting: false,
            overdue: 0,
            purged: false,
            ticket: false,
            handing: false,
            not_before: Some(Instant::now() + HEARING),
            given_up: false,
            stopping: false,
            password: None,
            opening: Vec::new(),
            closing: Vec::new(),
            restarts: Vec::new(),
            idle_until: Instant::now() + PASSWORD_MAX,
        }
    }

    /// Takes over from a keeper that was killed: its leases, and a home that is mounted.
    fn recall(&mut self) {
        for (holder, kind) in records::leases(self.job.uid) {
            self.leases.open(holder, kind);
            self.watch(holder);
        }
        if client::is_served(&self.job.daemon.control_socket()) {
            self.start();
        }
    }

    fn run(&mut self, inbox: &mpsc::Receiver<Event>) {
        while !self.acted_last() {
            (self.job.alive)();
            match inbox.recv_timeout(self.wait_at_most()) {
                Ok(event) => self.hear(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.pass_time();
            self.tell_of_home();
        }
        records::set_leases(self.job.uid, &self.leases);
    }

    /// Does what follows from what is known; whether that was the last thing.
    fn acted_last(&mut self) -> bool {
        let busy = self.unmounting || self.handing;
        if busy || self.not_before.is_some_and(|at| at > Instant::now()) {
            return false;
        }
        let situation = Situation {
            sessions: self.leases.sessions(),
            leased: !self.leases.is_empty(),
            given_up: self.given_up,
            home: self.home,
            sending: self.sending,
            stopping: self.stopping,
        };
        match next(&situation) {
            Next::Wait => {}
            Next::Mount => self.start(),
            Next::Flush => {
                self.sending = Sending::Running;
                self.work(work::flush);
            }
            Next::Unmount => {
                self.unmounting = true;
                // Once: whoever still uses the home has it fetched again.
                let purge = self.job.purge && !std::mem::replace(&mut self.purged, true);
                self.work(move |job, events| work::unmount(job, purge, events));
            }
            Next::UnmountLazily => {
                work::end_lazily(&self.job, END_MAX);
                return true;
            }
            Next::End => {
                return self.stopping
                    || self.leases.is_empty() && self.idle_until <= Instant::now();
            }
        }
        false
    }

    /// Has something done by another thread, which tells how it went.
    fn work(&self, what: impl FnOnce(&Job, &mpsc::Sender<Event>) + Send + 'static) {
        let (job, events) = (Arc::clone(&self.job), self.events.clone());
        thread::spawn(move || what(&job, &events));
    }

    fn start(&mut self) {
        self.home = Home::Starting;
        // It finds one that is there.
        self.ticket = false;
        records::set_unsent(self.job.uid, true);
        let password = self.password.as_mut().map(|typed| {
            typed.handed = true;
            typed.password.clone()
        });
        self.starts += 1;
        let number = self.starts;
        self.work(move |job, events| work::start(job, number, password, events));
    }

    fn watch(&self, holder: Holder) {
        let events = self.events.clone();
        thread::spawn(move || {
            holder.wait();
            drop(events.send(Event::Ended(holder)));
        });
    }

    /// How long nothing has to be done by itself.
    fn wait_at_most(&self) -> Duration {
        let waiting = self.opening.iter().chain(&self.closing);
        let password = self.password.as_ref().map(|typed| typed.until);
        let times = waiting
            .map(|waiting| waiting.until)
            .chain(self.not_before)
            .chain(password)
            .chain((self.idle_until > Instant::now()).then_some(self.idle_until));
        let first = times.min();
        first.map_or(LEFT_WAIT, |at| at.saturating_duration_since(Instant::now()))
    }

    fn pass_time(&mut self) {
        let now = Instant::now();
        let over = self.not_before.take_if(|at| *at <= now).is_some();
        if over && self.home == Home::Mounted && self.sending == Sending::Left {
            self.sending = Sending::Due;
        }
        self.password.take_if(|typed| typed.until <= now);
        for late in self.opening.extract_if(.., |waiting| waiting.until <= now) {
            let failure = Failure::new(Code::General, "the home is not there yet")
                .remedy("it may still come up: log out and in again if it does not");
            late.caller.answer(Answer::Failed { failure });
        }
        if self.closing.iter().any(|waiting| waiting.until <= now) {
            self.tell_closing(&Answer::Left { files: 0, bytes: 0 });
        }
    }
}
