//! What a decision about one place needs to know besides its three states, and what comes out.

use super::super::{Action, Why};
use crate::tree::NodeId;

/// What will be left of the inside of a directory that one side removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Nothing.
    Gone,
    /// Not known before something else is done.
    Undecided,
    /// Something.
    Stays,
}

/// What a decision needs to know about the rest of the home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// What will be left inside the directory that stands here in the base tree or locally.
    pub inside: Fate,
    /// Whether the local node has other places.
    pub shared: bool,
    /// Whether the server has the local node's content somewhere, so that it can be fetched.
    pub fetchable: bool,
    /// Whether the server's file here is the last copy of the content of a node that stands elsewhere.
    pub lent: bool,
}

/// What is to be done at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: it is settled.
    Settled,
    /// This.
    Act(Action, Why),
    /// Nothing now: it depends on something that this plan does first.
    Later,
    /// Nothing until the program that writes here closes the file.
    Busy,
    /// Nothing until this node's content was fetched.
    NeedsContent(NodeId),
    /// Nothing while the server holds something there that cannot be carried.
    Obstructed,
}
