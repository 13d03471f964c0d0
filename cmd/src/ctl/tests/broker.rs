//! A broker that follows a script, for one connection at a time.

use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::codec::{DecodeOptions, decode, encode};
use bifro_mqtt::packet::{Ack, ConnAck, Packet, PacketId, Publish, PublishProperties, SubAck};
use bifro_mqtt::property::{Properties, PropertyId, PropertyWriter};
use bifro_mqtt::reason::Reason;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

/// Its port, and what the script found out.
pub(super) struct Broker<T> {
    pub(super) port: String,
    script: JoinHandle<T>,
}

impl<T: Send + 'static> Broker<T> {
    /// Accepts one connection and runs `script` on it.
    pub(super) fn start(script: impl FnOnce(Peer<TcpStream>) -> T + Send + 'static) -> Self {
        Self::start_with(|socket| socket, script)
    }

    /// The same, with something between socket and script.
    pub(super) fn start_with<S: Read + Write>(
        wrap: impl FnOnce(TcpStream) -> S + Send + 'static,
        script: impl FnOnce(Peer<S>) -> T + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port().to_string();
        let script = thread::spawn(move || {
            let (socket, _) = listener.accept().expect("the tool connects");
            script(Peer { stream: wrap(socket), version: None, received: Vec::new() })
        });
        Self { port, script }
    }

    /// What the script returned.
    pub(super) fn finish(self) -> T {
        self.script.join().expect("the script does not panic")
    }
}

/// The tool, seen from the broker.
pub(super) struct Peer<S> {
    stream: S,
    version: Option<Version>,
    received: Vec<u8>,
}

impl<S: Read + Write> Peer<S> {
    /// The next packet, in the form the script asks for; none if the tool closed.
    pub(super) fn next<T>(&mut self, read: impl FnOnce(&Packet<'_>) -> T) -> Option<T> {
        loop {
            let options = DecodeOptions { version: self.version, packet_bytes_max: 1 << 20 };
            if let Some((packet, length)) = decode(&self.received, &options).expect("the tool sends valid packets") {
                if let Packet::Connect(connect) = &packet {
                    self.version = Some(connect.version);
                }
                let value = read(&packet);
                self.received.drain(..length);
                return Some(value);
            }
            let mut chunk = [0; 4_096];
            match self.stream.read(&mut chunk) {
                Ok(0) | Err(_) => return None,
                Ok(length) => self.received.extend_from_slice(&chunk[..length]),
            }
        }
    }

    /// Waits for CONNECT and answers it.
    pub(super) fn accept(&mut self, reason: Reason, write: impl FnOnce(&mut PropertyWriter<'_>)) {
        self.next(|packet| assert!(matches!(packet, Packet::Connect(_)), "{packet:?}"));
        let mut properties = Vec::new();
        write(&mut PropertyWriter::new(&mut properties));
        self.send(&Packet::ConnAck(ConnAck {
            session_present: false,
            reason,
            properties: Properties::new(&properties),
        }));
    }

    pub(super) fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        encode(packet, self.version.expect("after CONNECT"), &mut bytes);
        // The tool may have left already; the script notices at the next packet.
        let _ = self.stream.write_all(&bytes).and_then(|()| self.stream.flush());
    }

    pub(super) fn send_raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
    }

    pub(super) fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS, id: u16, dup: bool) {
        let packet_id = (qos != QoS::AtMostOnce).then(|| packet_id(id));
        let properties = PublishProperties::default();
        self.send(&Packet::Publish(Publish { dup, qos, retain: false, topic, packet_id, properties, payload }));
    }

    pub(super) fn suback(&mut self, id: PacketId, codes: &[u8]) {
        self.send(&Packet::SubAck(SubAck { packet_id: id, properties: Properties::default(), codes }));
    }
}

pub(super) fn packet_id(id: u16) -> PacketId {
    PacketId::new(id).expect("not zero")
}

pub(super) fn ack<'a>(packet_id: PacketId, reason: Reason) -> Ack<'a> {
    Ack { packet_id, reason, properties: Properties::default() }
}

/// No properties.
pub(super) fn nothing(_: &mut PropertyWriter<'_>) {}

/// A reason in words.
pub(super) fn because(text: &'static str) -> impl FnOnce(&mut PropertyWriter<'_>) {
    move |writer| {
        writer.str(PropertyId::ReasonString, text);
    }
}
