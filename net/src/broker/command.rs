//! What the rest of the process tells a shard.

use super::Broker;
use bifro_core::ids::ReqId;
use bifro_core::nodes::Nodes;
use bifro_core::plugin::{AuthOutcome, Authorizer};
use bifro_core::ports::Services;
use bifro_core::ranges::{RangeAnswer, RangeOrder};
use bifro_core::tenant::TenantCtx;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// New rules for every session.
#[derive(Debug)]
pub struct Reload {
    /// Answers permission questions from now on.
    pub authorizer: Arc<dyn Authorizer>,
    /// Tenants with their new settings.
    pub tenants: Vec<Arc<TenantCtx>>,
}

/// Where the answer to [`Command::Ranges`] goes. Called on the shard, which it must not hold up.
pub struct RangeReply(Box<dyn FnOnce(RangeAnswer) + Send>);

impl RangeReply {
    /// To whoever is called.
    pub fn new(hear: impl FnOnce(RangeAnswer) + Send + 'static) -> Self {
        Self(Box::new(hear))
    }

    /// Answers.
    pub fn send(self, answer: RangeAnswer) {
        (self.0)(answer);
    }
}

impl fmt::Debug for RangeReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RangeReply")
    }
}

/// A command to a shard.
#[derive(Debug)]
pub enum Command {
    /// The answer to an authentication step.
    Auth {
        /// The step.
        req: ReqId,
        /// The answer.
        outcome: AuthOutcome,
    },
    /// Settings or permissions have changed.
    Reload(Arc<Reload>),
    /// Other nodes have come or gone.
    Nodes(Arc<Nodes>),
    /// An operator wants something of the ranges here.
    Ranges {
        /// What.
        order: RangeOrder,
        /// Who hears the answer.
        reply: RangeReply,
    },
    /// Accept no more, end all sessions before the deadline, then stop.
    Drain {
        /// How long it may take.
        within: Duration,
    },
}

impl<S: Services> Broker<S> {
    pub(super) fn handle_command(&mut self, command: Command) {
        match command {
            Command::Auth { req, outcome } => {
                self.handle_auth(req, outcome);
                self.settle();
            }
            Command::Reload(reload) => {
                self.authorizer = reload.authorizer.clone();
                for tenant in &reload.tenants {
                    self.services.ask().set_tenant(tenant.clone());
                    self.tenants.set(tenant.clone());
                }
                self.reload_at = Some(0);
            }
            Command::Nodes(nodes) => self.set_nodes(&nodes),
            Command::Ranges { order, reply } => {
                reply.send(self.services.ask().operate(self.now, order));
                self.settle();
            }
            Command::Drain { within } => self.begin_drain(within),
        }
    }
}
