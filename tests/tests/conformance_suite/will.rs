//! Chapter 3.1.2.5 and following: the will.

use crate::suite::{
    ALL, AT_LEAST_ONCE, AT_MOST_ONCE, EXACTLY_ONCE, LASTING_S, QOS, anybody, as_publish, block, broker, expect_payload,
    join, name, pass,
};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::{Disconnect, Packet};
use bifro_mqtt::property::{Properties, PropertyId};
use bifro_mqtt::reason::Reason;
use bifro_tests::{Client, ConnectOptions};
use std::time::{Duration, Instant};

fn with_will(version: Version, id: &str, topic: &str, qos: QoS, retain: bool, properties: &[u8]) -> ConnectOptions {
    let mut options = ConnectOptions::new(version, id);
    options.will = Some((topic.into(), b"will".to_vec(), qos, retain, properties.to_vec()));
    options
}

fn connect(options: &ConnectOptions) -> Client {
    Client::connect_with(broker().tcp(), options).0
}

fn witness(topic: &str) -> Client {
    let mut client = anybody(Version::V5);
    client.subscribe(topic, EXACTLY_ONCE);
    client
}

fn delay(seconds: u32) -> Vec<u8> {
    block(|w| w.u32(PropertyId::WillDelayInterval, seconds))
}

fn lasts(mut options: ConnectOptions, seconds: u32) -> ConnectOptions {
    options.clean = false;
    options.properties = block(|w| w.u32(PropertyId::SessionExpiryInterval, seconds));
    options
}

/// [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.1.2-16] [MQTT-3.1.2-17] [MQTT5-3.1.2-7] [MQTT5-3.1.2-8] [MQTT5-3.1.2-10]
/// [MQTT5-3.1.2-14] [MQTT5-3.1.2-15]
#[test]
fn a_lost_connection_publishes_the_will_once_with_its_qos_and_retain() {
    for version in ALL {
        for (qos, retain) in QOS.into_iter().flat_map(|qos| [(qos, false), (qos, true)]) {
            let topic = name("will/");
            let mut early = witness(&topic);
            let id = name("w");
            drop(connect(&with_will(version, &id, &topic, qos, retain, &[])));
            let received = expect_payload(&mut early, "will");
            assert_eq!(as_publish(&received).qos, qos);
            join(version, &id).disconnect();
            early.expect_silence();
            let mut late = witness(&topic);
            if retain {
                assert!(as_publish(&expect_payload(&mut late, "will")).retain);
            }
            late.expect_silence();
        }
    }
}

/// [MQTT-3.1.2-8] [MQTT5-3.1.2-8]: a protocol violation is an end without DISCONNECT, a takeover too.
#[test]
fn a_violation_or_a_takeover_publishes_the_will() {
    for version in ALL {
        let topic = name("will/");
        let mut witness = witness(&topic);
        let mut client = connect(&with_will(version, &name("w"), &topic, AT_MOST_ONCE, false, &[]));
        client.send_bytes(&[0xD0, 0]);
        client.expect_disconnect(Reason::PROTOCOL_ERROR);
        expect_payload(&mut witness, "will");
        let id = name("w");
        let mut client = connect(&with_will(version, &id, &topic, AT_MOST_ONCE, false, &[]));
        let _successor = join(version, &id);
        client.expect_disconnect(Reason::SESSION_TAKEN_OVER);
        expect_payload(&mut witness, "will");
        witness.expect_silence();
    }
}

/// [MQTT-3.1.2-12]
#[test]
fn without_the_will_flag_nothing_is_published() {
    for version in ALL {
        let (topic, id) = (name("will/"), name("w"));
        let mut witness = witness(&topic);
        connect(&with_will(version, &id, &topic, AT_MOST_ONCE, false, &[])).disconnect();
        drop(join(version, &id));
        join(version, &id).disconnect();
        witness.expect_silence();
    }
}

/// [MQTT5-3.1.2-8] [MQTT5-3.1.3-9] [MQTT5-3.1.2-7]
#[test]
fn a_will_with_delay_waits_and_a_new_connection_suppresses_it() {
    let topic = name("will/");
    let mut witness = witness(&topic);
    let options = lasts(with_will(Version::V5, &name("w"), &topic, AT_LEAST_ONCE, false, &delay(1)), LASTING_S);
    drop(connect(&options));
    let mut plain = options.clone();
    plain.will = None;
    let client = connect(&plain);
    assert!(witness.recv_within(Duration::from_millis(1_500)).is_none(), "the client was back in time");
    drop(client);
    witness.expect_silence();
    let start = Instant::now();
    drop(connect(&options));
    expect_payload(&mut witness, "will");
    let after = start.elapsed();
    assert!(after > Duration::from_millis(950) && after < Duration::from_secs(3), "after {after:?}");
    witness.expect_silence();
}

/// [MQTT5-3.1.2-8] [MQTT5-3.1.3-9]: a clean start ends the session, and what ends the session publishes the will.
#[test]
fn a_will_with_delay_is_published_when_the_session_ends() {
    let topic = name("will/");
    let mut witness = witness(&topic);
    let expires = lasts(with_will(Version::V5, &name("w"), &topic, AT_MOST_ONCE, false, &delay(600)), 1);
    let start = Instant::now();
    drop(connect(&expires));
    expect_payload(&mut witness, "will");
    let after = start.elapsed();
    assert!(after > Duration::from_millis(950) && after < Duration::from_secs(3), "after {after:?}");
    let options = lasts(with_will(Version::V5, &name("w"), &topic, AT_MOST_ONCE, false, &delay(600)), LASTING_S);
    drop(connect(&options));
    join(Version::V5, &options.client_id).disconnect();
    expect_payload(&mut witness, "will");
    drop(connect(&with_will(Version::V5, &name("w"), &topic, AT_MOST_ONCE, false, &delay(600))));
    expect_payload(&mut witness, "will");
    witness.expect_silence();
}

/// [MQTT5-3.1.2-8] [MQTT5-3.14.4-3] [MQTT5-4.1.0-2]
#[test]
fn disconnect_with_will_and_a_new_expiry_publishes_it_when_that_is_over() {
    let topic = name("will/");
    let mut witness = witness(&topic);
    let options = lasts(with_will(Version::V5, &name("w"), &topic, AT_MOST_ONCE, false, &delay(600)), LASTING_S);
    let mut client = connect(&options);
    let properties = block(|w| w.u32(PropertyId::SessionExpiryInterval, 1));
    let properties = Properties::new(&properties);
    client.send(&Packet::Disconnect(Disconnect { reason: Reason::DISCONNECT_WITH_WILL, properties }));
    client.expect_closed();
    expect_payload(&mut witness, "will");
}

/// [MQTT5-3.1.3-10] [MQTT5-3.3.2-4] [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] [MQTT5-3.3.2-18] [MQTT5-3.3.2-20]
#[test]
fn the_properties_of_a_will_are_published_and_keep_their_order() {
    let topic = name("will/");
    let mut witness = witness(&topic);
    let published = block(|w| {
        w.pair(PropertyId::UserProperty, "z", "1").pair(PropertyId::UserProperty, "a", "2");
        w.byte(PropertyId::PayloadFormatIndicator, 1).str(PropertyId::ContentType, "text/plain");
        w.str(PropertyId::ResponseTopic, "answers").binary(PropertyId::CorrelationData, &[0, 255]);
        w.pair(PropertyId::UserProperty, "z", "1")
    });
    let properties = [delay(0), published.clone()].concat();
    drop(connect(&with_will(Version::V5, &name("w"), &topic, AT_MOST_ONCE, false, &properties)));
    let received = expect_payload(&mut witness, "will");
    assert_eq!(as_publish(&received).properties.all.raw(), published);
}

/// [MQTT5-3.3.2-6]: a will's expiry runs from its publication.
#[test]
fn the_expiry_of_a_will_begins_with_its_publication() {
    let topic = name("will/");
    let mut witness = witness(&topic);
    let properties = block(|w| w.u32(PropertyId::WillDelayInterval, 1).u32(PropertyId::MessageExpiryInterval, 50));
    drop(connect(&lasts(with_will(Version::V5, &name("w"), &topic, AT_MOST_ONCE, false, &properties), LASTING_S)));
    let received = expect_payload(&mut witness, "will");
    let left = as_publish(&received).properties.message_expiry.expect("it had one");
    assert!((49..=50).contains(&left), "{left} seconds left");
}

/// [MQTT-3.1.2-8]: a will is stored when the connection is accepted, so a refused one has none.
#[test]
fn a_refused_connect_publishes_no_will() {
    for version in ALL {
        let topic = name("will/");
        let (mut witness, _) = crate::suite::join_tenant("small", Version::V5);
        witness.subscribe(&topic, AT_MOST_ONCE);
        let mut options = crate::suite::of_tenant("small", version);
        options.client_id = "x".repeat(40);
        options.will = Some((topic, b"will".to_vec(), AT_MOST_ONCE, false, Vec::new()));
        crate::suite::expect_refused(crate::suite::token_listener(), &options, Reason::CLIENT_IDENTIFIER_NOT_VALID);
        witness.expect_silence();
    }
}

/// [MQTT-3.3.1-10] [MQTT5-3.3.1-6]: an empty will is a message like any other.
#[test]
fn a_will_without_payload_is_published_and_clears_what_was_retained() {
    for version in ALL {
        let topic = name("will/");
        anybody(version).publish_acked(&topic, b"x");
        let mut publisher = anybody(version);
        publisher.publish(&topic, b"kept", AT_LEAST_ONCE, true);
        publisher.recv();
        let mut early = witness(&topic);
        expect_payload(&mut early, "kept");
        let mut options = with_will(version, &name("w"), &topic, AT_LEAST_ONCE, true, &[]);
        options.will =
            options.will.map(|(topic, _, qos, retain, properties)| (topic, Vec::new(), qos, retain, properties));
        drop(connect(&options));
        expect_payload(&mut early, "");
        witness(&topic).expect_silence();
    }
}

/// [MQTT5-3.1.2-8]: while the delay runs out, the time of a test passes for others too.
#[test]
fn a_delayed_will_of_a_client_that_comes_back_with_another_will_is_replaced() {
    let topic = name("will/");
    let mut witness = witness(&topic);
    let mut options = lasts(with_will(Version::V5, &name("w"), &topic, AT_LEAST_ONCE, false, &delay(1)), LASTING_S);
    drop(connect(&options));
    options.will = Some((topic.clone(), b"second".to_vec(), AT_MOST_ONCE, false, Vec::new()));
    drop(connect(&options));
    expect_payload(&mut witness, "second");
    pass(Duration::from_millis(1_300));
    witness.expect_silence();
}
