//! `[tenant_defaults]` and `[tenant.NAME]`: a tenant's table states only what differs, and is laid over the defaults.

use super::document::Document;
use super::error::{ConfigError, ConfigErrors};
use bifro_core::config::TenantConfig;
use std::collections::BTreeMap;
use toml::de::DeTable;

/// Longest tenant name, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// Takes the tenants' tables out of the document: the defaults, and each named tenant with the defaults filled in.
///
/// # Errors
/// A key is unknown or mistyped, or a tenant's name cannot be one.
pub(super) fn take(
    document: &mut Document<'_>,
) -> Result<(TenantConfig, BTreeMap<String, TenantConfig>), ConfigErrors> {
    let defaults = document.take_table("tenant_defaults")?;
    let tables = document.take_table("tenant")?;
    let mut tenants = BTreeMap::new();
    for (name, value) in tables {
        let name = name.into_inner();
        let path = format!("tenant.{name}");
        check_name(document, &path, &name)?;
        let table = document.expect_table(&path, value)?;
        let merged = overlay(document, &path, defaults.clone(), table)?;
        tenants.insert(name.into_owned(), read(document, &path, merged)?);
    }
    Ok((read(document, "tenant_defaults", defaults)?, tenants))
}

/// A name is substituted for `%t` in access rules and becomes a label of metrics, so it must be no topic of its own.
fn check_name(document: &Document<'_>, path: &str, name: &str) -> Result<(), ConfigError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(document.error(path, format!("a tenant's name has 1 to {NAME_BYTES_MAX} bytes")));
    }
    if let Some(odd) = name.chars().find(|c| c.is_control() || c.is_whitespace() || "+#/$".contains(*c)) {
        return Err(document.error(path, format!("a tenant's name may not contain {odd:?}")));
    }
    Ok(())
}

fn overlay<'t>(
    document: &Document<'t>,
    path: &str,
    mut base: DeTable<'t>,
    over: DeTable<'t>,
) -> Result<DeTable<'t>, ConfigErrors> {
    for (key, value) in over {
        let merged = match base.remove(&key) {
            Some(below) if key.get_ref() == "quota" => {
                let span = value.span();
                let below = document.expect_table("tenant_defaults.quota", below)?;
                let mut quota = below;
                quota.extend(document.expect_table(&format!("{path}.quota"), value)?);
                toml::Spanned::new(span, toml::de::DeValue::Table(quota))
            }
            _ => value,
        };
        base.insert(key, merged);
    }
    Ok(base)
}

fn read<'t>(document: &Document<'t>, path: &str, mut table: DeTable<'t>) -> Result<TenantConfig, ConfigErrors> {
    let quota = match table.remove("quota") {
        Some(value) => document.expect_table(&format!("{path}.quota"), value)?,
        None => DeTable::new(),
    };
    Ok(TenantConfig { settings: document.read(table)?, quota: document.read(quota)? })
}
