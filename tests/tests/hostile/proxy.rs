//! Row 21: who says where a client comes from, and who may.
//!
//! Anonymous clients are admitted from this machine only, so an address that is believed shows in the answer to CONNECT.

use crate::arena::{Arena, MIB, VERSIONS};
use crate::ws_client;
use bifro_core::client::Version;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::reason::Reason;
use bifro_tests::{Client, ConnectOptions};

/// A listener that believes this machine, and one that believes others.
const LISTENERS: &str = "[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\nauth = [\"anonymous\"]\n\
                         proxy_protocol = true\nproxy_trusted = [\"127.0.0.0/8\"]\n\
                         [[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\nauth = [\"anonymous\"]\n\
                         proxy_protocol = true\nproxy_trusted = [\"10.0.0.0/8\"]\n\
                         [[listener]]\nprotocol = \"ws\"\nbind = \"127.0.0.1:0\"\nauth = [\"anonymous\"]\n\
                         [[listener]]\nprotocol = \"ws\"\nbind = \"127.0.0.1:0\"\nauth = [\"anonymous\"]\n\
                         trust_forwarded_for = [\"127.0.0.0/8\"]\n";

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What became of a connection.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Admitted,
    NotAuthorized,
    Closed,
}

fn fate(client: &mut Client) -> Fate {
    client.send_bytes(&ConnectOptions::new(client.version, "somebody").encode());
    let Some(received) = client.try_recv() else { return Fate::Closed };
    let Packet::ConnAck(ack) = received.packet() else { panic!("not a CONNACK: {received:?}") };
    match ack.reason.0 {
        0 => Fate::Admitted,
        5 => Fate::NotAuthorized,
        code if code == Reason::NOT_AUTHORIZED.0 => Fate::NotAuthorized,
        code => panic!("CONNACK with {code:#x}"),
    }
}

/// A header of version 2 with command, family and what follows.
fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("a length of two bytes");
    [SIGNATURE, &[command, family], &length.to_be_bytes(), rest].concat()
}

/// Addresses of version 2: from `source`, port 4000, to 127.0.0.1, port 1883.
fn from(source: [u8; 4]) -> Vec<u8> {
    [&source[..], &[127, 0, 0, 1], &4000_u16.to_be_bytes(), &1883_u16.to_be_bytes()].concat()
}

const LOCAL: [u8; 4] = [127, 0, 0, 9];
const FAR: [u8; 4] = [203, 0, 113, 9];

#[test]
fn row_21_a_proxy_header_is_believed_refused_or_passed_over_as_it_says() {
    let mut arena = Arena::with(LISTENERS);
    let tlv = |kind: u8, value: &[u8]| {
        [&[kind][..], &u16::try_from(value.len()).expect("short").to_be_bytes(), value].concat()
    };
    let long_tlv = tlv(0x04, &[0; 3000]);
    let cases: Vec<(&str, Vec<u8>, Fate)> = vec![
        ("v1 from here", b"PROXY TCP4 127.0.0.9 127.0.0.1 4000 1883\r\n".to_vec(), Fate::Admitted),
        ("v1 from afar", b"PROXY TCP4 203.0.113.9 127.0.0.1 4000 1883\r\n".to_vec(), Fate::NotAuthorized),
        ("v1 from afar, six", b"PROXY TCP6 2001:db8::1 ::1 4000 1883\r\n".to_vec(), Fate::NotAuthorized),
        ("v1 mapped", b"PROXY TCP6 ::ffff:203.0.113.9 ::1 4000 1883\r\n".to_vec(), Fate::NotAuthorized),
        ("v1 unknown", b"PROXY UNKNOWN whatever 1 2 3\r\n".to_vec(), Fate::Admitted),
        ("v1 of 108 bytes", [&b"PROXY UNKNOWN "[..], &[b'x'; 92], b"\r\n"].concat(), Fate::Closed),
        ("v1 without an end", [&b"PROXY TCP4 127.0.0.9 "[..], &[b'1'; 4000]].concat(), Fate::Closed),
        ("v1 without CR", b"PROXY TCP4 127.0.0.9 127.0.0.1 4000 1883\n".to_vec(), Fate::Closed),
        ("v1 of another family", b"PROXY UDP4 127.0.0.9 127.0.0.1 4000 1883\r\n".to_vec(), Fate::Closed),
        ("v1 with a port too large", b"PROXY TCP4 127.0.0.9 127.0.0.1 70000 1883\r\n".to_vec(), Fate::Closed),
        ("v1 with a mixed family", b"PROXY TCP4 ::1 127.0.0.1 4000 1883\r\n".to_vec(), Fate::Closed),
        ("v1 in small letters", b"proxy TCP4 127.0.0.9 127.0.0.1 4000 1883\r\n".to_vec(), Fate::Closed),
        ("v2 from here", version_2(0x21, 0x11, &from(LOCAL)), Fate::Admitted),
        ("v2 from afar", version_2(0x21, 0x11, &from(FAR)), Fate::NotAuthorized),
        ("v2 LOCAL", version_2(0x20, 0x00, &[]), Fate::Admitted),
        ("v2 LOCAL with an address", version_2(0x20, 0x11, &from(FAR)), Fate::Admitted),
        ("v2 with a field", version_2(0x21, 0x11, &[from(FAR), tlv(0x01, b"h2")].concat()), Fate::NotAuthorized),
        ("v2 with long fields", version_2(0x21, 0x11, &[from(LOCAL), long_tlv.clone()].concat()), Fate::Admitted),
        ("v2 too long", version_2(0x21, 0x11, &[from(LOCAL), long_tlv.repeat(2)].concat()), Fate::Closed),
        ("v2 with half a field", version_2(0x21, 0x11, &[from(LOCAL), vec![1, 0xFF, 0xFF]].concat()), Fate::Closed),
        ("v2 with a wrong checksum", version_2(0x21, 0x11, &[from(LOCAL), tlv(3, &[0; 4])].concat()), Fate::Closed),
        ("v2 too short for its family", version_2(0x21, 0x21, &from(LOCAL)), Fate::Closed),
        ("v2 over UDP", version_2(0x21, 0x12, &from(LOCAL)), Fate::Closed),
        ("v3", version_2(0x31, 0x11, &from(LOCAL)), Fate::Closed),
        ("no header", Vec::new(), Fate::Closed),
        ("two headers", version_2(0x21, 0x11, &from(LOCAL)).repeat(2), Fate::Closed),
    ];
    for (name, header, expected) in cases {
        for version in VERSIONS {
            let mut client = Client::open(arena.broker.nth_address("tcp", 1), version);
            client.send_bytes(&header);
            assert_eq!(fate(&mut client), expected, "{name}");
        }
    }
    arena.check();
    arena.wait_until_left();
    arena.finish(16 * MIB);
}

#[test]
fn row_21_a_proxy_header_byte_by_byte_is_read_like_any_other() {
    let mut arena = Arena::with(LISTENERS);
    for header in [b"PROXY TCP4 203.0.113.9 127.0.0.1 4000 1883\r\n".to_vec(), version_2(0x21, 0x11, &from(FAR))] {
        let mut client = Client::open(arena.broker.nth_address("tcp", 1), Version::V5);
        for byte in header {
            client.send_bytes(&[byte]);
        }
        assert_eq!(fate(&mut client), Fate::NotAuthorized);
    }
    arena.check();
    arena.finish(16 * MIB);
}

#[test]
fn row_21_a_proxy_header_from_an_untrusted_address_is_not_believed() {
    let mut arena = Arena::with(LISTENERS);
    for version in VERSIONS {
        for header in
            [b"PROXY TCP4 127.0.0.9 127.0.0.1 4000 1883\r\n".to_vec(), version_2(0x21, 0x11, &from(LOCAL)), vec![]]
        {
            let mut client = Client::open(arena.broker.nth_address("tcp", 2), version);
            client.send_bytes(&header);
            assert_eq!(fate(&mut client), Fate::Closed);
            // A listener that expects none takes it for what it is: no MQTT.
            if !header.is_empty() {
                let mut client = Client::open(arena.tcp(), version);
                client.send_bytes(&header);
                assert_eq!(fate(&mut client), Fate::Closed);
            }
        }
    }
    arena.check();
    arena.finish(16 * MIB);
}

#[test]
fn row_21_a_forged_forwarded_for_neither_lets_in_nor_shuts_out() {
    let mut arena = Arena::with(LISTENERS);
    let from = |listener: usize, headers: &str| {
        let stream = ws_client::connect_with(arena.broker.nth_address("ws", listener), headers);
        fate(&mut Client::over(Box::new(stream), Version::V5))
    };
    // Nobody is trusted on the first listener.
    assert_eq!(from(0, "X-Forwarded-For: 203.0.113.9\r\n"), Fate::Admitted);
    // On the second it is the last address that no trusted proxy has, whatever the client put before it.
    assert_eq!(from(1, ""), Fate::Admitted);
    assert_eq!(from(1, "X-Forwarded-For: 203.0.113.9\r\n"), Fate::NotAuthorized);
    assert_eq!(from(1, "X-Forwarded-For: 127.0.0.1, 203.0.113.9\r\n"), Fate::NotAuthorized);
    assert_eq!(
        from(1, "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-For: 203.0.113.9:5000, 127.0.0.2\r\n"),
        Fate::NotAuthorized
    );
    assert_eq!(from(1, "X-Forwarded-For: 127.0.0.5\r\n"), Fate::Admitted);
    assert_eq!(from(1, "X-Forwarded-For: no address\r\n"), Fate::Admitted);
    assert_eq!(from(1, &format!("X-Forwarded-For: {}203.0.113.9\r\n", "127.0.0.1, ".repeat(500))), Fate::NotAuthorized);
    arena.check();
    arena.finish(16 * MIB);
}
