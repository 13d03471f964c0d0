//! Row 5: properties that do not belong there, stand twice, or have a value outside their range.

use crate::arena::{Arena, MIB, expect_refused};
use crate::raw::{
    AUTH, DISCONNECT, RawConnect, block, packet, publish, subscribe, text_property, unsubscribe, user_property,
};
use bifro_core::client::Version;
use bifro_mqtt::reason::Reason;
use bifro_tests::Client;

const V5: Version = Version::V5;

/// All properties there are, each with a value that is right for it.
fn all() -> Vec<(u8, Vec<u8>)> {
    let of = |id: u8, value: &[u8]| (id, [&[id][..], value].concat());
    let mut all = Vec::new();
    for id in [1, 23, 25, 36, 37, 40, 41, 42] {
        all.push(of(id, &[1]));
    }
    for id in [19, 33, 34, 35] {
        all.push(of(id, &[0, 5]));
    }
    for id in [2, 17, 24, 39] {
        all.push(of(id, &[0, 0, 2, 0]));
    }
    for id in [3, 8, 9, 18, 21, 22, 26, 28, 31] {
        all.push((id, text_property(id, b"x")));
    }
    all.push(of(11, &[7]));
    all.push((38, user_property(b"n", b"v")));
    all
}

/// Identifiers that a table of the specification gives to one packet.
const OF_CONNECT: &[u8] = &[17, 21, 22, 23, 25, 33, 34, 38, 39];
const OF_WILL: &[u8] = &[1, 2, 3, 8, 9, 24, 38];
const OF_PUBLISH: &[u8] = &[1, 2, 3, 8, 9, 11, 35, 38];
const OF_SUBSCRIBE: &[u8] = &[11, 38];
const OF_UNSUBSCRIBE: &[u8] = &[38];
const OF_ACK: &[u8] = &[31, 38];
const OF_DISCONNECT: &[u8] = &[17, 28, 31, 38];
const OF_AUTH: &[u8] = &[21, 22, 31, 38];

/// Properties that are wrong in a packet that may have those of `allowed`, with the reason for it.
fn wrong_for(allowed: &[u8]) -> Vec<(Vec<u8>, Reason)> {
    let mut wrong: Vec<(Vec<u8>, Reason)> = Vec::new();
    for (id, property) in all() {
        if !allowed.contains(&id) {
            wrong.push((property, Reason::MALFORMED_PACKET));
        } else if id != 38 && id != 22 {
            // Authentication Data cannot stand alone, see below.
            wrong.push((property.repeat(2), Reason::PROTOCOL_ERROR));
        }
    }
    for unknown in [0, 4, 43, 0x7F] {
        wrong.push((vec![unknown, 0], Reason::MALFORMED_PACKET));
    }
    let out_of_range: [&[u8]; 7] =
        [&[1, 2], &[23, 2], &[25, 0xFF], &[33, 0, 0], &[39, 0, 0, 0, 0], &[11, 0], &[22, 0, 1, b'x']];
    for property in out_of_range {
        if allowed.contains(&property[0]) {
            wrong.push((property.to_vec(), Reason::PROTOCOL_ERROR));
        }
    }
    wrong
}

/// [MQTT5-2.2.2.2]
#[test]
fn row_05_a_connect_with_a_wrong_property_is_refused_with_the_reason() {
    let mut arena = Arena::new();
    for (properties, reason) in wrong_for(OF_CONNECT) {
        let mut client = Client::open(arena.tcp(), V5);
        client.send_bytes(&RawConnect { properties: properties.clone(), ..RawConnect::new(b"offender") }.encode(V5));
        eprintln!("{properties:02x?}");
        expect_refused(&mut client, Some(reason));
    }
    for (properties, reason) in wrong_for(OF_WILL) {
        let mut client = Client::open(arena.tcp(), V5);
        let will = Some((properties.clone(), b"will".to_vec(), b"payload".to_vec()));
        client.send_bytes(&RawConnect { will, ..RawConnect::new(b"offender") }.encode(V5));
        eprintln!("will: {properties:02x?}");
        expect_refused(&mut client, Some(reason));
    }
    arena.check();
    arena.wait_until_left();
    arena.finish(16 * MIB);
}

/// [MQTT5-4.13.1-1]
#[test]
fn row_05_a_packet_with_a_wrong_property_ends_the_connection_with_the_reason() {
    let mut arena = Arena::new();
    let acks = [0x40_u8, 0x50, 0x62, 0x70];
    let mut cases: Vec<(&str, Vec<u8>, Reason)> = Vec::new();
    for (block_of, reason) in wrong_for(OF_PUBLISH) {
        cases.push(("PUBLISH", publish(V5, b"t", &block_of, b""), reason));
    }
    for (block_of, reason) in wrong_for(OF_SUBSCRIBE) {
        cases.push(("SUBSCRIBE", subscribe(V5, &block_of, &[(b"t", 0)]), reason));
    }
    for (block_of, reason) in wrong_for(OF_UNSUBSCRIBE) {
        cases.push(("UNSUBSCRIBE", unsubscribe(V5, &block_of, &[b"t"]), reason));
    }
    for (block_of, reason) in wrong_for(OF_ACK) {
        for first in acks {
            cases.push(("acknowledgement", packet(first, &[&[0, 1, 0], &block(V5, &block_of)]), reason));
        }
    }
    for (block_of, reason) in wrong_for(OF_DISCONNECT) {
        cases.push(("DISCONNECT", packet(DISCONNECT, &[&[0], &block(V5, &block_of)]), reason));
    }
    for (block_of, reason) in wrong_for(OF_AUTH) {
        cases.push(("AUTH", packet(AUTH, &[&[0x18], &block(V5, &block_of)]), reason));
    }
    for (name, bytes, reason) in cases {
        // One subscription identifier in a PUBLISH is well-formed, and forbidden to clients [MQTT5-3.3.4-6]: 0x82 as well.
        let mut client = arena.client(V5, "offender");
        client.send_bytes(&bytes);
        eprintln!("{name}: {bytes:02x?}");
        client.expect_disconnect(reason);
    }
    arena.check();
    arena.wait_until_left();
    arena.finish(16 * MIB);
}

/// [MQTT5-3.14.2.2.2]
#[test]
fn row_05_a_session_expiry_after_none_was_asked_for_is_a_protocol_error() {
    let mut arena = Arena::new();
    let mut client = arena.client(V5, "offender");
    client.send_bytes(&packet(DISCONNECT, &[&[0], &block(V5, &[17, 0, 0, 0, 9])]));
    client.expect_disconnect(Reason::PROTOCOL_ERROR);
    arena.check();
    arena.finish(16 * MIB);
}
