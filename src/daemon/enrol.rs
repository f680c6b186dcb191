//! The key of this machine, by which it logs in where nobody types a password: after a restart, and for what is left when
//! its user has gone.
//!
//! It is made when somebody has logged in by other means, is good for SFTP alone, and stays in the state directory. A new
//! key takes the old one's place only when the server was seen to take it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::sleep;

use super::lifecycle::Daemon;
use super::{conflicts, link};
use crate::clock;
use crate::config::{Enrol, Way};
use crate::control::protocol::{Machine, Machines};
use crate::control::{Code, Failure};
use crate::engine::LinkState;
use crate::remote::{
    AuthorizedKeys, ConnectError, MachineKey, RemoteError, generate_identity, public_line,
};

/// The key, in the state directory.
const KEY: &str = "machine_key";
/// The one that is to be it.
const NEXT: &str = "machine_key.next";

/// How often it is looked whether there is something to do, and after an attempt that failed.
const LOOK: Duration = Duration::from_secs(2);
const AFTER_FAILURE: Duration = Duration::from_secs(3600);

/// One change of keys at a time.
static CHANGING: Mutex<()> = Mutex::const_new(());

/// Where the key is.
pub(super) fn key_file(state_dir: &Path) -> PathBuf {
    state_dir.join(KEY)
}

/// What is known of the key in a file; none if there is no such key.
fn known(file: &Path) -> Option<MachineKey> {
    MachineKey::parse(&public_line(file).ok()?)
}

/// The day of this machine's key, if it has one.
pub(super) fn since(state_dir: &Path) -> Option<String> {
    known(&key_file(state_dir)).map(|key| key.since)
}

/// Sees to it that this machine has a key, and one that is not too old, for as long as the daemon lives.
pub(super) async fn keep(daemon: Arc<Daemon>) {
    let access = &daemon.request.access;
    if !matches!(access.way, Way::Russh(_)) {
        return;
    }
    daemon.engine.settled_link(LOOK).await;
    loop {
        let has_key = known(&key_file(&daemon.request.state_dir));
        let is_due = match &has_key {
            Some(key) => is_old(key, access.config.key_lifetime),
            None => {
                access.for_login
                    && access.config.enrol == Enrol::Login
                    && daemon.connector.has_password()
            }
        };
        if !is_due || daemon.engine.link().state != LinkState::Online {
            sleep(LOOK).await;
            continue;
        }
        match enrol(&daemon, has_key.is_some()).await {
            Ok(done) => tracing::info!("{done}"),
            Err(failure) => {
                tracing::warn!(%failure, "this machine has no key of its own, or an old one");
                sleep(AFTER_FAILURE).await;
            }
        }
    }
}

fn is_old(key: &MachineKey, lifetime: Duration) -> bool {
    let age = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
    // Days in this form are in the order of time.
    key.since < clock::date(clock::now().secs().saturating_sub(age))
}

/// Gives this machine a key that the server takes, and takes back those that it had before; with `anew` even if the
/// server takes the one it has. Answers what was done.
pub(super) async fn enrol(daemon: &Daemon, anew: bool) -> Result<String, Failure> {
    let _turn = CHANGING.lock().await;
    let host = host_of(daemon)?;
    let file = key_file(&daemon.request.state_dir);
    let before = known(&file);
    if let Some(key) = &before
        && !anew
        && is_taken(daemon, &file).await?
    {
        let machine = &key.machine;
        return Ok(format!(
            "{machine} has a key for {host} since {}",
            key.since
        ));
    }
    let next = next_key(&daemon.request.state_dir, before.as_ref())?;
    let next_file = daemon.request.state_dir.join(NEXT);
    // Somebody may have put a line there that was printed before.
    let is_there_already = is_taken(daemon, &next_file).await?;
    let keys = keys(daemon).await?;
    if !is_there_already {
        keys.add(&next).await.map_err(|e| not_changed(&host, &e))?;
        if !is_taken(daemon, &next_file).await? {
            let removed = keys.remove(|key| key.key == next.key).await;
            removed.map_err(|e| not_changed(&host, &e))?;
            return Err(not_taken(&host));
        }
    }
    let replaced = fs::rename(&next_file, &file)
        .and_then(|()| File::open(&daemon.request.state_dir)?.sync_all());
    replaced.map_err(|error| at(&file, &error))?;
    let own_others = |key: &MachineKey| key.id == next.id && key.key != next.key;
    keys.remove(own_others)
        .await
        .map_err(|e| not_changed(&host, &e))?;
    Ok(format!(
        "{} has a key of its own for {host} now: `roamhome revoke {}` takes it back",
        next.machine, next.machine
    ))
}

/// What somebody else has to put into `authorized_keys` on the server.
pub(super) fn line(daemon: &Daemon) -> Result<String, Failure> {
    host_of(daemon)?;
    let state_dir = &daemon.request.state_dir;
    match known(&key_file(state_dir)) {
        Some(key) => Ok(key.line()),
        None => Ok(next_key(state_dir, None)?.line()),
    }
}

/// The machines that may log in by keys of their own.
pub(super) async fn list(daemon: &Daemon) -> Result<Machines, Failure> {
    let host = host_of(daemon)?;
    let own = known(&key_file(&daemon.request.state_dir));
    let keys = keys(daemon).await?.machines().await;
    let keys = keys.map_err(|e| not_changed(&host, &e))?;
    let machine = |key: MachineKey| Machine {
        this: own.as_ref().is_some_and(|own| own.key == key.key),
        name: key.machine,
        id: key.id,
        since: key.since,
    };
    Ok(Machines {
        machines: keys.into_iter().map(machine).collect(),
    })
}

/// Lets a machine in no more. Answers what was done.
pub(super) async fn revoke(daemon: &Daemon, machine: &str) -> Result<String, Failure> {
    let _turn = CHANGING.lock().await;
    let host = host_of(daemon)?;
    let keys = keys(daemon).await?;
    let all = keys.machines().await.map_err(|e| not_changed(&host, &e))?;
    let meant: Vec<_> = all
        .iter()
        .filter(|key| key.machine == machine || key.id == machine)
        .collect();
    if meant.is_empty() {
        let message = format!("{host} knows no key of a machine {machine}");
        return Err(
            Failure::new(Code::General, message).remedy("`roamhome enrol --list` shows them all")
        );
    }
    let ids: std::collections::BTreeSet<_> = meant.iter().map(|key| &key.id).collect();
    if ids.len() > 1 {
        let message = format!("{host} knows {} machines named {machine}", ids.len());
        return Err(Failure::new(Code::Usage, message)
            .remedy("name one by its id: `roamhome enrol --list` shows them"));
    }
    let is_meant = |key: &MachineKey| ids.contains(&key.id);
    let removed = keys.remove(is_meant).await;
    removed.map_err(|e| not_changed(&host, &e))?;
    for name in [KEY, NEXT] {
        let file = daemon.request.state_dir.join(name);
        if known(&file).as_ref().is_some_and(is_meant) {
            fs::remove_file(&file).map_err(|error| at(&file, &error))?;
        }
    }
    Ok(format!(
        "{machine} is let in no more by {host}: what is connected stays so until it reconnects"
    ))
}

/// The key that is to be this machine's. It may be there since a link was lost, or since its line was printed.
fn next_key(state_dir: &Path, before: Option<&MachineKey>) -> Result<MachineKey, Failure> {
    let file = state_dir.join(NEXT);
    if let Some(key) = known(&file) {
        return Ok(key);
    }
    let made = || {
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let id = match before {
            Some(key) => key.id.clone(),
            None => format!("{:08x}", getrandom::u32()?),
        };
        let today = clock::date(clock::now().secs());
        let comment = MachineKey::comment(&conflicts::host(), &id, &today);
        generate_identity(&file, &comment)
    };
    let line = made().map_err(|error| at(&file, &error))?;
    MachineKey::parse(&line).ok_or_else(|| at(&file, &io::ErrorKind::InvalidData.into()))
}

/// Whether the server lets in who has this key and nothing else.
async fn is_taken(daemon: &Daemon, key: &Path) -> Result<bool, Failure> {
    match daemon.connector.log_in(Some(key)).await {
        Ok(_) => Ok(true),
        Err(ConnectError::AuthRefused { host, tried, .. }) if tried.is_empty() => {
            let message = format!("{host} lets nobody in by a key");
            Err(Failure::new(Code::Authentication, message)
                .remedy("have its administrator allow that: PubkeyAuthentication in sshd_config"))
        }
        // Or it lets us in, and serves no files: it does not know what the restriction means.
        Err(ConnectError::AuthRefused { .. } | ConnectError::NoSftp { .. }) => Ok(false),
        Err(error) => Err(link::failure(&error)),
    }
}

async fn keys(daemon: &Daemon) -> Result<AuthorizedKeys, Failure> {
    let connected = daemon.connector.log_in(None).await;
    connected
        .map(AuthorizedKeys::new)
        .map_err(|error| link::failure(&error))
}

/// The server that keys are for.
fn host_of(daemon: &Daemon) -> Result<String, Failure> {
    match &daemon.request.access.way {
        Way::Russh(place) => Ok(place.host.clone()),
        Way::Ssh { .. } => Err(Failure::new(
            Code::Usage,
            "with transport = \"ssh\" this machine logs in as ssh_config says",
        )
        .remedy("name a key with `identity`, or use transport = \"russh\"")),
        Way::Command { .. } | Way::Local(_) => Err(Failure::new(
            Code::Usage,
            format!("nobody logs in to reach {}", daemon.request.access.target),
        )),
    }
}

fn at(file: &Path, error: &io::Error) -> Failure {
    Failure::new(Code::StateDir, format!("{}: {error}", file.display()))
}

fn not_changed(host: &str, error: &RemoteError) -> Failure {
    let message = format!("the keys that {host} knows cannot be changed: {error}");
    Failure::new(Code::ServerPath, message).remedy(
        "have the server's administrator put what `roamhome enrol --print` says where its sshd looks for keys, then say `roamhome enrol`",
    )
}

fn not_taken(host: &str) -> Failure {
    let message = format!(
        "{host} does not take the key that was put into .ssh/authorized_keys; it was taken out again"
    );
    Failure::new(Code::Authentication, message).remedy(
        "have the server's administrator allow keys and internal-sftp, or put what `roamhome enrol --print` says where its sshd looks for keys, then say `roamhome enrol`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_old_when_its_time_is_over() {
        const DAY: u64 = 86_400;
        let now = clock::now().secs();
        let days_ago = |days: i64| clock::date(now - days * DAY.cast_signed());
        for (age, lifetime, old) in [
            (0, 0, false),
            (89, 90, false),
            (91, 90, true),
            (2, 1, true),
            (10_000, u64::MAX / DAY, false),
        ] {
            let line = format!("a b roamhome:m:1:{}", days_ago(age));
            let key = MachineKey::parse(&line).unwrap();
            let lifetime = Duration::from_secs(lifetime * DAY);
            assert_eq!(is_old(&key, lifetime), old, "{age} of {lifetime:?}");
        }
    }
}
