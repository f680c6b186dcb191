//! Why a conversation ended.

use std::time::Duration;

use crate::remote::ErrorKind;

/// Why a conversation ended.
#[derive(Debug, Clone)]
pub(in crate::remote) struct Fault {
    pub(in crate::remote) kind: ErrorKind,
    pub(in crate::remote) message: String,
}

impl Fault {
    pub(in crate::remote) fn protocol(message: impl ToString) -> Self {
        Self {
            kind: ErrorKind::Protocol,
            message: message.to_string(),
        }
    }

    pub(in crate::remote) fn disconnected(message: impl ToString) -> Self {
        Self {
            kind: ErrorKind::Disconnected,
            message: message.to_string(),
        }
    }

    pub(super) fn silence(silence: Duration) -> Self {
        Self {
            kind: ErrorKind::Timeout,
            message: format!("the server said nothing for {} s", silence.as_secs()),
        }
    }
}
