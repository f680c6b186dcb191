//! Steps in words.

use crate::replica::{ReplicaError, View};
use crate::sync::{Action, Step, Why};

/// A line about a step for people.
pub(in crate::engine) fn describe(view: &View<'_>, step: &Step) -> Result<String, ReplicaError> {
    let path = view.shown_path(&step.place)?;
    let what = match &step.action {
        Action::Move { from, .. } => {
            let from = view.base_path_of(from)?.unwrap_or_default();
            return Ok(format!(
                "server   rename {from} to {path}{}",
                reason(step.why)
            ));
        }
        Action::Moved { .. } => "both     agree on the move of",
        Action::Split { .. } => "replica  move the children one by one into",
        Action::Unite { .. } => "replica  merge the server's directory into",
        Action::MakeDir { .. } => "server   make directory",
        Action::Publish { replaces: None, .. } => "server   create",
        Action::Publish {
            replaces: Some(_), ..
        } => "server   replace",
        Action::SetAttr { .. } => "server   set attributes of",
        Action::Remove { .. } => "server   remove",
        Action::RemoveDir => "server   remove directory",
        Action::Adopt { .. } => "replica  take over",
        Action::Refresh { .. } => "replica  update",
        Action::TakeAttrs { .. } => "replica  set attributes of",
        Action::Drop { .. } => "replica  remove",
        Action::DropDir { .. } => "replica  remove directory",
        Action::Agree { .. } => "both     agree on",
        Action::Compare { .. } => "both     compare",
    };
    Ok(format!("{what} {path}{}", reason(step.why)))
}

fn reason(why: Why) -> &'static str {
    match why {
        Why::LocalChange | Why::RemoteChange | Why::BothAgree => "",
        Why::ConflictLocalWins => {
            " (conflict: this machine's version is newer, the server's becomes a backup)"
        }
        Why::ConflictRemoteWins => {
            " (conflict: the server's version is newer, this machine's becomes a backup)"
        }
        Why::ChangeBeatsRemoval => " (removed on one side, changed on the other: the change stays)",
        Why::DirectoryStays => " (a directory and a file met: the directory stays)",
    }
}
