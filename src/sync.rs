//! The decisions: what a pass does about every place where replica and server differ. Pure: values in,
//! ordered values out; no I/O, no clock, no log.
//!
//! `plan` looks at triples (base, local, remote) for the places that changed on either side and says what
//! to do, in phases; `guard` says whether a person must be asked first; `settle` turns what *happened*
//! into changes of the base tree.

mod change;
mod database;
mod decide;
mod forest;
mod guard;
mod model;
mod moves;
mod order;
mod plan;
mod settle;
#[cfg(test)]
mod world;

pub use change::{Change, local_change, remote_change, surely_same_data};
pub use decide::{Context, Decision, Fate, decide, newest};
pub use guard::{Guard, GuardLimits, HomeIdentity, Removals, Side, adoptions, guard, removed_here};
pub use model::{
    Action, ClockOffset, DirState, Input, Keep, LocalEntry, Phase, Plan, Policy, Prefer, Step,
    Triple, Why,
};
pub use moves::staged_node;
pub use plan::plan;
pub use settle::{Fold, Outcome, settle};
