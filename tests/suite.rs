//! All integration tests, in one program: one link instead of many.

mod engine;
mod support;
