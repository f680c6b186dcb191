//! `lsetstat`, also where the server can set no mode by it: OpenSSH in a directory that it takes for the root, which has
//! no `/proc` for its C library.

use super::SftpSession;
use super::convert::set_attrs;
use crate::remote::wire::Extended;
use crate::remote::{ErrorKind, RemoteError, Session, SetStat};
use crate::tree::{Kind, RelPath};

impl SftpSession {
    /// Sets what is there itself. Where that fails for the mode, it is looked at first, and a link is left alone.
    pub(super) async fn set_unfollowed(
        &self,
        path: &RelPath,
        set: SetStat,
    ) -> Result<(), RemoteError> {
        let request = Extended::Lsetstat(self.absolute(path), set_attrs(set));
        let has = self.features.lsetstat;
        let failed = match self.extended("lsetstat", path, has, request).await {
            Err(error) if error.kind == ErrorKind::Failure && set.mode.is_some() => error,
            done => return done,
        };
        match self.lstat(path).await?.kind {
            Kind::Symlink => Err(failed),
            _ => self.setstat(path, set).await,
        }
    }
}
