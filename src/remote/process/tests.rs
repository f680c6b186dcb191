//! Programs that do not come to a session, or outlive it.

use super::*;

fn config() -> SftpConfig {
    SftpConfig {
        silence: Duration::from_secs(5),
        ..SftpConfig::default()
    }
}

async fn refused(script: &str) -> ConnectError {
    let argv = ["sh", "-c", script];
    connect_command(&argv, &config(), 1).await.unwrap_err()
}

#[tokio::test]
async fn the_last_words_of_a_program_are_told() {
    let error = refused("echo first >&2; echo 'no such\tuser' >&2; exit 1").await;
    assert_eq!(error.to_string(), "sh cannot be reached: no suchuser");
    let error = refused("exit 3").await;
    assert!(error.to_string().contains("exit status: 3"), "{error}");
    // A flood is cut, and what floods is killed.
    let error = refused("yes >&2 & exec 1>&- 0<&-; sleep 1000").await;
    assert!(
        error.to_string().contains(": y") || !error.needs_person(),
        "{error}"
    );
    let none = connect_command(&["/none/such"], &config(), 1).await;
    assert!(matches!(none, Err(ConnectError::Program { .. })));
    let none = connect_command::<&str>(&[], &config(), 1).await;
    assert!(matches!(none, Err(ConnectError::Program { .. })));
}

#[tokio::test]
async fn what_a_program_started_ends_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let script = format!(
        "sleep 1000 & echo $! > '{}'; exec /usr/lib/openssh/sftp-server",
        file.display()
    );
    let remote = connect_command(&["sh", "-c", &script], &config(), 1).await;
    let remote = remote.unwrap();
    assert_eq!(remote.about().transport, "command");
    let pid = std::fs::read_to_string(&file).unwrap();
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    assert!(rustix::process::test_kill_process(pid).is_ok());
    drop(remote);
    for _ in 0..500 {
        let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        // Whoever inherits the dead may take its time.
        if state.is_err() || state.is_ok_and(|stat| stat.contains(") Z")) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it lives on");
}
