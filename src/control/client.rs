//! The commands' end of the control socket. Blocking, since a command does one thing.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::{
    Code, Failure,
    protocol::{Pong, Progress, Reply, ReplyLine, Request, RequestLine, VERSION},
};

/// A daemon gives a sign of life every second; after this silence it is taken for stuck.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// A ping needs no work.
const PING_SILENCE_MAX: Duration = Duration::from_secs(2);
/// The longest reply line that is read.
const REPLY_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Whether a daemon listens on `socket`.
pub fn is_served(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// Asks the daemon on `socket` and waits for its final answer; `Reply::Error` becomes the failure it holds.
/// Takes as long as the daemon shows that it works.
pub fn ask(
    socket: &Path,
    request: Request,
    progress: &mut dyn FnMut(Progress),
) -> Result<Reply, Failure> {
    ask_patiently(socket, request, SILENCE_MAX, progress)
}

/// Who listens on `socket`; nothing if nobody does, or not in a state to say.
pub fn ping(socket: &Path) -> Option<Pong> {
    match ask_patiently(socket, Request::Ping, PING_SILENCE_MAX, &mut |_| {}) {
        Ok(Reply::Pong(pong)) => Some(pong),
        _ => None,
    }
}

fn ask_patiently(
    socket: &Path,
    request: Request,
    silence_max: Duration,
    progress: &mut dyn FnMut(Progress),
) -> Result<Reply, Failure> {
    let failed = |error: io::Error| failure(socket, &error, silence_max);
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(silence_max)).map_err(failed)?;
    stream
        .set_write_timeout(Some(silence_max))
        .map_err(failed)?;
    let mut line = serde_json::to_vec(&RequestLine {
        version: VERSION,
        request,
    })
    .map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(failed)?;

    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        let limited = &mut (&mut reader).take(REPLY_MAX_BYTES);
        limited.read_until(b'\n', &mut line).map_err(failed)?;
        if line.pop() != Some(b'\n') {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        match parse_reply(&line)? {
            Reply::Alive => {}
            Reply::Progress(how_far) => progress(how_far),
            Reply::Error(failure) => return Err(failure),
            reply => return Ok(reply),
        }
    }
}

/// An answer that does not belong to the question.
pub fn unexpected(reply: &Reply) -> Failure {
    Failure::new(
        Code::General,
        format!("the daemon gave an answer that does not fit: {reply:?}"),
    )
    .remedy("command and daemon may differ in version: unmount, then mount again")
}

fn parse_reply(line: &[u8]) -> Result<Reply, Failure> {
    serde_json::from_slice::<ReplyLine>(line)
        .map(|line| line.reply)
        .map_err(|error| {
            Failure::new(
                Code::General,
                format!("the daemon's answer is not understood: {error}"),
            )
            .remedy("command and daemon may differ in version: unmount, then mount again")
        })
}

fn failure(socket: &Path, error: &io::Error, silence_max: Duration) -> Failure {
    let at = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            Failure::new(Code::NotRunning, format!("no roamhome listens on {at}"))
                .remedy("mount the home: roamhome mount [USER@]HOST:PATH MOUNTPOINT")
        }
        io::ErrorKind::PermissionDenied => Failure::new(
            Code::General,
            format!("{at}: this mount belongs to another user"),
        ),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Failure::new(
            Code::General,
            format!(
                "the daemon did not answer within {} s",
                silence_max.as_secs()
            ),
        )
        .remedy("its log (daemon.log in the state directory) may tell why"),
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset => {
            Failure::new(Code::General, "the daemon ended before it had answered")
                .remedy("its log (daemon.log in the state directory) may tell why")
        }
        _ => Failure::new(Code::General, format!("{at}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use super::*;

    /// A daemon that answers one connection with `lines`, then hangs up unless it is to hang.
    fn scripted(dir: &Path, lines: &'static str, hang: bool) -> std::path::PathBuf {
        let socket = dir.join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            BufReader::new(&stream)
                .read_line(&mut String::new())
                .unwrap();
            stream.write_all(lines.as_bytes()).unwrap();
            if hang {
                // Until the client hangs up.
                drop(stream.read(&mut [0]));
            }
        });
        socket
    }

    fn ask_scripted(lines: &'static str, hang: bool) -> Result<Reply, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let socket = scripted(dir.path(), lines, hang);
        ask_patiently(
            &socket,
            Request::Ping,
            Duration::from_millis(50),
            &mut |_| {},
        )
    }

    #[test]
    fn no_daemon_says_how_to_mount() {
        let dir = tempfile::tempdir().unwrap();
        let stale = dir.path().join("stale");
        drop(UnixListener::bind(&stale).unwrap());
        for socket in [stale, dir.path().join("none")] {
            assert!(!is_served(&socket));
            let failure = ask(&socket, Request::Ping, &mut |_| {}).unwrap_err();
            assert_eq!(failure.code, Code::NotRunning);
            assert!(failure.remedy.unwrap().contains("roamhome mount"));
        }
    }

    #[test]
    fn a_daemon_that_dies_stalls_or_babbles_is_an_error_and_never_a_hang() {
        for (lines, hang, expected) in [
            ("", false, "ended before"),
            ("{\"version\":1,", false, "ended before"),
            (
                "{\"version\":1,\"reply\":{\"kind\":\"alive\"}}\n",
                true,
                "did not answer",
            ),
            (
                "{\"version\":1,\"reply\":{\"kind\":\"song\"}}\n",
                false,
                "not understood",
            ),
        ] {
            let failure = ask_scripted(lines, hang).unwrap_err();
            assert!(failure.message.contains(expected), "{failure}");
            assert!(failure.remedy.is_some());
        }
    }
}
