//! The cluster as the admin endpoint shows it.

use axum::Json;
use axum::http::StatusCode;
use bifro_cluster::{Handle, UnderlayMetrics};
use bifro_core::ids::NodeId;
use bifro_swim::{Announcement, Health, Status};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, OnceLock};

/// The cluster, once the node has joined one.
#[derive(Clone, Debug, Default)]
pub struct ClusterCell(Arc<OnceLock<Handle>>);

impl ClusterCell {
    /// The node has joined.
    pub fn show(&self, handle: Handle) {
        // A node joins once; a second call would be of the same cluster.
        let _ = self.0.set(handle);
    }

    pub(super) fn metrics(&self) -> Option<&Arc<UnderlayMetrics>> {
        self.0.get().map(|handle| &handle.metrics)
    }
}

/// What `GET /cluster` answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct ClusterPage {
    /// Which cluster; none if this node is alone, or keeps nothing and has met nobody who does.
    pub cluster: Option<String>,
    /// This node; none if it is alone.
    pub local: Option<String>,
    /// All nodes, this one included, by id.
    pub nodes: Vec<NodePage>,
}

/// One node.
#[derive(Debug, Serialize, Deserialize)]
pub struct NodePage {
    /// Its id.
    pub id: String,
    /// Where its underlay listens.
    pub address: String,
    /// `alive`, `suspect`, `dead`, `evicted` or `left`.
    pub status: String,
    /// `well` or `impaired`, as it says itself.
    pub health: String,
    /// How often it was started.
    pub starts: u32,
    /// Its shards.
    pub shards: u16,
}

impl NodePage {
    fn new(announcement: &Announcement, status: &str) -> Self {
        let health = match announcement.health {
            Health::Well => "well",
            Health::Impaired => "impaired",
        };
        Self {
            id: announcement.id.to_string(),
            address: announcement.address.to_string(),
            status: status.to_owned(),
            health: health.to_owned(),
            starts: announcement.incarnation.start,
            shards: announcement.shards,
        }
    }
}

pub(super) fn page(cell: &ClusterCell) -> Json<ClusterPage> {
    let Some(handle) = cell.0.get() else { return Json(ClusterPage { cluster: None, local: None, nodes: Vec::new() }) };
    let view = handle.view.get();
    let mut nodes = vec![NodePage::new(&view.me, "alive")];
    nodes.extend(view.members.iter().map(|member| {
        let status = match member.status {
            Status::Alive => "alive",
            Status::Suspect => "suspect",
            Status::Dead if member.evicted => "evicted",
            Status::Dead => "dead",
            Status::Left => "left",
        };
        NodePage::new(&member.announcement, status)
    }));
    nodes.sort_by(|one, other| one.id.cmp(&other.id));
    let cluster = view.cluster.map(|cluster| cluster.to_string());
    Json(ClusterPage { cluster, local: Some(view.me.id.to_string()), nodes })
}

/// Forgets a dead node.
pub(super) async fn forget(cell: &ClusterCell, node: &str) -> (StatusCode, String) {
    let Ok(id) = node.parse::<NodeId>() else {
        return (StatusCode::BAD_REQUEST, format!("{node} is no id of a node\n"));
    };
    let forgotten = match cell.0.get() {
        Some(handle) => handle.forget(id).await,
        None => false,
    };
    match forgotten {
        true => (StatusCode::OK, format!("{id} is forgotten\n")),
        false => (StatusCode::NOT_FOUND, format!("there is no dead node {id}: only dead ones can be forgotten\n")),
    }
}
