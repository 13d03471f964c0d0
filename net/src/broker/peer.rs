//! What the drivers of two shards tell each other.

use super::Broker;
use bifro_core::ids::{ReqId, ShardId, TenantIdx};
use bifro_core::message::Message;
use bifro_core::ports::{GroupMatch, LivePlaces, Services};
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
        /// The publish that waits for it to be taken over.
        publish: Option<u64>,
    },
    /// Give this to one member of a group: to the one at `at` if it has credit, else to the next.
    DeliverShared {
        /// Tenant.
        tenant: TenantIdx,
        /// The message.
        message: Arc<Message>,
        /// The group.
        group: Arc<GroupMatch>,
        /// Member whose turn it is; it lives on the receiving shard.
        at: u32,
        /// Members that have not been asked yet, this one included.
        left: u32,
        /// The publish that waits, and the shard it waits on.
        publish: Option<(ShardId, u64)>,
    },
    /// These publishes of the receiver have been taken over here.
    Taken(Vec<u64>),
    /// A tenant the sender has met; comes before anything that concerns it.
    Tenant(Arc<TenantCtx>),
}

impl<S: Services> Broker<S> {
    /// Takes a message from the driver of another shard.
    pub(super) fn handle_peer(&mut self, from: ShardId, message: ShardMessage<S::Message>) {
        match message {
            ShardMessage::Service(message) => {
                self.services.receive(self.now, from, message);
                self.settle();
            }
            ShardMessage::Deliver { tenant, message, places, publish } => {
                self.deliver_live(tenant, &message.view(), Some(&message), &places);
                if let Some(publish) = publish {
                    self.taken[from.index()].push(publish);
                }
                self.settle();
            }
            ShardMessage::DeliverShared { tenant, message, group, at, left, publish } => {
                self.offer(tenant, &message, &group, at as usize, left as usize, publish);
                self.settle();
            }
            ShardMessage::Taken(publishes) => {
                for publish in publishes {
                    self.publish_part_done(ReqId(publish), Ok(()));
                }
                self.settle();
            }
            ShardMessage::Tenant(tenant) => {
                self.services.set_tenant(tenant.clone());
                self.tenants.set(tenant);
            }
        }
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
