//! A TCP proxy that can be cut, stalled and slowed down: the network between a daemon and its server.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// Forwards connections to one port; ends all of them when dropped.
pub(crate) struct Proxy {
    /// Where it listens on 127.0.0.1.
    pub(crate) port: u16,
    line: Arc<Line>,
}

#[derive(Default)]
struct Line {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Where new connections go.
    target: u16,
    /// Both ends of each connection that lives.
    open: Vec<[TcpStream; 2]>,
    /// New connections are dropped at once.
    down: bool,
    /// The proxy is gone.
    over: bool,
    /// Nothing is forwarded, and nobody is told.
    stalled: bool,
    /// Waited before each piece is forwarded.
    delay: Duration,
    /// What one direction passes in a second, in bytes.
    rate: Option<u64>,
    /// The line goes down when so many bytes have passed.
    cut_after: Option<u64>,
    /// It stalls when so many bytes have passed.
    stall_after: Option<u64>,
    passed: u64,
    /// Connections that were let in.
    connections: u64,
}

impl State {
    fn cut(&mut self) {
        for end in self.open.drain(..).flatten() {
            // It may be closed already.
            drop(end.shutdown(Shutdown::Both));
        }
    }
}

impl Proxy {
    /// Forwards to `port` on 127.0.0.1.
    pub(crate) fn start(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            line: Arc::default(),
        };
        proxy.change(|state| state.target = port);
        let line = Arc::clone(&proxy.line);
        thread::spawn(move || {
            for near in listener.incoming() {
                if line.lock().over {
                    return;
                }
                // A connection that fails is the daemon's to bear.
                drop(near.and_then(|near| line.connect(near)));
            }
        });
        proxy
    }

    /// Ends all connections and lets no new one in.
    pub(crate) fn down(&self) {
        self.change(|state| {
            state.down = true;
            state.cut();
        });
    }

    /// Lets connections in, and everything through.
    pub(crate) fn up(&self) {
        self.change(|state| {
            state.down = false;
            state.stalled = false;
            state.delay = Duration::ZERO;
            state.rate = None;
            state.cut_after = None;
            state.stall_after = None;
        });
    }

    /// Ends all connections; new ones go to `port`.
    pub(crate) fn retarget(&self, port: u16) {
        self.change(|state| {
            state.target = port;
            state.cut();
        });
    }

    /// Ends all connections; new ones are let in.
    pub(crate) fn cut(&self) {
        self.change(State::cut);
    }

    /// Ends all connections once `bytes` more have passed; new ones are let in.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.change(|state| state.cut_after = Some(state.passed + bytes));
    }

    /// Forwards nothing until `up`, as a network that swallows everything.
    pub(crate) fn stall(&self) {
        self.change(|state| state.stalled = true);
    }

    /// The same, once `bytes` more have passed.
    pub(crate) fn stall_after(&self, bytes: u64) {
        self.change(|state| state.stall_after = Some(state.passed + bytes));
    }

    /// Lets through so many bytes in a second, each way.
    pub(crate) fn throttle(&self, rate: u64) {
        self.change(|state| state.rate = Some(rate));
    }

    /// Makes each piece wait.
    pub(crate) fn delay(&self, delay: Duration) {
        self.change(|state| state.delay = delay);
    }

    /// Bytes that went through, both ways.
    pub(crate) fn passed(&self) -> u64 {
        self.line.lock().passed
    }

    /// How many connections were let in.
    pub(crate) fn connections(&self) -> u64 {
        self.line.lock().connections
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.line.lock());
        self.line.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.down();
        self.change(|state| state.over = true);
        // Wakes the thread that accepts.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
    }
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn connect(self: &Arc<Self>, near: TcpStream) -> io::Result<()> {
        if self.lock().down {
            return near.shutdown(Shutdown::Both);
        }
        let port = self.lock().target;
        let far = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let ends = [near.try_clone()?, far.try_clone()?];
        {
            let mut state = self.lock();
            state.open.push(ends);
            state.connections += 1;
        }
        for (from, to) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
            let line = Arc::clone(self);
            thread::spawn(move || {
                // However it ended, both directions end.
                drop(line.pump(&from, &to));
                drop(from.shutdown(Shutdown::Both));
                drop(to.shutdown(Shutdown::Both));
            });
        }
        Ok(())
    }

    fn pump(&self, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
        let mut piece = [0; 32 * 1024];
        loop {
            let read = from.read(&mut piece)?;
            if read == 0 {
                return Ok(());
            }
            let (delay, rate) = {
                let state = self.lock();
                (state.delay, state.rate)
            };
            let taken = rate.map(|rate| Duration::from_secs_f64(read as f64 / rate as f64));
            let wait = delay + taken.unwrap_or_default();
            if !wait.is_zero() {
                thread::sleep(wait);
            }
            let mut state = self.lock();
            if state.stall_after.is_some_and(|limit| state.passed >= limit) {
                state.stall_after = None;
                state.stalled = true;
            }
            while state.stalled && !state.down {
                state = self.changed.wait(state).unwrap();
            }
            state.passed += read as u64;
            if state.cut_after.is_some_and(|limit| state.passed >= limit) {
                state.cut_after = None;
                state.cut();
                return Ok(());
            }
            drop(state);
            to.write_all(&piece[..read])?;
        }
    }
}
