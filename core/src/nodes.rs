//! The nodes of the cluster as everything above the underlay sees them: who lives, and where.

use crate::ids::{NodeId, NodeIdx, keyed_hash};
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
}

impl Node {
    /// Where its shard `shard` listens. None if there is no such port.
    pub fn endpoint(&self, shard: u16) -> Option<SocketAddr> {
        let port = self.address.port().checked_add(1)?.checked_add(shard)?;
        Some(SocketAddr::new(self.address.ip(), port))
    }
}

/// Everybody who lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes {
    /// This node.
    pub me: NodeId,
    /// The others, by their index.
    pub others: Vec<Node>,
    /// Everybody who belongs to the cluster, in order: who lives, and who has died not long ago and is expected back.
    pub members: Vec<NodeId>,
}

impl Nodes {
    /// This node by itself.
    pub fn alone(me: NodeId) -> Self {
        Self { me, others: Vec::new(), members: alloc::vec![me] }
    }

    /// The node, if it lives.
    pub fn get(&self, idx: NodeIdx) -> Option<&Node> {
        self.others.binary_search_by_key(&idx, |node| node.idx).ok().map(|at| &self.others[at])
    }

    /// Whether another node lives.
    pub fn lives(&self, id: NodeId) -> bool {
        self.others.iter().any(|node| node.id == id)
    }

    /// The live process of a node.
    pub fn find(&self, id: NodeId, nonce: u64) -> Option<&Node> {
        self.others.iter().find(|node| node.id == id && node.nonce == nonce)
    }

    /// The node responsible for a name, the same on all nodes that agree on who lives: highest random weight (Thaler, Ravishankar 1998), so
    /// that a node that comes or goes moves only its own share.
    pub fn responsible(&self, parts: &[&[u8]]) -> NodeIdx {
        let name = keyed_hash(0, parts);
        let weight = |id: NodeId| (keyed_hash(name, &[&id.0.to_le_bytes()]), id);
        let others = self.others.iter().map(|node| (weight(node.id), node.idx));
        others.chain([(weight(self.me), NodeIdx::HERE)]).max().map_or(NodeIdx::HERE, |(_, idx)| idx)
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
        };
        let members = others.iter().chain([&me]).copied().map(NodeId).collect();
        Nodes { me: NodeId(me), others: (1..).zip(others).map(node).collect(), members }
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
    fn shards_listen_behind_the_underlay() {
        let node = nodes(1, &[2]).others[0];
        assert_eq!(node.endpoint(0).map(|address| address.port()), Some(7947));
        assert_eq!(node.endpoint(u16::MAX), None);
    }
}
