//! Tests of the whole, from outside.

mod mount;
mod posix;
mod support;
