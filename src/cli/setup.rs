//! `roamhome setup`: from a server's name to homes that follow their accounts. It tries the server, writes the
//! administrator's configuration, shows what would change in PAM, and changes that only when told.

use std::{
    fs,
    io::{self, IsTerminal},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use super::{
    keep::{check_root, state_dir},
    output::{self, emit, printable},
    reach::{PASSWORD_TRIES, Terminal, ask_secrets},
};
use crate::{
    config::{Env, HostKeyPolicy, Layers, Target, Way},
    control::{Code, Failure},
    daemon::{self, Access, Ask, Asker, Secrets},
    logging,
    login::Account,
};

mod file;
mod pam;

/// What is written.
const CONFIG: &str = "/etc/roamhome/config.toml";
/// What daemons of logins know of servers.
const KNOWN_HOSTS: &str = "/etc/ssh/ssh_known_hosts";
/// What is said of a server that nobody knows; one whose key changed is not to be trusted by a word.
const UNKNOWN: &str = " is unknown: ";
/// An account that stands for all where none is named.
const ANYBODY: &str = "USER";

/// What can be said to `setup`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
What is not said is asked for on a terminal; without one it stays as it is. PAM is changed only with --pam, or when
asked and told so. Everything can be said again at any time: what is set already stays where nothing else is said.")]
pub(super) struct SetupArgs {
    /// Where homes are, with {user} for the account, such as {user}@nas:homes/{user}
    #[arg(long, value_name = "HOME")]
    server: Option<String>,
    /// Who comes to a machine that cannot get their home for the first time
    #[arg(long)]
    first_login: Option<FirstLoginArg>,
    /// What stays on a machine when nobody is logged in
    #[arg(long)]
    on_logout: Option<OnLogoutArg>,
    /// Log in on the server as this account's user, as a test
    #[arg(long, value_name = "ACCOUNT")]
    test_as: Option<String>,
    /// Trust a server that this machine does not know
    #[arg(long)]
    trust_new_host: bool,
    /// Write the configuration even if the server could not be tried
    #[arg(long)]
    untested: bool,
    /// Change PAM, so that homes follow logins from now on
    #[arg(long)]
    pam: bool,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FirstLoginArg {
    /// Is not let in
    Refuse,
    /// Works in an empty directory of the machine
    Local,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OnLogoutArg {
    /// All that was fetched
    Keep,
    /// No content that the server has
    Purge,
}

/// Sets this machine up.
pub(super) fn run(args: &SetupArgs) -> Result<(), Failure> {
    if !args.dry_run {
        check_root(
            "sets a machine up for logins; for a home of your own: roamhome mount HOME DIR",
        )?;
    }
    logging::init("error");
    let terminal = Terminal::new().filter(|_| io::stderr().is_terminal());
    let path = Path::new(CONFIG);
    let before = file::read(path)?;
    // A mistake in it is told before anything is asked.
    layers(path, &before, ANYBODY)?;
    let settings = ask_settings(args, &before, terminal.as_ref())?;
    let after = file::set(&before, &settings);
    let tested = try_server(args, path, &after, terminal.as_ref());
    match tested {
        Ok(words) => emit(&format!("{words}\n"))?,
        Err(failure) if args.untested => output::print_failure(&failure),
        Err(failure) => return Err(failure),
    }
    write_config(args, path, (&before, &after), terminal.as_ref())?;
    change_pam(args, terminal.as_ref())
}

/// The administrator's configuration with this text, for an account.
fn layers(path: &Path, text: &str, user: &str) -> Result<Layers, Failure> {
    let env = Env::of_account(user, 0, Path::new("/home").join(user).as_path());
    let mut layers = Layers::defaults()?;
    layers.add_file(path, text, &env)?;
    Ok(layers)
}

/// What is to be set: said, or asked for.
fn ask_settings(
    args: &SetupArgs,
    now: &str,
    terminal: Option<&Terminal>,
) -> Result<Vec<(&'static str, String)>, Failure> {
    let word = |value: Option<String>| value.map(|value| value.to_lowercase());
    let first = args.first_login.map(|first| format!("{first:?}"));
    let last = args.on_logout.map(|last| format!("{last:?}"));
    let mut settings = Vec::new();
    for (key, said, question, choices) in [
        (
            "server",
            args.server.clone(),
            "where homes are, such as {user}@nas:homes/{user}",
            &[][..],
        ),
        (
            "first_login",
            word(first),
            "who comes to a machine that cannot get their home for the first time: refuse or local",
            &["refuse", "local"],
        ),
        (
            "on_logout",
            word(last),
            "what stays on a machine when nobody is logged in: keep or purge",
            &["keep", "purge"],
        ),
    ] {
        let current = file::value(now, key)?;
        let value = match (said, terminal) {
            (Some(value), _) => value,
            (None, Some(terminal)) => ask(terminal, question, &current, choices),
            (None, None) => current.clone(),
        };
        if key == "server" {
            check_server(&value)?;
        }
        if value != current {
            settings.push((key, value));
        }
    }
    Ok(settings)
}

fn ask(terminal: &Terminal, question: &str, current: &str, choices: &[&str]) -> String {
    loop {
        let answer = terminal.ask(&format!("{question} [{current}]: "), true);
        match answer {
            None => return current.to_owned(),
            Some(answer) if choices.is_empty() || choices.contains(&answer.as_str()) => {
                return answer;
            }
            Some(_) => terminal.tell(&format!("one of: {}", choices.join(", "))),
        }
    }
}

fn check_server(template: &str) -> Result<(), Failure> {
    if template.is_empty() {
        return Err(Failure::new(Code::Usage, "it is not said where homes are")
            .remedy("--server {user}@HOST:PATH"));
    }
    Target::parse(&template.replace("{user}", ANYBODY))?;
    if !template.contains("{user}") && !template.contains("{uid}") && !template.contains("{home}") {
        let message = format!("{template} is one home, and accounts are many");
        return Err(Failure::new(Code::Usage, message)
            .remedy("put {user} where the account's name belongs; a single account's home is set in /etc/roamhome/users/ACCOUNT.toml"));
    }
    Ok(())
}

/// Connects as a login would; tells what came of it.
fn try_server(
    args: &SetupArgs,
    path: &Path,
    text: &str,
    terminal: Option<&Terminal>,
) -> Result<String, Failure> {
    let who = match (&args.test_as, terminal) {
        (Some(name), _) => Some(name.clone()),
        (None, Some(terminal)) => {
            let sudo = std::env::var("SUDO_USER").unwrap_or_default();
            Some(ask(terminal, "try it as account (- for none)", &sudo, &[]))
        }
        (None, None) => None,
    };
    let who = who.filter(|name| !name.is_empty() && name != "-");
    let account = who.as_deref().map(account).transpose()?;
    let mut access = access(path, text, account.as_ref())?;
    let is_asked = account.is_some() && terminal.is_some() && matches!(access.way, Way::Russh(_));
    let at = match &account {
        Some(account) => state_dir(account, &access.config),
        None => PathBuf::from("/nonexistent"),
    };
    let mut tries = 0;
    loop {
        let failure = match daemon::doctor::doctor(&access, &at, false) {
            Ok(report) => return Ok(let_in(&report, &access)),
            Err(failure) => failure,
        };
        match failure.code {
            Code::HostKey if failure.message.contains(UNKNOWN) => {
                let question = format!("{failure}; trust it? [y/N]: ");
                if !args.trust_new_host && !is_yes(terminal, &question) {
                    return Err(failure.remedy(
                        "compare the fingerprint with the server's, then say --trust-new-host",
                    ));
                }
                access.config.host_key_policy = HostKeyPolicy::AcceptNew;
            }
            Code::Authentication if account.is_none() => {
                publish_known_hosts(&access);
                return Ok(format!(
                    "{} answers, and is known; nobody logged in (--test-as ACCOUNT)",
                    host(&access)
                ));
            }
            Code::Authentication if is_asked && tries < PASSWORD_TRIES => {
                tries += 1;
                publish_known_hosts(&access);
                access.secrets = ask_secrets(&access)?;
            }
            _ => return Err(failure),
        }
    }
}

fn account(name: &str) -> Result<Account, Failure> {
    let unknown = |why: String| Failure::new(Code::Usage, format!("{name}: {why}"));
    let found = Account::find(name).map_err(|error| unknown(error.to_string()))?;
    let found = found.filter(|account| account.is_person(1));
    found.ok_or_else(|| unknown("there is no such account for people".to_owned()))
}

/// How the daemon of a login would connect.
fn access(path: &Path, text: &str, account: Option<&Account>) -> Result<Access, Failure> {
    let user = account.map_or(ANYBODY, |account| &account.name);
    let config = layers(path, text, user)?.config().clone();
    let server = config.server.clone().unwrap_or_default();
    let target = Target::parse(&server)?;
    Ok(Access {
        way: config.way(&target)?,
        target,
        user: user.to_owned(),
        state_dir: account.map(|account| state_dir(account, &config)),
        config,
        secrets: Secrets::default(),
        asker: Asker::default(),
        for_login: true,
    })
}

fn host(access: &Access) -> String {
    match &access.target {
        Target::Server(place) => place.host.clone(),
        Target::Local(path) => path.clone(),
    }
}

fn let_in(report: &daemon::doctor::Report, access: &Access) -> String {
    publish_known_hosts(access);
    let user = &access.user;
    format!(
        "{} was let in for {user}, {:.0} ms; `roamhome doctor` tells what the server can do",
        printable(&report.server),
        report.connect_ms
    )
}

/// A file that was made by learning is its maker's alone, and daemons run as their accounts.
fn publish_known_hosts(access: &Access) {
    if access.config.known_hosts.is_none() {
        // Where it was not made, it is as its administrator wants it.
        let mode = fs::metadata(KNOWN_HOSTS).map(|found| found.permissions().mode() & 0o777);
        if mode.is_ok_and(|mode| mode == 0o600) {
            drop(fs::set_permissions(
                KNOWN_HOSTS,
                fs::Permissions::from_mode(0o644),
            ));
        }
    }
}

fn is_yes(terminal: Option<&Terminal>, question: &str) -> bool {
    let answer = terminal.and_then(|terminal| terminal.ask(question, true));
    answer.is_some_and(|answer| matches!(answer.to_lowercase().as_str(), "y" | "yes"))
}

fn write_config(
    args: &SetupArgs,
    path: &Path,
    (before, after): (&str, &str),
    terminal: Option<&Terminal>,
) -> Result<(), Failure> {
    if before == after {
        return emit(&format!("{CONFIG} stays as it is\n"));
    }
    emit(&format!(
        "{CONFIG}:\n{}",
        file::changed_lines(before, after)
    ))?;
    if args.dry_run {
        return Ok(());
    }
    if terminal.is_some() && !is_yes(terminal, &format!("write {CONFIG}? [y/N]: ")) {
        return Err(Failure::new(Code::Usage, "nothing was changed"));
    }
    file::write(path, after)
}

fn change_pam(args: &SetupArgs, terminal: Option<&Terminal>) -> Result<(), Failure> {
    if pam::is_enabled() {
        return emit("PAM has the steps already: homes follow logins\n");
    }
    let lines = pam::lines()?;
    emit(&format!("PAM, by `{}`:\n{lines}", pam::COMMAND.join(" ")))?;
    let told = args.pam || is_yes(terminal, "change PAM now? [y/N]: ");
    match told && !args.dry_run {
        true => pam::enable(),
        false => emit(&format!(
            "PAM is not changed: `roamhome setup --pam`, or `{}`, does so\n",
            pam::COMMAND.join(" ")
        )),
    }
}
