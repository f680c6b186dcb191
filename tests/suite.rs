//! All integration tests, in one program: one link instead of many.

mod engine;
mod random;
mod regressions;
mod support;
