//! The home mounted by the kernel: what programs see.

mod cold;
mod faults;
mod listing;
mod model;
mod programs;
mod requests;
pub(crate) mod running;
