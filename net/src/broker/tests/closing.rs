//! Every connection that is over is closed, whatever its peer does, and leaves nothing behind.

use super::*;
use crate::stage::websocket::WsConfig;
use bifro_core::nodes::{Member, Nodes};
use bifro_core::roles::Duties;

fn leaves_nothing(node: &Node) {
    for broker in &node.brokers {
        assert_eq!(broker.conns.len(), 0);
        assert!(broker.requests.is_empty(), "{:?}", broker.requests);
        assert_eq!(broker.fanout.subscriptions(), 0);
        assert_eq!(broker.metrics.sessions.read(), 0);
    }
    assert_eq!(node.limiter.open(), 0);
}

#[test]
fn a_peer_that_has_ended_its_side_and_never_reads_is_cut_off() {
    let mut node = Node::new(Setup::default());
    let client = node.client(0, "c");
    node.subscribed(client, "t", QoS::AtMostOnce);
    node.peers[client].stalled = true;
    node.publish(client, "t", b"stuck", None);
    node.settle();
    node.end(client);
    node.settle();
    assert!(node.is_open(client), "its last bytes may still go out");
    node.advance(Duration::from_secs(4));
    assert_eq!(node.peers[client].end, Some(End::Aborted));
    leaves_nothing(&node);
}

#[test]
fn a_broken_connection_is_cut_off_at_once() {
    let mut node = Node::new(Setup::default());
    let client = node.client(0, "c");
    node.subscribed(client, "t", QoS::AtMostOnce);
    let slot = node.peers[client].slot;
    node.brokers[0].handle_broken(slot);
    node.settle();
    assert_eq!(node.peers[client].end, Some(End::Aborted));
    leaves_nothing(&node);
}

#[test]
fn connections_that_end_while_something_is_asked_for_them_leave_no_request() {
    let mut node = Node::new(Setup { shards: 2, ..Setup::default() });
    for round in 0..20 {
        let owner = node.client(0, "wanted");
        // Registering behind an owner that another shard has to kick; authenticating; subscribing.
        let waiting = node.accept(1, Version::V5);
        node.send(waiting, &connect(Version::V5, "wanted", &[], 0));
        let later = node.accept(0, Version::V5);
        node.send(later, &connect(Version::V5, "later", &[], 0));
        let subscriber = node.client(1, "sub");
        node.subscribe(subscriber, &format!("{round}/x"), QoS::AtLeastOnce);
        for shard in [1, 0, 1] {
            node.turn(shard);
        }
        for who in [waiting, later, subscriber, owner] {
            node.end(who);
        }
        node.settle();
        node.advance(Duration::from_secs(30));
        leaves_nothing(&node);
    }
}

#[test]
fn many_connections_that_want_one_client_id_and_give_up_leave_no_request() {
    let mut node = Node::new(Setup { shards: 2, ..Setup::default() });
    let _owner = node.client(0, "wanted");
    // Nobody answers the kick meanwhile.
    node.deaf = Some(0);
    for _ in 0..50 {
        let waiting = node.accept(1, Version::V5);
        node.send(waiting, &connect(Version::V5, "wanted", &[], 0));
        node.settle();
        node.end(waiting);
        node.settle();
        assert!(!node.is_open(waiting));
    }
    assert!(node.brokers[1].requests.is_empty(), "{:?}", node.brokers[1].requests);
}

#[test]
fn who_says_nothing_is_closed_at_the_connect_deadline() {
    let mut node = Node::new(Setup::default());
    let silent = node.accept(0, Version::V5);
    node.advance(Duration::from_secs(9));
    assert!(node.is_open(silent));
    node.advance(Duration::from_secs(2));
    assert_eq!(node.peers[silent].end, Some(End::Closed));
    leaves_nothing(&node);
}

#[test]
fn a_refused_upgrade_is_answered_before_the_socket_is_closed() {
    let ws = WsConfig { path: "/mqtt".into(), frame_bytes_max: 1 << 20, trust_forwarded_for: Vec::new() };
    let stages = ListenerStages { ws: Some(Arc::new(ws)), ..ListenerStages::default() };
    let mut node = Node::new(Setup { stages, ..Setup::default() });
    let client = node.accept(0, Version::V5);
    node.peers[client].unread.push_back(b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n".to_vec());
    node.settle();
    let answer = String::from_utf8_lossy(&node.peers[client].received).into_owned();
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert_eq!(node.peers[client].end, Some(End::Closed));
    assert_eq!(node.metrics(0).handshake_failures.read(), 1);
    leaves_nothing(&node);
}

#[test]
fn garbage_is_answered_with_nothing_and_closed() {
    let mut node = Node::new(Setup::default());
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0x10, 0xff, 0xff, 0xff, 0xff, 0xff]] {
        let client = node.accept(0, Version::V5);
        node.peers[client].unread.push_back(garbage.to_vec());
        node.settle();
        assert_eq!(node.peers[client].end, Some(End::Closed));
        assert!(node.peers[client].received.is_empty());
    }
    leaves_nothing(&node);
}

#[test]
fn draining_tells_everybody_and_waits_for_the_other_shards() {
    let mut node = Node::new(Setup { shards: 2, ..Setup::default() });
    let clients: Vec<_> = (0..300).map(|n| node.client(0, &format!("c{n}"))).collect();
    let silent = node.accept(0, Version::V5);
    node.command(|| Command::Drain { within: Duration::from_secs(20) });
    node.turn(1);
    assert!(!node.drained[1], "the other shard's sessions may still need it");
    node.advance(Duration::from_secs(1));
    for client in clients {
        assert_eq!(node.hear(client), ["DISCONNECT 0x8b SERVER_SHUTTING_DOWN"]);
        assert_eq!(node.peers[client].end, Some(End::Closed));
    }
    assert!(!node.is_open(silent));
    assert_eq!(node.drained, [true, true]);
}

#[test]
fn draining_ends_at_the_deadline_whatever_clients_do() {
    let mut node = Node::new(Setup::default());
    let client = node.client(0, "c");
    node.subscribed(client, "t", QoS::AtMostOnce);
    node.peers[client].stalled = true;
    node.publish(client, "t", b"stuck", None);
    node.settle();
    node.command(|| Command::Drain { within: Duration::from_secs(1) });
    node.advance(Duration::from_millis(900));
    assert!(!node.drained[0]);
    node.advance(Duration::from_millis(200));
    assert!(node.drained[0]);
}

/// What the shards hear when an operator drains their node, or does not want that any more.
fn drain(node: &mut Node, is_draining: bool) {
    let duties = Duties { is_draining, ..Duties::default() };
    let members = vec![Member { id: NodeId(1), duties }];
    let nodes = Arc::new(Nodes { me: NodeId(1), others: Vec::new(), members });
    node.command(|| Command::Nodes(nodes.clone()));
}

#[test]
fn a_node_that_is_to_go_sends_its_clients_elsewhere_at_a_rate_and_takes_no_new_ones() {
    let mut node = Node::new(Setup::default());
    let clients: Vec<_> = (0..50).map(|n| node.client(0, &format!("c{n}"))).collect();
    drain(&mut node, true);
    node.advance(Duration::from_millis(200));
    let is_open = |node: &Node| clients.iter().filter(|client| node.is_open(**client)).count();
    assert!((25..35).contains(&is_open(&node)), "{} of 50 are left after 0.2 s at 100 a second", is_open(&node));
    node.advance(Duration::from_millis(400));
    for client in clients.clone() {
        assert_eq!(node.hear(client), ["DISCONNECT 0x9c USE_ANOTHER_SERVER"]);
        assert_eq!(node.peers[client].end, Some(End::Closed));
    }
    for (version, answer) in [(Version::V5, 0x9c), (Version::V311, 3)] {
        let late = node.accept(0, version);
        node.send(late, &connect(version, "late", &[], 0));
        node.settle();
        assert_eq!(node.peers[late].received[..4], [0x20, if answer == 3 { 2 } else { 3 }, 0, answer]);
        assert_eq!(node.peers[late].end, Some(End::Closed));
    }
    assert_eq!(node.metrics(0).drained.read(), 50);
    drain(&mut node, false);
    let welcome = node.client(0, "welcome");
    node.advance(Duration::from_secs(1));
    assert!(node.is_open(welcome));
}
