//! Programs that run from the home: nobody empties them, as on a disk.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use roamhome::replica::ReplicaError;
use roamhome::tree::{Name, NodeId, Place};
use rustix::fs::{Advice, fadvise};

use crate::support::mounted::TestMount;

/// A running copy of `cat`.
pub(crate) struct Program {
    child: Child,
    input: Option<ChildStdin>,
    copied: Vec<u8>,
}

impl Program {
    /// Runs the file at `path`, which is a copy of `cat`.
    pub(crate) fn run(path: &Path) -> Self {
        let copied = fs::read(path).unwrap();
        let mut child = Command::new(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take(),
            child,
            copied,
        }
    }

    /// It still does what it does, with the same code.
    #[track_caller]
    pub(crate) fn assert_whole(&mut self) {
        self.input.as_mut().unwrap().write_all(b"still\n").unwrap();
        let mut line = [0; 6];
        let output = self.child.stdout.as_mut().unwrap();
        output.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"still\n");
        let image = File::open(format!("/proc/{}/exe", self.child.id())).unwrap();
        // What the kernel has in memory, and what it gets if it has to read it again.
        for _ in 0..2 {
            let mut now = Vec::new();
            (&image).read_to_end(&mut now).unwrap();
            assert!(now == self.copied, "{} bytes now", now.len());
            fadvise(image.as_fd(), 0, None, Advice::DontNeed).unwrap();
            std::io::Seek::rewind(&mut &image).unwrap();
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.input.take();
        // It may have crashed, which `assert_whole` tells.
        drop(self.child.wait());
    }
}

fn emptying(flags: i32) -> impl Fn(&Path) -> std::io::Result<()> {
    move |path| {
        let write = flags & libc::O_ACCMODE != libc::O_RDONLY;
        let read = flags & libc::O_ACCMODE != libc::O_WRONLY;
        let mut options = OpenOptions::new();
        // `OpenOptions` itself refuses to empty for reading.
        options.read(read).write(write);
        options.custom_flags((flags | libc::O_TRUNC) & !libc::O_ACCMODE);
        options.open(path).map(drop)
    }
}

#[test]
fn nobody_empties_a_program_that_runs() {
    let mount = TestMount::new();
    for dir in [mount.outside("disk"), mount.path()] {
        let path = dir.join("program");
        fs::copy("/bin/cat", &path).unwrap();
        fs::hard_link(&path, dir.join("other name")).unwrap();
        let mut program = Program::run(&path);
        for mode in [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR] {
            for more in [0, libc::O_CREAT] {
                for path in [&path, &dir.join("other name")] {
                    let error = emptying(mode | more)(path).expect_err("it was emptied");
                    let errno = error.raw_os_error();
                    assert_eq!(errno, Some(libc::ETXTBSY), "{mode} {more} {path:?}");
                    program.assert_whole();
                }
            }
        }
        let error = rustix::fs::open(&path, rustix::fs::OFlags::WRONLY, 0.into()).unwrap_err();
        assert_eq!(error, rustix::io::Errno::TXTBSY);
        let error = truncate(&path).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ETXTBSY));
        program.assert_whole();

        // It can be replaced, and when it has ended, emptied.
        fs::write(dir.join("new"), "new").unwrap();
        fs::rename(dir.join("new"), &path).unwrap();
        program.assert_whole();
        emptying(libc::O_RDONLY)(&path).unwrap();
        drop(program);
        emptying(libc::O_RDONLY)(&dir.join("other name")).unwrap();
        assert_eq!(fs::metadata(dir.join("other name")).unwrap().len(), 0);
    }
}

fn truncate(path: &Path) -> std::io::Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: a path that ends in a zero byte.
    #[allow(unsafe_code)]
    match unsafe { libc::truncate(path.as_ptr(), 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// The kernel believes that the name is free, and has the file created, and emptied, before it looks whether it may
/// be written to.
#[test]
fn nobody_empties_a_running_program_by_a_name_that_the_kernel_does_not_know() {
    let mount = TestMount::new();
    let path = mount.join("program");
    fs::copy("/bin/cat", &path).unwrap();
    let mut program = Program::run(&path);
    assert!(fs::metadata(mount.join("late")).is_err());
    let id = NodeId(fs::metadata(&path).unwrap().ino());
    let linked = mount.replica.update(|tx| {
        let mut node = tx.node(id)?.unwrap();
        node.nlink += 1;
        tx.link(Place::new(NodeId::ROOT, Name::new(b"late").unwrap()), id)?;
        tx.put_node(node)
    });
    linked.unwrap_or_else(|error: ReplicaError| panic!("{error}"));
    let error = File::create(mount.join("late")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ETXTBSY));
    program.assert_whole();
}
