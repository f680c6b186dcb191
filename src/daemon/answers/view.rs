//! What the engine tells, as the protocol says it.

use crate::control::protocol::{
    Direction, GuardQuestion, Items, KeptItem, LEFT_ITEMS_MAX, Left, LeftItem, LinkState, Location,
    Pass, Transfer,
};
use crate::engine::{self, EngineStatus, PassReport, Shelf};
use crate::sync::Guard;

/// What is kept.
pub(super) fn items_of(shelf: Shelf) -> Items {
    let item = |item: engine::KeptItem| KeptItem {
        id: item.id,
        path: item.path.to_string(),
        bytes: item.size,
        mtime: item.mtime.secs(),
        at: item.at.secs(),
        why: item.why,
        location: if item.on_server {
            Location::Server
        } else {
            Location::Here
        },
    };
    let missing = "there is no link: what is kept on the server is not shown";
    Items {
        items: shelf.items.into_iter().map(item).collect(),
        missing: shelf.only_here.then(|| missing.to_owned()),
    }
}

/// The state of the link.
pub(super) fn link_state(state: &engine::LinkState) -> LinkState {
    match state {
        engine::LinkState::Offline { .. } => LinkState::Offline,
        engine::LinkState::Connecting => LinkState::Connecting,
        engine::LinkState::Online => LinkState::Online,
        engine::LinkState::Refused { .. } => LinkState::Refused,
    }
}

/// Files under way.
pub(super) fn transfers(status: &EngineStatus) -> Vec<Transfer> {
    let view = |transfer: &engine::TransferView| Transfer {
        path: transfer.path.to_string(),
        direction: if transfer.upload {
            Direction::Up
        } else {
            Direction::Down
        },
        done_bytes: transfer.done_bytes,
        total_bytes: transfer.total_bytes,
    };
    status.transfers.iter().map(view).collect()
}

/// A pass that ended.
pub(super) fn pass_of(report: &PassReport) -> Pass {
    let mut parts = Vec::new();
    if report.full {
        parts.push(match report.directories {
            1 => "1 directory compared".to_owned(),
            n => format!("{n} directories compared"),
        });
    }
    parts.push(match report.done {
        0 => "nothing to do".to_owned(),
        1 => "1 change made".to_owned(),
        n => format!("{n} changes made"),
    });
    match report.conflicts {
        0 => {}
        1 => parts.push("1 conflict, see `roamhome backups list`".to_owned()),
        n => parts.push(format!("{n} conflicts, see `roamhome backups list`")),
    }
    match report.overtaken {
        0 => {}
        n => parts.push(format!("{n} of them still being written to")),
    }
    match report.waiting {
        0 => {}
        1 => parts.push("1 waits for a program to close its file".to_owned()),
        n => parts.push(format!("{n} wait for a program to close their files")),
    }
    Pass {
        id: report.id,
        at: report.at.secs(),
        summary: parts.join(", "),
        problems: report.failed,
    }
}

/// What a guard asks.
pub(super) fn question_of(guard: &Guard) -> GuardQuestion {
    let kind = match guard {
        Guard::Identity(_) => "identity",
        Guard::RolledBack => "rolled_back",
        Guard::MassRemoval { .. } => "mass_removal",
        Guard::AttributeStorm { .. } => "attribute_storm",
    };
    GuardQuestion {
        guard: kind.into(),
        message: guard.to_string(),
    }
}

/// What is not on the server.
pub(super) fn left_of(left: &engine::Left) -> Left {
    let bytes = |version: &Option<crate::tree::Version>| version.as_ref().map_or(0, |v| v.size);
    Left {
        files: left.places.len() as u64,
        bytes: left.places.iter().map(|(_, version)| bytes(version)).sum(),
        items: left
            .places
            .iter()
            .take(LEFT_ITEMS_MAX)
            .map(|(path, version)| LeftItem {
                path: path.to_string(),
                bytes: bytes(version),
                why: left.why.as_deref().unwrap_or("not sent yet").to_owned(),
            })
            .collect(),
    }
}
