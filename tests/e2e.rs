//! The program as its users have it: the binary, a real sshd, mounts of the kernel, and all that goes wrong.

mod acl;
mod adopt;
mod blocks;
mod boost;
mod by_kernel;
mod conflict;
mod content;
mod credentials;
mod cutover;
mod databases;
mod doctor;
mod ending;
mod faults;
mod kill;
mod large;
mod leave;
mod login;
mod names;
mod network;
mod phases;
mod programs;
mod refusal;
mod replaced;
mod servers;
mod sleep;
mod transports;
