//! What commands ask and hear about the keys by which machines log in.

use serde::{Deserialize, Serialize};

/// What to do with keys of machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum KeysAction {
    /// Which machines may log in? Answered by `Machines`.
    List,
    /// Let this machine log in by a key of its own. Answered by `Done`.
    Enrol {
        /// Even if it has one that the server takes: that one counts no more then.
        anew: bool,
    },
    /// The line that somebody else may give to the server. Answered by `Done`.
    Line,
    /// Let a machine in no more. Answered by `Done`.
    Revoke {
        /// Its name, or its id where several have that name.
        machine: String,
    },
}

/// The machines that may log in by keys of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machines {
    /// In the server's order.
    pub machines: Vec<Machine>,
}

/// A machine that may log in by a key of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Tells machines of one name apart.
    pub id: String,
    /// The day of its key, in UTC.
    pub since: String,
    /// Whether it is the one that answers.
    pub this: bool,
}
