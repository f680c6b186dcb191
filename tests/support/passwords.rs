//! An SSH server on loopback that lets in whoever knows a password. A real sshd would ask the machine's accounts.

use std::collections::HashMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use roamhome::remote::{LocalSession, generate_identity, serve};
use russh::keys::load_secret_key;
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Response, Session, run_stream};
use russh::{Channel, ChannelId, MethodKind, MethodSet};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// The running server; stops when dropped.
pub(crate) struct PasswordServer {
    /// Where it listens on 127.0.0.1.
    pub(crate) port: u16,
    /// A file that knows its host key.
    pub(crate) known_hosts: PathBuf,
    counts: Arc<Counts>,
    _runtime: Runtime,
}

#[derive(Default)]
struct Counts {
    logins: AtomicUsize,
    attempts: AtomicUsize,
}

impl PasswordServer {
    /// How many passwords were right.
    pub(crate) fn logins(&self) -> usize {
        self.counts.logins.load(Ordering::SeqCst)
    }

    /// How many passwords were tried.
    pub(crate) fn attempts(&self) -> usize {
        self.counts.attempts.load(Ordering::SeqCst)
    }

    /// Serves `home` to whoever knows `password`; keeps its keys in `dir`.
    pub(crate) fn start(dir: &Path, home: &Path, password: &'static str) -> Self {
        Self::start_asking(dir, home, password, None)
    }

    /// The same, but asks for the password, and in a second round for a code, if there is one.
    pub(crate) fn start_asking(
        dir: &Path,
        home: &Path,
        password: &'static str,
        code: Option<&'static str>,
    ) -> Self {
        fs::create_dir_all(dir).unwrap();
        let key = dir.join("host_key");
        let line = generate_identity(&key, "host").unwrap();
        let config = Arc::new(Config {
            keys: vec![load_secret_key(key, None).unwrap()],
            methods: methods(code),
            auth_rejection_time: Duration::ZERO,
            ..Config::default()
        });
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.unwrap();
        let port = listener.local_addr().unwrap().port();
        let known_hosts = dir.join("known_hosts");
        fs::write(&known_hosts, format!("[127.0.0.1]:{port} {line}\n")).unwrap();
        let home = home.to_owned();
        let counts = Arc::new(Counts::default());
        let counted = Arc::clone(&counts);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let client = Client {
                    home: home.clone(),
                    password,
                    code,
                    password_known: false,
                    counts: Arc::clone(&counted),
                    channels: HashMap::new(),
                };
                let config = Arc::clone(&config);
                tokio::spawn(async move {
                    if let Ok(session) = run_stream(config, stream, client).await {
                        // However a client ends, there is nobody to tell.
                        drop(session.await);
                    }
                });
            }
        });
        Self {
            port,
            known_hosts,
            counts,
            _runtime: runtime,
        }
    }
}

fn methods(code: Option<&str>) -> MethodSet {
    MethodSet::from(match code {
        None => &[MethodKind::Password][..],
        Some(_) => &[MethodKind::KeyboardInteractive],
    })
}

struct Client {
    home: PathBuf,
    password: &'static str,
    code: Option<&'static str>,
    password_known: bool,
    counts: Arc<Counts>,
    channels: HashMap<ChannelId, Channel<Msg>>,
}

impl Handler for Client {
    type Error = russh::Error;

    async fn auth_password(&mut self, _user: &str, password: &str) -> Result<Auth, russh::Error> {
        self.counts.attempts.fetch_add(1, Ordering::SeqCst);
        Ok(match password == self.password {
            true => {
                self.counts.logins.fetch_add(1, Ordering::SeqCst);
                Auth::Accept
            }
            // As sshd does: it may be mistyped.
            false => Auth::Reject {
                proceed_with_methods: Some(methods(self.code)),
                partial_success: false,
            },
        })
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        let ask = |prompt: &'static str, echo| Auth::Partial {
            name: "".into(),
            instructions: "".into(),
            prompts: vec![(prompt.into(), echo)].into(),
        };
        let Some(mut response) = response else {
            return Ok(ask("Password: ", false));
        };
        let answer = response.next().unwrap_or_default();
        let expected = match self.password_known {
            false => Some(self.password),
            true => self.code,
        };
        self.counts.attempts.fetch_add(1, Ordering::SeqCst);
        Ok(if expected.map(str::as_bytes) != Some(&answer[..]) {
            Auth::reject()
        } else if self.password_known {
            self.counts.logins.fetch_add(1, Ordering::SeqCst);
            Auth::Accept
        } else {
            self.password_known = true;
            ask("Verification code: ", true)
        })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        _name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let channel = self.channels.remove(&id).unwrap();
        session.channel_success(id)?;
        let (reader, writer) = tokio::io::split(channel.into_stream());
        let home = Arc::new(LocalSession::new(&self.home));
        tokio::spawn(serve(reader, writer, home));
        Ok(())
    }
}
