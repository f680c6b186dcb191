//! Root takes an account's old home over; the next login shows it.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::{Site, at_door};
use crate::support::exact::{assert_exact, exact, make_home};
use crate::support::lab::{ANN, Lab, PASSWORD, ROAMHOME};
use crate::support::machine::Said;

fn adopt(lab: &Lab, dir: &str, more: &str) -> Said {
    let script = format!(
        "printf '%s\\n' \"$1\" | {ROAMHOME} adopt {dir} --account ann --password-fd 0 {more}"
    );
    lab.try_run(&["sh", "-c", &script, "sh", PASSWORD])
}

#[test]
fn root_takes_an_accounts_home_over_and_the_next_login_shows_it() {
    let site = Site::new();
    let lab = site.lab("");
    let home = lab.path("home/ann");
    fs::create_dir(&home).unwrap();
    make_home(&home);
    lab.run(&["chown", "-hR", "ann:ann", "/home/ann"]);
    fs::write(home.join("roots"), "root's").unwrap();
    fs::set_permissions(
        home.join("roots"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    lab.give(&home, ANN);
    let said = at_door(&lab, ANN, PASSWORD, &["authenticate", "open_session"]);
    assert_ne!(said.status, 0, "{said:?}");
    let text = format!("{}{}", said.stdout, said.stderr);
    assert!(
        text.contains("roamhome adopt /home/ann"),
        "{said:?}\n{}",
        lab.logs()
    );

    adopt(&lab, "/home/ann", "--move-aside").assert(3, &["/home/ann/roots: Permission denied"]);
    assert!(
        home.join("docs/notes.txt").exists(),
        "it is not moved aside"
    );
    fs::remove_file(home.join("roots")).unwrap();
    let seen = exact(&home);
    let said = adopt(&lab, "/home/ann", "--move-aside");
    said.assert(
        0,
        &["/home/ann.before-roamhome now; the next login of ann mounts"],
    );
    assert_exact(&seen, &exact(&lab.path("home/ann.before-roamhome")));
    assert_eq!(fs::metadata(&home).unwrap().uid(), ANN.1);
    assert_eq!(
        fs::read_to_string(site.at("docs/notes.txt")).unwrap(),
        "Buy milk."
    );
    let state = lab.path("var/lib/roamhome/ann");
    let foreign = fs::read_dir(state).unwrap().flatten();
    for entry in foreign {
        assert_eq!(entry.metadata().unwrap().uid(), ANN.1, "{entry:?}");
    }

    let steps = ["authenticate", "open_session", "close_session"];
    at_door(&lab, ANN, PASSWORD, &steps).assert(0, &[]);
    adopt(&lab, "/home/ann.before-roamhome", "--dry-run").assert(0, &["0 (0 B) would be sent"]);
}
