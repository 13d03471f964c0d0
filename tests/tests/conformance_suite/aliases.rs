//! Chapter 3.3.2.3.4: topic aliases, both ways.

use crate::suite::{
    AT_LEAST_ONCE, AT_MOST_ONCE, anybody, anybody_with, as_publish, block, expect_payload, frame, join_tenant, lasting,
    name, resume, text,
};
use bifro_core::client::Version;
use bifro_mqtt::property::PropertyId;
use bifro_mqtt::reason::Reason;
use bifro_tests::Client;
use std::collections::HashMap;

/// A PUBLISH at QoS 0 with an alias.
fn aliased(topic: &str, alias: u16, payload: &str) -> Vec<u8> {
    let [high, low] = alias.to_be_bytes();
    frame(0x30, &[&text(topic), &[3, 35, high, low], payload.as_bytes()])
}

/// [MQTT5-3.3.2-12] [MQTT5-3.3.2-7]
#[test]
fn the_server_takes_every_alias_within_its_maximum_and_forgets_them_with_the_connection() {
    let (mut client, received) = join_tenant("four", Version::V5);
    assert_eq!(crate::suite::connack_properties(&received).topic_alias_maximum(), Some(2));
    let (mut subscriber, _) = join_tenant("four", Version::V5);
    let root = name("alias");
    let (one, two) = (format!("{root}/one"), format!("{root}/two"));
    subscriber.subscribe(&format!("{root}/#"), AT_MOST_ONCE);
    let mut expect = |topic: &str, payload: &str| {
        let received = expect_payload(&mut subscriber, payload);
        assert_eq!(as_publish(&received).topic, topic);
        assert_eq!(as_publish(&received).properties.topic_alias, None, "an alias is its connection's alone");
    };
    client.send_bytes(&[aliased(&one, 1, "set"), aliased("", 1, "used"), aliased(&two, 2, "another")].concat());
    expect(&one, "set");
    expect(&one, "used");
    expect(&two, "another");
    client.send_bytes(&[aliased(&two, 1, "moved"), aliased("", 1, "used"), aliased("", 2, "same")].concat());
    expect(&two, "moved");
    expect(&two, "used");
    expect(&two, "same");
    client.expect_silence();
    let (mut client, _) = join_tenant("four", Version::V5);
    client.send_bytes(&aliased("", 1, "of another connection"));
    client.expect_disconnect(Reason::PROTOCOL_ERROR);
}

/// [MQTT5-3.3.2-8] [MQTT5-3.3.2-9] [MQTT5-3.2.2-17] [MQTT5-4.13.1-1]
#[test]
fn alias_0_or_above_the_maximum_ends_the_connection() {
    for alias in [0, 3, 65_535] {
        let (mut client, _) = join_tenant("four", Version::V5);
        client.send_bytes(&aliased("any", alias, "x"));
        client.expect_disconnect(Reason::TOPIC_ALIAS_INVALID);
    }
}

/// [MQTT5-3.3.2-7]: also if the session goes on.
#[test]
fn a_resumed_session_has_no_aliases() {
    let options = lasting(Version::V5, &name("alias"));
    let mut client = resume(&options).0;
    client.send_bytes(&aliased("any/topic", 1, "x"));
    client.expect_silence();
    client.disconnect();
    let mut client = resume(&options).0;
    client.send_bytes(&aliased("", 1, "x"));
    client.expect_disconnect(Reason::PROTOCOL_ERROR);
}

/// Reads messages as a client does that keeps a table of aliases; returns the highest alias seen.
fn read_aliased(client: &mut Client, expected: &[String]) -> u16 {
    let (mut table, mut highest) = (HashMap::new(), 0);
    for topic in expected {
        let received = client.recv_publish();
        let publish = as_publish(&received);
        let alias = publish.properties.topic_alias;
        assert_ne!(alias, Some(0));
        let meant = match (publish.topic, alias) {
            ("", Some(alias)) => table.get(&alias).cloned().expect("set before it is used"),
            ("", None) => panic!("neither topic nor alias: {received:?}"),
            (topic, alias) => {
                if let Some(alias) = alias {
                    table.insert(alias, topic.to_owned());
                }
                topic.to_owned()
            }
        };
        assert_eq!(meant, *topic);
        highest = highest.max(alias.unwrap_or(0));
    }
    highest
}

/// [MQTT5-3.1.2-26] [MQTT5-3.1.2-27] [MQTT5-3.3.2-11] [MQTT5-3.3.2-8] [MQTT5-3.3.2-3]
#[test]
fn the_servers_aliases_stay_within_the_clients_maximum_and_always_mean_the_right_topic() {
    let root = name("alias/long/enough");
    let topics: Vec<String> = (0..60).map(|index| format!("{root}/{}", [0, 1, 0, 2, 3, 0, 1][index % 7])).collect();
    for (maximum, used) in [(0, 0), (1, 1), (3, 3)] {
        let mut client = anybody_with(&block(|w| w.u16(PropertyId::TopicAliasMaximum, maximum)));
        client.subscribe(&format!("{root}/#"), AT_LEAST_ONCE);
        let mut publisher = anybody(Version::V311);
        // One by one, since messages of different topics have no order among themselves.
        for topic in &topics {
            publisher.publish_acked(topic, b"x");
        }
        assert_eq!(read_aliased(&mut client, &topics), used, "maximum {maximum}");
    }
    let mut client = anybody(Version::V5);
    client.subscribe(&format!("{root}/#"), AT_LEAST_ONCE);
    let mut publisher = anybody(Version::V311);
    for topic in &topics {
        publisher.publish_acked(topic, b"x");
    }
    assert_eq!(read_aliased(&mut client, &topics), 0, "no maximum, no aliases");
}

/// [MQTT5-3.3.2-7] [MQTT5-4.4.0-1]: what is sent again on a new connection does not use the aliases of the old one.
#[test]
fn what_is_sent_again_has_its_topic() {
    let mut options = lasting(Version::V5, &name("alias"));
    options.properties.extend(block(|w| w.u16(PropertyId::TopicAliasMaximum, 5)));
    let topic = name("alias/long/enough");
    let mut client = resume(&options).0;
    client.subscribe(&topic, AT_LEAST_ONCE);
    let mut publisher = anybody(Version::V5);
    for _ in 0..4 {
        publisher.publish_acked(&topic, b"x");
        client.recv();
    }
    drop(client);
    let topics = vec![topic; 4];
    read_aliased(&mut resume(&options).0, &topics);
}
