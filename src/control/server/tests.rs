use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::control::{client, protocol::LeftItem};

/// Answers from a script, and echoes what it was asked.
#[derive(Default)]
struct Scripted {
    left: Left,
    /// Told when somebody asks to unmount.
    unmounted: Option<mpsc::Sender<()>>,
}

fn refuse<T>() -> Result<T, Failure> {
    Err(Failure::new(Code::Unreachable, "offline").remedy("connect"))
}

#[async_trait]
impl Control for Scripted {
    fn pong(&self) -> Pong {
        Pong {
            pid: 7,
            mountpoint: "/m".into(),
            server: "s".into(),
        }
    }
    async fn status(&self) -> Result<Status, Failure> {
        refuse()
    }
    async fn flush(&self, timeout: Option<Duration>, progress: Reporter) -> Result<Left, Failure> {
        progress.report(Progress {
            message: format!("{timeout:?}"),
            ..Progress::default()
        });
        tokio::task::yield_now().await;
        Ok(self.left.clone())
    }
    async fn plan(&self) -> Result<PlanView, Failure> {
        Ok(PlanView::default())
    }
    async fn reconcile(&self, force_guard: bool, _: Reporter) -> Result<Pass, Failure> {
        Ok(Pass {
            summary: format!("forced: {force_guard}"),
            ..Pass::default()
        })
    }
    async fn set_offline(&self, offline: bool) -> Result<String, Failure> {
        Ok(format!("offline: {offline}"))
    }
    async fn freeze(&self, seconds: u64, hold: bool) -> Result<String, Failure> {
        Ok(format!("freeze: {seconds} {hold}"))
    }
    async fn set_password(&self, password: Secret) -> Result<String, Failure> {
        // Whoever shows what it is told shows no password.
        Ok(format!("{password:?} of {}", password.reveal().len()))
    }
    async fn try_again(&self) -> Result<String, Failure> {
        Ok("again".into())
    }
    async fn backups(&self) -> Result<Items, Failure> {
        Ok(Items::default())
    }
    async fn show_backup(&self, _: String) -> Result<Shown, Failure> {
        refuse()
    }
    async fn restore_backup(&self, id: String, to: Option<String>) -> Result<String, Failure> {
        Ok(format!("backup {id} to {to:?}"))
    }
    async fn trash(&self) -> Result<Items, Failure> {
        Ok(Items::default())
    }
    async fn restore_trash(&self, id: String, to: Option<String>) -> Result<String, Failure> {
        Ok(format!("trash {id} to {to:?}"))
    }
    async fn empty_trash(&self, older_than: Option<Duration>) -> Result<String, Failure> {
        Ok(format!("{older_than:?}"))
    }
    async fn conflicts(&self) -> Result<Conflicts, Failure> {
        Ok(Conflicts::default())
    }
    async fn resolve_conflict(&self, id: String, keep: Keep) -> Result<String, Failure> {
        Ok(format!("conflict {id}: {keep:?}"))
    }
    async fn pin(&self, nodes: Vec<u64>, pinned: bool) -> Result<String, Failure> {
        Ok(format!("{nodes:?}: {pinned}"))
    }
    async fn prefetch(&self, nodes: Vec<u64>, _: Reporter) -> Result<Brought, Failure> {
        Ok(Brought {
            files: nodes.len() as u64,
            ..Brought::default()
        })
    }
    async fn evict(&self, nodes: Vec<u64>) -> Result<LetGo, Failure> {
        Ok(LetGo {
            files: nodes.len() as u64,
            ..LetGo::default()
        })
    }
    async fn pins(&self) -> Result<Pins, Failure> {
        Ok(Pins::default())
    }
    async fn entries(&self, _: u64) -> Result<Entries, Failure> {
        Ok(Entries::default())
    }
    async fn machines(&self) -> Result<Machines, Failure> {
        Ok(Machines::default())
    }
    async fn enrol(&self, anew: bool) -> Result<String, Failure> {
        Ok(format!("anew: {anew}"))
    }
    async fn key_line(&self) -> Result<String, Failure> {
        Ok("ssh-ed25519 AAAA".into())
    }
    async fn revoke(&self, machine: String) -> Result<String, Failure> {
        Ok(machine)
    }
    async fn passes(&self) -> Result<Passes, Failure> {
        Ok(Passes::default())
    }
    async fn undo(&self, _: u64, _: bool) -> Result<Undone, Failure> {
        Ok(Undone::default())
    }
    async fn unmount(&self, _: bool, _: Option<Duration>, _: Reporter) -> Result<Left, Failure> {
        if let Some(unmounted) = &self.unmounted {
            unmounted.send(()).await.unwrap();
            // The end begins in the meantime.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Left::default())
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Fixture {
    fn new(control: Scripted) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let server = {
            let _entered = runtime.enter();
            Server::bind(&dir.path().join("run/s.sock"), uid).unwrap()
        };
        runtime.spawn(server.serve(Arc::new(control), std::future::pending()));
        Self {
            dir,
            _runtime: runtime,
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/s.sock")
    }

    fn ask(&self, request: Request) -> Result<Reply, Failure> {
        client::ask(&self.socket(), request, &mut |_| {})
    }

    fn raw(&self, line: &[u8]) -> String {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(self.socket()).unwrap();
        // The server may hang up before it has read all.
        drop(stream.write_all(line));
        let mut answer = String::new();
        drop(stream.read_to_string(&mut answer));
        answer
    }
}

#[test]
fn every_request_reaches_its_method() {
    let fixture = Fixture::new(Scripted::default());
    let done = |message: &str| Reply::Done {
        message: message.into(),
    };
    for (request, expected) in [
        (Request::Offline, done("offline: true")),
        (
            Request::Freeze {
                seconds: 9,
                hold: true,
            },
            done("freeze: 9 true"),
        ),
        (
            Request::Password {
                password: Secret::new("four".into()),
            },
            done("(secret) of 4"),
        ),
        (Request::Online, done("offline: false")),
        (Request::TryAgain, done("again")),
        (
            Request::Reconcile {
                dry_run: true,
                force_guard: true,
            },
            Reply::Plan(PlanView::default()),
        ),
        (
            Request::Reconcile {
                dry_run: false,
                force_guard: true,
            },
            Reply::Pass(Pass {
                summary: "forced: true".into(),
                ..Pass::default()
            }),
        ),
        (
            Request::Backups {
                action: BackupsAction::Restore {
                    id: "7".into(),
                    to: None,
                },
            },
            done("backup 7 to None"),
        ),
        (
            Request::Trash {
                action: TrashAction::Empty {
                    older_than_ms: Some(2000),
                },
            },
            done("Some(2s)"),
        ),
        (
            Request::Unmount {
                flush: true,
                timeout_ms: None,
            },
            Reply::Flushed(Left::default()),
        ),
    ] {
        assert_eq!(fixture.ask(request), Ok(expected));
    }
    let failure = fixture.ask(Request::Status).unwrap_err();
    assert_eq!(failure.code, Code::Unreachable);
    assert_eq!(failure.remedy.as_deref(), Some("connect"));
}

#[test]
fn a_flush_reports_progress_and_what_is_left() {
    let left = Left {
        files: 1,
        bytes: 5,
        items: vec![LeftItem {
            path: "a".into(),
            bytes: 5,
            why: "offline".into(),
        }],
    };
    let fixture = Fixture::new(Scripted {
        left: left.clone(),
        ..Scripted::default()
    });
    let mut seen = Vec::new();
    let request = Request::Flush {
        timeout_ms: Some(1500),
    };
    let reply = client::ask(&fixture.socket(), request, &mut |progress| {
        seen.push(progress.message);
    });
    assert_eq!(reply, Ok(Reply::Flushed(left)));
    assert!(seen.iter().all(|message| message == "Some(1.5s)"));
}

#[test]
fn nonsense_other_versions_and_floods_are_refused_and_the_server_goes_on() {
    let fixture = Fixture::new(Scripted::default());
    let flood = vec![b'x'; REQUEST_MAX_BYTES + 10];
    for (line, expected) in [
        (&b"nonsense\n"[..], "invalid control request"),
        (b"{\"version\":1,\"request\":{\"op\":\"sing\"}}\n", "sing"),
        (b"{\"version\":2,\"whatever\":1}\n", "speaks version 1"),
        (&flood, "longer than"),
    ] {
        let answer = fixture.raw(line);
        assert!(answer.contains(expected), "{answer}");
    }
    assert!(matches!(fixture.ask(Request::Ping), Ok(Reply::Pong(_))));
}

#[test]
fn the_socket_is_private_and_only_a_dead_one_is_replaced() {
    let fixture = Fixture::new(Scripted::default());
    let socket = fixture.socket();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&socket), 0o600);
    assert_eq!(mode(socket.parent().unwrap()), 0o700);

    let uid = rustix::process::geteuid().as_raw();
    let _entered = fixture._runtime.enter();
    let error = Server::bind(&socket, uid).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);

    let stale = fixture.dir.path().join("run/stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let server = Server::bind(&stale, uid).unwrap();
    drop(server);
    assert!(!stale.exists());
}

#[test]
fn who_asked_before_the_end_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("run/s.sock");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (unmounted, mut asked) = mpsc::channel(1);
    let control = Scripted {
        unmounted: Some(unmounted),
        ..Scripted::default()
    };
    let uid = rustix::process::geteuid().as_raw();
    let server = {
        let _entered = runtime.enter();
        Server::bind(&socket, uid).unwrap()
    };
    let path = socket.clone();
    let client = std::thread::spawn(move || {
        while !client::is_served(&path) {}
        let request = Request::Unmount {
            flush: true,
            timeout_ms: None,
        };
        client::ask(&path, request, &mut |_| {})
    });
    let over = async move { asked.recv().await.unwrap() };
    runtime.block_on(server.serve(Arc::new(control), over));
    runtime.shutdown_background();
    assert_eq!(client.join().unwrap(), Ok(Reply::Flushed(Left::default())));
    assert!(!socket.exists());
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let stranger = rustix::process::geteuid().as_raw() + 1;
    let error = Server::bind(&dir.path().join("s"), stranger).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
}
