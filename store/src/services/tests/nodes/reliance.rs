//! Who relies on what it was told, and for how long: nodes that are taken for dead and live, and shards that stand still.

use super::*;
use bifro_core::limits::{RELIANCE, RELIANCE_OVER};

#[test]
fn a_node_that_is_taken_for_dead_is_waited_for_as_long_as_it_may_rely_on_what_it_was_told() {
    let mut cluster = Cluster::new(1, 2);
    cluster.tell_nodes_that(|me, _| me == 1);
    let req = cluster.subscribe(0, 0, "b", None, 1);
    cluster.settle();
    assert_eq!(cluster.reached_in_the_end(1, "b"), [], "node 1 lives, and has heard nothing");
    assert!(!cluster.heard(0).iter().any(added(req)), "so nobody may count on it yet");
    cluster.advance_by(RELIANCE_OVER);
    assert!(cluster.heard(0).iter().any(added(req)));
    assert_eq!(cluster.reached_in_the_end(1, "b"), [0], "node 1 was not answered, and knows that it does not know");
}

#[test]
fn a_node_that_has_asked_for_nothing_lately_is_not_waited_for_when_it_dies() {
    let mut cluster = Cluster::new(2, 2);
    let of_dead = |(from, _, to): &Key| *from == 1 || *to == 1;
    for key in cluster.links.keys().copied().filter(of_dead).collect::<Vec<_>>() {
        cluster.links.insert(key, Link::default());
    }
    cluster.lives[1] = false;
    cluster.advance_by(RELIANCE_OVER);
    let req = cluster.subscribe(0, 0, "b", None, 1);
    cluster.settle();
    assert!(!cluster.heard(0).iter().any(added(req)), "nobody says that it is dead");
    cluster.tell_nodes();
    cluster.settle();
    assert!(cluster.heard(0).iter().any(added(req)));
}

#[test]
fn what_a_shard_has_heard_is_not_relied_on_while_it_stands_still() {
    let mut cluster = Cluster::new(3, 2);
    assert_eq!(cluster.nodes[1].shards[1].unheard_nodes(), []);
    // Node 0 tells the first shard of node 1, which stands still from now on; the second goes on.
    cluster.nodes[1].now = cluster.nodes[1].now + RELIANCE;
    let now = cluster.nodes[1].now;
    cluster.nodes[1].shards[1].begin_turn(now);
    assert_eq!(cluster.nodes[1].shards[1].unheard_nodes(), [idx(0)], "node 0 may have subscribers who wait for nobody");
    cluster.advance_by(Duration::ZERO);
    assert_eq!(cluster.nodes[1].shards[1].unheard_nodes(), [], "the first shard runs again, and has asked");
}

#[test]
fn a_loss_that_has_been_told_and_not_heard_counts() {
    let mut cluster = Cluster::new(4, 2);
    // The first shard of node 1 hears the end of the link; what it says of it is still on its way to the second.
    cluster.cut((0, 0, 1));
    cluster.notice((0, 0, 1));
    let now = cluster.nodes[1].now + RELIANCE / 2;
    for shard in [0, 1] {
        cluster.nodes[1].shards[shard].begin_turn(now);
    }
    let node = &mut cluster.nodes[1].shards[1];
    node.cluster.as_mut().expect("it is in a cluster").find_unheard();
    assert_eq!(node.unheard_nodes(), [idx(0)]);
    cluster.link((0, 0, 1));
    cluster.settle();
    assert_eq!(cluster.nodes[1].shards[1].unheard_nodes(), []);
}
