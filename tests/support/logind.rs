//! A system bus, and a logind on it that says what a test wants: the real dbus-daemon, and D-Bus as the real logind
//! speaks it.

use std::fs;
use std::io::pipe;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::runtime::Runtime;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, connection, fdo, zvariant};

use super::machine::eventually;

/// Where the manager is.
const PATH: &str = "/org/freedesktop/login1";

/// Lets everybody do everything.
const POLICY: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=SOCKET</listen><policy context="default">
<allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_destination="*"/>
<allow receive_sender="*"/></policy></busconfig>
"#;

/// The configuration of a bus that listens at `socket`.
pub(crate) fn bus_config(socket: &Path) -> String {
    POLICY.replace("SOCKET", socket.to_str().unwrap())
}

/// A bus; killed when dropped.
pub(crate) struct Bus {
    /// Where it listens.
    pub(crate) socket: PathBuf,
    daemon: Child,
}

impl Bus {
    /// Starts one that listens in `dir`, where none does.
    pub(crate) fn start(dir: &Path) -> Self {
        let socket = dir.join("bus");
        let config = dir.join("bus.conf");
        fs::write(&config, bus_config(&socket)).unwrap();
        drop(fs::remove_file(&socket));
        let mut argument = std::ffi::OsString::from("--config-file=");
        argument.push(config);
        let daemon = Command::new("dbus-daemon")
            .arg(argument)
            .args(["--nofork", "--nopidfile"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the bus listens", || socket.exists());
        Self { socket, daemon }
    }

    /// What leads a program to it.
    pub(crate) fn variable(&self) -> String {
        let socket = self.socket.display();
        format!("DBUS_SYSTEM_BUS_ADDRESS=unix:path={socket}")
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
    }
}

/// The part of logind that is about sleep; off the bus when dropped.
pub(crate) struct Logind {
    runtime: Runtime,
    bus: Connection,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// What was asked for, and our ends of what was given out.
    given: Mutex<Vec<(String, OwnedFd)>>,
    preparing: AtomicBool,
    /// It answers nobody.
    mute: AtomicBool,
}

struct Manager(Arc<State>);

#[zbus::interface(name = "org.freedesktop.login1.Manager")]
impl Manager {
    async fn inhibit(
        &self,
        what: String,
        who: String,
        _why: String,
        mode: String,
    ) -> fdo::Result<zvariant::OwnedFd> {
        self.unless_mute().await;
        if self.0.preparing.load(Ordering::SeqCst) {
            return Err(fdo::Error::Failed("it is running already".into()));
        }
        let (ours, theirs) = pipe().unwrap();
        let asked = format!("{what} {who} {mode}");
        self.0.given.lock().unwrap().push((asked, ours.into()));
        Ok(OwnedFd::from(theirs).into())
    }

    #[zbus(property)]
    async fn preparing_for_sleep(&self) -> bool {
        self.unless_mute().await;
        self.0.preparing.load(Ordering::SeqCst)
    }

    #[zbus(signal)]
    async fn prepare_for_sleep(emitter: &SignalEmitter<'_>, start: bool) -> zbus::Result<()>;
}

impl Manager {
    async fn unless_mute(&self) {
        if self.0.mute.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

impl Logind {
    /// Starts on the bus that listens at `socket`.
    pub(crate) fn start(socket: &Path) -> Self {
        Self::start_as(socket, State::default())
    }

    /// The same; nobody ever gets an answer.
    pub(crate) fn start_mute(socket: &Path) -> Self {
        let state = State::default();
        state.mute.store(true, Ordering::SeqCst);
        Self::start_as(socket, state)
    }

    fn start_as(socket: &Path, state: State) -> Self {
        let runtime = Runtime::new().unwrap();
        let state = Arc::new(state);
        let manager = Manager(Arc::clone(&state));
        let address = format!("unix:path={}", socket.display());
        let bus = runtime.block_on(async {
            let builder = connection::Builder::address(address.as_str()).unwrap();
            let builder = builder.name("org.freedesktop.login1").unwrap();
            builder.serve_at(PATH, manager).unwrap().build().await
        });
        Self {
            runtime,
            bus: bus.unwrap(),
            state,
        }
    }

    /// Tells everybody that the machine is about to sleep, or that it is awake.
    pub(crate) fn say(&self, sleep: bool) {
        self.turn(sleep);
        let emitter = SignalEmitter::new(&self.bus, PATH).unwrap();
        let said = Manager::prepare_for_sleep(&emitter, sleep);
        self.runtime.block_on(said).unwrap();
    }

    /// The same, and nobody hears it.
    pub(crate) fn turn(&self, sleep: bool) {
        self.state.preparing.store(sleep, Ordering::SeqCst);
    }

    /// What keeps the machine from sleeping.
    pub(crate) fn inhibitors(&self) -> Vec<String> {
        let given = self.state.given.lock().unwrap();
        let held = given.iter().filter(|(_, ours)| is_held(ours));
        held.map(|(asked, _)| asked.clone()).collect()
    }

    /// Waits until the home keeps the machine from sleeping.
    pub(crate) fn wait_until_inhibited(&self) {
        eventually("the home keeps the machine from sleeping", || {
            self.inhibitors() == ["sleep roamhome delay"]
        });
    }

    /// Waits until nothing keeps the machine from sleeping.
    pub(crate) fn wait_until_free(&self) {
        eventually("the machine may sleep", || self.inhibitors().is_empty());
    }
}

/// Whether somebody has the other end.
fn is_held(ours: &impl AsFd) -> bool {
    let mut end = [PollFd::new(ours, PollFlags::IN)];
    poll(&mut end, Some(&Timespec::default())).unwrap();
    !end[0].revents().contains(PollFlags::HUP)
}

/// Says on the bus at `socket` that the machine is about to sleep, without being logind.
pub(crate) fn pretend_to_sleep(socket: &Path) {
    let address = format!("unix:path={}", socket.display());
    Runtime::new().unwrap().block_on(async {
        let bus = connection::Builder::address(address.as_str()).unwrap();
        let bus = bus.build().await.unwrap();
        let emitter = SignalEmitter::new(&bus, PATH).unwrap();
        Manager::prepare_for_sleep(&emitter, true).await.unwrap();
        // What it said has arrived when it has an answer to what it asks afterwards.
        let ask = fdo::DBusProxy::new(&bus).await.unwrap();
        ask.get_id().await.unwrap();
    });
}
