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
            let (conn, message, remote) = match effect {
                DictEffect::Registered { conn, req } => {
                    (conn, Dict::Registered { conn, req }, Remote::Registered { conn: conn.into(), req: req.0 })
                }
                DictEffect::Kick { conn } => (conn, Dict::Kick { conn }, Remote::Kick { conn: conn.into() }),
            };
            if conn.node == NodeIdx::HERE {
                self.send(conn.shard, Message::Dict(message));
            } else {
                self.send_remote(Via::To(conn.node), None, &remote);
            }
        }
    }
}
