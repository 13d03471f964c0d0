//! The event loop: epoll over all connections of one thread.

use super::link::{Link, Sender};
use crate::client::ConnectOptions;
use bifro_core::client::Version;
use bifro_mqtt::codec::{DecodeOptions, decode};
use bifro_mqtt::packet::Packet;
use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

const EVENTS_PER_TURN: usize = 512;
const READ_BYTES: usize = 256 << 10;

/// What a connection hears.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// A packet.
    Packet(Packet<'a>),
    /// The end of the connection; its key is spent.
    Closed,
}

/// Connections by key.
#[derive(Debug)]
pub struct Swarm {
    broker: SocketAddr,
    epoll: OwnedFd,
    links: Vec<Option<Box<Link>>>,
    dirty: Vec<usize>,
    ready: Vec<(usize, u32)>,
    scratch: Vec<u8>,
    open: usize,
}

impl Swarm {
    /// No connection yet.
    ///
    /// # Panics
    /// If there is no epoll.
    pub fn new(broker: SocketAddr) -> Self {
        // SAFETY: no pointers; the result is checked before it is used.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        assert!(fd >= 0, "epoll: {}", io::Error::last_os_error());
        // SAFETY: the descriptor is fresh and owned by nobody else.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        Self {
            broker,
            epoll,
            links: Vec::new(),
            dirty: Vec::new(),
            ready: Vec::new(),
            scratch: vec![0; READ_BYTES],
            open: 0,
        }
    }

    /// Connections are opened to this broker from now on.
    pub const fn set_broker(&mut self, broker: SocketAddr) {
        self.broker = broker;
    }

    /// Open connections.
    pub const fn len(&self) -> usize {
        self.open
    }

    /// No connection is open.
    pub const fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Opens a connection and sends CONNECT; the answer comes to the handler.
    ///
    /// # Panics
    /// If nobody listens.
    pub fn connect(&mut self, options: &ConnectOptions) -> usize {
        let key = self.open(options.version);
        self.sender(key).expect("it was just opened").raw(&options.encode());
        key
    }

    /// The same to a broker that may be gone.
    ///
    /// # Errors
    /// If nobody listens.
    ///
    /// # Panics
    /// Never: the connection was just opened.
    pub fn try_connect(&mut self, broker: SocketAddr, options: &ConnectOptions) -> io::Result<usize> {
        let key = self.adopt(TcpStream::connect(broker)?, options.version);
        self.sender(key).expect("it was just opened").raw(&options.encode());
        Ok(key)
    }

    /// Opens a connection on which nothing has been sent.
    ///
    /// # Panics
    /// If nobody listens.
    pub fn open(&mut self, version: Version) -> usize {
        self.adopt(TcpStream::connect(self.broker).expect("the broker listens"), version)
    }

    fn adopt(&mut self, stream: TcpStream, version: Version) -> usize {
        stream.set_nodelay(true).expect("a TCP option");
        stream.set_nonblocking(true).expect("a socket option");
        let key = self.links.len();
        self.links.push(Some(Box::new(Link::new(stream, version))));
        self.open += 1;
        self.watch(key, libc::EPOLL_CTL_ADD);
        key
    }

    /// The sending side of a connection, if it is still open.
    pub fn sender(&mut self, key: usize) -> Option<&mut Sender> {
        let link = self.links.get_mut(key)?.as_mut()?;
        if !link.dirty {
            link.dirty = true;
            self.dirty.push(key);
        }
        Some(&mut link.sender)
    }

    /// Reads no more from a connection, or reads again.
    pub fn set_deaf(&mut self, key: usize, deaf: bool) {
        if let Some(Some(link)) = self.links.get_mut(key) {
            link.deaf = deaf;
            self.watch(key, libc::EPOLL_CTL_MOD);
        }
    }

    /// Breaks a connection off, without DISCONNECT; what it has not sent is lost. No [`Incoming::Closed`] follows.
    pub fn cut(&mut self, key: usize) {
        if let Some(link) = self.links.get_mut(key).and_then(Option::take) {
            self.open -= 1;
            // It may be broken already.
            let _ = link.stream.shutdown(Shutdown::Both);
        }
    }

    /// Ends a connection after sending what waits; no [`Incoming::Closed`] follows.
    pub fn close(&mut self, key: usize) {
        if let Some(Some(link)) = self.links.get_mut(key) {
            link.flush();
        }
        self.cut(key);
    }

    /// Sends what waits, waits at most `patience` for something to happen, and hands everything that came to `handle`.
    ///
    /// # Panics
    /// If the broker sends what is no packet.
    pub fn turn(&mut self, patience: Duration, mut handle: impl FnMut(usize, &mut Sender, Incoming<'_>)) {
        self.flush(&mut handle);
        self.wait(patience);
        for (key, events) in std::mem::take(&mut self.ready) {
            if events & libc::EPOLLOUT as u32 != 0 {
                self.mark_dirty(key);
            }
            if events & !(libc::EPOLLOUT as u32) != 0 {
                self.read(key, &mut handle);
            }
        }
        self.flush(&mut handle);
    }

    fn flush(&mut self, handle: &mut impl FnMut(usize, &mut Sender, Incoming<'_>)) {
        for key in std::mem::take(&mut self.dirty) {
            let Some(Some(link)) = self.links.get_mut(key) else { continue };
            link.dirty = false;
            if !link.flush() {
                // What it sent before it broke is still to be read; the read also finds the end.
                self.read(key, handle);
                continue;
            }
            let blocked = link.sender.waiting_bytes() > 0;
            if blocked != link.blocked {
                link.blocked = blocked;
                self.watch(key, libc::EPOLL_CTL_MOD);
            }
        }
    }

    fn mark_dirty(&mut self, key: usize) {
        if let Some(Some(link)) = self.links.get_mut(key)
            && !link.dirty
        {
            link.dirty = true;
            self.dirty.push(key);
        }
    }

    fn read(&mut self, key: usize, handle: &mut impl FnMut(usize, &mut Sender, Incoming<'_>)) {
        let Some(Some(link)) = self.links.get_mut(key) else { return };
        let count = match link.stream.read(&mut self.scratch) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(_) => 0,
        };
        if count == 0 {
            handle(key, &mut link.sender, Incoming::Closed);
            self.links[key] = None;
            self.open -= 1;
            return;
        }
        if link.partial.is_empty() {
            let consumed = feed(key, &mut link.sender, &self.scratch[..count], handle);
            link.partial = self.scratch[consumed..count].to_vec();
        } else {
            let mut bytes = std::mem::take(&mut link.partial);
            bytes.extend_from_slice(&self.scratch[..count]);
            let consumed = feed(key, &mut link.sender, &bytes, handle);
            bytes.drain(..consumed);
            link.partial = if bytes.is_empty() { Vec::new() } else { bytes };
        }
        self.mark_dirty(key);
    }

    fn wait(&mut self, patience: Duration) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_TURN];
        let timeout = libc::timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: patience.subsec_nanos().into(),
        };
        let room = i32::try_from(EVENTS_PER_TURN).expect("a small number");
        let epoll = self.epoll.as_raw_fd();
        // SAFETY: the array outlives the call and has room for as many events as it is told; no signal mask is given.
        let count =
            unsafe { libc::epoll_pwait2(epoll, events.as_mut_ptr(), room, &raw const timeout, std::ptr::null()) };
        let count = usize::try_from(count).unwrap_or(0);
        self.ready = events[..count].iter().map(|event| (event.u64 as usize, event.events)).collect();
    }

    fn watch(&self, key: usize, operation: i32) {
        let Some(Some(link)) = self.links.get(key) else { return };
        let mut interest = 0;
        if !link.deaf {
            interest |= libc::EPOLLIN | libc::EPOLLRDHUP;
        }
        if link.blocked {
            interest |= libc::EPOLLOUT;
        }
        let mut event = libc::epoll_event { events: interest as u32, u64: key as u64 };
        // SAFETY: both descriptors are open, and the event outlives the call.
        let result =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, link.stream.as_raw_fd(), &raw mut event) };
        assert_eq!(result, 0, "epoll_ctl: {}", io::Error::last_os_error());
    }
}

/// Hands every complete packet to `handle` and returns how many bytes they had.
fn feed(
    key: usize,
    sender: &mut Sender,
    bytes: &[u8],
    handle: &mut impl FnMut(usize, &mut Sender, Incoming<'_>),
) -> usize {
    let options = DecodeOptions { version: Some(sender.version), packet_bytes_max: u32::MAX };
    let mut at = 0;
    loop {
        match decode(&bytes[at..], &options) {
            Ok(Some((packet, length))) => {
                handle(key, sender, Incoming::Packet(packet));
                at += length;
            }
            Ok(None) => return at,
            Err(error) => panic!("the broker sent nonsense on connection {key}: {error:?}"),
        }
    }
}

/// Versions in turn: client `n` speaks 3.1.1 if it is even and 5.0 if it is odd.
pub const fn version_of(n: u32) -> Version {
    if n.is_multiple_of(2) { Version::V311 } else { Version::V5 }
}
