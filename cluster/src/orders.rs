//! What operators want of other nodes, until these have done it: told again and again, since a datagram may be lost. All orders may come
//! twice.

use bifro_core::ids::NodeId;
use bifro_core::time::Instant;
use bifro_swim::{Answer, Order};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::oneshot;

/// Until an order is told again.
const AGAIN: Duration = Duration::from_millis(200);
/// Until it is given up. The node may have to write to a slow disk first.
const PATIENCE: Duration = Duration::from_secs(3);

/// Hears what the node says when it has obeyed; nothing if it does not.
pub(crate) type Done = oneshot::Sender<Answer>;

/// Who is to hear that this node has obeyed.
pub(crate) enum Asker {
    /// Somebody in this process.
    Here(Done),
    /// Another node.
    There { node: NodeId, address: SocketAddr, seq: u64 },
}

struct Open {
    node: NodeId,
    order: Order,
    again_at: Instant,
    until: Instant,
    done: Done,
}

/// See the module's page.
pub(crate) struct Orders {
    open: BTreeMap<u64, Open>,
    last: u64,
}

impl Orders {
    /// Numbered from `first` on: another process of this node may have asked before, and is not the one that is answered.
    pub(crate) const fn new(first: u64) -> Self {
        Self { open: BTreeMap::new(), last: first }
    }

    /// Takes an order on. It is due at once.
    pub(crate) fn add(&mut self, node: NodeId, order: Order, done: Done, now: Instant) {
        self.last = self.last.wrapping_add(1);
        self.open.insert(self.last, Open { node, order, again_at: now, until: now + PATIENCE, done });
    }

    /// What is to be told now, by number. Orders that nobody waits for any more, or that took too long, are dropped.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(u64, NodeId, Order)> {
        self.open.retain(|_, open| open.until > now && !open.done.is_closed());
        let due = self.open.iter_mut().filter(|(_, open)| open.again_at <= now);
        let due = due.map(|(&seq, open)| {
            open.again_at = now + AGAIN;
            (seq, open.node, open.order)
        });
        due.collect()
    }

    /// When there is something to tell next.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.open.values().map(|open| open.again_at.min(open.until)).min()
    }

    /// The node has obeyed.
    pub(crate) fn obeyed(&mut self, from: NodeId, seq: u64, answer: Answer) {
        if self.open.get(&seq).is_some_and(|open| open.node == from)
            && let Some(open) = self.open.remove(&seq)
        {
            // Whoever asked may have gone.
            let _ = open.done.send(answer);
        }
    }

    /// There is no such node any more.
    pub(crate) fn drop_order(&mut self, seq: u64) {
        self.open.remove(&seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_told_until_it_is_obeyed_or_takes_too_long() {
        let (mut orders, start) = (Orders::new(0), Instant::default());
        let (done, mut answer) = oneshot::channel();
        orders.add(NodeId(2), Order::Tell, done, start);
        assert_eq!(orders.due(start), [(1, NodeId(2), Order::Tell)]);
        assert_eq!(orders.due(start), []);
        assert_eq!(orders.next_timeout(), Some(start + AGAIN));
        assert_eq!(orders.due(start + AGAIN), [(1, NodeId(2), Order::Tell)]);
        orders.obeyed(NodeId(3), 1, Answer::default());
        assert!(answer.try_recv().is_err(), "it is not that node's to say");
        orders.obeyed(NodeId(2), 1, Answer::default());
        assert_eq!((answer.try_recv(), orders.next_timeout()), (Ok(Answer::default()), None));
        let (done, mut answer) = oneshot::channel();
        orders.add(NodeId(2), Order::Leave, done, start);
        assert_eq!(orders.due(start + PATIENCE), []);
        assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        let (done, answer) = oneshot::channel();
        orders.add(NodeId(2), Order::Tell, done, start);
        drop(answer);
        assert_eq!((orders.due(start), orders.next_timeout()), (Vec::new(), None));
    }
}
