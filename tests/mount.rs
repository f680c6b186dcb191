//! The home mounted by the kernel: what programs see.

mod by_kernel;
mod cold;
mod faults;
mod listing;
mod model;
mod programs;
mod requests;
pub(crate) mod running;
