//! A blocking MQTT client for tests: it encodes with the broker's own codec, sends raw bytes when asked to, and shows every
//! packet that comes back.

use bifro_core::client::Version;
use bifro_core::message::QoS;
pub use bifro_mqtt::codec::AckKind;
use bifro_mqtt::codec::{DecodeOptions, decode, encode, encode_ack};
use bifro_mqtt::packet::{
    Connect, Disconnect, Packet, PacketId, Publish, PublishProperties, Subscribe, SubscribeFilter, SubscribeFilters,
    Unsubscribe, UnsubscribeFilters, Will,
};
use bifro_mqtt::property::Properties;
use bifro_mqtt::reason::Reason;
use std::fmt::Debug;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Any byte stream with a read timeout.
pub trait Stream: Read + Write + Send {
    /// Sets how long a read may block.
    fn set_timeout(&mut self, timeout: Duration);
}

impl Stream for TcpStream {
    fn set_timeout(&mut self, timeout: Duration) {
        self.set_read_timeout(Some(timeout)).expect("a positive timeout");
    }
}

impl Stream for UnixStream {
    fn set_timeout(&mut self, timeout: Duration) {
        self.set_read_timeout(Some(timeout)).expect("a positive timeout");
    }
}

/// A packet with the bytes it was decoded from.
#[derive(Clone)]
pub struct Received {
    bytes: Vec<u8>,
    version: Version,
}

impl Received {
    /// The packet.
    ///
    /// # Panics
    /// Never: it was decoded before.
    pub fn packet(&self) -> Packet<'_> {
        let options = DecodeOptions { version: Some(self.version), packet_bytes_max: u32::MAX };
        decode(&self.bytes, &options).expect("it was decoded before").expect("it is complete").0
    }

    /// Its bytes on the wire.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Debug for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.packet().fmt(f)
    }
}

/// A will: topic, payload, QoS, retain, encoded properties.
pub type WillParts = (String, Vec<u8>, QoS, bool, Vec<u8>);

/// How to connect.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Version.
    pub version: Version,
    /// Client identifier.
    pub client_id: String,
    /// Clean start.
    pub clean: bool,
    /// Keep alive in seconds.
    pub keep_alive: u16,
    /// User name and password.
    pub credentials: Option<(String, String)>,
    /// CONNECT properties, encoded.
    pub properties: Vec<u8>,
    /// Will: topic, payload, QoS, retain, encoded properties.
    pub will: Option<WillParts>,
}

impl ConnectOptions {
    /// A clean session without frills.
    pub fn new(version: Version, client_id: &str) -> Self {
        Self {
            version,
            client_id: client_id.into(),
            clean: true,
            keep_alive: 60,
            credentials: None,
            properties: Vec::new(),
            will: None,
        }
    }

    /// The CONNECT packet's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let will = self.will.as_ref().map(|(topic, payload, qos, retain, properties)| Will {
            topic,
            payload,
            qos: *qos,
            retain: *retain,
            properties: Properties::new(properties),
        });
        let connect = Packet::Connect(Connect {
            version: self.version,
            bridge: false,
            clean_start: self.clean,
            keep_alive: self.keep_alive,
            properties: Properties::new(&self.properties),
            client_id: &self.client_id,
            will,
            username: self.credentials.as_ref().map(|credentials| credentials.0.as_str()),
            password: self.credentials.as_ref().map(|credentials| credentials.1.as_bytes()),
        });
        let mut bytes = Vec::new();
        encode(&connect, self.version, &mut bytes);
        bytes
    }
}

/// A connection to the broker.
pub struct Client {
    stream: Box<dyn Stream>,
    /// Version of the connection.
    pub version: Version,
    buffer: Vec<u8>,
    next_id: u16,
}

impl Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Client {
    /// A TCP connection on which nothing has been sent.
    ///
    /// # Panics
    /// If nobody listens.
    pub fn open(address: SocketAddr, version: Version) -> Self {
        let stream = TcpStream::connect(address).expect("the broker listens");
        stream.set_nodelay(true).expect("a TCP option");
        Self::over(Box::new(stream), version)
    }

    /// Any stream.
    pub fn over(stream: Box<dyn Stream>, version: Version) -> Self {
        Self { stream, version, buffer: Vec::new(), next_id: 0 }
    }

    /// Connects and expects success.
    ///
    /// # Panics
    /// If the broker refuses.
    pub fn connect(address: SocketAddr, version: Version, client_id: &str) -> Self {
        Self::connect_with(address, &ConnectOptions::new(version, client_id)).0
    }

    /// Connects and expects success; returns the CONNACK as well.
    ///
    /// # Panics
    /// If the broker refuses.
    pub fn connect_with(address: SocketAddr, options: &ConnectOptions) -> (Self, Received) {
        let mut client = Self::open(address, options.version);
        let received = client.login(options).unwrap_or_else(|reason| panic!("refused: {reason}"));
        (client, received)
    }

    /// Sends CONNECT on a fresh connection and returns the CONNACK.
    ///
    /// # Errors
    /// The reason (3.x: the return code) of a refusal; the broker has closed the connection then.
    ///
    /// # Panics
    /// If something else comes.
    pub fn login(&mut self, options: &ConnectOptions) -> Result<Received, Reason> {
        self.send_bytes(&options.encode());
        let received = self.recv();
        let Packet::ConnAck(connack) = received.packet() else { panic!("not a CONNACK: {received:?}") };
        if connack.reason == Reason::SUCCESS {
            return Ok(received);
        }
        // [MQTT-3.2.2-5] [MQTT5-3.2.2-7]
        self.expect_closed();
        Err(connack.reason)
    }

    /// Sends raw bytes; an error means that the broker has closed, which the next read will tell.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
    }

    /// Sends a packet.
    pub fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        encode(packet, self.version, &mut bytes);
        self.send_bytes(&bytes);
    }

    /// The next packet id.
    ///
    /// # Panics
    /// Never.
    pub fn packet_id(&mut self) -> PacketId {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        PacketId::new(self.next_id).expect("never zero")
    }

    /// The next packet, or none if the broker has closed the connection.
    ///
    /// # Panics
    /// If nothing comes in time, or nonsense does.
    pub fn try_recv(&mut self) -> Option<Received> {
        self.recv_within(crate::PATIENCE).unwrap_or_else(|| panic!("nothing came within {:?}", crate::PATIENCE))
    }

    /// The next packet.
    ///
    /// # Panics
    /// If the broker closes, or nothing comes in time.
    pub fn recv(&mut self) -> Received {
        self.try_recv().expect("the broker closed the connection")
    }

    /// The next packet (inner none: the connection is closed), or outer none if nothing comes within `patience`.
    ///
    /// # Panics
    /// If what comes is no packet.
    pub fn recv_within(&mut self, patience: Duration) -> Option<Option<Received>> {
        let deadline = Instant::now() + patience;
        let options = DecodeOptions { version: Some(self.version), packet_bytes_max: u32::MAX };
        loop {
            match decode(&self.buffer, &options) {
                Ok(Some((_, length))) => {
                    let bytes = self.buffer.drain(..length).collect();
                    return Some(Some(Received { bytes, version: self.version }));
                }
                Ok(None) => {}
                Err(error) => panic!("the broker sent nonsense: {error:?} {:02x?}", self.buffer),
            }
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.set_timeout(left);
            let mut chunk = [0; 16 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Some(None),
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if Instant::now() >= deadline {
                        return None;
                    }
                }
                Err(_) => return Some(None),
            }
        }
    }

    /// Asserts that nothing comes: a ping goes out, and its answer is the next packet.
    ///
    /// # Panics
    /// If something else comes.
    pub fn expect_silence(&mut self) {
        self.send(&Packet::PingReq);
        let received = self.recv();
        assert!(matches!(received.packet(), Packet::PingResp), "unexpected: {received:?}");
    }

    /// Asserts that the broker closes, with a DISCONNECT of this reason first if the client speaks 5.0.
    ///
    /// # Panics
    /// If it does not.
    pub fn expect_disconnect(&mut self, reason: Reason) {
        loop {
            match self.try_recv() {
                None => {
                    assert_ne!(self.version, Version::V5, "closed without DISCONNECT {reason}");
                    return;
                }
                Some(received) => {
                    if let Packet::Disconnect(disconnect) = received.packet() {
                        assert_eq!(disconnect.reason, reason, "{received:?}");
                        self.expect_closed();
                        return;
                    }
                }
            }
        }
    }

    /// Asserts that the connection is closed without another packet.
    ///
    /// # Panics
    /// If something else comes.
    pub fn expect_closed(&mut self) {
        let received = self.try_recv();
        assert!(received.is_none(), "unexpected: {received:?}");
    }

    /// Subscribes to one filter and returns the code granted.
    ///
    /// # Panics
    /// If no SUBACK comes next (publishes on the way are put aside and lost).
    pub fn subscribe(&mut self, filter: &str, qos: QoS) -> u8 {
        let options = SubscribeFilter { filter, qos, no_local: false, retain_as_published: false, retain_handling: 0 };
        self.subscribe_with(&[options], &[])[0]
    }

    /// Subscribes with options and properties and returns the codes granted.
    ///
    /// # Panics
    /// If no SUBACK comes.
    pub fn subscribe_with(&mut self, filters: &[SubscribeFilter<'_>], properties: &[u8]) -> Vec<u8> {
        let packet_id = self.packet_id();
        let mut scratch = Vec::new();
        let filters = SubscribeFilters::encode(filters.iter().copied(), &mut scratch);
        let properties = Properties::new(properties);
        self.send(&Packet::Subscribe(Subscribe { packet_id, properties, filters }));
        let received = self.recv_answer();
        let Packet::SubAck(suback) = received.packet() else { panic!("not a SUBACK: {received:?}") };
        assert_eq!(suback.packet_id, packet_id);
        suback.codes.to_vec()
    }

    /// The next packet that is no QoS 0 PUBLISH; those on the way are lost.
    fn recv_answer(&mut self) -> Received {
        loop {
            let received = self.recv();
            if !matches!(received.packet(), Packet::Publish(publish) if publish.qos == QoS::AtMostOnce) {
                return received;
            }
        }
    }

    /// Unsubscribes and waits for UNSUBACK.
    ///
    /// # Panics
    /// If none comes.
    pub fn unsubscribe(&mut self, filter: &str) -> Vec<u8> {
        let packet_id = self.packet_id();
        let mut scratch = Vec::new();
        let filters = UnsubscribeFilters::encode([filter], &mut scratch);
        let properties = Properties::default();
        self.send(&Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters }));
        let received = self.recv_answer();
        let Packet::UnsubAck(unsuback) = received.packet() else { panic!("not an UNSUBACK: {received:?}") };
        assert_eq!(unsuback.packet_id, packet_id);
        unsuback.codes.to_vec()
    }

    /// Publishes without waiting; returns the packet id for QoS 1 and 2.
    pub fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS, retain: bool) -> Option<PacketId> {
        self.publish_with(topic, payload, qos, retain, &[])
    }

    /// Publishes with encoded properties.
    pub fn publish_with(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: QoS,
        retain: bool,
        properties: &[u8],
    ) -> Option<PacketId> {
        let packet_id = (qos != QoS::AtMostOnce).then(|| self.packet_id());
        let properties = PublishProperties { all: Properties::new(properties), ..PublishProperties::default() };
        let publish = Publish { dup: false, qos, retain, topic, packet_id, properties, payload };
        self.send(&Packet::Publish(publish));
        packet_id
    }

    /// Publishes with QoS 1 and waits for the PUBACK's reason.
    ///
    /// # Panics
    /// If something else comes.
    pub fn publish_acked(&mut self, topic: &str, payload: &[u8]) -> Reason {
        let id = self.publish(topic, payload, QoS::AtLeastOnce, false);
        let received = self.recv();
        let Packet::PubAck(ack) = received.packet() else { panic!("not a PUBACK: {received:?}") };
        assert_eq!(Some(ack.packet_id), id);
        ack.reason
    }

    /// Publishes with QoS 2 and goes through the whole handshake.
    ///
    /// # Panics
    /// If something else comes.
    pub fn publish_exactly_once(&mut self, topic: &str, payload: &[u8]) -> Reason {
        let id = self.publish(topic, payload, QoS::ExactlyOnce, false).expect("QoS 2 has an id");
        let received = self.recv();
        let Packet::PubRec(ack) = received.packet() else { panic!("not a PUBREC: {received:?}") };
        let reason = ack.reason;
        assert_eq!(ack.packet_id, id);
        if !reason.is_error() {
            self.ack(AckKind::PubRel, id);
            let received = self.recv();
            assert!(matches!(received.packet(), Packet::PubComp(ack) if ack.packet_id == id), "{received:?}");
        }
        reason
    }

    /// Sends an acknowledgement: `client.ack(AckKind::PubAck, id)`.
    pub fn ack(&mut self, kind: AckKind, packet_id: PacketId) {
        let mut bytes = Vec::new();
        encode_ack(kind, packet_id, &mut bytes);
        self.send_bytes(&bytes);
    }

    /// Receives a PUBLISH, acknowledges it, and returns topic, payload and what else is in it.
    ///
    /// # Panics
    /// If something else comes.
    pub fn recv_publish(&mut self) -> Received {
        let received = self.recv();
        let Packet::Publish(publish) = received.packet() else { panic!("not a PUBLISH: {received:?}") };
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => self.ack(AckKind::PubAck, id),
            (QoS::ExactlyOnce, Some(id)) => {
                self.ack(AckKind::PubRec, id);
                let released = self.recv();
                assert!(matches!(released.packet(), Packet::PubRel(ack) if ack.packet_id == id), "{released:?}");
                self.ack(AckKind::PubComp, id);
            }
            _ => {}
        }
        received
    }

    /// Receives `count` PUBLISH packets and acknowledges them, handshakes of QoS 2 interleaved as they come.
    ///
    /// # Panics
    /// If something else comes.
    pub fn recv_publishes(&mut self, count: usize) -> Vec<Received> {
        let (mut publishes, mut open) = (Vec::new(), 0);
        while publishes.len() < count || open > 0 {
            let received = self.recv();
            match received.packet() {
                Packet::Publish(publish) => {
                    match (publish.qos, publish.packet_id) {
                        (QoS::AtLeastOnce, Some(id)) => self.ack(AckKind::PubAck, id),
                        (QoS::ExactlyOnce, Some(id)) => {
                            open += 1;
                            self.ack(AckKind::PubRec, id);
                        }
                        _ => {}
                    }
                    publishes.push(received);
                }
                Packet::PubRel(ack) => {
                    open -= 1;
                    self.ack(AckKind::PubComp, ack.packet_id);
                }
                other => panic!("neither PUBLISH nor PUBREL: {other:?}"),
            }
        }
        publishes
    }

    /// What each PUBLISH of QoS 2 carries that has come, or comes within `patience` of the one before, in order; acknowledges them.
    ///
    /// # Panics
    /// If something else comes.
    pub fn drain_exactly_once(&mut self, patience: Duration) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        while let Some(Some(received)) = self.recv_within(patience) {
            match received.packet() {
                Packet::Publish(publish) => {
                    payloads.push(publish.payload.to_vec());
                    self.ack(AckKind::PubRec, publish.packet_id.expect("QoS 2 has one"));
                }
                Packet::PubRel(ack) => self.ack(AckKind::PubComp, ack.packet_id),
                other => panic!("neither PUBLISH nor PUBREL: {other:?}"),
            }
        }
        payloads
    }

    /// Says DISCONNECT and waits for the broker to close.
    pub fn disconnect(mut self) {
        self.send(&Packet::Disconnect(Disconnect { reason: Reason::SUCCESS, properties: Properties::default() }));
        self.expect_closed();
    }
}
