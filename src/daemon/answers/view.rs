//! What the engine tells, as the protocol says it.

use crate::config::Transport;
use crate::control::protocol::{
    Conflict, ConflictVersion, Conflicts, Direction, GuardQuestion, Items, KeptItem,
    LEFT_ITEMS_MAX, Left, LeftItem, LinkState, Location, Pass, PassDeeds, Passes, RoomView, Side,
    Transfer,
};
use crate::daemon::MountRequest;
use crate::engine::{self, EngineStatus, PassReport, Shelf};
use crate::login;
use crate::sync::Guard;

/// Whose a version is that came by way of the server.
pub(in crate::daemon) const THE_SERVER: &str = "the server";

/// What is kept.
pub(super) fn items_of(shelf: Shelf) -> Items {
    let item = |item: engine::KeptItem| KeptItem {
        id: item.id,
        path: item.path.to_string(),
        bytes: item.size,
        mtime: item.mtime.secs(),
        at: item.at.secs(),
        why: item.why,
        location: location(item.on_server),
    };
    let missing = "there is no link: what is kept on the server is not shown";
    Items {
        items: shelf.items.into_iter().map(item).collect(),
        missing: shelf.only_here.then(|| missing.to_owned()),
    }
}

/// Conflicts as a machine called `host` tells them.
pub(super) fn conflicts_of(found: engine::Conflicts, host: &str) -> Conflicts {
    let version = |version: engine::ConflictVersion, mine: bool| ConflictVersion {
        bytes: version.size,
        mtime: version.mtime.secs(),
        host: match version.host {
            _ if mine => host.to_owned(),
            Some(theirs) => theirs,
            None => THE_SERVER.to_owned(),
        },
    };
    let view = |conflict: engine::Conflict| {
        let mine = conflict.lost == engine::Side::Mine;
        Conflict {
            id: conflict.id,
            path: conflict.path.to_string(),
            at: conflict.at.secs(),
            lost: if mine { Side::Mine } else { Side::Theirs },
            current: conflict.current.map(|current| version(current, !mine)),
            kept: version(conflict.kept, mine),
            location: location(conflict.on_server),
        }
    };
    let missing = "there is no link: conflicts that were kept on the server since it was last seen are not shown";
    Conflicts {
        conflicts: found.conflicts.into_iter().map(view).collect(),
        missing: found.only_here.then(|| missing.to_owned()),
    }
}

fn location(on_server: bool) -> Location {
    if on_server {
        Location::Server
    } else {
        Location::Here
    }
}

/// What passes did.
pub(super) fn passes_of(passes: Vec<engine::PassDeeds>) -> Passes {
    let view = |pass: engine::PassDeeds| PassDeeds {
        id: pass.id,
        at: pass.at.secs(),
        created: pass.created,
        replaced: pass.replaced,
        removed: pass.removed,
        moved: pass.moved,
        attributes: pass.attributes,
        whole: !pass.more,
    };
    Passes {
        passes: passes.into_iter().map(view).collect(),
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

/// The room on this disk.
pub(super) fn room_of(room: &engine::RoomView) -> RoomView {
    RoomView {
        cache_size: room.limits.size,
        min_free: room.limits.min_free,
        free: room.free,
        disk: room.disk,
    }
}

/// When the ticket of a login expires by which this machine gets in.
pub(super) fn ticket_until(request: &MountRequest) -> Option<i64> {
    let access = &request.access;
    let counts = access.for_login && access.config.transport == Transport::Ssh;
    login::ticket_until(&request.state_dir).filter(|_| counts)
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
        1 => parts.push("1 conflict, see `roamhome conflicts list`".to_owned()),
        n => parts.push(format!("{n} conflicts, see `roamhome conflicts list`")),
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
