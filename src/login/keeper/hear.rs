//! What follows from each thing that the keeper hears.

use std::time::Instant;

use super::{
    Answer, Ask, BUSY_WAIT, Caller, Event, Home, Keeper, LEFT_WAIT, PASSWORD_MAX, RESTARTS_MAX,
    RESTARTS_WITHIN, Sending, Typed, Unmounted, Waiting, records, work,
};
use crate::control::Failure;
use crate::control::protocol::{Left, Request};

impl Keeper {
    pub(super) fn hear(&mut self, event: Event) {
        match event {
            Event::Asked(ask, caller) => self.asked(ask, caller),
            Event::Ended(holder) => {
                let before = self.leases.sessions();
                self.leases.end(holder);
                self.leases_changed(before);
            }
            Event::Started(started) => self.started(started),
            // Of those before it is known that they ended.
            Event::DaemonEnded(number) if number == self.starts => self.daemon_ended(),
            Event::DaemonEnded(_) => {}
            Event::Progress(progress) => {
                for waiting in &self.closing {
                    waiting.caller.answer(Answer::Progress(progress.clone()));
                }
            }
            Event::Handed => self.handing = false,
            Event::Flushed(flushed) => self.flushed(flushed),
            Event::Unmounted(unmounted) => self.unmounted(unmounted),
            Event::Stop => {
                self.stopping = true;
                self.not_before = None;
            }
        }
    }

    fn asked(&mut self, ask: Ask, caller: Caller) {
        match ask {
            Ask::Password { password } => {
                let until = Instant::now() + PASSWORD_MAX;
                self.idle_until = until;
                self.password = Some(Typed {
                    password,
                    until,
                    handed: false,
                });
                self.not_before = None;
                caller.answer(Answer::Done { note: None });
            }
            Ask::Open {
                holder,
                kind,
                ticket,
            } => {
                self.ticket |= ticket;
                let before = self.leases.sessions();
                self.leases.open(holder, kind);
                self.watch(holder);
                self.given_up = false;
                self.leases_changed(before);
                let patience = match self.job.daemon.is_known() {
                    true => self.job.login_timeout,
                    false => self.job.first_timeout,
                };
                let until = Instant::now() + patience;
                self.opening.push(Waiting { caller, until });
            }
            Ask::Close { holder, kind } => {
                let before = self.leases.sessions();
                self.leases.close(holder, kind);
                self.leases_changed(before);
                let was_last = before > 0 && self.leases.sessions() == 0;
                if was_last && self.home != Home::Absent {
                    let until = Instant::now() + self.job.logout_timeout;
                    self.closing.push(Waiting { caller, until });
                } else {
                    caller.answer(Answer::Done { note: None });
                }
            }
        }
    }

    /// Somebody came, or went and may have written since all was sent.
    fn leases_changed(&mut self, sessions_before: usize) {
        records::set_leases(self.job.uid, &self.leases);
        self.purged = false;
        let sessions = self.leases.sessions();
        let next = self
            .sending
            .when_leases_change(self.home, sessions_before, sessions);
        // What is left waits for its time.
        if (self.home, next) != (Home::Mounted, Sending::Left) {
            self.not_before = None;
        }
        self.sending = next;
    }

    fn started(&mut self, started: Result<u64, Failure>) {
        match &started {
            Ok(unsent) => {
                self.overdue = *unsent;
                self.home = Home::Mounted;
                self.sending = Sending::Due;
            }
            Err(failure) => {
                tracing::warn!(%failure, "the home is not mounted");
                if !self.job.daemon.is_known() {
                    records::set_unsent(self.job.uid, false);
                    if self.job.local_without_home {
                        self.hand_over();
                    }
                }
                self.home = Home::Absent;
                self.given_up = true;
                self.tell_closing(&Answer::Done { note: None });
                for waiting in self.opening.drain(..) {
                    waiting.caller.answer(Answer::Failed {
                        failure: failure.clone(),
                    });
                }
            }
        }
    }

    /// Those who wait for the home hear that it is there, and the daemon gets the password that it lacks, which is not
    /// needed here any more then, or hears of a ticket.
    pub(super) fn tell_of_home(&mut self) {
        if self.home != Home::Mounted || self.unmounting {
            return;
        }
        if !self.opening.is_empty() {
            // Once: what the next ones hear of would be from this session.
            let note = note_of(std::mem::take(&mut self.overdue));
            for waiting in self.opening.drain(..) {
                waiting.caller.answer(Answer::Done { note: note.clone() });
            }
        }
        if self.handing {
            return;
        }
        let ticket = std::mem::take(&mut self.ticket);
        let request = match self.password.take().filter(|typed| !typed.handed) {
            Some(Typed { password, .. }) => Request::Password { password },
            None if ticket => Request::TryAgain,
            None => return,
        };
        self.handing = true;
        self.work(move |job, events| work::hand(job, request, events));
    }

    fn hand_over(&self) {
        if let Err(error) = self.job.daemon.hand_over() {
            tracing::warn!(%error, "the mount point stays root's");
        }
    }

    /// By itself, or by others' hands.
    fn daemon_ended(&mut self) {
        if self.home != Home::Mounted {
            return;
        }
        self.home = Home::Absent;
        self.not_before = None;
        if let Err(error) = self.job.daemon.unmount(true) {
            tracing::warn!(%error, "a mount without a daemon stays");
        }
        if self.sending != Sending::Done {
            self.sending = Sending::Left;
        }
        let now = Instant::now();
        self.restarts.retain(|at| now - *at < RESTARTS_WITHIN);
        self.restarts.push(now);
        if self.restarts.len() > RESTARTS_MAX {
            tracing::error!("the daemon ended {RESTARTS_MAX} times within a minute");
            self.not_before = Some(now + LEFT_WAIT);
        }
    }

    fn flushed(&mut self, flushed: Result<Left, Failure>) {
        match flushed {
            Ok(left) if left.files == 0 => {
                self.sending = Sending::Done;
                self.overdue = 0;
                self.tell_closing(&Answer::Done {
                    note: Some("all is on the server".into()),
                });
            }
            Ok(left) => self.left(left.files, left.bytes),
            Err(failure) => {
                tracing::warn!(%failure, "not everything was sent");
                self.left(0, 0);
            }
        }
        if self.leases.sessions() > 0 && !self.stopping {
            self.sending = Sending::Due;
        }
    }

    fn left(&mut self, files: u64, bytes: u64) {
        self.sending = Sending::Left;
        self.overdue = files;
        self.not_before = Some(Instant::now() + LEFT_WAIT);
        self.tell_closing(&Answer::Left { files, bytes });
    }

    pub(super) fn tell_closing(&mut self, answer: &Answer) {
        for waiting in self.closing.drain(..) {
            waiting.caller.answer(answer.clone());
        }
    }

    fn unmounted(&mut self, unmounted: Result<Unmounted, Failure>) {
        self.unmounting = false;
        match unmounted {
            Ok(Unmounted::Clean) => {
                self.home = Home::Absent;
                self.idle_until = Instant::now();
                self.sending = Sending::Done;
                records::set_unsent(self.job.uid, false);
            }
            Ok(Unmounted::Unknown) => {
                // Somebody may have written in the last moment: it is mounted once more to be sent.
                self.home = Home::Absent;
                self.sending = Sending::Left;
            }
            Err(failure) => {
                tracing::debug!(%failure, "still in use");
                self.not_before = Some(Instant::now() + BUSY_WAIT);
                self.sending = match self.home {
                    Home::Mounted => Sending::Due,
                    // The daemon ended meanwhile, and nobody knows what is left.
                    _ => Sending::Left,
                };
            }
        }
    }
}

/// What who logs in is told of what was left by who was there before.
fn note_of(overdue: u64) -> Option<String> {
    let (changes, are) = match overdue {
        0 => return None,
        1 => ("change", "is"),
        _ => ("changes", "are"),
    };
    Some(format!(
        "{overdue} {changes} made here earlier {are} not on the server yet; this machine goes on sending"
    ))
}
