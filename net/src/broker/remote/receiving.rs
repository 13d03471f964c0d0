//! What comes from other nodes, frame by frame. See [`super`].

use super::{Broker, SERVICE_BYTES};
use crate::broker::exactly_once::Exchange;
use crate::broker::frames::{self, Forward, Frame, Last, Refusal};
use crate::broker::publish::{Parts, Publisher, Scope, Waiter};
use bifro_core::ids::{NodeIdx, RangeIdx, ShardId, TenantIdx};
use bifro_core::message::{MessageView, QoS};
use bifro_core::ports::{GroupName, LivePlaces, Matches, PortError, Services, Via};
use std::rc::Rc;

/// Where the receivers are, if all of them are connections of `shard`.
fn only_live(matches: &Matches, shard: ShardId) -> Option<&LivePlaces> {
    match &matches.live[..] {
        [(at, places)] if *at == shard && matches.inboxes.is_empty() && matches.groups.is_empty() => Some(places),
        _ => None,
    }
}

impl<S: Services> Broker<S> {
    /// Takes what a link brought, frame by frame, until the turn has done `most` work. Returns how many bytes were taken; none: the batch
    /// cannot be understood, and the link is to be closed.
    pub(in crate::broker) fn receive_batch(&mut self, via: Via, batch: &[u8], most: usize) -> Option<usize> {
        let head = self.remotes.last_head(via).map(std::mem::take).unwrap_or_default();
        let (mut rest, mut last) = (batch, Last::of(&head));
        while !rest.is_empty() && self.work < most {
            self.work += 1;
            let understood = match (frames::next(&mut rest, self.now, &mut last)?, via) {
                (Frame::ServicePart(bytes), _) => self.receive_part(via, bytes),
                (Frame::Service { tenant, bytes }, _) => {
                    let understood = self.receive_service(via, tenant, bytes);
                    // An answer behind the end of a reign is none any more.
                    self.settle();
                    understood
                }
                (Frame::Deliver(forward), Via::From(node, shard)) => {
                    self.deliver_forwarded(node, shard, &forward);
                    true
                }
                (Frame::DeliverMore(payload), Via::From(..)) => {
                    last.forward().map(|last| self.deliver_more(last, payload, &mut rest, most)).is_some()
                }
                (Frame::Taken(publishes), Via::To(node)) => {
                    for publish in publishes {
                        self.node_answered(node, u64::from_le_bytes(*publish), Ok(()));
                    }
                    true
                }
                (Frame::Noted { publish, live, ranges }, Via::To(node)) => {
                    let ranges = ranges.iter().map(|range| RangeIdx(u16::from_le_bytes(*range)));
                    self.node_noted(node, publish, live, ranges);
                    true
                }
                (Frame::Forget { publish, over }, Via::From(node, shard)) => {
                    self.forget_for_node((node, shard), publish, &over);
                    true
                }
                (Frame::Inquire { publish, inquiry }, Via::From(node, shard)) => {
                    self.inquire_for_node((node, shard), publish, &inquiry);
                    true
                }
                (Frame::Found { publish, groups }, Via::To(node)) => {
                    let groups: Vec<u64> = groups.iter().map(|group| u64::from_le_bytes(*group)).collect();
                    self.node_found(node, publish, &groups);
                    true
                }
                (Frame::Refused { publish, refusal }, Via::To(node)) => {
                    self.node_answered(node, publish, Err(refusal));
                    true
                }
                _ => false,
            };
            if !understood {
                return None;
            }
        }
        let taken = batch.len() - rest.len();
        let newer = (!std::ptr::eq(last.head(), &*head)).then(|| last.head().to_vec());
        if let Some(kept) = self.remotes.last_head(via) {
            *kept = newer.unwrap_or(head);
        }
        self.settle();
        Some(taken)
    }

    fn receive_part(&mut self, via: Via, bytes: &[u8]) -> bool {
        let Some(partial) = self.remotes.partial(via) else { return true };
        partial.extend(bytes);
        partial.len() <= SERVICE_BYTES
    }

    fn receive_service(&mut self, via: Via, tenant: &str, bytes: &[u8]) -> bool {
        let mut whole = self.remotes.partial(via).map(std::mem::take).unwrap_or_default();
        if !whole.is_empty() {
            whole.extend(bytes);
        }
        let bytes = if whole.is_empty() { bytes } else { &whole };
        let tenant = match tenant {
            "" => None,
            name => match self.find_tenant(name) {
                Some(tenant) => Some(tenant),
                // There are too many: what is said of another cannot be of use.
                None => return true,
            },
        };
        self.services.ask().receive_remote(self.now, via, tenant, bytes)
    }

    fn find_tenant(&mut self, name: &str) -> Option<TenantIdx> {
        self.tenants.find(name).or_else(|| self.meet_tenant(&name.into()).map(|tenant| tenant.idx))
    }

    /// A message of another node, for whoever listens here.
    fn deliver_forwarded(&mut self, node: NodeIdx, shard: ShardId, forward: &Forward<'_>) {
        self.metrics.forwards_received.add(1);
        let waiter = (forward.publish != 0).then_some(Waiter::Node(node, shard, forward.publish));
        let mut publisher = waiter.map_or(Publisher::Nobody, Publisher::Waits);
        let Some(tenant) = self.find_tenant(forward.tenant) else {
            if let Some(Waiter::Node(node, shard, publish)) = waiter {
                self.answer(node, shard, publish, Err(Refusal::Port(PortError::QuotaExceeded)));
            }
            return;
        };
        let scope = match forward.group {
            None => Scope::Here(Parts { live: true, groups: forward.unheard }),
            Some((filter, name, ordered)) => {
                let group = GroupName { name: name.into(), ordered };
                Scope::Member(Rc::new((filter.into(), group)))
            }
        };
        if let (Some(waiter), Some(origin)) = (waiter, forward.origin) {
            let publish = self.next_req_id();
            self.enter_as(publish, waiter, Some(Box::new(Exchange::of_node(origin))));
            publisher = Publisher::Entered(publish);
        }
        let is_ordered = forward.group.is_none() && self.keeps_order(forward.message.qos, publisher);
        if is_ordered && !self.services.peek().is_followed_by(node, shard) {
            return self.refuse_late(publisher);
        }
        self.route_to(tenant, forward.message, None, publisher, scope);
    }

    /// A message like the last but for its payload, that nobody waits for; and with it those behind it in the batch that are so too, as far as it
    /// may work, if connections of this shard alone get them.
    fn deliver_more<'a>(&mut self, last: &Forward<'a>, payload: &'a [u8], rest: &mut &'a [u8], most: usize) {
        self.metrics.forwards_received.add(1);
        let Some(tenant) = self.find_tenant(last.tenant) else { return };
        let message = MessageView { payload, ..last.message };
        let matches = match message.qos {
            QoS::AtMostOnce => self.known_receivers(tenant, message.topic),
            QoS::AtLeastOnce | QoS::ExactlyOnce => None,
        };
        let Some(places) = matches.as_ref().and_then(|matches| only_live(matches, self.shard)) else {
            let scope = Scope::Here(Parts { live: true, groups: last.unheard });
            return self.route_to(tenant, message, None, Publisher::Nobody, scope);
        };
        self.deliver_run(tenant, &message, None, places, |broker| {
            if broker.work >= most {
                return None;
            }
            let payload = frames::next_more(rest)?;
            broker.work += 1;
            broker.metrics.forwards_received.add(1);
            Some(payload)
        });
    }
}
