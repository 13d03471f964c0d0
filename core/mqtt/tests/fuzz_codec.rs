//! Fuzzing in process: packets of every kind and version are mutated, and whatever the decoder makes of the result must
//! hold three promises: it does not panic, it does not claim more bytes than there are, and what it accepts survives
//! encoding and decoding unchanged, cut at any byte.
//!
//! `BIFRO_FUZZ_SECONDS` runs for that long instead of a fixed number of mutations; `BIFRO_FUZZ_SEED` replays a run.

use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_core::rng::Prng;
use bifro_mqtt::codec::{DecodeOptions, decode, encode, packet_len};
use bifro_mqtt::packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, PacketId, Publish, PublishProperties, SubAck, Subscribe,
    SubscribeFilter, SubscribeFilters, Unsubscribe, UnsubscribeFilters, Will,
};
use bifro_mqtt::property::{Properties, PropertyId, PropertyWriter};
use bifro_mqtt::reason::Reason;
use std::time::{Duration, Instant};

/// Mutations without a time limit: a second or so of a debug build.
const MUTATIONS: u64 = 30_000;

/// Mutations between two looks at the clock.
const BATCH: u64 = 1_000;

/// Mutated packets do not grow beyond this.
const PACKET_BYTES_MAX: usize = 4_096;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

#[test]
fn whatever_arrives_the_decoder_keeps_its_promises() {
    let seed = number("BIFRO_FUZZ_SEED").unwrap_or(0xB1F0);
    let deadline = number("BIFRO_FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut rng = Prng::new(seed);
    let corpus: Vec<Vec<u8>> = VERSIONS.into_iter().flat_map(corpus).collect();
    let (mut done, mut accepted) = (0, 0);
    while deadline.map_or(done < MUTATIONS, |deadline| Instant::now() < deadline) {
        for _ in 0..BATCH {
            let mut bytes = pick(&corpus, &mut rng).clone();
            for _ in 0..rng.below(4) {
                mutate(&mut bytes, &corpus, &mut rng);
            }
            let witness = Witness { seed, bytes: &bytes };
            accepted += VERSIONS.iter().filter(|version| check(&bytes, Some(**version))).count();
            check(&bytes, None);
            drop(witness);
        }
        done += BATCH;
    }
    // A fuzzer that never gets past the checks tests nothing behind them.
    assert!(accepted as u64 > done / 4, "seed {seed}: {accepted} accepted of {done}");
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("the variable is a number"))
}

/// Says what broke a promise.
struct Witness<'a> {
    seed: u64,
    bytes: &'a [u8],
}

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}, bytes {:02x?}", self.seed, self.bytes);
        }
    }
}

/// Holds the decoder to its promises. True if it accepted the bytes.
fn check(bytes: &[u8], version: Option<Version>) -> bool {
    let options = DecodeOptions { version, packet_bytes_max: 1 << 20 };
    let Ok(answer) = decode(bytes, &options) else { return false };
    let expected_len = packet_len(bytes, options.packet_bytes_max).expect("the decoder accepts the header");
    let Some((packet, len)) = answer else {
        assert!(expected_len.is_none_or(|expected| expected > bytes.len()), "complete, but more is asked for");
        return false;
    };
    assert_eq!(expected_len, Some(len));
    assert!(len <= bytes.len());
    walk(&packet);
    for end in 0..len {
        assert_eq!(decode(&bytes[..end], &options), Ok(None), "cut at {end}");
    }
    // CONNECT is written as its own version says.
    let written_as = version.unwrap_or(Version::V5);
    let (mut once, mut twice) = (Vec::new(), Vec::new());
    encode(&packet, written_as, &mut once);
    let (again, again_len) = decode(&once, &options).expect("still valid").expect("still complete");
    assert_eq!((again, again_len), (packet, once.len()));
    encode(&again, written_as, &mut twice);
    assert_eq!(once, twice);
    true
}

/// Walks everything that a packet offers lazily.
fn walk(packet: &Packet<'_>) {
    let count = |properties: &Properties<'_>| {
        let all = properties.iter().count();
        assert!(properties.user_properties().count() + properties.subscription_ids().count() <= all);
        assert_eq!(all == 0, properties.raw().is_empty());
    };
    match packet {
        Packet::Publish(publish) => {
            count(&publish.properties.all);
            let forwarded = publish.properties.forward();
            assert_eq!(forwarded, publish.properties.all.forwardable());
            count(&Properties::new(&forwarded));
        }
        Packet::Connect(connect) => {
            count(&connect.properties);
            connect.will.iter().for_each(|will| count(&will.properties));
        }
        Packet::Subscribe(subscribe) => assert_eq!(subscribe.filters.iter().count(), subscribe.filters.len()),
        Packet::Unsubscribe(unsubscribe) => assert_eq!(unsubscribe.filters.iter().count(), unsubscribe.filters.len()),
        _ => {}
    }
}

fn pick<'a, T>(items: &'a [T], rng: &mut Prng) -> &'a T {
    &items[rng.below(items.len() as u64) as usize]
}

/// A place in `bytes`, or just behind its end.
fn place(bytes: &[u8], rng: &mut Prng) -> usize {
    rng.below(bytes.len() as u64 + 1) as usize
}

/// Changes `bytes` in one of the ways in which peers are wrong.
fn mutate(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], rng: &mut Prng) {
    /// Values at the edges of what fields may hold.
    const EDGES: [u8; 10] = [0x00, 0x01, 0x02, 0x7F, 0x80, 0x81, 0xC0, 0xED, 0xF4, 0xFF];
    let at = place(bytes, rng);
    match rng.below(7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
        1 if at < bytes.len() => bytes[at] = *pick(&EDGES, rng),
        2 => bytes.insert(at, rng.next_u64() as u8),
        3 if at < bytes.len() => {
            bytes.remove(at);
        }
        4 => bytes.truncate(at),
        5 => {
            let other = pick(corpus, rng);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[place(other, rng)..]);
        }
        _ => {
            let to = place(bytes, rng);
            let copied = bytes[at.min(to)..at.max(to)].to_vec();
            bytes.splice(at..at, copied);
        }
    }
    bytes.truncate(PACKET_BYTES_MAX);
    // Half of the time the length is made to fit, so that what lies behind it is reached.
    if bytes.len() >= 2 && rng.below(2) == 0 {
        fit_remaining_length(bytes);
    }
}

fn fit_remaining_length(bytes: &mut Vec<u8>) {
    let length_bytes = bytes[1..].iter().take(4).position(|byte| byte & 0x80 == 0).map_or(1, |at| at + 1);
    let header = 1 + length_bytes;
    let body_len = bytes.len() - header;
    let mut length = vec![body_len as u8 & 0x7F];
    if body_len > 0x7F {
        length[0] |= 0x80;
        length.push((body_len >> 7) as u8);
    }
    bytes.splice(1..header, length);
}

fn encoded(packet: Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&packet, version, &mut out);
    out
}

fn block(version: Version, write: impl FnOnce(&mut PropertyWriter<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    if version == Version::V5 {
        write(&mut PropertyWriter::new(&mut out));
    }
    out
}

/// At least one packet of each kind.
fn corpus(version: Version) -> Vec<Vec<u8>> {
    [connects(version), others(version), messages(version), subscriptions(version)].concat()
}

fn connects(version: Version) -> Vec<Vec<u8>> {
    let own = block(version, |writer| {
        writer
            .u32(PropertyId::SessionExpiryInterval, 3600)
            .u16(PropertyId::ReceiveMaximum, 20)
            .pair(PropertyId::UserProperty, "key", "value")
            .str(PropertyId::AuthenticationMethod, "SCRAM-SHA-256")
            .binary(PropertyId::AuthenticationData, b"n,,n=user,r=nonce");
    });
    let wills = block(version, |writer| {
        writer.u32(PropertyId::WillDelayInterval, 1).str(PropertyId::ContentType, "text/plain");
    });
    let plain = Connect {
        version,
        bridge: false,
        clean_start: true,
        keep_alive: 60,
        properties: Properties::default(),
        client_id: "client",
        will: None,
        username: None,
        password: None,
    };
    let will = Will {
        topic: "will/topic",
        payload: b"gone",
        qos: QoS::AtLeastOnce,
        retain: true,
        properties: Properties::new(&wills),
    };
    let full = Connect {
        bridge: version != Version::V5,
        properties: Properties::new(&own),
        will: Some(will),
        username: Some("grüße"),
        password: Some(&[0, 255, 7]),
        ..plain
    };
    vec![encoded(Packet::Connect(plain), version), encoded(Packet::Connect(full), version)]
}

/// CONNACK, pings and what ends a connection.
fn others(version: Version) -> Vec<Vec<u8>> {
    let is_v5 = version == Version::V5;
    let ends = block(version, |writer| {
        writer.str(PropertyId::ReasonString, "why").pair(PropertyId::UserProperty, "a", "");
    });
    let reason = if is_v5 { Reason::NOT_AUTHORIZED } else { Reason::SUCCESS };
    let properties = Properties::new(&ends);
    let mut packets = vec![
        encoded(Packet::ConnAck(ConnAck { session_present: false, reason, properties }), version),
        encoded(Packet::PingReq, version),
        encoded(Packet::PingResp, version),
        encoded(Packet::Disconnect(Disconnect { reason, properties }), version),
    ];
    if is_v5 {
        let method = block(version, |writer| {
            writer.str(PropertyId::AuthenticationMethod, "m");
        });
        let auth = Auth { reason: Reason::CONTINUE_AUTHENTICATION, properties: Properties::new(&method) };
        packets.push(encoded(Packet::Auth(auth), version));
    }
    packets
}

fn messages(version: Version) -> Vec<Vec<u8>> {
    let all = block(version, |writer| {
        writer
            .byte(PropertyId::PayloadFormatIndicator, 1)
            .u32(PropertyId::MessageExpiryInterval, 60)
            .u16(PropertyId::TopicAlias, 7)
            .str(PropertyId::ResponseTopic, "answer/here")
            .binary(PropertyId::CorrelationData, &[1, 2, 3])
            .varint(PropertyId::SubscriptionIdentifier, 300)
            .varint(PropertyId::SubscriptionIdentifier, 5)
            .pair(PropertyId::UserProperty, "trace", "0af7651916cd43dd");
    });
    let plain = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "sensors/7/temperature",
        packet_id: None,
        properties: PublishProperties::default(),
        payload: &[b'p'; 150],
    };
    let properties = PublishProperties { all: Properties::new(&all), ..PublishProperties::default() };
    let packet_id = PacketId::new(9);
    let full = Publish { dup: true, qos: QoS::ExactlyOnce, retain: true, packet_id, properties, ..plain };
    let ack = Ack { packet_id: PacketId::MAX, reason: Reason::SUCCESS, properties: Properties::default() };
    let failed = Ack { reason: Reason::PACKET_IDENTIFIER_NOT_FOUND, ..ack };
    [
        Packet::Publish(plain),
        Packet::Publish(full),
        Packet::PubAck(ack),
        Packet::PubRec(ack),
        Packet::PubRel(failed),
        Packet::PubComp(failed),
    ]
    .map(|packet| encoded(packet, version))
    .into()
}

fn subscriptions(version: Version) -> Vec<Vec<u8>> {
    let ids = block(version, |writer| {
        writer.varint(PropertyId::SubscriptionIdentifier, 16_384);
    });
    let (mut scratch, mut end_scratch) = (Vec::new(), Vec::new());
    let filters = ["a/+/c", "$share/group/#", "plain"].map(|filter| SubscribeFilter {
        filter,
        qos: QoS::ExactlyOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: 2,
    });
    let packet_id = PacketId::MIN;
    let subscribe = Subscribe {
        packet_id,
        properties: Properties::new(&ids),
        filters: SubscribeFilters::encode(filters, &mut scratch),
    };
    let properties = Properties::default();
    let filters = UnsubscribeFilters::encode(["a/+/c", "x"], &mut end_scratch);
    [
        Packet::Subscribe(subscribe),
        Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters }),
        Packet::SubAck(SubAck { packet_id, properties, codes: &[0, 1, 2, 0x80] }),
        Packet::UnsubAck(SubAck { packet_id, properties, codes: &[0, 0x11] }),
    ]
    .map(|packet| encoded(packet, version))
    .into()
}
