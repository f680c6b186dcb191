//! The steps in a profile of authselect's, as RHEL and Fedora have them: tried with the PAM that is here.

use super::*;

/// The lines of such a profile that matter, without what features add.
const PROFILE: &str = "\
auth        required                                     pam_env.so
auth        [default=1 ignore=ignore success=ok]         pam_usertype.so isregular
auth        [default=1 ignore=ignore success=ok]         pam_localuser.so
auth        sufficient                                   pam_unix.so nullok
auth        [default=1 ignore=ignore success=ok]         pam_usertype.so isregular
auth        sufficient                                   pam_sss.so forward_pass
auth        required                                     pam_deny.so

account     required                                     pam_unix.so

session     required                                     pam_limits.so
-session    optional                                     pam_systemd.so
session     required                                     pam_unix.so
";

/// `pam/authselect` with the profile in `dir`.
fn add_steps(dir: &Path) -> Said {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("pam/authselect");
    Said::new(&Command::new(script).arg(dir).output().unwrap())
}

#[test]
fn in_a_profile_of_authselects_only_a_right_password_goes_to_the_server() {
    let site = Site::new();
    let lab = site.lab("");
    let profile = lab.path("etc/custom-profile");
    let files = ["system-auth", "password-auth"].map(|name| profile.join(name));
    fs::create_dir(&profile).unwrap();
    for file in &files {
        fs::write(file, PROFILE).unwrap();
    }
    add_steps(&profile).assert(0, &[]);
    let text = fs::read_to_string(&files[0]).unwrap();
    assert_eq!(text, fs::read_to_string(&files[1]).unwrap());
    let at = |what: &str| text.lines().position(|line| line.contains(what)).unwrap();
    assert!(at("roamhome logout") < at("pam_systemd.so"), "{text}");
    // Once is enough, and what is not understood stays as it is.
    add_steps(&profile).assert(1, &["there already"]);
    assert_eq!(fs::read_to_string(&files[0]).unwrap(), text);
    fs::write(&files[0], PROFILE).unwrap();
    fs::write(&files[1], "auth required pam_deny.so\n").unwrap();
    add_steps(&profile).assert(1, &["password-auth", "pam/README.md"]);
    assert_eq!(fs::read_to_string(&files[0]).unwrap(), PROFILE);

    // sssd is not here; a module that knows nobody stands in for its own.
    let text = text.replace("pam_sss.so forward_pass", "pam_deny.so");
    fs::write(lab.path("etc/pam.d/door"), text).unwrap();
    let refused = at_door(&lab, ANN, "wrong", &IN_AND_OUT);
    assert_ne!(refused.status, 0, "{refused:?}");
    assert_eq!(lab.processes(&["/proc/self/exe"]), Vec::<String>::new());
    assert_eq!((site.server.attempts(), lab.mounts(ANN)), (0, 0));
    at_door(&lab, ANN, PASSWORD, &IN_AND_OUT).assert(0, &["all is on the server"]);
    assert_eq!(site.server.logins(), 1, "{}", lab.logs());
    lab.wait_until_quiet(ANN);
}

#[test]
fn in_a_profile_of_authselects_no_jump_ends_at_a_step() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["system-auth", "password-auth"] {
        fs::write(dir.path().join(name), PROFILE).unwrap();
    }
    add_steps(dir.path()).assert(0, &[]);
    let text = fs::read_to_string(dir.path().join("system-auth")).unwrap();
    let auth: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("auth"))
        .collect();
    let after = |module: &str| {
        let jumps = |line: &&&str| line.contains("default=") && line.contains(module);
        let mut found = Vec::new();
        for line in auth.iter().filter(jumps) {
            let at = auth.iter().position(|other| other == line).unwrap();
            let (_, rest) = line.split_once("default=").unwrap();
            let over: usize = rest[..1].parse().unwrap();
            found.push(auth[at + over + 1].split_whitespace().next_back().unwrap());
        }
        found
    };
    // Who is not local is not asked by pam_unix; who is no regular account, not by sssd.
    assert_eq!(after("pam_localuser"), ["isregular"]);
    assert_eq!(after("pam_usertype"), ["nullok", "pam_deny.so"]);
    assert_eq!(after("pam_unix"), ["isregular"]);
    assert_eq!(after("pam_sss"), ["pam_deny.so"]);
}
