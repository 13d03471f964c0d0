//! What the chapters share: one broker for all of them, names that do not collide, and packets with every field spelt out.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::{Packet, PacketId, Publish, PublishProperties, SubscribeFilter};
use bifro_mqtt::property::{Properties, PropertyId, PropertyWriter};
use bifro_mqtt::reason::Reason;
use bifro_tests::{Broker, Client, ConnectOptions, Received};
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Every version.
pub(crate) const ALL: [Version; 3] = [Version::V31, Version::V311, Version::V5];

/// The versions with session present, strict flags and return codes in SUBACK.
pub(crate) const STANDARD: [Version; 2] = [Version::V311, Version::V5];

/// Seconds a session is asked to last that outlives its connection.
pub(crate) const LASTING_S: u32 = 600;

pub(crate) const AT_MOST_ONCE: QoS = QoS::AtMostOnce;
pub(crate) const AT_LEAST_ONCE: QoS = QoS::AtLeastOnce;
pub(crate) const EXACTLY_ONCE: QoS = QoS::ExactlyOnce;

/// Every QoS.
pub(crate) const QOS: [QoS; 3] = [AT_MOST_ONCE, AT_LEAST_ONCE, EXACTLY_ONCE];

const JWT_SECRET: &[u8] = b"the secret of the conformance suite, 32 bytes and more";

/// Listeners: TCP for anybody, WebSocket for anybody, TCP with tokens, TCP with SCRAM, TCP with a provider that is down. A
/// token names its tenant, and each tenant has one thing that is different.
const CONFIG: &str = r#"
[[listener]]
protocol = "tcp"
bind = "127.0.0.1:0"
auth = ["anonymous"]
[[listener]]
protocol = "ws"
bind = "127.0.0.1:0"
auth = ["anonymous"]
[[listener]]
protocol = "tcp"
bind = "127.0.0.1:0"
auth = ["jwt"]
[[listener]]
protocol = "tcp"
bind = "127.0.0.1:0"
auth = ["scram"]
[[listener]]
protocol = "tcp"
bind = "127.0.0.1:0"
auth = ["http"]
[auth.jwt]
secret_file = "jwt.secret"
tenant_claim = "tenant"
leeway_s = 0
[auth.scram]
path = "scram.txt"
[auth.http]
url = "http://127.0.0.1:1/"
timeout_ms = 1000
[tenant.one]
receive_maximum = 1
[tenant.four]
receive_maximum = 4
topic_alias_max = 2
[tenant.qos1]
maximum_qos = 1
[tenant.qos0]
maximum_qos = 0
[tenant.unretained]
retain_enabled = false
[tenant.plain]
wildcard_subscription_enabled = false
subscription_identifier_enabled = false
shared_subscription_enabled = false
[tenant.small]
payload_bytes_max = 1024
will_bytes_max = 64
client_id_bytes_max = 30
topic_bytes_max = 64
topic_levels_max = 4
filters_per_packet_max = 4
subscriptions_per_session_max = 5
[tenant.brief]
session_expiry_max_s = 60
keep_alive_min_s = 30
[tenant.unversioned]
mqtt_31_enabled = false
mqtt_311_enabled = false
mqtt_5_enabled = false
[tenant.slow]
publish_rate_max = 2
[tenant.lonely.quota]
total_connections = 1
[tenant.forgetful.quota]
total_persistent_sessions = 1
[tenant.rare.quota]
total_connect_per_second = 1
[tenant.thrifty.quota]
total_inbound_bytes_per_second = 64
total_transient_unsubscribe_per_second = 1
[tenant.trusting]
payload_format_validation = false
[tenant.reminded]
resend_timeout_s = 1
resend_times_max = 2
"#;

/// The broker of the suite.
pub(crate) fn broker() -> &'static Broker {
    static BROKER: OnceLock<&'static Broker> = OnceLock::new();
    BROKER.get_or_init(|| {
        let scram = crate::scram::credential_line("alice", "wonderland");
        let files = [("jwt.secret", JWT_SECRET), ("scram.txt", scram.as_bytes())];
        Broker::start_with(2, CONFIG, &files).leave_running()
    })
}

/// Listener for tokens.
pub(crate) fn token_listener() -> SocketAddr {
    broker().nth_address("tcp", 1)
}

/// Listener for SCRAM.
pub(crate) fn scram_listener() -> SocketAddr {
    broker().nth_address("tcp", 2)
}

/// Listener whose provider cannot be reached.
pub(crate) fn broken_listener() -> SocketAddr {
    broker().nth_address("tcp", 3)
}

/// A name nobody else has.
pub(crate) fn name(stem: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{stem}{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A token for a tenant, with further claims as JSON members, good for `seconds`.
pub(crate) fn token(tenant: &str, seconds: u64, claims: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let comma = if claims.is_empty() { "" } else { "," };
    let body = format!(r#"{{"sub":"tester","tenant":"{tenant}","exp":{}{comma}{claims}}}"#, now + seconds);
    let signed =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#), URL_SAFE_NO_PAD.encode(body));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, JWT_SECRET);
    let signature = ring::hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

/// How a client of `tenant` connects to [`token_listener`].
pub(crate) fn of_tenant(tenant: &str, version: Version) -> ConnectOptions {
    with_claims(tenant, version, "")
}

/// The same with further claims.
pub(crate) fn with_claims(tenant: &str, version: Version, claims: &str) -> ConnectOptions {
    let mut options = ConnectOptions::new(version, &name("t"));
    options.credentials = Some(("tester".into(), token(tenant, 3600, claims)));
    options
}

/// Connects to [`token_listener`].
pub(crate) fn join_tenant(tenant: &str, version: Version) -> (Client, Received) {
    Client::connect_with(token_listener(), &of_tenant(tenant, version))
}

/// A client with this id and a clean session.
pub(crate) fn join(version: Version, id: &str) -> Client {
    Client::connect(broker().tcp(), version, id)
}

/// A client with any id and a clean session.
pub(crate) fn anybody(version: Version) -> Client {
    join(version, &name("c"))
}

/// A client of 5.0 with these CONNECT properties.
pub(crate) fn anybody_with(properties: &[u8]) -> Client {
    let mut options = ConnectOptions::new(Version::V5, &name("c"));
    options.properties = properties.to_vec();
    Client::connect_with(broker().tcp(), &options).0
}

/// Options of a session that outlives its connection and takes up an earlier one.
pub(crate) fn lasting(version: Version, id: &str) -> ConnectOptions {
    let mut options = ConnectOptions::new(version, id);
    options.clean = false;
    if version == Version::V5 {
        options.properties = block(|w| w.u32(PropertyId::SessionExpiryInterval, LASTING_S));
    }
    options
}

/// Connects to the anonymous listener; returns Session Present as well.
pub(crate) fn resume(options: &ConnectOptions) -> (Client, bool) {
    let (client, received) = Client::connect_with(broker().tcp(), options);
    let Packet::ConnAck(connack) = received.packet() else { unreachable!("connect_with has checked it") };
    (client, connack.session_present)
}

/// A block of properties.
pub(crate) fn block(
    write: impl for<'w, 'b> FnOnce(&'w mut PropertyWriter<'b>) -> &'w mut PropertyWriter<'b>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut PropertyWriter::new(&mut bytes));
    bytes
}

/// A packet from first byte and body.
pub(crate) fn frame(first: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let mut bytes = vec![first];
    let mut left = body.len();
    loop {
        let byte = u8::try_from(left % 128).expect("below 128");
        left /= 128;
        bytes.push(if left > 0 { byte | 0x80 } else { byte });
        if left == 0 {
            break;
        }
    }
    bytes.extend_from_slice(&body);
    bytes
}

/// A string with its length.
pub(crate) fn text(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let length = u16::try_from(bytes.len()).expect("short");
    [&length.to_be_bytes(), bytes].concat()
}

/// The property length 0, where the version has properties.
pub(crate) fn no_properties(version: Version) -> &'static [u8] {
    if version == Version::V5 { &[0] } else { &[] }
}

/// A packet id.
pub(crate) fn id(number: u16) -> PacketId {
    PacketId::new(number).expect("not zero")
}

/// A PUBLISH with a packet id of one's choice.
pub(crate) fn publish_packet(topic: &str, payload: &[u8], qos: QoS, packet_id: u16, dup: bool) -> Vec<u8> {
    let packet_id = PacketId::new(packet_id).filter(|_| qos != AT_MOST_ONCE);
    let properties = PublishProperties::default();
    let publish = Publish { dup, qos, retain: false, topic, packet_id, properties, payload };
    let mut bytes = Vec::new();
    bifro_mqtt::codec::encode(&Packet::Publish(publish), Version::V311, &mut bytes);
    bytes
}

/// Sends a PUBLISH with a packet id of one's choice.
pub(crate) fn publish_as(client: &mut Client, topic: &str, payload: &[u8], qos: QoS, packet_id: u16, dup: bool) {
    let packet_id = PacketId::new(packet_id).filter(|_| qos != AT_MOST_ONCE);
    let properties = PublishProperties::default();
    client.send(&Packet::Publish(Publish { dup, qos, retain: false, topic, packet_id, properties, payload }));
}

/// The PUBLISH in what was received.
pub(crate) fn as_publish(received: &Received) -> Publish<'_> {
    let Packet::Publish(publish) = received.packet() else { panic!("not a PUBLISH: {received:?}") };
    publish
}

/// Kind, id and reason of an acknowledgement.
pub(crate) fn as_ack(received: &Received) -> (&'static str, u16, Reason) {
    match received.packet() {
        Packet::PubAck(ack) => ("PUBACK", ack.packet_id.get(), ack.reason),
        Packet::PubRec(ack) => ("PUBREC", ack.packet_id.get(), ack.reason),
        Packet::PubRel(ack) => ("PUBREL", ack.packet_id.get(), ack.reason),
        Packet::PubComp(ack) => ("PUBCOMP", ack.packet_id.get(), ack.reason),
        other => panic!("not an acknowledgement: {other:?}"),
    }
}

/// Asserts that the next packet is an acknowledgement that says success.
pub(crate) fn expect_ack(client: &mut Client, kind: &str, packet_id: u16) {
    let received = client.recv();
    assert_eq!(as_ack(&received), (kind, packet_id, Reason::SUCCESS));
}

/// Asserts that the next packet is an acknowledgement of success, if nobody subscribes to the topic too.
pub(crate) fn expect_taken(client: &mut Client, kind: &str, packet_id: u16) {
    let received = client.recv();
    let (found, number, reason) = as_ack(&received);
    assert_eq!((found, number), (kind, packet_id));
    assert!(!reason.is_error(), "{received:?}");
}

/// Asserts that the next PUBLISH has this payload, and acknowledges it.
pub(crate) fn expect_payload(client: &mut Client, payload: impl AsRef<[u8]>) -> Received {
    let received = client.recv_publish();
    assert_eq!(as_publish(&received).payload, payload.as_ref(), "{received:?}");
    received
}

/// The CONNACK that a CONNECT gets, and the connection.
pub(crate) fn answer_to(address: SocketAddr, options: &ConnectOptions) -> (Client, Received) {
    let mut client = Client::open(address, options.version);
    client.send_bytes(&options.encode());
    let received = client.recv();
    assert!(matches!(received.packet(), Packet::ConnAck(_)), "not a CONNACK: {received:?}");
    (client, received)
}

/// Asserts that a CONNECT is refused with this reason (for 3.x: its return code), Session Present 0, and the end of the
/// connection.
pub(crate) fn expect_refused(address: SocketAddr, options: &ConnectOptions, reason: Reason) -> Received {
    let (mut client, received) = answer_to(address, options);
    let Packet::ConnAck(connack) = received.packet() else { unreachable!("answer_to has checked it") };
    let expected = if options.version == Version::V5 { reason } else { Reason(reason.to_v3_connack()) };
    assert_eq!((connack.reason, connack.session_present), (expected, false), "{received:?}");
    client.expect_closed();
    received
}

/// The properties of a CONNACK.
pub(crate) fn connack_properties(received: &Received) -> Properties<'_> {
    let Packet::ConnAck(connack) = received.packet() else { panic!("not a CONNACK: {received:?}") };
    connack.properties
}

/// A filter without options.
pub(crate) const fn filter(filter: &str, qos: QoS) -> SubscribeFilter<'_> {
    SubscribeFilter { filter, qos, no_local: false, retain_as_published: false, retain_handling: 0 }
}

/// Subscribes to one filter with a subscription identifier.
pub(crate) fn subscribe_as(client: &mut Client, pattern: &str, qos: QoS, identifier: u32) {
    let properties = block(|w| w.varint(PropertyId::SubscriptionIdentifier, identifier));
    assert_eq!(client.subscribe_with(&[filter(pattern, qos)], &properties), [qos as u8]);
}

/// Waits out a time that a clause is about.
pub(crate) fn pass(time: Duration) {
    std::thread::sleep(time);
}

/// Runs `test` for each version at the same time, for tests that have to wait.
pub(crate) fn at_once(versions: &[Version], test: impl Fn(Version) + Sync) {
    std::thread::scope(|scope| {
        for &version in versions {
            let test = &test;
            scope.spawn(move || test(version));
        }
    });
}
