//! Notices that the network is another one, or that the machine slept, and tells the engine.
//!
//! The kernel tells of addresses, routes and interfaces over a netlink socket. What it says in detail does not matter:
//! the engine looks for itself. A machine that sleeps stops one clock and not the other.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram as Socket;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use rustix::time::{ClockId, Timespec, clock_gettime};
use tokio::net::UnixDatagram;
use tokio::time::sleep;

use crate::engine::Engine;

/// What comes within this time is one change: an interface that comes up is told of many times.
const SETTLING: Duration = Duration::from_millis(500);
/// How often the clocks are compared.
const LOOK: Duration = Duration::from_secs(5);
/// A machine that slept for less lost nothing.
const SLEPT: Duration = Duration::from_secs(3);

/// Interfaces, and addresses and routes of both families (RTMGRP_* of rtnetlink(7)).
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
const NEW_LINK: u16 = 16;
const DEL_LINK: u16 = 17;
const NEW_ADDR: u16 = 20;
const DEL_ADDR: u16 = 21;
const NEW_ROUTE: u16 = 24;
const DEL_ROUTE: u16 = 25;
/// Of a message's header, in bytes.
const HEADER: usize = 16;
/// Where the message of an interface tells which of its flags changed.
const CHANGE: usize = HEADER + 12;

/// Tells `engine` of changes for as long as it is polled.
pub(super) async fn watch(engine: Engine) {
    tokio::join!(watch_network(&engine), watch_sleep(&engine));
}

async fn watch_network(engine: &Engine) {
    let socket = match listen() {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, "changes of the network are not told: a lost link is noticed later");
            return;
        }
    };
    let mut buffer = [0; 16 * 1024];
    loop {
        let outcome = socket.recv(&mut buffer).await;
        let told = received(&buffer, outcome);
        match told {
            Ok(false) => {}
            Ok(true) => {
                sleep(SETTLING).await;
                // What has come meanwhile belongs to it.
                while socket.try_recv(&mut buffer).is_ok() {}
                tracing::debug!("the network changed");
                engine.network_changed();
            }
            Err(error) => {
                tracing::warn!(%error, "the kernel no longer tells of the network");
                return;
            }
        }
    }
}

/// A socket on which the kernel tells of changes. To the library it is one of datagrams, which is all it has to know.
fn listen() -> io::Result<UnixDatagram> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // The protocol that is not named is NETLINK_ROUTE.
    let socket: OwnedFd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    UnixDatagram::from_std(Socket::from(socket))
}

/// Whether what was received is about a change. Lost messages are one.
fn received(buffer: &[u8], outcome: io::Result<usize>) -> io::Result<bool> {
    match outcome {
        Ok(len) => Ok(is_change(&buffer[..len.min(buffer.len())])),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOBUFS) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether any of the messages tells of a change. One about an interface whose flags stay is news of its statistics or
/// of a radio that looks around.
fn is_change(mut messages: &[u8]) -> bool {
    while let (Some(len), Some(kind)) = (number(messages, 0, 4), number(messages, 4, 2)) {
        match kind as u16 {
            NEW_LINK if number(messages, CHANGE, 4).unwrap_or(0) != 0 => return true,
            DEL_LINK | NEW_ADDR | DEL_ADDR | NEW_ROUTE | DEL_ROUTE => return true,
            _ => {}
        }
        // They lie four bytes apart.
        let next = (len as usize).max(HEADER).next_multiple_of(4);
        messages = messages.get(next..).unwrap_or_default();
    }
    false
}

/// A number of `len` bytes in this machine's order.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + len)?;
    let mut whole = [0; 4];
    match cfg!(target_endian = "little") {
        true => whole[..len].copy_from_slice(bytes),
        false => whole[4 - len..].copy_from_slice(bytes),
    }
    Some(u32::from_ne_bytes(whole))
}

async fn watch_sleep(engine: &Engine) {
    let mut before = asleep();
    loop {
        sleep(LOOK).await;
        let now = asleep();
        if now.saturating_sub(before) >= SLEPT {
            tracing::info!("the machine slept");
            engine.network_changed();
        }
        before = now;
    }
}

/// How long the machine slept since it was started: only one of the clocks goes on meanwhile.
fn asleep() -> Duration {
    let duration = |time: Timespec| Duration::try_from(time).unwrap_or_default();
    let boot = duration(clock_gettime(ClockId::Boottime));
    boot.saturating_sub(duration(clock_gettime(ClockId::Monotonic)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, change: u32) -> Vec<u8> {
        let mut bytes = vec![0; HEADER + 16];
        let len = bytes.len() as u32;
        bytes[..4].copy_from_slice(&len.to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[CHANGE..CHANGE + 4].copy_from_slice(&change.to_ne_bytes());
        bytes
    }

    #[test]
    fn changes_are_told_from_noise() {
        for kind in [DEL_LINK, NEW_ADDR, DEL_ADDR, NEW_ROUTE, DEL_ROUTE] {
            assert!(is_change(&message(kind, 0)));
        }
        assert!(is_change(&message(NEW_LINK, 0x1)));
        assert!(!is_change(&message(NEW_LINK, 0)));
        assert!(!is_change(&message(28, 1)), "a neighbour");
        let two = [message(28, 0), message(NEW_ADDR, 0)].concat();
        assert!(is_change(&two));
    }

    #[test]
    fn no_message_makes_it_panic_or_hang() {
        let two = [message(28, 0), message(28, 0)].concat();
        for len in 0..two.len() {
            assert!(!is_change(&two[..len]));
            let mut odd = two.clone();
            odd[..4].copy_from_slice(&(len as u32).to_ne_bytes());
            assert!(!is_change(&odd) || len > 0);
        }
        assert!(!is_change(&[0xff; 64]));
    }

    #[tokio::test]
    async fn the_kernel_lets_us_listen_and_says_nothing_at_first() {
        let socket = listen().unwrap();
        let error = socket.try_recv(&mut [0; 100]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
