//! Fan-out: every copy is the PUBLISH that the plain encoder would write.

use super::*;
use crate::codec::{Fanout, FanoutScratch, PublishSpec};
use crate::packet::Publish;
use crate::property::{PropertyId, PropertyWriter};
use crate::wire::{SHARED_PAYLOAD_BYTES_MIN, Wire};
use alloc::sync::Arc;
use bifro_core::ids::PublisherKey;
use bifro_core::message::{MessageView, QoS};
use bifro_core::time::Instant;
use core::num::NonZeroU32;
use core::time::Duration;

const NOW: Instant = Instant::from_micros(1_000_000_000);

const PLAIN: PublishSpec<'static> = PublishSpec {
    version: Version::V311,
    dup: false,
    qos: QoS::AtMostOnce,
    retain: false,
    packet_id: None,
    alias: None,
    subscription_ids: &[],
    packet_bytes_max: 0,
};

fn spec(version: Version, qos: QoS, packet_id: u16) -> PublishSpec<'static> {
    let packet_id = (qos != QoS::AtMostOnce).then(|| id(packet_id));
    PublishSpec { version, qos, packet_id, ..PLAIN }
}

fn view<'a>(properties: &'a [u8], payload: &'a [u8]) -> MessageView<'a> {
    MessageView {
        topic: "a/topic",
        properties,
        payload,
        qos: QoS::ExactlyOnce,
        retain: true,
        expiry_at: None,
        publisher: PublisherKey(1),
    }
}

fn sent(wire: &Wire) -> Vec<u8> {
    wire.pieces().flatten().copied().collect()
}

fn publish_of(bytes: &[u8], version: Version) -> Publish<'_> {
    match decoded(bytes, version) {
        Packet::Publish(publish) => publish,
        other => panic!("{other:?}"),
    }
}

/// One subscriber after another, of all kinds, several times: encoded, kept and copied alike.
#[test]
fn every_copy_is_what_its_subscriber_expects() {
    let mut properties = Vec::new();
    PropertyWriter::new(&mut properties).str(PropertyId::ContentType, "x").pair(PropertyId::UserProperty, "k", "v");
    let large = alloc::vec![3; SHARED_PAYLOAD_BYTES_MIN];
    let payloads = [&[][..], b"payload", &large[1..], &large];
    let mut following = Fanout::new(view(&properties, &large), None, NOW);
    for (payload, follows) in payloads.into_iter().flat_map(|payload| [(payload, false), (payload, true)]) {
        following.follow(payload);
        let mut new = Fanout::new(view(&properties, payload), None, NOW);
        let fanout = if follows { &mut following } else { &mut new };
        for round in 1..=4 {
            for version in VERSIONS {
                for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                    let retain = round % 2 == 0;
                    let dup = retain && qos != QoS::AtMostOnce;
                    let spec = PublishSpec { retain, dup, ..spec(version, qos, round) };
                    let mut wire = Wire::default();
                    assert!(fanout.append(&spec, &mut wire));
                    let bytes = sent(&wire);
                    assert_eq!(wire.len(), bytes.len());
                    let copy = publish_of(&bytes, version);
                    assert_eq!((copy.dup, copy.qos, copy.retain), (dup, qos, retain));
                    assert_eq!((copy.topic, copy.packet_id, copy.payload), ("a/topic", spec.packet_id, payload));
                    let expected = if version == Version::V5 { &properties[..] } else { &[] };
                    assert_eq!(copy.properties.all.raw(), expected);
                }
            }
        }
    }
}

/// Packets follow each other on one wire, as they do for a session that gets several.
#[test]
fn copies_are_appended_behind_what_is_there() {
    let mut wire = Wire::default();
    wire.bytes.extend_from_slice(&[0xD0, 0]);
    let mut fanout = Fanout::new(view(&[], b"p"), None, NOW);
    for packet_id in 1..=4 {
        assert!(fanout.append(&spec(Version::V311, QoS::AtLeastOnce, packet_id), &mut wire));
    }
    let bytes = sent(&wire);
    let mut rest = &bytes[2..];
    for packet_id in 1..=4 {
        let (packet, len) = decode(rest, &options(Version::V311)).expect("valid").expect("complete");
        let Packet::Publish(copy) = packet else { panic!("{packet:?}") };
        assert_eq!((copy.packet_id, copy.payload), (Some(id(packet_id)), &b"p"[..]));
        rest = &rest[len..];
    }
    assert!(rest.is_empty());
}

/// [MQTT5-3.3.2-5] [MQTT5-3.3.2-6]
#[test]
fn the_expiry_is_what_remains_in_whole_seconds() {
    for (micros, seconds) in [(0, 0), (1, 1), (1_000_000, 1), (1_000_001, 2), (u64::MAX - NOW.as_micros(), u32::MAX)] {
        let expiry_at = Some(NOW + Duration::from_micros(micros));
        let mut fanout = Fanout::new(MessageView { expiry_at, ..view(&[], b"p") }, None, NOW);
        assert_eq!(fanout.is_expired(), micros == 0);
        let (mut v5, mut v311) = (Wire::default(), Wire::default());
        assert!(fanout.append(&spec(Version::V5, QoS::AtMostOnce, 0), &mut v5));
        assert!(fanout.append(&PLAIN, &mut v311));
        assert_eq!(publish_of(&sent(&v5), Version::V5).properties.message_expiry, Some(seconds));
        assert_eq!(publish_of(&sent(&v311), Version::V311).payload, b"p");
    }
    assert!(!Fanout::new(view(&[], b"p"), None, NOW).is_expired());
}

/// [MQTT5-3.3.4-3] [MQTT5-3.3.4-4]
#[test]
fn alias_and_subscription_ids_are_one_subscribers_own() {
    let mut forwarded = Vec::new();
    PropertyWriter::new(&mut forwarded).str(PropertyId::ContentType, "x");
    let ids = [1, 128, 268_435_455].map(|id| NonZeroU32::new(id).expect("above 0"));
    let expiry_at = Some(NOW + Duration::from_secs(7));
    let mut fanout = Fanout::new(MessageView { expiry_at, ..view(&forwarded, b"p") }, None, NOW);
    let v5 = spec(Version::V5, QoS::AtLeastOnce, 9);
    for (alias, topic) in [(Some((3, true)), "a/topic"), (Some((3, false)), ""), (None, "a/topic")] {
        let mut wire = Wire::default();
        assert!(fanout.append(&PublishSpec { alias, subscription_ids: &ids, ..v5 }, &mut wire));
        let bytes = sent(&wire);
        let copy = publish_of(&bytes, Version::V5);
        assert_eq!((copy.topic, copy.payload, copy.packet_id), (topic, &b"p"[..], Some(id(9))));
        assert_eq!(copy.properties.topic_alias, alias.map(|(alias, _)| alias));
        assert_eq!(copy.properties.message_expiry, Some(7));
        assert!(copy.properties.all.subscription_ids().eq(ids));
        assert_eq!(copy.properties.forward(), forwarded);
    }
    // Older versions have neither.
    let mut wire = Wire::default();
    assert!(fanout.append(&PublishSpec { alias: Some((3, false)), subscription_ids: &ids, ..PLAIN }, &mut wire));
    assert_eq!(publish_of(&sent(&wire), Version::V311).topic, "a/topic");
}

/// [MQTT5-3.1.2-24] [MQTT5-3.1.2-25]
#[test]
fn a_copy_that_is_too_large_is_not_written() {
    let large = alloc::vec![3; SHARED_PAYLOAD_BYTES_MIN];
    for payload in [&b"payload"[..], &large] {
        let mut fanout = Fanout::new(view(&[], payload), None, NOW);
        let mut wire = Wire::default();
        assert!(fanout.append(&PLAIN, &mut wire));
        let packet_bytes = wire.len() as u32;
        // The same before and after a copy is kept, and with an alias.
        for _ in 0..3 {
            let v5 = PublishSpec { alias: Some((1, true)), packet_bytes_max: packet_bytes, ..PLAIN };
            for too_small in [
                PublishSpec { packet_bytes_max: packet_bytes - 1, ..PLAIN },
                PublishSpec { packet_bytes_max: 1, ..PLAIN },
                PublishSpec { version: Version::V5, ..v5 },
            ] {
                let mut untouched = Wire::default();
                untouched.bytes.push(0xAA);
                assert!(!fanout.append(&too_small, &mut untouched));
                assert_eq!((untouched.bytes.as_slice(), untouched.len()), (&[0xAA][..], 1));
            }
            assert!(fanout.append(&PublishSpec { packet_bytes_max: packet_bytes, ..PLAIN }, &mut wire));
        }
    }
}

#[test]
fn large_payloads_are_shared_and_owned_once() {
    let payload = alloc::vec![3; SHARED_PAYLOAD_BYTES_MIN];
    let mut fanout = Fanout::new(view(&[], &payload), None, NOW);
    let mut wire = Wire::default();
    for packet_id in 1..=3 {
        assert!(fanout.append(&spec(Version::V311, QoS::AtLeastOnce, packet_id), &mut wire));
    }
    assert_eq!((wire.cuts().len(), wire.shared_bytes()), (3, 3 * payload.len()));
    assert!(wire.bytes.len() < 64);
    let owner = Arc::clone(fanout.message());
    assert!(wire.cuts().iter().all(|(_, message)| Arc::ptr_eq(message, &owner)));

    let mut again = Fanout::new(owner.view(), Some(Arc::clone(&owner)), NOW);
    assert!(Arc::ptr_eq(again.message(), &owner));
    wire.clear();
    assert!(again.append(&PLAIN, &mut wire));
    assert!(Arc::ptr_eq(&wire.cuts()[0].1, &owner));
}

#[test]
fn a_lent_scratch_forgets_the_message_before() {
    let mut scratch = FanoutScratch::default();
    for payload in [&b"first"[..], b"second and longer", b"3"] {
        let mut fanout = Fanout::with_scratch(view(&[], payload), None, NOW, &mut scratch);
        for _ in 0..3 {
            let mut wire = Wire::default();
            assert!(fanout.append(&PLAIN, &mut wire));
            assert_eq!(publish_of(&sent(&wire), Version::V311).payload, payload);
        }
    }
}

/// The scratch stays bounded: what is too long to be kept is encoded for each subscriber.
#[test]
fn long_heads_are_not_kept() {
    let topic: alloc::string::String = core::iter::repeat_n('t', 65_535).collect();
    let long = MessageView { topic: &topic, ..view(&[], b"p") };
    let mut fanout = Fanout::new(long, None, NOW);
    for packet_id in 1..=4 {
        let mut wire = Wire::default();
        assert!(fanout.append(&spec(Version::V5, QoS::ExactlyOnce, packet_id), &mut wire));
        let bytes = sent(&wire);
        let copy = publish_of(&bytes, Version::V5);
        assert_eq!((copy.topic.len(), copy.packet_id), (65_535, Some(id(packet_id))));
    }
}

#[test]
#[should_panic(expected = "if and only if its QoS is above 0")]
fn qos_1_without_an_identifier_is_a_defect() {
    let spec = PublishSpec { qos: QoS::AtLeastOnce, ..PLAIN };
    Fanout::new(view(&[], b"p"), None, NOW).append(&spec, &mut Wire::default());
}
