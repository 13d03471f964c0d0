//! Keys within a tenant, and where answers go.

use alloc::sync::Arc;
use bifro_core::ids::{NodeIdx, ReqId, ShardId, TenantIdx};
use hashbrown::Equivalent;

/// A client id or topic within its tenant, owned.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantKey {
    /// Tenant.
    pub tenant: TenantIdx,
    /// Client id or topic.
    pub name: Arc<str>,
}

/// The borrowed form of a [`TenantKey`], equal and equally hashed, so that a look-up allocates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TenantKeyRef<'a> {
    /// Tenant.
    pub tenant: TenantIdx,
    /// Client id or topic.
    pub name: &'a str,
}

impl TenantKeyRef<'_> {
    /// The owned form.
    pub fn to_key(self) -> TenantKey {
        TenantKey { tenant: self.tenant, name: self.name.into() }
    }
}

impl Equivalent<TenantKey> for TenantKeyRef<'_> {
    fn equivalent(&self, key: &TenantKey) -> bool {
        self.tenant == key.tenant && *self.name == *key.name
    }
}

/// Who has asked, and so hears the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplyTo {
    /// Node of the request.
    pub node: NodeIdx,
    /// Shard of it.
    pub shard: ShardId,
    /// As which leader of the range it was asked, by its own count; comes back with everything that is for the asker.
    pub claim: u32,
    /// The request, as that shard numbers it.
    pub req: ReqId,
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::hash::BuildHasher;

    #[test]
    fn both_forms_hash_alike_and_are_equivalent() {
        let hasher = hashbrown::DefaultHashBuilder::default();
        let borrowed = TenantKeyRef { tenant: TenantIdx(3), name: "a/b" };
        assert_eq!(hasher.hash_one(borrowed), hasher.hash_one(borrowed.to_key()));
        assert!(borrowed.equivalent(&borrowed.to_key()));
        assert!(!borrowed.equivalent(&TenantKeyRef { tenant: TenantIdx(4), name: "a/b" }.to_key()));
    }
}
