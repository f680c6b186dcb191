//! `roamhome enrol`, `roamhome revoke` and `roamhome authorized-keys`: keys of machines, and keys of people.

use std::{
    io::{self, Write},
    path::Path,
};

use clap::Args;

use super::{Which, find, keep::Roaming, link, output};
use crate::{
    control::{
        Code, Failure,
        protocol::{KeysAction, Machine, Reply, Request},
    },
    daemon,
};

/// What can be said to `enrol`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The key is made on this machine and stays there, in the state directory. Its public half goes into
.ssh/authorized_keys on the server, with a restriction to SFTP; it counts once the server was seen
to take it. At a login with a password this happens by itself (see `enrol` in `roamhome config`),
and the key is changed when it is older than `key_lifetime`.")]
pub(super) struct EnrolArgs {
    #[command(flatten)]
    which: Which,
    /// Make a new key, even if the server takes the one that is there
    #[arg(long, conflicts_with_all = ["print", "list"])]
    rotate: bool,
    /// Only print the line for authorized_keys, for who may change it where we may not; then say `roamhome enrol` again
    #[arg(long, conflicts_with = "list")]
    print: bool,
    /// Only list the machines that the server lets in by keys of their own
    #[arg(long)]
    list: bool,
}

/// Gives this machine a key of its own.
pub(super) fn enrol(args: &EnrolArgs) -> Result<(), Failure> {
    let mount = args.which.mountpoint.as_deref();
    if args.list {
        return list(mount);
    }
    let action = match args.print {
        true => KeysAction::Line,
        false => KeysAction::Enrol { anew: args.rotate },
    };
    link::run(mount, Request::Keys { action })
}

fn list(mount: Option<&Path>) -> Result<(), Failure> {
    let action = KeysAction::List;
    match find::ask(mount, Request::Keys { action })? {
        Reply::Machines(found) => output::emit(&shown(&found.machines)),
        reply => Err(find::unexpected(&reply)),
    }
}

fn shown(machines: &[Machine]) -> String {
    if machines.is_empty() {
        return "no machine has a key of its own\n".to_owned();
    }
    let row = |machine: &Machine| {
        let this = if machine.this { "this machine" } else { "" };
        [&machine.name, &machine.id, &machine.since, this]
            .map(output::printable)
            .to_vec()
    };
    output::table(&machines.iter().map(row).collect::<Vec<_>>())
}

/// Lets a machine in no more.
pub(super) fn revoke(machine: String, mount: Option<&Path>) -> Result<(), Failure> {
    let action = KeysAction::Revoke { machine };
    link::run(mount, Request::Keys { action })
}

/// Prints the lines that let an account in.
pub(super) fn authorized(name: &str) -> Result<(), Failure> {
    // Nobody is kept out, and nobody is let in: other lines of sshd's configuration count as well.
    let Some(roaming) = Roaming::find(name)? else {
        return Ok(());
    };
    let failed = |error: io::Error| {
        let message = format!("the keys of {name} cannot be read: {error}");
        Failure::new(Code::StateDir, message)
    };
    let account = &roaming.account;
    if rustix::process::geteuid().is_root() {
        // What is in there is the account's, and may be a link to anything.
        become_account(account.uid, account.gid).map_err(failed)?;
    }
    let lines = daemon::authorized_keys(&roaming.state_dir).map_err(failed)?;
    io::stdout().write_all(&lines).map_err(failed)
}

fn become_account(uid: u32, gid: u32) -> io::Result<()> {
    use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[gid])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_listed_with_their_ids_and_this_one_is_marked() {
        let machine = |name: &str, this| Machine {
            name: name.into(),
            id: "01ab".into(),
            since: "2026-11-27".into(),
            this,
        };
        let expected = "lab-07    01ab  2026-11-27\nnote\\x1b  01ab  2026-11-27  this machine\n";
        let text = shown(&[machine("lab-07", false), machine("note\x1b", true)]);
        assert_eq!(text, expected);
        assert_eq!(shown(&[]), "no machine has a key of its own\n");
    }
}
