//! PUBLISH from the client, and its acknowledgements.

use super::rig::{Rig, props, publish, publish_with};
use crate::packet::Packet;
use crate::property::PropertyId as P;
use crate::session::Published;
use bifro_core::client::Version::{V5, V311};
use bifro_core::message::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use bifro_core::ports::PortError;
use bifro_core::settings::{QuotaLimits, TenantSettings};
use std::string::String;
use std::time::Duration;
use std::vec::Vec;

const DONE: Published = Published::Done { matched: true };

fn v5() -> Rig {
    Rig::connected(V5, TenantSettings::default())
}

fn v311() -> Rig {
    Rig::connected(V311, TenantSettings::default())
}

/// [MQTT-4.3.1-1]
#[test]
fn qos0_is_routed_and_not_answered() {
    let mut rig = v311();
    assert_eq!(rig.publish(AtMostOnce, 0, "a/b", "x"), ["route a/b x q0"]);
}

/// [MQTT-4.3.2-2] [MQTT5-4.3.2-4]
#[test]
fn qos1_is_acknowledged_when_it_has_been_taken_over() {
    let mut rig = v311();
    assert_eq!(rig.publish(AtLeastOnce, 7, "a", "x"), ["route a x q1 token=0"]);
    assert_eq!(rig.published(0, DONE), ["PUBACK 7 00"]);
    assert_eq!(rig.bytes, [0x40, 2, 0, 7]);
    assert_eq!(rig.published(0, DONE), [""; 0], "a token counts once");
}

/// [MQTT-4.6.0-2] [MQTT-4.6.0-3] [MQTT5-4.6.0-2] [MQTT5-4.6.0-3]
#[test]
fn acknowledgements_keep_the_order_of_the_publishes() {
    let mut rig = v5();
    rig.publish(AtLeastOnce, 1, "a", "x");
    rig.publish(ExactlyOnce, 2, "a", "x");
    rig.publish(AtLeastOnce, 3, "a", "x");
    assert_eq!(rig.published(2, DONE), [""; 0]);
    assert_eq!(rig.published(1, DONE), [""; 0]);
    assert_eq!(rig.published(0, DONE), ["PUBACK 1 00", "PUBREC 2 00", "PUBACK 3 00"]);
}

/// [MQTT-4.3.3-2] [MQTT5-4.3.3-8] [MQTT5-4.3.3-10] [MQTT5-4.3.3-11] [MQTT5-4.3.3-12]
#[test]
fn qos2_is_routed_once_however_often_it_is_sent_before_pubrel() {
    for mut rig in [v311(), v5()] {
        assert_eq!(rig.publish(ExactlyOnce, 5, "a", "x"), ["route a x q2 token=0"]);
        assert_eq!(rig.publish(ExactlyOnce, 5, "a", "x"), [""; 0], "its PUBREC answers both");
        assert_eq!(rig.published(0, DONE), ["PUBREC 5 00"]);
        for _ in 0..1_000 {
            assert_eq!(rig.publish(ExactlyOnce, 5, "a", "x"), ["PUBREC 5 00"]);
        }
        assert_eq!(rig.ack(Packet::PubRel, 5), ["PUBCOMP 5 00"]);
        assert!(rig.publish(ExactlyOnce, 5, "a", "y")[0].starts_with("route a y q2"), "a new message");
    }
}

/// [MQTT-4.3.3-2] [MQTT5-4.3.3-11]
#[test]
fn pubrel_of_an_unknown_identifier_is_answered_as_the_version_allows() {
    assert_eq!(v311().ack(Packet::PubRel, 9), ["PUBCOMP 9 00"]);
    assert_eq!(v5().ack(Packet::PubRel, 9), ["PUBCOMP 9 92"]);
}

#[test]
fn a_failure_is_told_to_5_0_and_frees_the_identifier_while_311_hears_nothing_and_retries() {
    let mut rig = v5();
    rig.publish(ExactlyOnce, 1, "a", "x");
    rig.publish(AtLeastOnce, 2, "a", "x");
    assert_eq!(rig.published(0, Published::Failed(PortError::QuotaExceeded)), ["PUBREC 1 97"]);
    assert_eq!(rig.published(1, Published::Failed(PortError::Unavailable)), ["PUBACK 2 83"]);
    assert_eq!(rig.publish(ExactlyOnce, 1, "a", "x"), ["route a x q2 token=2"]);
    let mut rig = v311();
    rig.publish(ExactlyOnce, 1, "a", "x");
    assert_eq!(rig.published(0, Published::Failed(PortError::Unavailable)), [""; 0]);
    assert_eq!(rig.publish(ExactlyOnce, 1, "a", "x"), ["route a x q2 token=1"]);
}

#[test]
fn nobody_listening_is_told_to_5_0_only() {
    let unmatched = Published::Done { matched: false };
    let mut rig = v5();
    rig.publish(AtLeastOnce, 1, "a", "x");
    rig.publish(ExactlyOnce, 2, "a", "x");
    assert_eq!(rig.published(0, unmatched), ["PUBACK 1 10"]);
    assert_eq!(rig.published(1, unmatched), ["PUBREC 2 10"]);
    let mut rig = v311();
    rig.publish(AtLeastOnce, 1, "a", "x");
    assert_eq!(rig.published(0, unmatched), ["PUBACK 1 00"]);
}

/// [MQTT5-3.3.4-7]
#[test]
fn receive_maximum_is_enforced_exactly() {
    let settings = TenantSettings { receive_maximum: 2, ..TenantSettings::default() };
    let mut rig = Rig::connected(V5, settings.clone());
    rig.publish(ExactlyOnce, 1, "a", "x");
    rig.publish(AtLeastOnce, 2, "a", "x");
    rig.published(0, DONE);
    rig.published(1, DONE);
    assert_eq!(rig.publish(AtLeastOnce, 3, "a", "x"), ["route a x q1 token=2"], "PUBREC alone does not end QoS 2");
    assert_eq!(rig.publish(ExactlyOnce, 1, "a", "x"), [""; 0], "a repetition takes no place of its own");
    let lines = rig.publish(AtLeastOnce, 4, "a", "x");
    assert!(lines[0].starts_with("DISCONNECT 93"), "{lines:?}");
    let mut rig = Rig::connected(V5, settings);
    rig.publish(ExactlyOnce, 1, "a", "x");
    rig.publish(ExactlyOnce, 2, "a", "x");
    rig.published(0, DONE);
    rig.published(1, DONE);
    rig.ack(Packet::PubRel, 1);
    assert_eq!(rig.publish(ExactlyOnce, 3, "a", "x"), ["route a x q2 token=2"]);
}

#[test]
fn a_311_client_that_sends_too_much_is_read_from_later() {
    let mut rig = Rig::connected(V311, TenantSettings { receive_maximum: 2, ..TenantSettings::default() });
    rig.publish(AtLeastOnce, 1, "a", "x");
    assert!(rig.session.wants_packets());
    rig.publish(AtLeastOnce, 2, "a", "x");
    assert!(!rig.session.wants_packets());
    rig.published(0, DONE);
    assert!(rig.session.wants_packets());
}

/// [MQTT5-2.2.1-3]
#[test]
fn an_identifier_in_use_with_the_other_qos_is_refused_in_turn() {
    let mut rig = v5();
    rig.publish(ExactlyOnce, 1, "a", "x");
    assert_eq!(rig.publish(AtLeastOnce, 1, "a", "x"), [""; 0]);
    assert_eq!(rig.published(0, DONE), ["PUBREC 1 00", "PUBACK 1 91"]);
}

/// [MQTT5-3.3.2-7] [MQTT5-3.3.2-8] [MQTT5-3.3.2-9] [MQTT5-3.3.2-12]
#[test]
fn a_topic_alias_stands_for_the_topic_it_was_last_set_to() {
    let block = |alias: u16| {
        props(|p| {
            p.u16(P::TopicAlias, alias);
        })
    };
    let (one, ten, eleven, zero) = (block(1), block(10), block(11), block(0));
    let mut rig = v5();
    assert_eq!(rig.feed(&publish_with(AtMostOnce, 0, "a/b", "x", &one)), ["route a/b x q0"]);
    assert_eq!(rig.feed(&publish_with(AtMostOnce, 0, "", "y", &one)), ["route a/b y q0"]);
    assert_eq!(rig.feed(&publish_with(AtMostOnce, 0, "c", "z", &one)), ["route c z q0"]);
    assert_eq!(rig.feed(&publish_with(AtMostOnce, 0, "", "z", &one)), ["route c z q0"]);
    let lines = rig.feed(&publish_with(AtMostOnce, 0, "", "y", &ten));
    assert!(lines[0].starts_with("DISCONNECT 82"), "{lines:?}");
    for block in [&eleven, &zero] {
        let lines = v5().feed(&publish_with(AtMostOnce, 0, "a", "x", block));
        assert!(lines[0].starts_with("DISCONNECT 94"), "{lines:?}");
    }
}

/// [MQTT-3.3.2-2] [MQTT-4.7.1-1] [MQTT5-3.3.2-2] [MQTT5-4.7.0-1]
#[test]
fn a_wildcard_in_a_topic_name_ends_the_session() {
    for topic in ["a/+", "#"] {
        let lines = v5().publish(AtLeastOnce, 1, topic, "x");
        assert!(lines[0].starts_with("DISCONNECT 90"), "{lines:?}");
        assert_eq!(v311().publish(AtMostOnce, 0, topic, "x"), ["unregister", "close Violation(Reason(144))"]);
    }
    let mut rig = Rig::connected(V5, TenantSettings { topic_levels_max: 2, ..TenantSettings::default() });
    assert!(rig.publish(AtMostOnce, 0, "a/b/c", "x")[0].starts_with("DISCONNECT 90"));
}

/// [MQTT5-3.3.2-14] [MQTT5-3.3.4-6]
#[test]
fn a_response_topic_with_wildcards_and_a_subscription_id_are_protocol_errors() {
    let response = props(|p| {
        p.str(P::ResponseTopic, "r/#");
    });
    let id = props(|p| {
        p.varint(P::SubscriptionIdentifier, 1);
    });
    for block in [response, id] {
        let lines = v5().feed(&publish_with(AtMostOnce, 0, "a", "x", &block));
        assert!(lines[0].starts_with("DISCONNECT 82"), "{lines:?}");
    }
}

/// [MQTT5-3.2.2-11] [MQTT5-3.2.2-14]
#[test]
fn what_was_announced_as_unavailable_must_not_be_used() {
    let settings = TenantSettings { maximum_qos: 1, retain_enabled: false, ..TenantSettings::default() };
    let mut rig = Rig::connected(V5, settings.clone());
    assert!(rig.publish(ExactlyOnce, 1, "a", "x")[0].starts_with("DISCONNECT 9b"));
    let mut retained = publish(AtMostOnce, 0, "a", "x");
    retained.retain = true;
    let mut rig = Rig::connected(V5, settings.clone());
    assert!(rig.feed(&Packet::Publish(retained))[0].starts_with("DISCONNECT 9a"));
    let mut rig = Rig::connected(V311, settings);
    assert_eq!(rig.feed(&Packet::Publish(retained)), ["route a x q0"], "3.1.1 was not told: routed, not kept");
    assert_eq!(v311().feed(&Packet::Publish(retained)), ["route a x q0 retain"]);
}

/// [MQTT-3.3.5-2]
#[test]
fn a_publish_without_permission_is_refused_to_5_0_and_swallowed_for_311() {
    let denied = |version| {
        let mut rig = Rig::connected(version, TenantSettings::default());
        rig.acl.denied_publish.push("no");
        rig.shows_events = true;
        rig
    };
    let mut rig = denied(V5);
    assert_eq!(rig.publish(AtLeastOnce, 1, "no", "x"), ["PUBACK 1 87", "event pub_action_disallow"]);
    assert_eq!(rig.publish(ExactlyOnce, 2, "no", "x"), ["PUBREC 2 87", "event pub_action_disallow"]);
    assert_eq!(rig.publish(AtMostOnce, 0, "no", "x"), ["event pub_action_disallow"]);
    assert_eq!(rig.publish(ExactlyOnce, 2, "yes", "x"), ["route yes x q2 token=2"], "the identifier is free");
    let mut rig = denied(V311);
    assert_eq!(rig.publish(AtLeastOnce, 1, "no", "x"), ["PUBACK 1 00", "event pub_action_disallow"]);
    assert_eq!(rig.publish(ExactlyOnce, 2, "no", "x"), ["PUBREC 2 00", "event pub_action_disallow"]);
    assert_eq!(rig.ack(Packet::PubRel, 2), ["PUBCOMP 2 00"]);
}

#[test]
fn permission_is_asked_again_after_a_reload() {
    let mut rig = v5();
    assert_eq!(rig.publish(AtMostOnce, 0, "t", "x"), ["route t x q0"]);
    rig.acl.denied_publish.push("t");
    assert_eq!(rig.publish(AtMostOnce, 0, "t", "x"), ["route t x q0"], "remembered");
    rig.step(|session, cx, out| session.handle_reloaded(cx, out));
    assert_eq!(rig.publish(AtMostOnce, 0, "t", "x"), [""; 0]);
}

/// [MQTT5-3.3.2-4]
#[test]
fn a_payload_that_is_not_what_it_claims_is_refused() {
    let block = props(|p| {
        p.byte(P::PayloadFormatIndicator, 1);
    });
    let bad = |qos, id| {
        let Packet::Publish(mut publish) = publish_with(qos, id, "a", "", &block) else { unreachable!() };
        publish.payload = &[0xff];
        Packet::Publish(publish)
    };
    assert_eq!(v5().feed(&bad(AtLeastOnce, 1)), ["PUBACK 1 99"]);
    assert_eq!(v5().feed(&bad(ExactlyOnce, 1)), ["PUBREC 1 99"]);
    assert!(v5().feed(&bad(AtMostOnce, 0))[0].starts_with("DISCONNECT 99"));
    let mut rig = Rig::connected(V5, TenantSettings { payload_format_validation: false, ..TenantSettings::default() });
    assert!(rig.feed(&bad(AtMostOnce, 0))[0].starts_with("route a"));
}

/// [MQTT5-3.3.2-5] [MQTT5-3.3.2-17] [MQTT5-3.3.2-18]
#[test]
fn expiry_becomes_a_time_and_the_other_properties_go_on() {
    let block = props(|p| {
        p.str(P::ContentType, "text").u32(P::MessageExpiryInterval, 30).pair(P::UserProperty, "k", "v");
    });
    let lines = v5().feed(&publish_with(AtMostOnce, 0, "a", "x", &block));
    assert_eq!(lines, ["route a x q0 expires=30s ContentType=Str(\"text\") UserProperty=Pair(\"k\", \"v\")"]);
}

#[test]
fn a_payload_above_the_limit_ends_the_session() {
    let settings = TenantSettings { payload_bytes_max: 3, ..TenantSettings::default() };
    assert_eq!(Rig::connected(V5, settings.clone()).publish(AtMostOnce, 0, "a", "abc"), ["route a abc q0"]);
    assert!(Rig::connected(V5, settings).publish(AtMostOnce, 0, "a", "abcd")[0].starts_with("DISCONNECT 95"));
}

#[test]
fn publishes_beyond_the_rate_end_the_session_and_a_second_s_worth_may_come_at_once() {
    let settings = TenantSettings { publish_rate_max: 10, ..TenantSettings::default() };
    let mut rig = Rig::connected(V5, settings.clone());
    let burst: Vec<String> = (0..10).flat_map(|_| rig.publish(AtMostOnce, 0, "a", "x")).collect();
    assert!(burst.iter().all(|line| line == "route a x q0"));
    rig.advance(Duration::from_millis(100));
    assert_eq!(rig.publish(AtMostOnce, 0, "a", "x"), ["route a x q0"]);
    assert!(rig.publish(AtMostOnce, 0, "a", "x")[0].starts_with("DISCONNECT 96"));
    assert_eq!(rig.tally.publish_rate_exceeded, 1);
}

#[test]
fn a_tenant_over_its_bytes_per_second_drops_qos0_and_refuses_the_rest() {
    let mut rig = v5();
    rig.tenant.quota.set_limits(&QuotaLimits { total_inbound_bytes_per_second: 4, ..QuotaLimits::default() });
    assert_eq!(rig.publish(AtMostOnce, 0, "a", "xyz"), ["route a xyz q0"]);
    assert_eq!(rig.publish(AtMostOnce, 0, "a", "x"), [""; 0]);
    assert_eq!(rig.publish(AtLeastOnce, 1, "a", "x"), ["PUBACK 1 97"]);
    let mut rig = v311();
    rig.tenant.quota.set_limits(&QuotaLimits { total_inbound_bytes_per_second: 1, ..QuotaLimits::default() });
    assert_eq!(rig.publish(AtLeastOnce, 1, "a", "x"), [""; 0], "it tries again");
}
