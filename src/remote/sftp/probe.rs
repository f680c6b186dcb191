//! Measures what a small request has to wait while content is under way; an idle line is left alone.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::SftpSession;
use crate::remote::conn::Conn;
use crate::remote::line::{Class, Line};
use crate::remote::wire::{Extended, Request};

/// Between the answer to one question and the next.
const PAUSE: Duration = Duration::from_millis(20);

impl SftpSession {
    /// What it shares with the other sessions of its connection.
    pub(in crate::remote) fn line(&self) -> Arc<Line> {
        self.conn.line()
    }

    /// Measures the line over this session for as long as it lives.
    pub(in crate::remote) fn measure(&self) {
        let question = match self.asks_limits {
            true => Request::Extended(Extended::Limits),
            false => Request::Realpath(b".".as_slice().into()),
        };
        let conn = Arc::clone(&self.conn.0);
        tokio::spawn(async move {
            let line = conn.line();
            tokio::select! {
                () = conn.ended() => {}
                () = measure(&conn, &line, question) => {}
            }
        });
    }
}

async fn measure(conn: &Conn, line: &Line, question: Request) {
    loop {
        let asked = Instant::now();
        // What the answer is does not matter: an error was waited for as well.
        if conn.call(Class::Measured, question.clone()).await.is_err() {
            return;
        }
        line.measured(asked.elapsed());
        sleep(PAUSE).await;
        line.busy().await;
    }
}
