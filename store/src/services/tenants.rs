//! Tenants, as the services know them.

use bifro_core::ids::TenantIdx;
use bifro_core::tenant::TenantCtx;
use std::sync::Arc;

/// Tenants by their numbers.
#[derive(Debug, Default)]
pub(super) struct Tenants(Vec<Option<Arc<TenantCtx>>>);

impl Tenants {
    pub(super) fn get(&self, tenant: TenantIdx) -> Option<&Arc<TenantCtx>> {
        self.0.get(tenant.0 as usize)?.as_ref()
    }

    pub(super) fn set(&mut self, tenant: Arc<TenantCtx>) {
        let index = tenant.idx.0 as usize;
        if self.0.len() <= index {
            self.0.resize(index + 1, None);
        }
        self.0[index] = Some(tenant);
    }
}
