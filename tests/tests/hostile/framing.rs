//! Rows 1, 2, 3 and 16: lengths that lie, and errors in the middle of what was half understood.

use crate::arena::{Arena, MIB, VERSIONS};
use crate::raw::{PINGREQ, PUBLISH, RawConnect, field, packet, publish, subscribe, user_property};
use crate::ws_client;
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::reason::Reason;
use bifro_tests::{Broker, Client, ConnectOptions};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

/// A way to reach the broker: nothing is sent yet on MQTT's level.
type Open = fn(&Broker, Version) -> Client;

const WS: &str = "[[listener]]\nprotocol = \"ws\"\nbind = \"127.0.0.1:0\"\n";

fn over_tcp(broker: &Broker, version: Version) -> Client {
    Client::open(broker.tcp(), version)
}

fn over_websocket(broker: &Broker, version: Version) -> Client {
    Client::over(Box::new(ws_client::connect(broker.address("ws"))), version)
}

fn connected(open: Open, broker: &Broker, version: Version) -> Client {
    let mut client = open(broker, version);
    client.send_bytes(&ConnectOptions::new(version, "offender").encode());
    client.recv();
    client
}

/// [MQTT-4.8.0-1] [MQTT5-4.13.1-1] [MQTT5-1.5.5-1]
#[test]
fn row_01_a_remaining_length_of_five_bytes_or_not_in_its_shortest_form_closes_the_connection() {
    let mut arena = Arena::with(WS);
    let mut offences = 0.0;
    for bytes in [&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01][..], &[0x30, 0x80, 0x80, 0x80, 0x80], &[0xC0, 0x80, 0x00]] {
        for version in VERSIONS {
            for open in [over_tcp as Open, over_websocket] {
                let mut client = connected(open, &arena.broker, version);
                client.send_bytes(bytes);
                client.expect_disconnect(Reason::MALFORMED_PACKET);
                offences += 1.0;
            }
        }
        let mut client = over_tcp(&arena.broker, Version::V5);
        client.send_bytes(&[&[0x10][..], &bytes[1..]].concat());
        client.expect_closed();
    }
    arena.broker.wait_for_metric("bifro_protocol_violations_total", |seen| seen >= offences);
    arena.check();
    arena.finish(16 * MIB);
}

/// [MQTT5-1.5.5-1]
#[test]
fn row_01_a_property_length_or_identifier_of_five_bytes_or_not_in_its_shortest_form_is_malformed() {
    let mut arena = Arena::new();
    for length in [&[0x80, 0x80, 0x80, 0x80, 0x01][..], &[0x80, 0x00], &[0xFF, 0xFF, 0xFF, 0xFF], &[0x80]] {
        let mut client = arena.client(Version::V5, "offender");
        client.send_bytes(&packet(PUBLISH, &[&field(b"t"), length]));
        client.expect_disconnect(Reason::MALFORMED_PACKET);
    }
    for id in [&[11, 0x80, 0x80, 0x80, 0x80, 0x01][..], &[11, 0x81, 0x00]] {
        let mut client = arena.client(Version::V5, "offender");
        client.send_bytes(&subscribe(Version::V5, id, &[(b"t", 0)]));
        client.expect_disconnect(Reason::MALFORMED_PACKET);
    }
    arena.check();
    arena.finish(16 * MIB);
}

#[test]
fn row_01_a_length_that_ends_with_the_connection_leaves_nothing_behind() {
    let mut arena = Arena::new();
    for version in VERSIONS {
        for cut in [&[0x30][..], &[0x30, 0x80], &[0x30, 0xFF, 0xFF, 0xFF]] {
            let stream = TcpStream::connect(arena.tcp()).expect("the broker listens");
            let mut client = Client::over(Box::new(stream.try_clone().expect("a descriptor")), version);
            client.send_bytes(&ConnectOptions::new(version, "offender").encode());
            client.recv();
            client.send_bytes(cut);
            stream.shutdown(Shutdown::Write).expect("connected");
            client.expect_closed();
        }
    }
    arena.wait_until_left();
    arena.check();
    arena.finish(16 * MIB);
}

#[test]
fn row_02_a_remaining_length_larger_than_the_bytes_that_follow_delivers_nothing() {
    let mut arena = Arena::with(WS);
    let mut witness = arena.client(Version::V5, "witness");
    assert_eq!(witness.subscribe("row02/#", QoS::AtMostOnce), 0);
    for version in VERSIONS {
        for open in [over_tcp as Open, over_websocket] {
            let mut client = connected(open, &arena.broker, version);
            let mut bytes = publish(version, b"row02/cut", &[], b"only the beginning");
            bytes[1] = 120;
            client.send_bytes(&bytes);
            // It could go on, so the broker waits: pings are payload now.
            client.send_bytes(&PINGREQ);
            drop(client);
        }
    }
    arena.check();
    arena.broker.wait_for_metric("bifro_connections", |open| open <= 3.0);
    witness.expect_silence();
    arena.finish(16 * MIB);
}

#[test]
fn row_02_a_remaining_length_smaller_than_the_fields_is_malformed_also_inside_a_websocket_frame() {
    let mut arena = Arena::with(WS);
    let mut witness = arena.client(Version::V5, "witness");
    assert_eq!(witness.subscribe("row02/#", QoS::AtMostOnce), 0);
    for version in VERSIONS {
        for open in [over_tcp as Open, over_websocket] {
            // The topic's length runs past the end of the packet.
            let mut short = publish(version, b"row02/long/topic", &[], b"");
            short[1] = 6;
            // The packet ends early, and what is left over begins with packet type 0.
            let trailing = [&packet(0xC0, &[])[..], &[0x00, 0x00]].concat();
            // A PINGREQ must be empty.
            let padded = packet(0xC0, &[b"pad"]);
            for bytes in [short, trailing, padded] {
                let mut client = connected(open, &arena.broker, version);
                client.send_bytes(&bytes);
                client.expect_disconnect(Reason::MALFORMED_PACKET);
            }
        }
    }
    witness.expect_silence();
    arena.check();
    arena.finish(16 * MIB);
}

#[test]
fn row_02_a_connect_whose_fields_run_past_its_end_is_closed_without_an_answer() {
    let mut arena = Arena::with(WS);
    for version in VERSIONS {
        for open in [over_tcp as Open, over_websocket] {
            let whole = ConnectOptions::new(version, "offender").encode();
            let mut cut = whole[..whole.len() - 3].to_vec();
            cut[1] -= 3;
            let mut long = [&whole[..], b"more"].concat();
            long[1] += 4;
            for bytes in [cut, long] {
                let mut client = open(&arena.broker, version);
                client.send_bytes(&bytes);
                client.expect_closed();
            }
        }
    }
    arena.check();
    arena.finish(16 * MIB);
}

#[test]
fn row_03_a_huge_remaining_length_before_connect_is_refused_as_soon_as_it_is_read() {
    let mut arena = Arena::new();
    for _ in 0..300 {
        let mut client = Client::open(arena.tcp(), Version::V5);
        client.send_bytes(&[0x10, 0xFF, 0xFF, 0xFF, 0x7F]);
        client.expect_closed();
    }
    arena.check();
    arena.wait_until_left();
    arena.finish(8 * MIB);
}

#[test]
fn row_03_lengths_announced_before_connect_allocate_nothing() {
    let mut arena = Arena::new();
    let seen = arena.broker.metric("bifro_connections_accepted_total");
    // Each could go on to be a CONNECT of 64,000 bytes, 25 MB in all.
    let head = [&[0x10][..], &crate::raw::varint(64_000), &field(b"MQTT"), &[5, 2, 0, 60]].concat();
    let waiting: Vec<TcpStream> = (0..400)
        .map(|_| {
            let mut stream = TcpStream::connect(arena.tcp()).expect("the broker listens");
            stream.write_all(&head).expect("the broker reads");
            stream
        })
        .collect();
    arena.broker.wait_for_metric("bifro_connections_accepted_total", |accepted| accepted >= seen + 400.0);
    arena.check();
    let growth = arena.growth();
    assert!(growth < 10 * MIB, "400 announced packets take {growth} bytes");
    drop(waiting);
    arena.wait_until_left();
    arena.finish(10 * MIB);
}

#[test]
fn row_03_not_a_byte_beyond_the_limit_before_authentication_is_kept() {
    let mut arena = Arena::with("pre_auth_packet_bytes_max = 256\n");
    for version in VERSIONS {
        let mut options = ConnectOptions::new(version, &"x".repeat(300));
        let mut client = Client::open(arena.tcp(), version);
        client.send_bytes(&options.encode());
        client.expect_closed();
        options.client_id = "short".into();
        let (mut client, _) = Client::connect_with(arena.tcp(), &options);
        // Once connected the larger limit holds.
        client.publish("t", &[0; 1000], QoS::AtMostOnce, false);
        client.expect_silence();
    }
    arena.check();
    arena.finish(8 * MIB);
}

#[test]
fn row_16_errors_after_half_parsed_properties_leave_nothing_behind() {
    let mut arena = Arena::new();
    let many: Vec<u8> = (0..400).flat_map(|_| user_property(&[b'n'; 60], &[b'v'; 60])).collect();
    // Each breaks off differently: no value, an unknown identifier, a length past the end, a string that is none.
    for tail in [&[38_u8][..], &[0x7F, 0], &[31, 0xFF, 0xFF], &[38, 0, 1, 0xFF, 0, 0]] {
        let broken = [&many[..], tail].concat();
        for _ in 0..40 {
            let mut fresh = Client::open(arena.tcp(), Version::V5);
            let connect = RawConnect { properties: broken.clone(), ..RawConnect::new(b"offender") };
            fresh.send_bytes(&connect.encode(Version::V5));
            // Refused, with a CONNACK where the version could be told.
            while fresh.try_recv().is_some() {}
            let will = Some((broken.clone(), b"row16".to_vec(), b"will".to_vec()));
            let mut fresh = Client::open(arena.tcp(), Version::V5);
            fresh.send_bytes(&RawConnect { will, ..RawConnect::new(b"offender") }.encode(Version::V5));
            while fresh.try_recv().is_some() {}
            let mut client = arena.client(Version::V5, "offender");
            client.send_bytes(&publish(Version::V5, b"row16", &broken, b""));
            client.expect_disconnect(Reason::MALFORMED_PACKET);
        }
        arena.check();
    }
    arena.wait_until_left();
    arena.finish(24 * MIB);
}

/// Random bytes, from one seed: whatever they are taken for, the node answers by closing.
#[test]
fn row_02_noise_is_answered_by_closing() {
    let mut arena = Arena::with(WS);
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    for round in 0..60 {
        for protocol in ["tcp", "ws"] {
            let bytes: Vec<u8> = (0..512).map(|_| noise()).collect();
            let mut stream = TcpStream::connect(arena.broker.address(protocol)).expect("the broker listens");
            stream.set_read_timeout(Some(bifro_tests::PATIENCE)).expect("a timeout");
            // An error means that it is closed already.
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(Shutdown::Write);
            let ended = stream.read_to_end(&mut Vec::new());
            assert!(!matches!(&ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock), "round {round}");
        }
    }
    arena.check();
    arena.finish(16 * MIB);
}
