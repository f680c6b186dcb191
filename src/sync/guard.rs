//! Whether a person must be asked before a plan is carried out.
//!
//! An empty or foreign server, a server restored from an old backup and a tool that touched everything look
//! like work to the planner. The guard knows how such accidents look, and never judges a single place.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::{Add, AddAssign};

use crate::tree::{Kind, Place};

use super::{Action, Phase, Plan, Step};

/// A reason not to go on by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// The directory on the server is not the home that this replica belongs to.
    Identity(HomeIdentity),
    /// The server shows older states than this machine published there.
    RolledBack,
    /// The plan removes a large part of the home.
    MassRemoval {
        /// Where the removals would happen.
        side: Side,
        /// How many places it removes.
        removed: u64,
        /// Of how many.
        known: u64,
    },
    /// The plan changes nothing but attributes, or sets times to the epoch, on a large part of the home.
    AttributeStorm {
        /// Where the changes would happen.
        side: Side,
        /// How many places it touches.
        changed: u64,
        /// Of how many.
        known: u64,
    },
}

/// What is wrong with the identity that the server's directory shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HomeIdentity {
    /// It has none although this replica once saw one.
    Missing,
    /// It is another home's.
    Other,
    /// It cannot be read, and why.
    Unreadable(String),
}

/// One of the two sides of a home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// This machine.
    Replica,
    /// The server.
    Server,
}

/// How much a plan may do unasked. A count and a share must both be exceeded, so that neither a small home
/// nor a small clean-up in a large one asks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GuardLimits {
    /// Removals that never ask. A project's build directory has hundreds of files; a home has thousands.
    pub removed_count: u64,
    /// The share of the home whose removal asks.
    pub removed_share: f64,
    /// Attribute changes that never ask. They destroy less than removals, so more of them pass.
    pub attrs_count: u64,
    /// The share of the home whose attributes' change asks.
    pub attrs_share: f64,
}

impl Default for GuardLimits {
    fn default() -> Self {
        Self {
            removed_count: 100,
            removed_share: 0.25,
            attrs_count: 500,
            attrs_share: 0.5,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replica => "this machine",
            Self::Server => "the server",
        })
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(HomeIdentity::Missing) => f.write_str(
                "The directory on the server no longer says that it is a home. Is its disk mounted there, and is it the right directory?",
            )?,
            Self::Identity(HomeIdentity::Other) => f.write_str(
                "The directory on the server is another home than the one this machine knows. Is it the right server and directory?",
            )?,
            Self::Identity(HomeIdentity::Unreadable(why)) => write!(
                f,
                "The home's identity on the server cannot be read: {why}. Is it the right directory, and may this user read it?",
            )?,
            Self::RolledBack => f.write_str(
                "The server shows older files than this machine sent there. Was it restored from a backup? Going on sends the newer files again and deletes nothing.",
            )?,
            Self::MassRemoval { side, removed, known } => write!(
                f,
                "{removed} of {known} files and directories would be removed on {side}. Is that meant?",
            )?,
            Self::AttributeStorm { side, changed, known } => write!(
                f,
                "Only times and permissions of {changed} of {known} files and directories would change on {side}. Is that meant?",
            )?,
        }
        f.write_str(" Nothing of that was done; `roamhome reconcile --force-guard` allows it.")
    }
}

/// The places from which `plan` would remove something of the replica.
pub fn removed_here(plan: &Plan) -> BTreeSet<Place> {
    plan.steps()
        .filter(|step| removes(&step.action) == Some(Side::Replica))
        .map(|step| step.place.clone())
        .collect()
}

/// The steps of `plan` that show here what is new on the server, and nothing else.
pub fn adoptions(plan: &Plan) -> Plan {
    let adopts = |step: &&Step| matches!(step.action, Action::Adopt { .. });
    let of = |phase: &Phase| Phase {
        steps: phase.steps.iter().filter(adopts).cloned().collect(),
    };
    let phases = plan.phases.iter().map(of);
    Plan {
        phases: phases.filter(|phase| !phase.steps.is_empty()).collect(),
        ..Plan::default()
    }
}

/// How many places lose something on each side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removals {
    /// On this machine.
    pub replica: u64,
    /// On the server.
    pub server: u64,
}

impl Removals {
    /// What `plan` would remove. What is removed from the places `renamed` is known to stand elsewhere, and does
    /// not count.
    pub fn of(plan: &Plan, renamed: &BTreeSet<Place>) -> Self {
        let steps = plan.steps().filter(|step| !renamed.contains(&step.place));
        steps.fold(Self::default(), |all, step| all + Self::by(&step.action))
    }

    /// What one step removes.
    pub fn by(action: &Action) -> Self {
        let side = removes(action);
        Self {
            replica: u64::from(side == Some(Side::Replica)),
            server: u64::from(side == Some(Side::Server)),
        }
    }

    /// The smaller number on each side.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self {
            replica: self.replica.min(other.replica),
            server: self.server.min(other.server),
        }
    }

    fn on(self, side: Side) -> u64 {
        match side {
            Side::Replica => self.replica,
            Side::Server => self.server,
        }
    }
}

impl Add for Removals {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            replica: self.replica + more.replica,
            server: self.server + more.server,
        }
    }
}

impl AddAssign for Removals {
    fn add_assign(&mut self, more: Self) {
        *self = *self + more;
    }
}

/// The reasons in `plan` to ask first, of a home with `known_nodes` files and directories. `removals` are the plan's
/// own, and those that the same pass has behind it: what is little each time may be much together.
pub fn guard(
    plan: &Plan,
    known_nodes: u64,
    limits: &GuardLimits,
    removals: Removals,
) -> Vec<Guard> {
    let mut reasons = Vec::new();
    for side in [Side::Replica, Side::Server] {
        let removed = removals.on(side);
        if exceeds(
            removed,
            known_nodes,
            limits.removed_count,
            limits.removed_share,
        ) {
            reasons.push(Guard::MassRemoval {
                side,
                removed,
                known: known_nodes,
            });
        }
    }
    for side in [Side::Replica, Side::Server] {
        let changed = count(plan, |action| {
            touches_attributes_only(action) == Some(side) || brings_epoch(action) == Some(side)
        });
        if exceeds(changed, known_nodes, limits.attrs_count, limits.attrs_share) {
            reasons.push(Guard::AttributeStorm {
                side,
                changed,
                known: known_nodes,
            });
        }
    }
    reasons
}

fn count(plan: &Plan, pick: impl Fn(&Action) -> bool) -> u64 {
    plan.steps().filter(|step| pick(&step.action)).count() as u64
}

/// Whether `number` is both more than `count` and more than `share` of `known`.
fn exceeds(number: u64, known: u64, count: u64, share: f64) -> bool {
    number > count && number as f64 > known as f64 * share
}

/// The side from which the action removes something without putting something else in its place.
fn removes(action: &Action) -> Option<Side> {
    match action {
        Action::Remove { .. } | Action::RemoveDir => Some(Side::Server),
        Action::Drop { .. } | Action::DropDir { .. } => Some(Side::Replica),
        _ => None,
    }
}

/// The side on which the action changes nothing but mode and mtime.
fn touches_attributes_only(action: &Action) -> Option<Side> {
    match action {
        Action::SetAttr { .. } => Some(Side::Server),
        Action::TakeAttrs { .. } => Some(Side::Replica),
        _ => None,
    }
}

/// The side to which the action brings a file dated 1970, which a broken tool or file system wrote.
fn brings_epoch(action: &Action) -> Option<Side> {
    match action {
        Action::Refresh { version, .. } => {
            (version.kind == Kind::File && version.mtime == 0).then_some(Side::Replica)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
