//! The decisions: what a pass does about every place where replica and server differ. Pure: values in,
//! ordered values out; no I/O, no clock, no log.
//!
//! `plan` looks at triples (base, local, remote) for the places that changed on either side and says what
//! to do, in phases; `guard` says whether a person must be asked first; `settle` turns what *happened*
//! into changes of the base tree.

mod model;

pub use model::{
    Action, ClockOffset, DirState, Input, Keep, LocalEntry, Phase, Plan, Policy, Prefer, Step,
    Triple, Why,
};
