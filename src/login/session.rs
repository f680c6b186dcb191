//! Who is logged in, and what that means for the home. Pure.
//!
//! A session is a lease of the process that opened it: sshd's, login's or the display manager's, which lives as long as the
//! session does. It ends when PAM closes it or when that process ends, whichever comes first: PAM's close is not
//! to be relied on (a display manager that is killed closes nothing).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A process that opened sessions. Its number alone could come to mean another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Holder {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since the machine did: field 22 of `/proc/PID/stat`.
    pub started: u64,
}

/// What was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Somebody logged in.
    Session,
    /// The user's `systemd --user`, which comes with the first session and goes some time after the last. It needs the
    /// home, and is nobody.
    Manager,
}

/// All leases.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Leases(BTreeMap<Holder, Lease>);

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Lease {
    sessions: usize,
    managers: usize,
}

impl Leases {
    /// Counts one more.
    pub(super) fn open(&mut self, holder: Holder, kind: Kind) {
        let lease = self.0.entry(holder).or_default();
        match kind {
            Kind::Session => lease.sessions += 1,
            Kind::Manager => lease.managers += 1,
        }
    }

    /// Counts one less; nothing if the holder has none of the kind.
    pub(super) fn close(&mut self, holder: Holder, kind: Kind) {
        let Some(lease) = self.0.get_mut(&holder) else {
            return;
        };
        let count = match kind {
            Kind::Session => &mut lease.sessions,
            Kind::Manager => &mut lease.managers,
        };
        *count = count.saturating_sub(1);
        if *lease == Lease::default() {
            self.0.remove(&holder);
        }
    }

    /// All that the holder had is over.
    pub(super) fn end(&mut self, holder: Holder) {
        self.0.remove(&holder);
    }

    /// How many people are logged in, counted by session.
    pub(super) fn sessions(&self) -> usize {
        self.0.values().map(|lease| lease.sessions).sum()
    }

    /// Whether nobody needs the home.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those who have leases, for who comes after a keeper that was killed.
    pub(super) fn list(&self) -> Vec<(Holder, Kind)> {
        let mut list = Vec::new();
        for (holder, lease) in &self.0 {
            list.extend(std::iter::repeat_n(
                (*holder, Kind::Session),
                lease.sessions,
            ));
            list.extend(std::iter::repeat_n(
                (*holder, Kind::Manager),
                lease.managers,
            ));
        }
        list
    }
}

/// The home on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
    /// Not mounted.
    Absent,
    /// Its daemon is starting.
    Starting,
    /// Mounted, and its daemon serves it.
    Mounted,
}

/// How far the sending after the last logout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    /// Somebody wrote, or may have written, since all was sent.
    Due,
    /// A flush runs.
    Running,
    /// Something is left, or it could not be asked; it is tried again later.
    Left,
    /// All is on the server.
    Done,
}

impl Sending {
    /// After somebody came or went, who may have written. Where something was left when the last session ended, what
    /// the user's manager leaves goes with it, later: a machine that shuts down waits once, not again for each of them.
    pub(super) fn when_leases_change(self, home: Home, before: usize, after: usize) -> Self {
        match (self, home) {
            (Self::Running, _) => self,
            (Self::Left, Home::Mounted) if before == 0 && after == 0 => self,
            _ => Self::Due,
        }
    }
}

/// What a keeper knows when it decides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation {
    pub(super) sessions: usize,
    /// Whether anybody at all has a lease.
    pub(super) leased: bool,
    /// Whether the home could not be mounted, and nobody has logged in since.
    pub(super) given_up: bool,
    pub(super) home: Home,
    pub(super) sending: Sending,
    /// The machine shuts down, or the service is stopped.
    pub(super) stopping: bool,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing until something happens.
    Wait,
    /// Start the daemon.
    Mount,
    /// Have the daemon send what is left.
    Flush,
    /// Unmount if nobody uses it, else try again later.
    Unmount,
    /// Unmount whoever uses it: what they have open is served until they close it.
    UnmountLazily,
    /// Nobody needs the home, and nothing is left to do.
    End,
}

/// Decides.
pub(super) fn next(now: &Situation) -> Next {
    match (now.home, now.sending) {
        (Home::Starting, _) | (_, Sending::Running) => Next::Wait,
        (Home::Absent, _) if now.stopping => Next::End,
        (Home::Absent, _) if now.given_up && now.leased => Next::Wait,
        (Home::Absent, Sending::Left) if !now.given_up => Next::Mount,
        (Home::Absent, _) if now.leased => Next::Mount,
        (Home::Absent, _) => Next::End,
        (Home::Mounted, Sending::Due) if now.stopping || now.sessions == 0 => Next::Flush,
        // What is left is durable here, and goes when the home is mounted again.
        (Home::Mounted, _) if now.stopping => Next::UnmountLazily,
        (Home::Mounted, Sending::Done) if !now.leased => Next::Unmount,
        // The daemon goes on sending.
        (Home::Mounted, _) => Next::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(pid: i32) -> Holder {
        Holder { pid, started: 7 }
    }

    #[test]
    fn what_could_not_be_sent_is_not_waited_for_again_when_the_manager_ends() {
        let next = Sending::when_leases_change;
        assert_eq!(next(Sending::Left, Home::Mounted, 0, 0), Sending::Left);
        // It may have written since all was sent.
        assert_eq!(next(Sending::Done, Home::Mounted, 0, 0), Sending::Due);
        // Somebody comes and goes, and waits for what they wrote.
        assert_eq!(next(Sending::Left, Home::Mounted, 0, 1), Sending::Due);
        assert_eq!(next(Sending::Left, Home::Mounted, 1, 0), Sending::Due);
        assert_eq!(next(Sending::Left, Home::Absent, 0, 0), Sending::Due);
        assert_eq!(
            next(Sending::Running, Home::Mounted, 1, 0),
            Sending::Running
        );
    }

    #[test]
    fn each_lease_ends_with_its_close_or_with_its_holder() {
        let mut leases = Leases::default();
        for pid in [1, 1, 2] {
            leases.open(holder(pid), Kind::Session);
        }
        leases.open(holder(9), Kind::Manager);
        assert_eq!(leases.sessions(), 3);
        leases.close(holder(1), Kind::Session);
        assert_eq!(leases.sessions(), 2);
        // Closed twice, by who has none, and by who has only others.
        leases.close(holder(3), Kind::Session);
        leases.close(holder(9), Kind::Session);
        assert_eq!(leases.sessions(), 2);
        leases.end(holder(1));
        leases.end(holder(2));
        assert!(leases.sessions() == 0 && !leases.is_empty());
        assert_eq!(leases.list(), [(holder(9), Kind::Manager)]);
        leases.close(holder(9), Kind::Manager);
        assert!(leases.is_empty());
    }

    #[test]
    fn a_process_with_the_number_of_one_that_ended_is_another() {
        let mut leases = Leases::default();
        leases.open(holder(1), Kind::Session);
        leases.close(Holder { pid: 1, started: 8 }, Kind::Session);
        assert_eq!(leases.sessions(), 1);
    }

    #[test]
    fn the_home_stays_while_somebody_needs_it_and_goes_when_all_is_sent() {
        use Home::{Absent, Mounted, Starting};
        use Sending::{Done, Due, Left, Running};
        for (sessions, leased, home, sending, stopping, expected) in [
            (1, true, Absent, Due, false, Next::Mount),
            (0, true, Absent, Due, false, Next::Mount),
            (0, false, Absent, Due, false, Next::End),
            // Something is left from before.
            (0, false, Absent, Left, false, Next::Mount),
            (1, true, Absent, Due, true, Next::End),
            (1, true, Starting, Due, false, Next::Wait),
            (0, false, Starting, Due, true, Next::Wait),
            (1, true, Mounted, Due, false, Next::Wait),
            // The user's manager alone does not keep what is left from being sent.
            (0, true, Mounted, Due, false, Next::Flush),
            (0, false, Mounted, Due, false, Next::Flush),
            (0, false, Mounted, Running, true, Next::Wait),
            (0, true, Mounted, Done, false, Next::Wait),
            (0, false, Mounted, Done, false, Next::Unmount),
            (0, false, Mounted, Left, false, Next::Wait),
            (1, true, Mounted, Done, false, Next::Wait),
            (1, true, Mounted, Due, true, Next::Flush),
            (1, true, Mounted, Left, true, Next::UnmountLazily),
            (0, false, Mounted, Done, true, Next::UnmountLazily),
        ] {
            let now = Situation {
                sessions,
                leased,
                given_up: false,
                home,
                sending,
                stopping,
            };
            assert_eq!(next(&now), expected, "{now:?}");
        }
    }

    #[test]
    fn a_home_that_could_not_be_mounted_waits_for_the_next_login() {
        for (leased, expected) in [(true, Next::Wait), (false, Next::End)] {
            let now = Situation {
                sessions: usize::from(leased),
                leased,
                given_up: true,
                home: Home::Absent,
                sending: Sending::Left,
                stopping: false,
            };
            assert_eq!(next(&now), expected);
        }
    }
}
