//! The cluster as the admin endpoint shows it, and what operators change of it.

use axum::Json;
use axum::http::StatusCode;
use bifro_cluster::{Handle, UnderlayMetrics, View};
use bifro_core::ids::{NodeId, RangeId};
use bifro_core::roles::Roles;
use bifro_swim::{Announcement, Answer, Health, Load, Order, Status};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Nodes with replicas of a range, if there are so many.
const REPLICAS: usize = 3;
/// How long a node that is told to leave may take to go, how long ranges may be without leaders of late, and how often that is looked at.
const GOING: Duration = Duration::from_secs(10);
const ELECTION: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(50);

/// The cluster, once the node has joined one.
#[derive(Clone, Debug, Default)]
pub struct ClusterCell(Arc<OnceLock<Handle>>);

impl ClusterCell {
    /// The node has joined.
    pub fn show(&self, handle: Handle) {
        // A node joins once; a second call would be of the same cluster.
        let _ = self.0.set(handle);
    }

    pub(super) fn handle(&self) -> Option<&Handle> {
        self.0.get()
    }

    pub(super) fn metrics(&self) -> Option<&Arc<UnderlayMetrics>> {
        self.0.get().map(|handle| &handle.metrics)
    }

    /// Whether this node is being drained.
    pub(super) fn is_draining(&self) -> bool {
        self.0.get().is_some_and(|handle| handle.view.get().me.duties.is_draining)
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
    /// `alive`, `suspect`, `dead`, `evicted`, `left`, `removed`, or `lost`: removed for good.
    pub status: String,
    /// `well` or `impaired`, as it says itself.
    pub health: String,
    /// How often it was started.
    pub starts: u32,
    /// Its shards.
    pub shards: u16,
    /// What it does.
    pub roles: Vec<String>,
    /// It gives away what it has.
    pub draining: bool,
    /// What it bears, if that was asked for and it has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadPage>,
}

/// What a node bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadPage {
    /// Connections of clients.
    pub connections: u32,
    /// Replicas of ranges of persistent sessions.
    pub replicas: u16,
    /// Ranges among these that it leads.
    pub led: u16,
    /// Listeners for clients.
    pub listeners: u16,
    /// Retained messages of which it has a copy.
    pub retained: u32,
}

impl From<Load> for LoadPage {
    fn from(load: Load) -> Self {
        let Load { connections, replicas, led, listeners, retained, is_draining: _ } = load;
        Self { connections, replicas, led, listeners, retained }
    }
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
            roles: announcement.duties.roles.names().map(str::to_owned).collect(),
            draining: announcement.duties.is_draining,
            load: None,
        }
    }
}

/// The nodes as this one sees them; with what they bear, if they are to be asked.
pub(super) async fn page(cell: &ClusterCell, asks_loads: bool) -> Json<ClusterPage> {
    let Some(handle) = cell.0.get() else { return Json(ClusterPage { cluster: None, local: None, nodes: Vec::new() }) };
    let loads = if asks_loads { handle.loads().await } else { Default::default() };
    let view = handle.view.get();
    let page = |announcement: &Announcement, status| {
        let load = loads.get(&announcement.id).copied().map(LoadPage::from);
        NodePage { load, ..NodePage::new(announcement, status) }
    };
    let mut nodes = vec![page(&view.me, "alive")];
    nodes.extend(view.members.iter().map(|member| {
        let status = match member.status {
            Status::Alive => "alive",
            Status::Suspect => "suspect",
            Status::Dead if member.evicted => "evicted",
            Status::Dead => "dead",
            Status::Left => "left",
            Status::Removed if member.is_expelled() => "lost",
            Status::Removed => "removed",
        };
        page(&member.announcement, status)
    }));
    nodes.sort_by(|one, other| one.id.cmp(&other.id));
    let cluster = view.cluster.map(|cluster| cluster.to_string());
    Json(ClusterPage { cluster, local: Some(view.me.id.to_string()), nodes })
}

/// What became of an operator's wish.
pub(super) type Told = (StatusCode, String);

pub(super) fn refused(text: String) -> Told {
    (StatusCode::CONFLICT, text + "\n")
}

/// The node, and what is known of it: its status, if it is not this one.
pub(super) fn find(cell: &ClusterCell, node: &str) -> Result<(Handle, NodeId, Option<Status>), Told> {
    let Ok(id) = node.parse::<NodeId>() else {
        return Err((StatusCode::BAD_REQUEST, format!("{node} is no id of a node\n")));
    };
    let Some(handle) = cell.0.get() else {
        return Err(refused("this node is alone: its configuration has no [cluster]".to_owned()));
    };
    let view = handle.view.get();
    if view.me.id == id {
        return Ok((handle.clone(), id, None));
    }
    match view.members.iter().find(|member| member.announcement.id == id) {
        Some(member) => Ok((handle.clone(), id, Some(member.status))),
        None => Err((StatusCode::NOT_FOUND, format!("there is no node {id}: `bifroctl cluster` shows them\n"))),
    }
}

/// Has a node give away what it has, or be as any other again.
pub(super) async fn drain(cell: &ClusterCell, node: &str, is_draining: bool) -> Told {
    let (handle, id, status) = match find(cell, node) {
        Ok(found) => found,
        Err(told) => return told,
    };
    if !status.is_none_or(Status::is_present) {
        return refused(format!("{id} does not live: `bifroctl node remove {id}` lets others take its place"));
    }
    let hosts = other_hosts(&handle.view.get(), id);
    if is_draining && hosts == Some(0) {
        return refused(format!(
            "{id} is the last node for replicas of persistent sessions: there is nobody to give them to. Start another one first"
        ));
    }
    let Some(Answer { load, .. }) = handle.order(id, Order::Drain(is_draining)).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{id} has not answered: try again\n"));
    };
    let text = match (is_draining, hosts) {
        (false, _) => format!("{id} is a node like any other again\n"),
        (true, Some(hosts)) if hosts < REPLICAS => format!(
            "{id} is draining: {} replicas and {} connections are left. Of other nodes {hosts} may hold replicas, so there will be no more \
             than {hosts} of each range\n",
            load.replicas, load.connections
        ),
        (true, _) => {
            format!("{id} is draining: {} replicas and {} connections are left\n", load.replicas, load.connections)
        }
    };
    (StatusCode::OK, text)
}

/// How many nodes but this one may be given replicas; nothing if it has none to give.
fn other_hosts(view: &View, id: NodeId) -> Option<usize> {
    let members = view.members.iter().filter(|member| member.status.is_present()).map(|member| &member.announcement);
    let all: Vec<&Announcement> = members.chain([&view.me]).collect();
    let has_role = all.iter().any(|node| node.id == id && node.duties.roles.has(Roles::INBOX));
    has_role.then(|| all.iter().filter(|node| node.id != id && node.duties.takes_on(Roles::INBOX)).count())
}

/// Has others take the place of a node that does not come back: one that is dead, or one that is drained, which ends. `unled` are the
/// ranges without a leader: what a node leaves can be made again only from a majority of the other replicas. One that is lost for good has
/// nothing to leave, and is never let in again.
pub(super) async fn remove(cell: &ClusterCell, node: &str, is_lost: bool, unled: impl Fn() -> Vec<RangeId>) -> Told {
    if is_lost {
        return remove_lost(cell, node).await;
    }
    let (handle, id, status) = match find(cell, node) {
        Ok(found) => found,
        Err(told) => return told,
    };
    let Some(status) = status else {
        return refused(format!("{id} is this node: ask another one, by --admin"));
    };
    if status.is_present() {
        if let Err(told) = have_leave(&handle, id).await {
            return told;
        }
    } else if tokio::time::timeout(ELECTION, until(|| unled().is_empty())).await.is_err() {
        let ranges: Vec<_> = unled().iter().map(ToString::to_string).collect();
        return refused(format!(
            "{id} may be needed: of {} of persistent sessions no majority of the replicas lives, and so nothing can be made again elsewhere. \
             Start {id} or the others that have them. If their disks are lost for good: `bifroctl node remove {id} --lost`, and so on, then \
             `bifroctl range recover --all --accept-loss`",
            ranges.join(", ")
        ));
    }
    match handle.remove(id, false).await {
        true => (StatusCode::OK, format!("{id} is removed: others take its place\n")),
        false => refused(format!("{id} lives again")),
    }
}

/// A node's disk is lost, whether or not anything is left of what was on it. It need not be known: this one may have been started since.
async fn remove_lost(cell: &ClusterCell, node: &str) -> Told {
    let (handle, id) = match find(cell, node) {
        Ok((_, id, None)) => return refused(format!("{id} is this node: it is not lost")),
        Ok((_, id, Some(status))) if status.is_present() => return refused(format!("{id} lives: it is not lost")),
        Ok((handle, id, _)) => (handle, id),
        Err(told) => match (cell.0.get(), node.parse::<NodeId>()) {
            (Some(handle), Ok(id)) => (handle.clone(), id),
            _ => return told,
        },
    };
    match handle.remove(id, true).await {
        true => (StatusCode::OK, format!("{id} is removed for good: it is never let in again with the data it had\n")),
        false => refused(format!("{id} lives again")),
    }
}

/// Ends a node that lives, if it has nothing left.
async fn have_leave(handle: &Handle, id: NodeId) -> Result<(), Told> {
    let advice = format!("`bifroctl node drain {id}` first");
    let Some(Answer { load, .. }) = handle.order(id, Order::Tell).await else {
        return Err(refused(format!("{id} does not answer, and is not known to be dead: try again")));
    };
    if !load.is_draining {
        return Err(refused(format!("{id} lives: {advice}")));
    }
    if (load.replicas, load.connections) != (0, 0) {
        let (replicas, connections) = (load.replicas, load.connections);
        return Err(refused(format!("{id} has {replicas} replicas and {connections} connections left: {advice}")));
    }
    if handle.order(id, Order::Leave).await.is_none() {
        return Err(refused(format!("{id} does not answer: try again")));
    }
    let is_here = || {
        let view = handle.view.get();
        view.members.iter().any(|member| member.announcement.id == id && member.status.is_present())
    };
    let late = |_| refused(format!("{id} has been told to end, and has not ended yet: try again"));
    tokio::time::timeout(GOING, until(|| !is_here())).await.map_err(late)
}

async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::time::sleep(LOOK).await;
    }
}
