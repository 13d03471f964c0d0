//! What the drivers of two shards tell each other.

use super::Broker;
use super::shared::GroupTurn;
use bifro_core::delivered::Over;
use bifro_core::ids::{ReqId, ShardId, TenantIdx};
use bifro_core::inquiry::{Holder, Inquiry};
use bifro_core::message::Message;
use bifro_core::ports::{GroupMatch, LivePlaces, Origin, PortError, Services};
use bifro_core::tenant::TenantCtx;
use std::sync::Arc;

/// A message over the mesh.
#[derive(Debug)]
pub enum ShardMessage<M> {
    /// From services to services.
    Service(M),
    /// Fan this out to the subscribers of these places.
    Deliver {
        /// Tenant.
        tenant: TenantIdx,
        /// The message.
        message: Arc<Message>,
        /// Places of the receiver's fan-out table.
        places: LivePlaces,
        /// Whose publish it is, if that may be repeated.
        origin: Option<Box<Origin>>,
        /// The publish that waits for it to be taken over.
        publish: Option<u64>,
    },
    /// Connections need not recognise these QoS 2 publishes any more.
    Forget {
        /// Which.
        over: Box<Over>,
        /// The publish that waits for them to be forgotten.
        publish: Option<u64>,
    },
    /// Which groups have a QoS 2 publish of the sender?
    Inquire {
        /// What is asked.
        inquiry: Inquiry,
        /// The publish.
        publish: u64,
    },
    /// Answer.
    Found {
        /// The publish.
        publish: u64,
        /// Groups that have it.
        groups: Vec<u64>,
    },
    /// Somebody is given this publish of the receiver for a group, and may note it.
    Noted {
        /// The publish.
        publish: u64,
        /// Who.
        holder: Holder,
    },
    /// Give this to one member of a group.
    DeliverShared {
        /// Tenant.
        tenant: TenantIdx,
        /// The message.
        message: Arc<Message>,
        /// The group.
        group: Arc<GroupMatch>,
        /// Whose turn it is; that member lives on the receiving shard.
        turn: GroupTurn,
        /// The publish that waits, and the shard it waits on.
        publish: Option<(ShardId, u64)>,
        /// Whose publish it is, if that may be repeated.
        origin: Option<Box<Origin>>,
    },
    /// These publishes of the receiver have been taken over here.
    Taken(Vec<u64>),
    /// A group's member could not take this publish of the receiver over.
    Refused {
        /// The publish.
        publish: u64,
        /// Why.
        error: PortError,
    },
    /// A tenant the sender has met; comes before anything that concerns it.
    Tenant(Arc<TenantCtx>),
    /// The sender is draining and has no connections any more.
    Drained,
}

impl<M> ShardMessage<M> {
    /// Bytes this message keeps allocated, roughly.
    pub(super) fn footprint_bytes(&self) -> usize {
        let payload = match self {
            Self::Deliver { message, .. } | Self::DeliverShared { message, .. } => message.footprint_bytes(),
            Self::Forget { over, .. } => 256 + size_of_val(&*over.others),
            // What services send each other are small things but for inserts, whose messages their inboxes count.
            Self::Service(_)
            | Self::Inquire { .. }
            | Self::Found { .. }
            | Self::Noted { .. }
            | Self::Taken(_)
            | Self::Refused { .. }
            | Self::Tenant(_)
            | Self::Drained => 256,
        };
        size_of::<Self>() + payload
    }
}

impl<S: Services> Broker<S> {
    /// Takes a message from the driver of another shard.
    pub(super) fn handle_peer(&mut self, from: ShardId, message: ShardMessage<S::Message>) {
        self.work += 1;
        match message {
            ShardMessage::Service(message) => self.services.ask().receive(self.now, from, message),
            ShardMessage::Deliver { tenant, message, places, origin, publish } => {
                if self.is_undelivered(origin.as_deref(), &message.view()) {
                    self.deliver_live(tenant, &message.view(), Some(&message), &places);
                }
                self.taken[from.index()].extend(publish);
            }
            ShardMessage::Forget { over, publish } => self.forget_for_peer(from, &over, publish),
            ShardMessage::Inquire { inquiry, publish } => {
                let groups = self.delivered.inquire(self.now, &inquiry);
                self.to_peers.push((from, ShardMessage::Found { publish, groups }));
            }
            ShardMessage::Found { publish, groups } => self.found(ReqId(publish), &groups),
            ShardMessage::Noted { publish, holder } => self.publishes.note(ReqId(publish), holder),
            ShardMessage::DeliverShared { tenant, message, group, turn, publish, origin } => {
                self.offer(tenant, &message, &group, turn, publish, origin);
            }
            ShardMessage::Taken(publishes) => {
                for publish in publishes {
                    self.publish_part_done(ReqId(publish), Ok(()));
                }
            }
            ShardMessage::Refused { publish, error } => self.publish_part_done(ReqId(publish), Err(error)),
            ShardMessage::Tenant(tenant) => {
                if self.tenants.learn(&tenant) {
                    self.services.ask().set_tenant(tenant);
                }
            }
            ShardMessage::Drained => self.peers_drained += 1,
        }
        self.settle();
    }

    /// Tells every other shard.
    pub(super) fn broadcast_tenant(&mut self, tenant: &Arc<TenantCtx>) {
        for shard in (0..self.settings.shards).map(ShardId).filter(|&shard| shard != self.shard) {
            self.to_peers.push((shard, ShardMessage::Tenant(tenant.clone())));
        }
    }

    /// Sends the acknowledgements gathered in this turn, one message per shard.
    pub(super) fn send_taken(&mut self) {
        for (index, taken) in self.taken.iter_mut().enumerate().filter(|(_, taken)| !taken.is_empty()) {
            let shard = ShardId(u16::try_from(index).expect("shards are counted in 16 bits"));
            self.to_peers.push((shard, ShardMessage::Taken(std::mem::take(taken))));
        }
    }
}
