//! Subscriptions: routes, replacement, quotas, and what several of them make of one message.

use super::*;
use bifro_core::ports::PortError;
use core::num::NonZeroU32;

fn attached() -> Driven {
    let mut inbox = Driven::new();
    inbox.attach(1, &client("c"), false);
    inbox
}

fn identified(id: u32, options: SubOptions) -> SubOptions {
    SubOptions { subscription_id: NonZeroU32::new(id), ..options }
}

#[test]
fn a_subscription_is_confirmed_when_its_route_is_in_place() {
    let mut inbox = attached();
    let owner = inbox.owner();
    let lines = inbox.run(|this, effects| this.table.subscribe(TO, owner, "a/#", QOS1, effects));
    assert_eq!(lines, ["add route a/#"]);
    let again = inbox.run(|this, effects| this.table.subscribe(TO, owner, "a/#", QOS2, effects));
    assert_eq!(again, [""; 0], "the second waits for the same route");
    let (slot, place) = inbox.places[0];
    let lines = inbox.run(|this, effects| this.table.route_added(slot, place, Ok(()), effects));
    assert_eq!(lines, ["subscribed Ok(false)", "subscribed Ok(true)"]);
}

/// [MQTT-3.8.4-3] [MQTT5-3.8.4-3] [MQTT5-3.8.4-4]
#[test]
fn replacing_options_keeps_the_route_and_misses_nothing() {
    let mut inbox = attached();
    assert_eq!(inbox.subscribe("a/b", QOS0), ["add route a/b", "subscribed Ok(false)"]);
    assert_eq!(inbox.subscribe("a/b", QOS1), ["subscribed Ok(true)"]);
    assert_eq!(inbox.pushed(&message("m", QoS::AtLeastOnce))[0].qos, QoS::AtLeastOnce);
    assert_eq!(inbox.used(Resource::TotalPersistentSubscriptions), 1);
}

#[test]
fn a_refused_route_ends_the_subscription() {
    let mut inbox = attached();
    let owner = inbox.owner();
    inbox.run(|this, effects| this.table.subscribe(TO, owner, "$share/g/a", QOS1, effects));
    assert_eq!(inbox.used(Resource::TotalSharedSubscriptions), 1);
    let (slot, place) = inbox.places[0];
    let refused = Err(PortError::QuotaExceeded);
    let lines = inbox.run(|this, effects| this.table.route_added(slot, place, refused, effects));
    assert_eq!(lines, ["remove route a", "subscribed Err(QuotaExceeded)"]);
    assert_eq!(inbox.unsubscribe("$share/g/a"), ["unsubscribed false"]);
    inbox.detach(&client("c"), for_s(0));
    inbox.assert_nothing_used();
}

#[test]
fn the_answer_for_a_subscription_that_has_gone_concerns_nobody() {
    let mut inbox = attached();
    let owner = inbox.owner();
    inbox.run(|this, effects| this.table.subscribe(TO, owner, "a", QOS1, effects));
    assert_eq!(inbox.unsubscribe("a"), ["remove route a", "subscribed Ok(false)", "unsubscribed true"]);
    inbox.run(|this, effects| this.table.subscribe(TO, owner, "a", QOS1, effects));
    let (slot, first) = inbox.places[0];
    assert_ne!(first, inbox.places[1].1, "a place is never used again");
    let refused = Err(PortError::QuotaExceeded);
    assert_eq!(inbox.run(|this, effects| this.table.route_added(slot, first, refused, effects)), [""; 0]);
}

/// [MQTT-3.10.4-3] [MQTT5-3.10.4-2]
#[test]
fn after_unsubscribing_nothing_new_comes_and_what_was_queued_still_does() {
    let mut inbox = attached();
    inbox.subscribe("a/b", QOS1);
    inbox.detach(&client("c"), for_s(60));
    inbox.insert(&message("before", QoS::AtLeastOnce));
    inbox.attach(2, &client("c"), false);
    assert_eq!(inbox.unsubscribe("a/b"), ["remove route a/b", "unsubscribed true"]);
    assert_eq!(inbox.insert(&message("after", QoS::AtLeastOnce)), ["inserted Ok(())"]);
    assert_eq!(inbox.table.totals().messages, 1);
    assert_eq!(inbox.unsubscribe("a/b"), ["unsubscribed false"]);
}

#[test]
fn subscriptions_beyond_the_quota_are_refused() {
    let limits =
        QuotaLimits { total_persistent_subscriptions: 2, total_shared_subscriptions: 1, ..QuotaLimits::default() };
    let mut inbox = Driven::with(TenantSettings::default(), &limits);
    inbox.attach(1, &client("c"), false);
    inbox.subscribe("$share/g/a", QOS1);
    let refused = ["event out_of_tenant_resource", "subscribed Err(QuotaExceeded)"];
    assert_eq!(inbox.subscribe("$share/g/b", QOS1), refused);
    inbox.subscribe("b", QOS1);
    assert_eq!(inbox.subscribe("c", QOS1), refused);
    inbox.detach(&client("c"), for_s(0));
    inbox.assert_nothing_used();
}

/// [MQTT-3.3.5-1] [MQTT5-3.3.4-2] [MQTT5-3.3.4-3] [MQTT5-3.3.4-4]
#[test]
fn overlapping_subscriptions_make_one_message_of_the_highest_qos_with_all_identifiers() {
    let mut inbox = attached();
    inbox.subscribe("a/b", identified(9, QOS1));
    inbox.subscribe("a/+", identified(3, QOS0));
    inbox.subscribe("#", identified(9, QOS0));
    inbox.subscribe("a/#", QOS0);
    let pushed = inbox.pushed(&message("m", QoS::ExactlyOnce));
    assert_eq!(pushed.len(), 1);
    assert_eq!(pushed[0].qos, QoS::AtLeastOnce);
    let ids: Vec<u32> = pushed[0].subscription_ids.iter().map(|id| id.get()).collect();
    assert_eq!(ids, [3, 9, 9], "one for each subscription that has one, equal ones repeated");
}

/// [MQTT5-3.8.4-8] [MQTT-3.8.4-6]
#[test]
fn a_message_is_delivered_with_no_higher_qos_than_it_was_published_with() {
    let mut inbox = attached();
    inbox.subscribe("a/b", QOS2);
    assert_eq!(inbox.pushed(&message("m", QoS::AtLeastOnce))[0].qos, QoS::AtLeastOnce);
}

/// [MQTT5-3.8.3-3]
#[test]
fn no_local_keeps_a_clients_own_messages_from_it_unless_another_subscription_wants_them() {
    let mut inbox = attached();
    inbox.subscribe("a/b", SubOptions { no_local: true, ..QOS1 });
    let own = message_with("own", QoS::AtLeastOnce, None, key_of(&client("c")));
    assert_eq!(inbox.insert(&own), ["inserted Ok(())"]);
    assert_eq!(inbox.insert(&message("other", QoS::AtLeastOnce)), ["push 1 0:other", "inserted Ok(())"]);
    inbox.subscribe("a/+", QOS0);
    assert_eq!(inbox.insert(&own), ["push 1 -:own", "inserted Ok(())"]);
}

/// [MQTT5-3.3.1-12] [MQTT5-3.3.1-13] [MQTT-3.3.1-9]
#[test]
fn the_retain_flag_is_kept_only_for_retain_as_published() {
    let mut inbox = attached();
    inbox.subscribe("a/b", QOS1);
    assert!(!inbox.pushed(&message("m", QoS::AtLeastOnce))[0].retain);
    inbox.subscribe("a/b", SubOptions { retain_as_published: true, ..QOS1 });
    assert!(inbox.pushed(&message("m", QoS::AtLeastOnce))[0].retain);
}

#[test]
fn permission_is_asked_again_only_if_every_matching_subscription_is_partly_permitted() {
    let mut inbox = attached();
    inbox.subscribe("a/+", SubOptions { check_deliveries: true, ..QOS1 });
    assert!(inbox.pushed(&message("m", QoS::AtLeastOnce))[0].check_delivery);
    inbox.subscribe("a/b", QOS1);
    assert!(!inbox.pushed(&message("m", QoS::AtLeastOnce))[0].check_delivery);
}
