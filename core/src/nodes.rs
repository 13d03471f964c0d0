//! The nodes of the cluster as everything above the underlay sees them: who lives, and where.

use crate::ids::{NodeId, NodeIdx, keyed_hash};
use crate::roles::{Duties, Roles};
use alloc::vec::Vec;
use core::net::SocketAddr;

/// Another node that lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// How this process counts it.
    pub idx: NodeIdx,
    /// Who it is.
    pub id: NodeId,
    /// Which process of it: drawn at its start.
    pub nonce: u64,
    /// Where its underlay listens; its shard i listens at the port after the i-th.
    pub address: SocketAddr,
    /// How many shards it has.
    pub shards: u16,
    /// What is to be expected of it.
    pub duties: Duties,
    /// It can be relied on, as it says itself: its disk has space and does not stall, its shards turn.
    pub is_well: bool,
}

impl Node {
    /// Where its shard `shard` listens. None if there is no such port.
    pub fn endpoint(&self, shard: u16) -> Option<SocketAddr> {
        let port = self.address.port().checked_add(1)?.checked_add(shard)?;
        Some(SocketAddr::new(self.address.ip(), port))
    }
}

/// A node that belongs to the cluster, whether or not it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub id: NodeId,
    /// What is to be expected of it.
    pub duties: Duties,
}

/// Everybody who lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes {
    /// This node.
    pub me: NodeId,
    /// The others, by their index.
    pub others: Vec<Node>,
    /// Everybody who belongs to the cluster, this node included, in order: who lives, and who has died not long ago and is expected back.
    pub members: Vec<Member>,
}

impl Nodes {
    /// This node by itself.
    pub fn alone(me: NodeId) -> Self {
        Self { me, others: Vec::new(), members: alloc::vec![Member { id: me, duties: Duties::default() }] }
    }

    /// What is to be expected of this node.
    pub fn my_duties(&self) -> Duties {
        let mine = self.members.binary_search_by_key(&self.me, |member| member.id);
        mine.map_or_else(|_| Duties::default(), |at| self.members[at].duties)
    }

    /// Those who may be given replicas, in order.
    pub fn hosts(&self) -> Vec<NodeId> {
        let hosts = self.members.iter().filter(|member| member.duties.takes_on(Roles::INBOX));
        hosts.map(|member| member.id).collect()
    }

    /// The node, if it lives.
    pub fn get(&self, idx: NodeIdx) -> Option<&Node> {
        self.others.binary_search_by_key(&idx, |node| node.idx).ok().map(|at| &self.others[at])
    }

    /// Whether another node lives.
    pub fn lives(&self, id: NodeId) -> bool {
        self.others.iter().any(|node| node.id == id)
    }

    /// Whether another node lives and is well.
    pub fn is_well(&self, id: NodeId) -> bool {
        self.others.iter().any(|node| node.id == id && node.is_well)
    }

    /// The live process of a node.
    pub fn find(&self, id: NodeId, nonce: u64) -> Option<&Node> {
        self.others.iter().find(|node| node.id == id && node.nonce == nonce)
    }

    /// The node responsible for a name, the same on all nodes that agree on who lives: highest random weight (Thaler, Ravishankar 1998), so
    /// that a node that comes or goes moves only its own share. Of those that take this on; if there is none, of those whose role it is
    /// and that are about to go; if there is none either, of all, for somebody has to.
    pub fn responsible(&self, parts: &[&[u8]]) -> NodeIdx {
        let name = keyed_hash(0, parts);
        let weight = |id: NodeId, duties: Duties| {
            let rank = (duties.roles.has(Roles::SESSION_DICT), duties.takes_on(Roles::SESSION_DICT));
            (rank, keyed_hash(name, &[&id.0.to_le_bytes()]), id)
        };
        let others = self.others.iter().map(|node| (weight(node.id, node.duties), node.idx));
        let me = (weight(self.me, self.my_duties()), NodeIdx::HERE);
        others.chain([me]).max().map_or(NodeIdx::HERE, |(_, idx)| idx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(me: u64, others: &[u64]) -> Nodes {
        let node = |(idx, &id): (u16, &u64)| Node {
            idx: NodeIdx(idx),
            id: NodeId(id),
            nonce: id,
            address: ([127, 0, 0, 1], 7946).into(),
            shards: 1,
            duties: Duties::default(),
            is_well: true,
        };
        let member = |&id: &u64| Member { id: NodeId(id), duties: Duties::default() };
        let mut members: Vec<Member> = others.iter().chain([&me]).map(member).collect();
        members.sort_unstable_by_key(|member| member.id);
        Nodes { me: NodeId(me), others: (1..).zip(others).map(node).collect(), members }
    }

    /// As the nodes see it when this one has these duties.
    fn assign(nodes: &mut Nodes, id: u64, duties: Duties) {
        nodes.others.iter_mut().filter(|node| node.id.0 == id).for_each(|node| node.duties = duties);
        nodes.members.iter_mut().filter(|member| member.id.0 == id).for_each(|member| member.duties = duties);
    }

    fn responsible(nodes: &Nodes, name: u32) -> NodeId {
        let idx = nodes.responsible(&[b"tenant", &name.to_le_bytes()]);
        nodes.get(idx).map_or(nodes.me, |node| node.id)
    }

    #[test]
    fn all_nodes_agree_on_who_is_responsible() {
        let views = [nodes(10, &[20, 30]), nodes(20, &[30, 10]), nodes(30, &[10, 20])];
        for name in 0..1_000 {
            assert_eq!(responsible(&views[0], name), responsible(&views[1], name));
            assert_eq!(responsible(&views[0], name), responsible(&views[2], name));
        }
    }

    #[test]
    fn a_node_that_goes_moves_its_own_share_only_and_shares_are_even() {
        let (three, two) = (nodes(10, &[20, 30]), nodes(10, &[20]));
        let gone = (0..3_000).filter(|&name| responsible(&three, name) == NodeId(30));
        assert!((900..1_100).contains(&gone.count()));
        for name in (0..3_000).filter(|&name| responsible(&three, name) != NodeId(30)) {
            assert_eq!(responsible(&three, name), responsible(&two, name));
        }
    }

    #[test]
    fn who_does_not_take_it_on_is_responsible_for_nothing_unless_nobody_does() {
        let draining = Duties { is_draining: true, ..Duties::default() };
        let front_end = Duties { roles: Roles::MQTT, is_draining: false };
        let mut views = [nodes(10, &[20, 30]), nodes(20, &[10, 30])];
        let mut who = |duties: [Duties; 3]| {
            let [one, other] = &mut views;
            for view in [&mut *one, &mut *other] {
                [10, 20, 30].into_iter().zip(duties).for_each(|(id, duties)| assign(view, id, duties));
            }
            assert!((0..100).all(|name| responsible(one, name) == responsible(other, name)));
            let mut found: Vec<u64> = (0..100).map(|name| responsible(one, name).0).collect();
            found.sort_unstable();
            found.dedup();
            found
        };
        assert_eq!(who([Duties::default(), draining, front_end]), [10]);
        assert_eq!(who([front_end, draining, draining]), [20, 30], "they still do, since nobody else does");
        assert_eq!(who([front_end; 3]), [10, 20, 30]);
    }

    #[test]
    fn replicas_are_for_those_who_have_the_role_and_do_not_go() {
        let mut view = nodes(20, &[30, 10]);
        assert_eq!(view.hosts(), [10, 20, 30].map(NodeId));
        assign(&mut view, 10, Duties { roles: Roles::ALL.without(Roles::INBOX), is_draining: false });
        assign(&mut view, 20, Duties { is_draining: true, ..Duties::default() });
        assert_eq!(view.hosts(), [NodeId(30)]);
        assert!(view.my_duties().is_draining);
    }

    #[test]
    fn shards_listen_behind_the_underlay() {
        let node = nodes(1, &[2]).others[0];
        assert_eq!(node.endpoint(0).map(|address| address.port()), Some(7947));
        assert_eq!(node.endpoint(u16::MAX), None);
    }
}
