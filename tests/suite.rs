//! All integration tests, in one program: one link instead of many. `tidy` checks that none is forgotten.

#![allow(clippy::unwrap_used, clippy::expect_used)] // All of it is tests.

mod blocks;
mod boost;
mod cli;
mod conformance;
mod crash;
mod damage;
mod databases;
mod demo;
mod e2e;
mod engine;
mod hostile;
mod large;
mod login;
mod looks;
mod mount;
mod patience;
mod posix;
mod publish;
mod regressions;
mod simulation;
mod support;
mod tidy;
