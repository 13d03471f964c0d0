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
