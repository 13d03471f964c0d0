//! A tenant as a shard sees it: its settings and what it may still use.

use crate::ids::TenantIdx;
use crate::settings::{Quota, TenantSettings};
use alloc::sync::Arc;

/// The tenant's name, from authentication.
pub type TenantName = Arc<str>;

/// Tenant of clients that authentication puts into no other.
pub const DEFAULT_TENANT: &str = "default";

/// What the machines need to know of a tenant; replaced as a whole at reload.
#[derive(Debug)]
pub struct TenantCtx {
    /// Interned id.
    pub idx: TenantIdx,
    /// Name.
    pub name: TenantName,
    /// Settings in force.
    pub settings: TenantSettings,
    /// Resource limits and their use, counted over all shards.
    pub quota: Arc<Quota>,
}
