//! Row 28: frames and handshakes that WebSocket forbids, and those it allows but nobody sends.

use crate::arena::{Arena, MIB, VERSIONS};
use crate::ws_client::{self, BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, UPGRADE, frame};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::Packet;
use bifro_tests::{Client, ConnectOptions, http};

const WS: &str = "[[listener]]\nprotocol = \"ws\"\nbind = \"127.0.0.1:0\"\n";

/// [MQTT-6.0.0-1] [MQTT5-6.0.0-1]
#[test]
fn row_28_a_frame_that_must_not_be_is_answered_with_the_code_for_it_and_closed() {
    let mut arena = Arena::with(WS);
    let unmasked = vec![FIN | BINARY, 2, 0xC0, 0x00];
    let header = |first: u8, length: &[u8]| [&[first][..], length, &[0; 4]].concat();
    let huge = |length: u64| [&[0x80 | 127][..], &length.to_be_bytes()].concat();
    let cases: [(&str, Vec<u8>, u16); 20] = [
        ("text", frame(FIN | TEXT, b"hello"), 1003),
        ("unmasked", unmasked, 1002),
        ("first reserved bit", frame(FIN | 0x40 | BINARY, b""), 1002),
        ("second reserved bit", frame(FIN | 0x20 | BINARY, b""), 1002),
        ("third reserved bit", frame(FIN | 0x10 | BINARY, b""), 1002),
        ("reserved data opcode", frame(FIN | 3, b""), 1002),
        ("reserved control opcode", frame(FIN | 11, b""), 1002),
        ("16-bit length for a short frame", header(FIN | BINARY, &[0x80 | 126, 0, 5]), 1002),
        ("64-bit length for a short frame", header(FIN | BINARY, &huge(5)), 1002),
        ("length above 2^63", header(FIN | BINARY, &huge(1 << 63)), 1002),
        ("length of all ones", header(FIN | BINARY, &huge(u64::MAX)), 1002),
        ("a gibibyte", header(FIN | BINARY, &huge(1 << 30)), 1009),
        ("continuation of nothing", frame(FIN | CONTINUATION, b"x"), 1002),
        ("message within a message", [frame(BINARY, b""), frame(FIN | BINARY, b"")].concat(), 1002),
        ("fragmented ping", frame(PING, b"x"), 1002),
        ("ping of 126 bytes", frame(FIN | PING, &[0; 126]), 1002),
        ("close with half a code", frame(FIN | CLOSE, &[3]), 1002),
        ("close with a code that must not be sent", frame(FIN | CLOSE, &1005_u16.to_be_bytes()), 1002),
        ("close with a reason that is no text", frame(FIN | CLOSE, &[0x03, 0xE8, 0xFF]), 1007),
        ("close", frame(FIN | CLOSE, &1000_u16.to_be_bytes()), 1000),
    ];
    for (name, bytes, code) in cases {
        for connected in [false, true] {
            let mut client = ws_client::connect(arena.broker.address("ws"));
            if connected {
                let options = ConnectOptions::new(Version::V5, "offender");
                client.send_raw(&frame(FIN | BINARY, &options.encode()));
                let connack = client.recv_frame().expect("in time").expect("a CONNACK");
                assert_eq!(connack.0, FIN | BINARY, "{name}");
            }
            client.send_raw(&bytes);
            client.expect_close_code(code);
        }
    }
    arena.check();
    arena.wait_until_left();
    arena.finish(16 * MIB);
}

/// [MQTT-6.0.0-2] [MQTT5-6.0.0-2]
#[test]
fn row_28_packets_in_fragments_of_one_byte_with_pings_between_are_read_like_any_other() {
    let mut arena = Arena::with(WS);
    for version in VERSIONS {
        let mut client = ws_client::connect(arena.broker.address("ws"));
        let connect = ConnectOptions::new(version, "fragments").encode();
        let last = connect.len() - 1;
        for (at, byte) in connect.iter().enumerate() {
            let opcode = if at == 0 { BINARY } else { CONTINUATION };
            let fin = if at == last { FIN } else { 0 };
            client.send_raw(&frame(fin | opcode, &[*byte]));
            client.send_raw(&frame(FIN | PONG, b"nobody asked"));
            client.send_raw(&frame(opcode_for_empty(at, last), b""));
        }
        let mut client = Client::over(Box::new(client), version);
        let received = client.recv();
        assert!(matches!(received.packet(), Packet::ConnAck(ack) if !ack.reason.is_error()), "{received:?}");
        client.expect_silence();
    }
    arena.check();
    arena.finish(16 * MIB);
}

/// An empty frame that is legal after the fragment at `at`: a continuation within the message, a ping after it.
fn opcode_for_empty(at: usize, last: usize) -> u8 {
    if at == last { FIN | PING } else { CONTINUATION }
}

#[test]
fn row_28_a_frame_with_many_packets_and_a_packet_over_many_frames_are_both_read() {
    let mut arena = Arena::with(WS);
    let mut client = ws_client::connect(arena.broker.address("ws"));
    let options = ConnectOptions::new(Version::V311, "many");
    client.send_raw(&frame(FIN | BINARY, &[&options.encode()[..], &[0xC0, 0, 0xC0, 0, 0xC0]].concat()));
    client.send_raw(&frame(FIN | BINARY, &[]));
    client.send_raw(&frame(FIN | BINARY, &[0]));
    let mut client = Client::over(Box::new(client), Version::V311);
    assert!(matches!(client.recv().packet(), Packet::ConnAck(_)));
    for _ in 0..3 {
        assert!(matches!(client.recv().packet(), Packet::PingResp));
    }
    // A length of 64 bits where one is needed.
    assert_eq!(client.subscribe("row28", QoS::AtMostOnce), 0);
    client.publish("row28", &vec![7; 100_000], QoS::AtMostOnce, false);
    let received = client.recv_publish();
    assert!(matches!(received.packet(), Packet::Publish(publish) if publish.payload.len() == 100_000));
    arena.check();
    arena.finish(16 * MIB);
}

#[test]
fn row_28_a_flood_of_pings_does_not_make_the_node_grow() {
    let mut arena = Arena::with(WS);
    let mut client = ws_client::connect(arena.broker.address("ws"));
    let ping = frame(FIN | PING, &[b'p'; 125]);
    let flood = ping.repeat(500);
    for _ in 0..20 {
        client.send_raw(&flood);
    }
    client.send_raw(&frame(FIN | CLOSE, &1000_u16.to_be_bytes()));
    client.expect_close_code(1000);
    arena.check();
    arena.finish(16 * MIB);
}

#[test]
fn row_28_a_request_that_is_no_upgrade_to_mqtt_gets_the_status_for_it() {
    let mut arena = Arena::with(WS);
    let address = arena.broker.address("ws");
    let mqtt = "Sec-WebSocket-Protocol: mqtt\r\n";
    let get = |path: &str, headers: &str| format!("GET {path} HTTP/1.1\r\n{headers}\r\n");
    let upgrade = |from: &str, to: &str| UPGRADE.replace(from, to) + mqtt;
    let cases = [
        ("no subprotocol", get("/mqtt", UPGRADE), 400),
        ("another subprotocol", get("/mqtt", &format!("{UPGRADE}Sec-WebSocket-Protocol: chat, wamp\r\n")), 400),
        ("another path", get("/", &format!("{UPGRADE}{mqtt}")), 404),
        ("another method", format!("POST /mqtt HTTP/1.1\r\n{UPGRADE}{mqtt}\r\n"), 405),
        ("plain GET", get("/mqtt", "Host: localhost\r\n"), 426),
        ("an old version", get("/mqtt", &upgrade("Version: 13", "Version: 8")), 426),
        ("no key", get("/mqtt", &upgrade("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "")), 400),
        ("HTTP/1.0", format!("GET /mqtt HTTP/1.0\r\n{UPGRADE}{mqtt}\r\n"), 400),
        ("a head without end", get("/mqtt", &format!("X: {}\r\n", "x".repeat(20_000))), 431),
        ("no HTTP", "\u{10}\u{c}mqtt, surely\r\n\r\n".to_owned(), 400),
    ];
    for (name, request, status) in cases {
        let answer = http::send(address, request.as_bytes());
        assert_eq!(answer.status, status, "{name}: {answer:?}");
    }
    // The older names of the protocol are known [MQTT-6.0.0-3], whatever stands before them.
    let offer =
        get("/mqtt", &format!("{UPGRADE}Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: wamp, mqttv3.1\r\n"));
    let mut stream = std::net::TcpStream::connect(address).expect("the broker listens");
    stream.set_read_timeout(Some(bifro_tests::PATIENCE)).expect("a timeout");
    std::io::Write::write_all(&mut stream, offer.as_bytes()).expect("the broker reads");
    let mut status = [0; 12];
    std::io::Read::read_exact(&mut stream, &mut status).expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 101");
    drop(stream);
    arena.check();
    arena.finish(16 * MIB);
}
