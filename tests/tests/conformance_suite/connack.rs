//! Chapter 3.2: CONNACK, and what it announces.

use crate::suite::{
    ALL, AT_LEAST_ONCE, AT_MOST_ONCE, EXACTLY_ONCE, STANDARD, answer_to, block, broker, connack_properties,
    expect_refused, join_tenant, lasting, name, of_tenant, resume, token_listener,
};
use bifro_core::client::Version;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::property::PropertyId;
use bifro_mqtt::reason::Reason;
use bifro_tests::{Client, ConnectOptions};

/// [MQTT-3.1.2-4] [MQTT-3.1.2-6] [MQTT-3.1.4-3] [MQTT-3.2.2-1] [MQTT-3.2.2-2] [MQTT-3.2.2-3]
/// [MQTT5-3.1.2-4] [MQTT5-3.1.2-5] [MQTT5-3.1.2-6] [MQTT5-3.1.4-4] [MQTT5-3.2.2-1] [MQTT5-3.2.2-2] [MQTT5-3.2.2-3]
#[test]
fn session_present_tells_whether_there_was_a_session() {
    for version in STANDARD {
        let mut options = lasting(version, &name("present"));
        let flags = |options: &ConnectOptions| {
            let (client, received) = answer_to(broker().tcp(), options);
            client.disconnect();
            received.bytes()[2]
        };
        assert_eq!(flags(&options), 0, "{version:?}: a new session");
        assert_eq!(flags(&options), 1, "{version:?}: the stored one");
        options.clean = true;
        assert_eq!(flags(&options), 0, "{version:?}: clean");
        options.clean = false;
        let after_clean = if version == Version::V5 { 1 } else { 0 };
        assert_eq!(flags(&options), after_clean, "{version:?}: 5.0 keeps what a clean start has begun, 3.1.1 does not");
    }
}

/// [MQTT-3.2.2-4] [MQTT-3.2.2-5] [MQTT5-3.2.2-6] [MQTT5-3.2.2-7] [MQTT5-3.2.2-8]
#[test]
fn a_refusal_has_no_session_present_even_if_there_is_a_session() {
    for version in STANDARD {
        let mut options = lasting(version, &name("present"));
        resume(&options).0.disconnect();
        options.will = Some(("wild/#".into(), b"x".to_vec(), AT_MOST_ONCE, false, Vec::new()));
        expect_refused(broker().tcp(), &options, Reason::TOPIC_NAME_INVALID);
        options.will = None;
        assert!(resume(&options).1, "{version:?}: the refusal has done it no harm");
    }
}

/// [MQTT5-3.2.2-9] [MQTT5-3.2.2-10] [MQTT5-3.2.2-12] [MQTT5-3.2.2-11]
#[test]
fn a_server_without_qos_2_says_so_and_still_takes_subscriptions_for_it() {
    for (tenant, highest) in [("qos1", AT_LEAST_ONCE), ("qos0", AT_MOST_ONCE)] {
        let (mut client, received) = join_tenant(tenant, Version::V5);
        assert_eq!(connack_properties(&received).maximum_qos(), Some(highest));
        assert_eq!(client.subscribe("any", EXACTLY_ONCE), highest as u8);
        client.publish("any", b"", EXACTLY_ONCE, false);
        client.expect_disconnect(Reason::QOS_NOT_SUPPORTED);
        let mut options = of_tenant(tenant, Version::V5);
        options.will = Some(("will".into(), b"x".to_vec(), EXACTLY_ONCE, false, Vec::new()));
        expect_refused(token_listener(), &options, Reason::QOS_NOT_SUPPORTED);
    }
    let (_client, received) = join_tenant("one", Version::V5);
    assert_eq!(connack_properties(&received).maximum_qos(), None, "absent where every QoS is there");
}

/// [MQTT5-3.2.2-13] [MQTT5-3.2.2-14]
#[test]
fn a_server_without_retained_messages_says_so_and_refuses_them() {
    let (mut client, received) = join_tenant("unretained", Version::V5);
    assert_eq!(connack_properties(&received).retain_available(), Some(false));
    client.publish("any", b"keep", AT_MOST_ONCE, true);
    client.expect_disconnect(Reason::RETAIN_NOT_SUPPORTED);
    let mut options = of_tenant("unretained", Version::V5);
    options.will = Some(("will".into(), b"x".to_vec(), AT_MOST_ONCE, true, Vec::new()));
    expect_refused(token_listener(), &options, Reason::RETAIN_NOT_SUPPORTED);
}

/// [MQTT5-3.2.2-8]
#[test]
fn what_is_switched_off_or_limited_is_announced() {
    let (_client, received) = join_tenant("plain", Version::V5);
    let properties = connack_properties(&received);
    assert_eq!(properties.wildcard_subscription_available(), Some(false));
    assert_eq!(properties.subscription_identifier_available(), Some(false));
    assert_eq!(properties.shared_subscription_available(), Some(false));
    let (_client, received) = join_tenant("four", Version::V5);
    let properties = connack_properties(&received);
    assert_eq!(properties.receive_maximum(), Some(4));
    assert_eq!(properties.topic_alias_maximum(), Some(2));
    assert!(properties.maximum_packet_size().is_some_and(|bytes| bytes > 256 << 10));
    assert_eq!(properties.wildcard_subscription_available(), None, "absent means available");
    assert_eq!(properties.retain_available(), None, "absent means available");
}

/// [MQTT5-3.1.2-21] [MQTT5-3.2.2-21] [MQTT5-3.2.2-22]
#[test]
fn server_keep_alive_is_sent_only_where_it_differs() {
    let mut options = of_tenant("brief", Version::V5);
    for (asked, answer) in [(10, Some(30)), (0, Some(30)), (30, None), (45, None)] {
        options.keep_alive = asked;
        let (_client, received) = Client::connect_with(token_listener(), &options);
        assert_eq!(connack_properties(&received).server_keep_alive(), answer, "asked for {asked}");
    }
}

/// [MQTT5-3.1.2-23]
#[test]
fn a_session_expiry_above_the_servers_is_cut_and_the_client_told() {
    let mut options = of_tenant("brief", Version::V5);
    for (asked, answer) in [(0, None), (59, None), (61, Some(60)), (u32::MAX, Some(60))] {
        options.properties = block(|w| w.u32(PropertyId::SessionExpiryInterval, asked));
        let (_client, received) = Client::connect_with(token_listener(), &options);
        assert_eq!(connack_properties(&received).session_expiry_interval(), answer, "asked for {asked}");
    }
}

/// [MQTT5-3.2.2-19] [MQTT5-3.2.2-20] [MQTT5-3.1.2-24]
#[test]
fn a_refusal_leaves_out_what_would_make_it_too_large() {
    let mut options = ConnectOptions::new(Version::V5, &name("c"));
    options.will = Some(("wild/#".into(), b"x".to_vec(), AT_MOST_ONCE, false, Vec::new()));
    let refusal = expect_refused(broker().tcp(), &options, Reason::TOPIC_NAME_INVALID);
    assert!(connack_properties(&refusal).reason_string().is_some(), "it has a reason string where there is room");
    options.properties = block(|w| w.u32(PropertyId::MaximumPacketSize, 8));
    let refusal = expect_refused(broker().tcp(), &options, Reason::TOPIC_NAME_INVALID);
    assert!(refusal.bytes().len() <= 8);
    assert_eq!(connack_properties(&refusal).reason_string(), None);
}

/// [MQTT5-3.1.2-24] [MQTT5-3.2.2-20]
#[test]
fn a_client_that_cannot_take_the_connack_is_not_left_waiting() {
    let mut options = ConnectOptions::new(Version::V5, &name("c"));
    options.properties = block(|w| w.u32(PropertyId::MaximumPacketSize, 5));
    let mut client = Client::open(broker().tcp(), Version::V5);
    client.send_bytes(&options.encode());
    if let Some(received) = client.try_recv() {
        assert!(received.bytes().len() <= 5, "{received:?}");
        client.expect_closed();
    }
}

/// [MQTT-3.2.2-5] [MQTT5-3.2.2-7]
#[test]
fn a_provider_that_cannot_be_reached_refuses_and_closes() {
    for version in ALL {
        let mut options = ConnectOptions::new(version, &name("c"));
        options.credentials = Some(("user".into(), "secret".into()));
        expect_refused(crate::suite::broken_listener(), &options, Reason::SERVER_UNAVAILABLE);
    }
}

/// [MQTT-3.2.0-1] [MQTT5-3.2.0-1] [MQTT5-3.2.0-2]
#[test]
fn connack_precedes_what_a_stored_session_has_to_send() {
    for version in STANDARD {
        let (options, topic) = (lasting(version, &name("stored")), name("stored/"));
        let mut client = resume(&options).0;
        client.subscribe(&topic, AT_LEAST_ONCE);
        client.disconnect();
        crate::suite::anybody(version).publish_acked(&topic, b"waiting");
        let (mut client, present) = resume(&options);
        assert!(present, "CONNACK was the first packet");
        let received = client.recv_publish();
        assert!(matches!(received.packet(), Packet::Publish(publish) if publish.payload == b"waiting"));
        client.expect_silence();
    }
}
