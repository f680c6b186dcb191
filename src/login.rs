//! Logins: a user's home is mounted while somebody is logged in, and what is left is sent when nobody is.
//!
//! The *keeper* is a small process of root, one for each user who is logged in. It counts sessions by leases, starts the
//! user's daemon, mounts and unmounts for it, and asks it to flush after the last logout. The steps that PAM runs (`roamhome
//! login`, `roamhome logout`) only tell the keeper what happened, and show what it answers.
//!
//! `session` decides, and is pure; `keeper` does what was decided; `desk` takes what the steps say; `step` is their end.
//! `ticket` keeps the Kerberos ticket for what is sent after a logout.

mod account;
mod desk;
mod holder;
mod keeper;
mod pam;
mod places;
mod protocol;
mod session;
mod step;
mod ticket;

pub use account::Account;
pub use keeper::{Daemon, Job, Started, keep};
pub use pam::{Pam, PamType};
pub use places::{Places, is_kept, keepers_dir, unsent_accounts};
pub use protocol::{Answer, Ask};
pub use session::{Holder, Kind};
pub use step::{Asked, ask};
pub use ticket::{Ccache, TICKET, TICKET_NEXT, ticket_until};
