//! `roamhome login` and `roamhome logout`: what PAM runs. They tell the keeper, and let nobody in or out: whatever goes
//! wrong, only `first_login = "refuse"` keeps a person from a machine that never had their home.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use zeroize::Zeroizing;

use super::{keep::Roaming, output, ticket};
use crate::{
    config::FirstLogin,
    control::{Code, Failure, Secret, protocol::Progress},
    login::{
        Answer, Ask, Asked, Holder, Kind, Pam, PamType, ask, is_kept, keepers_dir, unsent_accounts,
    },
};

/// How long the keeper may take to listen.
const START_MAX: Duration = Duration::from_secs(5);
/// Between two words of how far the sending is.
const PROGRESS: Duration = Duration::from_secs(5);
/// How long it may take to answer beyond what it waits for itself.
const MARGIN: Duration = Duration::from_secs(5);
/// More than any password has.
const PASSWORD_MAX_BYTES: u64 = 4096;

/// What a step is about.
struct Step {
    roaming: Roaming,
    pam: Pam,
}

/// `roamhome login`, in PAM's auth and session steps.
pub(super) fn login() -> Result<(), Failure> {
    take(|step| match step.pam.step {
        Some(PamType::Auth) => step.hand_password(),
        Some(PamType::OpenSession) => step.open(),
        _ => Ok(()),
    })
}

/// `roamhome logout`, in PAM's session step.
pub(super) fn logout() -> Result<(), Failure> {
    take(|step| match step.pam.step {
        Some(PamType::CloseSession) => step.close(),
        _ => Ok(()),
    })
}

/// Takes a step, if it is one of ours.
fn take(how: impl FnOnce(&Step) -> Result<(), Failure>) -> Result<(), Failure> {
    step()?.as_ref().map_or(Ok(()), how)
}

/// `roamhome resume`, when the machine starts: what was left is sent although nobody logs in.
pub(super) fn resume() -> Result<(), Failure> {
    for uid in unsent_accounts() {
        match Roaming::find(&uid.to_string()) {
            Ok(Some(_)) => start_keeper(uid)?,
            Ok(None) => {}
            Err(failure) => output::print_failure(&failure),
        }
    }
    Ok(())
}

/// The step that PAM takes; none if it is about an account whose home stays where it is, or if this process may do
/// nothing: a locked screen asks for the password as its user.
fn step() -> Result<Option<Step>, Failure> {
    let Some(pam) = Pam::from_env(std::env::vars_os()) else {
        return Err(
            Failure::new(Code::Usage, "PAM runs this: PAM_USER is not set")
                .remedy("see pam/README.md for what to write into /etc/pam.d"),
        );
    };
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    // A mistake in a file keeps nobody out.
    match Roaming::find(&pam.user) {
        Ok(roaming) => Ok(roaming.map(|roaming| Step { roaming, pam })),
        Err(failure) => {
            output::tell_failure(&failure);
            Ok(None)
        }
    }
}

impl Step {
    fn uid(&self) -> u32 {
        self.roaming.account.uid
    }

    fn kind(&self) -> Kind {
        match self.pam.is_manager() {
            true => Kind::Manager,
            false => Kind::Session,
        }
    }

    /// The password that pam_exec gives with `expose_authtok`, up to its end.
    fn hand_password(&self) -> Result<(), Failure> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(PASSWORD_MAX_BYTES as usize));
        if io::stdin()
            .take(PASSWORD_MAX_BYTES)
            .read_to_end(&mut bytes)
            .is_err()
        {
            return Ok(());
        }
        // It ends with a zero byte.
        let password = bytes.split(|b| *b == 0).next().unwrap_or_default();
        let Ok(password) = str::from_utf8(password) else {
            output::tell("a password that is not UTF-8 cannot be sent to the server");
            return Ok(());
        };
        if password.is_empty() {
            return Ok(());
        }
        if is_kept(self.uid()) {
            // Who unlocks a screen may have a new one. The daemon tries it with the password.
            self.take_ticket();
        }
        let password = Secret::new(password.to_owned());
        match self.ask(&Ask::Password { password }, MARGIN) {
            Ok(_) => {}
            Err(failure) => output::print_failure(&failure),
        }
        Ok(())
    }

    /// A session begins: with its home, or with a word why not.
    fn open(&self) -> Result<(), Failure> {
        let failure = match self.open_for(self.holder()?) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        if self.roaming.is_known() || self.roaming.config.first_login == FirstLogin::Local {
            output::tell_failure(&failure);
            return Ok(());
        }
        Err(failure)
    }

    fn open_for(&self, holder: Holder) -> Result<(), Failure> {
        let kind = self.kind();
        let config = &self.roaming.config;
        let patience = config.login_timeout.max(config.fetch_timeout) + MARGIN * 2;
        let open = Ask::Open {
            holder,
            kind,
            ticket: self.take_ticket(),
        };
        match self.ask(&open, patience)? {
            Answer::Failed { failure } => Err(failure),
            Answer::Done { note: Some(note) } => {
                output::tell(&note);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Takes the Kerberos ticket that the login has, since its own may end with the session; whether there was one.
    fn take_ticket(&self) -> bool {
        let Some(ccache) = self
            .pam
            .ccache
            .as_ref()
            .filter(|_| self.roaming.is_by_ssh())
        else {
            return false;
        };
        let state_dir = &self.roaming.state_dir;
        if !state_dir.exists() && self.roaming.prepare().is_err() {
            // The login is about to hear of it.
            return false;
        }
        ticket::take(&self.roaming.account, ccache, state_dir)
    }

    /// A session ends. The last one waits until all is sent, or says what is left.
    fn close(&self) -> Result<(), Failure> {
        let (holder, kind) = (self.holder()?, self.kind());
        let patience = self.roaming.config.logout_timeout + MARGIN;
        if !is_kept(self.uid()) {
            return Ok(());
        }
        match self.ask(&Ask::Close { holder, kind }, patience)? {
            Answer::Left { files, bytes } => Err(unsent(files, bytes)),
            Answer::Done { note: Some(note) } => {
                output::tell(&note);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn holder(&self) -> Result<Holder, Failure> {
        Holder::parent().map_err(|error| {
            Failure::new(Code::General, format!("cannot tell who logs in: {error}"))
        })
    }

    /// Asks the keeper, which is started if there is none.
    fn ask(&self, question: &Ask, patience: Duration) -> Result<Answer, Failure> {
        let mut asked = ask(self.uid(), question, patience, &mut show());
        // One that was killed leaves to the next what it knew.
        if matches!(asked, Asked::Nobody | Asked::Gone) {
            // The keeper does so, too, but nobody hears what it says.
            self.roaming.prepare()?;
            start_keeper(self.uid())?;
            let until = Instant::now() + START_MAX;
            asked = Asked::Nobody;
            while matches!(asked, Asked::Nobody) && Instant::now() < until {
                thread::sleep(Duration::from_millis(20));
                asked = ask(self.uid(), question, patience, &mut show());
            }
        }
        match asked {
            Asked::Answered(answer) => Ok(answer),
            Asked::Nobody | Asked::Gone => {
                Err(Failure::new(Code::NotRunning, "the keeper does not listen")
                    .remedy(format!("its log may tell why: {}", log_path(self.uid()))))
            }
            Asked::Silent(error) => Err(silent(&error)),
        }
    }
}

/// What the last logout leaves. Without a number, time was up before it was known.
fn unsent(files: u64, bytes: u64) -> Failure {
    let what = match files {
        0 => "not everything is on the server yet".to_owned(),
        _ => format!(
            "not on the server yet: {} ({})",
            output::count(files, "file"),
            output::size(bytes)
        ),
    };
    Failure::new(Code::Unsent, what).remedy("this machine goes on sending")
}

fn silent(error: &io::Error) -> Failure {
    Failure::new(
        Code::General,
        format!("the keeper does not answer: {error}"),
    )
}

/// How far it is, now and then: pam_exec shows whole lines.
fn show() -> impl FnMut(&Progress) {
    let mut next = Instant::now() + PROGRESS;
    move |progress| {
        if progress.left_files > 0 && next <= Instant::now() {
            next = Instant::now() + PROGRESS;
            let (files, size) = (
                output::count(progress.left_files, "file"),
                output::size(progress.left_bytes),
            );
            output::tell(&format!("{files} ({size}) still to be sent"));
        }
    }
}

fn log_path(uid: u32) -> String {
    match has_systemd() {
        true => format!("journalctl -u roamhome@{uid}"),
        false => format!("/run/roamhome/keepers/{uid}.log"),
    }
}

fn has_systemd() -> bool {
    sd_notify::booted().unwrap_or(false)
}

/// Under systemd as a service, so that it is of no session; else by itself.
fn start_keeper(uid: u32) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        Failure::new(
            Code::General,
            format!("the keeper cannot be started: {error}"),
        )
    };
    if has_systemd() {
        let mut systemctl = Command::new("/usr/bin/systemctl");
        systemctl.args(["start", "--no-block", "--quiet"]);
        let unit = format!("roamhome@{uid}.service");
        let status = systemctl.arg(unit).env_clear().status().map_err(failed)?;
        if status.success() {
            return Ok(());
        }
    }
    let log = keepers_dir().map_err(failed)?.join(format!("{uid}.log"));
    let log = File::options()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(log)
        .map_err(failed)?;
    Command::new("/proc/self/exe")
        .args(["keep", &uid.to_string()])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map(drop)
        .map_err(failed)
}
