//! Messages on their way out of a shard: held until what they promise is durable, then joined per peer.

use super::batch::Batch;
use crate::limits::MESSAGES_HELD_MAX;
use crate::message::Message;
use crate::types::WriteId;
use alloc::collections::{BTreeMap, VecDeque};
use bifro_core::ids::{NodeId, RangeId};

/// A shard's outgoing messages.
///
/// This is where durability conditions are kept: a message goes into a batch only when the write it names was reported. The
/// messages of a group leave in the order in which they were said, except that those which wait are overtaken by those that
/// need not.
#[derive(Debug, Default)]
pub struct Outbox {
    batches: BTreeMap<NodeId, Batch>,
    held: BTreeMap<RangeId, VecDeque<Held>>,
}

#[derive(Debug)]
struct Held {
    to: NodeId,
    message: Message,
    after: WriteId,
}

impl Outbox {
    /// Takes over [`crate::Effect::Send`]. Beyond [`MESSAGES_HELD_MAX`] waiting messages of a group it is dropped, which to the
    /// protocol is a loss like any other.
    pub fn push(&mut self, range: RangeId, to: NodeId, message: Message, after: WriteId) {
        if after == WriteId::NONE {
            self.batches.entry(to).or_default().push(range, message);
            return;
        }
        let held = self.held.entry(range).or_default();
        if held.len() < MESSAGES_HELD_MAX {
            held.push_back(Held { to, message, after });
        }
    }

    /// Lets go what waited for the write.
    pub fn handle_durable(&mut self, range: RangeId, write: WriteId) {
        let Some(held) = self.held.get_mut(&range) else { return };
        let waiting = held.len();
        for _ in 0..waiting {
            let Some(message) = held.pop_front() else { break };
            if message.after <= write {
                self.batches.entry(message.to).or_default().push(range, message.message);
            } else {
                held.push_back(message);
            }
        }
        if held.is_empty() {
            self.held.remove(&range);
        }
    }

    /// Forgets what a group wanted to say: it is gone, or it was started again.
    pub fn forget(&mut self, range: RangeId) {
        self.held.remove(&range);
    }

    /// What may be sent now, per peer.
    pub fn take_batches(&mut self) -> impl Iterator<Item = (NodeId, Batch)> + use<> {
        core::mem::take(&mut self.batches).into_iter()
    }
}
