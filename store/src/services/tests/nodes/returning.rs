//! A node that is taken for dead and comes back, the same process as before, while the shards of another hear of it at different times.

use super::*;
use crate::services::reigns::Reigns;
use crate::services::wire::Remote;
use bifro_core::nodes::Member;
use bifro_core::roles::Duties;

/// Node 0 of one shard and node 1 of two, which counts on claims for so many ranges.
fn two_nodes(ranges: u16) -> Cluster {
    let mut cluster = Cluster::new(1, 2);
    let tenant = cluster.nodes[1].tenant.clone();
    for services in &mut cluster.nodes[1].shards {
        let (tenant, fatal) = (tenant.clone(), Arc::new(|reason: &str| panic!("{reason}")));
        services.reigns = Some(Box::new(Reigns::new(ranges, Arc::new(move |_| tenant.clone()), fatal, None)));
    }
    cluster
}

/// A shard of node 1 hears whether node 0 lives.
fn hear(cluster: &mut Cluster, shard: u16, lives: bool) {
    let other = Node {
        idx: idx(0),
        id: NodeId(100),
        nonce: 1,
        address: ([127, 0, 0, 1], 1).into(),
        shards: 1,
        duties: Duties::default(),
        is_well: true,
    };
    let others = if lives { vec![other] } else { Vec::new() };
    let members = [100, 101].map(|id| Member { id: NodeId(id), duties: Duties::default() }).into();
    let nodes = Arc::new(Nodes { me: NodeId(101), others, members });
    cluster.call(1, ShardId(shard), |services, now, _| services.set_nodes(now, &nodes));
}

/// The first shard of node 1 hears that node 0 has died, and then that it is back; its links are made anew. Nothing travels between the shards.
fn come_back_to_the_first_shard(cluster: &mut Cluster) {
    hear(cluster, 0, false);
    for key in [(0, 0, 1), (1, 0, 0)] {
        cluster.cut(key);
        cluster.notice(key);
    }
    hear(cluster, 0, true);
    cluster.link((0, 0, 1));
    cluster.link((1, 0, 0));
}

/// The second hears both now.
fn come_back_to_the_second_shard(cluster: &mut Cluster) {
    hear(cluster, 1, false);
    cluster.cut((1, 1, 0));
    cluster.notice((1, 1, 0));
    hear(cluster, 1, true);
    cluster.link((1, 1, 0));
}

/// What the link of node 0 carries arrives, and everybody goes on telling.
fn carry_all(cluster: &mut Cluster) {
    loop {
        let link = &cluster.links[&(0, 0, 1)];
        match (link.there.is_empty(), link.back.is_empty()) {
            (false, _) => cluster.carry((0, 0, 1), true),
            (true, false) => cluster.carry((0, 0, 1), false),
            (true, true) if cluster.go_on() => {}
            (true, true) => return,
        }
    }
}

#[test]
fn a_node_that_has_told_everything_is_heard_also_by_a_shard_that_hears_late_of_its_return() {
    let mut cluster = two_nodes(0);
    come_back_to_the_first_shard(&mut cluster);
    cluster.settle();
    come_back_to_the_second_shard(&mut cluster);
    cluster.settle();
    for shard in &cluster.nodes[1].shards {
        assert_eq!(shard.unheard_nodes(), []);
    }
}

#[test]
fn what_a_node_tells_after_its_return_is_not_forgotten_with_what_it_told_before() {
    let mut cluster = two_nodes(0);
    let is_local = |topic: &String| cluster.nodes[1].shards[0].place(TENANT, topic) == ShardId(0);
    let topic = (0..).map(|n| format!("t{n}")).find(is_local).expect("half of them are");
    cluster.subscribe(0, 0, &topic, None, 1);
    cluster.settle();
    come_back_to_the_first_shard(&mut cluster);
    carry_all(&mut cluster);
    // Only now the second shard is told, and says, that nobody counts on what the node has claimed before.
    cluster.settle();
    come_back_to_the_second_shard(&mut cluster);
    cluster.settle();
    assert_eq!(cluster.reached_in_the_end(1, &topic), [0], "it listens still");
}

#[test]
fn what_a_node_claims_after_its_return_is_not_forgotten_with_what_it_claimed_before() {
    let mut cluster = two_nodes(1);
    come_back_to_the_first_shard(&mut cluster);
    let claim = Remote::Leads { range: 0, term: 1 }.encode();
    let read =
        cluster.call(1, ShardId(0), |services, now, _| services.receive_remote(now, Via::To(idx(0)), None, &claim));
    assert!(read && cluster.nodes[1].shards[0].is_complete());
    come_back_to_the_second_shard(&mut cluster);
    cluster.settle();
    assert!(cluster.nodes[1].shards[0].is_complete(), "it says so once");
}

#[test]
fn a_message_that_was_sent_before_its_sender_knew_of_the_reign_is_told_apart_and_what_was_on_its_way_to_the_leader_has_failed()
 {
    let mut cluster = two_nodes(1);
    cluster.link((0, 0, 1));
    cluster.settle();
    let peer = (idx(0), ShardId(0));
    let leads = Message::Reign(crate::services::message::Reign::Leads { range: RangeIdx(0), term: 1 });
    cluster.call(1, ShardId(0), |services, now, _| services.receive(now, ShardId(1), leads));
    let services = &cluster.nodes[1].shards[0];
    assert!(services.is_complete() && !services.is_followed_by(peer.0, peer.1));
    let follows = Remote::Follows.encode();
    let via = Via::From(peer.0, peer.1);
    cluster.call(1, ShardId(0), |services, now, _| services.receive_remote(now, via, None, &follows));
    assert!(cluster.nodes[1].shards[0].is_followed_by(peer.0, peer.1));
    // Another node leads in a later term: what was on its way to inboxes here has failed, and what is on its way there.
    let seen = cluster.nodes[1].shards[0].reigns_seen();
    let claim = Remote::Leads { range: 0, term: 2 }.encode();
    cluster.call(1, ShardId(0), |services, now, _| services.receive_remote(now, Via::To(idx(0)), None, &claim));
    let lost = cluster.heard(1).into_iter().filter_map(|completion| match completion {
        Completion::LeaderLost { node } => Some(node),
        _ => None,
    });
    assert_eq!(lost.collect::<Vec<_>>(), [NodeIdx::HERE, idx(0)]);
    assert_eq!(
        cluster.nodes[1].shards[0].reigns_seen(),
        seen,
        "this node has not heard yet that its own reign is over"
    );
    let ends = Message::Reign(crate::services::message::Reign::Ends { range: RangeIdx(0), term: 1 });
    cluster.call(1, ShardId(0), |services, now, _| services.receive(now, ShardId(1), ends));
    let services = &cluster.nodes[1].shards[0];
    assert!(services.reigns_seen() != seen && !services.is_followed_by(peer.0, peer.1), "nor has the sender");
    let ended = Remote::Ended { range: 0, term: 1 }.encode();
    cluster.call(1, ShardId(0), |services, now, _| services.receive_remote(now, via, None, &ended));
    assert!(cluster.nodes[1].shards[0].is_followed_by(peer.0, peer.1));
}

/// Found by the simulator: a shard that had stood still published what it read from a connection whose client had gone on elsewhere.
#[test]
fn a_connection_owns_its_inbox_again_only_when_the_next_leader_has_said_so() {
    let mut cluster = two_nodes(1);
    cluster.link((1, 0, 0));
    cluster.settle();
    let (range, conn) = (RangeIdx(0), Slot { index: 7, generation: 1 });
    let claim = |cluster: &mut Cluster, term| {
        let leads = Remote::Leads { range: 0, term }.encode();
        cluster.call(1, ShardId(0), |services, now, _| services.receive_remote(now, Via::To(idx(0)), None, &leads));
    };
    let owns = |cluster: &Cluster| cluster.nodes[1].shards[0].owns_inbox(conn);
    claim(&mut cluster, 1);
    cluster.call(1, ShardId(0), |services, _, _| services.note_attached(conn, range));
    assert!(owns(&cluster));
    claim(&mut cluster, 2);
    assert!(!owns(&cluster), "another one leads");
    assert!(cluster.call(1, ShardId(0), |services, _, _| services.note_reattached(conn)));
    assert!(!owns(&cluster), "which has been told, and has not answered");
    cluster.call(1, ShardId(0), |services, _, _| services.note_owner(conn));
    assert!(owns(&cluster));
    cluster.cut((1, 0, 0));
    cluster.notice((1, 0, 0));
    assert!(!owns(&cluster), "nobody leads");
    cluster.call(1, ShardId(0), |services, _, _| services.note_owner(conn));
    assert!(!owns(&cluster), "what the last leader said is worth nothing any more");
}

/// Found by the simulator: an acknowledged message passed a session that had subscribed under the later leader, which was gone just then.
#[test]
fn a_node_that_claims_what_it_led_before_another_is_not_counted_on_also_when_the_other_is_gone() {
    let mut cluster = two_nodes(1);
    hear(&mut cluster, 0, true);
    cluster.link((1, 0, 0));
    cluster.settle();
    let claim = |cluster: &mut Cluster, of: u16, term| {
        cluster.call(1, ShardId(0), |services, now, _| {
            let leads = Remote::Leads { range: 0, term }.encode();
            services.receive_remote(now, Via::To(NodeIdx(of)), None, &leads);
        });
    };
    let is_complete = |cluster: &Cluster| cluster.nodes[1].shards[0].is_complete();
    claim(&mut cluster, idx(0).0, 2);
    assert!(is_complete(&cluster));
    cluster.cut((1, 0, 0));
    cluster.notice((1, 0, 0));
    assert!(!is_complete(&cluster));
    claim(&mut cluster, idx(0).0, 1);
    assert!(!is_complete(&cluster), "of a process that was there when a later term was heard");
    cluster.links.insert((1, 0, 8), Link::default());
    claim(&mut cluster, idx(8).0, 1);
    assert!(is_complete(&cluster), "of one that came later: nobody else knew of the term");
    claim(&mut cluster, idx(0).0, 3);
    assert!(is_complete(&cluster));
}
