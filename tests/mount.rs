//! The home mounted by the kernel: what programs see.

mod cold;
mod faults;
mod model;
mod programs;
pub(crate) mod running;
