//! WebSocket against hand-made bytes and against tungstenite's client; HOSTILE rows 2 and 28.

use super::*;
use crate::stage::fixtures::*;
use crate::stage::{Pipeline, StageError};
use proptest::prelude::*;
use tungstenite::Message;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};

const BINARY: u8 = 0x82;
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;
const FIN: u8 = 0x80;

/// A masked frame: first byte, payload.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0x34, 0x56, 0x78];
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..=125 => bytes.push(0x80 | short as u8),
        medium @ 126..=0xFFFF => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A close frame as a server sends it.
fn server_close(code: u16) -> Vec<u8> {
    [&[CLOSE, 2][..], &code.to_be_bytes()].concat()
}

fn upgrade_request(path: &str, headers: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
    .into_bytes()
}

const GOOD: &str = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n";

fn fresh(config: WsConfig) -> WebSocket {
    WebSocket::new(Arc::new(config))
}

fn open(frame_bytes_max: u64) -> WebSocket {
    let mut ws = fresh(WsConfig { frame_bytes_max, ..ws_config() });
    ws.receive(&upgrade_request("/mqtt", GOOD), None, &mut Vec::new(), &mut Vec::new()).expect("accepted");
    assert!(ws.is_open());
    ws
}

/// Outcome, application bytes and answers of `bytes`, fed in pieces of `step`.
fn feed(ws: &mut WebSocket, bytes: &[u8], step: usize) -> (Result<(), WsError>, Vec<u8>, Vec<u8>) {
    let (mut app, mut net) = (Vec::new(), Vec::new());
    let result = bytes.chunks(step).try_for_each(|piece| ws.receive(piece, None, &mut app, &mut net));
    (result, app, net)
}

/// The response to a request, by its first line and whether it was accepted.
fn status(request: &[u8]) -> (Result<(), WsError>, String) {
    let whole = feed(&mut fresh(ws_config()), request, usize::MAX);
    let bytewise = feed(&mut fresh(ws_config()), request, 1);
    assert_eq!(whole, bytewise, "splitting must not matter");
    let text = String::from_utf8(whole.2).expect("text");
    assert!(text.ends_with("\r\n\r\n"));
    (whole.0, text.lines().next().unwrap_or_default().to_owned())
}

fn refused(request: &[u8], refusal: UpgradeRefusal) {
    let (result, line) = status(request);
    assert_eq!(result, Err(WsError::Upgrade(refusal)));
    assert!(line.starts_with(&format!("HTTP/1.1 {} ", refusal.status())), "{line}");
}

fn violation(bytes: &[u8], expected: FrameViolation) {
    for step in [1, usize::MAX] {
        let (result, _, net) = feed(&mut open(1_000), bytes, step);
        assert_eq!(result, Err(WsError::Frame(expected)));
        assert_eq!(net, server_close(expected.close_code()));
    }
}

/// [MQTT-6.0.0-3] [MQTT-6.0.0-4] [MQTT5-6.0.0-3] [MQTT5-6.0.0-4]
#[test]
fn the_subprotocol_mqtt_is_chosen_if_offered_and_else_the_first_older_name() {
    for (offered, chosen) in [
        ("Sec-WebSocket-Protocol: mqtt\r\n", "mqtt"),
        ("Sec-WebSocket-Protocol: mqttv3.1, mqtt\r\n", "mqtt"),
        ("Sec-WebSocket-Protocol: foo\r\nsec-websocket-protocol: bar ,mqtt\r\n", "mqtt"),
        ("Sec-WebSocket-Protocol: mqttv3.1.1,mqttv3.1\r\n", "mqttv3.1.1"),
        ("Sec-WebSocket-Protocol: mqttv3.1\r\n", "mqttv3.1"),
    ] {
        let request = upgrade_request("/mqtt?x=1", &format!("Sec-WebSocket-Version: 13\r\n{offered}"));
        let (result, _, net) = feed(&mut fresh(ws_config()), &request, 3);
        let response = String::from_utf8(net).expect("text");
        assert_eq!(result, Ok(()));
        assert!(response.starts_with("HTTP/1.1 101 "));
        assert!(response.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{response}");
        assert!(response.contains(&format!("sec-websocket-protocol: {chosen}\r\n")), "{response}");
    }
}

/// [MQTT-6.0.0-3] [MQTT5-6.0.0-3]
#[test]
fn a_wrong_subprotocol_or_none_is_refused() {
    for offered in ["", "Sec-WebSocket-Protocol: \r\n", "Sec-WebSocket-Protocol: MQTT, amqp\r\n"] {
        let request = upgrade_request("/mqtt", &format!("Sec-WebSocket-Version: 13\r\n{offered}"));
        refused(&request, UpgradeRefusal::Subprotocol);
    }
}

#[test]
fn requests_that_are_not_a_websocket_upgrade_of_the_right_path_are_refused() {
    refused(&upgrade_request("/", GOOD), UpgradeRefusal::Path);
    refused(&upgrade_request("/mqtt/", GOOD), UpgradeRefusal::Path);
    refused(&upgrade_request("/mqtt", &GOOD.replace("13", "8")), UpgradeRefusal::Version);
    refused(&upgrade_request("/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n"), UpgradeRefusal::Version);
    refused(b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\n\r\n", UpgradeRefusal::NoUpgrade);
    refused(b"GET /mqtt HTTP/1.0\r\nHost: localhost\r\n\r\n", UpgradeRefusal::Malformed);
    refused(b"GET /mqtt\r\n\r\n", UpgradeRefusal::Malformed);
    refused(b"POST /mqtt HTTP/1.1\r\n", UpgradeRefusal::Method);
    let short_key = String::from_utf8(upgrade_request("/mqtt", GOOD)).expect("text").replace("dGhl", "");
    refused(short_key.as_bytes(), UpgradeRefusal::Malformed);
}

#[test]
fn a_request_longer_than_allowed_is_refused_at_the_limit() {
    let mut request = upgrade_request("/mqtt", &format!("{GOOD}X-Long: {}\r\n", "x".repeat(UPGRADE_BYTES_MAX)));
    refused(&request, UpgradeRefusal::TooLong);
    request.truncate(UPGRADE_BYTES_MAX - 1);
    assert_eq!(feed(&mut fresh(ws_config()), &request, 100), (Ok(()), Vec::new(), Vec::new()));
    let many = "X: y\r\n".repeat(200);
    refused(&upgrade_request("/mqtt", &format!("{GOOD}{many}")), UpgradeRefusal::TooLong);
}

/// HOSTILE row 31: TLS, or plain MQTT, on the WebSocket port.
#[test]
fn bytes_that_are_no_http_request_are_refused_at_once() {
    for bytes in [&b"\x16\x03\x01\x02\x00\x01"[..], CONNECT, b"\r\n\r\n\0\r\nQUIT\n", b"get /"] {
        let (result, app, net) = feed(&mut fresh(ws_config()), bytes, usize::MAX);
        assert_eq!(result, Err(WsError::Upgrade(UpgradeRefusal::Malformed)));
        assert!(net.starts_with(b"HTTP/1.1 400 ") && app.is_empty());
    }
}

/// HOSTILE row 21: forged `X-Forwarded-For`.
#[test]
fn forwarded_for_is_believed_from_trusted_proxies_only_and_only_as_far_as_they_vouch() {
    let trust = |networks: &[&str]| WsConfig {
        trust_forwarded_for: networks.iter().map(|network| network.parse().expect("a network")).collect(),
        ..ws_config()
    };
    let client = |config: WsConfig, from: &str, lines: &[&str]| {
        let lines: String = lines.iter().map(|line| format!("X-Forwarded-For: {line}\r\n")).collect();
        let mut ws = fresh(config);
        let request = upgrade_request("/mqtt", &format!("{GOOD}{lines}"));
        ws.receive(&request, peer(from), &mut Vec::new(), &mut Vec::new()).expect("accepted");
        ws.forwarded_for()
    };
    let proxy = "10.0.0.1:999";
    assert_eq!(client(trust(&[]), proxy, &["203.0.113.7"]), None, "nobody is trusted by default");
    assert_eq!(client(trust(&["10.0.0.0/8"]), "198.51.100.9:1", &["203.0.113.7"]), None, "forged by a client");
    assert_eq!(client(trust(&["10.0.0.0/8"]), proxy, &["203.0.113.7"]), peer("203.0.113.7:0"));
    assert_eq!(client(trust(&["10.0.0.0/8"]), "[::ffff:10.0.0.1]:1", &["203.0.113.7"]), peer("203.0.113.7:0"));
    assert_eq!(client(trust(&["10.0.0.0/8"]), proxy, &["127.0.0.1, 203.0.113.7"]), peer("203.0.113.7:0"), "forged");
    assert_eq!(client(trust(&["10.0.0.0/8"]), proxy, &["127.0.0.1", "203.0.113.7, 10.0.0.2"]), peer("203.0.113.7:0"));
    assert_eq!(client(trust(&["10.0.0.0/8"]), proxy, &["[2001:db8::7]:4711"]), peer("[2001:db8::7]:4711"));
    assert_eq!(client(trust(&["10.0.0.0/8"]), proxy, &["[2001:db8::7]"]), peer("[2001:db8::7]:0"));
    assert_eq!(client(trust(&["10.0.0.0/8"]), proxy, &["1.2.3.4, unknown"]), None, "what follows is not known");
    assert_eq!(client(trust(&["10.0.0.0/8"]), proxy, &[]), None);
}

/// [MQTT-6.0.0-1] [MQTT5-6.0.0-1]
#[test]
fn a_text_frame_closes_with_1003() {
    violation(&frame(TEXT, b"hi"), FrameViolation::Text);
    assert_eq!(FrameViolation::Text.close_code(), 1003);
}

/// [MQTT-6.0.0-2] [MQTT5-6.0.0-2]; HOSTILE row 2, inside a WebSocket frame.
#[test]
fn packets_may_span_frames_and_frames_may_hold_several_packets() {
    let pings = [0xC0, 0, 0xC0, 0, 0xC0, 0];
    let bytes = [
        frame(BINARY, &CONNECT[..1]),
        frame(BINARY, &[]),
        frame(BINARY, &CONNECT[1..]),
        frame(BINARY, &pings),
        // A packet whose Remaining Length goes beyond its frame: no more is made up, the next frame continues it.
        frame(BINARY, &[0x30, 100, 0]),
        frame(BINARY, &[1]),
    ]
    .concat();
    let expected = [CONNECT, &pings, &[0x30, 100, 0, 1]].concat();
    for step in [1, 2, 5, usize::MAX] {
        assert_eq!(feed(&mut open(1_000), &bytes, step), (Ok(()), expected.clone(), Vec::new()));
    }
}

#[test]
fn fragments_are_joined_around_control_frames() {
    let bytes =
        [frame(0x02, b"ab"), frame(PING, b"x"), frame(0x00, b""), frame(PONG, b"y"), frame(FIN, b"cd")].concat();
    for step in [1, 4, usize::MAX] {
        assert_eq!(feed(&mut open(1_000), &bytes, step), (Ok(()), b"abcd".to_vec(), vec![PONG, 1, b'x']));
    }
}

#[test]
fn the_last_of_several_pings_is_answered() {
    let bytes = [frame(PING, b"1"), frame(PING, b"2"), frame(PING, &[7; 125])].concat();
    let (result, app, net) = feed(&mut open(1_000), &bytes, usize::MAX);
    assert_eq!((result, app), (Ok(()), Vec::new()));
    assert_eq!(net, [&[PONG, 125][..], &[7; 125]].concat());
}

#[test]
fn fragments_out_of_order_close_with_1002() {
    violation(&frame(FIN, b"cd"), FrameViolation::Fragment);
    violation(&frame(0x00, b"cd"), FrameViolation::Fragment);
    violation(&[frame(0x02, b"ab"), frame(BINARY, b"cd")].concat(), FrameViolation::Fragment);
}

#[test]
fn control_frames_that_are_long_or_fragmented_close_with_1002() {
    violation(&frame(PING, &[0; 126]), FrameViolation::Control);
    violation(&frame(CLOSE, &[0; 126]), FrameViolation::Control);
    violation(&frame(PING & !FIN, b""), FrameViolation::Control);
}

#[test]
fn unmasked_frames_reserved_bits_and_opcodes_close_with_1002() {
    violation(&[BINARY, 2, 0xC0, 0], FrameViolation::Unmasked);
    violation(&frame(BINARY | 0x40, b"x"), FrameViolation::ReservedBit);
    violation(&frame(0x83, b"x"), FrameViolation::Opcode);
    violation(&frame(0x8B, b"x"), FrameViolation::Opcode);
}

#[test]
fn a_frame_longer_than_allowed_closes_with_1009_at_its_header() {
    let mut header = frame(BINARY, &[0; 1_001]);
    header.truncate(8);
    violation(&header, FrameViolation::TooLong);
    assert_eq!(FrameViolation::TooLong.close_code(), 1009);
    assert_eq!(feed(&mut open(1_000), &frame(BINARY, &[0; 1_000]), 100).1.len(), 1_000);
}

#[test]
fn lengths_of_64_bits_are_understood_and_those_not_in_shortest_form_refused() {
    let long = vec![9; 70_000];
    let (result, app, _) = feed(&mut open(100_000), &frame(BINARY, &long), 1_400);
    assert_eq!((result, app), (Ok(()), long));
    let with_length = |length: u64| [&[BINARY, 0xFF][..], &length.to_be_bytes(), &[0; 4]].concat();
    violation(&with_length(1 << 40), FrameViolation::TooLong);
    violation(&with_length(u64::MAX), FrameViolation::Length);
    violation(&with_length(5), FrameViolation::Length);
    violation(&[BINARY, 0xFE, 0, 5, 0, 0, 0, 0], FrameViolation::Length);
}

#[test]
fn a_claim_of_a_long_frame_costs_no_memory() {
    let mut ws = open(1 << 30);
    let (mut app, mut net) = (Vec::new(), Vec::new());
    let header = [&[BINARY, 0xFF][..], &(1_u64 << 30).to_be_bytes(), &[0; 4], &[1, 2, 3]].concat();
    ws.receive(&header, None, &mut app, &mut net).expect("allowed");
    assert_eq!(app, [1, 2, 3], "payload comes out as it arrives");
    assert!(app.capacity() < 64);
    assert!(std::mem::size_of::<WebSocket>() <= 160, "{}", std::mem::size_of::<WebSocket>());
}

#[test]
fn a_close_frame_is_answered_with_its_code_and_ends_everything() {
    for (payload, answer) in [(&[][..], vec![CLOSE, 0]), (b"\x03\xe8bye", server_close(1000))] {
        let bytes = [frame(BINARY, b"\xe0\0"), frame(CLOSE, payload), frame(BINARY, b"late")].concat();
        for step in [1, usize::MAX] {
            let mut ws = open(1_000);
            assert_eq!(feed(&mut ws, &bytes, step), (Ok(()), b"\xe0\0".to_vec(), answer.clone()));
            assert!(ws.peer_closed());
        }
    }
}

#[test]
fn invalid_close_frames_are_answered_with_1002_or_1007() {
    violation(&frame(CLOSE, b"\x03"), FrameViolation::Close);
    violation(&frame(CLOSE, &1005_u16.to_be_bytes()), FrameViolation::Close);
    violation(&frame(CLOSE, b"\x03\xe8\xff"), FrameViolation::CloseReason);
    assert_eq!(FrameViolation::CloseReason.close_code(), 1007);
}

#[test]
fn tungstenites_client_talks_with_the_stage() {
    for step in [1, 100] {
        let (mut client, cable, mut server) = open_websocket(&ws_stages(), step);
        client.send(Message::binary(CONNECT)).expect("sent");
        client.send(Message::Ping(tungstenite::Bytes::from_static(b"are you there"))).expect("sent");
        let fragment =
            |payload: &'static [u8], kind, last| Message::Frame(Frame::message(payload, OpCode::Data(kind), last));
        client.send(fragment(b"\xc0", Data::Binary, false)).expect("sent");
        client.send(fragment(b"\0", Data::Continue, true)).expect("sent");
        assert_eq!(cable.carry(&mut server, step).expect("no error"), [CONNECT, b"\xc0\0"].concat());
        assert_eq!(client.read().expect("a pong"), Message::Pong(tungstenite::Bytes::from_static(b"are you there")));

        let mut net = Vec::new();
        server.send(&wire(b"\x20\x02\0\0"), &mut net).expect("sent");
        server.send(&wire(&[1; 70_000]), &mut net).expect("sent");
        server.send(&wire(&[]), &mut net).expect("nothing to send");
        cable.give(&net);
        assert_eq!(client.read().expect("a frame"), Message::binary(&b"\x20\x02\0\0"[..]));
        assert_eq!(client.read().expect("a frame"), Message::binary(vec![1; 70_000]));
    }
}

#[test]
fn either_side_closes_in_order() {
    let (mut client, cable, mut server) = open_websocket(&ws_stages(), 100);
    client.close(None).expect("sent");
    assert!(cable.carry(&mut server, 100).expect("no error").is_empty());
    assert!(server.peer_closed());
    assert_eq!(client.read().expect("the answer"), Message::Close(None));
    assert!(matches!(server.send(&wire(b"\xd0\0"), &mut Vec::new()), Err(StageError::Closed)));

    let (mut client, cable, mut server) = open_websocket(&ws_stages(), 100);
    let mut net = Vec::new();
    server.close(&mut net);
    assert_eq!(net, server_close(1000));
    cable.give(&net);
    let Message::Close(Some(CloseFrame { code, .. })) = client.read().expect("the close") else { panic!("no close") };
    assert_eq!(u16::from(code), 1000);
}

#[test]
fn frames_sent_along_with_the_request_are_not_lost() {
    let bytes = [upgrade_request("/mqtt", GOOD), frame(BINARY, CONNECT)].concat();
    let mut server = Pipeline::new(&ws_stages(), None).expect("a stage");
    let (mut app, mut net) = (Vec::new(), Vec::new());
    server.receive(&bytes, &mut app, &mut net).expect("accepted");
    assert_eq!(app, CONNECT);
}

proptest! {
    #[test]
    fn any_framing_and_any_split_gives_the_same_stream(
        frames in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..300), any::<bool>(), any::<bool>()), 0..12),
        step in 1_usize..400,
    ) {
        let (mut bytes, mut expected, mut in_message) = (Vec::new(), Vec::new(), false);
        for (payload, last, ping) in &frames {
            if *ping {
                bytes.extend(frame(PING, b"p"));
            }
            let opcode = if in_message { 0 } else { 2 };
            bytes.extend(frame(opcode | if *last { FIN } else { 0 }, payload));
            in_message = !last;
            expected.extend_from_slice(payload);
        }
        let (result, app, net) = feed(&mut open(1_000), &bytes, step);
        prop_assert_eq!((result, app), (Ok(()), expected));
        prop_assert_eq!(net.len() % 3, 0, "pongs of one byte each");
    }

    #[test]
    fn arbitrary_bytes_end_the_same_way_however_they_are_split(
        bytes in proptest::collection::vec(any::<u8>(), 0..300), step in 1_usize..40,
    ) {
        let whole = feed(&mut open(1_000), &bytes, usize::MAX);
        let split = feed(&mut open(1_000), &bytes, step);
        prop_assert_eq!((whole.0, whole.1), (split.0, split.1));
    }
}
