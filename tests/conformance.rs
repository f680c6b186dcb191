//! One suite of claims that every server must keep: the one in memory, OpenSSH's `sftp-server` on pipes and behind a
//! real sshd, and the demo's. What is proved against the memory server counts only as far as it is like the others.

mod claims;
mod others;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use roamhome::remote::{
    ConnectError, ConnectOptions, EmbeddedServer, HostKeyPolicy, MemoryServer, Remote, SftpConfig,
    SftpSession, Target, connect, connect_command, generate_identity, serve,
};
use roamhome::tree::Time;

use self::claims::CLAIMS;
use crate::support::sshd::Sshd;

const SFTP_SERVER: &str = "/usr/lib/openssh/sftp-server";

/// Runs all claims, each in a home of its own below `dir`.
async fn run_claims(dir: &Path, open: impl AsyncFn(&Path) -> Remote) {
    for (name, claim) in CLAIMS {
        println!("claim: {name}");
        let home = dir.join(name);
        fs::create_dir(&home).unwrap();
        let remote = open(&home).await;
        claim(remote.clone()).await;
        assert!(!remote.is_closed(), "{name} broke the session");
    }
}

fn memory() -> MemoryServer {
    MemoryServer::new(|| Time::new(1_700_000_000, 0))
}

async fn pipes(home: &Path) -> Remote {
    let config = SftpConfig {
        root: home.to_str().unwrap().into(),
        ..SftpConfig::default()
    };
    connect_command(&[SFTP_SERVER], &config, 2).await.unwrap()
}

#[tokio::test]
async fn the_memory_server_keeps_all_claims() {
    let dir = tempfile::tempdir().unwrap();
    run_claims(dir.path(), async |_| memory().remote(1)).await;
}

#[tokio::test]
async fn the_memory_server_keeps_all_claims_over_the_wire() {
    let dir = tempfile::tempdir().unwrap();
    let open = async |_: &Path| {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (reader, writer) = tokio::io::split(theirs);
        tokio::spawn(serve(reader, writer, memory().session()));
        let (reader, writer) = tokio::io::split(ours);
        let session = SftpSession::start(reader, writer, SftpConfig::default()).await;
        Remote::new(Arc::new(session.unwrap()), Vec::new(), ())
    };
    run_claims(dir.path(), open).await;
}

#[tokio::test]
async fn sftp_server_on_pipes_keeps_all_claims() {
    let dir = tempfile::tempdir().unwrap();
    run_claims(dir.path(), pipes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sshd_keeps_all_claims() {
    let keys = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(keys.path());
    let open = async |home: &Path| connect(&sshd.target(home), &sshd.options()).await.unwrap();
    run_claims(dir.path(), open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_server_keeps_all_claims() {
    let keys = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let identity = keys.path().join("id");
    let line = generate_identity(&identity, "demo").unwrap();
    let open = async |home: &Path| {
        let server = EmbeddedServer::start(home, &line).await.unwrap();
        let known_hosts = keys.path().join("known_hosts");
        fs::write(&known_hosts, server.known_hosts_line().unwrap()).unwrap();
        let target = Target {
            user: Some("ada".to_owned()),
            host: server.address().ip().to_string(),
            port: server.address().port(),
            path: "/".to_owned(),
        };
        let options = ConnectOptions {
            identities: vec![identity.clone()],
            default_identities: false,
            agent: false,
            known_hosts: vec![known_hosts],
            ..ConnectOptions::default()
        };
        let remote = connect(&target, &options).await.unwrap();
        assert_eq!(remote.session_count(), 4);
        // The server has to live as long as the connection; let the claim's remote own both.
        let sessions = (remote.interactive().clone(), remote.bulk().clone());
        Remote::new(sessions.0, vec![sessions.1], (remote, server))
    };
    run_claims(dir.path(), open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_trusted_only_with_the_key_that_is_known() {
    let keys = tempfile::tempdir().unwrap();
    let home = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(keys.path());
    let target = sshd.target(home.path());
    let known_hosts = keys.path().join("mine");
    let mut options = ConnectOptions {
        known_hosts: vec![known_hosts.clone()],
        ..sshd.options()
    };

    let unknown = connect(&target, &options).await.unwrap_err();
    assert!(
        matches!(unknown, ConnectError::HostKeyUnknown { .. }),
        "{unknown}"
    );
    assert!(unknown.needs_person() && unknown.to_string().contains("SHA256:"));

    options.host_key_policy = HostKeyPolicy::AcceptNew;
    connect(&target, &options).await.unwrap();
    options.host_key_policy = HostKeyPolicy::Strict;
    connect(&target, &options).await.unwrap();

    let other = generate_identity(&keys.path().join("other"), "").unwrap();
    let line = format!("# a comment\n\n[127.0.0.1]:{} {other}\n", sshd.port);
    fs::write(&known_hosts, line).unwrap();
    options.host_key_policy = HostKeyPolicy::AcceptNew;
    let changed = connect(&target, &options).await.unwrap_err();
    assert!(changed.needs_person());
    match changed {
        ConnectError::HostKeyChanged { file, line, .. } => {
            assert_eq!((file, line), (known_hosts, 3));
        }
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_tell_what_a_person_has_to_do() {
    let keys = tempfile::tempdir().unwrap();
    let home = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(keys.path());
    let wrong = keys.path().join("wrong");
    generate_identity(&wrong, "").unwrap();
    let options = ConnectOptions {
        identities: vec![wrong.clone(), keys.path().join("missing")],
        ..sshd.options()
    };
    let refused = connect(&sshd.target(home.path()), &options)
        .await
        .unwrap_err();
    match &refused {
        ConnectError::AuthRefused { tried, .. } => {
            assert_eq!(tried, &[format!("key {}", wrong.display())]);
        }
        other => panic!("{other}"),
    }
    assert!(refused.needs_person());

    let options = sshd.options();
    let missing = connect(&sshd.target(&home.path().join("no")), &options).await;
    assert!(
        matches!(missing, Err(ConnectError::HomeMissing { .. })),
        "{missing:?}"
    );
    fs::write(home.path().join("file"), "").unwrap();
    let file = connect(&sshd.target(&home.path().join("file")), &options).await;
    assert!(
        matches!(file, Err(ConnectError::HomeNotDirectory { .. })),
        "{file:?}"
    );
}

#[tokio::test]
async fn nobody_at_home_is_a_matter_of_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target {
        user: None,
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
        path: String::new(),
    };
    drop(listener);
    let error = connect(&target, &ConnectOptions::default())
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::Unreachable { .. }) && !error.needs_person(),
        "{error}"
    );
}
