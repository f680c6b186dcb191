//! What hostile or broken servers do to a session: it ends, with an error for everybody, and nothing else.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};

use super::*;
use crate::remote::wire::{NameEntry, PROTOCOL_VERSION, Version};
use crate::tree::Kind;

const HANDLE: &[u8] = b"h";

fn root() -> RelPath {
    RelPath::root()
}

fn packet(frame: crate::remote::wire::Frame) -> Vec<u8> {
    [&frame.head[..], &frame.body].concat()
}

async fn read_request(stream: &mut DuplexStream) -> Option<(u32, Request)> {
    let len = stream.read_u32().await.ok()?;
    let mut bytes = vec![0; len as usize];
    stream.read_exact(&mut bytes).await.ok()?;
    Request::decode(bytes.into()).ok()
}

/// A session with a server that greets properly and then answers each request with what `answer` makes of it.
async fn session_with(
    answer: impl Fn(u32, Request) -> Option<Vec<u8>> + Send + 'static,
) -> SftpSession {
    let (ours, mut theirs) = duplex(1 << 20);
    tokio::spawn(async move {
        let mut hello = [0; 9];
        theirs.read_exact(&mut hello).await.unwrap();
        let version = Version {
            version: PROTOCOL_VERSION,
            extensions: Vec::new(),
        };
        theirs.write_all(&packet(version.encode())).await.unwrap();
        while let Some((id, request)) = read_request(&mut theirs).await {
            match answer(id, request) {
                Some(bytes) => drop(theirs.write_all(&bytes).await),
                None => break,
            }
        }
    });
    let (reader, writer) = split(ours);
    let config = SftpConfig {
        entries_max: 5_000,
        ..SftpConfig::default()
    };
    SftpSession::start(reader, writer, config).await.unwrap()
}

fn reply(reply: Reply) -> impl Fn(u32, Request) -> Option<Vec<u8>> + Send {
    move |id, _| Some(packet(reply.encode(id)))
}

fn names(names: &[&[u8]]) -> Reply {
    let entry = |name: &&[u8]| NameEntry {
        name: Bytes::copy_from_slice(name),
        links: None,
        attrs: Attrs::default(),
    };
    Reply::Names(names.iter().map(entry).collect())
}

/// A directory whose first batch is `first`; further batches are `rest`, or the end.
fn directory(first: Reply, rest: Option<Reply>) -> impl Fn(u32, Request) -> Option<Vec<u8>> + Send {
    let started = std::sync::atomic::AtomicBool::new(false);
    move |id, request| {
        let answer = match request {
            Request::Opendir(_) => Reply::Handle(Bytes::from_static(HANDLE)),
            Request::Readdir(_) => match started.swap(true, std::sync::atomic::Ordering::Relaxed) {
                false => first.clone(),
                true => rest.clone().unwrap_or(Reply::status(Status::Eof)),
            },
            _ => Reply::status(Status::Ok),
        };
        Some(packet(answer.encode(id)))
    }
}

async fn assert_ended(session: &SftpSession, kind: ErrorKind) {
    session.closed().await;
    assert!(session.is_closed());
    let later = session.lstat(&root()).await.unwrap_err();
    assert_eq!(later.kind, kind, "{later}");
    assert!(later.is_link_loss());
}

#[tokio::test]
async fn a_reply_to_nobody_ends_the_session_for_all() {
    let session = session_with(|id, _| {
        Some(packet(
            Reply::status(Status::Ok).encode(id.wrapping_add(77)),
        ))
    });
    let session = session.await;
    let path = root();
    let (a, b) = futures_util::join!(session.lstat(&path), session.rmdir(&path));
    assert_eq!(a.unwrap_err().kind, ErrorKind::Protocol);
    assert_eq!(b.unwrap_err().kind, ErrorKind::Protocol);
    assert_ended(&session, ErrorKind::Protocol).await;
}

#[tokio::test]
async fn replies_of_the_wrong_type_end_the_session() {
    for wrong in [
        Reply::Handle(Bytes::from_static(HANDLE)),
        Reply::status(Status::Ok),
        Reply::Data(Bytes::new()),
        names(&[b"x"]),
    ] {
        let session = session_with(reply(wrong)).await;
        let error = session.lstat(&root()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Protocol);
        assert_ended(&session, ErrorKind::Protocol).await;
    }
}

#[tokio::test]
async fn more_data_than_asked_for_ends_the_session() {
    let session = session_with(reply(Reply::Data(Bytes::from_static(b"12345")))).await;
    let handle = FileHandle {
        id: Bytes::from_static(HANDLE),
        path: root(),
    };
    assert_eq!(session.read(&handle, 0, 5).await.unwrap().len(), 5);
    let error = session.read(&handle, 0, 4).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Protocol);
    assert_ended(&session, ErrorKind::Protocol).await;
}

#[tokio::test]
async fn impossible_names_end_the_session_and_dots_are_left_out() {
    let long = vec![b'x'; 64 * 1024];
    for name in [
        &b"a/b"[..],
        b"",
        b"../etc",
        b"a\0",
        b"/",
        &long,
        &[b'x'; 256],
    ] {
        let session = session_with(directory(names(&[b"fine", name]), None)).await;
        let error = session.list(&root()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Protocol, "{error}");
        assert_ended(&session, ErrorKind::Protocol).await;
    }
    let session = session_with(directory(names(&[b".", b"..", b"fine"]), None)).await;
    let entries = session.list(&root()).await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].stat.kind, Kind::Other);
}

#[tokio::test]
async fn listings_without_end_are_given_up() {
    for batch in [names(&[&b"again"[..]; 90]), names(&[b"."]), names(&[])] {
        let session = session_with(directory(batch.clone(), Some(batch))).await;
        let error = session.list(&root()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Protocol);
    }
}

#[tokio::test]
async fn packets_that_lie_about_lengths_end_the_session() {
    let lies: [&[u8]; 5] = [
        &[0, 0, 0, 0],
        &[0xff, 0xff, 0xff, 0xff],
        &[0, 0, 0, 2, 101, 0],
        &[0, 0, 0, 9, 102, 0, 0, 0, 0, 0, 0, 1, 0],
        &[0, 0, 0, 9, 104, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
    ];
    for lie in lies {
        let lie = lie.to_vec();
        let session = session_with(move |_, _| Some(lie.clone())).await;
        let error = session.open_read(&root()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Protocol);
        assert_ended(&session, ErrorKind::Protocol).await;
    }
}

#[tokio::test]
async fn a_connection_that_breaks_in_a_packet_is_lost() {
    let answered = std::sync::atomic::AtomicBool::new(false);
    let session = session_with(move |_, _| {
        let again = answered.swap(true, std::sync::atomic::Ordering::Relaxed);
        (!again).then(|| vec![0, 0, 0, 50, 101])
    });
    let session = session.await;
    let path = root();
    let (a, b) = futures_util::join!(session.lstat(&path), session.lstat(&path));
    assert_eq!(a.unwrap_err().kind, ErrorKind::Disconnected);
    assert_eq!(b.unwrap_err().kind, ErrorKind::Disconnected);
    assert_ended(&session, ErrorKind::Disconnected).await;
}

#[tokio::test(start_paused = true)]
async fn silence_is_a_dead_link_only_while_something_is_owed() {
    let session = session_with(|id, request| match request {
        Request::Rmdir(_) => Some(packet(Reply::status(Status::Ok).encode(id))),
        _ => Some(Vec::new()),
    });
    let session = session.await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    session.rmdir(&root()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let start = tokio::time::Instant::now();
    let error = session.lstat(&root()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout);
    assert_eq!(start.elapsed().as_secs(), 30);
    assert_ended(&session, ErrorKind::Timeout).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_is_heard_from_when_even_a_part_of_an_answer_arrives() {
    // The first bytes of a packet that never becomes whole.
    let session = session_with(|_, request| match request {
        Request::Rmdir(_) => Some(vec![0, 0]),
        _ => Some(Vec::new()),
    });
    let session = session.await;
    for (asks, hears) in [(false, false), (true, true)] {
        let ask = async {
            match asks {
                true => session.rmdir(&root()).await,
                false => session.lstat(&root()).await.map(drop),
            }
        };
        let heard = tokio::time::timeout(Duration::from_secs(20), session.heard());
        let (heard, _never) =
            futures_util::join!(heard, tokio::time::timeout(Duration::from_secs(20), ask));
        assert_eq!(heard.is_ok(), hears);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_greets_is_given_up() {
    let (ours, _theirs) = duplex(64);
    let (reader, writer) = split(ours);
    let started = SftpSession::start(reader, writer, SftpConfig::default()).await;
    assert_eq!(started.err().unwrap().kind, ErrorKind::Timeout);
}

#[tokio::test]
async fn what_is_no_sftp_server_is_told_apart() {
    let (ours, mut theirs) = duplex(1024);
    theirs
        .write_all(b"This account is not available.\n")
        .await
        .unwrap();
    let (reader, writer) = split(ours);
    let started = SftpSession::start(reader, writer, SftpConfig::default()).await;
    assert_eq!(started.err().unwrap().kind, ErrorKind::Protocol);
}

#[tokio::test]
async fn files_opened_for_callers_that_are_gone_are_closed() {
    let server = crate::remote::MemoryServer::new(|| crate::tree::Time::new(0, 0));
    let path = RelPath::parse(b"f").unwrap();
    server.write_file(&path, b"data").unwrap();
    let (ours, theirs) = duplex(1024);
    let (reader, writer) = split(theirs);
    tokio::spawn(crate::remote::serve(reader, writer, server.session()));
    let (reader, writer) = split(ours);
    let session = SftpSession::start(reader, writer, SftpConfig::default())
        .await
        .unwrap();
    let opening = session.open_read(&path);
    // Polled once, so that the request is under way, then dropped.
    assert!(futures_util::future::FutureExt::now_or_never(opening).is_none());
    for _ in 0..3 {
        session.lstat(&path).await.unwrap();
    }
    assert_eq!(server.calls().get("open"), Some(&1));
    assert_eq!(server.open_files(), 0);
}
