//! `roamhome mount -o setuid=ACCOUNT`: root mounts for an account, as fstab and automounters have it. The process that stays
//! mounts and unmounts, and the daemon that serves runs as the account.

use std::{ffi::OsString, process::Stdio};

use super::{
    background,
    keep::{UserDaemon, check_root, prepare, state_dir},
    mount::MountArgs,
};
use crate::{
    config::Env,
    control::{Code, Failure},
    daemon::{Access, Secrets},
    login::{Account, Daemon, Places, Started},
};

/// Mounts for the account `name`; `args` is the whole command line.
pub(super) fn run(mount: &MountArgs, name: &str, args: &[OsString]) -> Result<(), Failure> {
    check_root("mounts for others")?;
    let daemon = daemon_of(mount, name, args)?;
    if !mount.as_daemon {
        let secrets = Secrets {
            password: mount.reach.password()?,
            passphrase: None,
        };
        let state_dir = &daemon.places.state_dir;
        return background::start_logging(args, &secrets, state_dir, Stdio::null());
    }
    let (secrets, _) = background::become_child()?;
    let started = daemon.start(secrets.password);
    background::report(started.as_ref().map(drop).map_err(Failure::clone));
    if let Started::Child(mut serving) = started? {
        // Until then it may have to be unmounted.
        drop(serving.wait());
    }
    Ok(())
}

fn daemon_of(mount: &MountArgs, name: &str, args: &[OsString]) -> Result<UserDaemon, Failure> {
    let unknown = |why: &str| Failure::new(Code::Usage, format!("setuid={name}: {why}"));
    let account = Account::find(name)
        .map_err(|error| unknown(&error.to_string()))?
        .filter(|account| account.is_person(1))
        .ok_or_else(|| unknown("there is no such account for people"))?;
    let env = Env::of_account(&account.name, account.uid, &account.home);
    let Access {
        target,
        way,
        config,
        ..
    } = mount.access(&env)?;
    let state_dir = state_dir(&account, &config);
    let at = Account {
        home: std::path::absolute(&mount.mountpoint)
            .map_err(|error| unknown(&error.to_string()))?,
        ..account.clone()
    };
    let places = prepare(&at, &state_dir, &way)?;
    Ok(UserDaemon {
        args: args_for(args, &places),
        account,
        places,
        target,
    })
}

/// What was said to `mount`, for the daemon: with the directory that was made for it, and without what made this process
/// the daemon's parent.
fn args_for(args: &[OsString], places: &Places) -> Vec<OsString> {
    let child = format!("--{}", background::CHILD_FLAG);
    let mut state = OsString::from("state=");
    state.push(&places.state_dir);
    let mut said: Vec<OsString> = vec!["-o".into(), state];
    said.extend(args.iter().skip(2).filter(|arg| **arg != *child).cloned());
    said
}
