//! The mount: translates between the kernel's FUSE requests and the home. Decides nothing about files.

mod adapter;
mod answer;
mod backing;
mod broker;
mod groups;
mod negotiate;
mod notify;
mod root;
mod session;
mod translate;

pub use broker::{Broker, Place};
pub use notify::Notices;
pub use session::{MountOptions, Mounted, Unmount, mount};
