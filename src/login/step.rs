//! A step's end of the keeper's socket. Blocking, since a step does one thing.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use zeroize::Zeroizing;

use super::places::keeper_socket;
use super::protocol::{Answer, Ask, LINE_MAX_BYTES};
use crate::control::protocol::Progress;

/// How it went.
#[derive(Debug)]
pub enum Asked {
    /// The keeper's final answer.
    Answered(Answer),
    /// No keeper listens.
    Nobody,
    /// It ended before it had answered.
    Gone,
    /// It said nothing in time.
    Silent(io::Error),
}

/// Asks the keeper of the account `uid`, and waits for its final answer, `patience` at most between two lines.
pub fn ask(uid: u32, ask: &Ask, patience: Duration, progress: &mut dyn FnMut(&Progress)) -> Asked {
    let stream = match UnixStream::connect(keeper_socket(uid)) {
        Ok(stream) => stream,
        Err(_) => return Asked::Nobody,
    };
    match converse(stream, ask, patience, progress) {
        Ok(answer) => Asked::Answered(answer),
        Err(error) if is_gone(&error) => Asked::Gone,
        Err(error) => Asked::Silent(error),
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn converse(
    mut stream: UnixStream,
    ask: &Ask,
    patience: Duration,
    progress: &mut dyn FnMut(&Progress),
) -> io::Result<Answer> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let mut line = Zeroizing::new(serde_json::to_vec(ask)?);
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        let limited = &mut (&mut reader).take(LINE_MAX_BYTES as u64);
        if limited.read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match serde_json::from_slice(&line)? {
            Answer::Progress(how_far) => progress(&how_far),
            answer => return Ok(answer),
        }
    }
}
