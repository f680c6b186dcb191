//! The claims. Each gets a connection to an empty home of its own.

use std::collections::BTreeSet;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use roamhome::remote::{
    ErrorKind, Remote, RemoteError, Session, SetStat, TransferError, Upload, download, upload,
};
use roamhome::tree::{Kind, Name, RelPath};

type Claim = fn(Remote) -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! claims {
    ($($name:ident),* $(,)?) => {
        /// All claims by name.
        pub(super) const CLAIMS: &[(&str, Claim)] = &[
            $((stringify!($name), |remote| Box::pin($name(remote)))),*
        ];
    };
}

claims![
    names_are_bytes,
    listings_are_whole,
    exclusive_creation_is_exclusive,
    rename_never_replaces,
    posix_rename_replaces,
    a_hard_link_keeps_the_file,
    listings_tell_how_many_names_a_file_has,
    a_handle_survives_replacement,
    attributes_are_set_exactly,
    links_are_not_followed_where_it_matters,
    failures_are_told_apart_as_far_as_they_can_be,
    a_burst_is_worked_on_in_order,
    reads_end_with_the_file,
    ranges_are_copied_on_the_server,
    whole_files_go_up_and_down,
    a_changed_file_is_noticed,
    free_space_is_told,
];

fn path(bytes: impl AsRef<[u8]>) -> RelPath {
    RelPath::parse(bytes.as_ref()).unwrap()
}

async fn write(s: &dyn Session, at: &RelPath, data: &[u8]) {
    let handle = s.open_write(at, 0o644, true).await.unwrap();
    s.write(&handle, 0, Bytes::copy_from_slice(data))
        .await
        .unwrap();
    s.close(handle).await.unwrap();
}

async fn read(s: &dyn Session, at: &RelPath) -> Vec<u8> {
    let handle = s.open_read(at).await.unwrap();
    let data = s.read(&handle, 0, 1 << 15).await.unwrap();
    s.close(handle).await.unwrap();
    data.to_vec()
}

fn kind<T: std::fmt::Debug>(result: Result<T, RemoteError>) -> ErrorKind {
    result.unwrap_err().kind
}

async fn names_are_bytes(remote: Remote) {
    let s = &**remote.interactive();
    let names = [
        &b"caf\xe9 \xff\xfe"[..],
        b" ",
        b"-rf",
        b"a\nb",
        &[0xf0; 255],
        b"\\",
        b"...",
    ];
    for name in names {
        write(s, &path(name), name).await;
    }
    let listed = s.list(&RelPath::root()).await.unwrap();
    let listed: BTreeSet<_> = listed.into_iter().map(|e| e.name).collect();
    assert_eq!(
        listed,
        names.iter().map(|n| Name::new(n).unwrap()).collect()
    );
    for name in names {
        assert_eq!(read(s, &path(name)).await, name);
    }
}

async fn listings_are_whole(remote: Remote) {
    let s = &**remote.interactive();
    let dir = path("dir");
    s.mkdir(&dir, 0o755).await.unwrap();
    assert!(s.list(&dir).await.unwrap().is_empty());
    let name = |i: u32| Name::new(format!("entry {i}").as_bytes()).unwrap();
    let made = join_all((0..1_237).map(|i| {
        let at = dir.join(&name(i));
        async move { s.mkdir(&at, 0o700).await }
    }));
    assert!(made.await.iter().all(Result::is_ok));
    let listed = s.list(&dir).await.unwrap();
    assert_eq!(listed.len(), 1_237);
    assert!(
        listed
            .iter()
            .all(|e| e.stat.kind == Kind::Dir && e.stat.mode == 0o700)
    );
    let listed: BTreeSet<_> = listed.into_iter().map(|e| e.name).collect();
    assert_eq!(listed, (0..1_237).map(name).collect());
    assert_eq!(kind(s.list(&path("missing")).await), ErrorKind::NotFound);
}

async fn exclusive_creation_is_exclusive(remote: Remote) {
    let s = &**remote.interactive();
    let file = path("f");
    write(s, &file, b"first").await;
    assert_eq!(
        kind(s.open_write(&file, 0o644, true).await),
        ErrorKind::Failure
    );
    let handle = s.open_write(&file, 0o644, false).await.unwrap();
    s.write(&handle, 5, Bytes::from_static(b" more"))
        .await
        .unwrap();
    s.close(handle).await.unwrap();
    assert_eq!(read(s, &file).await, b"first more");
    assert_eq!(kind(s.mkdir(&file, 0o755).await), ErrorKind::Failure);
}

async fn rename_never_replaces(remote: Remote) {
    let s = &**remote.interactive();
    let (a, b, c) = (path("a"), path("b"), path("c"));
    write(s, &a, b"a").await;
    write(s, &b, b"b").await;
    assert_eq!(kind(s.rename(&a, &b).await), ErrorKind::Failure);
    assert_eq!(
        (read(s, &a).await, read(s, &b).await),
        (b"a".to_vec(), b"b".to_vec())
    );
    s.rename(&a, &c).await.unwrap();
    assert_eq!(kind(s.lstat(&a).await), ErrorKind::NotFound);
    assert_eq!(read(s, &c).await, b"a");
    s.mkdir(&a, 0o755).await.unwrap();
    assert_eq!(kind(s.rename(&a, &c).await), ErrorKind::Failure);
    s.rename(&a, &path("d")).await.unwrap();
}

async fn posix_rename_replaces(remote: Remote) {
    let s = &**remote.interactive();
    let (a, b, d) = (path("a"), path("b"), path("d"));
    write(s, &a, b"a").await;
    write(s, &b, b"b").await;
    s.posix_rename(&a, &b).await.unwrap();
    assert_eq!(read(s, &b).await, b"a");
    assert_eq!(kind(s.lstat(&a).await), ErrorKind::NotFound);
    s.mkdir(&d, 0o755).await.unwrap();
    assert_eq!(kind(s.posix_rename(&b, &d).await), ErrorKind::Failure);
    assert_eq!(
        kind(s.posix_rename(&d, &path("d/e")).await),
        ErrorKind::Failure
    );
    // Two names of one file: nothing happens, and both stay.
    s.hardlink(&b, &a).await.unwrap();
    s.posix_rename(&a, &b).await.unwrap();
    assert_eq!(
        (read(s, &a).await, read(s, &b).await),
        (b"a".to_vec(), b"a".to_vec())
    );
}

async fn a_hard_link_keeps_the_file(remote: Remote) {
    let s = &**remote.interactive();
    let (a, b) = (path("a"), path("b"));
    write(s, &a, b"kept").await;
    s.hardlink(&a, &b).await.unwrap();
    assert_eq!(kind(s.hardlink(&a, &b).await), ErrorKind::Failure);
    s.remove(&a).await.unwrap();
    assert_eq!(read(s, &b).await, b"kept");
    assert_eq!(kind(s.hardlink(&a, &path("c")).await), ErrorKind::NotFound);
}

async fn listings_tell_how_many_names_a_file_has(remote: Remote) {
    let s = &**remote.interactive();
    let (a, b) = (path("a"), path("b"));
    write(s, &a, b"of two names").await;
    s.hardlink(&a, &b).await.unwrap();
    let links = async || {
        let entries = s.list(&RelPath::root()).await.unwrap().into_iter();
        entries.map(|entry| entry.links).collect::<Vec<_>>()
    };
    assert_eq!(links().await, [Some(2), Some(2)]);
    s.remove(&b).await.unwrap();
    assert_eq!(links().await, [Some(1)]);
}

async fn a_handle_survives_replacement(remote: Remote) {
    let s = &**remote.interactive();
    let (a, b) = (path("a"), path("b"));
    write(s, &a, b"old").await;
    write(s, &b, b"newer").await;
    let handle = s.open_read(&a).await.unwrap();
    s.posix_rename(&b, &a).await.unwrap();
    assert_eq!(&s.read(&handle, 0, 100).await.unwrap()[..], b"old");
    assert_eq!(s.fstat(&handle).await.unwrap().size, 3);
    s.close(handle).await.unwrap();
    assert_eq!(read(s, &a).await, b"newer");
}

async fn attributes_are_set_exactly(remote: Remote) {
    let s = &**remote.interactive();
    let file = path("f");
    write(s, &file, b"12345678").await;
    let set = SetStat {
        size: Some(5),
        mode: Some(0o640),
        mtime: Some(1_000_000_007),
    };
    s.setstat(&file, set).await.unwrap();
    let stat = s.lstat(&file).await.unwrap();
    let seen = (stat.kind, stat.size, stat.mode, stat.mtime);
    assert_eq!(seen, (Kind::File, 5, 0o640, 1_000_000_007));
    let handle = s.open_write(&file, 0o644, false).await.unwrap();
    let set = SetStat {
        mtime: Some(4_000_000_000),
        ..SetStat::default()
    };
    s.fsetstat(&handle, set).await.unwrap();
    s.fsync(&handle).await.unwrap();
    s.close(handle).await.unwrap();
    assert_eq!(s.lstat(&file).await.unwrap().mtime, 4_000_000_000);
}

async fn links_are_not_followed_where_it_matters(remote: Remote) {
    let s = &**remote.interactive();
    let (link, file) = (path("link"), path("file"));
    s.symlink(&link, b"fi\xffle/../file").await.unwrap();
    assert_eq!(s.readlink(&link).await.unwrap(), b"fi\xffle/../file");
    assert_eq!(s.lstat(&link).await.unwrap().kind, Kind::Symlink);
    assert_eq!(kind(s.symlink(&link, b"x").await), ErrorKind::Failure);
    write(s, &file, b"data").await;
    assert!(s.readlink(&file).await.is_err());
    let set = SetStat {
        mtime: Some(1_000_000_000),
        ..SetStat::default()
    };
    s.lsetstat(&link, set).await.unwrap();
    assert_eq!(s.lstat(&link).await.unwrap().mtime, 1_000_000_000);
    assert_ne!(s.lstat(&file).await.unwrap().mtime, 1_000_000_000);
    let set = SetStat {
        mode: Some(0o640),
        ..SetStat::default()
    };
    let dir = path("dir");
    s.mkdir(&dir, 0o755).await.unwrap();
    for at in [&file, &dir] {
        s.lsetstat(at, set).await.unwrap();
        assert_eq!(s.lstat(at).await.unwrap().mode, 0o640);
    }
    // A link has no mode of its own that could be set.
    let before = s.lstat(&link).await.unwrap().mode;
    assert!(s.lsetstat(&link, set).await.is_err());
    assert_eq!(s.lstat(&link).await.unwrap().mode, before);
    s.remove(&link).await.unwrap();
    assert_eq!(read(s, &file).await, b"data");
}

async fn failures_are_told_apart_as_far_as_they_can_be(remote: Remote) {
    let s = &**remote.interactive();
    let (dir, file) = (path("d"), path("d/f"));
    assert_eq!(kind(s.lstat(&dir).await), ErrorKind::NotFound);
    s.mkdir(&dir, 0o755).await.unwrap();
    write(s, &file, b"").await;
    assert_eq!(kind(s.rmdir(&dir).await), ErrorKind::Failure);
    assert_eq!(kind(s.rmdir(&file).await), ErrorKind::NotFound);
    assert_eq!(kind(s.lstat(&path("d/f/x")).await), ErrorKind::NotFound);
    s.symlink(&path("loop"), b"loop").await.unwrap();
    assert_eq!(kind(s.open_read(&path("loop")).await), ErrorKind::NotFound);
    assert_eq!(
        kind(s.open_write(&dir, 0o644, false).await),
        ErrorKind::Failure
    );
    let error = s.remove(&path("gone")).await.unwrap_err();
    assert_eq!((error.op, error.path), ("remove", path("gone")));
}

async fn a_burst_is_worked_on_in_order(remote: Remote) {
    let s = &**remote.interactive();
    let (a, b, kept) = (path("a"), path("b"), path("kept"));
    write(s, &a, b"1").await;
    let (linked, renamed, at_a, at_b) = futures_util::join!(
        s.hardlink(&a, &kept),
        s.posix_rename(&a, &b),
        s.lstat(&a),
        s.lstat(&b),
    );
    linked.unwrap();
    renamed.unwrap();
    assert_eq!(kind(at_a), ErrorKind::NotFound);
    assert_eq!(at_b.unwrap().size, 1);
}

async fn reads_end_with_the_file(remote: Remote) {
    let s = &**remote.interactive();
    let file = path("f");
    write(s, &file, b"abc").await;
    let handle = s.open_read(&file).await.unwrap();
    assert_eq!(&s.read(&handle, 1, 100).await.unwrap()[..], b"bc");
    assert!(s.read(&handle, 3, 100).await.unwrap().is_empty());
    assert!(s.read(&handle, 1 << 40, 1).await.unwrap().is_empty());
    assert!(s.write(&handle, 0, Bytes::from_static(b"x")).await.is_err());
    s.close(handle.clone()).await.unwrap();
    assert!(s.fstat(&handle).await.is_err());
}

async fn ranges_are_copied_on_the_server(remote: Remote) {
    let s = &**remote.interactive();
    write(s, &path("old"), b"0123456789").await;
    let from = s.open_read(&path("old")).await.unwrap();
    let to = s.open_write(&path("new"), 0o644, true).await.unwrap();
    let copied = s.copy_data(&from, 2, 5, &to, 1).await;
    try_join_all([s.close(from), s.close(to)]).await.unwrap();
    // A server that does not offer it is not asked.
    let (kind, content) = match s.features().copy_data {
        true => (None, &b"\x0023456"[..]),
        false => (Some(ErrorKind::Unsupported), &b""[..]),
    };
    assert_eq!(copied.err().map(|error| error.kind), kind);
    assert_eq!(read(s, &path("new")).await, content);
}

fn pattern(len: u64) -> Vec<u8> {
    (0..len).map(|i| (i / 251 + i) as u8).collect()
}

async fn whole_files_go_up_and_down(remote: Remote) {
    let s = &**remote.bulk();
    for size in [0, 1, 70_000, 6_000_001] {
        let file = path(format!("f{size}"));
        let data = pattern(size);
        let mut source = |offset: u64, len: u32| {
            Ok(Bytes::copy_from_slice(
                &data[offset as usize..][..len as usize],
            ))
        };
        let mut what = Upload {
            size,
            resume_at: 0,
            mode: 0o600,
            mtime: 1_234_567_890,
            fsync: true,
        };
        let mut acked = 0;
        upload(s, &file, what, &mut source, &mut |n| acked = n)
            .await
            .unwrap();
        assert_eq!(acked, size);
        let mut got = vec![0; size as usize];
        let mut sink = |offset: u64, piece: Bytes| {
            got[offset as usize..][..piece.len()].copy_from_slice(&piece);
            Ok(())
        };
        let stat = download(s, &file, size, 0, &mut sink).await.unwrap();
        assert!(got == data);
        assert_eq!(
            (stat.mode, stat.mtime, stat.size),
            (0o600, 1_234_567_890, size)
        );
        // On from the middle, after an attempt that wrote too much.
        if size > 1 {
            what.resume_at = size / 2;
            what.size = size - 1;
            upload(s, &file, what, &mut source, &mut |_| {})
                .await
                .unwrap();
            assert_eq!(s.lstat(&file).await.unwrap().size, size - 1);
        }
    }
}

async fn a_changed_file_is_noticed(remote: Remote) {
    let s = &**remote.interactive();
    let file = path("f");
    write(s, &file, b"12345").await;
    for expected in [4, 6, 1 << 20] {
        let read = download(s, &file, expected, 0, &mut |_, _| Ok(())).await;
        match read {
            Err(TransferError::Changed { now, .. }) => assert_eq!(now.size, 5),
            other => panic!("{other:?}"),
        }
    }
    let mut full = |_, _| Err(std::io::ErrorKind::StorageFull.into());
    let failing = download(s, &file, 5, 0, &mut full);
    assert!(matches!(failing.await, Err(TransferError::Local { .. })));
}

async fn free_space_is_told(remote: Remote) {
    let vfs = remote.interactive().statvfs().await.unwrap();
    assert!(vfs.total_bytes >= vfs.available_bytes && vfs.available_bytes > 0);
}
