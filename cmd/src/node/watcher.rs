//! Tells the shards who belongs to the cluster and lives, as the underlay sees it, and people what the cluster lacks.

use bifro_cluster::View;
use bifro_core::ids::{NodeId, NodeIdx};
use bifro_core::nodes::{Member as Belonging, Node, Nodes};
use bifro_core::roles::Roles;
use bifro_net::broker::Command;
use bifro_net::mesh::InletSender;
use bifro_swim::{Announcement, Member as Peer, Status};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Roles that somebody has to have, and what happens without.
const NEEDED: [(Roles, &str); 3] = [
    (Roles::INBOX, "inbox: persistent sessions are refused (0x88) until a node with roles.inbox = true joins"),
    (Roles::RETAIN, "retain: no message is retained, and none is found, until a node with roles.retain = true joins"),
    (
        Roles::SESSION_DICT,
        "session_dict: all nodes keep the owners of client ids until one with roles.session_dict = true joins",
    ),
];
/// How long nobody must have had a role before that is said: the node may not have met the others yet.
const MISSING: Duration = Duration::from_secs(5);

/// Tells the shards who lives.
pub(super) struct Watcher {
    shards: Vec<InletSender<Command>>,
    /// What each shard was told last.
    told: Vec<Option<Arc<Nodes>>>,
    newest: Option<Arc<Nodes>>,
    /// Every process that ever was a node, by its number.
    known: HashMap<(NodeId, u64), NodeIdx>,
    /// Roles that nobody has, since when, and which of them were complained of.
    missing: (Roles, Instant, Roles),
}

impl Watcher {
    pub(super) fn new(shards: Vec<InletSender<Command>>) -> Self {
        let missing = (Roles::NONE, Instant::now(), Roles::NONE);
        Self { told: vec![None; shards.len()], shards, newest: None, known: HashMap::new(), missing }
    }

    /// True if all shards know of some other node.
    pub(super) fn see(&mut self, view: &View) -> bool {
        let present = view.members.iter().filter(|member| member.status.is_present());
        let mut others: Vec<_> = present.filter_map(|member| self.node(&member.announcement)).collect();
        others.sort_by_key(|node| node.idx);
        let belongs = |member: &&Peer| member.status <= Status::Dead && !member.evicted;
        let members = view.members.iter().filter(belongs).map(|member| &member.announcement);
        let belonging = |of: &Announcement| Belonging { id: of.id, duties: of.duties };
        let mut members: Vec<_> = members.chain([&view.me]).map(belonging).collect();
        members.sort_unstable_by_key(|member| member.id);
        members.dedup_by_key(|member| member.id);
        let nodes = Nodes { me: view.me.id, others, members };
        if self.newest.as_deref() != Some(&nodes) {
            self.newest = Some(Arc::new(nodes));
        }
        self.complain();
        let Some(newest) = &self.newest else { return false };
        for (shard, told) in self.shards.iter().zip(&mut self.told) {
            // A mailbox that is full now is tried again within a second.
            if told.as_ref().is_none_or(|told| !Arc::ptr_eq(told, newest))
                && shard.send(Command::Nodes(newest.clone())).is_ok()
            {
                *told = Some(newest.clone());
            }
        }
        !newest.others.is_empty() && self.told.iter().flatten().all(|told| Arc::ptr_eq(told, newest))
    }

    /// Says what clients will miss, once nobody has had a role for a while.
    fn complain(&mut self) {
        let Some(nodes) = &self.newest else { return };
        let has = |role: Roles| nodes.members.iter().any(|member| member.duties.roles.has(role));
        let missing = NEEDED.iter().filter(|(role, _)| !has(*role)).fold(Roles::NONE, |all, (role, _)| all.with(*role));
        let (before, since, told) = self.missing;
        if missing != before {
            self.missing = (missing, Instant::now(), Roles::NONE);
        } else if told != missing && since.elapsed() >= MISSING {
            self.missing.2 = missing;
            for (_, what) in NEEDED.iter().filter(|(role, _)| missing.has(*role)) {
                tracing::warn!("no node of the cluster has the role {what}");
            }
        }
    }

    fn node(&mut self, of: &Announcement) -> Option<Node> {
        let next = u16::try_from(self.known.len() + 1);
        let idx = match (self.known.get(&(of.id, of.nonce)), next) {
            (Some(&idx), _) => idx,
            (None, Ok(next)) => *self.known.entry((of.id, of.nonce)).or_insert(NodeIdx(next)),
            (None, Err(_)) => {
                tracing::error!(node = %of.id, "other nodes were started 65535 times: this one must be restarted to count on");
                return None;
            }
        };
        Some(of.to_node(idx))
    }
}
