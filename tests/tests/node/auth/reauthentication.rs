//! Re-authentication on a live connection, section 4.12.1 of MQTT 5.

use super::scram::{Exchange, METHOD, broker, connect, recv_auth, send_auth};
use bifro_core::message::QoS;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::reason::Reason;
use bifro_tests::{Broker, Client};

fn connected(broker: &Broker) -> Client {
    let (client, received) = connect(broker, &mut Exchange::new("alice", "alice-password", "first"));
    assert!(matches!(received.packet(), Packet::ConnAck(ack) if ack.reason == Reason::SUCCESS), "{received:?}");
    client
}

#[test]
fn the_session_goes_on_while_it_is_re_authenticated_and_after() {
    let broker = broker();
    let mut client = connected(&broker);
    assert_eq!(client.subscribe("t", QoS::AtMostOnce), 0);
    let mut exchange = Exchange::new("alice", "alice-password", "second");
    send_auth(&mut client, Reason::RE_AUTHENTICATE, METHOD, &exchange.first());
    let challenge = recv_auth(&mut client, Reason::CONTINUE_AUTHENTICATION);
    // The client "MAY continue to send and receive": section 4.12.1, non-normative.
    client.publish("t", b"between", QoS::AtMostOnce, false);
    client.recv_publish();
    send_auth(&mut client, Reason::CONTINUE_AUTHENTICATION, METHOD, &exchange.last(&challenge));
    let data = recv_auth(&mut client, Reason::SUCCESS);
    exchange.assert_server(Some(&data));
    client.publish("t", b"after", QoS::AtMostOnce, false);
    client.recv_publish();
    client.disconnect();
}

/// [MQTT5-4.12.1-2]
#[test]
fn a_failed_re_authentication_ends_the_connection() {
    let broker = broker();
    for (user, password) in [("alice", "wrong"), ("bob", "bob-password")] {
        let mut client = connected(&broker);
        let mut exchange = Exchange::new(user, password, "second");
        send_auth(&mut client, Reason::RE_AUTHENTICATE, METHOD, &exchange.first());
        let challenge = recv_auth(&mut client, Reason::CONTINUE_AUTHENTICATION);
        send_auth(&mut client, Reason::CONTINUE_AUTHENTICATION, METHOD, &exchange.last(&challenge));
        client.expect_disconnect(Reason::NOT_AUTHORIZED);
    }
}

/// [MQTT5-4.12.1-1]
#[test]
fn another_method_than_that_of_connect_ends_the_connection() {
    let broker = broker();
    let mut client = connected(&broker);
    send_auth(&mut client, Reason::RE_AUTHENTICATE, "JWT", b"a.b.c");
    let received = client.recv();
    let Packet::Disconnect(disconnect) = received.packet() else { panic!("not a DISCONNECT: {received:?}") };
    assert!(disconnect.reason.is_error(), "{received:?}");
    client.expect_closed();
}
