//! All integration tests, in one binary: one link instead of many. `tidy` checks that none is forgotten.

#![allow(clippy::unwrap_used, clippy::expect_used)] // All of it is tests.

mod cli;
mod tidy;
