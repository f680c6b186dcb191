//! Publishing a database with all that belongs to it.
//!
//! The plan says that the set goes; the moment at which it is taken says what it is. All of it is sent to staging
//! first. Then the names change in one burst on one session: old companions go first, then the database is
//! replaced, then new companions come. So no companion ever stands beside a database that it was not made for,
//! and a burst that is cut leaves the old or the new database without companions at worst.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;

use super::super::scan::ScanError;
use super::super::shared::{Shared, lock};
use super::super::{intents, keep};
use super::apart::lookalikes;
use super::burst::{burst, link_main};
use super::resume::Ticket;
use super::send::{Way, send_as_taken};
use super::{Outgoing, Pushed, Uploaded, discard, give_name, look, not_sent, server_path};
use crate::remote::Remote;
use crate::replica::{Member, Moment, ReplicaError};
use crate::sync::{Action, Keep, Step, Why};
use crate::tree::{Place, RelPath, Version};

/// How often, and how long apart, a moment is sought at which the database could do without its companions.
const LOOKS_FOR_REST: u32 = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(7);

/// What becomes of one member on the server.
pub(super) struct Part {
    pub(super) step: Step,
    pub(super) target: RelPath,
    /// Where what it replaces goes.
    pub(super) kept: RelPath,
    /// What is sent; `None` if it is only moved aside.
    pub(super) upload: Option<Uploaded>,
    ticket: Option<Ticket>,
}

impl Part {
    pub(super) fn expected(&self) -> Option<&Version> {
        match &self.step.action {
            Action::Publish { replaces, .. } => replaces.as_ref(),
            Action::Remove { expected, .. } => Some(expected),
            _ => None,
        }
    }

    pub(super) fn keep(&self) -> Keep {
        match self.step.action {
            Action::Publish { keep, .. } | Action::Remove { keep, .. } => keep,
            _ => Keep::Backup,
        }
    }

    pub(super) fn is_main(&self, places: &[Place]) -> bool {
        places.first() == Some(&self.step.place)
    }
}

/// Publishes what is at `places`, a database and its companions in this order, as of one moment. `planned` are
/// the steps of the plan for them. Tells what was done instead; nothing, if it cannot be done now.
pub(in crate::engine) async fn publish_set(
    shared: &Arc<Shared>,
    remote: &Remote,
    places: &[Place],
    planned: &[&Step],
) -> Result<Vec<(Step, Pushed)>, ScanError> {
    let Some(mut members) = take(shared, places, planned).await? else {
        return Ok(Vec::new());
    };
    let Some(mut parts) = parts(shared, &members, planned)? else {
        return Ok(Vec::new());
    };
    let sent = send_all(shared, remote, &mut members, &mut parts).await;
    let published = match sent {
        Ok(false) => Ok(Vec::new()),
        Ok(true) => publish_parts(shared, remote, places, &parts).await,
        Err(error) => Err(error),
    };
    if is_done(&published) {
        // What programs have changed since waits for another pass, or this one would never end.
        lock(&shared.sent_sets).extend(places.iter().cloned());
    } else if !is_lost(&published) {
        for upload in parts.iter().filter_map(|part| part.upload.as_ref()) {
            discard(remote.bulk().as_ref(), &upload.staged).await?;
        }
    }
    if !is_lost(&published) {
        let tickets = parts.iter().filter_map(|part| part.ticket.as_ref());
        tickets.for_each(|ticket| ticket.done(shared));
    }
    let steps = parts.into_iter().map(|part| part.step);
    Ok(steps.zip(published?).collect())
}

fn is_done(published: &Result<Vec<Pushed>, ScanError>) -> bool {
    let done = |pushed: &Pushed| matches!(pushed, Pushed::Sent { .. } | Pushed::Done(_));
    published
        .as_ref()
        .is_ok_and(|all| !all.is_empty() && all.iter().all(done))
}

fn is_lost(published: &Result<Vec<Pushed>, ScanError>) -> bool {
    matches!(published, Err(ScanError::Remote(error)) if error.is_link_loss())
}

/// The set at one moment, preferably one of rest: then a cut does the least harm.
async fn take(
    shared: &Arc<Shared>,
    places: &[Place],
    planned: &[&Step],
) -> Result<Option<Vec<Member>>, ReplicaError> {
    let wanted = |member: &Member| is_sent(member, plan_for(planned, &member.place));
    for _ in 0..LOOKS_FOR_REST {
        match shared.replica.moment(places, Some(shared.now()), wanted)? {
            Moment::Taken(members) => return Ok(Some(members)),
            Moment::Missed => return Ok(None),
            Moment::Restless => tokio::time::sleep(BETWEEN_LOOKS).await,
        }
    }
    Ok(match shared.replica.moment(places, None, wanted)? {
        Moment::Taken(members) => Some(members),
        Moment::Missed | Moment::Restless => None,
    })
}

fn plan_for<'a>(planned: &[&'a Step], place: &Place) -> Option<&'a Action> {
    let step = planned.iter().find(|step| step.place == *place)?;
    Some(&step.action)
}

/// Whether the member's content goes to the server: planned, or changed since the plan was made.
fn is_sent(member: &Member, planned: Option<&Action>) -> bool {
    let Some(node) = &member.node else {
        return false;
    };
    let agreed = member
        .base
        .as_ref()
        .is_some_and(|base| base.node == node.id);
    matches!(planned, Some(Action::Publish { .. })) || node.data_changed || !agreed
}

/// What is to be done about each member. `None` if there is nothing, or not all is known that it takes.
fn parts(
    shared: &Shared,
    members: &[Member],
    planned: &[&Step],
) -> Result<Option<Vec<Part>>, ReplicaError> {
    let mut parts = Vec::new();
    for member in members {
        let step = planned.iter().find(|step| step.place == member.place);
        let seen = shared
            .replica
            .view(|view| view.observation(&member.place))?;
        if step.is_none() && seen.is_some() {
            return Ok(None);
        }
        let planned = step.map(|step| &step.action);
        let there = match planned {
            Some(Action::Publish { replaces, .. }) => replaces.clone(),
            Some(Action::Remove { expected, .. } | Action::SetAttr { expected, .. }) => {
                Some(expected.clone())
            }
            _ => member.base.as_ref().map(|base| base.version.clone()),
        };
        let action = match (&member.node, there) {
            (Some(node), replaces) if is_sent(member, planned) => Action::Publish {
                node: node.id,
                replaces,
                keep: match planned {
                    Some(Action::Publish { keep, .. }) => *keep,
                    _ => Keep::Replaced,
                },
            },
            (None, Some(expected)) => Action::Remove {
                expected,
                keep: match planned {
                    Some(Action::Remove { keep, .. }) => *keep,
                    _ => Keep::Trash,
                },
            },
            _ => continue,
        };
        let Some(target) = server_path(shared, &member.place)? else {
            return Ok(None);
        };
        let step = Step {
            place: member.place.clone(),
            action,
            why: step.map_or(Why::LocalChange, |step| step.why),
        };
        let mut part = Part {
            step,
            kept: target.clone(),
            target,
            upload: None,
            ticket: None,
        };
        part.kept = keep::kept_path(shared, part.keep(), &part.target);
        parts.push(part);
    }
    Ok((!parts.is_empty()).then_some(parts))
}

/// Sends all that has content to staging; `false` if that could not be had.
async fn send_all(
    shared: &Arc<Shared>,
    remote: &Remote,
    members: &mut Vec<Member>,
    parts: &mut [Part],
) -> Result<bool, ScanError> {
    for member in members.drain(..) {
        let Some(part) = parts.iter_mut().find(|p| p.step.place == member.place) else {
            continue;
        };
        let (Some(node), Action::Publish { .. }) = (member.node, &part.step.action) else {
            continue;
        };
        let ticket = Ticket::take(shared, &node, node.data_seq)?;
        let number = ticket.number;
        let staged = keep::staging_path(shared, node.id, number);
        let file = member.file.as_ref().map(|file| &file.file);
        let way = Way {
            remote,
            place: &part.step.place,
            target: &part.target,
            replaces: part.expected(),
            staged: &staged,
            ticket: &ticket,
            lookalikes: &lookalikes(shared, &part.step.place, part.expected())?,
        };
        let sent = match send_as_taken(shared, &way, node, file).await {
            Ok(sent) => sent,
            Err(error) => return Err(not_sent(shared, &way, error).await),
        };
        let Some(sent) = sent else {
            way.discard().await?;
            ticket.done(shared);
            return Ok(false);
        };
        part.upload = Some(Uploaded {
            sent,
            number,
            staged,
            target: part.target.clone(),
        });
        part.ticket = Some(ticket);
    }
    Ok(true)
}

/// Gives what is in staging its names. One change is one request like any other.
async fn publish_parts(
    shared: &Arc<Shared>,
    remote: &Remote,
    places: &[Place],
    parts: &[Part],
) -> Result<Vec<Pushed>, ScanError> {
    let session = remote.bulk().as_ref();
    let seen = try_join_all(parts.iter().map(|part| look(session, &part.target))).await?;
    let as_expected = |part: &Part, seen: &Option<Version>| match (part.expected(), seen) {
        (Some(expected), Some(seen)) => expected.same(seen),
        (expected, seen) => expected.is_none() && seen.is_none(),
    };
    if !parts
        .iter()
        .zip(&seen)
        .all(|(part, seen)| as_expected(part, seen))
    {
        let told = parts
            .iter()
            .zip(seen)
            .map(|(part, seen)| match as_expected(part, &seen) {
                true => Pushed::Stale,
                false => Pushed::Saw(seen),
            });
        return Ok(told.collect());
    }
    if let [part] = parts
        && let (
            Some(upload),
            Action::Publish {
                node,
                replaces,
                keep,
            },
        ) = (&part.upload, &part.step.action)
    {
        let out = Outgoing {
            place: &part.step.place,
            node: *node,
            seq: upload.sent.node.data_seq,
            replaces: replaces.as_ref(),
            keep: *keep,
        };
        return Ok(vec![give_name(shared, remote, &out, upload).await?]);
    }
    let by_link = link_main(shared, remote, places, parts).await?;
    for part in parts {
        if let Some(upload) = &part.upload {
            intents::declare(shared, &part.step.place, upload.intent()).await?;
        }
    }
    burst(shared, session, places, parts, by_link).await
}
