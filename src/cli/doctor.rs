//! `roamhome doctor`: prints what a server can do, what its lack means, and what to improve.

use std::io::{self, IsTerminal};

use clap::Args;

use super::{
    output::{count, emit, emit_json, printable, size, table},
    reach::{ReachArgs, Terminal, ask_secrets, while_refused},
    settings,
};
use crate::{
    config::Way,
    control::{Code, Failure},
    daemon::{
        self,
        doctor::{Outcome, Report, Weight},
    },
    logging,
};

/// What can be said to `doctor`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Logs in as `mount` does, and tries each operation that roamhome uses on files of its own in .roamhome/staging, which it
removes again. It sends and fetches up to 32 MiB. A directory that is no home yet is only looked at; with --create,
.roamhome is made and removed again. Nothing is mounted, and a mount of the same home is not disturbed.

It succeeds if a home can be there, whatever speed or nicety is lacking.")]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    reach: ReachArgs,
    /// Make .roamhome where it is missing, try all, and remove it again
    #[arg(long)]
    create: bool,
    /// Print one JSON object with a stable schema
    #[arg(long)]
    json: bool,
}

/// Looks at a server.
pub(super) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let env = settings::env()?;
    let options = args.reach.options()?;
    let mut access = args.reach.access(&env, &options, &[])?;
    // What goes on inside is for who asks for it.
    logging::init(if std::env::var_os("ROAMHOME_LOG").is_some() {
        &access.config.log
    } else {
        "error"
    });
    access.secrets.password = args.reach.password()?;
    access.asker = Terminal::asker();
    let own = access.config.state_dir.clone();
    let state_dir = own.unwrap_or_else(|| env.state_root().join(access.target.slug(&env.user)));
    let outcome = daemon::doctor::doctor(&access, &state_dir, args.create);
    let asks = args.reach.password_fd.is_none()
        && io::stdin().is_terminal()
        && matches!(access.way, Way::Russh(_));
    let report = while_refused(asks, outcome, || {
        access.secrets = ask_secrets(&access)?;
        Ok(daemon::doctor::doctor(&access, &state_dir, args.create))
    })?;
    if args.json {
        emit_json(&report)?;
    } else {
        emit(&human(&report))?;
    }
    verdict(&report)
}

/// A home cannot be there.
fn verdict(report: &Report) -> Result<(), Failure> {
    let worst = report
        .advice
        .iter()
        .find(|advice| advice.weight == Weight::Error);
    let Some(worst) = worst else {
        return Ok(());
    };
    let code = match report.home.state {
        "damaged" => Code::Identity,
        _ => Code::ServerPath,
    };
    let text = format!("{}: {}", report.server, worst.text);
    Err(Failure::new(code, text).remedy("see `doc/SERVERS.md` for servers that are known to work"))
}

fn human(report: &Report) -> String {
    let row = |name: &str, value: String| vec![name.to_owned(), printable(&value)];
    let mut rows = vec![
        row("home", report.server.clone()),
        row("is", home(report)),
        row("reached by", reached(report)),
        row("sessions", sessions(report)),
        row("round trip", round_trip(report)),
    ];
    if let Some(speed) = &report.throughput {
        let rate = |per_second: f64| format!("{}/s", size(per_second as u64));
        let fsync = speed.fsync_ms.map(|ms| format!("; fsync {ms:.1} ms"));
        rows.push(row(
            "throughput",
            format!(
                "up {}, down {} (a file of {}){}",
                rate(speed.up_per_second),
                rate(speed.down_per_second),
                size(speed.bytes),
                fsync.unwrap_or_default()
            ),
        ));
    }
    if let (Some(offset), Some(error)) = (report.clock_offset, report.clock_error) {
        rows.push(row(
            "clock",
            format!("{offset:+.1} s, give or take {error:.1} s"),
        ));
    }
    rows.push(row("room", room(report)));
    let offered = match report.extensions.is_empty() {
        true => "nothing beyond plain SFTP".to_owned(),
        false => report.extensions.join(", "),
    };
    rows.push(row("offers", offered));
    let mut text = table(&rows);
    text.push('\n');
    let checks: Vec<_> = report
        .checks
        .iter()
        .map(|check| {
            let outcome = match check.outcome {
                Outcome::Works => "works",
                Outcome::Missing => "missing",
                Outcome::Fails => "fails",
                Outcome::Skipped => "not tried",
            };
            let row = ["  ", check.name, outcome, &check.detail];
            row.map(printable).to_vec()
        })
        .collect();
    text.push_str(&table(&checks));
    text.push('\n');
    if report.advice.is_empty() {
        text.push_str("all is well\n");
    }
    for advice in &report.advice {
        let weight = match advice.weight {
            Weight::Note => "note",
            Weight::Warning => "warning",
            Weight::Error => "error",
        };
        text.push_str(&format!("{weight}: {}\n", printable(&advice.text)));
    }
    text
}

fn home(report: &Report) -> String {
    let home = &report.home;
    let kept = if home.kept_here {
        ", kept on this machine"
    } else {
        ""
    };
    let whose = format!("mode {}, of user {}", home.mode, home.uid);
    match home.state {
        "home" => {
            let identity: String = home.identity.chars().take(8).collect();
            let machines = count(home.machines as u64, "machine");
            format!("home {identity}, written by {machines}{kept}; {whose}")
        }
        "damaged" => format!("damaged: {}; {whose}", home.identity),
        _ => format!("a directory that is no home yet{kept}; {whose}"),
    }
}

fn reached(report: &Report) -> String {
    let Report {
        transport,
        connect_ms,
        ..
    } = report;
    let ssh = report.ssh.as_ref().map_or_else(String::new, |ssh| {
        format!(
            ", {}, {}, known by {}",
            ssh.cipher, ssh.key_exchange, ssh.host_key
        )
    });
    format!("{transport} in {connect_ms:.0} ms{ssh}")
}

fn sessions(report: &Report) -> String {
    let why = match report.fewer_sessions.as_str() {
        "" => String::new(),
        why => format!(": {why}"),
    };
    format!("{} of {}{why}", report.sessions, report.sessions_wanted)
}

fn round_trip(report: &Report) -> String {
    let times = &report.round_trip;
    format!(
        "{:.1} ms ({:.1} to {:.1}, of {})",
        times.median_ms, times.min_ms, times.max_ms, times.count
    )
}

fn room(report: &Report) -> String {
    match (report.home.free_bytes, report.home.total_bytes) {
        (Some(free), Some(total)) => format!("{} free of {}", size(free), size(total)),
        _ => "the server does not tell".to_owned(),
    }
}
