//! Shared subscriptions: one member of a group gets each message.
//!
//! `$share` starts at a random member and skips those of this shard that have no credit (send window full, or messages
//! waiting); a member of another shard is asked there, and passes the message on if it has none. When every member has been
//! asked, the last one queues it. `$oshare` always takes the member whose hash with the publisher is highest (rendezvous),
//! so one publisher's messages stay in order while the group does not change.

use super::completion::Awaited;
use super::{Broker, ShardMessage};
use bifro_core::ids::{PublisherKey, ReqId, ShardId, Slot, TenantIdx};
use bifro_core::message::Message;
use bifro_core::ports::{GroupMatch, GroupName, Receiver, Services};
use bifro_core::rng::Prng;
use bifro_mqtt::codec::Fanout;
use std::sync::Arc;

/// A publish that waits, and the shard it waits on.
type WaitsOn = Option<(ShardId, u64)>;

impl<S: Services> Broker<S> {
    /// Gives a message to one member of the group.
    pub(super) fn deliver_shared(
        &mut self,
        tenant: TenantIdx,
        message: &Arc<Message>,
        group: &Arc<GroupMatch>,
        publish: WaitsOn,
    ) {
        let members = group.members.len();
        if members == 0 {
            self.group_part_done(publish);
            return;
        }
        if group.group.ordered {
            let at = rendezvous(message.view().publisher, &group.members);
            self.offer(tenant, message, group, at, 1, publish);
        } else {
            let at = self.rng.below(members as u64) as usize;
            self.offer(tenant, message, group, at, members, publish);
        }
    }

    /// Offers a message to the member at `at`, then to the ones after it, `left` in all.
    pub(super) fn offer(
        &mut self,
        tenant: TenantIdx,
        message: &Arc<Message>,
        group: &Arc<GroupMatch>,
        at: usize,
        left: usize,
        publish: WaitsOn,
    ) {
        let mut fallback = None;
        for step in 0..left {
            let index = (at + step) % group.members.len();
            match group.members[index] {
                Receiver::Live { shard, slot } if shard == self.shard => {
                    if self.member_has_credit(slot) {
                        self.give(tenant, message, slot);
                        self.group_part_done(publish);
                        return;
                    }
                    fallback = fallback.or(self.fanout.entry(slot).map(|_| slot));
                }
                Receiver::Live { shard, .. } => {
                    let (at, left) = (to_u32(index), to_u32(left - step));
                    let (message, group) = (message.clone(), group.clone());
                    let offer = ShardMessage::DeliverShared { tenant, message, group, at, left, publish };
                    self.to_peers.push((shard, offer));
                    return;
                }
                Receiver::Inbox { shard, inbox, subscription } => {
                    let req = self.next_req_id();
                    if publish.is_some() {
                        self.requests.insert(req, Awaited::GroupPart(publish));
                    }
                    self.services.insert(self.now, req, tenant, shard, &[(inbox, subscription)].into(), message);
                    return;
                }
            }
        }
        if let Some(slot) = fallback {
            self.give(tenant, message, slot);
        }
        self.group_part_done(publish);
    }

    /// Tells whoever waits that the group has taken the message over.
    pub(super) fn group_part_done(&mut self, publish: WaitsOn) {
        match publish {
            None => {}
            Some((shard, publish)) if shard == self.shard => self.publish_part_done(ReqId(publish), Ok(())),
            Some((shard, publish)) => self.taken[shard.index()].push(publish),
        }
    }

    /// A departed member gave this back: another one gets it.
    pub(super) fn redeliver(&mut self, tenant: TenantIdx, filter: &str, group: &GroupName, message: Arc<Message>) {
        let req = self.next_req_id();
        self.requests.insert(req, Awaited::Group { tenant, message });
        self.services.request_group(self.now, req, tenant, filter, group);
    }

    fn member_has_credit(&self, slot: Slot) -> bool {
        let subscriber = self.fanout.entry(slot).and_then(|entry| entry.subscribers.first());
        let conn = subscriber.and_then(|subscriber| self.conns.get(subscriber.conn));
        conn.is_some_and(|conn| !conn.closing && !conn.congested && conn.session.has_credit())
    }

    fn give(&mut self, tenant: TenantIdx, message: &Arc<Message>, slot: Slot) {
        let Some(entry) = self.fanout.entry(slot) else { return };
        let Some(subscriber) = entry.subscribers.first().copied() else { return };
        let (filter, group) = (entry.filter.clone(), entry.group.clone());
        let shared = group.as_deref().map(|group| (&*filter, group));
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut fanout = Fanout::with_scratch(message.view(), Some(message.clone()), self.now, &mut scratch);
        let id = subscriber.options.subscription_id;
        self.deliver_one(tenant, &mut fanout, subscriber.conn, subscriber.options, id.as_slice(), shared);
        drop(fanout);
        self.scratch = scratch;
    }
}

/// Highest random weight (Thaler, Ravishankar 1998) over the members.
fn rendezvous(publisher: PublisherKey, members: &[Receiver]) -> usize {
    let weight = |receiver: &Receiver| {
        let (shard, slot, salt) = match receiver {
            Receiver::Live { shard, slot } => (shard, slot, 0),
            Receiver::Inbox { shard, inbox, subscription } => (shard, inbox, u64::from(*subscription) + 1),
        };
        let place = u64::from(slot.index) << 32 | u64::from(slot.generation);
        Prng::new(publisher.0).derive(place).derive(salt << 16 | u64::from(shard.0)).next_u64()
    };
    members.iter().enumerate().max_by_key(|(_, member)| weight(member)).map_or(0, |(index, _)| index)
}

fn to_u32(index: usize) -> u32 {
    u32::try_from(index).expect("a group has fewer than 2^32 members")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(index: u32) -> Receiver {
        Receiver::Live { shard: ShardId(0), slot: Slot { index, generation: 0 } }
    }

    #[test]
    fn a_publisher_keeps_its_member_when_another_one_leaves() {
        let members: Vec<_> = (0..8).map(member).collect();
        for publisher in (0..100).map(PublisherKey) {
            let chosen = members[rendezvous(publisher, &members)];
            let others: Vec<_> =
                members.iter().copied().filter(|&other| other == chosen || other != member(3)).collect();
            assert_eq!(others[rendezvous(publisher, &others)], chosen);
        }
    }

    #[test]
    fn publishers_spread_over_the_members() {
        let members: Vec<_> = (0..4).map(member).collect();
        let mut counts = [0; 4];
        for publisher in (0..4000).map(PublisherKey) {
            counts[rendezvous(publisher, &members)] += 1;
        }
        assert!(counts.iter().all(|&count| (800..1200).contains(&count)), "{counts:?}");
    }
}
