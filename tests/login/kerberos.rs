//! Logins by Kerberos, with a real KDC and a real sshd: the system's ssh has a ticket, and so has what is sent after a logout.

use super::keys::home_on;
use super::sshd::Door;
use super::*;

/// A server that lets in who has a ticket, and nobody else, with the KDC of its realm.
struct Realm<'a> {
    nas: &'a Lab,
    door: Door<'a>,
    /// What all computers know of it.
    krb5_conf: String,
}

/// The account of the realm, whose password is that of all accounts.
const MAKE_REALM: &str = r#"
set -e
mkdir -p -m 700 /var/lib/realm
kdb5_util create -s -P master >/dev/null
kadmin.local -q "addprinc -pw \"$1\" ann" >/dev/null
kadmin.local -q 'addprinc -randkey host/localhost' >/dev/null
kadmin.local -q 'ktadd -k /etc/krb5.keytab host/localhost' >/dev/null
krb5kdc
"#;

impl<'a> Realm<'a> {
    fn new(nas: &'a Lab) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let krb5_conf = format!(
            "[libdefaults]\ndefault_realm = ROAM.TEST\ndns_lookup_kdc = false\ndns_lookup_realm = false\n\
             dns_canonicalize_hostname = false\nrdns = false\nqualify_shortname = \"\"\nudp_preference_limit = 1\n\
             [realms]\nROAM.TEST = {{\nkdc = 127.0.0.1:{port}\n}}\n"
        );
        fs::write(nas.path("etc/krb5.conf"), &krb5_conf).unwrap();
        let kdc_conf = format!(
            "[kdcdefaults]\nkdc_listen = \"\"\nkdc_tcp_listen = 127.0.0.1:{port}\n\
             [realms]\nROAM.TEST = {{\ndatabase_name = /var/lib/realm/principal\n\
             key_stash_file = /var/lib/realm/stash\nacl_file = /var/lib/realm/acl\n}}\n\
             [logging]\nkdc = FILE:/var/lib/realm/kdc.log\ndefault = FILE:/var/lib/realm/log\n"
        );
        fs::create_dir_all(nas.path("etc/krb5kdc")).unwrap();
        fs::write(nas.path("etc/krb5kdc/kdc.conf"), kdc_conf).unwrap();
        nas.run(&["sh", "-c", MAKE_REALM, "realm", PASSWORD]);
        let door = Door::open_with(
            nas,
            "GSSAPIAuthentication yes\nGSSAPIStrictAcceptorCheck no\nPubkeyAuthentication no\n",
        );
        Self {
            nas,
            door,
            krb5_conf,
        }
    }

    /// A computer whose homes are there, and which has nothing but tickets to get in by.
    fn client(&self) -> Lab {
        home_on(self.nas);
        let lab = Lab::new(&format!(
            "server = \"ssh://{{user}}@localhost:{}/~/roam\"\ntransport = \"ssh\"\n\
             ssh_command = \"ssh -oGSSAPIAuthentication=yes -oPreferredAuthentications=gssapi-with-mic\"\n\
             quiet_period = \"100ms\"\nlogout_timeout = \"2s\"\nlog = \"roamhome=debug,info\"\n",
            self.door.port
        ));
        let known = self.door.known().replace("127.0.0.1", "localhost");
        fs::write(lab.path("etc/ssh/ssh_known_hosts"), known).unwrap();
        fs::write(lab.path("etc/krb5.conf"), &self.krb5_conf).unwrap();
        fs::create_dir(lab.path("var/lib/session")).unwrap();
        lab.give(&lab.path("var/lib/session"), ANN);
        lab
    }

    /// Whether the server has a file of the home.
    fn has(&self, name: &str) -> bool {
        self.nas.path("home/ann/roam").join(name).exists()
    }
}

/// Where a session has its ticket, which goes with it.
const TICKET: &str = "FILE:/var/lib/session/cc";
/// Where it is copied to.
const COPY: &str = "var/lib/roamhome/ann/krb5cc";

/// Ann gets a ticket.
fn kinit(lab: &Lab) {
    let mut child = lab
        .command("setpriv")
        .args(["--reuid=54001", "--regid=54001", "--clear-groups"])
        .args(["kinit", "-f", "-c", TICKET, "ann"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{PASSWORD}").unwrap();
    assert!(child.wait().unwrap().success());
}

/// Somebody whose login has this as the place of its ticket comes, and goes if there is a second step.
fn with_ticket(lab: &Lab, ccache: &str, steps: &[&str]) -> Said {
    let variable = format!("KRB5CCNAME={ccache}");
    let words = ["pamtester", "-E", &variable, "door", ANN.0];
    lab.try_run(&[&words[..], steps].concat())
}

#[test]
fn a_ticket_of_the_login_lets_the_home_in_and_is_there_after_the_session() {
    let nas = Lab::new("");
    let realm = Realm::new(&nas);
    let lab = realm.client();
    // What lies in the home is not what ssh goes by.
    fs::write(nas.path("home/ann/roam/letter"), "dear").unwrap();
    fs::create_dir(nas.path("home/ann/roam/.ssh")).unwrap();
    fs::write(nas.path("home/ann/roam/.ssh/config"), "NoSuchOption\n").unwrap();
    for name in ["letter", ".ssh", ".ssh/config"] {
        nas.give(&nas.path("home/ann/roam").join(name), ANN);
    }
    let in_and_out = ["open_session", "close_session"];
    let refused = with_ticket(&lab, "FILE:/var/lib/session/none", &in_and_out);
    assert_ne!(refused.status, 0, "{refused:?}");

    kinit(&lab);
    let said = with_ticket(&lab, TICKET, &in_and_out);
    assert_eq!(said.status, 0, "{said:?}\n{}", lab.logs());
    said.assert(0, &["all is on the server"]);
    lab.wait_until_quiet(ANN);
    let copied = fs::metadata(lab.path(COPY)).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((copied.uid(), copied.mode() & 0o777), (ANN.1, 0o600));
    // As at a logout.
    fs::remove_file(lab.path("var/lib/session/cc")).unwrap();
    let said = lab.log_in(ANN, "cat letter .ssh/config; echo after > after");
    said.assert(0, &["dear", "NoSuchOption"]);
    lab.wait_until_quiet(ANN);
    assert!(realm.has("after"), "{}", lab.logs());

    // Without a ticket the home is there all the same.
    as_user(&lab, "kdestroy -c FILE:/var/lib/roamhome/ann/krb5cc");
    let session = lab.stay(ANN);
    as_user(&lab, "cd /home/ann && cat letter && echo later > later");
    eventually("the server lets nobody in", || {
        let said = lab.try_run(&[ROAMHOME, "status", "/home/ann"]);
        said.stdout.contains("refused") && said.stdout.contains("gssapi-with-mic")
    });
    // The daemon that serves hears of the next one, which it would have tried in five minutes.
    kinit(&lab);
    with_ticket(&lab, TICKET, &in_and_out[..1]).assert(0, &[]);
    eventually("it is sent", || realm.has("later"));
    let told = lab.try_run(&[ROAMHOME, "status", "/home/ann"]).stdout;
    assert!(told.contains("ticket      expires in "), "{told}");

    // A ticket on what does not answer holds nobody up.
    let daemon = lab.pids(&["ann", "--as-daemon"]).remove(0);
    lab.run(&["kill", "-STOP", &daemon]);
    let said = with_ticket(&lab, "FILE:/home/ann/cc", &in_and_out[..1]);
    lab.run(&["kill", "-CONT", &daemon]);
    said.assert(0, &["does not answer"]);
    session.log_out();
    lab.wait_until_quiet(ANN);
    nothing_of_root_is_in(&lab.path("var/lib/roamhome/ann"));
}

#[test]
fn root_opens_nothing_that_a_login_names_as_its_ticket() {
    let nas = Lab::new("");
    let realm = Realm::new(&nas);
    let lab = realm.client();
    kinit(&lab);
    with_ticket(&lab, TICKET, &["open_session"]).assert(0, &[]);
    let session = lab.stay(ANN);
    let copy = lab.path(COPY);
    fs::remove_file(&copy).unwrap();
    let dir = lab.path("var/lib/session");
    // Root's would be a ticket, for root.
    let roots = lab.path("etc/ticket");
    fs::write(&roots, b"\x05\x04root's").unwrap();
    lab.run(&["chmod", "600", "/etc/ticket"]);
    std::os::unix::fs::symlink("/etc/ticket", dir.join("link")).unwrap();
    std::os::unix::fs::symlink("/var/lib/session/cc", dir.join("own-link")).unwrap();
    lab.run(&["mkfifo", "-m", "666", "/var/lib/session/fifo"]);
    lab.give(&dir.join("fifo"), ANN);
    for (name, says) in [
        ("FILE:/etc/ticket", "denied"),
        ("/etc/shadow", "denied"),
        ("FILE:/var/lib/session/link", "cannot be used"),
        ("FILE:/var/lib/session/own-link", "cannot be used"),
        ("FILE:/var/lib/session/fifo", "not a file"),
        ("FILE:/dev/zero", "not a file"),
        ("FILE:/etc/passwd", "somebody else's"),
        ("FILE:relative", "is in no"),
        ("--help", "is in no"),
        ("KEYRING:session:\u{1b}[2J", "is in no"),
        // None is there, as for who logs in without the network.
        ("DIR:/etc", ""),
        ("", ""),
    ] {
        let said = with_ticket(&lab, name, &["open_session"]);
        said.assert(0, &[says]);
        assert!(!said.stdout.contains("root") && !said.stdout.contains('\u{1b}'));
        assert_eq!(
            said.stdout.contains("ticket"),
            !says.is_empty(),
            "{name}: {said:?}"
        );
        assert!(!copy.exists(), "{name}: {said:?}");
    }
    // What stands where it goes is the account's, too.
    for name in [COPY, "var/lib/roamhome/ann/krb5cc.next"] {
        std::os::unix::fs::symlink("/etc/ticket", lab.path(name)).unwrap();
    }
    with_ticket(&lab, TICKET, &["open_session"]).assert(0, &[]);
    assert!(fs::symlink_metadata(&copy).unwrap().is_file());
    assert_eq!(fs::read(&roots).unwrap(), b"\x05\x04root's");
    session.log_out();
    lab.wait_until_quiet(ANN);
}

#[test]
fn a_ticket_that_was_passed_on_to_sshd_mounts_the_home() {
    let nas = Lab::new("");
    let realm = Realm::new(&nas);
    let lab = realm.client();
    // sshd keeps what was passed on in /tmp.
    lab.run(&["mount", "-t", "tmpfs", "-o", "mode=1777", "tmp", "/tmp"]);
    fs::copy(nas.path("etc/krb5.keytab"), lab.path("etc/krb5.keytab")).unwrap();
    let desk = Door::open_with(
        &lab,
        "GSSAPIAuthentication yes\nGSSAPIStrictAcceptorCheck no\nPubkeyAuthentication no\n",
    );
    // She sits at a third computer, for which the server does.
    fs::create_dir(nas.path("var/lib/session")).unwrap();
    nas.give(&nas.path("var/lib/session"), ANN);
    kinit(&nas);
    let port = desk.port.to_string();
    let ssh = format!(
        "KRB5CCNAME={TICKET} ssh -p {port} -oGSSAPIAuthentication=yes -oGSSAPIDelegateCredentials=yes \
         -oStrictHostKeyChecking=no -oUserKnownHostsFile=/dev/null -oPreferredAuthentications=gssapi-with-mic \
         ann@localhost 'pwd; echo here > here; klist'"
    );
    let id = ["--reuid=54001", "--regid=54001", "--clear-groups"];
    let said = nas.try_run(&[&["setpriv"], &id[..], &["sh", "-c", &ssh]].concat());
    let log = fs::read_to_string(lab.path("etc/door_log")).unwrap_or_default();
    assert_eq!(said.status, 0, "{said:?}\n{log}\n{}", lab.logs());
    said.assert(0, &["/home/ann", "krbtgt/ROAM.TEST"]);
    lab.wait_until_quiet(ANN);
    assert!(realm.has("here"), "{}", lab.logs());
}
