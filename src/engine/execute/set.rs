//! Steps of one phase that concern one database are one piece of work.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::apply::{self, Applied};
use super::super::gather::Gathered;
use super::super::push::{self, Pushed};
use super::super::scan::ScanError;
use super::super::shared::Shared;
use super::{Ended, resolve, run_step};
use crate::remote::Remote;
use crate::replica::ReplicaError;
use crate::sync::{Action, Input, Step};
use crate::tree::Place;

/// What is done side by side with others.
pub(super) enum Job<'a> {
    Step(&'a Step),
    /// What is done about the database at a place.
    Set(&'a Place, Vec<&'a Step>),
}

impl<'a> Job<'a> {
    pub(super) fn steps(&self) -> &[&'a Step] {
        match self {
            Self::Step(step) => std::slice::from_ref(step),
            Self::Set(_, steps) => steps,
        }
    }
}

/// The steps of a phase, those of one database together.
pub(super) fn jobs<'a>(input: &'a Input, steps: &'a [Step]) -> Vec<Job<'a>> {
    let mut sets: BTreeMap<&Place, Vec<&Step>> = BTreeMap::new();
    let mut jobs = Vec::new();
    for step in steps {
        match input.databases.get(&step.place) {
            Some(main) if of_set(&step.action) => sets.entry(main).or_default().push(step),
            _ => jobs.push(Job::Step(step)),
        }
    }
    jobs.extend(sets.into_iter().map(|(main, steps)| Job::Set(main, steps)));
    jobs
}

/// Whether it changes a file on either side, or may turn out to.
fn of_set(action: &Action) -> bool {
    match action {
        Action::SetAttr { .. } | Action::TakeAttrs { .. } => true,
        Action::Compare { otherwise, .. } => of_set(&otherwise.action),
        action => is_sent(action) || is_taken(action),
    }
}

fn is_sent(action: &Action) -> bool {
    matches!(action, Action::Publish { .. } | Action::Remove { .. })
}

fn is_taken(action: &Action) -> bool {
    matches!(
        action,
        Action::Refresh { .. } | Action::Drop { .. } | Action::Adopt { .. }
    )
}

/// Compares what is to be compared, takes over or publishes the set, then does what is left.
pub(super) async fn run_set<'a>(
    shared: &Arc<Shared>,
    remote: &Remote,
    gathered: &Gathered,
    main: &Place,
    steps: Vec<&'a Step>,
) -> Vec<(Cow<'a, Step>, Result<Ended, ScanError>)> {
    let mut all = Vec::new();
    let mut left = Vec::new();
    for step in steps {
        match resolve(shared, remote, gathered, step).await {
            Ok(step) => left.push(step),
            Err(error) => all.push((Cow::Borrowed(step), Err(error))),
        }
    }
    // All of them, or none.
    if !all.is_empty() {
        all.extend(left.into_iter().map(stale));
        return all;
    }
    let taken: Vec<_> = left.iter().filter(|step| is_taken(&step.action)).collect();
    if taken.len() > 1 {
        let steps: Vec<_> = taken.iter().map(|step| step.as_ref()).collect();
        let applied = apply::exchange(shared, &steps, &gathered.seqs);
        let (taken, rest): (Vec<_>, _) = left.into_iter().partition(|step| is_taken(&step.action));
        all.extend(ends_of(taken, applied));
        left = rest;
    }
    let (mut planned, rest): (Vec<_>, Vec<_>) =
        left.into_iter().partition(|step| is_sent(&step.action));
    if !planned.is_empty() {
        let is_of_set = |place: &Place| gathered.input.databases.get(place) == Some(main);
        let places = [main.clone()].into_iter().chain(main.companions());
        let places: Vec<_> = places.filter(is_of_set).collect();
        let steps: Vec<_> = planned.iter().map(AsRef::as_ref).collect();
        match push::publish_set(shared, remote, &places, &steps).await {
            Ok(done) => {
                planned.retain(|step| !done.iter().any(|(other, _)| other.place == step.place));
                let done = done.into_iter();
                all.extend(
                    done.map(|(step, pushed)| (Cow::Owned(step), Ok(Ended::Server(pushed)))),
                );
            }
            Err(error) => {
                let first = planned.remove(0);
                all.push((first, Err(error)));
            }
        }
    }
    all.extend(planned.into_iter().map(stale));
    for step in rest {
        if !all.iter().any(|(other, _)| other.place == step.place) {
            let ended = run_step(shared, remote, gathered, &step).await;
            all.push((step, ended));
        }
    }
    all
}

/// Not now, or not needed any more.
fn stale(step: Cow<'_, Step>) -> (Cow<'_, Step>, Result<Ended, ScanError>) {
    (step, Ok(Ended::Server(Pushed::Stale)))
}

/// The same end for all; an error is one of the first.
pub(super) fn ends_of<'a>(
    steps: impl IntoIterator<Item = Cow<'a, Step>>,
    applied: Result<Applied, ReplicaError>,
) -> Vec<(Cow<'a, Step>, Result<Ended, ScanError>)> {
    let (applied, mut error) = match applied {
        Ok(applied) => (applied, None),
        Err(error) => (Applied::Stale, Some(error)),
    };
    let end = |step| {
        let ended = match error.take() {
            Some(error) => Err(error.into()),
            None => Ok(Ended::Replica(applied.clone())),
        };
        (step, ended)
    };
    steps.into_iter().map(end).collect()
}
