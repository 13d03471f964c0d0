//! One connection of a swarm: its socket, what it sends, and what of a packet has come so far.

use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::codec::{AckKind, encode, encode_ack};
use bifro_mqtt::packet::{
    Packet, PacketId, Publish, PublishProperties, Subscribe, SubscribeFilter, SubscribeFilters, Unsubscribe,
    UnsubscribeFilters,
};
use bifro_mqtt::property::Properties;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;

/// What a connection sends, as bytes that wait for the socket.
#[derive(Debug)]
pub struct Sender {
    /// Version of the connection.
    pub version: Version,
    bytes: Vec<u8>,
    next_id: u16,
}

impl Sender {
    pub(super) const fn new(version: Version) -> Self {
        Self { version, bytes: Vec::new(), next_id: 0 }
    }

    /// Bytes that the socket has not taken yet.
    pub const fn waiting_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Sends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Sends a packet.
    pub fn packet(&mut self, packet: &Packet<'_>) {
        encode(packet, self.version, &mut self.bytes);
    }

    /// The next packet id.
    ///
    /// # Panics
    /// Never.
    pub fn packet_id(&mut self) -> PacketId {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        PacketId::new(self.next_id).expect("never zero")
    }

    /// Publishes under a packet id of the caller's choice, none at QoS 0.
    pub fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS, packet_id: Option<PacketId>, dup: bool) {
        let properties = PublishProperties::default();
        let publish = Publish { dup, qos, retain: false, topic, packet_id, properties, payload };
        self.packet(&Packet::Publish(publish));
    }

    /// Sends an acknowledgement.
    pub fn ack(&mut self, kind: AckKind, packet_id: PacketId) {
        encode_ack(kind, packet_id, &mut self.bytes);
    }

    /// Subscribes.
    pub fn subscribe<'f>(&mut self, filters: impl IntoIterator<Item = (&'f str, QoS)>) -> PacketId {
        let packet_id = self.packet_id();
        let mut scratch = Vec::new();
        let filters = filters.into_iter().map(|(filter, qos)| SubscribeFilter {
            filter,
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
        });
        let filters = SubscribeFilters::encode(filters, &mut scratch);
        self.packet(&Packet::Subscribe(Subscribe { packet_id, properties: Properties::default(), filters }));
        packet_id
    }

    /// Unsubscribes.
    pub fn unsubscribe(&mut self, filter: &str) -> PacketId {
        let packet_id = self.packet_id();
        let mut scratch = Vec::new();
        let filters = UnsubscribeFilters::encode([filter], &mut scratch);
        self.packet(&Packet::Unsubscribe(Unsubscribe { packet_id, properties: Properties::default(), filters }));
        packet_id
    }
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) stream: TcpStream,
    pub(super) sender: Sender,
    /// The start of a packet that is not complete.
    pub(super) partial: Vec<u8>,
    /// The socket is full: epoll watches for room.
    pub(super) blocked: bool,
    /// Listed for a flush.
    pub(super) dirty: bool,
    /// Not read from at present.
    pub(super) deaf: bool,
}

impl Link {
    pub(super) const fn new(stream: TcpStream, version: Version) -> Self {
        let sender = Sender::new(version);
        Self { stream, sender, partial: Vec::new(), blocked: false, dirty: false, deaf: false }
    }

    /// Writes what the socket takes; false if it is broken.
    pub(super) fn flush(&mut self) -> bool {
        let mut written = 0;
        let mut alive = true;
        while written < self.sender.bytes.len() {
            match self.stream.write(&self.sender.bytes[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    alive = false;
                    break;
                }
            }
        }
        if written == self.sender.bytes.len() && self.sender.bytes.capacity() > 256 {
            self.sender.bytes.clear();
        } else if written == self.sender.bytes.len() {
            self.sender.bytes = Vec::new();
        } else {
            self.sender.bytes.drain(..written);
        }
        alive
    }
}
