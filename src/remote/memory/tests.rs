use super::*;

fn server() -> MemoryServer {
    MemoryServer::new(|| Time::new(1_000, 999_999_999))
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

#[tokio::test]
async fn a_cut_after_a_request_hides_an_effect_that_took_place() {
    let server = server();
    let session = server.session();
    server.trip(1, Trip::CutAfter);
    session.mkdir(&path("a"), 0o755).await.unwrap();
    let lost = session.mkdir(&path("b"), 0o755).await.unwrap_err();
    assert!(lost.is_link_loss() && session.is_closed());
    assert_eq!(
        session.lstat(&path("a")).await.unwrap_err().kind,
        ErrorKind::Disconnected
    );
    server.trip(0, Trip::CutBefore);
    assert!(server.session().mkdir(&path("c"), 0o755).await.is_err());
    let tree: Vec<_> = server.tree().into_keys().collect();
    assert_eq!(tree, [path("a"), path("b")]);
}

#[tokio::test]
async fn held_replies_come_when_let_go_or_with_the_cut() {
    let server = server();
    let session = server.session();
    server.hold(true);
    let (dir, other) = (path("d"), path("e"));
    let mut made = session.mkdir(&dir, 0o755);
    assert!(futures_util::poll!(&mut made).is_pending());
    assert_eq!(server.tree().len(), 1);
    server.hold(false);
    made.await.unwrap();
    server.hold(true);
    let mut made = session.mkdir(&other, 0o755);
    assert!(futures_util::poll!(&mut made).is_pending());
    server.cut();
    assert_eq!(made.await.unwrap_err().kind, ErrorKind::Disconnected);
}

#[tokio::test]
async fn a_restored_server_is_as_it_was() {
    let server = server();
    server.write_file(&path("dir/f"), b"old").unwrap();
    let snapshot = server.snapshot();
    let before = server.tree();
    server.write_file(&path("dir/f"), b"newer").unwrap();
    server.rename(&path("dir/f"), &path("elsewhere/g")).unwrap();
    server.remove(&path("dir")).unwrap();
    let session = server.session();
    server.restore(&snapshot);
    assert!(session.is_closed());
    assert_eq!(server.tree(), before);
    assert_eq!(server.stat(&path("dir/f")).unwrap().mtime, 1_000);
}

#[tokio::test]
async fn a_full_or_read_only_disk_refuses_as_openssh_does() {
    let server = server();
    let session = server.session();
    server.set_capacity(10);
    let handle = session.open_write(&path("f"), 0o644, true).await.unwrap();
    let eight = bytes::Bytes::from_static(b"12345678");
    session.write(&handle, 0, eight.clone()).await.unwrap();
    let full = session.write(&handle, 8, eight).await.unwrap_err();
    assert_eq!(full.kind, ErrorKind::Failure);
    server.set_read_only(true);
    assert_eq!(
        session.remove(&path("f")).await.unwrap_err().kind,
        ErrorKind::Failure
    );
    server
        .write_file(&path("f"), b"a foreigner may")
        .unwrap_err();
    server.write_file(&path("f"), b"unless full").unwrap_err();
    server.write_file(&path("f"), b"it fits").unwrap();
    server.refuse(&path("f"), Some(ErrorKind::PermissionDenied));
    let refused = session.lstat(&path("f")).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn a_listing_counts_as_openssh_would_be_asked() {
    let server = server();
    for i in 0..1_237 {
        server.write_file(&path(&format!("f{i}")), b"").unwrap();
    }
    server.session().list(&RelPath::root()).await.unwrap();
    let calls = server.calls();
    let counted = ["opendir", "readdir", "close"].map(|verb| calls[verb]);
    assert_eq!(counted, [1, 14, 1]);
}
