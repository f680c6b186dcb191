//! Steps of one phase that concern one database are one piece of work.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::gather::Gathered;
use super::super::push::{self, Pushed};
use super::super::scan::ScanError;
use super::super::shared::Shared;
use super::{Ended, resolve, run_step};
use crate::remote::Remote;
use crate::sync::{Action, Input, Step};
use crate::tree::Place;

/// What is done side by side with others.
pub(super) enum Job<'a> {
    Step(&'a Step),
    /// What goes to the server for the database at a place.
    Set(&'a Place, Vec<&'a Step>),
}

/// The steps of a phase, those of one database together.
pub(super) fn jobs<'a>(input: &'a Input, steps: &'a [Step]) -> Vec<Job<'a>> {
    let mut sets: BTreeMap<&Place, Vec<&Step>> = BTreeMap::new();
    let mut jobs = Vec::new();
    for step in steps {
        match input.databases.get(&step.place) {
            Some(main) if sends(&step.action) => sets.entry(main).or_default().push(step),
            _ => jobs.push(Job::Step(step)),
        }
    }
    jobs.extend(sets.into_iter().map(|(main, steps)| Job::Set(main, steps)));
    jobs
}

/// Whether it changes a file on the server, or may turn out to.
fn sends(action: &Action) -> bool {
    match action {
        Action::Publish { .. } | Action::Remove { .. } | Action::SetAttr { .. } => true,
        Action::Compare { otherwise, .. } => sends(&otherwise.action),
        _ => false,
    }
}

/// Compares what is to be compared, then publishes the set, then does what is left.
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
    let (mut planned, rest): (Vec<_>, Vec<_>) = left
        .into_iter()
        .partition(|step| matches!(step.action, Action::Publish { .. } | Action::Remove { .. }));
    if all.is_empty() && !planned.is_empty() {
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
    // Not now, or not needed any more.
    let stale = |step| (step, Ok(Ended::Server(Pushed::Stale)));
    all.extend(planned.into_iter().map(stale));
    for step in rest {
        if !all.iter().any(|(other, _)| other.place == step.place) {
            let ended = run_step(shared, remote, gathered, &step).await;
            all.push((step, ended));
        }
    }
    all
}
