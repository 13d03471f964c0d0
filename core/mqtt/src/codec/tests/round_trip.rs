//! Property tests: any packet of any version survives encoding and decoding, cut at any byte.

use super::*;
use crate::packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Publish, PublishProperties, SubAck, Subscribe, SubscribeFilter,
    SubscribeFilters, Unsubscribe, UnsubscribeFilters, Will,
};
use crate::property::{Properties, PropertyId, PropertyWriter};
use alloc::string::String;
use bifro_core::message::QoS;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>().prop_filter("U+0000", |c| *c != '\0'), 0..12).prop_map(|chars| chars.into_iter().collect())
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V31), Just(Version::V311), Just(Version::V5)]
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(id)
}

/// A block of user properties and, perhaps, one other property.
fn block(id: PropertyId) -> impl Strategy<Value = Vec<u8>> {
    (option::of((text(), 1..u32::MAX)), vec((text(), text()), 0..3)).prop_map(move |(other, pairs)| {
        let mut out = Vec::new();
        let mut writer = PropertyWriter::new(&mut out);
        if let Some((text, number)) = other {
            match id {
                PropertyId::ReasonString | PropertyId::AuthenticationMethod => writer.str(id, &text),
                PropertyId::SubscriptionIdentifier => writer.varint(id, number % 268_435_455 + 1),
                PropertyId::ReceiveMaximum => writer.u16(id, number as u16 | 1),
                _ => writer.u32(id, number),
            };
        }
        for (name, value) in &pairs {
            writer.pair(PropertyId::UserProperty, name, value);
        }
        out
    })
}

/// The block, if the version has properties.
fn properties(block: &[u8], version: Version) -> Properties<'_> {
    if version == Version::V5 { Properties::new(block) } else { Properties::default() }
}

fn filter() -> impl Strategy<Value = (String, QoS, bool, bool, u8)> {
    (text(), qos(), any::<bool>(), any::<bool>(), 0..=2_u8)
}

proptest! {
    #[test]
    fn connect(
        version in version(),
        (bridge, clean_start, keep_alive, client_id) in (any::<bool>(), any::<bool>(), any::<u16>(), text()),
        own in block(PropertyId::ReceiveMaximum),
        will in option::of((text(), vec(any::<u8>(), 0..20), qos(), any::<bool>(), block(PropertyId::WillDelayInterval))),
        username in option::of(text()),
        password in option::of(vec(any::<u8>(), 0..20)),
    ) {
        let is_v5 = version == Version::V5;
        let connect = Connect {
            version,
            bridge: bridge && !is_v5,
            clean_start,
            keep_alive,
            properties: properties(&own, version),
            client_id: &client_id,
            will: will.as_ref().map(|(topic, payload, qos, retain, block)| {
                Will { topic, payload, qos: *qos, retain: *retain, properties: properties(block, version) }
            }),
            username: username.as_deref(),
            password: password.as_deref().filter(|_| is_v5 || username.is_some()),
        };
        assert_round_trip(&Packet::Connect(connect), version);
    }

    #[test]
    fn connack(version in version(), present in any::<bool>(), code in 0..=5_u8, own in block(PropertyId::ReasonString)) {
        let reason = if version == Version::V5 { Reason(if code == 0 { 0 } else { 0x84 + code }) } else { Reason(code) };
        let session_present = present && version != Version::V31;
        let ack = ConnAck { session_present, reason, properties: properties(&own, version) };
        assert_round_trip(&Packet::ConnAck(ack), version);
    }

    #[test]
    fn publish(
        version in version(),
        (dup, retain, qos, packet_id) in (any::<bool>(), any::<bool>(), qos(), packet_id()),
        topic in text(),
        own in block(PropertyId::MessageExpiryInterval),
        payload in vec(any::<u8>(), 0..300),
    ) {
        prop_assume!(!topic.is_empty());
        let has_id = qos != QoS::AtMostOnce;
        let all = properties(&own, version);
        let publish = Publish {
            dup: dup && has_id,
            qos,
            retain,
            topic: &topic,
            packet_id: has_id.then_some(packet_id),
            properties: PublishProperties { all, message_expiry: all.message_expiry(), ..Default::default() },
            payload: &payload,
        };
        assert_round_trip(&Packet::Publish(publish), version);
    }

    #[test]
    fn acks(
        version in version(),
        packet_id in packet_id(),
        failed in any::<bool>(),
        own in block(PropertyId::ReasonString),
    ) {
        let properties = properties(&own, version);
        let is_v5 = version == Version::V5;
        let reason = |code| if failed && is_v5 { Reason(code) } else { Reason::SUCCESS };
        let early = Ack { packet_id, reason: reason(0x97), properties };
        let late = Ack { packet_id, reason: reason(0x92), properties };
        for packet in [Packet::PubAck(early), Packet::PubRec(early), Packet::PubRel(late), Packet::PubComp(late)] {
            assert_round_trip(&packet, version);
        }
    }

    #[test]
    fn subscribe(
        version in version(),
        packet_id in packet_id(),
        own in block(PropertyId::SubscriptionIdentifier),
        filters in vec(filter(), 1..5),
    ) {
        let is_v5 = version == Version::V5;
        let mut scratch = Vec::new();
        let filters = filters.iter().map(|(filter, qos, no_local, retain_as_published, retain_handling)| SubscribeFilter {
            filter,
            qos: *qos,
            no_local: *no_local && is_v5,
            retain_as_published: *retain_as_published && is_v5,
            retain_handling: if is_v5 { *retain_handling } else { 0 },
        });
        let expected: Vec<_> = filters.clone().collect();
        let filters = SubscribeFilters::encode(filters, &mut scratch);
        prop_assert!(filters.iter().eq(expected));
        let subscribe = Subscribe { packet_id, properties: properties(&own, version), filters };
        assert_round_trip(&Packet::Subscribe(subscribe), version);
    }

    #[test]
    fn unsubscribe(
        version in version(),
        packet_id in packet_id(),
        pairs in vec((text(), text()), 0..3),
        filters in vec(text(), 1..5),
    ) {
        let (mut own, mut scratch) = (Vec::new(), Vec::new());
        for (name, value) in &pairs {
            PropertyWriter::new(&mut own).pair(PropertyId::UserProperty, name, value);
        }
        let filters = UnsubscribeFilters::encode(filters.iter().map(String::as_str), &mut scratch);
        let unsubscribe = Unsubscribe { packet_id, properties: properties(&own, version), filters };
        assert_round_trip(&Packet::Unsubscribe(unsubscribe), version);
    }

    #[test]
    fn suback_and_unsuback(
        version in version(),
        packet_id in packet_id(),
        own in block(PropertyId::ReasonString),
        codes in vec(prop_oneof![Just(0), Just(1), Just(2), Just(0x80)], 1..9),
    ) {
        let properties = properties(&own, version);
        assert_round_trip(&Packet::SubAck(SubAck { packet_id, properties, codes: &codes }), version);
        let ends: Vec<u8> = codes.iter().map(|&code| if code == 0 { 0 } else { 0x11 }).collect();
        let codes = if version == Version::V5 { &ends[..] } else { &[] };
        assert_round_trip(&Packet::UnsubAck(SubAck { packet_id, properties, codes }), version);
    }

    #[test]
    fn disconnect(version in version(), will in any::<bool>(), own in block(PropertyId::SessionExpiryInterval)) {
        let is_v5 = version == Version::V5;
        let reason = if will && is_v5 { Reason::DISCONNECT_WITH_WILL } else { Reason::SUCCESS };
        let disconnect = Disconnect { reason, properties: properties(&own, version) };
        assert_round_trip(&Packet::Disconnect(disconnect), version);
    }

    #[test]
    fn auth(own in block(PropertyId::AuthenticationMethod), code in prop_oneof![Just(0), Just(0x18), Just(0x19)]) {
        prop_assume!(Properties::new(&own).authentication_method().is_some());
        let auth = Auth { reason: Reason(code), properties: Properties::new(&own) };
        assert_round_trip(&Packet::Auth(auth), Version::V5);
    }

    /// Whatever arrives, the decoder answers, and never claims more than it was given.
    #[test]
    fn noise(version in option::of(version()), bytes in vec(any::<u8>(), 0..64)) {
        let options = DecodeOptions { version, packet_bytes_max: 1 << 20 };
        if let Ok(Some((_, len))) = decode(&bytes, &options) {
            prop_assert!(len <= bytes.len());
        }
    }
}
