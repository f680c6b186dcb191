//! Files that the kernel reads and writes by itself, in the content file, without the daemon.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use roamhome::replica::{Content, Node, ReplicaError};
use roamhome::tree::NodeId;

use crate::support::memory::Shared;
use crate::support::mounted::{ALL_BY_KERNEL, TestMount};

const PAGE: usize = 4096;

/// As long as anything may take that the daemon does by itself.
const PATIENCE: Duration = Duration::from_secs(30);

fn node(mount: &TestMount, path: &Path) -> Node {
    let id = NodeId(fs::symlink_metadata(path).unwrap().ino());
    row(mount, id)
}

fn row(mount: &TestMount, id: NodeId) -> Node {
    let node = mount.replica.view::<_, ReplicaError>(|view| view.node(id));
    node.unwrap().unwrap()
}

/// As if the content had been sent.
fn agree(mount: &TestMount, path: &Path) -> Node {
    let id = node(mount, path).id;
    let hash = blake3::hash(&fs::read(path).unwrap());
    mount
        .replica
        .update::<_, ReplicaError>(|tx| {
            let mut node = tx.node(id)?.unwrap();
            node.data_changed = false;
            node.hash = Some(roamhome::tree::Hash(*hash.as_bytes()));
            tx.put_node(node)
        })
        .unwrap();
    std::thread::sleep(Duration::from_millis(120));
    row(mount, id)
}

#[track_caller]
fn wait_until(what: &str, is: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < until, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn rw(path: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

#[test]
fn who_opens_to_write_and_does_not_has_changed_nothing() {
    let mount = TestMount::with(ALL_BY_KERNEL);
    let path = mount.join("f");
    fs::write(&path, "as agreed").unwrap();
    let before = agree(&mount, &path);
    let file = rw(&path);
    assert_eq!(
        file.metadata().unwrap().mtime_nsec(),
        i64::from(before.mtime.subsec_nanos())
    );
    let mut text = String::new();
    (&file).read_to_string(&mut text).unwrap();
    drop(file);
    wait_until("nobody has it open", || {
        !mount.replica.opens().is_open(before.id)
    });
    assert_eq!(row(&mount, before.id), before);
    assert_eq!(mount.replica.in_flight().unwrap(), []);
    assert_eq!(text, "as agreed");
}

#[test]
fn what_the_kernel_wrote_is_in_the_row_while_it_is_open_and_after() {
    let mount = TestMount::with(ALL_BY_KERNEL);
    let path = mount.join("f");
    fs::write(&path, "before").unwrap();
    let before = agree(&mount, &path);
    let file = rw(&path);
    file.write_all_at(b"after it", 0).unwrap();
    let shown = fs::metadata(&path).unwrap();
    assert_eq!(shown.len(), 8);
    assert!(
        shown.modified().unwrap()
            > SystemTime::UNIX_EPOCH + Duration::from_nanos(before.mtime.0 as u64)
    );
    wait_until("the row tells of it", || {
        row(&mount, before.id).data_changed
    });
    file.sync_all().unwrap();
    let now = row(&mount, before.id);
    assert_eq!((now.size, now.data_changed), (8, true));
    // Once more, as if all that had been sent.
    agree(&mount, &path);
    file.write_all_at(b"B", 0).unwrap();
    drop(file);
    wait_until("nobody has it open", || {
        !mount.replica.opens().is_open(before.id)
    });
    let now = row(&mount, before.id);
    assert!(now.data_changed && now.data_seq > before.data_seq);
    assert_eq!(fs::read(&path).unwrap(), b"Bfter it");
}

#[test]
fn a_mapping_that_outlives_its_descriptor_is_a_writer_until_it_goes() {
    let mount = TestMount::with(ALL_BY_KERNEL);
    let path = mount.join("f");
    fs::write(&path, vec![b'a'; 3 * PAGE]).unwrap();
    let before = agree(&mount, &path);
    let file = rw(&path);
    let memory = Shared::of(&file, 3 * PAGE, true);
    drop(file);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(mount.replica.opens().writers(before.id), 1);
    memory.set(PAGE + 1, b'b');
    wait_until("the row tells of it", || {
        row(&mount, before.id).data_changed
    });
    // Whoever opens it now sees the same, and both see what the other does.
    let other = rw(&path);
    let mut byte = [0];
    other.read_exact_at(&mut byte, PAGE as u64 + 1).unwrap();
    assert_eq!(byte, *b"b");
    other.write_all_at(b"c", 0).unwrap();
    assert_eq!(memory.get(0), b'c');
    drop(other);
    agree(&mount, &path);
    // The page is known to be written to already: no time changes any more.
    memory.set(PAGE + 1, b'd');
    drop(memory);
    wait_until("nobody uses it", || {
        !mount.replica.opens().is_open(before.id)
    });
    assert!(row(&mount, before.id).data_changed);
    assert_eq!(fs::read(&path).unwrap()[PAGE + 1], b'd');
}

#[test]
fn readers_and_writers_of_every_kind_see_one_content() {
    let mount = TestMount::with(ALL_BY_KERNEL);
    let path = mount.join("f");
    fs::write(&path, vec![b'0'; 2 * PAGE]).unwrap();
    let reader = File::open(&path).unwrap();
    let seen = Shared::of(&reader, 2 * PAGE, false);
    let byte = |at: u64| {
        let mut byte = [0];
        reader.read_exact_at(&mut byte, at).unwrap();
        byte[0]
    };
    // A plain writer, one who appends, one past all caches, one whose writes are synced, and one by mapping.
    rw(&path).write_all_at(b"1", 0).unwrap();
    assert_eq!((byte(0), seen.get(0)), (b'1', b'1'));
    let mut adds = OpenOptions::new().append(true).open(&path).unwrap();
    adds.write_all(b"2").unwrap();
    assert_eq!(byte(2 * PAGE as u64), b'2');
    assert_eq!(adds.metadata().unwrap().len(), 2 * PAGE as u64 + 1);
    assert_eq!(adds.seek(SeekFrom::End(0)).unwrap(), 2 * PAGE as u64 + 1);
    let synced = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_SYNC)
        .open(&path)
        .unwrap();
    synced.write_all_at(b"3", 1).unwrap();
    assert_eq!((byte(1), seen.get(1)), (b'3', b'3'));
    let direct = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path);
    drop(direct.unwrap());
    let writer = rw(&path);
    let memory = Shared::of(&writer, 2 * PAGE, true);
    memory.set(2, b'4');
    assert_eq!((byte(2), seen.get(2)), (b'4', b'4'));
    // Copied into it, cut and emptied by its name and by a new open.
    let source = mount.join("source");
    fs::write(&source, "copied").unwrap();
    let source = File::open(&source).unwrap();
    rustix::fs::copy_file_range(&source, Some(&mut 0), &writer, Some(&mut 100), 6).unwrap();
    assert_eq!((byte(100), seen.get(105)), (b'c', b'd'));
    rustix::fs::fallocate(
        &writer,
        rustix::fs::FallocateFlags::empty(),
        0,
        5 * PAGE as u64,
    )
    .unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 5 * PAGE as u64);
    let cut = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    nix::unistd::truncate(cut.as_c_str(), 3).unwrap();
    assert_eq!(writer.metadata().unwrap().len(), 3);
    assert_eq!(fs::read(&path).unwrap(), b"134");
    drop(File::create(&path).unwrap());
    assert_eq!(reader.metadata().unwrap().len(), 0);
    writer.write_all_at(b"anew", 0).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"anew");
    drop((memory, seen));
    // The last close, and then by the kernel's own cache.
    drop((reader, adds, synced, writer, source));
    assert_eq!(fs::read(&path).unwrap(), b"anew");
}

#[test]
fn emptying_what_the_server_has_empties_what_readers_have_open() {
    let mount = TestMount::with(ALL_BY_KERNEL);
    for by_name in [true, false] {
        let path = mount.join("f");
        fs::write(&path, "agreed").unwrap();
        agree(&mount, &path);
        let reader = File::open(&path).unwrap();
        match by_name {
            true => nix::unistd::truncate(&path, 0).unwrap(),
            false => drop(File::create(&path).unwrap()),
        }
        let mut all = Vec::new();
        (&reader).read_to_end(&mut all).unwrap();
        assert_eq!(all, b"");
        rw(&path).write_all_at(b"new", 0).unwrap();
        (&reader).read_to_end(&mut all).unwrap();
        assert_eq!(all, b"new");
    }
}

#[test]
fn a_file_without_a_name_and_one_that_was_replaced_live_on_with_who_has_them() {
    let mount = TestMount::with(ALL_BY_KERNEL);
    let (path, other) = (mount.join("f"), mount.join("g"));
    fs::write(&path, "old").unwrap();
    fs::write(&other, "new").unwrap();
    let id = agree(&mount, &path).id;
    let file = rw(&path);
    fs::rename(&other, &path).unwrap();
    file.write_all_at(b"O", 0).unwrap();
    let mut text = String::new();
    (&file).read_to_string(&mut text).unwrap();
    assert_eq!(
        (text.as_str(), fs::read(&path).unwrap()),
        ("Old", b"new".to_vec())
    );
    let again = rw(&path);
    fs::remove_file(&path).unwrap();
    again.write_all_at(b"N", 0).unwrap();
    let mut all = [0; 3];
    again.read_exact_at(&mut all, 0).unwrap();
    assert_eq!(all, *b"New");
    drop((file, again));
    let gone = |id| {
        let node = mount.replica.view::<_, ReplicaError>(|view| view.node(id));
        node.unwrap().is_none()
    };
    wait_until("it is gone", || gone(id));
    assert_eq!(mount.replica.in_flight().unwrap(), []);
}

#[test]
fn times_that_a_program_sets_count_and_a_mode_loses_what_writing_takes() {
    let mount = TestMount::with(ALL_BY_KERNEL);
    let path = mount.join("f");
    fs::write(&path, "x").unwrap();
    let before = agree(&mount, &path);
    let file = rw(&path);
    file.write_all_at(b"y", 0).unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    file.set_modified(then).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), then);
    drop(file);
    wait_until("nobody has it open", || {
        !mount.replica.opens().is_open(before.id)
    });
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), then);
    let now = row(&mount, before.id);
    assert!(now.data_changed);
    assert_eq!(now.mtime.0, 1_000_000_000_123_456_789);
}

/// A copy is taken only when nothing is torn: each page has the same byte.
#[test]
fn a_snapshot_beside_writers_by_the_kernel_is_whole_or_none() {
    let mount = TestMount::with(ALL_BY_KERNEL);
    let path = mount.join("f");
    const PAGES: usize = 256;
    fs::write(&path, vec![1; PAGES * PAGE]).unwrap();
    let id = agree(&mount, &path).id;
    let file = rw(&path);
    let memory = Shared::of(&file, PAGES * PAGE, true);
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for byte in (2..250_u8).cycle() {
                if over.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                match byte % 2 {
                    0 => file.write_all_at(&vec![byte; PAGES * PAGE], 0).unwrap(),
                    _ => (0..PAGES * PAGE).for_each(|at| memory.set(at, byte)),
                }
                std::thread::sleep(Duration::from_millis(u64::from(byte % 7) * 30));
            }
        });
        let mut taken = 0;
        for _ in 0..40 {
            if let Some(snapshot) = mount.replica.snapshot(id).unwrap() {
                let mut bytes = Vec::new();
                let file = snapshot.file.unwrap();
                let mut file = &file.file;
                file.rewind().unwrap();
                file.read_to_end(&mut bytes).unwrap();
                assert_eq!(bytes.len(), PAGES * PAGE);
                assert!(bytes.iter().all(|byte| *byte == bytes[0]), "torn");
                assert_eq!(snapshot.node.content, Content::Whole);
                taken += 1;
            }
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(taken > 0, "never at rest");
    });
}

#[test]
fn a_file_that_came_to_be_meanwhile_is_opened_by_who_wants_to_create_it() {
    let mount = TestMount::with(ALL_BY_KERNEL);
    let path = mount.join("f");
    assert!(fs::metadata(&path).is_err());
    fs::write(mount.join("g"), "g").unwrap();
    // The kernel remembers that there is no `f`; by the replica's hand, and not by the kernel's, there is one.
    let g = node(&mount, &mount.join("g")).id;
    let _open = File::open(mount.join("g")).unwrap();
    let name = roamhome::tree::Name::new(b"f").unwrap();
    let place = roamhome::tree::Place::new(NodeId::ROOT, name);
    mount
        .replica
        .update::<_, ReplicaError>(|tx| {
            let mut node = tx.node(g)?.unwrap();
            node.nlink = 2;
            tx.put_node(node)?;
            tx.link(place, g)
        })
        .unwrap();
    let made = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(&path)
        .unwrap();
    (&made).write_all(b"h").unwrap();
    assert_eq!(fs::read(mount.join("g")).unwrap(), b"gh");
}
