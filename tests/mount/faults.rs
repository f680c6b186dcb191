//! Whatever goes wrong inside, the mount serves on.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use roamhome::tree::{NodeId, Time};

use crate::support::mounted::TestMount;

/// More than the mount has threads.
const MANY: usize = 20;

fn set_times(path: &Path, secs: i64, nanos: i64) -> std::io::Result<()> {
    let path = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    let time = libc::timespec {
        tv_sec: secs,
        tv_nsec: nanos,
    };
    // SAFETY: a path that ends in a zero byte, and two times.
    #[allow(unsafe_code)]
    match unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), [time, time].as_ptr(), 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[test]
fn any_time_can_be_set_and_reads_as_the_nearest_that_can_be_kept() {
    let mount = TestMount::new();
    let path = mount.join("f");
    fs::write(&path, "x").unwrap();
    let extremes = [i64::MIN, i64::MIN + 1, -(1 << 40), -1, 0, 1 << 40, i64::MAX];
    for _ in 0..MANY {
        for secs in extremes {
            for nanos in [0, 1, 999_999_999] {
                set_times(&path, secs, nanos).unwrap();
                let kept = Time::new(secs, u32::try_from(nanos).unwrap());
                let meta = fs::metadata(&path).unwrap();
                assert_eq!(meta.mtime(), kept.secs(), "{secs} {nanos}");
                assert_eq!(meta.atime(), kept.secs(), "{secs} {nanos}");
            }
        }
    }
    let before = fs::metadata(&path).unwrap();
    let mount = mount.remount();
    let after = fs::metadata(mount.join("f")).unwrap();
    assert_eq!(
        (after.mtime(), after.mtime_nsec()),
        (before.mtime(), before.mtime_nsec())
    );
}

#[test]
fn a_panic_in_an_operation_is_an_error_to_its_caller_and_nothing_to_all_others() {
    let mount = TestMount::new();
    mount.server.put_file(NodeId::ROOT, "far", b"hello");
    mount.server.put_dir(NodeId::ROOT, "d", &["one"]);
    mount.server.broken.store(true, Ordering::Relaxed);
    for _ in 0..MANY {
        for error in [
            File::open(mount.join("far")).unwrap_err(),
            fs::metadata(mount.join("d/one")).unwrap_err(),
            fs::create_dir(mount.join("d/new")).unwrap_err(),
        ] {
            assert_eq!(error.raw_os_error(), Some(libc::EIO));
        }
        fs::write(mount.join("near"), "x").unwrap();
    }
    mount.server.broken.store(false, Ordering::Relaxed);
    assert_eq!(fs::read(mount.join("far")).unwrap(), b"hello");
    assert!(fs::metadata(mount.join("d/one")).is_ok());
}
