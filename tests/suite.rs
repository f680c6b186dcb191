//! Tests of the whole, from outside.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod mount;
mod posix;
mod support;
