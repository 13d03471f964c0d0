//! Which node keeps the owner of a client id: the one that [`Nodes::responsible`](bifro_core::nodes::Nodes::responsible) names. When nodes come and go responsibility moves, and
//! each shard names the client ids of its connections again where they belong now. Two connections with one id, made while nodes disagreed or could not
//! reach each other, meet there, and one has to go.

use super::message::{Dict, Message};
use super::wire::Remote;
use super::{RangeServices, repeat_order};
use bifro_core::client::{Client, ClientInfo, Transport, Version};
use bifro_core::ids::{ConnRef, NodeIdx, ReqId, Slot, TenantIdx};
use bifro_core::ports::Via;
use std::sync::Arc;

/// A connection of this shard that owns its client id, or wants to.
#[derive(Debug)]
pub(super) struct Mine {
    client: Client,
    tenant: TenantIdx,
    /// Where it is registered.
    pub(super) node: NodeIdx,
    /// Nobody has answered it yet.
    req: Option<ReqId>,
}

impl RangeServices {
    /// A client of another node, of which only its name matters here.
    pub(super) fn stranger(&self, tenant: TenantIdx, client_id: String) -> Client {
        let tenant = self.tenants.get(tenant).map(|tenant| tenant.name.clone());
        Arc::new(ClientInfo {
            tenant: tenant.unwrap_or_else(|| "".into()),
            user: "".into(),
            client_id: client_id.into(),
            version: Version::V5,
            transport: Transport::Tcp,
            peer: None,
            rules: [].into(),
            expires_at: None,
        })
    }

    pub(super) fn send_to_owner_table(
        &mut self,
        tenant: TenantIdx,
        client: Client,
        message: impl FnOnce(Client) -> Dict,
    ) {
        let Some(ctx) = self.tenants.get(tenant) else { return };
        let to = self.home(self.range_of(ctx, &client.client_id));
        self.send(to, Message::Dict(message(client)));
    }

    /// The node that keeps the owner of a client id.
    pub(super) fn responsible(&self, tenant: &str, client_id: &str) -> NodeIdx {
        let nodes = self.cluster.as_ref().map(|cluster| &cluster.nodes);
        nodes.map_or(NodeIdx::HERE, |nodes| nodes.responsible(&[tenant.as_bytes(), client_id.as_bytes()]))
    }

    /// Remembers a connection that wants to own its client id, and says so where that is kept.
    pub(super) fn register_mine(&mut self, conn: ConnRef, client: &Client, tenant: TenantIdx, req: ReqId) {
        let node = self.responsible(&client.tenant, &client.client_id);
        let mine = Mine { client: client.clone(), tenant, node, req: Some(req) };
        if let Some(cluster) = &mut self.cluster {
            cluster.mine.insert(conn.slot, mine);
            self.name(conn.slot);
        } else {
            let client = client.clone();
            self.send_to_owner_table(tenant, client, |client| Dict::Register { req, conn, tenant, client });
        }
    }

    /// The connection gives its client id up.
    pub(super) fn unregister_mine(&mut self, conn: ConnRef, client: &Client, tenant: TenantIdx) {
        let mine = self.cluster.as_mut().and_then(|cluster| cluster.mine.remove(&conn.slot));
        self.unname(mine.map_or(NodeIdx::HERE, |mine| mine.node), conn, client, tenant);
    }

    /// A connection has its client id: should it be named elsewhere later, it is no newcomer there.
    pub(super) fn registered(&mut self, conn: ConnRef, req: ReqId) {
        let mine = self.cluster.as_mut().and_then(|cluster| cluster.mine.get_mut(&conn.slot));
        if let Some(mine) = mine.filter(|mine| mine.req == Some(req)) {
            mine.req = None;
        }
    }

    /// Says where it belongs that a connection owns its client id, or wants to. If there is no link, it is said once there is.
    fn name(&mut self, slot: Slot) {
        let Some(cluster) = &self.cluster else { return };
        let Some(mine) = cluster.mine.get(&slot) else { return };
        let conn = ConnRef { node: NodeIdx::HERE, shard: self.shard, slot };
        let (client, tenant, req) = (mine.client.clone(), mine.tenant, mine.req);
        if mine.node == NodeIdx::HERE {
            self.send_to_owner_table(tenant, client, |client| match req {
                Some(req) => Dict::Register { req, conn, tenant, client },
                None => Dict::Reregister { conn, tenant, client },
            });
        } else if cluster.is_up(mine.node) {
            let (via, client_id) = (Via::To(mine.node), client.client_id.to_string());
            let message = Remote::Register { req: req.map(|req| req.0), conn: conn.into(), client_id };
            self.send_remote(via, Some(tenant), &message);
        }
    }

    /// As [`Self::name`], if it still belongs to this node.
    pub(super) fn name_at(&mut self, slot: Slot, node: NodeIdx) {
        let mine = self.cluster.as_ref().and_then(|cluster| cluster.mine.get(&slot));
        if mine.is_some_and(|mine| mine.node == node) {
            self.name(slot);
        }
    }

    fn unname(&mut self, node: NodeIdx, conn: ConnRef, client: &Client, tenant: TenantIdx) {
        if node == NodeIdx::HERE {
            self.send_to_owner_table(tenant, client.clone(), |client| Dict::Unregister { conn, tenant, client });
        } else if self.cluster.as_ref().is_some_and(|cluster| cluster.is_up(node)) {
            let message = Remote::Unregister { conn: conn.into(), client_id: client.client_id.to_string() };
            self.send_remote(Via::To(node), Some(tenant), &message);
        }
    }

    /// Nodes have come or gone: client ids are named where they belong now.
    pub(super) fn move_registrations(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        let nodes = cluster.nodes.clone();
        let mut moved = Vec::new();
        for (&slot, mine) in &mut cluster.mine {
            let node = nodes.responsible(&[mine.client.tenant.as_bytes(), mine.client.client_id.as_bytes()]);
            let before = std::mem::replace(&mut mine.node, node);
            if before != node {
                moved.push((slot, before, mine.client.clone(), mine.tenant));
            }
        }
        repeat_order(&mut moved, |(slot, ..)| *slot);
        for (slot, before, client, tenant) in moved {
            let conn = ConnRef { node: NodeIdx::HERE, shard: self.shard, slot };
            self.unname(before, conn, &client, tenant);
            self.name(slot);
        }
    }
}
