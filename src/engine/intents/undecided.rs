//! What rests on sand: where it is not known yet what came of something that this machine did on the server.
//!
//! A rename concerns both of its places, and all that is in a directory that it moves: base shows what moved where it
//! stood before, and nothing may be done, or seen, there until the next pass has found out. Otherwise what moves next
//! into the place that it left would make base forget it, and a listing would take it for removed.

use std::collections::BTreeSet;

use crate::replica::{ReplicaError, View};
use crate::sync::{Action, Step};
use crate::tree::{Name, NodeId, Place};

/// Places of which it is not known what stands there.
#[derive(Debug, Default)]
pub(in crate::engine) struct Undecided {
    /// Where something is to get its name.
    named: BTreeSet<Place>,
    /// Where base has what is being renamed.
    left: BTreeSet<Place>,
}

impl Undecided {
    /// As of now.
    pub(in crate::engine) fn now(view: &View<'_>) -> Result<Self, ReplicaError> {
        let mut undecided = Self::default();
        for (place, intent) in view.intents()? {
            if let Some(from) = intent.from
                && view.is_in_base(&from, intent.node)?
            {
                undecided.left.insert(from);
            }
            undecided.named.insert(place);
        }
        Ok(undecided)
    }

    /// Whether any of the steps is planned on one of them: another intent would take the place of the first.
    pub(in crate::engine) fn concern(
        &self,
        view: &View<'_>,
        steps: &[&Step],
    ) -> Result<bool, ReplicaError> {
        for step in steps {
            if self.concerns(view, step)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn concerns(&self, view: &View<'_>, step: &Step) -> Result<bool, ReplicaError> {
        // They give what is in one directory of base to another one, and intents name their places by the first.
        let split = match &step.action {
            Action::Split { node, .. } => Some(*node),
            Action::Unite { from, .. } => Some(*from),
            _ => None,
        };
        if split.is_some_and(|dir| self.names_in(dir).next().is_some()) {
            return Ok(true);
        }
        let from = match &step.action {
            Action::Move { from, .. } | Action::Moved { from, .. } | Action::Split { from, .. } => {
                Some(from)
            }
            _ => None,
        };
        for place in [&step.place].into_iter().chain(from) {
            if self.named.contains(place)
                || self.left.contains(place)
                || self.takes_along(view, place.parent)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the directory, or one above it in base, is being renamed.
    pub(in crate::engine) fn takes_along(
        &self,
        view: &View<'_>,
        dir: NodeId,
    ) -> Result<bool, ReplicaError> {
        let mut seen = BTreeSet::new();
        let mut next = (!self.left.is_empty()).then_some(dir);
        while let Some(dir) = next.filter(|dir| seen.insert(*dir)) {
            let place = view.base_places(dir)?.into_iter().next();
            if place
                .as_ref()
                .is_some_and(|place| self.left.contains(place))
            {
                return Ok(true);
            }
            next = place.map(|place| place.parent);
        }
        Ok(false)
    }

    /// The names of those in a directory.
    pub(in crate::engine) fn names_in(&self, dir: NodeId) -> impl Iterator<Item = &Name> {
        let places = self.named.iter().chain(&self.left);
        places
            .filter(move |place| place.parent == dir)
            .map(|place| &place.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::{Intent, Replica};
    use crate::sync::Why;
    use crate::tree::{Time, Version};

    #[test]
    fn what_gives_the_places_of_a_directory_to_another_waits_for_what_is_on_its_way_into_it() {
        let dir = tempfile::tempdir().unwrap();
        let replica = Replica::open(dir.path(), Time(0)).unwrap();
        let place = |parent, name: &[u8]| Place::new(NodeId(parent), Name::new(name).unwrap());
        let (old, new, third) = (100, 101, 102);
        let intent = Intent {
            node: NodeId(third),
            data_seq: 0,
            number: 0,
            version: Version::file(1, 1, 0o600),
            from: None,
        };
        let intend = replica.update(|tx| tx.intend(place(old, b"f"), Some(intent)));
        intend.unwrap_or_else(|error: ReplicaError| panic!("{error}"));
        let waits = |action| {
            let step = Step {
                place: place(1, b"d"),
                action,
                why: Why::LocalChange,
            };
            let waits = replica.view(|view| Undecided::now(view)?.concern(view, &[&step]));
            waits.unwrap()
        };
        let unite = |from| Action::Unite {
            from: NodeId(from),
            node: NodeId(new),
        };
        let split = |node| Action::Split {
            node: NodeId(node),
            from: place(1, b"before"),
        };
        let waiting = [unite(old), unite(third), split(old), split(third)].map(waits);
        assert_eq!(waiting, [true, false, true, false]);
    }
}
