//! From the claims of a verified token to what the client may be and do. Every claim that is configured must be there and have
//! the right type; a claim of the wrong type is never taken for an absent one.

use super::keys::Claims;
use crate::auth::config::JwtConfig;
use crate::auth::grant::{close_rules, push_rule};
use crate::auth::name::{check_tenant, check_user};
use bifro_core::plugin::{Action, AuthRequest, Effect, Grant, Rule};
use bifro_core::tenant::TenantName;
use bifro_core::time::Instant;
use serde_json::Value;
use std::time::Duration;

/// What the token grants to the client of `request` at `now`.
///
/// # Errors
/// Why it grants nothing.
pub(super) fn to_grant(
    config: &JwtConfig,
    request: &AuthRequest,
    claims: &Claims,
    now: Instant,
) -> Result<Grant, &'static str> {
    let expires_at = check_times(config, claims, now)?;
    check_named(claims.get("iss"), &config.issuer, "issuer not accepted")?;
    check_named(claims.get("aud"), &config.audience, "audience not accepted")?;
    let user = text(claims, &config.user_claim, "user claim missing or not a string")?;
    check_user(user).map_err(|_| "user claim cannot be a user name")?;
    if let Some(claim) = &config.client_id_claim
        && text(claims, claim, "client id claim missing or not a string")? != &*request.client_id
    {
        return Err("client id is not the token's");
    }
    let tenant = match &config.tenant_claim {
        Some(claim) => {
            let tenant = text(claims, claim, "tenant claim missing or not a string")?;
            check_tenant(tenant).map_err(|_| "tenant claim cannot be a tenant name")?;
            Some(TenantName::from(tenant))
        }
        None => None,
    };
    let rules = claims.get(&config.acl_claim).map_or(Ok(Vec::new()), rules)?;
    Ok(Grant { tenant, user: user.into(), rules, expires_at, ..Grant::default() })
}

/// Checks `exp` and `nbf`, and says when the token expires, leeway included.
fn check_times(config: &JwtConfig, claims: &Claims, now: Instant) -> Result<Option<Instant>, &'static str> {
    let leeway = Duration::from_secs(config.leeway_s.into());
    if let Some(nbf) = claims.get("nbf")
        && now + leeway < instant(nbf).ok_or("nbf is not a time")?
    {
        return Err("not valid yet");
    }
    let Some(exp) = claims.get("exp") else {
        return if config.require_exp { Err("no exp") } else { Ok(None) };
    };
    let expires_at = instant(exp).ok_or("exp is not a time")? + leeway;
    if expires_at <= now { Err("expired") } else { Ok(Some(expires_at)) }
}

/// A `NumericDate`: seconds since the epoch, perhaps with a fraction.
fn instant(value: &Value) -> Option<Instant> {
    if let Some(seconds) = value.as_u64() {
        return Some(Instant::from_micros(seconds.saturating_mul(1_000_000)));
    }
    let seconds = value.as_f64().filter(|seconds| seconds.is_finite() && *seconds >= 0.0)?;
    // A float-to-integer cast saturates, which for a time in the far future is the right answer.
    Some(Instant::from_micros((seconds * 1e6) as u64))
}

/// Whether a claim names one of `accepted`, as a string or in a list of strings; anything does if nothing is configured.
fn check_named(claim: Option<&Value>, accepted: &[String], problem: &'static str) -> Result<(), &'static str> {
    let is_accepted = |value: &Value| value.as_str().is_some_and(|name| accepted.iter().any(|other| other == name));
    let passes = accepted.is_empty()
        || match claim {
            Some(Value::Array(values)) => values.iter().any(is_accepted),
            Some(value) => is_accepted(value),
            None => false,
        };
    if passes { Ok(()) } else { Err(problem) }
}

fn text<'a>(claims: &'a Claims, claim: &str, problem: &'static str) -> Result<&'a str, &'static str> {
    claims.get(claim).and_then(Value::as_str).ok_or(problem)
}

/// The rules of an `acl` claim: what it lists is allowed, and nothing else.
fn rules(acl: &Value) -> Result<Vec<Rule>, &'static str> {
    let lists = acl.as_object().ok_or("acl claim is not an object")?;
    let mut rules = Vec::new();
    for (name, patterns) in lists {
        let action = match name.as_str() {
            "pub" => Some(Action::Publish),
            "sub" => Some(Action::Subscribe),
            "all" => None,
            _ => return Err("acl claim has another member than pub, sub and all"),
        };
        for pattern in patterns.as_array().ok_or("a list of the acl claim is not a list")? {
            let pattern = pattern.as_str().ok_or("a topic in the acl claim is not a string")?;
            push_rule(&mut rules, Effect::Allow, action, pattern)?;
        }
    }
    close_rules(&mut rules);
    Ok(rules)
}
