//! An SSH server on loopback that lets in whoever knows a password. A real sshd would ask the machine's accounts.

use std::collections::HashMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use roamhome::remote::{LocalSession, generate_identity, serve};
use russh::keys::load_secret_key;
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, run_stream};
use russh::{Channel, ChannelId, MethodKind, MethodSet};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// The running server; stops when dropped.
pub(crate) struct PasswordServer {
    /// Where it listens on 127.0.0.1.
    pub(crate) port: u16,
    /// A file that knows its host key.
    pub(crate) known_hosts: PathBuf,
    _runtime: Runtime,
}

impl PasswordServer {
    /// Serves `home` to whoever knows `password`; keeps its keys in `dir`.
    pub(crate) fn start(dir: &Path, home: &Path, password: &'static str) -> Self {
        fs::create_dir_all(dir).unwrap();
        let key = dir.join("host_key");
        let line = generate_identity(&key, "host").unwrap();
        let config = Arc::new(Config {
            keys: vec![load_secret_key(key, None).unwrap()],
            methods: methods(),
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
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let client = Client {
                    home: home.clone(),
                    password,
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
            _runtime: runtime,
        }
    }
}

fn methods() -> MethodSet {
    MethodSet::from(&[MethodKind::Password][..])
}

struct Client {
    home: PathBuf,
    password: &'static str,
    channels: HashMap<ChannelId, Channel<Msg>>,
}

impl Handler for Client {
    type Error = russh::Error;

    async fn auth_password(&mut self, _user: &str, password: &str) -> Result<Auth, russh::Error> {
        Ok(match password == self.password {
            true => Auth::Accept,
            // As sshd does: it may be mistyped.
            false => Auth::Reject {
                proceed_with_methods: Some(methods()),
                partial_success: false,
            },
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
