//! Liveness, the stated time after all faults have ended: every group has exactly one leader, every command and read is answered, and
//! all members have applied the same, to equal checksums.

use super::Checks;
use crate::node::Node;
use bifro_core::ids::RangeId;
use bifro_raft::{Group, Role};

/// Judges a healed cluster with so many operations unanswered.
pub(crate) fn check(nodes: &[Node], checks: &[Checks], waiting: usize) {
    assert!(waiting == 0, "liveness: {waiting} operations are not answered");
    for (range, checks) in checks.iter().enumerate() {
        check_group(nodes, RangeId(range as u64), checks);
    }
}

fn check_group(nodes: &[Node], range: RangeId, checks: &Checks) {
    let leads = |node: &&Node| node.replica(range).is_some_and(|(group, _)| group.role() == Role::Leader);
    let leaders: Vec<&Node> = nodes.iter().filter(leads).collect();
    let [leader] = leaders[..] else {
        let states: Vec<String> = nodes.iter().map(|node| state(node, range)).collect();
        panic!("liveness: {range} has {} leaders: {}", leaders.len(), states.join("; "));
    };
    let (group, replica) = leader.replica(range).expect("it leads");
    let (last, checksum) = (group.last(), replica.machine.checksum());
    assert!(!group.membership().is_joint(), "liveness: {range} is still changing its members");
    assert!(last.index >= checks.applied.last().index, "liveness: {range} ends before what was applied");
    assert!(last.index >= checks.commitment.last().index, "liveness: {range} ends before what was committed");
    for member in group.membership().members() {
        let node = &nodes[member.0 as usize];
        if node.shard.is_none() {
            // It stays away on purpose; the others can do without.
            continue;
        }
        let Some((_, replica)) = node.replica(range) else { panic!("liveness: {member} has no replica of {range}") };
        let applied = replica.machine.applied;
        assert!(applied == last, "liveness: {} of {range}, the leader has {last}", state(node, range));
        assert!(replica.machine.checksum() == checksum, "liveness: {member} of {range} has another state");
        checks.acknowledged.check(&replica.machine);
    }
}

/// A replica in words, for a failure.
fn state(node: &Node, range: RangeId) -> String {
    let describe = |group: &Group| {
        let (role, term, quiet) = (group.role(), group.term().0, if group.is_quiet() { ", quiet" } else { "" });
        let (applied, committed, last) = (group.applied().0, group.committed().0, group.last());
        format!("{role:?} in term {term}{quiet}, applied {applied}, committed {committed}, last {last}")
    };
    format!("{}: {}", node.id(), node.replica(range).map_or("none".to_owned(), |(group, _)| describe(group)))
}
