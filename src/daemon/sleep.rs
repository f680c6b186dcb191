//! Hears from logind that the machine is about to sleep, and lets it do so only when the engine has stopped.
//!
//! Whatever is wrong with D-Bus or logind costs nobody more than the gate itself: a home whose state is not known is
//! awake. Only logind's own signals count; the bus carries everybody's.

use std::future::pending;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{sleep, timeout};
use zbus::connection::Builder;
use zbus::proxy::{CacheProperties, MethodFlags};
use zbus::zvariant::{OwnedFd, OwnedValue};
use zbus::{Connection, Proxy};

use crate::engine::Engine;

const LOGIND: &str = "org.freedesktop.login1";
const PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// How long the bus, or logind, may take for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long the engine may take to stop: less than the five seconds after which logind waits no longer.
const STOP_MAX: Duration = Duration::from_secs(4);
/// How often it is asked whether the machine is still about to sleep: its news may be lost. This clock stops while it sleeps.
const LOOK: Duration = Duration::from_secs(10);
/// Between two attempts to get what logind refused, and between the first two to reach a bus that is not there.
const RETRY: Duration = Duration::from_secs(60);
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// Stops `engine` before the machine sleeps, and wakes it afterwards, for as long as it is polled.
pub(super) async fn watch(engine: Engine) {
    let mut told = Told::default();
    let mut wait = RETRY_FIRST;
    loop {
        let lost = match connect().await {
            Ok(bus) => {
                wait = RETRY_FIRST;
                // Awake when this ends, whatever it knew last.
                let mut gate = Gate::new(&engine);
                follow(&bus, &mut gate, &mut told).await
            }
            Err(error) => error,
        };
        told.once(&lost);
        sleep(wait).await;
        wait = (wait * 2).min(RETRY);
    }
}

/// The last trouble that was logged: a machine without logind says so once.
#[derive(Default)]
struct Told(String);

impl Told {
    fn once(&mut self, error: &zbus::Error) {
        let error = error.to_string();
        if self.0 == error {
            tracing::debug!(error, "still not");
        } else {
            tracing::info!(
                error,
                "the machine does not wait for this home when it goes to sleep"
            );
            self.0 = error;
        }
    }
}

/// What keeps the machine from sleeping, or the engine from working.
struct Gate<'a> {
    engine: &'a Engine,
    /// logind waits until it is closed.
    inhibitor: Option<OwnedFd>,
    asleep: bool,
}

impl<'a> Gate<'a> {
    fn new(engine: &'a Engine) -> Self {
        Self {
            engine,
            inhibitor: None,
            asleep: false,
        }
    }

    async fn sleep(&mut self) {
        if !self.asleep {
            tracing::info!("the machine is about to sleep");
            self.asleep = true;
            self.engine.suspend(STOP_MAX).await;
        }
        self.inhibitor = None;
    }

    fn wake(&mut self) {
        if self.asleep {
            tracing::info!("the machine is awake");
            self.asleep = false;
            self.engine.resume();
        }
    }
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        self.wake();
    }
}

async fn connect() -> zbus::Result<Connection> {
    let bus = Builder::system()?.method_timeout(ANSWER_MAX).build();
    let late = || std::io::Error::from(std::io::ErrorKind::TimedOut);
    timeout(ANSWER_MAX, bus).await.map_err(|_| late())?
}

/// Does what logind says until the bus is gone.
async fn follow(bus: &Connection, gate: &mut Gate<'_>, told: &mut Told) -> zbus::Error {
    match try_follow(bus, gate, told).await {
        Ok(()) => zbus::Error::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
        Err(error) => error,
    }
}

async fn try_follow(bus: &Connection, gate: &mut Gate<'_>, told: &mut Told) -> zbus::Result<()> {
    let manager = proxy(bus, MANAGER).await?;
    // Before it is asked how things are, so that no news is missed.
    let mut signals = manager.receive_signal("PrepareForSleep").await?;
    let mut owners = manager.receive_owner_changed().await?;
    if is_preparing(bus).await {
        gate.sleep().await;
    }
    loop {
        if !gate.asleep && gate.inhibitor.is_none() {
            match inhibit(&manager).await {
                Ok(inhibitor) => {
                    tracing::debug!("the machine waits for this home when it goes to sleep");
                    gate.inhibitor = Some(inhibitor);
                    *told = Told::default();
                }
                Err(error) => told.once(&error),
            }
        }
        let look = async {
            match (gate.asleep, &gate.inhibitor) {
                (true, _) => sleep(LOOK).await,
                (false, None) => sleep(RETRY).await,
                (false, Some(_)) => pending().await,
            }
        };
        tokio::select! {
            biased;
            signal = signals.next() => match signal.map(|signal| signal.body().deserialize()) {
                None => return Ok(()),
                Some(Ok(true)) => gate.sleep().await,
                Some(Ok(false)) => gate.wake(),
                Some(Err(error)) => tracing::debug!(%error, "not understood"),
            },
            owner = owners.next() => match owner {
                None => return Ok(()),
                // Who let the machine sleep is gone, and will not say that it is awake.
                Some(None) => {
                    gate.wake();
                    gate.inhibitor = None;
                }
                Some(Some(_)) => follow_state(bus, gate).await,
            },
            () = look => follow_state(bus, gate).await,
        }
    }
}

/// Takes over what logind says when it is asked.
async fn follow_state(bus: &Connection, gate: &mut Gate<'_>) {
    match is_preparing(bus).await {
        true => gate.sleep().await,
        false => gate.wake(),
    }
}

async fn proxy<'a>(bus: &Connection, interface: &'a str) -> zbus::Result<Proxy<'a>> {
    zbus::proxy::Builder::new(bus)
        .destination(LOGIND)?
        .path(PATH)?
        .interface(interface)?
        .cache_properties(CacheProperties::No)
        .build()
        .await
}

/// Makes the machine wait. A logind that does not run is not started for it.
async fn inhibit(manager: &Proxy<'_>) -> zbus::Result<OwnedFd> {
    let flags = MethodFlags::NoAutoStart.into();
    let why = "What waits for the home's server has to stop";
    let body = ("sleep", "roamhome", why, "delay");
    let inhibitor = manager.call_with_flags("Inhibit", flags, &body).await?;
    inhibitor.ok_or(zbus::Error::InvalidReply)
}

/// Whether the machine is about to sleep, or does; not if nobody knows.
async fn is_preparing(bus: &Connection) -> bool {
    let asked = async {
        let properties = proxy(bus, PROPERTIES).await?;
        let flags = MethodFlags::NoAutoStart.into();
        let body = (MANAGER, "PreparingForSleep");
        let value = properties.call_with_flags("Get", flags, &body).await?;
        let value: OwnedValue = value.ok_or(zbus::Error::InvalidReply)?;
        zbus::Result::Ok(bool::try_from(value)?)
    };
    asked.await.unwrap_or(false)
}
