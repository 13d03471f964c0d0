//! Which nodes have replicas of a range, and what its leader changes for that.

use bifro_core::ids::{NodeId, RangeId, keyed_hash};
use bifro_raft::Membership;

/// Voters of a range, if there are so many nodes: two may be lost one after the other, one at once.
pub(super) const VOTERS: usize = 3;

/// How far a replica may lag behind, in entries, and be made a voter.
const LAG_MAX: u64 = 256;

/// What a leader does next, so that its range's replicas are where they belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Propose these members.
    Change(Membership),
    /// Hand the range over: this node is to have no replica, or another is to lead.
    Transfer(NodeId),
}

/// The nodes that are to have replicas, of those that may be given any ([`Nodes::hosts`](bifro_core::nodes::Nodes::hosts)), whether or not they live: highest random weight, so that a
/// node that comes or goes moves only its own share.
pub(super) fn wanted(range: RangeId, hosts: &[NodeId]) -> Vec<NodeId> {
    let weight = |node: &NodeId| keyed_hash(range.0, &[&node.0.to_le_bytes()]);
    let mut ranked: Vec<NodeId> = hosts.to_vec();
    ranked.sort_unstable_by_key(|node| (std::cmp::Reverse(weight(node)), *node));
    ranked.truncate(VOTERS);
    ranked
}

/// Who leads by preference, so that leaders spread over the nodes, if replicas are where they belong, it lacks next to nothing and is well:
/// nobody else than `me`, or none.
pub(super) fn heir(
    me: NodeId,
    current: &Membership,
    wanted: &[NodeId],
    lag: impl Fn(NodeId) -> Option<u64>,
    is_well: impl Fn(NodeId) -> bool,
) -> Option<NodeId> {
    let preferred = *wanted.first()?;
    let is_ready = is_placed(current, wanted) && lag(preferred).is_some_and(|lag| lag <= LAG_MAX) && is_well(preferred);
    (preferred != me && is_ready).then_some(preferred)
}

/// Whether the replicas are where they belong.
pub(super) fn is_placed(current: &Membership, wanted: &[NodeId]) -> bool {
    *current == Membership::new(wanted.iter().copied(), [])
}

/// With whom a range begins.
pub(super) fn founding(range: RangeId, founders: &[NodeId]) -> Membership {
    Membership::new(wanted(range, founders), [])
}

/// What `me`, which leads, does next: nothing if all is as it should be, or a change is under way. `wanted` is what
/// [`wanted`] says; `lag` is how many entries a live node lacks, none if it does not live. Of those who could lead in its place it takes one that is well.
///
/// A replica is added as one that only learns, and votes once it has nearly everything. Nobody is let go before that, nor while a majority
/// of those who would be left does not live: a voter that is to go is worth more than one that is dead.
pub(super) fn next_step(
    me: NodeId,
    current: &Membership,
    wanted: &[NodeId],
    lag: impl Fn(NodeId) -> Option<u64>,
    is_well: impl Fn(NodeId) -> bool,
) -> Option<Step> {
    if current.is_joint() || wanted.is_empty() {
        return None;
    }
    let lives = |node: NodeId| node == me || lag(node).is_some();
    let can_decide = |step: &Step| match step {
        Step::Change(target) => 2 * target.voters.iter().filter(|node| lives(**node)).count() > target.voters.len(),
        Step::Transfer(_) => true,
    };
    step_towards(me, current, wanted, &lag, &is_well).filter(can_decide)
}

/// As [`next_step`], whether or not those who would be left can decide anything.
fn step_towards(
    me: NodeId,
    current: &Membership,
    wanted: &[NodeId],
    lag: &impl Fn(NodeId) -> Option<u64>,
    is_well: &impl Fn(NodeId) -> bool,
) -> Option<Step> {
    let lives = |node: NodeId| node == me || lag(node).is_some();
    let ready: Vec<NodeId> = (current.learners.iter().copied())
        .filter(|node| wanted.contains(node) && lag(*node).is_some_and(|lag| lag <= LAG_MAX))
        .collect();
    let kept: Vec<NodeId> = current.voters.iter().copied().filter(|node| wanted.contains(node)).collect();
    let will_vote: Vec<NodeId> = kept.iter().chain(&ready).copied().collect();
    let surplus: Vec<NodeId> = current.voters.iter().copied().filter(|node| !wanted.contains(node)).collect();
    if will_vote.len() == wanted.len() && (!ready.is_empty() || !surplus.is_empty()) {
        if surplus.contains(&me) {
            let able = kept.iter().copied().filter(|&node| lag(node).is_some_and(|lag| lag <= LAG_MAX));
            let heir = able.max_by_key(|&node| (is_well(node), std::cmp::Reverse(node)));
            return match (heir, ready.is_empty()) {
                (Some(heir), true) => Some(Step::Transfer(heir)),
                // It stays until the others vote.
                _ => Some(Step::Change(Membership::new(will_vote.into_iter().chain([me]), []))),
            };
        }
        return Some(Step::Change(Membership::new(will_vote, [])));
    }
    if !ready.is_empty() {
        let voters = current.voters.iter().copied().chain(ready.iter().copied());
        let learners = current.learners.iter().copied().filter(|node| !ready.contains(node));
        return Some(Step::Change(Membership::new(voters, learners)));
    }
    let missing: Vec<NodeId> = wanted.iter().copied().filter(|node| !current.contains(*node) && lives(*node)).collect();
    let stale = current.learners.iter().any(|node| !wanted.contains(node));
    if missing.is_empty() && !stale {
        return None;
    }
    let learners = current.learners.iter().copied().filter(|node| wanted.contains(node)).chain(missing);
    Some(Step::Change(Membership::new(current.voters.iter().copied(), learners)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const RANGE: RangeId = RangeId(7);

    fn nodes(ids: impl IntoIterator<Item = u64>) -> Vec<NodeId> {
        ids.into_iter().map(NodeId).collect()
    }

    /// Carries steps out until none is left; who leads may change. `dead` nodes never learn anything.
    fn settled(mut members: Membership, all: &[NodeId], dead: &[NodeId]) -> (Membership, Vec<Step>) {
        let mut me = members.voters[0];
        let mut steps = Vec::new();
        for _ in 0..20 {
            let lag = |node: NodeId| (!dead.contains(&node)).then_some(0);
            let Some(step) = next_step(me, &members, &wanted(RANGE, all), lag, |_| true) else {
                return (members, steps);
            };
            steps.push(step.clone());
            match step {
                Step::Transfer(to) => {
                    assert!(members.voters.contains(&to) && !dead.contains(&to), "{to:?}");
                    me = to;
                }
                Step::Change(target) => {
                    assert!(target.is_well_formed() && target != members, "{target:?}");
                    assert!(target.voters.contains(&me), "a leader does not vote itself out");
                    let learned: BTreeSet<_> = members.voters.iter().chain(&members.learners).collect();
                    assert!(target.voters.iter().all(|voter| learned.contains(voter)), "who votes has learned before");
                    members = target;
                }
            }
        }
        panic!("no end: {members:?} {steps:?}");
    }

    #[test]
    fn a_range_of_one_founder_gets_three_voters_as_nodes_come_and_keeps_them() {
        let mut members = Membership::single(NodeId(1));
        for count in 2..8 {
            let all = nodes(1..=count);
            (members, _) = settled(members, &all, &[]);
            assert!(is_placed(&members, &wanted(RANGE, &all)), "{members:?} of {count}");
            assert_eq!(members.voters.len(), VOTERS.min(all.len()));
        }
    }

    #[test]
    fn nobody_is_replaced_until_it_is_evicted_and_then_by_who_lives() {
        let all = nodes(1..=5);
        let voters = wanted(RANGE, &all);
        let members = Membership::new(voters.clone(), []);
        let (dead, leader) = (voters[2], voters[0]);
        let lag = |node: NodeId| (node != dead).then_some(0);
        assert_eq!(next_step(leader, &members, &wanted(RANGE, &all), lag, |_| true), None, "it is expected back");
        let left: Vec<_> = all.iter().copied().filter(|node| *node != dead).collect();
        let (members, _) = settled(members, &left, &[dead]);
        assert!(is_placed(&members, &wanted(RANGE, &left)) && !members.contains(dead));
    }

    /// Nobody loses its replica before the one that takes its place has learned everything, and the range is handed over by its leader.
    #[test]
    fn a_node_that_is_to_go_gives_away_what_it_has_and_leads() {
        let all = nodes(1..=4);
        let voters = wanted(RANGE, &all);
        for going in &voters {
            let hosts: Vec<_> = all.iter().copied().filter(|node| node != going).collect();
            let before = Membership::new(voters.clone(), []);
            let leader = before.voters[0];
            let (members, steps) = settled(before, &hosts, &[]);
            assert!(is_placed(&members, &wanted(RANGE, &hosts)) && !members.contains(*going));
            let transfers = steps.iter().filter(|step| matches!(step, Step::Transfer(_))).count();
            assert_eq!(transfers, usize::from(*going == leader), "{steps:?}");
        }
        let left = wanted(RANGE, &nodes(1..=2));
        let (members, _) = settled(Membership::new(nodes(1..=3), []), &left, &[]);
        assert_eq!(members, Membership::new(left, []), "of three, two remain");
        assert_eq!(next_step(NodeId(1), &members, &[], |_| Some(0), |_| true), None, "there is nobody else");
    }

    /// Else the range could do nothing until the dead one is back.
    #[test]
    fn a_node_that_is_to_go_stays_while_it_is_needed_for_a_majority() {
        let members = Membership::new(nodes(1..=3), []);
        let lag = |node: NodeId| (node != NodeId(3)).then_some(0);
        assert_eq!(next_step(NodeId(1), &members, &nodes([2, 3]), lag, |_| true), Some(Step::Transfer(NodeId(2))));
        assert_eq!(
            next_step(NodeId(2), &members, &nodes([2, 3]), lag, |_| true),
            None,
            "2 alone is no majority of two"
        );
        let step = next_step(NodeId(2), &members, &nodes([2]), lag, |_| true);
        assert_eq!(step, Some(Step::Change(Membership::new(nodes([2]), []))), "3 has been removed");
        let four = Membership::new(nodes(1..=3), nodes([4]));
        let step = next_step(NodeId(2), &four, &nodes([2, 3, 4]), lag, |_| true);
        assert_eq!(step, Some(Step::Change(Membership::new(nodes([2, 3, 4]), []))), "two of three live");
    }

    #[test]
    fn nothing_is_changed_while_a_change_is_under_way_or_the_newcomer_has_not_learned_enough() {
        let all = nodes(1..=3);
        let learning = Membership::new(nodes([1]), nodes([2, 3]));
        assert_eq!(next_step(NodeId(1), &learning, &wanted(RANGE, &all), |_| Some(LAG_MAX + 1), |_| true), None);
        let joint = Membership { outgoing: nodes([1]), ..Membership::new(nodes([1, 2]), []) };
        assert_eq!(next_step(NodeId(1), &joint, &wanted(RANGE, &all), |_| Some(0), |_| true), None);
    }

    #[test]
    fn leaders_spread_over_the_nodes_once_these_have_everything() {
        let all = nodes(1..=3);
        let voters = wanted(RANGE, &all);
        let members = Membership::new(voters.clone(), []);
        assert_eq!(heir(voters[1], &members, &voters, |_| Some(0), |_| true), Some(voters[0]));
        assert_eq!(heir(voters[1], &members, &voters, |_| Some(0), |_| false), None, "it is not well");
        assert_eq!(heir(voters[0], &members, &voters, |_| Some(0), |_| true), None, "it leads already");
        assert_eq!(heir(voters[1], &members, &voters, |_| None, |_| true), None, "it is away");
        assert_eq!(heir(voters[1], &members, &voters, |_| Some(LAG_MAX + 1), |_| true), None, "it lacks too much");
        assert_eq!(
            heir(voters[1], &Membership::single(voters[1]), &voters, |_| Some(0), |_| true),
            None,
            "replicas move"
        );
    }

    #[test]
    fn founders_that_agree_on_who_they_are_agree_on_the_voters() {
        let spread = (0..64).map(|range| founding(RangeId(range), &nodes(1..=6)));
        let mut counts = [0; 7];
        for members in spread {
            assert_eq!(members.voters.len(), VOTERS);
            members.voters.iter().for_each(|node| counts[node.0 as usize] += 1);
        }
        assert!(counts[1..].iter().all(|&count| count > 16), "{counts:?}");
        assert_eq!(founding(RANGE, &nodes([3, 1, 2])), founding(RANGE, &nodes([1, 2, 3])));
    }
}
