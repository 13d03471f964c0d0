//! The queue: pushing, committing, overflow, expiry, what is in flight, what goes back to shared groups.

use super::*;
use bifro_core::limits::INBOX_PUSH_WINDOW;
use bifro_core::ports::{InboxMessage, Left};
use core::num::NonZeroU16;

fn subscribed(options: SubOptions) -> Driven {
    subscribed_with(options, TenantSettings::default(), &QuotaLimits::default())
}

fn subscribed_with(options: SubOptions, settings: TenantSettings, limits: &QuotaLimits) -> Driven {
    let mut inbox = Driven::with(settings, limits);
    inbox.attach(1, &client("c"), false);
    inbox.subscribe("a/b", options);
    inbox
}

fn detached(options: SubOptions, settings: TenantSettings) -> Driven {
    let mut inbox = subscribed_with(options, settings, &QuotaLimits::default());
    inbox.detach(&client("c"), for_s(60));
    inbox
}

fn in_flight(packet_id: u16, released: bool, seq: u64) -> (NonZeroU16, bool, Left) {
    (NonZeroU16::new(packet_id).unwrap(), released, Left::Stored(InboxSeq(seq)))
}

const AT_LEAST_ONCE: QoS = QoS::AtLeastOnce;
const AT_MOST_ONCE: QoS = QoS::AtMostOnce;
const EXACTLY_ONCE: QoS = QoS::ExactlyOnce;

#[test]
fn a_live_owner_is_pushed_what_is_stored_until_it_commits() {
    let mut inbox = subscribed(QOS1);
    assert_eq!(inbox.insert(&message("m", AT_LEAST_ONCE)), ["push 1 0:m", "inserted Ok(())"]);
    let bytes = queued_bytes(&message("m", AT_LEAST_ONCE));
    assert_eq!(inbox.used(Resource::TotalPersistentSessionSpaceBytes), bytes);
    assert_eq!(inbox.commit(&[0]), [""; 0]);
    assert_eq!(inbox.used(Resource::TotalPersistentSessionSpaceBytes), 0);
}

#[test]
fn a_live_owner_with_nothing_waiting_is_pushed_qos_0_without_storing() {
    let mut inbox = subscribed(QOS0);
    assert_eq!(inbox.insert(&message("m", AT_LEAST_ONCE)), ["push 1 -:m", "inserted Ok(())"]);
    assert_eq!(inbox.table.totals().messages, 0);
}

/// [MQTT-4.6.0-6] [MQTT5-4.6.0-5]
#[test]
fn beyond_the_window_messages_wait_and_follow_commits_in_order() {
    let mut inbox = subscribed(QOS2);
    for index in 0..INBOX_PUSH_WINDOW {
        inbox.insert(&message(&format!("{index}"), AT_LEAST_ONCE));
    }
    assert_eq!(inbox.insert(&message("x", AT_LEAST_ONCE)), ["inserted Ok(())"]);
    assert_eq!(inbox.insert(&message("y", AT_MOST_ONCE)), ["inserted Ok(())"], "QoS 0 does not overtake");
    assert_eq!(inbox.commit(&[0]), ["push 1 128:x"]);
    assert_eq!(inbox.commit(&[1, 2]), ["push 1 129:y"]);
}

/// [MQTT-4.4.0-1] [MQTT5-4.4.0-1] [MQTT-3.1.2-5]
#[test]
fn what_was_in_flight_is_handed_over_in_the_order_first_sent_and_the_rest_is_pushed_again() {
    let mut inbox = subscribed(QOS2);
    for text in ["a", "b", "c", "d"] {
        inbox.insert(&message(text, EXACTLY_ONCE));
    }
    let in_flight = vec![in_flight(7, false, 2), in_flight(8, true, 0), in_flight(9, false, 99)];
    inbox.detach(&client("c"), DetachState { in_flight, ..for_s(60) });
    assert_eq!(inbox.insert(&message("e", AT_LEAST_ONCE)), ["inserted Ok(())"]);
    assert_eq!(inbox.attach(2, &client("c"), false), ["attached present=true", "push 2 1:b 3:d 4:e"]);
    let handed: Vec<_> = inbox.attached.in_flight.iter().map(|f| (f.packet_id.get(), f.released)).collect();
    assert_eq!(handed, [(7, false), (8, true)], "what is queued no more is not in flight");
    assert_eq!(inbox.attached.in_flight[0].message.message.payload(), b"c");
    inbox.commit(&[2, 0]);
    assert_eq!(inbox.table.totals().messages, 3);
}

/// [MQTT-4.4.0-1] [MQTT5-4.4.0-1]
#[test]
fn retained_messages_a_connection_did_not_bring_home_are_kept_as_far_as_the_tenant_has_room() {
    let unstored = |text: &str, qos| {
        let message = message(text, qos);
        InboxMessage {
            seq: None,
            message,
            qos,
            retain: true,
            subscription_ids: [].into_iter().collect(),
            check_delivery: false,
        }
    };
    let left = |id, released, text: &str| {
        let packet_id = NonZeroU16::new(id).unwrap();
        (packet_id, released, Left::Unstored(Box::new(unstored(text, EXACTLY_ONCE))))
    };
    let bytes = queued_bytes(&message("a", AT_LEAST_ONCE));
    let limits = QuotaLimits { total_persistent_session_space_bytes: 4 * bytes, ..QuotaLimits::default() };
    let mut inbox = subscribed_with(QOS2, TenantSettings::default(), &limits);
    inbox.insert(&message("a", EXACTLY_ONCE));
    let in_flight = vec![left(7, false, "b"), in_flight(8, false, 0), left(9, true, "c")];
    let waiting = vec![unstored("d", AT_LEAST_ONCE), unstored("e", AT_LEAST_ONCE)];
    inbox.detach(&client("c"), DetachState { in_flight, waiting, ..for_s(60) });
    assert_eq!(inbox.attach(2, &client("c"), false), ["attached present=true", "push 2 3:d"], "no room for the fifth");
    let handed: Vec<_> = (inbox.attached.in_flight.iter())
        .map(|f| (f.packet_id.get(), f.released, f.message.seq.unwrap().0, f.message.message.payload()))
        .collect();
    assert_eq!(handed, [(7, false, 1, &b"b"[..]), (8, false, 0, b"a"), (9, true, 2, b"c")]);
    assert!(inbox.attached.in_flight[0].message.retain);
    inbox.commit(&[0, 1, 2, 3]);
    assert_eq!(inbox.table.totals().messages, 0);
}

/// [MQTT-3.1.2-5]
#[test]
fn qos_0_is_kept_for_the_absent_only_if_the_tenant_wants_it() {
    let mut kept = detached(QOS0, TenantSettings::default());
    kept.insert(&message("m", AT_MOST_ONCE));
    assert_eq!(kept.attach(2, &client("c"), false)[1], "push 2 0:m");
    let mut dropped = detached(QOS0, TenantSettings { qos0_queue_offline: false, ..TenantSettings::default() });
    assert_eq!(dropped.insert(&message("m", AT_MOST_ONCE)), ["inserted Ok(())"]);
    assert_eq!(dropped.table.totals().messages, 0);
}

#[test]
fn a_full_queue_drops_the_oldest_qos_0_for_a_new_message() {
    let settings = TenantSettings { inbox_messages_max: 3, ..TenantSettings::default() };
    let mut inbox = detached(QOS1, settings);
    for (text, qos) in [("a", AT_LEAST_ONCE), ("b", AT_MOST_ONCE), ("c", AT_MOST_ONCE)] {
        inbox.insert(&message(text, qos));
    }
    assert_eq!(inbox.insert(&message("d", AT_LEAST_ONCE)), ["event overflowed", "inserted Ok(())"]);
    assert_eq!(inbox.insert(&message("e", AT_MOST_ONCE)), ["inserted Ok(())"], "told once, counted twice");
    assert_eq!(inbox.table.totals().dropped_full, 2);
    assert_eq!(inbox.attach(2, &client("c"), false)[1], "push 2 0:a 3:d 4:e");
}

#[test]
fn a_queue_full_of_qos_1_drops_what_is_new_and_says_so() {
    let settings = TenantSettings { inbox_messages_max: 1, ..TenantSettings::default() };
    let mut inbox = detached(QOS1, settings);
    inbox.insert(&message("a", AT_LEAST_ONCE));
    assert_eq!(inbox.insert(&message("b", AT_LEAST_ONCE)), ["event overflowed", "inserted Ok(())"]);
    assert_eq!(inbox.insert(&message("c", AT_MOST_ONCE)), ["inserted Ok(())"]);
    assert_eq!(inbox.table.totals().dropped_full, 2);
    let bytes = queued_bytes(&message("a", AT_LEAST_ONCE));
    assert_eq!(inbox.used(Resource::TotalPersistentSessionSpaceBytes), bytes, "what was dropped costs nothing");
    assert_eq!(inbox.attach(2, &client("c"), false)[1], "push 2 0:a");
}

#[test]
fn without_drop_oldest_the_new_message_is_dropped() {
    let settings = TenantSettings { inbox_messages_max: 1, qos0_drop_oldest: false, ..TenantSettings::default() };
    let mut inbox = detached(QOS1, settings);
    inbox.insert(&message("a", AT_MOST_ONCE));
    inbox.insert(&message("b", AT_MOST_ONCE));
    assert_eq!(inbox.attach(2, &client("c"), false)[1], "push 2 0:a");
}

#[test]
fn the_queue_is_bounded_in_bytes_too() {
    let bytes = queued_bytes(&message("a", AT_LEAST_ONCE));
    let settings = TenantSettings { inbox_bytes_max: 2 * bytes, ..TenantSettings::default() };
    let mut inbox = detached(QOS1, settings);
    for text in ["a", "b", "c"] {
        inbox.insert(&message(text, AT_LEAST_ONCE));
    }
    assert_eq!(inbox.table.totals().bytes, 2 * bytes);
    let mut tiny = detached(QOS1, TenantSettings { inbox_bytes_max: 1, ..TenantSettings::default() });
    assert_eq!(tiny.insert(&message("a", AT_LEAST_ONCE)), ["event overflowed", "inserted Ok(())"]);
}

#[test]
fn an_operator_hears_of_the_next_overflow_after_there_was_room() {
    let settings = TenantSettings { inbox_messages_max: 1, ..TenantSettings::default() };
    let mut inbox = subscribed_with(QOS1, settings, &QuotaLimits::default());
    inbox.insert(&message("a", AT_LEAST_ONCE));
    assert_eq!(inbox.insert(&message("b", AT_LEAST_ONCE))[0], "event overflowed");
    inbox.commit(&[0]);
    inbox.insert(&message("c", AT_LEAST_ONCE));
    assert_eq!(inbox.insert(&message("d", AT_LEAST_ONCE))[0], "event overflowed");
}

#[test]
fn an_insertion_the_tenants_space_cannot_hold_is_refused_for_all_inboxes() {
    let bytes = queued_bytes(&message("a", AT_LEAST_ONCE));
    let limits = QuotaLimits { total_persistent_session_space_bytes: 2 * bytes, ..QuotaLimits::default() };
    let mut inbox = subscribed_with(QOS1, TenantSettings::default(), &limits);
    inbox.insert(&message("a", AT_LEAST_ONCE));
    inbox.attach(2, &client("other"), false);
    inbox.subscribe("a/b", QOS1);
    let refused = inbox.insert(&message("b", AT_LEAST_ONCE));
    assert_eq!(refused, ["event out_of_tenant_resource", "inserted Err(QuotaExceeded)"]);
    assert_eq!(inbox.table.totals().messages, 1, "neither has it");
    assert_eq!(inbox.used(Resource::TotalPersistentSessionSpaceBytes), bytes);
}

/// [MQTT5-3.3.2-5]
#[test]
fn expired_messages_are_not_delivered() {
    let mut inbox = detached(QOS1, TenantSettings::default());
    let expiring = message_with("old", AT_LEAST_ONCE, Some(at(5)), PublisherKey(1));
    inbox.insert(&expiring);
    inbox.insert(&message("new", AT_LEAST_ONCE));
    inbox.now = at(5);
    assert_eq!(inbox.insert(&expiring), ["inserted Ok(())"], "expired on arrival");
    assert_eq!(inbox.attach(2, &client("c"), false), ["attached present=true", "push 2 1:new"]);
    assert_eq!(inbox.table.totals().dropped_expired, 2);
}

/// [MQTT5-3.3.2-5]
#[test]
fn a_full_queue_makes_room_by_what_has_expired_before_it_drops_anything() {
    let mut inbox = detached(QOS1, TenantSettings { inbox_messages_max: 1, ..TenantSettings::default() });
    inbox.insert(&message_with("old", AT_LEAST_ONCE, Some(at(5)), PublisherKey(1)));
    inbox.now = at(6);
    inbox.insert(&message("new", AT_LEAST_ONCE));
    let totals = inbox.table.totals();
    assert_eq!((totals.messages, totals.dropped_full, totals.dropped_expired), (1, 0, 1));
}

/// Its delivery began before it expired, so it has to be completed [MQTT5-4.4.0-1].
#[test]
fn what_is_in_flight_does_not_expire() {
    let mut inbox = subscribed(QOS1);
    inbox.insert(&message_with("m", AT_LEAST_ONCE, Some(at(5)), PublisherKey(1)));
    inbox.detach(&client("c"), DetachState { in_flight: vec![in_flight(1, false, 0)], ..for_s(60) });
    inbox.now = at(6);
    inbox.attach(2, &client("c"), false);
    assert_eq!(inbox.attached.in_flight.len(), 1);
}

/// QoS 1 goes to another member; QoS 2 only if its delivery never began [MQTT5-4.8.2-4] [MQTT5-4.8.2-5].
#[test]
fn a_group_member_whose_session_ends_gives_back_what_others_may_still_get() {
    let mut inbox = Driven::new();
    inbox.attach(1, &client("c"), false);
    inbox.subscribe("$share/g/a/b", QOS2);
    for (text, qos) in [("q1 sent", AT_LEAST_ONCE), ("q2 sent", EXACTLY_ONCE), ("q2", EXACTLY_ONCE)] {
        inbox.insert(&message(text, qos));
    }
    let sent = vec![in_flight(1, false, 0), in_flight(2, false, 1)];
    inbox.detach(&client("c"), DetachState { in_flight: sent, ..for_s(60) });
    inbox.insert(&message("q0", AT_MOST_ONCE));
    inbox.insert(&message_with("expired", AT_LEAST_ONCE, Some(at(9)), PublisherKey(1)));
    let lines = inbox.timeout(60);
    let expected = ["remove route a/b", "redeliver a/b q1 sent", "redeliver a/b q2", "event mqtt_session_stop"];
    assert_eq!(lines, expected);
    inbox.assert_nothing_used();
}

#[test]
fn what_came_by_a_plain_subscription_is_given_to_nobody_else() {
    let mut inbox = detached(QOS1, TenantSettings::default());
    inbox.insert(&message("m", AT_LEAST_ONCE));
    assert_eq!(inbox.timeout(60), ["remove route a/b", "event mqtt_session_stop"]);
}

#[test]
fn a_message_keeps_its_group_after_the_subscription_has_gone() {
    let mut inbox = Driven::new();
    inbox.attach(1, &client("c"), false);
    inbox.subscribe("$share/g/a/b", QOS1);
    inbox.insert(&message("m", AT_LEAST_ONCE));
    inbox.unsubscribe("$share/g/a/b");
    let lines = inbox.detach(&client("c"), for_s(0));
    assert_eq!(lines, ["redeliver a/b m", "event mqtt_session_stop", "detached"]);
}
