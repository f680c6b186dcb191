//! Connections over SSH: one TCP connection, a few channels, SFTP on each.
//!
//! The server's key is always checked, before anything is told to it. AES-GCM comes first on CPUs that have AES, which do
//! it three times as fast as what SSH prefers otherwise; without, it is that.

mod auth;
mod hostkey;
mod identity;
mod known_hosts;

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{Config, Handle, connect_stream};
use russh::{ChannelMsg, Preferred, SshId, cipher, compression};
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::net::TcpStream;
use tokio::time::timeout;

use self::auth::{Credentials, authenticate};
pub use self::auth::{SecretRequest, locked_identity};
use self::hostkey::{Checker, Verdict};
pub(super) use self::identity::random_key;
pub use self::identity::{generate_identity, public_line};
use super::connect::{no_sftp, only_session, settle_root, start_error, unreachable};
use super::line::{Limits, Line};
use super::target::Target;
use super::{ConnectError, Remote, SftpConfig, SftpSession};

/// Bytes that the server may send on a channel before we acknowledge.
const WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// The longest SSH packet we take.
const PACKET_BYTES: u32 = 64 * 1024 - 1;
/// A silent connection is probed after this.
const KEEPALIVE: Duration = Duration::from_secs(3);
/// And given up after this many probes.
const KEEPALIVES_MAX: usize = 2;

/// What to do about a server that was never seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKeyPolicy {
    /// Refuse it.
    Strict,
    /// Trust it and remember its key; a changed key is refused all the same.
    AcceptNew,
}

/// Asks a person, or a store, for a secret; `None` if there is none. May block.
pub type SecretSource = Arc<dyn Fn(&SecretRequest) -> Option<String> + Send + Sync>;

/// How to connect.
#[derive(Clone)]
pub struct ConnectOptions {
    /// Private keys, tried first and in this order. Missing ones are passed over.
    pub identities: Vec<PathBuf>,
    /// Whether the usual keys in `~/.ssh` are tried as well.
    pub default_identities: bool,
    /// Whether the agent at `$SSH_AUTH_SOCK` is asked, and not only for a key whose file is locked.
    pub agent: bool,
    /// Passwords and passphrases.
    pub secrets: Option<SecretSource>,
    /// Known keys of servers; a new one goes to the first file.
    pub known_hosts: Vec<PathBuf>,
    /// What to do about a new server.
    pub host_key_policy: HostKeyPolicy,
    /// Sessions over the connection: one for those who wait, the rest for bulk.
    pub channels: usize,
    /// For the connection, the handshake and each step of the login, without the time a person takes.
    pub connect_timeout: Duration,
    /// A server that owes an answer and says nothing for this long is given up.
    pub silence: Duration,
    /// How fast content may go.
    pub limits: Limits,
    /// Whether to compress, if the server can.
    pub compress: bool,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        let ssh = std::env::home_dir().map(|home| home.join(".ssh"));
        let known = ssh.map(|dir| dir.join("known_hosts"));
        let global = PathBuf::from("/etc/ssh/ssh_known_hosts");
        Self {
            identities: Vec::new(),
            default_identities: true,
            agent: true,
            secrets: None,
            known_hosts: known.into_iter().chain([global]).collect(),
            host_key_policy: HostKeyPolicy::Strict,
            channels: 4,
            connect_timeout: Duration::from_secs(10),
            silence: Duration::from_secs(30),
            limits: Limits::default(),
            compress: false,
        }
    }
}

/// Connects to the server, logs in, and opens the home.
pub async fn connect(target: &Target, options: &ConnectOptions) -> Result<Remote, ConnectError> {
    let host = &target.host;
    let verdict = Arc::new(Verdict::default());
    let checker = Checker::new(target, options, verdict.clone());
    let line = Line::new(&options.limits);
    let checker = checker.on(&line);
    let config = Arc::new(client_config(&checker, options.compress));
    let handshake = async {
        let stream = TcpStream::connect((host.as_str(), target.port)).await;
        let stream = stream.map_err(|e| unreachable(host, e))?;
        stream.set_nodelay(true).map_err(|e| unreachable(host, e))?;
        // What is sent and never acknowledged: while the kernel's buffer is full nobody else notices. As long as that
        // of a server that says nothing.
        let patience = u32::try_from(options.silence.as_millis()).unwrap_or(u32::MAX);
        set_tcp_user_timeout(&stream, patience).map_err(|e| unreachable(host, e))?;
        let connected = connect_stream(config, stream, checker).await;
        connected.map_err(|e| verdict.take().unwrap_or_else(|| unreachable(host, e)))
    };
    let connected = timeout(options.connect_timeout, handshake).await;
    let mut handle = connected.map_err(|_| unreachable(host, "no answer in time"))??;
    let user = target.user.clone().or_else(local_user);
    let credentials = Credentials {
        host,
        user: &user.unwrap_or_default(),
        options,
    };
    authenticate(&mut handle, &credentials, &verdict).await?;
    open_sessions(handle, target, options, (&verdict, line)).await
}

fn local_user() -> Option<String> {
    ["USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
}

/// The fastest first.
fn ciphers() -> Vec<cipher::Name> {
    let mut ciphers = vec![cipher::AES_128_GCM, cipher::AES_256_GCM];
    let position = match has_aes() {
        true => ciphers.len(),
        false => 0,
    };
    ciphers.insert(position, cipher::CHACHA20_POLY1305);
    ciphers.extend([cipher::AES_256_CTR, cipher::AES_128_CTR]);
    ciphers
}

fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

fn client_config(checker: &Checker, compress: bool) -> Config {
    let compression: &[compression::Name] = match compress {
        true => &[compression::ZLIB_LEGACY, compression::NONE],
        false => &[compression::NONE, compression::ZLIB_LEGACY],
    };
    let defaults = Preferred::default();
    Config {
        // Some servers take the arguments of a symlink in the order of the draft, except from who says this name.
        client_id: SshId::Standard(Cow::Borrowed(concat!(
            "SSH-2.0-roamhome_",
            env!("CARGO_PKG_VERSION"),
            " symlinks-as-OpenSSH"
        ))),
        window_size: WINDOW_BYTES,
        maximum_packet_size: PACKET_BYTES,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVES_MAX,
        nodelay: true,
        preferred: Preferred {
            cipher: Cow::Owned(ciphers()),
            compression: Cow::Borrowed(compression),
            key: Cow::Owned(checker.known_algorithms_first(&defaults.key)),
            host_key_certificates: Cow::Owned(checker.certificates(&defaults.key)),
            ..defaults
        },
        ..Config::default()
    }
}

async fn open_sessions(
    handle: Handle<Checker>,
    target: &Target,
    options: &ConnectOptions,
    (verdict, line): (&Verdict, Arc<Line>),
) -> Result<Remote, ConnectError> {
    let host = &target.host;
    let mut config = SftpConfig {
        root: target.path.clone().into_bytes(),
        silence: options.silence,
        line,
        ..SftpConfig::default()
    };
    let first = timeout(
        options.connect_timeout,
        start_session(&handle, &config, host),
    )
    .await;
    let mut first = first.map_err(|_| unreachable(host, "no answer in time"))??;
    config.root = settle_root(&mut first, host, &target.path).await?;
    let mut about = verdict.agreed();
    let mut wanted = options.channels;
    if let Some(why) = only_session(&first, &verdict.ident()) {
        wanted = 1;
        about.one_session = true;
        about.fewer_sessions = why.to_owned();
    }
    // The others start side by side. A server may allow fewer than asked for; one is enough.
    let rest = (1..wanted).map(|_| start_session(&handle, &config, host));
    let rest = timeout(
        options.connect_timeout,
        futures_util::future::join_all(rest),
    )
    .await;
    let mut bulk = Vec::new();
    for started in rest.unwrap_or_default() {
        match started {
            Ok(session) => bulk.push(session),
            Err(error) => about.fewer_sessions = error.to_string(),
        }
    }
    Ok(Remote::over(first, bulk, handle).with_about(about))
}

async fn start_session(
    handle: &Handle<Checker>,
    config: &SftpConfig,
    host: &str,
) -> Result<SftpSession, ConnectError> {
    let opened = handle.channel_open_session().await;
    let mut channel = opened.map_err(|e| match e {
        russh::Error::ChannelOpenFailure(_) => no_sftp(host, e),
        e => unreachable(host, e),
    })?;
    let requested = channel.request_subsystem(true, "sftp").await;
    requested.map_err(|e| unreachable(host, e))?;
    loop {
        match channel.wait().await {
            Some(ChannelMsg::Success) => break,
            Some(ChannelMsg::Failure) => return Err(no_sftp(host, "the server refuses it")),
            Some(ChannelMsg::Close) | None => {
                return Err(unreachable(host, "the connection was closed"));
            }
            Some(_) => {}
        }
    }
    let (reader, writer) = tokio::io::split(channel.into_stream());
    let session = SftpSession::start(reader, writer, config.clone()).await;
    session.map_err(|e| start_error(e, host))
}
