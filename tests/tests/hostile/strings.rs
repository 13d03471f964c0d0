//! Row 14: bytes that are no UTF-8, or UTF-8 that no string may contain, in every field that is a string.

use crate::arena::{Arena, MIB, VERSIONS};
use crate::raw::{
    AUTH, DISCONNECT, RawConnect, block, packet, publish, subscribe, text_property, unsubscribe, user_property,
};
use bifro_core::client::Version;
use bifro_mqtt::reason::Reason;
use bifro_tests::Client;

/// What no string may be. U+0000 is last [MQTT-1.5.3-2].
const ILL_FORMED: [(&str, &[u8]); 12] = [
    ("a continuation byte alone", b"a\x80b"),
    ("a byte that is never used", b"\xFF"),
    ("a sequence cut short", b"ab\xE2\x82"),
    ("over-long in two bytes", b"\xC0\x80"),
    ("over-long slash", b"a\xC0\xAFb"),
    ("over-long in three bytes", b"\xE0\x80\xAF"),
    ("over-long in four bytes", b"\xF0\x80\x80\xAF"),
    ("high surrogate", b"\xED\xA0\x80"),
    ("surrogate pair", b"\xED\xA0\xBD\xED\xB8\x80"),
    ("above U+10FFFF", b"\xF4\x90\x80\x80"),
    ("five bytes", b"\xF8\x88\x80\x80\x80"),
    ("U+0000", b"a\0b"),
];

/// Every packet with a string in it that a connected client may send, with `text` as that string.
fn packets_with(version: Version, text: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut packets = vec![
        ("topic", publish(version, text, &[], b"")),
        ("filter", subscribe(version, &[], &[(b"good", 0), (text, 0)])),
        ("filter to end", unsubscribe(version, &[], &[b"good", text])),
    ];
    if version != Version::V5 {
        return packets;
    }
    let reason = text_property(31, text);
    let (name, value) = (user_property(text, b"v"), user_property(b"n", text));
    for property in [text_property(3, text), text_property(8, text), name.clone(), value.clone()] {
        packets.push(("property of PUBLISH", publish(version, b"t", &property, b"")));
    }
    for property in [&name, &value] {
        packets.push(("property of SUBSCRIBE", subscribe(version, property, &[(b"t", 0)])));
        packets.push(("property of UNSUBSCRIBE", unsubscribe(version, property, &[b"t"])));
    }
    for property in [&reason, &name, &value] {
        for first in [0x40, 0x50, 0x62, 0x70] {
            packets.push(("property of an acknowledgement", packet(first, &[&[0, 1, 0], &block(version, property)])));
        }
        packets.push(("property of DISCONNECT", packet(DISCONNECT, &[&[4], &block(version, property)])));
    }
    for property in [text_property(21, text), [text_property(21, b"m"), reason].concat()] {
        packets.push(("property of AUTH", packet(AUTH, &[&[0x18], &block(version, &property)])));
    }
    packets
}

/// [MQTT-1.5.3-1] [MQTT-1.5.3-2] [MQTT5-1.5.4-1] [MQTT5-1.5.4-2]
#[test]
fn row_14_no_string_of_a_packet_may_be_ill_formed() {
    let mut arena = Arena::new();
    for (name, text) in ILL_FORMED {
        for version in VERSIONS {
            for (place, bytes) in packets_with(version, text) {
                let mut client = arena.client(version, "offender");
                client.send_bytes(&bytes);
                eprintln!("{version:?}, {name} as {place}");
                client.expect_disconnect(Reason::MALFORMED_PACKET);
            }
        }
        arena.check();
    }
    arena.wait_until_left();
    arena.finish(16 * MIB);
}

/// [MQTT-1.5.3-1] [MQTT-1.5.3-2] [MQTT-3.1.3-4] [MQTT-3.1.3-10] [MQTT-3.1.3-11]
/// [MQTT5-1.5.4-1] [MQTT5-1.5.4-2] [MQTT5-3.1.3-4] [MQTT5-3.1.3-11] [MQTT5-3.1.3-12]
#[test]
fn row_14_no_string_of_a_connect_may_be_ill_formed() {
    let mut arena = Arena::new();
    let good = RawConnect::new(b"offender");
    for (name, text) in ILL_FORMED {
        let text = text.to_vec();
        let will =
            |properties: Vec<u8>| RawConnect { will: Some((properties, b"t".to_vec(), Vec::new())), ..good.clone() };
        let property = |properties: Vec<u8>| RawConnect { properties, ..good.clone() };
        let mut connects = vec![
            RawConnect::new(&text),
            RawConnect { will: Some((Vec::new(), text.clone(), Vec::new())), ..good.clone() },
            RawConnect { username: Some(text.clone()), ..good.clone() },
        ];
        for version in VERSIONS {
            if version == Version::V5 {
                connects.extend([
                    property(text_property(21, &text)),
                    property(user_property(&text, b"v")),
                    property(user_property(b"n", &text)),
                    will(text_property(3, &text)),
                    will(text_property(8, &text)),
                    will(user_property(&text, b"v")),
                    will(user_property(b"n", &text)),
                ]);
            }
            for connect in &connects {
                let mut client = Client::open(arena.tcp(), version);
                client.send_bytes(&connect.encode(version));
                let received = client.try_recv();
                assert!(received.is_none(), "{version:?}, {name} in {connect:?}: {received:?}");
            }
        }
    }
    arena.check();
    arena.wait_until_left();
    arena.finish(16 * MIB);
}

/// [MQTT-1.5.3-3] [MQTT5-1.5.4-3]
#[test]
fn row_14_what_is_well_formed_passes_however_odd_it_is() {
    let mut arena = Arena::new();
    for version in VERSIONS {
        for topic in
            ["\u{feff}row14", "row14/\u{10ffff}", "row14/\u{fdd0}", "row14/\u{1}\u{7f}", "row14/\u{d7ff}\u{e000}", " "]
        {
            let mut client = arena.client(version, "odd but \u{fffe} right");
            assert_eq!(client.subscribe(topic, bifro_core::message::QoS::AtMostOnce), 0);
            client.publish(topic, &[0xFF, 0], bifro_core::message::QoS::AtMostOnce, false);
            let received = client.recv_publish();
            assert!(
                matches!(received.packet(), bifro_mqtt::packet::Packet::Publish(publish) if publish.topic == topic),
                "{received:?}"
            );
            client.disconnect();
        }
    }
    arena.check();
    arena.finish(16 * MIB);
}
