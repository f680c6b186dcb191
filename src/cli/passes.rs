//! `roamhome passes` and `roamhome undo`.

use std::path::Path;

use super::{
    find,
    output::{ago, count, emit, emit_json, printable, table},
};
use crate::{
    clock,
    control::{
        Code, Failure,
        protocol::{PassDeeds, Reply, Request, Undone},
    },
};

/// Lists what passes did.
pub(super) fn list(mount: Option<&Path>, json: bool) -> Result<(), Failure> {
    match find::ask(mount, Request::Passes)? {
        Reply::Passes(passes) if json => emit_json(&passes),
        Reply::Passes(passes) => emit(&listing(&passes.passes, clock::now().secs())),
        reply => Err(find::unexpected(&reply)),
    }
}

/// Takes a pass back.
pub(super) fn undo(mount: Option<&Path>, pass: u64, dry_run: bool) -> Result<(), Failure> {
    match find::ask(mount, Request::Undo { pass, dry_run })? {
        Reply::Undone(undone) => {
            emit(&told(&undone))?;
            match undone.left.len() as u64 {
                0 => Ok(()),
                n => {
                    let message = format!("{} of pass {pass} stay", count(n, "change"));
                    Err(Failure::new(Code::Unsent, message))
                }
            }
        }
        reply => Err(find::unexpected(&reply)),
    }
}

fn listing(passes: &[PassDeeds], now: i64) -> String {
    if passes.is_empty() {
        return "no pass did anything that is remembered\n".to_owned();
    }
    let row = |pass: &PassDeeds| {
        let mut parts = Vec::new();
        for (number, what) in [
            (pass.created, "new"),
            (pass.replaced, "replaced"),
            (pass.removed, "removed"),
            (pass.moved, "moved"),
            (pass.attributes, "with other mode or time"),
        ] {
            if number > 0 {
                parts.push(format!("{number} {what}"));
            }
        }
        if !pass.whole {
            parts.push("and more than is remembered".to_owned());
        }
        vec![pass.id.to_string(), ago(now, pass.at), parts.join(", ")]
    };
    table(&passes.iter().map(row).collect::<Vec<_>>())
}

fn told(undone: &Undone) -> String {
    let mut lines = undone.lines.clone();
    let left = undone.left.iter();
    lines.extend(left.map(|left| format!("stays: {}: {}", left.path, left.why)));
    if lines.is_empty() {
        lines.push("nothing to take back".to_owned());
    }
    lines.iter().map(|line| printable(line) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::NotUndone;

    #[test]
    fn a_person_sees_what_passes_did_and_what_cannot_be_taken_back() {
        let passes = [
            PassDeeds {
                id: 12,
                at: 90,
                created: 2,
                removed: 1,
                whole: true,
                ..PassDeeds::default()
            },
            PassDeeds {
                id: 9,
                at: 80,
                moved: 1,
                ..PassDeeds::default()
            },
        ];
        let expected = "\
12  10 s ago  2 new, 1 removed
9   20 s ago  1 moved, and more than is remembered
";
        assert_eq!(listing(&passes, 100), expected);
        let undone = Undone {
            lines: vec!["remove a".into()],
            left: vec![NotUndone {
                path: "b\u{1b}".into(),
                why: "it changed since".into(),
            }],
        };
        let expected = "remove a\nstays: b\\x1b: it changed since\n";
        assert_eq!(told(&undone), expected);
        assert_eq!(told(&Undone::default()), "nothing to take back\n");
    }
}
