//! The mount: translates between the kernel's FUSE requests and the home. Decides nothing about files.

mod adapter;
mod answer;
mod notify;
mod reply;
mod session;

pub use notify::Notices;
pub use session::{MountOptions, Mounted, Unmount, mount};
