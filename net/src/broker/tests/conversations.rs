//! Conversations as a client sees them, byte for byte, over one shard and over two.

use super::*;

fn over_one_shard_and_two(test: impl Fn(&mut Node, usize)) {
    test(&mut Node::new(Setup::default()), 0);
    test(&mut Node::new(Setup { shards: 2, ..Setup::default() }), 1);
}

#[test]
fn a_subscriber_gets_what_is_published_and_the_publisher_hears_of_it() {
    over_one_shard_and_two(|node, other| {
        let (publisher, subscriber) = (node.client(0, "p"), node.client(other, "s"));
        node.subscribed(subscriber, "a/+", QoS::AtLeastOnce);
        node.publish(publisher, "a/1", b"one", Some(1));
        node.publish(publisher, "b/1", b"nobody", Some(2));
        node.publish(publisher, "a/2", b"two", None);
        node.settle();
        assert_eq!(node.hear(publisher), ["PUBACK 1 0x00 SUCCESS", "PUBACK 2 0x10 NO_MATCHING_SUBSCRIBERS"]);
        assert_eq!(node.hear(subscriber), ["PUBLISH q1 #1 a/1=one", "PUBLISH q0 a/2=two"]);
    });
}

#[test]
fn a_packet_may_come_in_any_pieces() {
    let mut node = Node::new(Setup::default());
    let client = node.client(0, "c");
    node.subscribed(client, "#", QoS::AtMostOnce);
    node.publish(client, "topic", b"whole", None);
    let bytes = node.peers[client].unread.pop_front().expect("just sent");
    for byte in bytes.iter().chain(&bytes) {
        node.peers[client].unread.push_back(vec![*byte]);
        node.settle();
    }
    assert_eq!(node.hear(client), ["PUBLISH q0 topic=whole"; 2]);
}

/// Clients may send before CONNACK [MQTT-3.1.4] and need not wait for anything at the end.
#[test]
fn what_was_sent_before_the_end_of_the_stream_counts_even_while_connect_is_worked_on() {
    over_one_shard_and_two(|node, other| {
        for n in 0..8 {
            let subscriber = node.client(other, &format!("s{n}"));
            node.subscribed(subscriber, "news", QoS::AtMostOnce);
            let hasty = node.accept(0, Version::V311);
            node.send(hasty, &connect(Version::V311, &format!("hasty{n}"), &[], 0));
            node.publish(hasty, "news", b"last words", None);
            node.end(hasty);
            node.settle();
            assert_eq!(node.hear(subscriber), ["PUBLISH q0 news=last words"]);
            assert_eq!(node.peers[hasty].end, Some(End::Closed));
            assert_eq!(node.hear(hasty), ["CONNACK 0x00 SUCCESS"], "a peer that has only ended its side may read");
            node.end(subscriber);
            node.settle();
        }
    });
}

/// SUBACK and UNSUBACK leave in order, though the route was never in place when the subscription ended [MQTT5-3.10.4-4].
#[test]
fn unsubscribing_before_the_route_is_in_place_leaves_no_request_unanswered() {
    over_one_shard_and_two(|node, _| {
        let client = node.client(0, "c");
        for n in 0..8 {
            let filter = format!("{n}/x");
            node.subscribe(client, &filter, QoS::AtMostOnce);
            node.unsubscribe(client, &filter);
            node.settle();
            assert_eq!(node.hear(client), ["SUBACK 100 [0]", "UNSUBACK 101 [0]"], "{filter}");
        }
        assert!(node.brokers.iter().all(|broker| broker.requests.is_empty()));
    });
}

#[test]
fn the_new_connection_of_a_client_is_admitted_when_the_old_one_has_left() {
    over_one_shard_and_two(|node, other| {
        let old = node.persistent(0, "c");
        node.subscribed(old, "t", QoS::AtLeastOnce);
        let publisher = node.client(0, "p");
        node.publish(publisher, "t", b"unacknowledged", Some(1));
        node.settle();
        assert_eq!(node.hear(old), ["PUBLISH q1 #1 t=unacknowledged"]);
        let new = node.accept(other, Version::V5);
        node.send(new, &connect(Version::V5, "c", &[0x11, 0, 0, 0x0e, 0x10], 0));
        node.settle();
        assert_eq!(node.hear(new), ["CONNACK 0x00 SUCCESS", "PUBLISH q1 #1 t=unacknowledged"]);
        assert_eq!(node.hear(old), ["DISCONNECT 0x8e SESSION_TAKEN_OVER"]);
        assert_eq!(node.peers[old].end, Some(End::Closed));
        node.publish(publisher, "t", b"more", Some(2));
        node.settle();
        assert!(node.hear(new).last().is_some_and(|last| last.ends_with("t=more")));
    });
}

#[test]
fn a_reload_revokes_subscriptions_of_old_sessions_and_leaves_the_others() {
    let mut node = Node::new(Setup::default());
    let clients: Vec<_> = (0..200).map(|n| node.client(0, &format!("c{n}"))).collect();
    for &client in &clients {
        node.subscribed(client, "secret/x", QoS::AtMostOnce);
        node.subscribed(client, "open/x", QoS::AtMostOnce);
    }
    node.reload(Except("secret"));
    node.settle();
    let publisher = node.client(0, "p");
    node.publish(publisher, "open/x", b"yes", None);
    node.publish(publisher, "secret/x", b"no", None);
    node.settle();
    for client in clients {
        assert_eq!(node.hear(client), ["PUBLISH q0 open/x=yes"]);
    }
    assert_eq!(node.metrics(0).subscriptions.read(), 200);
}
