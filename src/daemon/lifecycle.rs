//! From a mount request to the end of the mount.
//!
//! A home that was here before comes up from its replica at once, with or without the server. A home that
//! was never here needs the server for its first look; until that has succeeded, nothing is made here.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::answers::Answers;
use super::conflicts;
use super::link::Connector;
use super::{MountRequest, adopt, authorized, enrol, failure, fresh, network, sleep};
use crate::clock;
use crate::config::{self, Config, ConflictCopies};
use crate::control::{Code, Failure, server::Server};
use crate::engine::{Engine, EngineOptions, FetchError, Large, LinkState, Publish};
use crate::fs::{Home, HomeOptions, HostScope, Restraint, Worth};
use crate::fuse::{self, MountOptions, Mounted, Notices, Unmount};
use crate::replica::{Replica, RoomLimits};
use crate::sync::GuardLimits;

/// How long the end of the program may wait for tasks that will not end.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);

/// A mount and all that serves it.
pub(super) struct Daemon {
    pub(super) request: MountRequest,
    pub(super) engine: Engine,
    pub(super) home: Arc<Home>,
    pub(super) notices: Arc<Notices>,
    pub(super) connector: Arc<Connector>,
}

/// Serves the mount until it is unmounted.
pub(super) fn run(request: MountRequest, ready: Box<dyn FnOnce() + Send>) -> Result<(), Failure> {
    let runtime = Runtime::new().map_err(|error| {
        Failure::new(
            Code::General,
            format!("the daemon's threads cannot be started: {error}"),
        )
    })?;
    let outcome = serve(&runtime, request, ready);
    runtime.shutdown_timeout(SHUTDOWN_MAX);
    outcome
}

fn serve(
    runtime: &Runtime,
    request: MountRequest,
    ready: Box<dyn FnOnce() + Send>,
) -> Result<(), Failure> {
    let state_dir = request.state_dir.clone();
    let connector = Arc::new(Connector::new(&request.access, &state_dir));
    let known = Replica::is_known(&state_dir);
    if !known {
        fresh::check(&state_dir)?;
        let prepared = runtime.block_on(connector.prepare());
        prepared.inspect_err(|_| fresh::forget_empty(&state_dir))?;
    }
    let replica = Replica::open(&state_dir, clock::now()).map_err(failure::replica)?;
    adopt::refuse_unfinished(&replica, &request.access.target)?;
    let replica = Arc::new(replica);
    let config = &request.access.config;
    let options = EngineOptions {
        boost: config.boost.then_some(config.boost_window),
        ..engine_options(config)
    };
    let connect = Arc::clone(&connector);
    let engine = Engine::start(runtime.handle(), Arc::clone(&replica), connect, options)
        .map_err(failure::replica)?;
    let watchers = [
        runtime.spawn(network::watch(engine.clone())),
        runtime.spawn(sleep::watch(engine.clone())),
    ];
    let begun = begin(runtime, request, &replica, (&engine, &connector), known);
    let mounted = begun.is_ok();
    let outcome = begun.and_then(|serving| {
        ready();
        let ended = until_unmounted(serving.mounted, &serving.events);
        // Whoever asked to unmount is answered, and whoever mounts there next finds the socket's name free.
        serving.control.end(runtime);
        ended
    });
    watchers.iter().for_each(tokio::task::JoinHandle::abort);
    engine.stop();
    let closed = replica.close().map_err(failure::replica);
    if !known && !mounted {
        // Nothing of this home was here before, so nothing of it is to stay.
        fresh::forget_replica(&state_dir);
    }
    outcome.and(closed)
}

/// A mount that serves.
struct Serving {
    mounted: Mounted,
    events: mpsc::Receiver<Event>,
    control: ControlTask,
}

/// The task that answers at the control socket.
struct ControlTask {
    task: tokio::task::JoinHandle<()>,
    over: tokio::sync::oneshot::Sender<()>,
}

impl ControlTask {
    fn end(self, runtime: &Runtime) {
        drop(self.over);
        if runtime.block_on(self.task).is_err() {
            tracing::error!("the control socket's task panicked");
        }
    }
}

/// All that can fail before the mount serves; the mount itself comes last.
fn begin(
    runtime: &Runtime,
    request: MountRequest,
    replica: &Arc<Replica>,
    (engine, connector): (&Engine, &Arc<Connector>),
    known: bool,
) -> Result<Serving, Failure> {
    if !known {
        runtime.block_on(first_look(engine, &request))?;
    }
    let home = open_home(&request, replica, engine)?;
    let notices = Arc::new(Notices::default());
    engine.set_events(Arc::clone(&notices) as Arc<_>);
    home.set_read_only(request.read_only);
    let options = MountOptions {
        source: request.access.target.to_string(),
        allow_other: request.allow_other,
        broker: request.broker.clone(),
        by_kernel: Worth::default(),
    };
    let at = request.mountpoint.clone();
    let daemon = Daemon {
        request,
        engine: engine.clone(),
        home: Arc::clone(&home),
        notices: Arc::clone(&notices),
        connector: Arc::clone(connector),
    };
    let signals = take_signals(runtime)?;
    let (sender, events) = mpsc::channel();
    let daemon = Arc::new(daemon);
    let control = start_control(runtime, &daemon, sender.clone())?;
    let over = sender.clone();
    let over = move || drop(over.send(Event::Over));
    let mounted = match fuse::mount(home, &notices, &at, &options, over) {
        Ok(mounted) => mounted,
        Err(error) => {
            control.end(runtime);
            return Err(failure::mount(&at, error));
        }
    };
    runtime.spawn(unmount_on_signal(signals, sender));
    if daemon.request.access.config.conflict_copies == ConflictCopies::Visible {
        runtime.spawn(conflicts::show_copies(Arc::clone(&daemon)));
    }
    runtime.spawn(authorized::keep(Arc::clone(&daemon)));
    runtime.spawn(enrol::keep(daemon));
    Ok(Serving {
        mounted,
        events,
        control,
    })
}

/// What the thread that has the mount waits for.
pub(super) enum Event {
    /// It is to unmount; the answer says whether it could.
    Unmount {
        how: Unmount,
        reply: Option<mpsc::Sender<std::io::Result<()>>>,
    },
    /// The mount has ended.
    Over,
}

/// Waits for requests to unmount, and for the end of the mount by other hands.
fn until_unmounted(mounted: Mounted, events: &mpsc::Receiver<Event>) -> Result<(), Failure> {
    while let Ok(Event::Unmount { how, reply }) = events.recv() {
        let unmounted = mounted.unmount(how);
        let done = unmounted.is_ok();
        if let Some(reply) = reply {
            // Who asked may be gone.
            let _unheard = reply.send(unmounted);
        }
        if done {
            break;
        }
    }
    let ended = |error| Failure::new(Code::Mountpoint, format!("the mount ended badly: {error}"));
    mounted.wait().map_err(ended)
}

/// The signals that end the daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// Takes the signals from now on: before there is a mount that they must not leave behind.
fn take_signals(runtime: &Runtime) -> Result<Signals, Failure> {
    let _in_runtime = runtime.enter();
    let take = |kind| {
        signal(kind).map_err(|error| {
            Failure::new(Code::General, format!("signals cannot be handled: {error}"))
        })
    };
    Ok(Signals {
        terminate: take(SignalKind::terminate())?,
        interrupt: take(SignalKind::interrupt())?,
    })
}

/// SIGTERM and SIGINT end the daemon. What is unsent is durable in the replica and goes at the next mount;
/// who wants it sent first says `roamhome umount`.
async fn unmount_on_signal(mut signals: Signals, events: mpsc::Sender<Event>) {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => {}
            _ = signals.interrupt.recv() => {}
        }
        tracing::info!("told to end");
        let unmount = Event::Unmount {
            how: Unmount::Lazily,
            reply: None,
        };
        if events.send(unmount).is_err() {
            return;
        }
    }
}

/// The first look at a home: the link must come up and the root must be listed.
async fn first_look(engine: &Engine, request: &MountRequest) -> Result<(), Failure> {
    let timeout = request.access.config.fetch_timeout;
    let link = engine.settled_link(timeout).await.state;
    match link {
        LinkState::Online => {}
        LinkState::Refused { message, remedy } => {
            let message = format!("{}: {message}", request.access.target);
            return Err(Failure::new(Code::ServerPath, message).remedy(remedy));
        }
        other => {
            let message = format!(
                "{} cannot be reached: {}",
                request.access.target,
                other.detail()
            );
            return Err(Failure::new(Code::Unreachable, message)
                .remedy("check the network; the first mount of a home needs the server"));
        }
    }
    if let Some(question) = engine
        .status()
        .map_err(failure::replica)?
        .guards
        .into_iter()
        .next()
    {
        return Err(failure::guard(&question));
    }
    engine.list_root().await.map_err(|error| match error {
        FetchError::Unreachable => Failure::new(Code::Unreachable, error.to_string()),
        _ => Failure::new(
            Code::ServerPath,
            format!("the home cannot be listed: {error}"),
        ),
    })
}

fn open_home(
    request: &MountRequest,
    replica: &Arc<Replica>,
    engine: &Engine,
) -> Result<Arc<Home>, Failure> {
    let options = HomeOptions {
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        host_scoped: host_scope(&request.access.config)?,
        restraint: restraint(&request.access.config)?,
        now: Box::new(clock::now),
    };
    let home = Home::new(Arc::clone(replica), Arc::new(engine.clone()), options);
    home.map(Arc::new)
        .map_err(|error| Failure::new(Code::StateDir, error.to_string()))
}

/// What the configuration says stays on this machine.
pub(super) fn host_scope(config: &Config) -> Result<HostScope, Failure> {
    let patterns: Vec<&str> = config.host_scoped_patterns().collect();
    HostScope::new(&patterns).map_err(|error| {
        Failure::new(Code::Usage, format!("host_scoped: {error}"))
            .remedy("correct the pattern; its syntax is that of .gitignore")
    })
}

fn restraint(config: &Config) -> Result<Restraint, Failure> {
    let programs: Vec<&str> = config.restrained_entries().collect();
    Restraint::new(&programs, config.restrained_from).map_err(|error| {
        Failure::new(Code::Usage, format!("restrained_programs: {error}"))
            .remedy("name a program as the kernel does, without its directory")
    })
}

fn start_control(
    runtime: &Runtime,
    daemon: &Arc<Daemon>,
    events: mpsc::Sender<Event>,
) -> Result<ControlTask, Failure> {
    let _in_runtime = runtime.enter();
    let uid = rustix::process::getuid().as_raw();
    let mut last = None;
    for path in &daemon.request.control_sockets {
        match Server::bind(path, uid) {
            Ok(server) => {
                let answers = Arc::new(Answers::new(Arc::clone(daemon), events));
                let (over, ended) = tokio::sync::oneshot::channel::<()>();
                // It is dropped, not sent.
                let ended = async move { drop(ended.await) };
                let task = runtime.spawn(server.serve(answers, ended));
                return Ok(ControlTask { task, over });
            }
            Err(error) => last = Some(error),
        }
    }
    let why = last.map_or_else(|| "no place for it".to_owned(), |error| error.to_string());
    Err(Failure::new(
        Code::General,
        format!("the control socket cannot be made: {why}"),
    )
    .remedy("set XDG_RUNTIME_DIR to a directory of yours"))
}

pub(super) fn engine_options(config: &Config) -> EngineOptions {
    let uid = rustix::process::getuid().as_raw();
    let gid = rustix::process::getgid().as_raw();
    EngineOptions {
        host: conflicts::host(),
        fetch_timeout: config.fetch_timeout,
        quiet_period: config.quiet_period,
        max_dirty_age: config.max_dirty_age,
        reconcile_interval: config.reconcile_interval,
        retention: config.retention,
        retention_size: config.retention_size,
        kept_per_file: config.kept_per_file,
        prefer: config.prefer,
        keep_replaced: config.keep_replaced,
        publish: match config.publish {
            config::Publish::Link => Publish::Link,
            config::Publish::Aside => Publish::Aside,
        },
        server_fsync: config.server_fsync,
        large: Large {
            delta: config.delta,
            ..Large::default()
        },
        transfers_at_once: usize::from(config.uploads_in_flight),
        room: RoomLimits {
            size: config.cache_size,
            min_free: config.cache_min_free,
        },
        guard: GuardLimits {
            removed_count: config.guard_removed_count,
            removed_share: config.guard_removed_share,
            ..GuardLimits::default()
        },
        ..EngineOptions::new(Arc::new(clock::now), uid, gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_own_defaults_are_those_of_the_configuration() {
        let layers = config::Layers::defaults().unwrap();
        let given = engine_options(layers.config());
        let own = EngineOptions::new(Arc::new(clock::now), given.uid, given.gid);
        let times = |options: &EngineOptions| {
            [
                options.fetch_timeout,
                options.quiet_period,
                options.max_dirty_age,
                options.reconcile_interval,
                options.retention,
            ]
        };
        assert_eq!(times(&given), times(&own));
        assert_eq!(given.guard, own.guard);
        assert_eq!(
            (given.retention_size, given.kept_per_file),
            (own.retention_size, own.kept_per_file)
        );
        assert_eq!(
            (given.prefer, given.publish, given.transfers_at_once),
            (own.prefer, own.publish, own.transfers_at_once)
        );
        assert_eq!(
            (given.keep_replaced, given.server_fsync, given.large),
            (own.keep_replaced, own.server_fsync, own.large)
        );
    }
}
