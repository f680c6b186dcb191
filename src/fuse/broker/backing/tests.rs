use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, chown, symlink};

use super::*;
use crate::fuse::root::{self, Owner};
use crate::fuse::session::Unmount;

const ANN: u32 = 4711;

/// A state directory of an account, with one content file.
fn state() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let fan = state.join("content/0a");
    fs::create_dir_all(&fan).unwrap();
    let content = fan.join("10");
    fs::write(&content, "content").unwrap();
    for path in [&state, &content] {
        chown(path, Some(ANN), Some(ANN)).unwrap();
    }
    (dir, state)
}

#[track_caller]
fn refused(file: File, state: &Path) {
    let checked = check(&file.into(), state, ANN);
    assert!(checked.is_err(), "{checked:?}");
}

fn place(state: &Path, name: &str) -> PathBuf {
    let path = state.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    path
}

#[test]
fn content_of_the_account_is_taken_in_either_place() {
    let (_dir, state) = state();
    let content = state.join("content/0a/10");
    check(&File::open(&content).unwrap().into(), &state, ANN).unwrap();
    let unsent = place(&state, "unsent/0a/10");
    fs::rename(&content, &unsent).unwrap();
    check(&File::open(&unsent).unwrap().into(), &state, ANN).unwrap();
}

#[test]
fn what_is_no_content_of_the_account_is_refused() {
    let (dir, state) = state();
    let content = state.join("content/0a/10");
    // Of somebody else, or in somebody else's replica.
    refused(File::open("/etc/passwd").unwrap(), &state);
    let foreign = place(&state, "content/0b/11");
    fs::write(&foreign, "root's").unwrap();
    refused(File::open(&foreign).unwrap(), &state);
    let other = place(dir.path(), "other/content/0a/10");
    fs::write(&other, "in another place of the same name").unwrap();
    chown(&other, Some(ANN), Some(ANN)).unwrap();
    refused(File::open(&other).unwrap(), &state);
    // Elsewhere in the replica, or below.
    for name in [
        "index.db",
        "staging/0a/10",
        "content/10",
        "content/0a/deep/10",
        "content/0a/x",
    ] {
        let path = place(&state, name);
        fs::write(&path, name).unwrap();
        chown(&path, Some(ANN), Some(ANN)).unwrap();
        refused(File::open(&path).unwrap(), &state);
    }
    // What is no file.
    refused(File::open(state.join("content/0a")).unwrap(), &state);
    refused(File::open("/dev/null").unwrap(), &state);
    refused(File::open("/dev/fuse").unwrap(), &state);
    let (pipe, _writer) = std::io::pipe().unwrap();
    refused(OwnedFd::from(pipe).into(), &state);
    // A descriptor that is good for nothing else, and a file that has lost its name.
    let options = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(&content);
    refused(options.unwrap(), &state);
    let nameless = File::open(&content).unwrap();
    fs::remove_file(&content).unwrap();
    refused(nameless, &state);
}

#[test]
fn no_link_and_no_mount_leads_to_content() {
    let (dir, state) = state();
    let content = state.join("content/0a/10");
    // A directory that is a link, to a place outside.
    let outside = place(dir.path(), "outside/0c/12");
    fs::write(&outside, "outside").unwrap();
    chown(&outside, Some(ANN), Some(ANN)).unwrap();
    symlink(outside.parent().unwrap(), state.join("content/0c")).unwrap();
    refused(File::open(state.join("content/0c/12")).unwrap(), &state);
    // A state directory that is one.
    let link = dir.path().join("link");
    symlink(&state, &link).unwrap();
    refused(File::open(&content).unwrap(), &link);
    // One that is not the account's.
    chown(&state, Some(0), Some(0)).unwrap();
    refused(File::open(&content).unwrap(), &state);
}

/// Takes a mount away.
struct At(PathBuf);

impl Drop for At {
    fn drop(&mut self) {
        root::unmount(&self.0, Unmount::Lazily).unwrap();
    }
}

#[test]
fn only_what_was_told_to_the_kernel_is_taken_back_and_rights_are_as_before() {
    let (dir, state) = state();
    let at = dir.path().join("at");
    fs::create_dir(&at).unwrap();
    let owner = Owner { uid: ANN, gid: ANN };
    let fuse = root::mount("test", &at, owner, true).unwrap();
    let _at = At(at);
    let mut backings = Backings::new(fuse, &state, (ANN, ANN));
    let before = capabilities(None).unwrap();
    let content: OwnedFd = File::open(state.join("content/0a/10")).unwrap().into();
    // Nobody has answered the kernel's first question, so it takes nothing yet.
    assert!(backings.open(&content).is_err());
    assert_eq!(capabilities(None).unwrap().effective, before.effective);
    fs::write(dir.path().join("as root"), "x").unwrap();
    for id in [0, 1, u32::MAX] {
        assert_eq!(
            Errno::from_io_error(&backings.close(id).unwrap_err()),
            Some(Errno::NOENT)
        );
    }
    backings.open.extend(0..MOST as u32);
    let full = backings.open(&content).unwrap_err();
    assert_eq!(Errno::from_io_error(&full), Some(Errno::MFILE));
}

#[test]
fn what_writes_for_an_account_has_no_more_rights_than_to_tell_the_kernel() {
    let rights = as_account(ANN, ANN, || {
        let file = tempfile::tempfile_in("/dev/shm");
        Ok((capabilities(None)?.effective, file.is_ok()))
    });
    assert_eq!(rights.unwrap().0, CapabilitySet::SYS_ADMIN);
}
