//! Every verb of a session, with arguments that a seed chooses, and what holds whatever is answered.

use std::time::Duration;

use bytes::Bytes;
use roamhome::remote::{RemoteError, Session, SetStat, TransferError, Upload, download, upload};
use roamhome::tree::RelPath;

use super::peer::Lying;
use crate::support::rng::Rng;

/// Longer than anything may take, in virtual time.
const HANGS: Duration = Duration::from_secs(3600);
const STEPS: u64 = 30;

const PATHS: [&str; 8] = [
    "one", "large", "dir", "dir/two", "dir/link", "fresh", "no/such", "",
];

fn path(rng: &mut Rng) -> RelPath {
    RelPath::parse(rng.pick(&PATHS).as_bytes()).unwrap()
}

/// Names a session as the peer does, and asks it one thing after the other.
pub(super) async fn run(peer: &Lying, rng: &mut Rng) {
    let Ok(session) = peer.session().await else {
        return;
    };
    let mut lost = false;
    for _ in 0..STEPS {
        let done = tokio::time::timeout(HANGS, one(&session, rng)).await;
        let done = done.expect("a request hangs");
        assert!(!(lost && done.is_ok()), "a lost session answers");
        lost |= done.is_err_and(|error| error.is_link_loss());
        assert!(!lost || session.is_closed(), "a lost session is open");
    }
    session.close_session();
}

async fn one(session: &dyn Session, rng: &mut Rng) -> Result<(), RemoteError> {
    let (at, to) = (path(rng), path(rng));
    let set = SetStat {
        size: rng.one_in(3).then_some(7),
        mode: Some(0o640),
        mtime: Some(5),
    };
    match rng.below(16) {
        0 => session.lstat(&at).await.map(drop),
        1 => session.setstat(&at, set).await,
        2 => session.lsetstat(&at, set).await,
        3 => list(session, &at).await,
        4 => session.readlink(&at).await.map(|target| {
            assert!(!target.is_empty() && !target.contains(&0));
        }),
        5 => session.symlink(&at, b"one").await,
        6 => session.mkdir(&at, 0o700).await,
        7 => session.rmdir(&at).await,
        8 => session.remove(&at).await,
        9 => session.rename(&at, &to).await,
        10 => session.posix_rename(&at, &to).await,
        11 => session.hardlink(&at, &to).await,
        12 => session.statvfs().await.map(drop),
        13 => session.probe_time(&at).await.map(drop),
        14 => transferred(fetch(session, &at, rng).await),
        _ => transferred(send(session, &at, rng).await),
    }
}

async fn list(session: &dyn Session, at: &RelPath) -> Result<(), RemoteError> {
    for entry in session.list(at).await? {
        let below = at.join(&entry.name);
        assert_eq!(below.names().len(), at.names().len() + 1);
        assert_eq!(
            RelPath::parse(&below.to_bytes()),
            Ok(below),
            "a name leads elsewhere"
        );
    }
    Ok(())
}

async fn fetch(session: &dyn Session, at: &RelPath, rng: &mut Rng) -> Result<(), TransferError> {
    let size = rng.pick(&[0, 16, 16, 400_000, 400_000, 1 << 40]);
    let mut got = 0;
    let mut sink = |offset: u64, data: Bytes| {
        assert!(offset + data.len() as u64 <= size, "more than there is");
        got += data.len() as u64;
        Ok(())
    };
    download(session, at, size, 0, &mut sink).await?;
    assert_eq!(got, size, "a file with holes passes for whole");
    Ok(())
}

async fn send(session: &dyn Session, at: &RelPath, rng: &mut Rng) -> Result<(), TransferError> {
    let size = rng.pick(&[0, 4, 400_000]);
    let what = Upload {
        size,
        resume_at: 0,
        mode: 0o644,
        mtime: 9,
        fsync: rng.one_in(2),
    };
    let mut source = |_, len: u32| Ok(Bytes::from(vec![b'u'; len as usize]));
    let mut acked = |bytes| assert!(bytes <= size, "more is there than was sent");
    upload(session, at, what, &mut source, &mut acked).await
}

fn transferred(done: Result<(), TransferError>) -> Result<(), RemoteError> {
    match done {
        Err(TransferError::Remote(error)) => Err(error),
        Err(TransferError::Changed { .. }) => Err(RemoteError::new(
            roamhome::remote::ErrorKind::Failure,
            "read",
            &RelPath::root(),
            "changed",
        )),
        done => done.map_err(|error| panic!("{error}")),
    }
}
