//! Servers that are not OpenSSH's usual one. Each keeps the same claims but those that are named here, and each of those
//! it must fail, so that the list stays true; `doc/SERVERS.md` says what they mean.

use std::fs;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use super::claims::CLAIMS;
use crate::support::machine::needs_root;
use crate::support::servers::Server;

/// Runs all claims; the ones in `deviates` have to fail.
async fn run_claims(server: &Server, deviates: &[&str]) {
    let mut failed = Vec::new();
    for (name, claim) in CLAIMS {
        println!("claim: {name}");
        fs::create_dir(server.root.join(name)).unwrap();
        let remote = server.open(name).await;
        let kept = AssertUnwindSafe(claim(remote.clone())).catch_unwind().await;
        if kept.is_err() || remote.is_closed() {
            println!(
                "not kept: {name}{}",
                if remote.is_closed() {
                    ", and the session ended"
                } else {
                    ""
                }
            );
            failed.push(*name);
        }
    }
    assert_eq!(failed, deviates);
}

#[tokio::test(flavor = "multi_thread")]
async fn openssh_in_a_chroot_keeps_all_claims() {
    needs_root("it changes the root directory");
    run_claims(&Server::chroot(), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proftpd_keeps_what_is_promised_of_it() {
    let deviates = [
        "posix_rename_replaces",
        "links_are_not_followed_where_it_matters",
        "failures_are_told_apart_as_far_as_they_can_be",
    ];
    run_claims(&Server::proftpd(), &deviates).await;
}

/// It would mix up what comes over several.
#[tokio::test(flavor = "multi_thread")]
async fn proftpd_gets_one_session_whatever_it_tells_of_itself() {
    for tells in [
        "",
        "ServerIdent on \"Files\"",
        "SFTPExtensions -versionSelect",
    ] {
        let server = Server::proftpd_with(tells);
        fs::create_dir(server.root.join("home")).unwrap();
        let remote = server.open("home").await;
        assert_eq!(remote.session_count(), 1, "{tells}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rclone_keeps_what_is_promised_of_it() {
    let deviates = [
        "names_are_bytes",
        "listings_are_whole",
        "exclusive_creation_is_exclusive",
        "posix_rename_replaces",
        "a_hard_link_keeps_the_file",
        "listings_tell_how_many_names_a_file_has",
        "a_handle_survives_replacement",
        "attributes_are_set_exactly",
        "links_are_not_followed_where_it_matters",
        "failures_are_told_apart_as_far_as_they_can_be",
        "a_burst_is_worked_on_in_order",
        "reads_end_with_the_file",
        "whole_files_go_up_and_down",
        "free_space_is_told",
    ];
    run_claims(&Server::rclone(), &deviates).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paramiko_keeps_what_is_promised_of_it() {
    let deviates = [
        "names_are_bytes",
        "exclusive_creation_is_exclusive",
        "posix_rename_replaces",
        "a_hard_link_keeps_the_file",
        "listings_tell_how_many_names_a_file_has",
        "a_handle_survives_replacement",
        "attributes_are_set_exactly",
        "links_are_not_followed_where_it_matters",
        "failures_are_told_apart_as_far_as_they_can_be",
        "a_burst_is_worked_on_in_order",
        "whole_files_go_up_and_down",
        "free_space_is_told",
    ];
    run_claims(&Server::paramiko(), &deviates).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asyncssh_keeps_what_is_promised_of_it() {
    let deviates = [
        "links_are_not_followed_where_it_matters",
        "failures_are_told_apart_as_far_as_they_can_be",
    ];
    run_claims(&Server::asyncssh(), &deviates).await;
}
