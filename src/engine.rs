//! The only layer that acts: it owns the replica and the link, fetches, writes back and reconciles.

mod port;

pub use port::{Done, Events, Fetch, FetchError, Space};
