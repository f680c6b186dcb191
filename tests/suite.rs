//! All integration tests, in one binary: one link instead of many. `tidy` checks that none is forgotten.

mod tidy;
