//! Looking ahead where nothing may be changed: what a pass would come to in directories that both sides have.

use std::sync::Arc;

use super::super::execute;
use super::super::gather::Gathered;
use super::super::scan::ScanError;
use super::super::shared::Shared;
use crate::remote::Remote;
use crate::sync::{Action, Input, Phase, Plan, Step, Triple, Why};
use crate::tree::{BaseEntry, Kind, Place};

/// A plan in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Foreseen {
    /// Files that would be sent.
    pub sent: u64,
    /// Their sizes.
    pub sent_bytes: u64,
    /// Files that would be compared, having equal sizes.
    pub compared: u64,
    /// What would be taken over from the server.
    pub taken: u64,
    /// Conflicts for sure: of each, both versions would be kept.
    pub conflicts: u64,
}

impl Foreseen {
    pub(super) fn of(input: &Input, plan: &Plan) -> Self {
        let mut all = Self::default();
        for step in plan.steps() {
            // What is compared may be equal.
            let compared = matches!(step.action, Action::Compare { .. });
            let conflict = matches!(
                step.why,
                Why::ConflictLocalWins | Why::ConflictRemoteWins | Why::DirectoryStays
            );
            all.conflicts += u64::from(conflict && !compared);
            let local = input.triples.get(&step.place);
            let local = local.and_then(|triple| triple.local.as_ref());
            match &step.action {
                Action::Publish { .. } => {
                    let file = local.filter(|local| local.version.kind == Kind::File);
                    all.sent += u64::from(file.is_some());
                    all.sent_bytes += file.map_or(0, |file| file.version.size);
                }
                Action::Compare { .. } => all.compared += 1,
                Action::Adopt { .. } | Action::Refresh { .. } => all.taken += 1,
                _ => {}
            }
        }
        all
    }
}

/// Lets the directories that both sides have, and that nothing was agreed about, count as agreed on here, in a replica
/// that is thrown away; whether there were any.
pub(super) async fn unite(
    shared: &Arc<Shared>,
    remote: &Remote,
    gathered: &Gathered,
) -> Result<bool, ScanError> {
    let common = gathered.input.triples.iter().filter_map(common);
    let plan = Plan {
        phases: vec![Phase {
            steps: common.collect(),
        }],
        ..Plan::default()
    };
    Ok(execute::run(shared, remote, gathered, &plan).await?.done > 0)
}

/// The step that agrees on a directory.
fn common((place, triple): (&Place, &Triple)) -> Option<Step> {
    let (None, Some(local), Some(remote)) = (&triple.base, &triple.local, &triple.remote) else {
        return None;
    };
    let both = (local.version.kind, remote.kind) == (Kind::Dir, Kind::Dir);
    let entry = BaseEntry {
        node: local.node,
        version: remote.clone(),
    };
    both.then(|| Step {
        place: place.clone(),
        action: Action::Agree { entry: Some(entry) },
        why: Why::BothAgree,
    })
}
