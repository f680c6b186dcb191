use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::remote::memory::Trip;
use crate::remote::{ErrorKind, MemoryServer};
use crate::tree::Time;

const ROUND_TRIP: Duration = Duration::from_millis(20);

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

fn server() -> MemoryServer {
    let server = MemoryServer::new(|| Time::new(1_000, 0));
    server.set_round_trip(ROUND_TRIP);
    server
}

async fn put(server: &MemoryServer, size: u64) -> Result<(), TransferError> {
    put_over(&*server.session(), size).await
}

async fn put_over(session: &dyn Session, size: u64) -> Result<(), TransferError> {
    let what = Upload {
        size,
        resume_at: 0,
        mode: 0o600,
        mtime: 5,
        fsync: true,
    };
    let mut source = |_, len: u32| Ok(Bytes::from(vec![7; len as usize]));
    upload(session, &path("f"), what, &mut source, &mut |_| {}).await
}

#[tokio::test(start_paused = true)]
async fn a_small_file_takes_two_round_trips_either_way() {
    let server = server();
    let start = Instant::now();
    put(&server, 60_000).await.unwrap();
    assert_eq!(start.elapsed(), 2 * ROUND_TRIP);
    assert_eq!(server.requests(), 5, "open, write, fsetstat, fsync, close");
    let start = Instant::now();
    let session = server.session();
    let mut sink = |_, _| Ok(());
    let stat = download(&*session, &path("f"), 60_000, 0, &mut sink)
        .await
        .unwrap();
    assert_eq!(start.elapsed(), 2 * ROUND_TRIP);
    assert_eq!((server.requests(), stat.mtime), (10, 5));
}

#[tokio::test(start_paused = true)]
async fn no_transfer_leaves_a_file_open_however_it_ends() {
    for skip in 0..12 {
        for trip in [
            Trip::Fail(ErrorKind::Failure),
            Trip::CutBefore,
            Trip::CutAfter,
        ] {
            let server = server();
            server.trip(skip, trip);
            // 7 writes, fsetstat, fsync, close after the open.
            let done = put(&server, 400_000).await;
            assert_eq!(done.is_ok(), skip > 10, "{skip} {trip:?}");
            assert_eq!(server.open_files(), 0, "{skip} {trip:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_transfer_leaves_a_file_open_when_it_is_dropped() {
    for round_trips in 1..4 {
        let server = server();
        let limit = ROUND_TRIP * round_trips - ROUND_TRIP / 2;
        let session = server.session();
        let dropped = tokio::time::timeout(limit, put_over(&*session, 20_000_000)).await;
        assert!(dropped.is_err());
        assert_eq!(server.open_files(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_changes_under_a_download_is_not_taken() {
    let server = server();
    let file = path("f");
    server.write_file(&file, &vec![1; 2_000_000]).unwrap();
    let session = server.session();
    let meddler = server.clone();
    let mut first = true;
    let mut sink = |_, _| {
        if std::mem::take(&mut first) {
            meddler.write_file(&file, &vec![2; 3_000_000]).unwrap();
        }
        Ok(())
    };
    let read = download(&*session, &file, 2_000_000, 0, &mut sink).await;
    assert!(
        matches!(read, Err(TransferError::Changed { .. })),
        "{read:?}"
    );
}
