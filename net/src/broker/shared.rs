//! Shared subscriptions: one member of a group gets each message.
//!
//! `$share` starts at a random member and skips those of this shard that have no credit (send window full, or messages
//! waiting); a member of another shard is asked there, and passes the message on if it has none. When every member has been
//! asked, the first one that is still there queues it. A member of another node is asked there likewise: that node chooses among its own. `$oshare` always takes the member whose hash with the publisher is highest (rendezvous),
//! so one publisher's messages stay in order while the group does not change.

use super::completion::Awaited;
use super::frames::Refusal;
use super::publish::{Publisher, Waiter};
use super::remote::is_too_long;
use super::{Broker, ShardMessage};
use bifro_core::ids::{PublisherKey, ReqId, ShardId, Slot, TenantIdx};
use bifro_core::inquiry::Holder;
use bifro_core::message::{Message, QoS};
use bifro_core::ports::{GroupMatch, GroupName, Matches, Origin, PortError, Receiver, Services};
use bifro_core::rng::Prng;
use bifro_mqtt::codec::Fanout;
use std::sync::Arc;

/// A publish that waits, and the shard it waits on.
pub(super) type WaitsOn = Option<(ShardId, u64)>;

/// How far a message has come on its way through a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupTurn {
    /// Member whose turn it is.
    at: u32,
    /// Members that have not been asked yet, this one included. None: it takes the message, credit or not.
    left: u32,
    /// The first member that was there but had no credit.
    fallback: Option<u32>,
}

impl GroupTurn {
    /// The turn after this one, in a group of `members`. None: all have been asked, and none of them was there.
    fn next(self, members: usize) -> Option<Self> {
        let left = self.left.checked_sub(1)?;
        let at = match (left, self.fallback) {
            (0, Some(first)) => first,
            (0, None) => return None,
            _ if self.at as usize + 1 == members => 0,
            _ => self.at + 1,
        };
        Some(Self { at, left, fallback: self.fallback })
    }
}

/// Whether a group has no members on other nodes.
pub(super) fn is_all_here(group: &GroupMatch) -> bool {
    !group.members.iter().any(|member| matches!(member, Receiver::Remote { .. }))
}

impl<S: Services> Broker<S> {
    /// Gives a message to one member of the group.
    pub(super) fn deliver_shared(
        &mut self,
        tenant: TenantIdx,
        message: &Arc<Message>,
        group: &Arc<GroupMatch>,
        publisher: &mut Publisher,
    ) {
        let members = group.members.len();
        if members == 0 {
            return;
        }
        let turn = if group.group.ordered {
            GroupTurn { at: to_u32(rendezvous(message.view().publisher, &group.members)), left: 0, fallback: None }
        } else {
            let at = to_u32(self.rng.below(members as u64) as usize);
            GroupTurn { at, left: to_u32(members), fallback: None }
        };
        let part = self.open_part(publisher);
        let recognised = part.filter(|_| message.view().qos == QoS::ExactlyOnce);
        let origin = recognised.and_then(|publish| self.publishes.origin_for(publish, group));
        self.offer(tenant, message, group, turn, part.map(|req| (self.shard, req.0)), origin);
    }

    /// Offers a message to the member whose turn it is, then to the ones after it.
    pub(super) fn offer(
        &mut self,
        tenant: TenantIdx,
        message: &Arc<Message>,
        group: &Arc<GroupMatch>,
        mut turn: GroupTurn,
        publish: WaitsOn,
        origin: Option<Box<Origin>>,
    ) {
        loop {
            match group.members[turn.at as usize] {
                Receiver::Live { shard, slot } if shard == self.shard => {
                    if turn.left == 0 || self.member_has_credit(slot) {
                        if self.is_undelivered(origin.as_deref(), &message.view()) {
                            self.give(tenant, message, slot);
                        }
                        self.note_holder(publish, origin.as_deref(), Holder::Live);
                        return self.group_part_done(publish, Ok(()));
                    }
                    if self.fanout.entry(slot).is_some() {
                        turn.fallback = turn.fallback.or(Some(turn.at));
                    }
                }
                Receiver::Live { shard, .. } => {
                    let (message, group) = (message.clone(), group.clone());
                    let deliver = ShardMessage::DeliverShared { tenant, message, group, turn, publish, origin };
                    self.to_peers.push((shard, deliver));
                    return;
                }
                Receiver::Inbox { range, inbox, subscription } => {
                    let req = self.next_req_id();
                    if let Some(publish) = publish {
                        self.requests.insert(req, Awaited::GroupPart(publish));
                    }
                    self.note_holder(publish, origin.as_deref(), Holder::Range(range));
                    let place = [(inbox, subscription)].into();
                    let origin = origin.map(|origin| *origin);
                    self.services.ask().insert(self.now, req, tenant, (range, &place), message, origin);
                    return;
                }
                Receiver::Remote { node, .. } => {
                    if self.offer_to_node(node, tenant, message, group, turn, publish, origin.as_deref()) {
                        return;
                    }
                }
            }
            match turn.next(group.members.len()) {
                Some(next) => turn = next,
                // All members have left meanwhile, or cannot be reached.
                None => return self.nobody_took_over(message, group, publish),
            }
        }
    }

    /// The member whose turn it was is not there: offers the message to the ones after it.
    pub(super) fn offer_after(
        &mut self,
        tenant: TenantIdx,
        message: &Arc<Message>,
        group: &Arc<GroupMatch>,
        turn: GroupTurn,
        publish: WaitsOn,
        origin: Option<Box<Origin>>,
    ) {
        match turn.next(group.members.len()) {
            Some(next) => self.offer(tenant, message, group, next, publish, origin),
            None if self.services.peek().is_replicated() => self.nobody_took_over(message, group, publish),
            // Members do not move, so they have left.
            None => self.group_part_done(publish, Ok(())),
        }
    }

    /// No member was there. One that lives and cannot be reached may be there again when the message is tried again, and one whose session has moved to another node is there.
    fn nobody_took_over(&mut self, message: &Message, group: &GroupMatch, publish: WaitsOn) {
        let result = match is_all_here(group) {
            true => Ok(()),
            false if is_too_long(&message.view()) => Err(PortError::QuotaExceeded),
            false => Err(PortError::Unavailable),
        };
        self.group_part_done(publish, result);
    }

    /// Gives a message of another node to one of the members here.
    pub(super) fn deliver_to_member(
        &mut self,
        tenant: TenantIdx,
        message: &Arc<Message>,
        (filter, name): &(Box<str>, GroupName),
        matches: &Matches,
        publisher: &mut Publisher,
    ) {
        let group = matches.groups.iter().find(|group| group.filter == *filter && group.group == *name);
        let is_here = |receiver: &&Receiver| !matches!(receiver, Receiver::Remote { .. });
        let members: Vec<_> = group.iter().flat_map(|group| &group.members).filter(is_here).copied().collect();
        if !members.is_empty() {
            let group = GroupMatch { group: name.clone(), filter: filter.clone(), members };
            self.deliver_shared(tenant, message, &Arc::new(group), publisher);
            return;
        }
        if let Some(Waiter::Node(node, shard, publish)) = self.take_waiter(publisher) {
            self.answer(node, shard, publish, Err(Refusal::NoMember));
        }
    }

    /// Tells whoever waits that the group has taken the message over, or why not.
    pub(super) fn group_part_done(&mut self, publish: WaitsOn, result: Result<(), PortError>) {
        match (publish, result) {
            (None, _) => {}
            (Some((shard, publish)), result) if shard == self.shard => self.publish_part_done(ReqId(publish), result),
            (Some((shard, publish)), Ok(())) => self.taken[shard.index()].push(publish),
            (Some((shard, publish)), Err(error)) => {
                self.to_peers.push((shard, ShardMessage::Refused { publish, error }));
            }
        }
    }

    /// Somebody is given a publish for a group, and may note it if it has an origin.
    pub(super) fn note_holder(&mut self, publish: WaitsOn, origin: Option<&Origin>, holder: Holder) {
        if let (Some(publish), Some(_)) = (publish, origin) {
            self.note_holder_of(publish, holder);
        }
    }

    /// Somebody notes a publish of some shard.
    pub(super) fn note_holder_of(&mut self, (shard, publish): (ShardId, u64), holder: Holder) {
        if shard == self.shard {
            self.publishes.note(ReqId(publish), holder);
        } else {
            self.to_peers.push((shard, ShardMessage::Noted { publish, holder }));
        }
    }

    /// A departed member gave this back: another one gets it.
    pub(super) fn redeliver(&mut self, tenant: TenantIdx, filter: &str, group: &GroupName, message: Arc<Message>) {
        let req = self.next_req_id();
        self.requests.insert(req, Awaited::Group { tenant, message });
        self.services.ask().request_group(self.now, req, tenant, filter, group);
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
        let (id, now) = (subscriber.options.subscription_id, self.now);
        let fanout = &mut Fanout::with_scratch(message.view(), Some(message.clone()), now, &mut scratch);
        self.deliver_one(tenant, fanout, subscriber.conn, subscriber.options, id.as_slice(), shared.as_ref());
        self.scratch = scratch;
    }
}

/// Highest random weight (Thaler, Ravishankar 1998) over the members.
fn rendezvous(publisher: PublisherKey, members: &[Receiver]) -> usize {
    let weight = |receiver: &Receiver| {
        let (home, slot, salt) = match receiver {
            Receiver::Live { shard, slot } => (shard.0, *slot, 0),
            Receiver::Inbox { range, inbox, subscription } => (range.0, *inbox, u64::from(*subscription) + 1),
            Receiver::Remote { node, shard, nth } => {
                (shard.0, Slot { index: *nth, generation: node.0.into() }, 1 << 40)
            }
        };
        let place = u64::from(slot.index) << 32 | u64::from(slot.generation);
        Prng::new(publisher.0).derive(place).derive(salt << 16 | u64::from(home)).next_u64()
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
