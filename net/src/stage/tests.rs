//! Stages together: PROXY before TLS before WebSocket, and a pipeline's life.

use super::fixtures::*;
use super::proxy::{ProxyConfig, ProxyError};
use super::tls::ClientAuth;
use super::*;
use bifro_core::ids::PublisherKey;
use bifro_core::message::{MessageView, QoS};
use rustls::version::{TLS12, TLS13};
use tungstenite::Message;

const LINE: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 49153 8883\r\n";

fn proxy(required: bool) -> Option<Arc<ProxyConfig>> {
    Some(Arc::new(ProxyConfig { trusted: vec!["10.0.0.0/8".parse().expect("a network")], required }))
}

#[test]
fn plain_tcp_needs_no_pipeline() {
    assert!(Pipeline::new(&ListenerStages::default(), peer("192.0.2.1:5000")).is_none());
    let optional = ListenerStages { proxy: proxy(false), ..ListenerStages::default() };
    assert!(Pipeline::new(&optional, peer("192.0.2.1:5000")).is_none(), "a stranger's PROXY header is not parsed");
}

#[test]
fn a_pipeline_that_only_had_a_proxy_header_becomes_passthrough() {
    let stages = ListenerStages { proxy: proxy(true), ..ListenerStages::default() };
    let mut pipeline = Pipeline::new(&stages, peer("10.0.0.1:999")).expect("a PROXY stage");
    let (mut app, mut net) = (Vec::new(), Vec::new());
    pipeline.receive(&LINE[..20], &mut app, &mut net).expect("so far so good");
    assert!(!pipeline.is_passthrough() && !pipeline.handshake_done());
    assert!(matches!(pipeline.send(&wire(b"\xd0\0"), &mut net), Err(StageError::HandshakeIncomplete)));
    pipeline.receive(&[&LINE[20..], CONNECT].concat(), &mut app, &mut net).expect("a header");
    assert!(pipeline.is_passthrough() && pipeline.handshake_done());
    assert_eq!((pipeline.peer(), app.as_slice()), (peer("203.0.113.7:49153"), CONNECT));
    pipeline.receive(b"\xc0\0", &mut app, &mut net).expect("passed on");
    pipeline.send(&wire(b"\xd0\0"), &mut net).expect("passed on");
    assert_eq!((&app[CONNECT.len()..], net.as_slice()), (&b"\xc0\0"[..], &b"\xd0\0"[..]));
}

#[test]
fn a_pipeline_without_tls_is_small() {
    assert!(size_of::<Pipeline>() <= 256, "{}", size_of::<Pipeline>());
}

/// HOSTILE row 21: PROXY from an untrusted address.
#[test]
fn an_untrusted_peer_of_a_proxy_listener_is_closed_without_an_answer() {
    let stages = ListenerStages { proxy: proxy(true), ws: Some(Arc::new(ws_config())), ..ListenerStages::default() };
    let mut pipeline = Pipeline::new(&stages, peer("192.0.2.1:5000")).expect("a refusing pipeline");
    let (mut app, mut net) = (Vec::new(), Vec::new());
    let error = pipeline.receive(LINE, &mut app, &mut net).expect_err("refused");
    assert!(matches!(error, StageError::Proxy(ProxyError::Untrusted)));
    assert!(app.is_empty() && net.is_empty());
    assert_eq!(pipeline.peer(), peer("192.0.2.1:5000"), "and its header is not believed");
    pipeline.receive(CONNECT, &mut app, &mut net).expect("ignored");
    assert!(app.is_empty());
}

#[test]
fn a_missing_optional_header_loses_no_byte() {
    let stages = ListenerStages { proxy: proxy(false), ..ListenerStages::default() };
    let mut pipeline = Pipeline::new(&stages, peer("10.0.0.1:999")).expect("a PROXY stage");
    let (mut app, mut net) = (Vec::new(), Vec::new());
    for byte in b"PROMQTT" {
        pipeline.receive(&[*byte], &mut app, &mut net).expect("no header");
    }
    assert_eq!((app.as_slice(), pipeline.peer()), (&b"PROMQTT"[..], peer("10.0.0.1:999")));
    assert!(pipeline.is_passthrough());
}

#[test]
fn addresses_in_mapped_form_are_told_as_ipv4() {
    let pipeline = Pipeline::new(&ws_stages(), peer("[::ffff:192.0.2.1]:5000")).expect("a stage");
    assert_eq!(pipeline.peer(), peer("192.0.2.1:5000"));
}

/// [MQTT-6.0.0-2] [MQTT5-6.0.0-2] through all the stages.
#[test]
fn all_stages_together_carry_mqtt_and_close_in_order() {
    let authority = Authority::new();
    let tls = tls_stages(&[&authority.issue("localhost")], ClientAuth::Off).tls;
    let stages = ListenerStages { proxy: proxy(true), tls, ws: Some(Arc::new(ws_config())) };
    for (version, step) in [(&TLS12, 1), (&TLS13, 1), (&TLS13, 1_000)] {
        let mut pipeline = Pipeline::new(&stages, peer("10.0.0.1:999")).expect("stages");
        pipeline.receive(LINE, &mut Vec::new(), &mut Vec::new()).expect("a header");
        let mut tls = TlsClient::new(authority.client(None, version), "localhost");
        let cable = Cable::default();
        let client = begin_websocket(&cable, request("/mqtt").with_sub_protocol("mqtt"));
        // Moves the WebSocket client's bytes through TLS, and the answers back.
        let carry = |tls: &mut TlsClient, pipeline: &mut Pipeline| {
            tls.write(&cable.take_outgoing());
            let app = tls.converse(pipeline, step);
            cable.give(&std::mem::take(&mut tls.received));
            app
        };
        assert!(carry(&mut tls, &mut pipeline).expect("no error").is_empty());
        let (mut client, _) = client.handshake().expect("accepted");
        assert_eq!((pipeline.handshake_done(), pipeline.peer()), (true, peer("203.0.113.7:49153")));

        client.send(Message::binary(CONNECT)).expect("sent");
        assert_eq!(carry(&mut tls, &mut pipeline).expect("no error"), CONNECT);

        let mut net = Vec::new();
        pipeline.send(&wire(&[3; 40_000]), &mut net).expect("sent");
        pipeline.close(&mut net);
        tls.incoming(&net);
        cable.give(&std::mem::take(&mut tls.received));
        assert_eq!(client.read().expect("one frame"), Message::binary(vec![3; 40_000]));
        assert!(matches!(client.read(), Ok(Message::Close(Some(_)))));
        assert!(tls.closed);
    }
}

#[test]
fn an_offence_inside_tls_is_answered_inside_tls() {
    let authority = Authority::new();
    let tls = tls_stages(&[&authority.issue("localhost")], ClientAuth::Off).tls;
    let stages = ListenerStages { tls, ws: Some(Arc::new(ws_config())), ..ListenerStages::default() };
    let mut pipeline = Pipeline::new(&stages, peer("192.0.2.1:5000")).expect("stages");
    let mut client = TlsClient::new(authority.client(None, &TLS13), "localhost");
    client.write(CONNECT);
    let error = client.converse(&mut pipeline, 50).expect_err("no upgrade request");
    assert!(matches!(error, StageError::WebSocket(_)));
    assert!(client.received.starts_with(b"HTTP/1.1 400 "));
    assert!(client.closed, "with close_notify after it");
}

#[test]
fn shared_payloads_go_out_in_their_place() {
    let (mut client, cable, mut pipeline) = open_websocket(&ws_stages(), 100);
    let message = MessageView {
        topic: "t",
        properties: &[],
        payload: &[5; 10_000],
        qos: QoS::AtMostOnce,
        retain: false,
        expiry_at: None,
        publisher: PublisherKey(1),
    };
    let mut out = wire(b"\x30\xff");
    out.push_shared(message.to_message());
    out.bytes.extend_from_slice(b"\xd0\0");
    let mut net = Vec::new();
    pipeline.send(&out, &mut net).expect("sent");
    cable.give(&net);
    let expected = [&b"\x30\xff"[..], &[5; 10_000], b"\xd0\0"].concat();
    assert_eq!(client.read().expect("one frame"), Message::binary(expected));
}
