//! The task that keeps the link: connects, prepares the home, notices loss, backs off.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::home;
use super::link::{BackOff, Hold, LinkState};
use super::reconcile::Request;
use super::shared::{FAULT, Shared, contained, lock};
use super::{LinkError, Space};
use crate::remote::Remote;
use crate::tree::RelPath;

/// How long a refusal is left alone before it is looked at again without being asked.
const REFUSED_WAIT: Duration = Duration::from_secs(300);

/// How long a link may be silent after the network changed.
const ALIVE_WAIT: Duration = Duration::from_secs(3);

/// Runs until the engine stops.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut back_off = BackOff::default();
    let mut hold = shared.hold.subscribe();
    let mut stopping = shared.stopping.subscribe();
    loop {
        if *stopping.borrow() {
            return;
        }
        let held = *hold.borrow_and_update();
        if held.is_held() {
            shared.set_link(held.state());
            back_off.reset();
            tokio::select! {
                biased;
                _ = hold.changed() => {}
                _ = stopping.changed() => {}
            }
            continue;
        }
        let attempted = tokio::select! {
            biased;
            attempted = contained(attempt(&shared), fault) => attempted,
            // Who is asked over a network that is gone does not answer.
            () = shared.network_changed.notified() => continue,
            _ = hold.changed() => continue,
            _ = stopping.changed() => return,
        };
        let wait = match attempted {
            Ok(remote) => {
                back_off.reset();
                serve(&shared, &remote, &mut hold, &mut stopping).await;
                continue;
            }
            Err(error) if error.needs_person => {
                shared.set_link(LinkState::Refused {
                    message: error.message,
                    remedy: error.remedy,
                });
                REFUSED_WAIT
            }
            Err(error) => {
                shared.set_link(LinkState::Offline {
                    detail: error.message,
                    held: false,
                });
                back_off.next_wait(jitter(&shared))
            }
        };
        tokio::select! {
            biased;
            () = tokio::time::sleep(wait) => {}
            () = shared.connect_now.notified() => back_off.reset(),
            () = shared.network_changed.notified() => back_off.reset(),
            _ = hold.changed() => {}
            _ = stopping.changed() => {}
        }
    }
}

fn fault() -> LinkError {
    LinkError {
        message: FAULT.into(),
        remedy: "report it with the log".into(),
        needs_person: false,
    }
}

async fn attempt(shared: &Arc<Shared>) -> Result<Remote, LinkError> {
    // A refusal stays in sight while it is tried again.
    if !matches!(shared.link.borrow().state, LinkState::Refused { .. }) {
        shared.set_link(LinkState::Connecting);
    }
    let remote = shared.connector.connect().await?;
    let unreachable = |error: crate::remote::RemoteError| LinkError {
        needs_person: !error.is_link_loss(),
        message: format!("the home on the server cannot be prepared: {error}"),
        remedy: "make the directory writable for this user, then try again".into(),
    };
    let guards = home::recheck(shared, &remote).await.map_err(unreachable)?;
    let suspect = !guards.is_empty();
    *lock(&shared.guards) = guards;
    if suspect || shared.options.only_look {
        // Nothing is written to a home that may not be ours, not even a probe.
        refresh_space(shared, &remote).await;
        return Ok(remote);
    }
    let clock = home::measure_clock(shared, &remote)
        .await
        .map_err(unreachable)?;
    *lock(&shared.clock) = clock;
    refresh_space(shared, &remote).await;
    Ok(remote)
}

/// Online until the connection ends or somebody ends it.
async fn serve(
    shared: &Arc<Shared>,
    remote: &Remote,
    hold: &mut watch::Receiver<Hold>,
    stopping: &mut watch::Receiver<bool>,
) {
    {
        let mut current = lock(&shared.remote);
        // Whoever holds it down closes what is here afterwards.
        if shared.hold.borrow().is_held() {
            remote.close();
            return;
        }
        *current = Some(remote.clone());
    }
    // The receiver lives as long as the engine; a failed send means that it stops. First, so that whoever saw the
    // link come up asks for a pass after this one.
    let _unheard = shared.requests.send(Request::Reconnected);
    shared.set_link(LinkState::Online);
    let mut detail = "the connection was lost";
    tokio::select! {
        biased;
        () = remote.closed() => {}
        _ = hold.changed() => {}
        _ = stopping.changed() => {}
        () = cut_off(shared, remote) => detail = "the network changed, and the server does not answer any more",
    }
    *lock(&shared.remote) = None;
    remote.close();
    if !shared.hold.borrow().is_held() {
        shared.set_link(LinkState::Offline {
            detail: detail.into(),
            held: false,
        });
    }
}

/// Resolves when the network has changed and nothing comes from the server any more.
async fn cut_off(shared: &Shared, remote: &Remote) {
    let root = RelPath::root();
    loop {
        shared.network_changed.notified().await;
        let session = remote.interactive();
        let alive = async {
            tokio::select! {
                // Whatever the answer is; if the session ends, others notice.
                _ = session.lstat(&root) => {}
                () = session.heard() => {}
            }
        };
        if tokio::time::timeout(ALIVE_WAIT, alive).await.is_err() {
            return;
        }
    }
}

/// Asks for the server's room; without the extension it stays unknown.
pub(super) async fn refresh_space(shared: &Shared, remote: &Remote) {
    if !remote.features().statvfs {
        return;
    }
    if let Ok(vfs) = remote.interactive().statvfs().await {
        *lock(&shared.space) = Some(Space {
            total_bytes: vfs.total_bytes,
            available_bytes: vfs.available_bytes,
        });
    }
}

fn jitter(shared: &Shared) -> u8 {
    // Without randomness the jitter is lost, nothing else.
    (shared.options.random)().map_or(128, |random| random as u8)
}
