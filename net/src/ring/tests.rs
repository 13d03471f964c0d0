//! The ring against real sockets, driven without an executor: turns are taken until what is awaited has happened.

mod closing;
mod receiving;
mod sending;
mod waking;
mod watching;

use super::*;
use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const SMALL: RingConfig =
    RingConfig { entries: 64, cq_entries: 256, buffers: 16, buffer_bytes: 512, spin: Duration::ZERO };
/// After this a test has failed; never waited out by one that succeeds.
const PATIENCE: Duration = Duration::from_secs(30);

/// A ring, its listener, and everything that happened so far.
struct Bench {
    ring: Ring,
    addr: SocketAddr,
    accepted: Vec<Slot>,
    received: Vec<(Slot, Vec<u8>)>,
    closed: Vec<(Slot, Option<io::Error>)>,
    sent: Vec<(Slot, Wire, Option<io::Error>)>,
    accept_failures: Vec<io::Error>,
    readable: Vec<u16>,
    /// Buffers are given back as soon as they have been read.
    recycles: bool,
    held: Vec<BufferId>,
}

impl Bench {
    fn new(config: RingConfig) -> Self {
        let mut ring = Ring::new(config).expect("io_uring");
        let listener = listener_tcp(([127, 0, 0, 1], 0).into(), 1024, false).expect("listener");
        let addr = SockRef::from(&listener).local_addr().ok().and_then(|addr| addr.as_socket()).expect("bound");
        ring.listen(listener, 0);
        Self {
            ring,
            addr,
            accepted: Vec::new(),
            received: Vec::new(),
            closed: Vec::new(),
            sent: Vec::new(),
            accept_failures: Vec::new(),
            readable: Vec::new(),
            recycles: true,
            held: Vec::new(),
        }
    }

    fn turn(&mut self) {
        let mut events = Vec::new();
        self.ring.turn(&mut events).expect("turn");
        for event in events {
            match event {
                Event::Accepted { fd, .. } => {
                    assert!(SockRef::from(&fd).tcp_nodelay().expect("option"), "inherited from the listener");
                    self.accepted.push(self.ring.add(fd));
                }
                Event::AcceptFailed { error, .. } => self.accept_failures.push(error),
                Event::Received { slot, buffer, len } => {
                    let bytes = self.ring.buffer(&buffer, len).to_vec();
                    if self.recycles {
                        self.ring.recycle(buffer);
                    } else {
                        self.held.push(buffer);
                    }
                    match self.received.iter_mut().find(|(known, _)| *known == slot) {
                        Some((_, all)) => all.extend_from_slice(&bytes),
                        None => self.received.push((slot, bytes)),
                    }
                }
                Event::Closed { slot, error } => self.closed.push((slot, error)),
                Event::Sent { slot, wire, error } => self.sent.push((slot, wire, error)),
                Event::Readable { token } => self.readable.push(token),
            }
        }
    }

    /// Takes turns until `done`.
    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
            self.turn();
            std::thread::yield_now();
        }
    }

    /// A client and its accepted side.
    fn connect(&mut self) -> (TcpStream, Slot) {
        let client = TcpStream::connect(self.addr).expect("connect");
        client.set_read_timeout(Some(PATIENCE)).expect("option");
        let known = self.accepted.len();
        self.until("accepted", |bench| bench.accepted.len() > known);
        (client, self.accepted[known])
    }

    fn bytes_of(&self, slot: Slot) -> &[u8] {
        self.received.iter().find(|(known, _)| *known == slot).map_or(&[], |(_, bytes)| bytes)
    }

    /// Waits until everything asked of the kernel before has had its effect: a fresh connection says something, and what
    /// it says is heard.
    fn settle(&mut self) {
        let (mut client, slot) = self.connect();
        self.ring.recv(slot);
        client.write_all(b"!").expect("write");
        self.until("the messenger is heard", |bench| bench.bytes_of(slot) == b"!");
        self.ring.abort(slot);
        let others = self.ring.sockets() - 1;
        self.until("the messenger is gone", |bench| bench.ring.sockets() <= others);
    }
}

/// Bytes that differ from place to place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8 ^ (at / 65_536) as u8).collect()
}

fn wire(bytes: &[u8]) -> Wire {
    Wire::from(bytes.to_vec())
}

/// Reads to the end of the stream on another thread.
fn read_all(mut client: TcpStream) -> std::thread::JoinHandle<io::Result<Vec<u8>>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        client.read_to_end(&mut all).map(|_| all)
    })
}
