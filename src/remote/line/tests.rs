//! Two sessions over one slow line, in virtual time: what stands in front of a request that somebody waits for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Limits, Line, Rate};
use crate::remote::wire::{PROTOCOL_VERSION, Reply, Request, Status, Version, extension};
use crate::remote::{FileHandle, Remote, Session, SftpConfig, SftpSession, Upload};
use crate::tree::RelPath;

const PIECE: usize = 64 * 1024;

/// The narrow place on the way to the server: everything goes through it in order, at `rate` bytes in a second.
struct Narrow {
    rate: f64,
    round_trip: Duration,
    /// Bytes of content that went through.
    passed: Arc<AtomicU64>,
    /// What went through, in order.
    log: Log,
}

/// The session's number and what it asked.
type Log = Arc<Mutex<Vec<(usize, &'static str)>>>;

struct Parcel {
    asked: (usize, &'static str),
    bytes: u64,
    back: mpsc::UnboundedSender<Vec<u8>>,
    answer: Vec<u8>,
}

impl Narrow {
    async fn run(self, mut parcels: mpsc::UnboundedReceiver<Parcel>) {
        let mut free = Instant::now();
        while let Some(parcel) = parcels.recv().await {
            // Timers are coarser than a piece takes: what one comes late is not lost to the next.
            if free + Duration::from_millis(5) < Instant::now() {
                free = Instant::now();
            }
            free += Duration::from_secs_f64(parcel.bytes as f64 / self.rate);
            sleep_until(free).await;
            self.passed.fetch_add(parcel.bytes, Ordering::Relaxed);
            self.log.lock().unwrap().push(parcel.asked);
            let round_trip = self.round_trip;
            tokio::spawn(async move {
                sleep(round_trip).await;
                // The session may be over.
                drop(parcel.back.send(parcel.answer));
            });
        }
    }
}

fn packet(frame: crate::remote::wire::Frame) -> Vec<u8> {
    [&frame.head[..], &frame.body].concat()
}

/// The server's end of a session: takes all at once, as kernels and networks do, and answers when it got through.
async fn serve(stream: DuplexStream, number: usize, line: mpsc::UnboundedSender<Parcel>) {
    let (mut reader, mut writer) = split(stream);
    let mut hello = [0; 9];
    reader.read_exact(&mut hello).await.unwrap();
    let version = Version {
        version: PROTOCOL_VERSION,
        // Its word counts.
        extensions: vec![(extension::FSYNC.0.into(), extension::FSYNC.1.into())],
    };
    writer.write_all(&packet(version.encode())).await.unwrap();
    let (back, mut answers) = mpsc::unbounded_channel::<Vec<u8>>();
    tokio::spawn(async move {
        while let Some(answer) = answers.recv().await {
            if writer.write_all(&answer).await.is_err() {
                return;
            }
        }
    });
    while let Ok(len) = reader.read_u32().await {
        let mut bytes = vec![0; len as usize];
        if reader.read_exact(&mut bytes).await.is_err() {
            return;
        }
        let (id, request) = Request::decode(bytes.into()).unwrap();
        let ok = Reply::status(Status::Ok);
        let (bytes, name, answer) = match request {
            Request::Read { len, .. } => {
                let data = Bytes::from(vec![0; len as usize]);
                (u64::from(len), "read", Reply::Data(data))
            }
            Request::Write { data, .. } => (data.len() as u64, "write", ok),
            Request::Lstat(_) => (64, "lstat", Reply::Attrs(Default::default())),
            Request::Open { .. } => (64, "open", Reply::Handle(Bytes::from_static(b"h"))),
            Request::Fsetstat(..) => (64, "fsetstat", ok),
            Request::Close(_) => (64, "close", ok),
            _ => (64, "other", ok),
        };
        let answer = packet(answer.encode(id));
        let back = back.clone();
        let parcel = Parcel {
            asked: (number, name),
            bytes,
            back,
            answer,
        };
        if line.send(parcel).is_err() {
            return;
        }
    }
}

struct Site {
    remote: Remote,
    passed: Arc<AtomicU64>,
    log: Log,
}

async fn site(rate: f64, round_trip: Duration, limits: &Limits, sessions: usize) -> Site {
    let passed = Arc::new(AtomicU64::new(0));
    let log = Log::default();
    let narrow = Narrow {
        log: Arc::clone(&log),
        rate,
        round_trip,
        passed: Arc::clone(&passed),
    };
    let (line, parcels) = mpsc::unbounded_channel();
    tokio::spawn(narrow.run(parcels));
    let config = SftpConfig {
        line: Line::new(limits),
        ..SftpConfig::default()
    };
    let mut started = Vec::new();
    for number in 0..sessions {
        let (ours, theirs) = duplex(1 << 30);
        tokio::spawn(serve(theirs, number, line.clone()));
        let (reader, writer) = split(ours);
        let session = SftpSession::start(reader, writer, config.clone());
        started.push(session.await.unwrap());
    }
    let remote = Remote::over(started.remove(0), started, ());
    Site {
        remote,
        passed,
        log,
    }
}

fn handle() -> FileHandle {
    FileHandle {
        id: Bytes::from_static(b"h"),
        path: RelPath::root(),
    }
}

/// Keeps `under_way` writes under way for as long as it lives, which is more than any window.
fn upload(session: Arc<dyn Session>, under_way: usize) {
    for _ in 0..under_way {
        let session = Arc::clone(&session);
        tokio::spawn(async move {
            let data = Bytes::from(vec![0; PIECE]);
            while session.write(&handle(), 0, data.clone()).await.is_ok() {}
        });
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_has_little_in_front_on_a_full_line_that_stays_full() {
    let round_trip = Duration::from_millis(20);
    for (rate, sessions) in [(100e6, 4), (2e6, 4), (2e6, 1)] {
        let site = site(rate, round_trip, &Limits::default(), sessions).await;
        upload(Arc::clone(site.remote.bulk()), 200);
        upload(Arc::clone(site.remote.bulk()), 200);
        sleep(Duration::from_secs(5)).await;
        let before = site.passed.load(Ordering::Relaxed);
        let start = Instant::now();
        let mut worst = Duration::ZERO;
        for _ in 0..50 {
            sleep(Duration::from_millis(200)).await;
            let asked = Instant::now();
            // As a read of a small file: one question after the other.
            for _ in 0..2 {
                site.remote
                    .interactive()
                    .lstat(&RelPath::root())
                    .await
                    .unwrap();
            }
            worst = worst.max(asked.elapsed());
        }
        let whole = start.elapsed().as_secs_f64();
        let passed = (site.passed.load(Ordering::Relaxed) - before) as f64;
        // Two pieces are the least that may stand in front, and they take their time on a slow line.
        let pieces = Duration::from_secs_f64(4.0 * PIECE as f64 / rate);
        let most = round_trip * 3 + Duration::from_millis(20) + pieces;
        assert!(worst <= most, "{rate}, {sessions} sessions: {worst:?}");
        let share = passed / (rate * whole);
        assert!(
            share > 0.7,
            "{rate}, {sessions} sessions: only {share} of it is used"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_little_overtakes_who_waits_for_much() {
    let site = site(2e6, Duration::from_millis(20), &Limits::default(), 4).await;
    let large = Arc::clone(site.remote.interactive_large());
    upload(Arc::clone(site.remote.bulk()), 50);
    let reads = tokio::spawn(async move {
        let handle = handle();
        join_all((0..320).map(|_| large.read(&handle, 0, PIECE as u32))).await
    });
    sleep(Duration::from_secs(5)).await;
    let asked = Instant::now();
    site.remote
        .interactive()
        .read(&handle(), 0, 1000)
        .await
        .unwrap();
    let waited = asked.elapsed();
    assert!(waited <= Duration::from_millis(150), "{waited:?}");
    reads.await.unwrap();
    // And nothing that is sent stood in front of it.
    let reads_first = site
        .log
        .lock()
        .unwrap()
        .iter()
        .filter(|asked| asked.1 == "write")
        .count();
    assert!(reads_first < 40, "{reads_first} writes");
}

#[tokio::test(start_paused = true)]
async fn looking_around_gives_way_to_what_has_to_be_sent() {
    let site = site(1e6, Duration::from_millis(1), &Limits::default(), 2).await;
    upload(Arc::clone(site.remote.bulk()), 50);
    sleep(Duration::from_secs(5)).await;
    let read = Arc::clone(site.remote.background());
    let reading = tokio::spawn(async move { read.read(&handle(), 0, 1000).await });
    sleep(Duration::from_secs(5)).await;
    assert!(!reading.is_finished());
    // What somebody waits for does not.
    site.remote
        .interactive()
        .read(&handle(), 0, 1000)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn content_keeps_to_its_limit_and_who_waits_overtakes_it() {
    let limits = Limits {
        up: Rate::new(|| Some(100_000)),
        down: Rate::new(|| Some(50_000)),
    };
    let site = site(100e6, Duration::from_millis(20), &limits, 3).await;
    let start = Instant::now();
    upload(Arc::clone(site.remote.bulk()), 20);
    let bulk = Arc::clone(site.remote.bulk());
    let reads = tokio::spawn(async move {
        let handle = handle();
        let reads = (0..10).map(|_| bulk.read(&handle, 0, 50_000));
        join_all(reads).await
    });
    sleep(Duration::from_secs(5)).await;
    let asked = Instant::now();
    site.remote
        .interactive()
        .read(&handle(), 0, 30_000)
        .await
        .unwrap();
    let waited = asked.elapsed();
    assert!(waited <= Duration::from_millis(25), "{waited:?}");
    reads.await.unwrap();
    // Half a megabyte, and what overtook, less what may go at once and the last piece, which is owed.
    let took = start.elapsed();
    assert!(
        took >= Duration::from_secs_f64((530_000.0 - 55_000.0) / 50_000.0),
        "{took:?}"
    );
    assert!(took <= Duration::from_secs(12), "{took:?}");
    let up = site.passed.load(Ordering::Relaxed) as f64 - 530_000.0;
    let rate = up / took.as_secs_f64();
    assert!((90_000.0..115_000.0).contains(&rate), "{rate}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_held_back_is_not_taken_for_silence_of_the_server() {
    // One piece takes 65 s, which is more than the server may be silent.
    let limits = Limits {
        up: Rate::new(|| Some(1000)),
        down: Rate::default(),
    };
    let site = site(100e6, Duration::from_millis(20), &limits, 2).await;
    let bulk = Arc::clone(site.remote.bulk());
    let data = Bytes::from(vec![0; PIECE]);
    for _ in 0..3 {
        bulk.write(&handle(), 0, data.clone()).await.unwrap();
    }
    assert!(!site.remote.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_large_file_goes_over_all_channels_and_is_closed_after_all_of_it() {
    let site = site(10e6, Duration::from_millis(20), &Limits::default(), 4).await;
    let upload = Upload {
        size: 8 << 20,
        resume_at: 0,
        mode: 0o644,
        mtime: 1,
        fsync: false,
    };
    let mut source = |_: u64, len: u32| Ok(Bytes::from(vec![0; len as usize]));
    let session = site.remote.wide().as_ref();
    let path = RelPath::root();
    crate::remote::upload(session, &path, upload, &mut source, &mut |_| {})
        .await
        .unwrap();
    let log = site.log.lock().unwrap().clone();
    let of = |name: &'static str| log.iter().filter(move |asked| asked.1 == name);
    let last = |name: &str| log.iter().rposition(|asked| asked.1 == name).unwrap();
    let writes = |session| of("write").filter(|asked| asked.0 == session).count();
    assert!((1..4).all(|session| writes(session) > 30), "{log:?}");
    assert_eq!((of("open").count(), of("close").count()), (3, 3));
    // The others' files are closed before its attributes are set, and its own comes last.
    assert!(last("write") < last("fsetstat") && last("fsetstat") < last("close"));
    let own = log[last("close")].0;
    assert_eq!(log[last("fsetstat")].0, own);
    assert_eq!(of("close").filter(|asked| asked.0 == own).count(), 1);
}
