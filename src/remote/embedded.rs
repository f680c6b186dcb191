//! An SSH server on loopback that serves one directory over SFTP, for the demo: no sshd, no account, no port to
//! choose. It lets in whoever holds one given key, and does nothing but SFTP.
//!
//! The SFTP half is our own (`serve`), since the one of `russh-sftp` turns names that are not UTF-8 into others.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{PrivateKey, PublicKey};
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
    run_stream,
};
use russh::{Channel, ChannelId};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::local::LocalSession;
use super::record::{Calls, Counters, Recorded};
use super::serve::serve;
use super::ssh::random_key;

/// How long a refused login waits for the answer.
const REJECTION: Duration = Duration::from_millis(100);

/// The running server; stops when dropped.
pub struct EmbeddedServer {
    address: SocketAddr,
    host_key: PrivateKey,
    counters: Counters,
    task: JoinHandle<()>,
}

impl Drop for EmbeddedServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl EmbeddedServer {
    /// Serves `directory` to the holder of `authorized_key`, a line as in `authorized_keys`, with a new host key
    /// and on a free port of 127.0.0.1.
    pub async fn start(directory: &Path, authorized_key: &str) -> io::Result<Self> {
        let authorized = PublicKey::from_openssh(authorized_key).map_err(io::Error::other)?;
        let host_key = random_key()?;
        let config = Arc::new(Config {
            keys: vec![host_key.clone()],
            auth_rejection_time: REJECTION,
            auth_rejection_time_initial: Some(Duration::ZERO),
            nodelay: true,
            ..Config::default()
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let counters = Counters::default();
        let client = Client {
            directory: directory.to_owned(),
            authorized,
            counters: counters.clone(),
            channels: HashMap::new(),
        };
        let task = tokio::spawn(accept(listener, config, client));
        Ok(Self {
            address,
            host_key,
            counters,
            task,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What all clients together have asked of it so far.
    pub fn calls(&self) -> Calls {
        self.counters.snapshot()
    }

    /// The server's line for a `known_hosts` file.
    pub fn known_hosts_line(&self) -> io::Result<String> {
        let key = self.host_key.public_key().to_openssh();
        let key = key.map_err(io::Error::other)?;
        Ok(format!(
            "[{}]:{} {key}\n",
            self.address.ip(),
            self.address.port()
        ))
    }
}

async fn accept(listener: TcpListener, config: Arc<Config>, client: Client) {
    // Connections belong to this task, so that they end with it.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let nodelay = stream.set_nodelay(true);
        let (config, client) = (config.clone(), client.another());
        connections.spawn(async move {
            if nodelay.is_ok()
                && let Ok(session) = run_stream(config, stream, client).await
            {
                // However a client ends, there is nobody to tell.
                drop(session.await);
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// One client's connection.
struct Client {
    directory: PathBuf,
    authorized: PublicKey,
    counters: Counters,
    /// Channels that are open and serve nothing yet.
    channels: HashMap<ChannelId, Channel<Msg>>,
}

impl Client {
    fn another(&self) -> Self {
        Self {
            directory: self.directory.clone(),
            authorized: self.authorized.clone(),
            counters: self.counters.clone(),
            channels: HashMap::new(),
        }
    }

    fn judge(&self, key: &PublicKey) -> Auth {
        match key.key_data() == self.authorized.key_data() {
            true => Auth::Accept,
            false => Auth::reject(),
        }
    }
}

impl Handler for Client {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        _user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, russh::Error> {
        Ok(self.judge(offer.public_key))
    }

    async fn auth_publickey(
        &mut self,
        _user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        Ok(self.judge(key.public_key))
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
        name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        match self.channels.remove(&id) {
            Some(channel) if name == "sftp" => {
                session.channel_success(id)?;
                let home = Arc::new(Recorded {
                    session: Arc::new(LocalSession::new(&self.directory)),
                    counters: self.counters.clone(),
                });
                let (reader, writer) = tokio::io::split(channel.into_stream());
                tokio::spawn(serve(reader, writer, home));
                Ok(())
            }
            _ => session.channel_failure(id),
        }
    }
}
