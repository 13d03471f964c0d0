//! The session dictionary's port.

use super::RangeServices;
use super::message::{Dict, Message};
use bifro_core::client::Client;
use bifro_core::ids::{ConnRef, ReqId};
use bifro_core::ports::{Completion, SessionDict};
use bifro_core::tenant::TenantCtx;
use bifro_core::time::Instant;
use bifro_range::TenantKeyRef;
use bifro_range::dict::DictEffect;

impl SessionDict for RangeServices {
    fn register(&mut self, now: Instant, req: ReqId, conn: ConnRef, client: &Client, tenant: &TenantCtx) {
        let to = self.home(self.range_of(tenant, &client.client_id));
        self.send(to, Message::Dict(Dict::Register { req, conn, tenant: tenant.idx, client: client.clone() }));
        self.settle(now);
    }

    fn unregister(&mut self, now: Instant, conn: ConnRef, client: &Client, tenant: &TenantCtx) {
        let to = self.home(self.range_of(tenant, &client.client_id));
        self.send(to, Message::Dict(Dict::Unregister { conn, tenant: tenant.idx, client: client.clone() }));
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
            Dict::Unregister { conn, tenant, client } => {
                let client = TenantKeyRef { tenant, name: &client.client_id };
                self.owners.unregister(now, client, conn, &mut effects);
            }
            Dict::Registered { req } => self.complete(Completion::Registered { req }),
            Dict::Kick { conn } => self.complete(Completion::Kick { conn }),
        }
        self.carry_out_dict(effects);
    }

    pub(super) fn handle_dict_timeout(&mut self, now: Instant) {
        let mut effects = Vec::new();
        self.owners.handle_timeout(now, &mut effects);
        self.carry_out_dict(effects);
    }

    fn carry_out_dict(&mut self, effects: Vec<DictEffect>) {
        for effect in effects {
            let (to, message) = match effect {
                DictEffect::Registered { conn, req } => (conn.shard, Dict::Registered { req }),
                DictEffect::Kick { conn } => (conn.shard, Dict::Kick { conn }),
            };
            self.send(to, Message::Dict(message));
        }
    }
}
