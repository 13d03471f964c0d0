//! Chapters 3.15 and 4.12 of 5.0: enhanced authentication and re-authentication, with SCRAM-SHA-256 and with tokens.

use crate::scram::Exchange;
use crate::suite::{
    ALL, AT_LEAST_ONCE, AT_MOST_ONCE, anybody, as_ack, block, broker, connack_properties, expect_refused, name,
    of_tenant, scram_listener, token, token_listener,
};
use bifro_core::client::Version;
use bifro_mqtt::packet::{Auth, Packet};
use bifro_mqtt::property::{Properties, PropertyId};
use bifro_mqtt::reason::Reason;
use bifro_tests::{Client, ConnectOptions, Received};

const SCRAM: &str = "SCRAM-SHA-256";

fn step(method: &str, data: &[u8]) -> Vec<u8> {
    block(|w| w.str(PropertyId::AuthenticationMethod, method).binary(PropertyId::AuthenticationData, data))
}

fn with_method(method: &str, data: &[u8]) -> ConnectOptions {
    let mut options = ConnectOptions::new(Version::V5, &name("a"));
    options.properties = step(method, data);
    options
}

fn send_auth(client: &mut Client, reason: Reason, method: &str, data: &[u8]) {
    let properties = step(method, data);
    client.send(&Packet::Auth(Auth { reason, properties: Properties::new(&properties) }));
}

/// The AUTH received, which must be of this reason and method.
fn auth_data(received: &Received, reason: Reason, method: &str) -> Vec<u8> {
    let Packet::Auth(auth) = received.packet() else { panic!("not an AUTH: {received:?}") };
    assert_eq!((auth.reason, auth.properties.authentication_method()), (reason, Some(method)));
    assert_eq!(auth.properties.reason_string(), None);
    auth.properties.authentication_data().unwrap_or_default().to_vec()
}

/// Connects by SCRAM.
fn alice() -> Client {
    let exchange = Exchange::new("alice", "wonderland");
    let mut client = Client::open(scram_listener(), Version::V5);
    client.send_bytes(&with_method(SCRAM, exchange.first().as_bytes()).encode());
    let challenge = auth_data(&client.recv(), Reason::CONTINUE_AUTHENTICATION, SCRAM);
    let (last, signature) = exchange.last(&challenge);
    send_auth(&mut client, Reason::CONTINUE_AUTHENTICATION, SCRAM, last.as_bytes());
    let received = client.recv();
    let Packet::ConnAck(connack) = received.packet() else { panic!("not a CONNACK: {received:?}") };
    assert_eq!(connack.reason, Reason::SUCCESS);
    assert_eq!(connack.properties.authentication_method(), Some(SCRAM));
    assert_eq!(connack.properties.authentication_data(), Some(signature.as_bytes()), "the server proves itself too");
    client
}

/// [MQTT5-4.12.0-2] [MQTT5-4.12.0-3] [MQTT5-4.12.0-5] [MQTT5-3.15.2-1] [MQTT5-3.2.0-1] [MQTT5-3.15.2-2]
/// [MQTT5-3.15.2-3]
#[test]
fn an_exchange_goes_from_connect_over_auth_to_connack_with_the_same_method() {
    alice().expect_silence();
}

/// [MQTT5-4.12.0-4] [MQTT5-3.1.4-2]
#[test]
fn a_failed_exchange_is_refused_and_the_connection_closed() {
    for (user, password) in [("alice", "wrong"), ("nobody", "wonderland")] {
        let exchange = Exchange::new(user, password);
        let mut client = Client::open(scram_listener(), Version::V5);
        client.send_bytes(&with_method(SCRAM, exchange.first().as_bytes()).encode());
        let challenge = auth_data(&client.recv(), Reason::CONTINUE_AUTHENTICATION, SCRAM);
        send_auth(&mut client, Reason::CONTINUE_AUTHENTICATION, SCRAM, exchange.last(&challenge).0.as_bytes());
        let received = client.recv();
        assert!(matches!(received.packet(), Packet::ConnAck(ack) if ack.reason == Reason::BAD_USER_NAME_OR_PASSWORD));
        client.expect_closed();
    }
    expect_refused(scram_listener(), &with_method(SCRAM, b"nonsense"), Reason::BAD_USER_NAME_OR_PASSWORD);
}

/// [MQTT5-4.12.0-1]
#[test]
fn an_unsupported_method_gets_0x8c_and_the_end_of_the_connection() {
    for address in [broker().tcp(), scram_listener(), token_listener()] {
        expect_refused(address, &with_method("PIGEON", b"coo"), Reason::BAD_AUTHENTICATION_METHOD);
    }
}

/// [MQTT5-3.1.2-30] [MQTT5-4.12.0-5] [MQTT5-3.1.4-6]
#[test]
fn before_connack_only_auth_with_the_same_method_and_disconnect_are_in_order() {
    let begin = || {
        let mut client = Client::open(scram_listener(), Version::V5);
        let first = Exchange::new("alice", "wonderland").first();
        client.send_bytes(&with_method(SCRAM, first.as_bytes()).encode());
        auth_data(&client.recv(), Reason::CONTINUE_AUTHENTICATION, SCRAM);
        client
    };
    let expect = |mut client: Client, reason: Reason| {
        let received = client.recv();
        assert!(matches!(received.packet(), Packet::ConnAck(ack) if ack.reason == reason), "{received:?}");
        client.expect_closed();
    };
    let mut client = begin();
    client.send(&Packet::PingReq);
    expect(client, Reason::PROTOCOL_ERROR);
    let mut client = begin();
    client.publish("any", b"x", AT_MOST_ONCE, false);
    expect(client, Reason::PROTOCOL_ERROR);
    let mut client = begin();
    send_auth(&mut client, Reason::CONTINUE_AUTHENTICATION, "JWT", b"x");
    expect(client, Reason::BAD_AUTHENTICATION_METHOD);
    let mut client = begin();
    send_auth(&mut client, Reason::RE_AUTHENTICATE, SCRAM, b"x");
    expect(client, Reason::PROTOCOL_ERROR);
    let mut client = begin();
    client.send_bytes(&[0xE0, 0]);
    client.expect_closed();
}

/// [MQTT5-4.12.0-6] [MQTT5-4.12.0-7]
#[test]
fn a_client_without_a_method_gets_none_and_must_not_send_auth() {
    let (mut client, received) = Client::connect_with(broker().tcp(), &ConnectOptions::new(Version::V5, &name("a")));
    assert_eq!(connack_properties(&received).authentication_method(), None);
    send_auth(&mut client, Reason::RE_AUTHENTICATE, SCRAM, b"x");
    client.expect_disconnect(Reason::PROTOCOL_ERROR);
    let mut client = anybody(Version::V5);
    client.send_bytes(&[0xF0, 0]);
    client.expect_disconnect(Reason::PROTOCOL_ERROR);
}

/// [MQTT5-4.12.1-1] [MQTT5-4.12.0-5] [MQTT5-3.15.2-1]
#[test]
fn a_live_connection_authenticates_again_and_goes_on_meanwhile() {
    let mut client = alice();
    let topic = name("again/");
    client.subscribe(&topic, AT_LEAST_ONCE);
    for _ in 0..2 {
        let exchange = Exchange::new("alice", "wonderland");
        send_auth(&mut client, Reason::RE_AUTHENTICATE, SCRAM, exchange.first().as_bytes());
        let challenge = auth_data(&client.recv(), Reason::CONTINUE_AUTHENTICATION, SCRAM);
        client.expect_silence();
        let id = client.publish("nobody/here", b"x", AT_LEAST_ONCE, false).expect("an id");
        assert_eq!(as_ack(&client.recv()).1, id.get());
        let (last, signature) = exchange.last(&challenge);
        send_auth(&mut client, Reason::CONTINUE_AUTHENTICATION, SCRAM, last.as_bytes());
        assert_eq!(auth_data(&client.recv(), Reason::SUCCESS, SCRAM), signature.as_bytes());
    }
}

/// [MQTT5-4.12.1-2] [MQTT5-4.12.1-1]
#[test]
fn a_failed_re_authentication_ends_in_disconnect() {
    let mut client = alice();
    let exchange = Exchange::new("alice", "wrong");
    send_auth(&mut client, Reason::RE_AUTHENTICATE, SCRAM, exchange.first().as_bytes());
    let challenge = auth_data(&client.recv(), Reason::CONTINUE_AUTHENTICATION, SCRAM);
    send_auth(&mut client, Reason::CONTINUE_AUTHENTICATION, SCRAM, exchange.last(&challenge).0.as_bytes());
    client.expect_disconnect(Reason::NOT_AUTHORIZED);
    let mut client = alice();
    send_auth(&mut client, Reason::RE_AUTHENTICATE, "JWT", b"x");
    client.expect_disconnect(Reason::BAD_AUTHENTICATION_METHOD);
    let mut client = alice();
    send_auth(&mut client, Reason::CONTINUE_AUTHENTICATION, SCRAM, b"x");
    client.expect_disconnect(Reason::PROTOCOL_ERROR);
}

/// [MQTT5-4.12.0-2] [MQTT5-4.12.0-5] [MQTT5-4.12.1-2]
#[test]
fn a_method_of_one_step_needs_no_auth_packet_and_may_renew_what_expires() {
    let fresh = token("one", 60, "");
    let mut options = with_method("JWT", fresh.as_bytes());
    let (mut client, received) = Client::connect_with(token_listener(), &options);
    assert_eq!(connack_properties(&received).authentication_method(), Some("JWT"));
    send_auth(&mut client, Reason::RE_AUTHENTICATE, "JWT", token("one", 60, "").as_bytes());
    auth_data(&client.recv(), Reason::SUCCESS, "JWT");
    send_auth(&mut client, Reason::RE_AUTHENTICATE, "JWT", token("four", 60, "").as_bytes());
    client.expect_disconnect(Reason::NOT_AUTHORIZED);
    options.properties = step("JWT", b"not.a.token");
    expect_refused(token_listener(), &options, Reason::BAD_USER_NAME_OR_PASSWORD);
}

/// [MQTT5-3.1.4-2] [MQTT5-4.13.2-1]
#[test]
fn a_session_ends_when_its_credentials_expire() {
    let mut options = of_tenant("one", Version::V5);
    options.credentials = Some(("tester".into(), token("one", 2, "")));
    let (mut client, _) = Client::connect_with(token_listener(), &options);
    client.expect_disconnect(Reason::NOT_AUTHORIZED);
}

/// [MQTT-3.1.2-22] [MQTT5-3.1.4-2]: credentials that nobody can check are refused.
#[test]
fn wrong_credentials_are_told_apart_from_missing_permissions() {
    for version in ALL {
        let mut options = ConnectOptions::new(version, &name("a"));
        options.credentials = Some(("somebody".into(), "secret".into()));
        let (mut client, received) = crate::suite::answer_to(broker().tcp(), &options);
        assert!(matches!(received.packet(), Packet::ConnAck(ack) if ack.reason != Reason::SUCCESS));
        client.expect_closed();
        options = crate::suite::with_claims("one", version, r#""acl":{"pub":[]}"#);
        options.will = Some(("will".into(), b"x".to_vec(), AT_MOST_ONCE, false, Vec::new()));
        expect_refused(token_listener(), &options, Reason::NOT_AUTHORIZED);
    }
}

/// [MQTT5-4.13.1-1]: Authentication Data without Authentication Method.
#[test]
fn data_without_a_method_is_a_protocol_error() {
    let mut options = ConnectOptions::new(Version::V5, &name("a"));
    options.properties = block(|w| w.binary(PropertyId::AuthenticationData, b"x"));
    expect_refused(broker().tcp(), &options, Reason::PROTOCOL_ERROR);
}
