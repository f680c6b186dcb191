//! The mount: translates between the kernel's FUSE requests and the home. Decides nothing about files.

mod adapter;
mod answer;
mod negotiate;
mod notify;
mod session;
mod translate;

pub use notify::Notices;
pub use session::{MountOptions, Mounted, Unmount, mount};
