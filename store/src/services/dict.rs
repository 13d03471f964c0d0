//! The session dictionary's port.

use super::RangeServices;
use super::message::{Dict, Message};
use super::wire::Remote;
use bifro_core::client::Client;
use bifro_core::ids::{ConnRef, NodeIdx, ReqId};
use bifro_core::ports::{Completion, SessionDict, Via};
use bifro_core::tenant::TenantCtx;
use bifro_core::time::Instant;
use bifro_range::TenantKeyRef;
use bifro_range::dict::DictEffect;

impl SessionDict for RangeServices {
    fn register(&mut self, now: Instant, req: ReqId, conn: ConnRef, client: &Client, tenant: &TenantCtx) {
        self.register_mine(conn, client, tenant.idx, req);
        self.settle(now);
    }

    fn unregister(&mut self, now: Instant, conn: ConnRef, client: &Client, tenant: &TenantCtx) {
        self.unregister_mine(conn, client, tenant.idx);
        self.settle(now);
    }
}

impl RangeServices {
    pub(super) fn handle_dict(&mut self, now: Instant, message: Dict) {
        let mut effects = Vec::new();
        match message {
            Dict::Register { req, conn, tenant, client } => {
                self.owners.register(now, tenant, &client, conn, req, &mut effects);
            }
            Dict::Reregister { conn, tenant, client } => {
                self.owners.reregister(tenant, &client, conn, &mut effects);
            }
            Dict::Unregister { conn, tenant, client } => {
                let client = TenantKeyRef { tenant, name: &client.client_id };
                self.owners.unregister(now, client, conn, &mut effects);
            }
            Dict::Registered { conn, req } => {
                self.registered(conn, req);
                self.complete(Completion::Registered { req });
            }
            Dict::Kick { conn } => self.complete(Completion::Kick { conn }),
            Dict::Answer { conn, req } => {
                let answer = match req {
                    Some(ReqId(req)) => Remote::Registered { conn: conn.into(), req },
                    None => Remote::Kick { conn: conn.into() },
                };
                self.send_remote(Via::From(conn.node, conn.shard), None, &answer);
            }
        }
        self.carry_out_dict(effects);
    }

    pub(super) fn handle_dict_timeout(&mut self, now: Instant) {
        let mut effects = Vec::new();
        self.owners.handle_timeout(now, &mut effects);
        self.carry_out_dict(effects);
    }

    pub(super) fn carry_out_dict(&mut self, effects: Vec<DictEffect>) {
        for effect in effects {
            let (conn, req) = match effect {
                DictEffect::Registered { conn, req } => (conn, Some(req)),
                DictEffect::Kick { conn } => (conn, None),
            };
            if conn.node == NodeIdx::HERE {
                let message = req.map_or(Dict::Kick { conn }, |req| Dict::Registered { conn, req });
                self.send(conn.shard, Message::Dict(message));
            } else {
                // Back over the link of the connection's shard, which its request came by: this node may have none to that node yet.
                let to = self.arrives_at(conn.node, conn.shard);
                self.send(to, Message::Dict(Dict::Answer { conn, req }));
            }
        }
    }
}
