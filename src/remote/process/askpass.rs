//! What `ssh` asks, answered by us: passwords, passphrases, new hosts, codes.
//!
//! `ssh` runs the program in `$SSH_ASKPASS` for each question, with the question as its argument, and reads the answer
//! from its output. That program is this one, told by its environment to hand the question over a socket to the process
//! that connects. Nobody but the user can reach the socket, and it goes with the connection's beginning.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, fs, thread};

use tokio::sync::watch;

use crate::remote::{SecretRequest, SecretSource};

/// Where the program that is run finds whom to ask.
const SOCKET: &str = "ROAMHOME_ASKPASS";
/// No question and no answer is longer.
const TEXT_MAX: u64 = 16 * 1024;
/// For the other side, which is on this machine, to say its question.
const HASTE: Duration = Duration::from_secs(10);

/// Answers questions until it is dropped.
pub(super) struct Askpass {
    dir: PathBuf,
    unanswered: watch::Sender<Option<String>>,
    over: Arc<AtomicBool>,
    /// Somebody was asked for what no second session could be told, such as a code that is good for once.
    once: Arc<AtomicBool>,
}

impl Askpass {
    pub(super) fn start(secrets: SecretSource) -> io::Result<Self> {
        let random = getrandom::u64()?;
        let dir = env::temp_dir().join(format!("roamhome-ask-{random:016x}"));
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        let askpass = Self {
            dir,
            unanswered: watch::Sender::new(None),
            over: Arc::new(AtomicBool::new(false)),
            once: Arc::new(AtomicBool::new(false)),
        };
        let listener = UnixListener::bind(askpass.socket())?;
        let (unanswered, over) = (askpass.unanswered.clone(), askpass.over.clone());
        let mut desk = Desk {
            secrets,
            known: HashMap::new(),
            once: askpass.once.clone(),
        };
        // A thread of its own: who is asked may take as long as people do.
        thread::Builder::new()
            .name("askpass".to_owned())
            .spawn(move || {
                // Closed, they would be answers.
                let mut left_open = Vec::new();
                for mut stream in listener.incoming().flatten() {
                    if over.load(Ordering::Acquire) {
                        return;
                    }
                    if let Ok(Some(question)) = desk.serve(&mut stream) {
                        unanswered.send_replace(Some(question));
                        left_open.push(stream);
                    }
                }
            })?;
        Ok(askpass)
    }

    /// Whether somebody was asked for what is good for one session.
    pub(super) fn asked_once(&self) -> bool {
        self.once.load(Ordering::Acquire)
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("socket")
    }

    /// What makes `ssh` run `program` for its questions, and that come here.
    pub(super) fn env(&self, program: &Path) -> Vec<(OsString, OsString)> {
        vec![
            ("SSH_ASKPASS".into(), program.into()),
            ("SSH_ASKPASS_REQUIRE".into(), "force".into()),
            (SOCKET.into(), self.socket().into()),
        ]
    }

    /// Resolves with a question that nobody answered.
    pub(super) async fn unanswered(&self) -> String {
        let mut asked = self.unanswered.subscribe();
        let question = asked.wait_for(Option::is_some).await;
        // The sender lives in `self`.
        question.map_or_else(|_| String::new(), |q| q.clone().unwrap_or_default())
    }
}

impl Drop for Askpass {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Wakes the thread, which may be in the middle of a question; it is not waited for.
        drop(UnixStream::connect(self.socket()));
        // An empty directory below the temporary one is all that stays behind where this fails.
        drop(fs::remove_dir_all(&self.dir));
    }
}

/// Who answers.
struct Desk {
    secrets: SecretSource,
    /// Passwords and passphrases by their questions, for the next session.
    known: HashMap<String, String>,
    once: Arc<AtomicBool>,
}

impl Desk {
    /// Takes one question and answers it; the question if nobody could.
    fn serve(&mut self, stream: &mut UnixStream) -> io::Result<Option<String>> {
        stream.set_read_timeout(Some(HASTE))?;
        let mut question = String::new();
        stream.take(TEXT_MAX).read_to_string(&mut question)?;
        let Some((hint, prompt)) = question.split_once('\n') else {
            return Ok(None);
        };
        let prompt: String = prompt.chars().filter(|c| !c.is_control()).collect();
        let request = request(hint, prompt.trim());
        let answer = match self.known.get(&prompt) {
            Some(known) => Some(known.clone()),
            None => (self.secrets)(&request),
        };
        let Some(answer) = answer else {
            let is_question = !matches!(request, SecretRequest::Notice { .. });
            return Ok(is_question.then_some(prompt));
        };
        stream.write_all(format!("{answer}\n").as_bytes())?;
        match request {
            SecretRequest::Question { echo: true, .. } | SecretRequest::Notice { .. } => {}
            SecretRequest::Question { prompt, .. } if !prompt.contains("assword") => {
                self.once.store(true, Ordering::Release);
            }
            _ => drop(self.known.insert(prompt, answer)),
        }
        Ok(None)
    }
}

/// What a question of `ssh` is about.
fn request(hint: &str, prompt: &str) -> SecretRequest {
    let text = prompt.to_owned();
    let quoted = prompt.split(['\'', '"']).nth(1);
    match hint {
        "none" => SecretRequest::Notice { text },
        _ if prompt.contains("assphrase for") => SecretRequest::Passphrase {
            identity: quoted.unwrap_or_default().into(),
        },
        _ => SecretRequest::Question {
            echo: hint == "confirm" || prompt.contains("(yes/no"),
            prompt: text,
        },
    }
}

/// In the program that `ssh` runs: hands the question to who connects, and prints the answer. `None` if this process was
/// not run for that; otherwise whether there was an answer.
pub fn answer() -> Option<bool> {
    let socket = env::var_os(SOCKET)?;
    let mut args = env::args().skip(1);
    let prompt = args.next().unwrap_or_default();
    let hint = env::var("SSH_ASKPASS_PROMPT").unwrap_or_default();
    let asked = ask(Path::new(&socket), &format!("{hint}\n{prompt}"));
    match asked {
        Ok(answer) if !answer.is_empty() => Some(io::stdout().write_all(answer.as_bytes()).is_ok()),
        _ => Some(false),
    }
}

fn ask(socket: &Path, question: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(question.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.take(TEXT_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn questions_reach_who_can_answer_and_others_are_told() {
        let secrets: SecretSource = Arc::new(|request| match request {
            SecretRequest::Passphrase { identity } => Some(format!("p {}", identity.display())),
            SecretRequest::Question { echo: true, .. } => Some("yes".to_owned()),
            SecretRequest::Question { prompt, .. } if prompt == "Code:" => Some("123".to_owned()),
            _ => None,
        });
        let askpass = Askpass::start(secrets).unwrap();
        let ask = |question: &str| ask(&askpass.socket(), question).unwrap();
        assert_eq!(ask("\nEnter passphrase for key '/k': "), "p /k\n");
        assert_eq!(ask("\nContinue (yes/no/[fingerprint])? "), "yes\n");
        assert_eq!(ask("none\nConfirm user presence"), "");
        assert!(askpass.unanswered.borrow().is_none());
        assert!(!askpass.asked_once());
        assert_eq!(ask("\nCode: "), "123\n");
        assert!(askpass.asked_once());
        // Left open, so that nothing is taken for an answer.
        let socket = askpass.socket();
        let waiting = thread::spawn(move || super::ask(&socket, "\nann@nas's password: "));
        assert_eq!(askpass.unanswered().await, "ann@nas's password: ");
        assert!(!waiting.is_finished());
        let dir = askpass.dir.clone();
        drop(askpass);
        assert!(!dir.exists());
        assert_eq!(waiting.join().unwrap().unwrap(), "");
    }
}
