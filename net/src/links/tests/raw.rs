//! A QUIC client that says what it is told to, for what no [`Links`] would say.

use super::*;
use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event, Side, StreamId,
};
use std::net::UdpSocket;
use std::sync::Arc;

pub(super) struct Raw {
    socket: UdpSocket,
    endpoint: Endpoint,
    handle: ConnectionHandle,
    connection: Connection,
    connected: bool,
    closed: Option<String>,
}

impl Raw {
    /// A client whose TLS handshake with `peer` is over.
    pub(super) fn connected(peer: &mut End) -> Self {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("bind");
        socket.set_nonblocking(true).expect("option");
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None);
        let client = ClientConfig::new(Arc::new(tls::client(crate::links::endpoint::ALPN, None).expect("TLS")));
        let address = peer.links.local_addr();
        let now = peer.clock.monotonic(peer.now());
        let connected = endpoint.connect(now, client, address, tls::SERVER_NAME);
        let (handle, connection) = connected.expect("an address");
        let mut raw = Self { socket, endpoint, handle, connection, connected: false, closed: None };
        raw.until(peer, "connected", |raw| raw.connected);
        for _ in 0..2 {
            raw.connection.streams().open(Dir::Uni).expect("two streams");
        }
        raw
    }

    /// Writes to a stream. How many bytes were taken.
    pub(super) fn write(&mut self, stream: u64, bytes: &[u8]) -> usize {
        self.connection.send_stream(StreamId::new(Side::Client, Dir::Uni, stream)).write(bytes).unwrap_or(0)
    }

    pub(super) fn finish(&mut self, stream: u64) {
        self.connection.send_stream(StreamId::new(Side::Client, Dir::Uni, stream)).finish().expect("open");
    }

    /// Proves the secret.
    pub(super) fn greet(&mut self, secret: &Secret, me: &Hello) {
        let session = self.connection.crypto_session();
        let export = |output: &mut [u8], label: &[u8], context: &[u8]| {
            session.export_keying_material(output, label, context).is_ok()
        };
        let proof = secret.proof(crate::links::End::Dialler, export).expect("a session");
        let frame = hello::encode(me, &proof);
        assert_eq!(self.write(0, &frame), frame.len());
    }

    pub(super) fn turn_with(&mut self, peer: &mut End, turns: usize) {
        for _ in 0..turns {
            self.turn(peer.clock.monotonic(peer.now()));
            peer.turn();
        }
    }

    /// Takes turns until the peer has closed the connection. Its reason.
    pub(super) fn until_closed(&mut self, peer: &mut End) -> String {
        self.until(peer, "closed", |raw| raw.closed.is_some());
        self.closed.clone().expect("just seen")
    }

    fn until(&mut self, peer: &mut End, what: &str, done: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
            self.turn_with(peer, 1);
        }
    }

    fn turn(&mut self, now: Instant) {
        let (mut datagram, mut buffer) = ([0; 2048], Vec::new());
        while let Ok((bytes, from)) = self.socket.recv_from(&mut datagram) {
            let datagram = BytesMut::from(&datagram[..bytes]);
            let event = self.endpoint.handle(now, from, None, None, datagram, &mut buffer);
            if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
                self.connection.handle_event(event);
            }
        }
        self.connection.handle_timeout(now);
        while let Some(event) = self.connection.poll() {
            match event {
                Event::Connected => self.connected = true,
                Event::ConnectionLost { reason } => self.closed = Some(reason.to_string()),
                _ => {}
            }
        }
        while let Some(event) = self.connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(event);
            }
        }
        buffer.clear();
        while let Some(transmit) = self.connection.poll_transmit(now, 1, &mut buffer) {
            self.socket.send_to(&buffer[..transmit.size], transmit.destination).expect("send");
            buffer.clear();
        }
    }
}
