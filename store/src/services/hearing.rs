//! What the shards of a node tell each other of how much they have heard of other nodes.

use super::RangeServices;
use super::message::{Dist, Message};
use bifro_core::ids::{NodeIdx, ShardId};

/// How much of what a shard of another node listens to a shard here has heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Everything,
    /// All, and it is not to be relied on for now.
    Lapsed,
    /// Not all, or it may be out of date.
    Nothing,
}

impl RangeServices {
    pub(super) fn tell_shards_heard(&mut self, node: NodeIdx, shard: ShardId, extent: Extent) {
        if let Some(cluster) = self.cluster.as_mut().filter(|_| extent != Extent::Everything) {
            cluster.trust.tells_loss();
        }
        for to in self.all_shards() {
            self.send(to, Message::Dist(Dist::Heard { node, shard, extent }));
        }
        self.show_reliance();
    }

    /// A shard here has heard everything of a shard of another node, or cannot rely on it any more.
    pub(super) fn handle_heard(&mut self, from: ShardId, (node, shard): (NodeIdx, ShardId), extent: Extent) {
        let Some(cluster) = &mut self.cluster else { return };
        let shards = cluster.complete.entry(node).or_default();
        if extent == Extent::Everything {
            shards.insert(shard, from);
        }
        // Another shard here may have heard it since, over another way.
        let counts = shards.get(&shard) == Some(&from);
        if counts && extent == Extent::Nothing {
            shards.remove(&shard);
        }
        if shards.is_empty() {
            cluster.complete.remove(&node);
        }
        cluster.trust.hears(from, (node, shard), extent, counts);
        cluster.find_unheard();
    }

    /// Each shard hears by itself who comes and goes. Of a node that has come back another one may have heard everything before this one has
    /// even forgotten the time before.
    pub(super) fn ask_who_has_heard(&mut self, nodes: &[NodeIdx]) {
        for &node in nodes {
            for to in self.all_shards() {
                self.send(to, Message::Dist(Dist::WhoHasHeard { node }));
            }
        }
    }

    /// Tells a shard here which shards of a node this one has heard everything of.
    pub(super) fn tell_heard(&mut self, to: ShardId, node: NodeIdx) {
        let complete = self.cluster.as_ref().and_then(|cluster| cluster.complete.get(&node));
        let is_told = |shard| {
            let heard = self.cluster.as_ref().and_then(|cluster| cluster.heard.get(&(node, shard)));
            heard.is_some_and(|heard| heard.reliance.is_told)
        };
        let here = complete.into_iter().flatten().filter(|(shard, at)| **at == self.shard && is_told(**shard));
        for shard in here.map(|(&shard, _)| shard).collect::<Vec<_>>() {
            self.send(to, Message::Dist(Dist::Heard { node, shard, extent: Extent::Everything }));
        }
    }
}
