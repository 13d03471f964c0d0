//! Chapter 4.8 of 5.0: shared subscriptions, here in every version, and the ordered ones of this broker.

use crate::suite::{
    ALL, AT_LEAST_ONCE, AT_MOST_ONCE, EXACTLY_ONCE, anybody, as_publish, broker, expect_ack, expect_payload, lasting,
    name, resume, subscribe_as,
};
use bifro_core::client::Version;
use bifro_mqtt::packet::{Ack, Packet};
use bifro_mqtt::property::Properties;
use bifro_mqtt::reason::Reason;
use bifro_tests::client::AckKind;
use bifro_tests::{Client, ConnectOptions};
use std::collections::BTreeMap;
use std::time::Duration;

/// Everything that has arrived, acknowledged: a PING marks the end.
fn drain(client: &mut Client) -> Vec<Vec<u8>> {
    client.send(&Packet::PingReq);
    let mut payloads = Vec::new();
    loop {
        let received = client.recv();
        match received.packet() {
            Packet::PingResp => return payloads,
            Packet::Publish(publish) => {
                if let Some(packet_id) = publish.packet_id {
                    client.ack(AckKind::PubAck, packet_id);
                }
                payloads.push(publish.payload.to_vec());
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
}

/// [MQTT5-4.8.2-1] [MQTT5-4.8.2-2]
#[test]
fn malformed_shared_filters_are_refused() {
    for version in ALL {
        let mut client = anybody(version);
        let refused = if version == Version::V5 { 0x8F } else { 0x80 };
        for prefix in ["$share", "$oshare"] {
            for bad in ["", "/", "//a", "/g", "/g/", "/g+/a", "/#/a", "/+/a", "/g#x/a"] {
                let full = format!("{prefix}{bad}");
                // Without anything behind it, it is a filter like any other that begins with a dollar sign.
                let expected = if bad.is_empty() { 0 } else { refused };
                assert_eq!(client.subscribe(&full, AT_MOST_ONCE), expected, "{version:?} {full}");
            }
            assert_eq!(client.subscribe(&format!("{prefix}/g/a/+/#"), AT_LEAST_ONCE), 1);
        }
    }
}

/// [MQTT5-4.8.2-1] [MQTT-4.5.0-1] [MQTT5-4.5.0-1]: each message goes to one member of each group, and to all others.
#[test]
fn each_message_goes_to_exactly_one_member_of_each_group() {
    let root = name("shared");
    let mut members: Vec<(usize, Client)> = (0..6)
        .map(|index| {
            let mut client = anybody(ALL[index % 3]);
            client.subscribe(&format!("$share/{}/{root}/+", index % 2), AT_LEAST_ONCE);
            (index % 2, client)
        })
        .collect();
    let mut plain = anybody(Version::V5);
    plain.subscribe(&format!("{root}/#"), AT_LEAST_ONCE);
    let mut publisher = anybody(Version::V5);
    for sequence in 0..60 {
        publisher.publish_acked(&format!("{root}/x"), sequence.to_string().as_bytes());
    }
    let mut seen: BTreeMap<(usize, Vec<u8>), u32> = BTreeMap::new();
    for (group, member) in &mut members {
        let payloads = drain(member);
        assert!(!payloads.is_empty(), "everybody gets a share");
        payloads.into_iter().for_each(|payload| *seen.entry((*group, payload)).or_default() += 1);
    }
    assert_eq!(seen.len(), 120, "every message in both groups");
    assert!(seen.values().all(|&times| times == 1));
    assert_eq!(drain(&mut plain).len(), 60);
}

/// [MQTT5-4.8.2-3]
#[test]
fn shared_deliveries_keep_to_the_granted_qos() {
    for version in ALL {
        let topic = name("shared/");
        for granted in crate::suite::QOS {
            let mut member = anybody(version);
            member.subscribe(&format!("$share/g/{topic}"), granted);
            let mut publisher = anybody(Version::V5);
            for qos in crate::suite::QOS {
                publisher.publish(&topic, b"x", qos, false);
                assert_eq!(as_publish(&expect_payload(&mut member, "x")).qos, qos.min(granted));
            }
        }
    }
}

/// Section 4.8.2 of 5.0, [MQTT5-3.3.1-9]: no retained messages when a shared subscription is made.
#[test]
fn a_shared_subscription_gets_no_retained_messages() {
    for version in ALL {
        let topic = name("shared/");
        let mut publisher = anybody(version);
        publisher.publish(&topic, b"kept", AT_LEAST_ONCE, true);
        publisher.recv();
        let mut member = anybody(version);
        member.subscribe(&format!("$share/g/{topic}"), AT_LEAST_ONCE);
        member.expect_silence();
        member.subscribe(&topic, AT_LEAST_ONCE);
        expect_payload(&mut member, "kept");
    }
}

/// [MQTT5-4.8.2-4]
#[test]
fn a_qos_2_delivery_begun_with_a_member_is_completed_with_it() {
    for version in ALL {
        let (options, topic) = (lasting(version, &name("member")), name("shared/"));
        let mut member = resume(&options).0;
        member.subscribe(&format!("$share/g/{topic}"), EXACTLY_ONCE);
        anybody(version).publish_exactly_once(&topic, b"x");
        let first = member.recv();
        let packet_id = as_publish(&first).packet_id.expect("QoS 2");
        drop(member);
        let mut other = anybody(version);
        other.subscribe(&format!("$share/g/{topic}"), EXACTLY_ONCE);
        let mut member = resume(&options).0;
        let again = member.recv();
        assert_eq!((as_publish(&again).packet_id, as_publish(&again).dup), (Some(packet_id), true));
        member.ack(AckKind::PubRec, packet_id);
        expect_ack(&mut member, "PUBREL", packet_id.get());
        drop(member);
        let mut member = resume(&options).0;
        expect_ack(&mut member, "PUBREL", packet_id.get());
        member.ack(AckKind::PubComp, packet_id);
        member.expect_silence();
        other.expect_silence();
    }
}

/// [MQTT5-4.8.2-5]
#[test]
fn a_qos_2_delivery_begun_with_a_member_whose_session_ends_goes_to_nobody_else() {
    for version in ALL {
        let topic = name("shared/");
        let mut leaves = anybody(version);
        leaves.subscribe(&format!("$share/g/{topic}"), EXACTLY_ONCE);
        anybody(version).publish_exactly_once(&topic, b"begun");
        assert_eq!(as_publish(&leaves.recv()).payload, b"begun");
        let mut stays = anybody(version);
        stays.subscribe(&format!("$share/g/{topic}"), EXACTLY_ONCE);
        leaves.disconnect();
        assert!(stays.recv_within(Duration::from_millis(200)).is_none(), "{version:?}");
    }
}

/// Section 4.8.2 of 5.0: a QoS 1 message that a leaving member has not acknowledged may go to another.
#[test]
fn a_qos_1_message_of_a_member_that_leaves_goes_to_another() {
    for version in ALL {
        let topic = name("shared/");
        let mut leaves = anybody(version);
        leaves.subscribe(&format!("$share/g/{topic}"), AT_LEAST_ONCE);
        anybody(version).publish_acked(&topic, b"x");
        assert_eq!(as_publish(&leaves.recv()).payload, b"x");
        let mut stays = anybody(version);
        stays.subscribe(&format!("$share/g/{topic}"), AT_LEAST_ONCE);
        leaves.disconnect();
        expect_payload(&mut stays, "x");
    }
}

/// [MQTT5-4.8.2-6] [MQTT5-4.4.0-2]
#[test]
fn a_message_that_a_member_refuses_is_tried_with_nobody_else() {
    let topic = name("shared/");
    let mut members = [anybody(Version::V5), anybody(Version::V5)];
    for member in &mut members {
        member.subscribe(&format!("$share/g/{topic}"), EXACTLY_ONCE);
    }
    let mut publisher = anybody(Version::V5);
    for qos in [AT_LEAST_ONCE, EXACTLY_ONCE] {
        publisher.publish(&topic, b"x", qos, false);
        publisher.recv();
        let mut received = Vec::new();
        for member in &mut members {
            if let Some(Some(packet)) = member.recv_within(Duration::from_millis(150)) {
                let packet_id = as_publish(&packet).packet_id.expect("QoS above 0");
                let ack = Ack { packet_id, reason: Reason::UNSPECIFIED_ERROR, properties: Properties::default() };
                member.send(&if qos == AT_LEAST_ONCE { Packet::PubAck(ack) } else { Packet::PubRec(ack) });
                received.push(packet);
            }
        }
        assert_eq!(received.len(), 1);
        members.iter_mut().for_each(Client::expect_silence);
    }
}

/// [MQTT5-3.3.4-3] [MQTT5-3.3.4-5]
#[test]
fn shared_and_plain_subscriptions_of_one_client_each_carry_their_identifier() {
    let topic = name("shared/");
    let mut client = anybody(Version::V5);
    subscribe_as(&mut client, &format!("$share/g/{topic}"), AT_MOST_ONCE, 3);
    subscribe_as(&mut client, &topic, AT_MOST_ONCE, 4);
    anybody(Version::V5).publish_acked(&topic, b"x");
    let mut ids: Vec<u32> = Vec::new();
    for _ in 0..2 {
        let received = expect_payload(&mut client, "x");
        let of_copy: Vec<u32> = as_publish(&received).properties.all.subscription_ids().map(|id| id.get()).collect();
        ids.extend(&of_copy);
        if of_copy.len() == 2 {
            break;
        }
    }
    ids.sort_unstable();
    assert_eq!(ids, [3, 4]);
    client.expect_silence();
}

/// This broker's ordered groups: what one publisher sends goes to one member, in order [MQTT5-4.6.0-5].
#[test]
fn an_ordered_group_keeps_each_publishers_messages_together() {
    for version in ALL {
        let topic = name("ordered/");
        let mut members = [anybody(version), anybody(version), anybody(version)];
        for member in &mut members {
            member.subscribe(&format!("$oshare/g/{topic}"), AT_LEAST_ONCE);
        }
        for publisher in 0..6 {
            let mut client = anybody(version);
            for sequence in 0..10 {
                client.publish_acked(&topic, format!("{publisher}:{sequence}").as_bytes());
            }
        }
        let mut publishers_seen = 0;
        for member in &mut members {
            let mut next: BTreeMap<String, u32> = BTreeMap::new();
            for payload in drain(member) {
                let payload = String::from_utf8(payload).expect("text");
                let (publisher, sequence) = payload.split_once(':').expect("two parts");
                let expected = next.entry(publisher.to_owned()).or_default();
                assert_eq!(sequence.parse(), Ok(*expected), "in order and complete");
                *expected += 1;
            }
            assert!(next.values().all(|&count| count == 10), "all of a publisher's messages: {next:?}");
            publishers_seen += next.len();
        }
        assert_eq!(publishers_seen, 6);
    }
}

/// [MQTT5-4.8.2-3]: a member that is away takes part with its stored session, if nobody is there.
#[test]
fn a_group_without_a_live_member_keeps_its_messages() {
    for version in ALL {
        let (options, topic) = (lasting(version, &name("member")), name("shared/"));
        let mut member = resume(&options).0;
        member.subscribe(&format!("$share/g/{topic}"), AT_LEAST_ONCE);
        member.disconnect();
        anybody(version).publish_acked(&topic, b"kept");
        let (mut member, _) = Client::connect_with(broker().tcp(), &options);
        expect_payload(&mut member, "kept");
    }
}

/// [MQTT-3.10.4-2] [MQTT5-3.10.4-2]
#[test]
fn whoever_leaves_the_group_gets_nothing_more() {
    for version in ALL {
        let topic = name("shared/");
        let (mut leaves, mut stays) = (anybody(version), anybody(version));
        let full = format!("$share/g/{topic}");
        leaves.subscribe(&full, AT_LEAST_ONCE);
        stays.subscribe(&full, AT_LEAST_ONCE);
        leaves.unsubscribe(&full);
        let (mut publisher, _) = Client::connect_with(broker().tcp(), &ConnectOptions::new(version, &name("p")));
        for _ in 0..8 {
            publisher.publish_acked(&topic, b"x");
            expect_payload(&mut stays, "x");
        }
        leaves.expect_silence();
    }
}
