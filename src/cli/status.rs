//! `roamhome status`.

use std::path::Path;

use super::{
    find,
    output::{ago, count, emit, emit_json, printable, size, span, table},
};
use crate::{
    clock,
    control::{
        Failure,
        protocol::{Direction, LinkState, Reply, Request, RoomView, Status, Transfer},
    },
};

/// Prints how the mount is.
pub(super) fn run(mountpoint: Option<&Path>, json: bool) -> Result<(), Failure> {
    match find::ask(mountpoint, Request::Status)? {
        Reply::Status(status) if json => emit_json(&status),
        Reply::Status(status) => emit(&human(&status, clock::now().secs())),
        reply => Err(find::unexpected(&reply)),
    }
}

fn human(status: &Status, now: i64) -> String {
    let mut rows = vec![
        row("home", &status.server),
        row("mounted at", &status.mountpoint),
        row("state", &status.state_dir),
        row("link", &link(status, now)),
        row("unsent", &unsent(status, now)),
        row("here", &replica(status)),
    ];
    rows.extend(
        status
            .replica
            .room
            .as_ref()
            .map(|room| row("room", &self::room(status, room))),
    );
    rows.push(row("last pass", &last_pass(status, now)));
    if status.conflicts > 0 {
        let conflicts = count(status.conflicts, "conflict");
        let text = format!("{conflicts}: `roamhome conflicts list`");
        rows.push(row("undecided", &text));
    }
    for lacking in &status.lacks {
        rows.push(row("lacks", lacking));
    }
    if let Some(since) = &status.key_since {
        rows.push(row("logs in by", &format!("this machine's key of {since}")));
    }
    if let Some(until) = status.ticket_until {
        rows.push(row("ticket", &ticket(until, now)));
    }
    if let Some(guard) = &status.guard {
        rows.push(row("waiting", &guard.message));
    }
    let mut text = table(&rows);
    if !status.transfers.is_empty() {
        text.push_str("\ntransfers\n");
        let rows: Vec<_> = status.transfers.iter().map(transfer).collect();
        text.push_str(&table(&rows));
    }
    if !status.problems.is_empty() {
        text.push_str("\nproblems\n");
        let rows: Vec<_> = status
            .problems
            .iter()
            .map(|p| {
                let (path, message) = (printable(&p.path), printable(&p.message));
                vec![format!("  {path}"), message, ago(now, p.since)]
            })
            .collect();
        text.push_str(&table(&rows));
    }
    text
}

fn row(name: &str, value: &str) -> Vec<String> {
    vec![name.to_owned(), printable(value)]
}

fn link(status: &Status, now: i64) -> String {
    let state = match status.link.state {
        LinkState::Offline => "offline",
        LinkState::Connecting => "connecting",
        LinkState::Online => "online",
        LinkState::Refused => "refused",
    };
    let detail = match status.link.detail.as_str() {
        "" => String::new(),
        detail => format!(": {detail}"),
    };
    let since = span(now.saturating_sub(status.link.since));
    format!("{state} for {since}{detail}")
}

fn unsent(status: &Status, now: i64) -> String {
    if status.unsent.files == 0 {
        return "nothing".to_owned();
    }
    let oldest = match status.unsent.oldest {
        Some(oldest) => format!(", the oldest from {}", ago(now, oldest)),
        None => String::new(),
    };
    let (files, bytes) = (status.unsent.files, status.unsent.bytes);
    format!("{} ({}){oldest}", count(files, "change"), size(bytes))
}

fn replica(status: &Status) -> String {
    let replica = &status.replica;
    format!(
        "{} of {}, {} of content, {}",
        count(replica.files, "file"),
        count(replica.nodes, "node"),
        size(replica.content_bytes),
        count(replica.backups, "backup")
    )
}

/// Content against its limits.
fn room(status: &Status, room: &RoomView) -> String {
    let content = size(status.replica.content_bytes);
    let taken = match room.cache_size {
        Some(limit) => format!("{content} of {} for content", size(limit)),
        None => "no limit for content".to_owned(),
    };
    let free = format!(
        "{} of {} free on this disk",
        size(room.free),
        size(room.disk)
    );
    let kept = match room.min_free {
        0 => String::new(),
        least => format!(", at least {} of which stay so", size(least)),
    };
    format!("{taken}, {free}{kept}")
}

fn last_pass(status: &Status, now: i64) -> String {
    match &status.last_pass {
        None => "none yet".to_owned(),
        Some(pass) => format!("{}, {}: {}", pass.id, ago(now, pass.at), pass.summary),
    }
}

/// How long the ticket lasts by which this machine sends what is left.
fn ticket(until: i64, now: i64) -> String {
    match until > now {
        true => format!("expires in {}", span(until - now)),
        false => format!(
            "expired {}: the next login with a ticket brings another",
            ago(now, until)
        ),
    }
}

fn transfer(transfer: &Transfer) -> Vec<String> {
    let arrow = match transfer.direction {
        Direction::Up => "up",
        Direction::Down => "down",
    };
    let (done, total) = (size(transfer.done_bytes), size(transfer.total_bytes));
    vec![
        format!("  {arrow}"),
        printable(&transfer.path),
        format!("{done} of {total}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{
        GuardQuestion, Link, Pass, ReplicaView, STATUS_VERSION, StatusProblem, Unsent,
    };

    fn limited() -> RoomView {
        RoomView {
            cache_size: Some(4096),
            min_free: 1024,
            free: 2048,
            disk: 8192,
        }
    }

    #[test]
    fn a_person_sees_the_link_the_unsent_and_the_problems() {
        let status = Status {
            version: STATUS_VERSION,
            mountpoint: "/home/ann".into(),
            server: "ann@nas:/homes/ann".into(),
            state_dir: "/s".into(),
            link: Link {
                state: LinkState::Offline,
                since: 400,
                detail: "no route".into(),
            },
            unsent: Unsent {
                files: 1,
                bytes: 2048,
                oldest: Some(940),
            },
            transfers: vec![Transfer {
                path: "a".into(),
                direction: Direction::Up,
                done_bytes: 0,
                total_bytes: 2048,
            }],
            last_pass: Some(Pass {
                id: 3,
                at: 990,
                summary: "sent 1 file".into(),
                problems: 1,
            }),
            problems: vec![StatusProblem {
                path: "b\x1b".into(),
                message: "no room".into(),
                since: 0,
            }],
            replica: ReplicaView {
                nodes: 3,
                files: 1,
                content_bytes: 100,
                backups: 0,
                room: Some(limited()),
            },
            conflicts: 2,
            lacks: vec!["copy-data: it costs".into()],
            key_since: Some("2026-11-27".into()),
            ticket_until: Some(4600),
            guard: Some(GuardQuestion {
                guard: "mass_removal".into(),
                message: "removes all".into(),
            }),
        };
        let expected = "\
home        ann@nas:/homes/ann
mounted at  /home/ann
state       /s
link        offline for 10 min: no route
unsent      1 change (2.0 KiB), the oldest from 60 s ago
here        1 file of 3 nodes, 100 B of content, 0 backups
room        100 B of 4.0 KiB for content, 2.0 KiB of 8.0 KiB free on this disk, at least 1.0 KiB of which stay so
last pass   3, 10 s ago: sent 1 file
undecided   2 conflicts: `roamhome conflicts list`
lacks       copy-data: it costs
logs in by  this machine's key of 2026-11-27
ticket      expires in 60 min
waiting     removes all

transfers
  up  a  0 B of 2.0 KiB

problems
  b\\x1b  no room  16 min ago
";
        assert_eq!(human(&status, 1000), expected);
    }
}
