//! What crosses from one shard to another: publishes that wait for it, groups with members on both.

use super::*;

fn two() -> Node {
    Node::new(Setup { shards: 2, ..Setup::default() })
}

#[test]
fn a_publish_that_another_shard_does_not_take_over_in_time_fails_with_0x83_and_is_forgotten() {
    let mut node = two();
    let (publisher, subscriber) = (node.client(0, "p"), node.client(1, "s"));
    node.subscribed(subscriber, "t", QoS::AtLeastOnce);
    node.publish(publisher, "t", b"first", Some(1));
    node.settle();
    assert_eq!(node.hear(publisher), ["PUBACK 1 0x00 SUCCESS"]);
    node.deaf = Some(1);
    node.publish(publisher, "t", b"stuck", Some(2));
    node.settle();
    assert!(node.hear(publisher).is_empty(), "nobody has taken it over");
    node.advance(Duration::from_secs(6));
    assert_eq!(node.hear(publisher), ["PUBACK 2 0x83 IMPLEMENTATION_SPECIFIC_ERROR"]);
    assert_eq!(node.metrics(0).publish_timeouts.read(), 1);
    node.deaf = None;
    node.settle();
    assert!(node.hear(publisher).is_empty(), "one answer per publish");
    assert!(node.brokers[0].publishes.is_idle());
}

#[test]
fn a_client_that_leaves_with_publishes_under_way_leaves_nothing_in_the_table() {
    let mut node = two();
    let (publisher, subscriber) = (node.client(0, "p"), node.client(1, "s"));
    node.subscribed(subscriber, "t", QoS::AtLeastOnce);
    node.deaf = Some(1);
    for n in 1..=30 {
        node.publish(publisher, "t", b"x", Some(n));
    }
    node.end(publisher);
    node.settle();
    node.deaf = None;
    node.settle();
    node.advance(Duration::from_secs(6));
    assert!(node.brokers[0].publishes.is_idle());
    assert!(node.brokers.iter().all(|broker| broker.requests.is_empty()));
}

#[test]
fn messages_of_one_topic_stay_in_order_while_its_receivers_are_asked_for() {
    let mut node = two();
    let publisher = node.client(0, "p");
    for topic in ["a", "b", "c", "d"] {
        let subscriber = node.client(1, topic);
        node.subscribed(subscriber, topic, QoS::AtMostOnce);
        for n in 0..20 {
            node.publish(publisher, topic, format!("{n}").as_bytes(), None);
        }
        node.settle();
        let expected: Vec<_> = (0..20).map(|n| format!("PUBLISH q0 {topic}={n}")).collect();
        assert_eq!(node.hear(subscriber), expected);
    }
}

/// [MQTT5-4.8.2]
#[test]
fn a_group_prefers_members_with_credit_wherever_they_are_and_loses_nothing_when_none_has() {
    let mut node = two();
    let publisher = node.client(0, "p");
    // Receive Maximum 2.
    let members = [
        node.client_with(0, Version::V5, "m0", &[0x21, 0, 2], 0),
        node.client_with(1, Version::V5, "m1", &[0x21, 0, 2], 0),
    ];
    for member in members {
        node.subscribed(member, "$share/g/t", QoS::AtLeastOnce);
    }
    for n in 1..=4 {
        node.publish(publisher, "t", format!("{n}").as_bytes(), Some(n));
        node.settle();
    }
    let heard = members.map(|member| node.hear(member));
    assert_eq!(heard.clone().map(|heard| heard.len()), [2, 2], "{heard:?}");
    for n in 5..=10 {
        node.publish(publisher, "t", format!("{n}").as_bytes(), Some(n));
    }
    node.settle();
    assert_eq!(node.hear(publisher).len(), 10, "each was taken over");
    // Those that wait come when there is room, to whichever member they wait for.
    let mut rest = 0;
    for _ in 0..10 {
        for member in members {
            for id in 1..=20 {
                node.puback(member, id);
            }
            node.settle();
            rest += node.hear(member).len();
        }
    }
    assert_eq!(rest, 6);
}

/// [MQTT5-4.8.2-4]
#[test]
fn what_a_departed_member_had_not_acknowledged_goes_to_another_and_never_back_to_it() {
    for ordered in [false, true] {
        let mut node = two();
        let publisher = node.client(0, "p");
        let members = [node.client(0, "m0"), node.client(1, "m1")];
        let filter = if ordered { "$oshare/g/t" } else { "$share/g/t" };
        for member in members {
            node.subscribed(member, filter, QoS::AtLeastOnce);
        }
        for n in 1..=6 {
            node.publish(publisher, "t", format!("{n}").as_bytes(), Some(n));
        }
        node.settle();
        let heard = members.map(|member| node.hear(member).len());
        assert_eq!(heard[0] + heard[1], 6);
        let leaves = usize::from(heard[1] > heard[0]);
        node.end(members[leaves]);
        node.settle();
        assert_eq!(node.hear(members[1 - leaves]).len(), heard[leaves], "ordered: {ordered}");
    }
}

#[test]
fn a_tenants_settings_after_a_reload_are_not_undone_by_a_peer_that_met_it_before() {
    let mut node = two();
    let old = node.registry.all()[0].clone();
    let tenant = TenantSettings { topic_levels_max: 3, ..TenantSettings::default() };
    let tenants = node.registry.reload(Arc::new(OnePolicy(tenant)));
    let reload = Arc::new(Reload { authorizer: Arc::new(Except("")), tenants });
    node.command(|| Command::Reload(reload.clone()));
    node.brokers[1].handle_peer(ShardId(0), ShardMessage::Tenant(old.clone()));
    assert_eq!(node.brokers[1].tenants.ctx(old.idx).settings.topic_levels_max, 3);
}
