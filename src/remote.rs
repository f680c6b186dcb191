//! The server's side: SFTP sessions, transports, the layout of `.roamhome/`.
//!
//! `Session` is the port: one ordered SFTP v3 conversation. `sftp` speaks it over any byte stream, `memory`
//! imitates OpenSSH for tests. `Remote` is the concrete handle that everything else uses: it owns a few
//! sessions over one connection and counts what it asks.

mod authorized;
mod conn;
mod connect;
mod embedded;
mod error;
mod guard;
mod handle;
pub mod layout;
mod line;
mod local;
pub mod memory;
mod process;
mod record;
mod serve;
mod session;
mod sftp;
mod ssh;
mod status;
mod target;
mod transfer;
mod wire;

pub use authorized::{AuthorizedKeys, MachineKey, without_machines};
pub use connect::ConnectError;
pub use embedded::EmbeddedServer;
pub use error::{ErrorKind, RemoteError};
pub use handle::{About, Remote};
pub use line::{Limits, Line, LineFacts, Rate};
pub use local::{LocalSession, serve_directory};
pub use memory::MemoryServer;
pub use process::{
    Apart, LocalHome, SshProgram, answer_ssh, connect_command, connect_local, connect_ssh,
};
pub use record::Calls;
pub use serve::serve;
pub use session::{DirEntry, Features, FileHandle, Session, SetStat, Stat, StatVfs};
pub use sftp::{SftpConfig, SftpSession};
pub use ssh::{
    ConnectOptions, HostKeyPolicy, SecretRequest, SecretSource, connect, generate_identity,
    locked_identity, public_line,
};
pub use target::{SSH_PORT, Target, TargetError};
pub use transfer::{
    BATCH, Expected, Heard, NextPart, Part, Parts, Pieces, Ranges, TRANSFER_WINDOW, TransferError,
    Upload, assemble, download, matching, read_ranges, upload,
};
