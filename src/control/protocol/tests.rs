use serde_json::json;

use super::*;
use crate::control::Code;

fn status() -> Status {
    Status {
        version: STATUS_VERSION,
        mountpoint: "/home/ann".into(),
        server: "ann@nas:/homes/ann".into(),
        state_dir: "/var/lib/roamhome/x".into(),
        link: Link {
            state: LinkState::Online,
            since: 100,
            detail: String::new(),
        },
        unsent: Unsent {
            files: 2,
            bytes: 30,
            oldest: Some(90),
        },
        transfers: vec![Transfer {
            path: "a".into(),
            direction: Direction::Up,
            done_bytes: 1,
            total_bytes: 2,
        }],
        last_pass: Some(Pass {
            id: 7,
            at: 99,
            summary: "sent 3 files".into(),
            problems: 0,
        }),
        problems: vec![StatusProblem {
            path: "b".into(),
            message: "no room".into(),
            since: 98,
        }],
        replica: ReplicaView {
            nodes: 9,
            files: 8,
            content_bytes: 7,
            backups: 0,
            room: Some(RoomView {
                cache_size: None,
                min_free: 3,
                free: 4,
                disk: 5,
            }),
        },
        conflicts: 3,
        lacks: vec!["copy-data: all is sent".into()],
        key_since: None,
        ticket_until: Some(500),
        guard: None,
    }
}

/// The schema that scripts rely on. A change here needs a line in the changelog, and a new `STATUS_VERSION`
/// if a field goes or means something else.
#[test]
fn the_status_schema_is_stable() {
    let room = json!({"cache_size": null, "min_free": 3, "free": 4, "disk": 5});
    let expected = json!({
        "version": 1,
        "mountpoint": "/home/ann",
        "server": "ann@nas:/homes/ann",
        "state_dir": "/var/lib/roamhome/x",
        "link": {"state": "online", "since": 100, "detail": ""},
        "unsent": {"files": 2, "bytes": 30, "oldest": 90},
        "transfers": [{"path": "a", "direction": "up", "done_bytes": 1, "total_bytes": 2}],
        "last_pass": {"id": 7, "at": 99, "summary": "sent 3 files", "problems": 0},
        "problems": [{"path": "b", "message": "no room", "since": 98}],
        "replica": {"nodes": 9, "files": 8, "content_bytes": 7, "backups": 0, "room": room},
        "conflicts": 3,
        "lacks": ["copy-data: all is sent"],
        "key_since": null,
        "ticket_until": 500,
        "guard": null,
    });
    assert_eq!(serde_json::to_value(status()).unwrap(), expected);
}

#[test]
fn a_status_of_an_older_daemon_is_understood() {
    let mut older = serde_json::to_value(status()).unwrap();
    let fields = older.as_object_mut().unwrap();
    for field in ["ticket_until", "key_since", "lacks", "conflicts"] {
        fields.remove(field);
    }
    fields["replica"].as_object_mut().unwrap().remove("room");
    let read: Status = serde_json::from_value(older).unwrap();
    assert_eq!((read.replica.room, read.ticket_until), (None, None));
}

#[test]
fn holding_still_has_its_documented_form() {
    let request = Request::Freeze {
        seconds: 9,
        hold: true,
    };
    let form = json!({"op": "freeze", "seconds": 9, "hold": true});
    assert_eq!(serde_json::to_value(&request).unwrap(), form);
    assert_eq!(serde_json::from_value::<Request>(form).unwrap(), request);
}

#[test]
fn requests_have_their_documented_form() {
    for (request, expected) in [
        (Request::Ping, json!({"op": "ping"})),
        (Request::Status, json!({"op": "status"})),
        (
            Request::Flush {
                timeout_ms: Some(5),
            },
            json!({"op": "flush", "timeout_ms": 5}),
        ),
        (
            Request::Reconcile {
                dry_run: true,
                force_guard: false,
            },
            json!({"op": "reconcile", "dry_run": true, "force_guard": false}),
        ),
        (Request::Offline, json!({"op": "offline"})),
        (
            Request::Password {
                password: Secret::new("p".into()),
            },
            json!({"op": "password", "password": "p"}),
        ),
        (Request::Online, json!({"op": "online"})),
        (Request::TryAgain, json!({"op": "try_again"})),
        (
            Request::Backups {
                action: BackupsAction::Restore {
                    id: "7".into(),
                    to: None,
                },
            },
            json!({"op": "backups", "action": "restore", "id": "7", "to": null}),
        ),
        (
            Request::Trash {
                action: TrashAction::Empty {
                    older_than_ms: Some(9),
                },
            },
            json!({"op": "trash", "action": "empty", "older_than_ms": 9}),
        ),
        (
            Request::Conflicts {
                action: ConflictsAction::Resolve {
                    id: "7".into(),
                    keep: Keep::Theirs,
                },
            },
            json!({"op": "conflicts", "action": "resolve", "id": "7", "keep": "theirs"}),
        ),
        (Request::Passes, json!({"op": "passes"})),
        (
            Request::Undo {
                pass: 7,
                dry_run: true,
            },
            json!({"op": "undo", "pass": 7, "dry_run": true}),
        ),
        (
            Request::Unmount {
                flush: false,
                timeout_ms: None,
            },
            json!({"op": "unmount", "flush": false, "timeout_ms": null}),
        ),
    ] {
        assert_form(&request, expected);
    }
}

#[test]
fn requests_about_keys_have_their_documented_form() {
    let machine = "lab-07".to_owned();
    for (action, expected) in [
        (KeysAction::List, json!({"op": "keys", "action": "list"})),
        (KeysAction::Line, json!({"op": "keys", "action": "line"})),
        (
            KeysAction::Enrol { anew: true },
            json!({"op": "keys", "action": "enrol", "anew": true}),
        ),
        (
            KeysAction::Revoke { machine },
            json!({"op": "keys", "action": "revoke", "machine": "lab-07"}),
        ),
    ] {
        assert_form(&Request::Keys { action }, expected);
    }
}

#[test]
fn requests_about_content_have_their_documented_form() {
    let pin = ContentAction::Pin {
        nodes: vec![1, 7],
        pinned: true,
    };
    for (action, expected) in [
        (
            pin,
            json!({"op": "content", "action": "pin", "nodes": [1, 7], "pinned": true}),
        ),
        (
            ContentAction::Pins,
            json!({"op": "content", "action": "pins"}),
        ),
        (
            ContentAction::List { node: 7 },
            json!({"op": "content", "action": "list", "node": 7}),
        ),
    ] {
        assert_form(&Request::Content { action }, expected);
    }
}

#[track_caller]
fn assert_form(request: &Request, expected: serde_json::Value) {
    assert_eq!(serde_json::to_value(request).unwrap(), expected);
    let read: Request = serde_json::from_value(expected).unwrap();
    assert_eq!(&read, request);
}

#[test]
fn replies_survive_the_round_trip() {
    let item = KeptItem {
        id: "7".into(),
        path: "a".into(),
        bytes: 1,
        mtime: 2,
        at: 3,
        why: "lost a conflict".into(),
        location: Location::Server,
    };
    for reply in [
        Reply::Alive,
        Reply::Progress(Progress::default()),
        Reply::Pong(Pong {
            pid: 1,
            mountpoint: "/m".into(),
            server: "s".into(),
        }),
        Reply::Status(Box::new(status())),
        Reply::Flushed(Left {
            files: 1,
            bytes: 2,
            items: vec![LeftItem {
                path: "a".into(),
                bytes: 2,
                why: "offline".into(),
            }],
        }),
        Reply::Plan(PlanView {
            lines: vec!["send a".into()],
            guards: vec![GuardQuestion {
                guard: "mass_removal".into(),
                message: "removes all".into(),
            }],
            summary: "1 step".into(),
        }),
        Reply::Pass(Pass::default()),
        Reply::Items(Items {
            items: vec![item.clone()],
            missing: Some("the rest".into()),
        }),
        Reply::Shown(Shown {
            item,
            file: "/x".into(),
        }),
        Reply::Done {
            message: "done".into(),
        },
        Reply::Error(Failure::new(Code::Guard, "no").remedy("look first")),
    ] {
        let line = serde_json::to_string(&ReplyLine {
            version: VERSION,
            reply: reply.clone(),
        })
        .unwrap();
        assert!(!line.contains('\n'));
        let read: ReplyLine = serde_json::from_str(&line).unwrap();
        assert_eq!(read.reply, reply);
    }
}

#[test]
fn fields_of_later_versions_are_skipped() {
    // And what earlier ones did not say is not there.
    let line = r#"{"version":1,"reply":{"kind":"items","items":[]}}"#;
    let read: ReplyLine = serde_json::from_str(line).unwrap();
    assert_eq!(read.reply, Reply::Items(Items::default()));
    let line = r#"{"version":1,"later":0,"reply":{"kind":"done","message":"x","later":[]}}"#;
    let read: ReplyLine = serde_json::from_str(line).unwrap();
    assert_eq!(
        read.reply,
        Reply::Done {
            message: "x".into()
        }
    );
}
