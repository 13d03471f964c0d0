//! Chapter 6: MQTT over WebSocket.

use crate::suite::{ALL, AT_MOST_ONCE, broker, frame, name, no_properties, publish_packet, text};
use bifro_core::client::Version;
use bifro_tests::{ConnectOptions, PATIENCE};
use std::net::TcpStream;
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::Response;
use tungstenite::{Message, WebSocket};

type Socket = WebSocket<TcpStream>;

/// Upgrades, offering these subprotocols.
fn upgrade(offered: Option<&str>) -> Result<(Socket, Response), String> {
    let address = broker().address("ws");
    let stream = TcpStream::connect(address).expect("the broker listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut request = format!("ws://{address}/mqtt").into_client_request().expect("a request");
    if let Some(offered) = offered {
        request.headers_mut().insert("Sec-WebSocket-Protocol", offered.parse().expect("a header"));
    }
    tungstenite::client(request, stream).map_err(|error| error.to_string())
}

fn connected(version: Version) -> Socket {
    let (mut socket, _) = upgrade(Some("mqtt")).expect("upgraded");
    socket.send(Message::Binary(ConnectOptions::new(version, &name("ws")).encode().into())).expect("sent");
    let connack = next(&mut socket, 4).expect("an answer");
    assert_eq!((connack[0], connack[3]), (0x20, 0));
    socket
}

/// The next binary message of at least so many bytes, or none if the connection ends.
fn next(socket: &mut Socket, at_least: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() < at_least {
        match socket.read() {
            Ok(Message::Binary(part)) => bytes.extend_from_slice(&part),
            Ok(Message::Text(text)) => panic!("a text frame from the server: {text}"),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_) => {}
        }
    }
    Some(bytes)
}

/// [MQTT-6.0.0-3] [MQTT-6.0.0-4] [MQTT5-6.0.0-3] [MQTT5-6.0.0-4]
#[test]
fn the_server_selects_subprotocol_mqtt() {
    for offered in ["mqtt", "mqttv3.1, mqtt", "mqtt, other"] {
        let (_socket, response) = upgrade(Some(offered)).expect("upgraded");
        let chosen = response.headers().get("Sec-WebSocket-Protocol").expect("one is chosen");
        assert_eq!(chosen, "mqtt", "of {offered}");
    }
}

/// [MQTT-6.0.0-1] [MQTT-6.0.0-2] [MQTT5-6.0.0-1] [MQTT5-6.0.0-2]
#[test]
fn packets_need_not_align_with_frames() {
    for version in ALL {
        let mut socket = connected(version);
        let topic = name("ws/");
        let subscribe = frame(0x82, &[&[0, 1], no_properties(version), &text(&topic), &[0]]);
        let publish = match version {
            Version::V5 => frame(0x30, &[&text(&topic), &[0], b"payload"]),
            _ => publish_packet(&topic, b"payload", AT_MOST_ONCE, 0, false),
        };
        for byte in &subscribe {
            socket.send(Message::Binary(vec![*byte].into())).expect("sent");
        }
        let suback = next(&mut socket, 5).expect("SUBACK");
        assert_eq!(suback[0], 0x90);
        let stream = [publish.clone(), vec![0xC0, 0], publish.clone()].concat();
        let (first, second) = stream.split_at(publish.len() + 1);
        socket.send(Message::Binary(first.to_vec().into())).expect("sent");
        socket.send(Message::Binary(Vec::new().into())).expect("an empty frame");
        socket.send(Message::Binary(second.to_vec().into())).expect("sent");
        let answers = next(&mut socket, stream.len()).expect("two messages and PINGRESP");
        let pings = answers.windows(2).filter(|pair| *pair == [0xD0, 0]).count();
        assert_eq!((answers.len(), pings), (stream.len(), 1));
    }
}

/// [MQTT-6.0.0-1] [MQTT5-6.0.0-1]
#[test]
fn a_text_frame_closes_the_connection() {
    for version in ALL {
        let mut socket = connected(version);
        socket.send(Message::Text("\u{C0}\0".into())).expect("sent");
        assert!(next(&mut socket, 1).is_none(), "{version:?}");
        let (mut socket, _) = upgrade(Some("mqtt")).expect("upgraded");
        socket.send(Message::Text("hello".into())).expect("sent");
        assert!(next(&mut socket, 1).is_none(), "{version:?} before CONNECT");
    }
}

/// [MQTT-4.8.0-1] [MQTT5-4.13.1-1]: a violation within the frames ends the connection as over TCP.
#[test]
fn a_protocol_error_ends_the_websocket_too() {
    for version in ALL {
        let mut socket = connected(version);
        socket.send(Message::Binary(vec![0xD0, 0].into())).expect("sent");
        if let Some(bytes) = next(&mut socket, 1) {
            assert_eq!((version, bytes[0]), (Version::V5, 0xE0));
            assert!(next(&mut socket, 1).is_none());
        }
    }
}
