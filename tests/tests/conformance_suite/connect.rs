//! Chapter 3.1: CONNECT.

use crate::suite::{
    ALL, AT_MOST_ONCE, STANDARD, anybody, broker, connack_properties, expect_refused, frame, join, name, no_properties,
    of_tenant, publish_packet, text, token_listener,
};
use bifro_core::client::Version;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::reason::Reason;
use bifro_tests::{Client, ConnectOptions};

const USER_NAME: u8 = 0x80;
const PASSWORD: u8 = 0x40;
const WILL_RETAIN: u8 = 0x20;
const WILL_QOS_1: u8 = 0x08;
const WILL_QOS_3: u8 = 0x18;
const WILL: u8 = 0x04;
const CLEAN: u8 = 0x02;
const RESERVED: u8 = 0x01;

/// A CONNECT with these flags and what follows the keep-alive (and properties), right or wrong.
fn raw_connect(version: Version, flags: u8, payload: &[&[u8]]) -> Vec<u8> {
    let protocol = if version == Version::V31 { "MQIsdp" } else { "MQTT" };
    let mut body = vec![text(protocol), vec![version as u8, flags, 0, 60], no_properties(version).to_vec()];
    body.extend(payload.iter().map(|part| part.to_vec()));
    frame(0x10, &[&body.concat()])
}

fn expect_closed_in_silence(version: Version, bytes: &[u8], what: &str) {
    let mut client = Client::open(broker().tcp(), version);
    client.send_bytes(bytes);
    assert!(client.try_recv().is_none(), "{version:?}: {what}");
}

/// [MQTT-3.1.0-1] [MQTT5-3.1.0-1]
#[test]
fn a_connection_whose_first_packet_is_not_connect_is_closed() {
    for version in ALL {
        expect_closed_in_silence(version, &[0xC0, 0], "PINGREQ first");
        expect_closed_in_silence(version, &publish_packet("a", b"x", AT_MOST_ONCE, 0, false), "PUBLISH first");
        expect_closed_in_silence(version, &[0xE0, 0], "DISCONNECT first");
    }
}

/// [MQTT-3.1.0-2] [MQTT5-3.1.0-2]
#[test]
fn a_second_connect_ends_the_connection() {
    for version in ALL {
        let id = name("c");
        let mut client = join(version, &id);
        client.send_bytes(&ConnectOptions::new(version, &id).encode());
        client.expect_disconnect(Reason::PROTOCOL_ERROR);
    }
}

/// [MQTT-3.1.2-1] [MQTT5-3.1.2-1]: the server may say so first, and then closes.
#[test]
fn a_wrong_protocol_name_is_not_processed() {
    for (protocol, level) in [("MQTX", 4), ("mqtt", 4), ("MQTT5", 5), ("", 4), ("MQIsdp", 4)] {
        let mut client = Client::open(broker().tcp(), Version::V311);
        client.send_bytes(&frame(0x10, &[&text(protocol), &[level, CLEAN, 0, 60], &text("c")]));
        if let Some(received) = client.try_recv() {
            assert_eq!(received.bytes(), [0x20, 2, 0, 1], "unacceptable protocol version");
            client.expect_closed();
        }
    }
}

/// [MQTT-3.1.2-2] [MQTT-3.2.2-5]
#[test]
fn an_unsupported_level_gets_return_code_1_and_the_end_of_the_connection() {
    for level in [0, 1, 2, 3] {
        let mut client = Client::open(broker().tcp(), Version::V311);
        client.send_bytes(&frame(0x10, &[&text("MQTT"), &[level, CLEAN, 0, 60], &text("c")]));
        assert_eq!(client.recv().bytes(), [0x20, 2, 0, 1]);
        client.expect_closed();
    }
}

/// [MQTT5-3.1.2-2] [MQTT5-3.2.2-7] [MQTT5-4.13.2-1]
#[test]
fn a_level_from_the_future_gets_0x84_and_the_end_of_the_connection() {
    let mut client = Client::open(broker().tcp(), Version::V5);
    client.send_bytes(&frame(0x10, &[&text("MQTT"), &[6, CLEAN, 0, 60, 0], &text("c")]));
    let received = client.recv();
    let Packet::ConnAck(connack) = received.packet() else { panic!("not a CONNACK: {received:?}") };
    assert_eq!((connack.reason, connack.session_present), (Reason::UNSUPPORTED_PROTOCOL_VERSION, false));
    client.expect_closed();
}

/// [MQTT-3.1.2-3] [MQTT5-3.1.2-3] [MQTT-3.1.4-1] [MQTT5-3.1.4-1] [MQTT-3.2.2-6]
#[test]
fn a_reserved_connect_flag_closes_the_connection_without_connack() {
    for version in ALL {
        let connect = raw_connect(version, CLEAN | RESERVED, &[&text("c")]);
        expect_closed_in_silence(version, &connect, "reserved flag");
    }
}

/// [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-14] [MQTT-3.1.2-15] [MQTT5-3.1.2-11] [MQTT5-3.1.2-12] [MQTT5-3.1.2-13]
/// [MQTT-3.1.4-1] [MQTT5-3.1.4-1] [MQTT-3.2.2-6]
#[test]
fn will_flags_that_contradict_each_other_close_the_connection() {
    for version in ALL {
        let (id, topic) = (text(name("c")), text("will"));
        let will: [&[u8]; 4] = [&id, no_properties(version), &topic, &topic];
        for (flags, payload) in [
            (CLEAN | WILL_QOS_1, &[&id[..]][..]),
            (CLEAN | WILL_RETAIN, &[&id[..]][..]),
            (CLEAN | WILL | WILL_QOS_3, &will[..]),
        ] {
            expect_closed_in_silence(version, &raw_connect(version, flags, payload), &format!("flags {flags:02x}"));
        }
    }
}

/// [MQTT-3.1.2-22]: 3.x has no password without a user name, 5.0 has.
#[test]
fn a_password_without_user_name_closes_the_connection_before_5_0() {
    let payload = [text("c"), text("secret")].concat();
    for version in [Version::V31, Version::V311] {
        let connect = raw_connect(version, CLEAN | PASSWORD, &[&payload]);
        expect_closed_in_silence(version, &connect, "password alone");
    }
    let mut client = Client::open(broker().tcp(), Version::V5);
    client.send_bytes(&raw_connect(Version::V5, CLEAN | PASSWORD, &[&payload]));
    assert!(matches!(client.recv().packet(), Packet::ConnAck(_)), "judged by authentication, not by syntax");
}

/// [MQTT-3.1.2-9] [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.2-20] [MQTT-3.1.2-21] [MQTT-3.1.3-1] [MQTT-3.1.3-3]
/// [MQTT5-3.1.2-9] [MQTT5-3.1.2-16] [MQTT5-3.1.2-17] [MQTT5-3.1.2-18] [MQTT5-3.1.2-19] [MQTT5-3.1.3-1] [MQTT5-3.1.3-3]
/// [MQTT-3.1.4-1] [MQTT5-3.1.4-1] [MQTT-4.8.0-1] [MQTT5-4.13.1-1]
#[test]
fn a_payload_that_is_not_what_the_flags_announce_closes_the_connection() {
    for version in STANDARD {
        let id = text(name("c"));
        let cases: [(u8, &[&[u8]], &str); 6] = [
            (CLEAN, &[], "no client id"),
            (CLEAN | WILL, &[&id], "no will"),
            (CLEAN | USER_NAME, &[&id], "no user name"),
            (CLEAN | USER_NAME | PASSWORD, &[&id, &text("user")], "no password"),
            (CLEAN, &[&id, &text("user")], "a user name that nobody announced"),
            (CLEAN | USER_NAME, &[&id, &text("user"), &text("secret")], "a password that nobody announced"),
        ];
        for (flags, payload, what) in cases {
            expect_closed_in_silence(version, &raw_connect(version, flags, payload), what);
        }
    }
}

/// [MQTT-3.1.3-4] [MQTT-3.1.3-10] [MQTT-3.1.3-11] [MQTT5-3.1.3-4] [MQTT5-3.1.3-11] [MQTT5-3.1.3-12] [MQTT-1.5.3-1]
/// [MQTT-1.5.3-2] [MQTT5-1.5.4-1] [MQTT5-1.5.4-2]
#[test]
fn strings_that_are_not_utf_8_close_the_connection() {
    let (surrogate, nul) = ([0xED, 0xA0, 0x80], *b"a\0b");
    for version in ALL {
        let properties = no_properties(version);
        for bad in [&surrogate[..], &nul[..], &[0xFF], &[0xC0, 0x80]] {
            let (id, bad, good) = (text("c"), text(bad), text("good"));
            let cases: [(u8, &[&[u8]], &str); 3] = [
                (CLEAN, &[&bad], "client id"),
                (CLEAN | WILL, &[&id, properties, &bad, &good], "will topic"),
                (CLEAN | USER_NAME, &[&id, &bad], "user name"),
            ];
            for (flags, payload, what) in cases {
                expect_closed_in_silence(version, &raw_connect(version, flags, payload), what);
            }
        }
    }
}

/// [MQTT-3.1.3-5] [MQTT5-3.1.3-5] [MQTT-3.1.4-4] [MQTT5-3.1.4-5]
#[test]
fn client_ids_of_1_to_23_letters_and_digits_are_accepted() {
    for version in ALL {
        let digit = version as u8;
        for id in [format!("{digit}"), format!("{digit}bcdefghijklmnopqrstuvw"), format!("{digit}ZYX9876543210")] {
            join(version, &id).expect_silence();
        }
    }
}

/// [MQTT-3.1.3-6] [MQTT5-3.1.3-6] [MQTT5-3.1.3-7] [MQTT5-3.2.2-16] [MQTT5-3.1.3-2]
#[test]
fn clients_without_an_id_get_one_each_that_works_like_any_other() {
    let mut older = [anybody_without_id(Version::V311).0, anybody_without_id(Version::V311).0];
    older.iter_mut().for_each(Client::expect_silence);
    let (mut first, assigned) = anybody_without_id(Version::V5);
    let (mut second, other) = anybody_without_id(Version::V5);
    assert!(!assigned.is_empty() && assigned != other, "{assigned} and {other}");
    first.expect_silence();
    second.expect_silence();
    let (_third, received) = Client::connect_with(broker().tcp(), &ConnectOptions::new(Version::V5, &assigned));
    assert_eq!(connack_properties(&received).assigned_client_id(), None, "the client has named itself");
    first.expect_disconnect(Reason::SESSION_TAKEN_OVER);
    second.expect_silence();
}

fn anybody_without_id(version: Version) -> (Client, String) {
    let (client, received) = Client::connect_with(broker().tcp(), &ConnectOptions::new(version, ""));
    let assigned = connack_properties(&received).assigned_client_id().unwrap_or_default().to_owned();
    (client, assigned)
}

/// [MQTT-3.1.3-7] [MQTT-3.1.3-8] [MQTT-3.1.3-9] [MQTT-3.2.2-4] [MQTT-3.2.2-5]
#[test]
fn an_empty_client_id_with_clean_session_0_gets_return_code_2() {
    let mut options = ConnectOptions::new(Version::V311, "");
    options.clean = false;
    let refusal = expect_refused(broker().tcp(), &options, Reason::CLIENT_IDENTIFIER_NOT_VALID);
    assert_eq!(refusal.bytes(), [0x20, 2, 0, 2]);
}

/// [MQTT-3.1.3-9] [MQTT5-3.1.3-8] [MQTT5-3.2.2-6] [MQTT5-3.2.2-7]
#[test]
fn a_client_id_above_the_limit_is_refused_and_the_connection_closed() {
    for version in ALL {
        let mut options = of_tenant("small", version);
        options.client_id = "x".repeat(31);
        expect_refused(token_listener(), &options, Reason::CLIENT_IDENTIFIER_NOT_VALID);
        options.client_id = format!("{:030}", version as u8);
        Client::connect_with(token_listener(), &options).0.expect_silence();
    }
}

/// [MQTT-3.1.4-2] [MQTT5-3.1.4-3]: whatever versions the two speak.
#[test]
fn the_old_connection_of_a_client_id_is_closed() {
    for old in ALL {
        for new in ALL {
            let id = name("twin");
            let mut first = join(old, &id);
            let mut second = join(new, &id);
            first.expect_disconnect(Reason::SESSION_TAKEN_OVER);
            second.expect_silence();
        }
    }
}

/// [MQTT-3.1.4-5] [MQTT5-3.1.4-6] [MQTT5-3.14.0-1]
#[test]
fn nothing_behind_a_refused_connect_is_processed() {
    let mut witness = anybody(Version::V5);
    let topic = name("refused/");
    witness.subscribe(&topic, AT_MOST_ONCE);
    let mut older = ConnectOptions::new(Version::V311, "");
    older.clean = false;
    let mut newer = ConnectOptions::new(Version::V5, &name("c"));
    newer.will = Some(("no/#".into(), b"x".to_vec(), AT_MOST_ONCE, false, Vec::new()));
    for options in [older, newer] {
        let mut client = Client::open(broker().tcp(), options.version);
        let mut publish = publish_packet(&topic, b"", AT_MOST_ONCE, 0, false);
        if options.version == Version::V5 {
            publish = frame(0x30, &[&text(&topic), &[0], b"never"]);
        }
        client.send_bytes(&[options.encode(), publish].concat());
        assert!(matches!(client.recv().packet(), Packet::ConnAck(ack) if ack.reason != Reason::SUCCESS));
        client.expect_closed();
    }
    witness.expect_silence();
}

/// [MQTT-3.1.4-4] [MQTT5-3.1.4-5] [MQTT-3.2.0-1] [MQTT5-3.2.0-1] [MQTT5-3.2.0-2] [MQTT-3.1.4-5]
#[test]
fn what_a_client_sends_ahead_of_connack_is_answered_behind_it() {
    for version in ALL {
        let mut client = Client::open(broker().tcp(), version);
        let connect = ConnectOptions::new(version, &name("c")).encode();
        let subscribe = frame(0x82, &[&[0, 9], no_properties(version), &text(name("ahead")), &[0]]);
        client.send_bytes(&[connect, subscribe, vec![0xC0, 0]].concat());
        assert!(matches!(client.recv().packet(), Packet::ConnAck(ack) if ack.reason == Reason::SUCCESS));
        // Nothing orders these two: the subscription may have to wait for another shard.
        let answers = [client.recv(), client.recv()];
        let suback = |packet: &Packet<'_>| matches!(packet, Packet::SubAck(ack) if ack.packet_id.get() == 9);
        assert!(answers.iter().any(|answer| suback(&answer.packet())), "{answers:?}");
        assert!(answers.iter().any(|answer| matches!(answer.packet(), Packet::PingResp)), "{answers:?}");
        client.expect_silence();
    }
}

/// [MQTT5-3.1.4-2] [MQTT5-3.2.2-7] [MQTT-3.2.2-5]
#[test]
fn a_client_that_fails_authentication_is_refused_and_the_connection_closed() {
    for version in ALL {
        let mut options = of_tenant("one", version);
        options.credentials = Some(("tester".into(), format!("{}x", crate::suite::token("one", 60, ""))));
        expect_refused(token_listener(), &options, Reason::BAD_USER_NAME_OR_PASSWORD);
    }
}
