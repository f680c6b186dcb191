//! The home mounted by the kernel: what programs see.

mod acl;
mod blocks;
mod by_kernel;
mod cold;
mod copies;
mod faults;
mod listing;
mod model;
mod programs;
mod requests;
mod restraint;
pub(crate) mod running;
