//! `roamhome demo`: the story comes true, and nothing is left of it, however it ends. The demo checks its own
//! steps, so here is only what it cannot see itself.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use tempfile::TempDir;

/// A demo that runs, with its temporary directory in ours.
struct Demo {
    child: Child,
    transcript: BufReader<std::process::ChildStdout>,
    dir: TempDir,
}

impl Demo {
    fn start(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_roamhome"))
            .arg("demo")
            .args(args)
            .env("TMPDIR", dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let transcript = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            transcript,
            dir,
        }
    }

    /// Reads on to the first line that begins with `start`.
    fn read_to(&mut self, start: &str) -> String {
        let mut read = String::new();
        loop {
            let from = read.len();
            let more = self.transcript.read_line(&mut read).unwrap();
            assert!(more > 0, "no {start:?} in the transcript:\n{read}");
            if read[from..].starts_with(start) {
                return read;
            }
        }
    }

    /// Waits for the end, after which nothing may be left.
    fn end(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.transcript, &mut rest).unwrap();
        let status = self.child.wait().unwrap();
        assert_nothing_left(self.dir.path());
        (status, rest)
    }
}

#[track_caller]
fn assert_nothing_left(dir: &Path) {
    assert_eq!(mounts_below(dir), 0);
    let files: Vec<_> = fs::read_dir(dir).unwrap().collect();
    assert!(files.is_empty(), "{files:?}");
    for process in fs::read_dir("/proc").unwrap() {
        // Others end while we look, or are not ours to look at.
        let environ = fs::read(process.unwrap().path().join("environ")).unwrap_or_default();
        let ours = format!("TMPDIR={}\0", dir.display());
        assert!(!String::from_utf8_lossy(&environ).contains(&ours));
    }
}

fn mounts_below(dir: &Path) -> usize {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let below = format!(" {}/", dir.display());
    mounts.lines().filter(|line| line.contains(&below)).count()
}

#[test]
fn the_demo_tells_the_truth_and_leaves_nothing_behind() {
    let (status, transcript) = Demo::start(&[]).end();
    assert!(status.success(), "{transcript}");
    assert!(transcript.contains("1 rename, 0 bytes of content"));
}

#[test]
fn a_demo_that_is_kept_serves_until_enter() {
    let mut demo = Demo::start(&["--keep"]);
    demo.read_to("# Enter or Ctrl-C");
    assert_eq!(mounts_below(demo.dir.path()), 2);
    demo.child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(demo.end().0.success());
}

#[test]
fn a_demo_that_is_interrupted_leaves_nothing_behind() {
    let mut demo = Demo::start(&[]);
    demo.read_to("$ roamhome offline");
    let pid = rustix::process::Pid::from_child(&demo.child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let (status, _) = demo.end();
    assert_eq!(status.code(), Some(1));
}
