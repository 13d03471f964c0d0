//! Bounds and what happens at them: slow readers, flooding writers, memory, bandwidth, time.

use super::*;

const KIB: usize = 1 << 10;

/// A subscriber that does not read, and a publisher.
fn with_slow_subscriber(setup: Setup, qos: QoS) -> (Node, Who, Who) {
    let mut node = Node::new(setup);
    let (publisher, slow) = (node.client(0, "p"), node.client(0, "slow"));
    node.subscribed(slow, "t", qos);
    node.peers[slow].stalled = true;
    (node, publisher, slow)
}

#[test]
fn qos_0_beyond_the_high_water_mark_is_dropped_and_what_fitted_arrives() {
    let (mut node, publisher, slow) =
        with_slow_subscriber(Setup { high_water_bytes: 64 * KIB, ..Setup::default() }, QoS::AtMostOnce);
    for _ in 0..200 {
        node.publish(publisher, "t", &[b'x'; KIB], None);
        node.settle();
    }
    let dropped = node.metrics(0).dropped_qos0_slow.read() as usize;
    assert!((130..=140).contains(&dropped), "{dropped}");
    node.peers[slow].stalled = false;
    node.settle();
    assert_eq!(node.hear(slow).len(), 200 - dropped);
    node.publish(publisher, "t", b"again", None);
    node.settle();
    assert_eq!(node.hear(slow), ["PUBLISH q0 t=again"]);
    node.advance(Duration::from_secs(60));
    assert!(node.is_open(slow), "it reads again");
}

#[test]
fn qos_1_waits_for_the_wire_and_is_lost_nowhere() {
    let (mut node, publisher, slow) =
        with_slow_subscriber(Setup { high_water_bytes: 16 * KIB, ..Setup::default() }, QoS::AtLeastOnce);
    for n in 1..=50 {
        node.publish(publisher, "t", &[b'x'; KIB], Some(n));
        node.settle();
        assert_eq!(node.hear(publisher).len(), 1, "taken over into the session's queue");
    }
    assert!(node.brokers[0].conns.get(node.peers[slow].slot).expect("open").session.queued_bytes() > 0);
    node.peers[slow].stalled = false;
    node.settle();
    assert_eq!(node.hear(slow).len(), 50);
}

#[test]
fn a_subscriber_that_never_reads_is_told_and_cut_off_and_its_memory_is_free() {
    let (mut node, publisher, slow) =
        with_slow_subscriber(Setup { high_water_bytes: 16 * KIB, ..Setup::default() }, QoS::AtMostOnce);
    // The time for CONNECT must not be taken for the time to read.
    node.advance(Duration::from_secs(9));
    for _ in 0..40 {
        node.publish(publisher, "t", &[b'x'; KIB], None);
        node.settle();
    }
    node.advance(Duration::from_secs(29));
    assert!(node.is_open(slow));
    node.advance(Duration::from_secs(2));
    assert_eq!(node.metrics(0).slow_disconnects.read(), 1);
    assert!(node.is_open(slow), "its last bytes may still go out");
    node.advance(Duration::from_secs(4));
    assert_eq!(node.peers[slow].end, Some(End::Aborted));
    node.settle();
    assert_eq!(node.metrics(0).write_buffer_bytes.read(), 0);
}

#[test]
fn publishers_pause_while_the_budget_is_used_up_and_their_silence_is_forgiven() {
    let setup = Setup { budget_bytes: 400 * KIB as u64, high_water_bytes: 1 << 20, ..Setup::default() };
    let (mut node, _, slow) = with_slow_subscriber(setup, QoS::AtLeastOnce);
    let publisher = node.client_with(0, Version::V5, "alive", &[], 2);
    let mut sent = 0;
    while !node.peers[publisher].paused {
        sent += 1;
        node.publish(publisher, "t", &[b'x'; 8 * KIB], Some(sent));
        node.settle();
    }
    assert_eq!(node.brokers[0].starved.len(), 1);
    for _ in 0..5 {
        node.advance(Duration::from_secs(1));
        node.send(publisher, &Packet::PingReq);
    }
    assert!(node.is_open(publisher), "its pings have come, we did not read them");
    node.hear(publisher);
    node.peers[slow].stalled = false;
    while node.peers[publisher].paused {
        node.settle();
        for line in node.hear(slow) {
            let id = line.split(['#', ' ']).nth(3).and_then(|id| id.parse().ok()).expect("a packet identifier");
            node.puback(slow, id);
        }
    }
    node.settle();
    assert_eq!(node.hear(publisher), ["PINGRESP"; 5]);
    node.advance(Duration::from_secs(5));
    assert!(!node.is_open(publisher), "now its silence counts");
}

#[test]
fn an_exhausted_shard_refuses_connect() {
    let setup = Setup { budget_bytes: 40 * KIB as u64, ..Setup::default() };
    let (mut node, publisher, _slow) = with_slow_subscriber(setup, QoS::AtMostOnce);
    for _ in 0..3 {
        node.publish(publisher, "t", &[b'x'; 20 * KIB], None);
        node.settle();
    }
    let refused = node.accept(0, Version::V5);
    node.send(refused, &connect(Version::V5, "new", &[], 0));
    node.settle();
    assert_eq!(node.hear(refused), ["CONNACK 0x97 QUOTA_EXCEEDED"]);
    assert_eq!(node.peers[refused].end, Some(End::Closed));
}

#[test]
fn bandwidth_limits_pause_a_connection_and_always_let_it_go_on() {
    let tenant = TenantSettings { inbound_bytes_per_s_max: 1_000, ..TenantSettings::default() };
    let mut node = Node::new(Setup { tenant, ..Setup::default() });
    let client = node.client(0, "c");
    node.subscribed(client, "t", QoS::AtMostOnce);
    for _ in 0..10 {
        node.publish(client, "t", &[b'x'; 480], None);
        node.publish(client, "t", &[b'x'; 480], None);
        node.settle();
        // Bytes that were on their way when the pause began arrive when its time is over, and before its timer.
        let due = node.brokers[0].conns.get(node.peers[client].slot).and_then(|conn| conn.shaper.as_ref()?.receive_at);
        if let Some(at) = due {
            node.now = at;
            node.brokers[0].now = at;
            let slot = node.peers[client].slot;
            node.brokers[0].receive(slot, &[0xc0, 0]);
        }
        node.advance(Duration::from_secs(1));
    }
    node.advance(Duration::from_secs(60));
    assert!(!node.peers[client].paused && node.peers[client].unread.is_empty());
    let published = node.hear(client).iter().filter(|line| line.starts_with("PUBLISH")).count();
    assert_eq!(published, 20);
    assert!(node.brokers[0].wheel.len() < 20, "{} calls of the wheel for one connection", node.brokers[0].wheel.len());
}

/// [MQTT-3.1.2-24] [MQTT5-3.1.2-22]
#[test]
fn silence_for_one_and_a_half_keep_alives_ends_a_session() {
    let mut node = Node::new(Setup::default());
    let (silent, pinging) =
        (node.client_with(0, Version::V311, "a", &[], 10), node.client_with(0, Version::V311, "b", &[], 10));
    for _ in 0..2 {
        node.advance(Duration::from_secs(7));
        assert!(node.is_open(silent));
        node.send(pinging, &Packet::PingReq);
    }
    node.advance(Duration::from_secs(2));
    assert!(!node.is_open(silent) && node.is_open(pinging));
}

#[test]
fn a_turn_counts_what_it_delivers_so_that_it_can_be_bounded() {
    let mut node = Node::new(Setup::default());
    let publisher = node.client(0, "p");
    for n in 0..50 {
        let subscriber = node.client(0, &format!("s{n}"));
        node.subscribed(subscriber, "t", QoS::AtMostOnce);
    }
    for _ in 0..10 {
        node.publish(publisher, "t", b"x", None);
    }
    node.turn(0);
    assert!(node.brokers[0].work >= 500, "{}", node.brokers[0].work);
}

#[test]
fn an_idle_shard_wakes_rarely() {
    let mut node = Node::new(Setup::default());
    for n in 0..100 {
        node.client_with(0, Version::V5, &format!("c{n}"), &[], 60);
    }
    let mut wakes = 0;
    let end = node.now + Duration::from_secs(60);
    while let Some(next) = node.brokers[0].next_deadline().filter(|&next| next < end) {
        node.now = next;
        node.settle();
        wakes += 1;
    }
    assert!(wakes < 40, "{wakes} wake-ups in a minute");
}
