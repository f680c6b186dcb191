use clap::CommandFactory;

use super::*;
use crate::control::Code;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

/// Scripts rely on these spellings.
#[test]
fn every_documented_spelling_is_accepted() {
    for line in [
        "roamhome mount ann@nas:/h /mnt",
        "roamhome mount nas: /mnt --foreground --port 2222 --identity k --known-hosts f --state d",
        "roamhome mount nas: /mnt --host-key-policy strict --config c --password-fd 3",
        "roamhome mount nas: /mnt --host-key-policy accept-new -o _netdev,port=22 -o allow_other",
        "roamhome mount nas: /mnt --transport ssh -o ssh_command=/usr/bin/ssh",
        "roamhome mount nas: /mnt --transport command -o sftp_command=x",
        "roamhome mount /media/usb/home /mnt --transport local",
        "roamhome doctor nas:/h --port 22 --transport ssh --json",
        "roamhome doctor /media/usb --create",
        "roamhome umount /mnt --timeout 5 --no-flush",
        "roamhome umount",
        "roamhome status",
        "roamhome status /mnt --json",
        "roamhome flush --timeout 30s",
        "roamhome reconcile /mnt --dry-run --force-guard",
        "roamhome offline /mnt",
        "roamhome online",
        "roamhome backups list",
        "roamhome backups restore 7 --to a/b --mount /mnt",
        "roamhome backups show 7",
        "roamhome trash list --mount /mnt",
        "roamhome trash restore 7",
        "roamhome trash empty --older-than 7d",
        "roamhome check --state d --repair",
        "roamhome rescue d out",
        "roamhome config --config c",
        "roamhome demo --keep",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn what_is_wrong_is_refused_with_the_status_of_usage() {
    for line in [
        "roamhome",
        "roamhome sing",
        "roamhome mount nas:",
        "roamhome flush --timeout soon",
        "roamhome mount nas: /mnt --host-key-policy never",
    ] {
        let error = parse(line).unwrap_err();
        assert_eq!(error.exit_code(), i32::from(Code::Usage.status()), "{line}");
    }
}

#[test]
fn help_tells_every_exit_status_and_hides_what_is_internal() {
    let help = Cli::command().render_long_help().to_string();
    for (code, meaning) in Code::TABLE {
        assert!(help.contains(&format!("  {:2}  {meaning}", code.status())));
    }
    let mut command = Cli::command();
    let mount = command.find_subcommand_mut("mount").unwrap();
    let help = mount.render_long_help().to_string();
    assert!(help.contains("--known-hosts <FILE>") && !help.contains("as-daemon"));
}
