//! The whole of a plan.
use super::{Input, Plan, Policy};

/// Plans what makes both sides equal. A settled input plans nothing.
pub fn plan(_input: &Input, _policy: &Policy) -> Plan {
    Plan::default()
}
