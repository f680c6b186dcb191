//! All tests that need more than one module, in one program.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests may fail like tests do

mod conformance;
mod support;
