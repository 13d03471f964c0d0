//! What the shards of a node tell each other of how much they have heard of other nodes.

use super::RangeServices;
use super::message::{Dist, Message};
use bifro_core::ids::{NodeIdx, ShardId};

impl RangeServices {
    pub(super) fn tell_shards_heard(&mut self, node: NodeIdx, shard: ShardId, complete: bool) {
        if let (Some(cluster), false) = (&mut self.cluster, complete) {
            cluster.trust.tells_loss();
        }
        for to in self.all_shards() {
            self.send(to, Message::Dist(Dist::Heard { node, shard, complete }));
        }
        self.show_reliance();
    }

    /// A shard here has heard everything of a shard of another node, or cannot rely on it any more.
    pub(super) fn handle_heard(&mut self, from: ShardId, node: NodeIdx, shard: ShardId, complete: bool) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.trust.hears(from, (node, shard), complete);
        if complete {
            cluster.complete.entry(node).or_default().insert(shard, from);
        } else if let Some(shards) = cluster.complete.get_mut(&node)
            && shards.get(&shard) == Some(&from)
        {
            // Another shard here may have heard it since, over another way.
            shards.remove(&shard);
        }
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

    /// What a shard of another node has told another shard here is not to be relied on.
    pub(super) fn handle_lapsed(&mut self, from: ShardId, node: NodeIdx, shard: ShardId) {
        let Some(cluster) = &mut self.cluster else { return };
        let heard_by = cluster.complete.get(&node).and_then(|shards| shards.get(&shard));
        cluster.trust.hears_lapse(from, (node, shard), heard_by == Some(&from));
        cluster.find_unheard();
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
            self.send(to, Message::Dist(Dist::Heard { node, shard, complete: true }));
        }
    }
}
