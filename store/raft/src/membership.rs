//! Who belongs to a group, and what counts as a quorum of it.

use crate::limits::MEMBERS_MAX;
use alloc::vec::Vec;
use bifro_core::ids::NodeId;

/// The members of a group. In the joint phase of a change (`outgoing` is not empty) every decision needs a majority of
/// `voters` and a majority of `outgoing` (Raft section 6).
///
/// All lists are sorted and without duplicates. Nobody is both in `voters` and in `learners`; who is both in `outgoing` and
/// in `learners` votes until the joint phase ends.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Membership {
    /// Who votes.
    pub voters: Vec<NodeId>,
    /// Who voted before the change under way.
    pub outgoing: Vec<NodeId>,
    /// Who is only sent the log.
    pub learners: Vec<NodeId>,
}

/// How an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// A quorum is for it.
    Won,
    /// A quorum for it is no longer possible.
    Lost,
    /// Neither yet.
    Open,
}

impl Membership {
    /// Members without a change under way, in any order.
    pub fn new(voters: impl IntoIterator<Item = NodeId>, learners: impl IntoIterator<Item = NodeId>) -> Self {
        let sorted = |nodes: &mut Vec<NodeId>| nodes.sort_unstable();
        let (mut voters, mut learners): (Vec<_>, Vec<_>) =
            (voters.into_iter().collect(), learners.into_iter().collect());
        sorted(&mut voters);
        sorted(&mut learners);
        Self { voters, outgoing: Vec::new(), learners }
    }

    /// A group of one.
    pub fn single(node: NodeId) -> Self {
        Self::new([node], [])
    }

    /// Whether two majorities are needed.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether the node votes.
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.binary_search(&node).is_ok() || self.outgoing.binary_search(&node).is_ok()
    }

    /// Whether the node is sent the log.
    pub fn contains(&self, node: NodeId) -> bool {
        self.is_voter(node) || self.learners.binary_search(&node).is_ok()
    }

    /// Whether the node alone decides everything.
    pub fn is_sole_voter(&self, node: NodeId) -> bool {
        self.voters == [node] && (self.outgoing.is_empty() || self.outgoing == [node])
    }

    /// Entries in all lists, counting who is in two of them twice.
    pub fn len(&self) -> usize {
        self.voters.len() + self.outgoing.len() + self.learners.len()
    }

    /// Whether there are no members: a replica that has not been told yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every member once, in order.
    pub fn members(&self) -> Vec<NodeId> {
        let mut all: Vec<NodeId> =
            [&self.voters, &self.outgoing, &self.learners].into_iter().flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether it can be a group's members: see the type.
    pub fn is_well_formed(&self) -> bool {
        let sorted = |nodes: &[NodeId]| nodes.windows(2).all(|pair| pair[0] < pair[1]);
        let apart = self.voters.iter().all(|voter| self.learners.binary_search(voter).is_err());
        let lists = [&self.voters, &self.outgoing, &self.learners];
        !self.voters.is_empty() && self.len() <= MEMBERS_MAX && lists.iter().all(|list| sorted(list)) && apart
    }

    /// The joint phase on the way from these members to `target`.
    pub(crate) fn joint_with(&self, target: &Self) -> Self {
        Self { voters: target.voters.clone(), outgoing: self.voters.clone(), learners: target.learners.clone() }
    }

    /// What follows the joint phase.
    pub(crate) fn without_outgoing(&self) -> Self {
        Self { voters: self.voters.clone(), outgoing: Vec::new(), learners: self.learners.clone() }
    }

    /// The highest value that a quorum has reached: what is committed, if asked for what each voter has; when a quorum was
    /// last heard, if asked for times. The default value if there are no voters.
    pub fn reached_by_quorum<T: Ord + Copy + Default>(&self, reached: impl Fn(NodeId) -> T) -> T {
        let by_majority = |nodes: &[NodeId]| {
            let mut values: Vec<T> = nodes.iter().map(|&node| reached(node)).collect();
            values.sort_unstable();
            values.get((values.len().max(1) - 1) / 2).copied().unwrap_or_default()
        };
        let incoming = by_majority(&self.voters);
        if self.outgoing.is_empty() { incoming } else { incoming.min(by_majority(&self.outgoing)) }
    }

    /// How an election stands, given who has answered what.
    pub fn poll(&self, vote_of: impl Fn(NodeId) -> Option<bool>) -> Poll {
        let by_majority = |nodes: &[NodeId]| {
            let count = |wanted: Option<bool>| nodes.iter().filter(|&&node| vote_of(node) == wanted).count();
            let majority = nodes.len() / 2 + 1;
            let (for_it, open) = (count(Some(true)), count(None));
            if for_it >= majority {
                Poll::Won
            } else if for_it + open >= majority {
                Poll::Open
            } else {
                Poll::Lost
            }
        };
        match (by_majority(&self.voters), self.is_joint().then(|| by_majority(&self.outgoing))) {
            (Poll::Lost, _) | (_, Some(Poll::Lost)) => Poll::Lost,
            (Poll::Won, None | Some(Poll::Won)) => Poll::Won,
            _ => Poll::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    fn nodes() -> impl Strategy<Value = BTreeSet<u64>> {
        proptest::collection::btree_set(0..6_u64, 1..6)
    }

    fn membership(voters: &BTreeSet<u64>, outgoing: &BTreeSet<u64>) -> Membership {
        let outgoing = outgoing.iter().copied().map(NodeId).collect();
        Membership { outgoing, ..Membership::new(voters.iter().copied().map(NodeId), []) }
    }

    /// Whether these nodes may decide.
    fn decides(members: &Membership, quorum: u64) -> bool {
        members.poll(|node| Some(quorum >> node.0 & 1 == 1)) == Poll::Won
    }

    proptest! {
        #[test]
        fn quorums_before_during_and_after_a_change_meet_step_by_step(before in nodes(), after in nodes()) {
            let none = BTreeSet::new();
            let steps = [membership(&before, &none), membership(&after, &before), membership(&after, &none)];
            for pair in steps.windows(2) {
                for (one, other) in (0..64).flat_map(|one| (0..64).map(move |other| (one, other))) {
                    let both = decides(&pair[0], one) && decides(&pair[1], other);
                    prop_assert!(!both || one & other != 0, "{one:b} and {other:b}");
                }
            }
        }

        #[test]
        fn what_a_quorum_has_reached_is_what_it_would_vote_for(voters in nodes(), outgoing in nodes(), values in proptest::array::uniform6(0..5_u64)) {
            let members = membership(&voters, &outgoing);
            let reached = members.reached_by_quorum(|node| values[node.0 as usize]);
            let enough = |value| members.poll(|node| Some(values[node.0 as usize] >= value)) == Poll::Won;
            prop_assert!(enough(reached) && !enough(reached + 1));
        }

        #[test]
        fn a_poll_is_open_as_long_as_it_can_still_go_both_ways(voters in nodes(), outgoing in nodes(), votes in proptest::array::uniform6(proptest::option::of(any::<bool>()))) {
            let members = membership(&voters, &outgoing);
            let if_all_others = |vote: bool| members.poll(|node| votes[node.0 as usize].or(Some(vote)));
            let expected = match (if_all_others(true), if_all_others(false)) {
                (Poll::Won, Poll::Won) => Poll::Won,
                (Poll::Lost, _) => Poll::Lost,
                _ => Poll::Open,
            };
            prop_assert_eq!(members.poll(|node| votes[node.0 as usize]), expected);
        }
    }
}
