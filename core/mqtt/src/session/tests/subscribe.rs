//! SUBSCRIBE, UNSUBSCRIBE, retained messages, revoked permissions.

use super::rig::{Rig, inbox_message, message, present, props, sub};
use crate::packet::SubscribeFilter;
use crate::property::PropertyId as P;
use crate::session::Token;
use bifro_core::client::Version::{V5, V311};
use bifro_core::ids::PublisherKey;
use bifro_core::message::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use bifro_core::message::{MessageView, QoS};
use bifro_core::ports::{Attached, PortError, RetainedMessage, SubOptions};
use bifro_core::settings::{QuotaLimits, Resource, TenantSettings};
use std::format;
use std::vec;
use std::vec::Vec;

fn v5() -> Rig {
    Rig::connected(V5, TenantSettings::default())
}

fn v311() -> Rig {
    Rig::connected(V311, TenantSettings::default())
}

/// [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-4] [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.9.3-1]
#[test]
fn suback_has_one_code_per_filter_once_all_are_known() {
    let mut rig = Rig::connected(V311, TenantSettings { maximum_qos: 1, ..TenantSettings::default() });
    let lines = rig.subscribe(9, &[("a/+", 0), ("b", 2), ("bad#", 1)]);
    assert_eq!(lines, ["subscribe [0] a/+ q0", "subscribe [1] b q1"]);
    assert_eq!(rig.subscribed(1), [""; 0]);
    assert_eq!(rig.subscribed(0), ["SUBACK 9 [00, 01, 80]", "find retained [2] a/+", "find retained [3] b"]);
    assert_eq!(rig.session.subscriptions().map(|(full, _)| full).collect::<Vec<_>>(), ["a/+", "b"]);
}

#[test]
fn subacks_and_unsubacks_keep_the_order_of_their_requests() {
    let mut rig = v311();
    rig.subscribe(1, &[("a", 0)]);
    assert_eq!(rig.unsubscribe(2, &["a", "b"]), ["unsubscribe [1] a"]);
    rig.subscribe(3, &[("c", 0)]);
    assert_eq!(rig.subscribed(2), [""; 0]);
    assert_eq!(rig.unsubscribed(1), [""; 0]);
    // What was unsubscribed meanwhile gets no retained messages.
    assert_eq!(rig.subscribed(0), ["SUBACK 1 [00]", "UNSUBACK 2 []", "SUBACK 3 [00]", "find retained [3] c"]);
}

/// [MQTT-3.8.4-3] [MQTT5-3.8.4-3]
#[test]
fn the_same_filter_replaces_the_subscription() {
    let mut rig = v311();
    rig.subscribe(1, &[("a", 0)]);
    rig.subscribed(0);
    assert_eq!(rig.subscribe(2, &[("a", 2)]), ["subscribe [2] a q2 replaces"]);
    assert_eq!(rig.tenant.quota.used(Resource::TotalTransientSubscriptions), 1);
}

/// [MQTT5-3.8.3-4]
#[test]
fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    let filter = SubscribeFilter { no_local: true, ..sub("$share/g/a", 1) };
    let lines = v5().subscribe_with(1, vec![filter], &[]);
    assert!(lines[0].starts_with("DISCONNECT 82"), "{lines:?}");
}

/// [MQTT5-3.9.3-1] [MQTT5-4.8.2-1] [MQTT5-4.8.2-2]
#[test]
fn every_obstacle_has_its_code() {
    let settings = TenantSettings {
        shared_subscription_enabled: false,
        wildcard_subscription_enabled: false,
        subscriptions_per_session_max: 1,
        ..TenantSettings::default()
    };
    let mut rig = Rig::connected(V5, settings);
    rig.acl.denied_subscribe.push("no");
    let filters = [("$share/g/a", 0), ("a/#", 0), ("no", 0), ("a#", 0), ("$share//a", 0), ("ok", 0), ("more", 0)];
    assert_eq!(rig.subscribe(1, &filters), ["subscribe [0] ok q0"]);
    let lines = rig.subscribed(0);
    assert_eq!(lines[0], "SUBACK 1 [9e, a2, 87, 8f, 8f, 00, 97]");
    let block = props(|p| {
        p.varint(P::SubscriptionIdentifier, 5);
    });
    let settings = TenantSettings { subscription_identifier_enabled: false, ..TenantSettings::default() };
    let mut rig = Rig::connected(V5, settings);
    assert_eq!(rig.subscribe_with(1, vec![sub("a", 0)], &block), ["SUBACK 1 [a1]"]);
    let mut rig = Rig::connected(V5, TenantSettings { filters_per_packet_max: 1, ..TenantSettings::default() });
    assert_eq!(rig.subscribe(1, &[("a", 0), ("b", 0)]), ["SUBACK 1 [97, 97]"]);
    let mut rig = Rig::connected(V311, TenantSettings { filters_per_packet_max: 1, ..TenantSettings::default() });
    assert_eq!(rig.subscribe(1, &[("a", 0), ("b", 0)]), ["SUBACK 1 [80, 80]"]);
}

/// [MQTT-4.4.0-1] [MQTT5-4.4.0-1]
#[test]
fn retained_messages_not_acknowledged_are_left_to_the_inbox() {
    let settings = TenantSettings { send_maximum: 3, ..TenantSettings::default() };
    let (mut rig, _) = Rig::resumed(V311, settings, present());
    rig.subscribe(1, &[("#", 2)]);
    rig.subscribed(0);
    let each = [("0", ExactlyOnce), ("1", AtLeastOnce), ("2", ExactlyOnce), ("3", AtLeastOnce), ("4", AtMostOnce)];
    let messages = each.map(|(text, qos)| retained("a", text, qos, &rig)).into();
    assert_eq!(found(&mut rig, 1, messages).len(), 3);
    rig.inbox(vec![inbox_message(9, AtLeastOnce, "stored")]);
    rig.ack(crate::packet::Packet::PubRec, 8);
    let detach = rig.closed().remove(0);
    let left = "in_flight=[(6, false, 0 q2), (7, false, 1 q1), (8, true, 2 q2)] waiting=3";
    assert!(detach.ends_with(left), "{detach}: the QoS 0 message is gone, what the inbox has stays there");
}

/// [MQTT5-3.8.3-3]
#[test]
fn options_and_groups_reach_the_driver() {
    let block = props(|p| {
        p.varint(P::SubscriptionIdentifier, 5);
    });
    let filter = SubscribeFilter { no_local: true, retain_as_published: true, ..sub("a", 1) };
    let lines = v5().subscribe_with(1, vec![filter, sub("$oshare/g/b/#", 2)], &block);
    assert_eq!(
        lines,
        [
            "subscribe [0] a q1 no_local as_published id=5",
            "subscribe [1] b/# of $oshare/g/b/# q2 group=g ordered=true id=5"
        ]
    );
}

#[test]
fn a_refused_subscription_leaves_what_was_there_before() {
    let mut rig = v5();
    rig.subscribe(1, &[("a", 1), ("b", 1)]);
    rig.subscribed(0);
    let ((), lines) =
        rig.step(|session, cx, out| session.handle_subscribed(cx, Token(1), Err(PortError::QuotaExceeded), out));
    assert_eq!(lines, ["SUBACK 1 [01, 97]", "find retained [2] a"]);
    assert_eq!(rig.tenant.quota.used(Resource::TotalTransientSubscriptions), 1);
    rig.subscribe(2, &[("a", 2)]);
    let ((), lines) =
        rig.step(|session, cx, out| session.handle_subscribed(cx, Token(3), Err(PortError::Unavailable), out));
    assert_eq!(lines, ["SUBACK 2 [83]"]);
    let options: Vec<_> =
        rig.session.subscriptions().map(|(full, options)| format!("{full} {:?}", options.qos)).collect();
    assert_eq!(options, ["a AtLeastOnce"]);
}

#[test]
fn a_transient_session_gives_its_subscriptions_back() {
    let mut rig = v5();
    rig.tenant.quota.set_limits(&QuotaLimits {
        total_transient_subscriptions: 3,
        total_shared_subscriptions: 1,
        ..QuotaLimits::default()
    });
    let lines = rig.subscribe(1, &[("$share/g/a", 0), ("$share/g/b", 0), ("c", 0), ("d", 0), ("e", 0)]);
    assert_eq!(lines.len(), 3);
    for token in 0..3 {
        rig.subscribed(token);
    }
    assert_eq!(rig.tenant.quota.used(Resource::TotalTransientSubscriptions), 3);
    rig.unsubscribe(2, &["$share/g/a"]);
    assert_eq!(rig.tenant.quota.used(Resource::TotalSharedSubscriptions), 0);
    rig.closed();
    assert_eq!(rig.tenant.quota.used(Resource::TotalTransientSubscriptions), 0);
    assert_eq!(rig.session.subscriptions().count(), 2, "the driver may still read what to take down");
}

/// [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT5-3.10.4-4] [MQTT5-3.11.3-1]
#[test]
fn unsuback_says_what_there_was_to_end() {
    let mut rig = v5();
    rig.subscribe(1, &[("a", 0)]);
    rig.subscribed(0);
    assert_eq!(rig.unsubscribe(2, &["a", "A", "a"]), ["unsubscribe [2] a"]);
    assert_eq!(rig.unsubscribed(2), ["UNSUBACK 2 [00, 11, 11]"]);
    assert_eq!(v311().unsubscribe(7, &["nothing"]), ["UNSUBACK 7 []"]);
    assert_eq!(v5().unsubscribe(7, &["nothing"]), ["UNSUBACK 7 [11]"]);
}

#[test]
fn too_many_requests_at_once_stop_the_reading() {
    let mut rig = v311();
    for id in 1..=8 {
        assert!(rig.session.wants_packets());
        rig.subscribe(id, &[("a", 0)]);
    }
    assert!(!rig.session.wants_packets());
    rig.subscribed(0);
    assert!(rig.session.wants_packets());
}

fn retained(topic: &str, payload: &str, qos: QoS, rig: &Rig) -> RetainedMessage {
    let publisher = rig.session.client().expect("connected").clone();
    RetainedMessage { message: message(topic, payload, qos), publisher }
}

fn found(rig: &mut Rig, token: u32, messages: Vec<RetainedMessage>) -> Vec<std::string::String> {
    rig.step(|session, cx, out| session.handle_retained(cx, Token(token), messages, out)).1
}

/// [MQTT-3.3.1-6] [MQTT-3.3.1-8] [MQTT5-3.3.1-8] [MQTT5-3.3.4-3]
#[test]
fn retained_messages_come_with_retain_and_at_most_the_granted_qos() {
    let mut rig = v5();
    let block = props(|p| {
        p.varint(P::SubscriptionIdentifier, 5);
    });
    rig.subscribe_with(1, vec![sub("#", 1)], &block);
    assert_eq!(rig.subscribed(0), ["SUBACK 1 [01]", "find retained [1] #"]);
    let messages = vec![retained("a", "x", ExactlyOnce, &rig), retained("b", "y", AtMostOnce, &rig)];
    assert_eq!(
        found(&mut rig, 1, messages),
        [
            "PUBLISH a x q1 #1 retain SubscriptionIdentifier=VarInt(5)",
            "PUBLISH b y q0 retain SubscriptionIdentifier=VarInt(5)"
        ]
    );
    assert_eq!(found(&mut rig, 1, vec![]), [""; 0]);
}

/// [MQTT5-3.3.1-9] [MQTT5-3.3.1-10] [MQTT5-3.3.1-11]
#[test]
fn retain_handling_decides_whether_retained_messages_are_looked_up() {
    let mut rig = v5();
    let mut looked_up = |filter: &'static str, retain_handling, token| {
        rig.subscribe_with(1, vec![SubscribeFilter { retain_handling, ..sub(filter, 0) }], &[]);
        rig.subscribed(token).len() > 1
    };
    assert!(looked_up("a", 1, 0), "new");
    assert!(!looked_up("a", 1, 2), "not new");
    assert!(looked_up("a", 0, 3));
    assert!(!looked_up("b", 2, 5));
    assert!(!looked_up("$share/g/a", 0, 6), "never for shared subscriptions");
}

#[test]
fn retained_messages_obey_the_window_but_not_the_queues_limits() {
    let settings = TenantSettings { send_maximum: 1, inbox_messages_max: 1, ..TenantSettings::default() };
    let mut rig = Rig::connected(V311, settings);
    rig.subscribe(1, &[("#", 1)]);
    rig.subscribed(0);
    let messages = (0..3).map(|n| retained("a", &format!("{n}"), AtLeastOnce, &rig)).collect();
    assert_eq!(found(&mut rig, 1, messages), ["PUBLISH a 0 q1 #1 retain"]);
    assert_eq!(rig.ack(crate::packet::Packet::PubAck, 1), ["PUBLISH a 1 q1 #2 retain"]);
    assert_eq!(rig.ack(crate::packet::Packet::PubAck, 2), ["PUBLISH a 2 q1 #3 retain"]);
}

/// [MQTT5-3.8.3-3]
#[test]
fn retained_messages_are_judged_by_the_permissions_of_today() {
    let mut rig = v5();
    rig.acl.partly.push("#");
    rig.acl.denied_publish.push("forged");
    rig.acl.denied_subscribe.push("secret");
    rig.subscribe_with(1, vec![SubscribeFilter { no_local: true, ..sub("#", 1) }], &[]);
    rig.subscribed(0);
    let own = MessageView { publisher: PublisherKey(9), ..message("own", "x", AtMostOnce).view() }.to_message();
    let publisher = rig.session.client().expect("connected").clone();
    let messages = vec![
        retained("forged", "x", AtMostOnce, &rig),
        retained("secret", "x", AtMostOnce, &rig),
        RetainedMessage { message: own, publisher },
        retained("open", "x", AtMostOnce, &rig),
    ];
    assert_eq!(found(&mut rig, 1, messages), ["PUBLISH open x q0 retain"]);
    assert_eq!(rig.tally.dropped_permission, 2);
}

#[test]
fn a_reload_ends_what_is_denied_now_and_narrows_what_is_partly_permitted() {
    let mut rig = v5();
    rig.shows_events = true;
    rig.subscribe(1, &[("a", 1), ("b/#", 1), ("$share/g/c", 1)]);
    rig.acl.denied_subscribe.extend(["a", "c"]);
    rig.acl.partly.push("b/#");
    let ((), lines) = rig.step(|session, cx, out| session.handle_reloaded(cx, out));
    assert_eq!(
        lines,
        [
            "subscribe [3] b/# q1 check replaces",
            "unsubscribe [4] $share/g/c",
            "event sub_revoked",
            "unsubscribe [5] a",
            "event sub_revoked",
        ]
    );
    assert_eq!(rig.subscribed(3), [""; 0], "nobody waits for it");
    assert_eq!(rig.unsubscribed(4), [""; 0]);
    assert_eq!(rig.tenant.quota.used(Resource::TotalSharedSubscriptions), 0);
}

/// HOSTILE 9.
#[test]
fn a_reload_reaches_messages_that_wait_already() {
    let mut rig = v5();
    rig.subscribe(1, &[("a", 1), ("b", 1)]);
    rig.congested = true;
    for topic in ["a", "b"] {
        assert_eq!(rig.deliver(AtLeastOnce, topic, "x").0, crate::session::Delivered::Queued);
    }
    rig.acl.denied_subscribe.push("a");
    rig.step(|session, cx, out| session.handle_reloaded(cx, out));
    rig.congested = false;
    assert_eq!(rig.writable(), ["PUBLISH b x q1 #1"]);
    assert_eq!(rig.tally.dropped_permission, 1);
}

#[test]
fn a_resumed_session_loses_what_it_may_no_longer_have() {
    let options = |check_deliveries| SubOptions {
        qos: AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        subscription_id: None,
        check_deliveries,
    };
    let subscriptions = vec![("a".into(), options(false)), ("b".into(), options(true))];
    let (mut rig, lines) = Rig::resumed(V311, TenantSettings::default(), Attached { subscriptions, ..present() });
    assert_eq!(lines, ["CONNACK present 00", "subscribe [0] b q1 replaces"], "b is permitted as a whole now");
    rig.acl.denied_subscribe.push("a");
    assert_eq!(rig.step(|session, cx, out| session.handle_reloaded(cx, out)).1, ["unsubscribe [1] a"]);
}
