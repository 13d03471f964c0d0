//! Tenants: one registry for the process, asked only when a shard meets a tenant for the first time, and a table per shard.

use bifro_core::ids::TenantIdx;
use bifro_core::settings::{Quota, QuotaLimits, TenantSettings};
use bifro_core::tenant::{DEFAULT_TENANT, TenantCtx, TenantName};
use hashbrown::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Tenants one process knows at most; a client of one more is refused.
pub(crate) const TENANTS_MAX: usize = 1 << 20;

/// Settings and limits by tenant name; from configuration.
pub trait TenantPolicy: Send + Sync + std::fmt::Debug {
    /// What holds for `tenant`, named in the configuration or not.
    fn policy(&self, tenant: &str) -> (TenantSettings, QuotaLimits);
}

#[derive(Debug)]
struct Inner {
    policy: Arc<dyn TenantPolicy>,
    by_name: HashMap<TenantName, usize>,
    tenants: Vec<Arc<TenantCtx>>,
}

/// Every tenant this process has met.
#[derive(Debug)]
pub struct TenantRegistry(Mutex<Inner>);

impl TenantRegistry {
    /// A registry that knows the default tenant.
    pub fn new(policy: Arc<dyn TenantPolicy>) -> Self {
        let registry = Self(Mutex::new(Inner { policy, by_name: HashMap::new(), tenants: Vec::new() }));
        let default = registry.intern(&DEFAULT_TENANT.into());
        debug_assert_eq!(default.map(|tenant| tenant.idx), Some(TenantIdx(0)));
        registry
    }

    /// The tenant named so, made if it is new; none if there are too many.
    pub fn intern(&self, name: &TenantName) -> Option<Arc<TenantCtx>> {
        let mut inner = self.lock();
        if let Some(&index) = inner.by_name.get(name) {
            return Some(inner.tenants[index].clone());
        }
        let index = inner.tenants.len();
        if index >= TENANTS_MAX {
            return None;
        }
        let (settings, limits) = inner.policy.policy(name);
        let tenant = Arc::new(TenantCtx {
            idx: TenantIdx(u32::try_from(index).ok()?),
            name: name.clone(),
            settings,
            quota: Arc::new(Quota::new(&limits)),
        });
        inner.by_name.insert(name.clone(), index);
        inner.tenants.push(tenant.clone());
        Some(tenant)
    }

    /// Every tenant, in the order of their ids.
    pub fn all(&self) -> Vec<Arc<TenantCtx>> {
        self.lock().tenants.clone()
    }

    /// Puts a new policy in force; what tenants have in use stays. The shards are told with a [`super::Reload`].
    pub fn reload(&self, policy: Arc<dyn TenantPolicy>) -> Vec<Arc<TenantCtx>> {
        let mut inner = self.lock();
        inner.policy = policy;
        for index in 0..inner.tenants.len() {
            let old = &inner.tenants[index];
            let (settings, limits) = inner.policy.policy(&old.name);
            old.quota.set_limits(&limits);
            let new = TenantCtx { idx: old.idx, name: old.name.clone(), settings, quota: old.quota.clone() };
            inner.tenants[index] = Arc::new(new);
        }
        inner.tenants.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // The registry is changed only by pushes and whole replacements, so it is valid even after a panic elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tenants one shard has met.
#[derive(Debug)]
pub(crate) struct TenantTable {
    registry: Arc<TenantRegistry>,
    by_name: HashMap<TenantName, TenantIdx>,
    known: Vec<Option<Arc<TenantCtx>>>,
    default: Arc<TenantCtx>,
}

impl TenantTable {
    pub(crate) fn new(registry: Arc<TenantRegistry>) -> Self {
        let default = registry.intern(&DEFAULT_TENANT.into()).expect("the default tenant is the first");
        let mut table = Self { registry, by_name: HashMap::new(), known: Vec::new(), default: default.clone() };
        table.set(default);
        table
    }

    /// The tenant, or the default one for an id this shard has not met, which only a session before authentication has.
    pub(crate) fn ctx(&self, idx: TenantIdx) -> &Arc<TenantCtx> {
        self.known.get(idx.0 as usize).and_then(Option::as_ref).unwrap_or(&self.default)
    }

    /// The tenant named so, if this shard has met it.
    pub(crate) fn find(&self, name: &str) -> Option<TenantIdx> {
        self.by_name.get(name).copied()
    }

    /// The tenant named so, and whether this shard meets it for the first time and has to tell its peers.
    pub(crate) fn meet(&mut self, name: &TenantName) -> Option<(Arc<TenantCtx>, bool)> {
        if let Some(&idx) = self.by_name.get(name) {
            return Some((self.ctx(idx).clone(), false));
        }
        let tenant = self.registry.intern(name)?;
        self.set(tenant.clone());
        Some((tenant, true))
    }

    /// A peer has met a tenant. True if that is news; else what is known here may be newer, by a reload.
    pub(crate) fn learn(&mut self, tenant: &Arc<TenantCtx>) -> bool {
        let news = self.known.get(tenant.idx.0 as usize).is_none_or(Option::is_none);
        if news {
            self.set(tenant.clone());
        }
        news
    }

    /// Remembers a tenant, or its new settings.
    pub(crate) fn set(&mut self, tenant: Arc<TenantCtx>) {
        let index = tenant.idx.0 as usize;
        if index >= self.known.len() {
            self.known.resize(index + 1, None);
        }
        if self.known[index].is_none() {
            self.by_name.insert(tenant.name.clone(), tenant.idx);
        }
        if index == 0 {
            self.default = tenant.clone();
        }
        self.known[index] = Some(tenant);
    }
}
