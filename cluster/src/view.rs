//! What the rest of the process sees of the cluster.

use bifro_core::ids::ClusterId;
use bifro_core::metric_cells;
use bifro_swim::{Announcement, Member};
use std::sync::{Arc, Mutex, PoisonError};

/// The cluster at some moment.
#[derive(Clone, Debug)]
pub struct View {
    /// Which cluster; none if this node keeps nothing and has not met anybody who does.
    pub cluster: Option<ClusterId>,
    /// This node.
    pub me: Announcement,
    /// All others that are known, also those who are dead or gone.
    pub members: Vec<Member>,
}

/// The newest [`View`], replaced by the underlay and read by anybody.
#[derive(Clone, Debug)]
pub struct ViewCell(Arc<Mutex<Arc<View>>>);

impl ViewCell {
    pub(crate) fn new(view: View) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(view))))
    }

    /// The newest view.
    pub fn get(&self) -> Arc<View> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, view: View) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }
}

metric_cells! {
    /// The cells of the underlay, written by its thread. Names as in [`bifro_core::metrics::ShardMetrics`], after `bifro_cluster_`.
    UnderlayMetrics {
        members_present: Gauge, "Nodes that take part in the cluster, this one included.";
        members_suspect: Gauge, "Members that did not answer somebody and have not spoken up since.";
        members_dead: Gauge, "Members that did not speak up in time and did not leave.";
        addresses_lost: Gauge, "Addresses of seeds and lost members that are asked again and again.";
        local_health: Gauge, "Lifeguard's local health multiplier: 0 is healthy, 8 the worst.";
        connections: Gauge, "Connections to and from other nodes.";
        connects_failed: Counter, "Connections to other nodes that could not be made.";
        handshakes_refused: Counter, "Connections of others closed because they did not prove the cluster's secret, or are of another cluster.";
        messages_sent: Counter, "Membership messages sent.";
        messages_received: Counter, "Membership messages received.";
        sent_bytes: Counter, "Bytes of membership messages sent.";
        messages_malformed: Counter, "Frames received that are no membership message.";
        messages_dropped: Counter, "Membership messages dropped because a queue was full or a connection not there.";
        suspicions: Counter, "Members suspected.";
        deaths: Counter, "Members declared dead.";
    }
}
