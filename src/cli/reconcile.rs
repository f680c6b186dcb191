//! `roamhome reconcile`.

use std::path::Path;

use super::{
    find,
    output::{count, emit, printable},
};
use crate::control::{
    Code, Failure,
    protocol::{Pass, PlanView, Reply, Request},
};

/// Runs a pass, or shows what it would do.
pub(super) fn run(
    mountpoint: Option<&Path>,
    dry_run: bool,
    force_guard: bool,
) -> Result<(), Failure> {
    let request = Request::Reconcile {
        dry_run,
        force_guard,
    };
    match find::ask(mountpoint, request)? {
        Reply::Plan(plan) => show_plan(&plan),
        Reply::Pass(pass) => show_pass(&pass),
        reply => Err(find::unexpected(&reply)),
    }
}

fn show_plan(plan: &PlanView) -> Result<(), Failure> {
    let mut text = String::new();
    for line in plan.lines.iter().chain([&plan.summary]) {
        text.push_str(&printable(line));
        text.push('\n');
    }
    emit(&text)?;
    if plan.guards.is_empty() {
        return Ok(());
    }
    let questions: Vec<_> = plan.guards.iter().map(|g| g.message.as_str()).collect();
    Err(Failure::new(Code::Guard, questions.join("; "))
        .remedy("if that is what you want: roamhome reconcile --force-guard"))
}

fn show_pass(pass: &Pass) -> Result<(), Failure> {
    emit(&format!("pass {}: {}\n", pass.id, printable(&pass.summary)))?;
    if pass.problems == 0 {
        return Ok(());
    }
    let paths = count(pass.problems, "path");
    Err(Failure::new(
        Code::General,
        format!("{paths} could not be brought to agree"),
    )
    .remedy("`roamhome status` names them"))
}
