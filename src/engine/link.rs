//! The link's states and its back-off, as values. The task that lives by them is in `linker`.

use std::time::Duration;

use crate::tree::Time;

/// The first wait after a failed connection, and the longest.
const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
const BACK_OFF_LAST: Duration = Duration::from_secs(60);

/// How the link stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// No connection; tried again by itself unless `held`.
    Offline {
        /// Why, in words.
        detail: String,
        /// Held down by `roamhome offline`.
        held: bool,
    },
    /// A connection is being made.
    Connecting,
    /// Requests can be made.
    Online,
    /// The server, or we, refused: a person has to act.
    Refused {
        /// What is wrong.
        message: String,
        /// What to do.
        remedy: String,
    },
}

impl LinkState {
    /// One word, as `status` shows it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Offline { .. } => "offline",
            Self::Connecting => "connecting",
            Self::Online => "online",
            Self::Refused { .. } => "refused",
        }
    }

    /// Why nothing can be asked of the server, for people.
    pub(super) fn why_not(&self) -> String {
        match (self, self.detail()) {
            (Self::Online, _) => "the connection was lost a moment ago".into(),
            (Self::Connecting, _) => "the connection is still being made".into(),
            (_, detail) if detail.is_empty() => "there is no connection".into(),
            (_, detail) => detail,
        }
    }

    /// More words for people; empty when there is nothing to add.
    pub fn detail(&self) -> String {
        match self {
            Self::Offline {
                detail,
                held: false,
            } => detail.clone(),
            Self::Offline { held: true, .. } => {
                "held by `roamhome offline`; `roamhome online` lets it come back".into()
            }
            Self::Connecting | Self::Online => String::new(),
            Self::Refused { message, remedy } => format!("{message}; {remedy}"),
        }
    }
}

/// What holds the link down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Hold {
    /// `roamhome offline`.
    pub(super) by_person: bool,
    /// The machine sleeps, or is about to.
    pub(super) asleep: bool,
}

impl Hold {
    /// Whether anything does.
    pub(super) fn is_held(self) -> bool {
        self.by_person || self.asleep
    }

    /// How the link stands meanwhile.
    pub(super) fn state(self) -> LinkState {
        let detail = match self.asleep {
            true => "the machine is going to sleep",
            false => "",
        };
        LinkState::Offline {
            detail: detail.to_owned(),
            held: self.by_person,
        }
    }
}

/// The link as seen at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkView {
    /// The state.
    pub state: LinkState,
    /// Since when, local time.
    pub since: Time,
}

/// Exponential waits with jitter, so that a thousand clients do not come back in one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BackOff {
    failures: u32,
}

impl BackOff {
    /// The next wait; `random` in 0..=255 spreads it over half to all of the nominal time.
    pub(super) fn next_wait(&mut self, random: u8) -> Duration {
        let nominal = BACK_OFF_FIRST
            .saturating_mul(1 << self.failures.min(10))
            .min(BACK_OFF_LAST);
        self.failures += 1;
        nominal / 2 + nominal.mul_f64(f64::from(random) / 255.0 / 2.0)
    }

    /// After a success.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_minute_and_start_again_after_a_success() {
        let mut back_off = BackOff::default();
        let waits: Vec<u64> = (0..9).map(|_| back_off.next_wait(255).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(back_off.next_wait(0).as_secs(), 30);
        back_off.reset();
        assert_eq!(back_off.next_wait(255).as_secs(), 1);
    }
}
