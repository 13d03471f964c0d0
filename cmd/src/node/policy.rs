//! Tenants as the configuration describes them, for the registry; and as the registry knows them, for the metrics.

use crate::admin::TenantSource;
use bifro_core::config::{NodeConfig, TenantConfig};
use bifro_core::settings::{Quota, QuotaLimits, TenantSettings};
use bifro_core::tenant::TenantName;
use bifro_net::broker::{TenantPolicy, TenantRegistry};
use std::collections::BTreeMap;
use std::sync::Arc;

/// `[tenant_defaults]` and `[tenant.NAME]`.
#[derive(Debug)]
pub(super) struct ConfiguredTenants {
    defaults: TenantConfig,
    named: BTreeMap<String, TenantConfig>,
}

impl ConfiguredTenants {
    pub(super) fn of(config: &NodeConfig) -> Self {
        Self { defaults: config.tenant_defaults.clone(), named: config.tenant.clone() }
    }
}

impl TenantPolicy for ConfiguredTenants {
    fn policy(&self, tenant: &str) -> (TenantSettings, QuotaLimits) {
        let config = self.named.get(tenant).unwrap_or(&self.defaults);
        (config.settings.clone(), config.quota.clone())
    }
}

/// The tenants this node has met, in the order of their first client.
#[derive(Debug)]
pub(super) struct Registered(pub(super) Arc<TenantRegistry>);

impl TenantSource for Registered {
    fn tenants(&self) -> Vec<(TenantName, Arc<Quota>)> {
        self.0.all().iter().map(|tenant| (tenant.name.clone(), tenant.quota.clone())).collect()
    }
}
