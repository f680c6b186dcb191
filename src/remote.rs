//! The server's side: SFTP sessions, transports, the layout of `.roamhome/`.
//!
//! `Session` is the port: one ordered SFTP v3 conversation. `sftp` speaks it over any byte stream, `memory`
//! imitates OpenSSH for tests. `Remote` is the concrete handle that everything else uses: it owns a few
//! sessions over one connection and counts what it asks.

mod conn;
mod error;
mod guard;
mod handle;
pub mod layout;
pub mod memory;
mod record;
mod session;
mod sftp;
mod status;
mod transfer;
mod wire;

pub use error::{ErrorKind, RemoteError};
pub use handle::Remote;
pub use memory::MemoryServer;
pub use record::Calls;
pub use session::{DirEntry, Features, FileHandle, Session, SetStat, Stat, StatVfs};
pub use sftp::{SftpConfig, SftpSession};
pub use transfer::{TransferError, Upload, download, upload};
