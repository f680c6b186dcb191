//! The program as its users have it: the binary, a real sshd, mounts of the kernel, and all that goes wrong.

mod conflict;
mod ending;
mod kill;
mod login;
mod names;
mod network;
mod programs;
mod refusal;
mod replaced;
