//! All tests that need more than one module, in one program.

mod conformance;
mod support;
