//! Where the keeper takes what PAM's steps tell it: a socket that root alone may open, a thread for each step.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use zeroize::Zeroizing;

use super::places::keeper_socket;
use super::protocol::{Answer, Ask, LINE_MAX_BYTES};
use crate::control::socket;

/// A step that has not said what it wants by then is not heard.
const ASK_MAX: Duration = Duration::from_secs(10);

/// To the step that asked. One that is gone hears nothing, and nobody minds.
#[derive(Debug, Clone)]
pub(super) struct Caller(mpsc::Sender<Answer>);

impl Caller {
    pub(super) fn answer(&self, answer: Answer) {
        // The step may be gone.
        let _unheard = self.0.send(answer);
    }
}

/// An open socket; its name goes when this is dropped.
#[derive(Debug)]
pub(super) struct Desk(PathBuf);

impl Desk {
    /// Listens for the account `uid`, and gives each question to `heard`. None if another keeper listens.
    pub(super) fn open(
        uid: u32,
        heard: impl Fn(Ask, Caller) + Clone + Send + 'static,
    ) -> io::Result<Option<Self>> {
        let path = keeper_socket(uid);
        // Root's, whoever's home is kept.
        let Some(listener) = socket::bind(&path, 0)? else {
            return Ok(None);
        };
        thread::Builder::new().name("desk".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let heard = heard.clone();
                let step = move || {
                    // A step that hangs up has nothing to say.
                    drop(serve(stream, &heard));
                };
                // Without a thread it is not heard, and says so to whoever logs in.
                drop(thread::Builder::new().name("step".into()).spawn(step));
            }
        })?;
        Ok(Some(Self(path)))
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

fn serve(mut stream: UnixStream, heard: &impl Fn(Ask, Caller)) -> io::Result<()> {
    stream.set_read_timeout(Some(ASK_MAX))?;
    stream.set_write_timeout(Some(ASK_MAX))?;
    let ask = serde_json::from_slice(&read_line(&mut stream)?)?;
    let (sender, answers) = mpsc::channel();
    heard(ask, Caller(sender));
    for answer in answers {
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        if !matches!(answer, Answer::Progress(_)) {
            break;
        }
    }
    Ok(())
}

/// One line, which may hold a password: in a buffer that never moves, and is wiped.
fn read_line(stream: &mut impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(vec![0; LINE_MAX_BYTES]);
    let mut read = 0;
    while !line[..read].ends_with(b"\n") {
        match stream.read(&mut line[read..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => read += more,
        }
    }
    line.truncate(read);
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_and_an_endless_one_are_not_heard() {
        let read = |mut bytes: &[u8]| read_line(&mut bytes).map(|line| line.to_vec());
        assert_eq!(read(b"{}\n").unwrap(), b"{}\n");
        assert!(read(b"{}").is_err());
        assert!(read(&vec![b'x'; LINE_MAX_BYTES * 2]).is_err());
    }
}
