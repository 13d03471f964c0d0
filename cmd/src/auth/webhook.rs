//! An HTTP service decides.
//!
//! The broker POSTs JSON: `listener` (index), `protocol_version` (3, 4, 5), `transport`, `peer` (address and port, or null),
//! `client_id`, `username` (or null), `password` (or null) or, if that is not UTF-8, `password_base64`, and `certificate` (DER in
//! Base64, or null). The service answers 2xx with at most 64 KiB of JSON and no members but these:
//! ```json
//! {"result": "allow", "tenant": "acme", "user": "alice", "expires_at": 1767225600,
//!  "acl": [{"permission": "allow", "action": "publish", "topic": "devices/%c/#"}]}
//! ```
//! `result` is `allow`, `deny` or `ignore` (ask the next provider); the rest counts for `allow` only. Without `user` the client's
//! user name is used. `expires_at` is in seconds since the epoch. `action` is `publish`, `subscribe` or `all`. Where `acl` is
//! present it is complete: what it does not allow is denied.
//!
//! Everything else, be it a status, a missing or an unknown member, a late answer, refuses the client as `Unavailable`.

use super::cache::{AnswerCache, CacheKey};
use super::chain::{Answer, Attempt, Call, Provider};
use super::config::HttpConfig;
use super::error::LoadError;
use super::grant::{close_rules, push_rule};
use super::http_client::{self, CallError, FailureLog};
use super::name::{check_tenant, check_user};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bifro_core::client::Transport;
use bifro_core::plugin::{Action, AuthRequest, Effect, Grant, Refusal, Rule};
use bifro_core::tenant::TenantName;
use bifro_core::time::Instant;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The provider.
pub(super) struct Webhook {
    client: Client,
    url: Url,
    headers: HeaderMap,
    timeout: Duration,
    /// Calls under way or waiting.
    admitted: Arc<Semaphore>,
    /// Calls under way.
    turns: Arc<Semaphore>,
    capacity: usize,
    cache: AnswerCache<Arc<Decision>>,
    ttl: Duration,
    negative_ttl: Duration,
    failures: FailureLog,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No headers: they hold secrets.
        f.debug_struct("Webhook").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

/// What the service decided.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    Allow(Allowance),
    Deny,
    Ignore,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Allowance {
    tenant: Option<TenantName>,
    user: Box<str>,
    rules: Vec<Rule>,
    expires_at: Option<Instant>,
}

#[derive(Serialize)]
struct Question<'a> {
    listener: u16,
    protocol_version: u8,
    transport: &'static str,
    peer: Option<String>,
    client_id: &'a str,
    username: Option<&'a str>,
    password: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_base64: Option<String>,
    certificate: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Allow,
    Deny,
    Ignore,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    result: Outcome,
    #[serde(default)]
    tenant: Option<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    acl: Option<Vec<Permission>>,
    #[serde(default)]
    expires_at: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Permission {
    permission: PermissionEffect,
    action: PermissionAction,
    topic: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum PermissionEffect {
    Allow,
    Deny,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum PermissionAction {
    Publish,
    Subscribe,
    All,
}

impl Webhook {
    /// Prepares calls; makes none.
    ///
    /// # Errors
    /// [`LoadError`], with the key.
    pub(super) fn new(config: &HttpConfig) -> Result<Self, LoadError> {
        let timeout = Duration::from_millis(config.timeout_ms.into());
        let capacity = config.concurrency_max as usize + config.queue_max as usize;
        Ok(Self {
            client: http_client::client("auth.http.url", config.ca_file.as_deref(), timeout)?,
            url: http_client::parse_url("auth.http.url", &config.url)?,
            headers: headers(config)?,
            timeout,
            admitted: Arc::new(Semaphore::new(capacity)),
            turns: Arc::new(Semaphore::new(config.concurrency_max as usize)),
            capacity,
            cache: AnswerCache::new(config.cache_entries_max)?,
            ttl: Duration::from_secs(config.cache_ttl_s.into()),
            negative_ttl: Duration::from_secs(config.negative_cache_ttl_s.into()),
            failures: FailureLog::default(),
        })
    }

    /// Calls that failed.
    pub(super) fn failures(&self) -> u64 {
        self.failures.count()
    }

    /// Calls under way or waiting.
    pub(super) fn pending(&self) -> usize {
        self.capacity - self.admitted.available_permits()
    }

    async fn ask(&self, call: &Call, key: CacheKey) -> Answer {
        let asked =
            tokio::time::timeout(self.timeout, self.call(&call.request)).await.unwrap_or(Err(CallError::Timeout));
        match asked {
            Ok(decision) => {
                let decision = Arc::new(decision);
                self.cache.remember(key, Arc::clone(&decision), self.ttl_of(&decision), call.now());
                decision.to_answer(call.now())
            }
            Err(error) => {
                self.failures.note(call.now().as_unix_secs(), self.url.as_str(), &error);
                Answer::Refused(Refusal::Unavailable)
            }
        }
    }

    async fn call(&self, request: &AuthRequest) -> Result<Decision, CallError> {
        // The semaphore is never closed; if it were, waiting would be as much in vain as for the service.
        let _turn = self.turns.acquire().await.map_err(|_| CallError::Timeout)?;
        let question = self.client.post(self.url.clone()).headers(self.headers.clone()).json(&Question::of(request));
        let body = http_client::body(question.send().await?, ANSWER_BYTES_MAX).await?;
        let reply: Reply = serde_json::from_slice(&body).map_err(|error| CallError::Content(error.to_string()))?;
        Decision::of(reply, request).map_err(CallError::Content)
    }

    fn ttl_of(&self, decision: &Decision) -> Duration {
        match decision {
            Decision::Allow(_) => self.ttl,
            Decision::Deny | Decision::Ignore => self.negative_ttl,
        }
    }

    /// The key of all that the service may decide by; ports are not among it, they change with each connection.
    fn key(&self, request: &AuthRequest) -> CacheKey {
        let address = request.peer.map(|peer| peer.ip().to_string());
        self.cache.key(&[
            Some(&request.listener.to_be_bytes()),
            Some(&[request.version as u8]),
            Some(transport(request.transport).as_bytes()),
            address.as_deref().map(str::as_bytes),
            Some(request.client_id.as_bytes()),
            request.username.as_deref().map(str::as_bytes),
            request.password.as_deref(),
            request.certificate.as_deref(),
        ])
    }
}

impl Provider for Webhook {
    fn attempt(self: Arc<Self>, call: &Arc<Call>) -> Attempt {
        if call.request.enhanced.is_some() {
            return Attempt::Now(Answer::NotMine);
        }
        let key = self.key(&call.request);
        if let Some(decision) = self.cache.answer(&key, call.now()) {
            return Attempt::Now(decision.to_answer(call.now()));
        }
        let Ok(permit) = Arc::clone(&self.admitted).try_acquire_owned() else {
            return Attempt::Now(Answer::Refused(Refusal::Unavailable));
        };
        let call = Arc::clone(call);
        Attempt::Wait(Box::pin(async move {
            let _permit = permit;
            if call.is_abandoned() {
                return Answer::Refused(Refusal::Unavailable);
            }
            self.ask(&call, key).await
        }))
    }
}

impl<'a> Question<'a> {
    fn of(request: &'a AuthRequest) -> Self {
        let password = request.password.as_deref();
        let text = password.and_then(|bytes| std::str::from_utf8(bytes).ok());
        Self {
            listener: request.listener,
            protocol_version: request.version as u8,
            transport: transport(request.transport),
            peer: request.peer.map(|peer| peer.to_string()),
            client_id: &request.client_id,
            username: request.username.as_deref(),
            password: text,
            password_base64: password.filter(|_| text.is_none()).map(|bytes| STANDARD.encode(bytes)),
            certificate: request.certificate.as_deref().map(|der| STANDARD.encode(der)),
        }
    }
}

impl Decision {
    fn of(reply: Reply, request: &AuthRequest) -> Result<Self, String> {
        match reply.result {
            Outcome::Deny => return Ok(Self::Deny),
            Outcome::Ignore => return Ok(Self::Ignore),
            Outcome::Allow => {}
        }
        if let Some(tenant) = &reply.tenant {
            check_tenant(tenant)?;
        }
        let user: Box<str> = match reply.user {
            Some(user) => check_user(&user).map(|()| user.into())?,
            None => request.username.clone().unwrap_or_default(),
        };
        let mut rules = Vec::new();
        if let Some(permissions) = reply.acl {
            for permission in &permissions {
                let effect = match permission.permission {
                    PermissionEffect::Allow => Effect::Allow,
                    PermissionEffect::Deny => Effect::Deny,
                };
                let action = match permission.action {
                    PermissionAction::Publish => Some(Action::Publish),
                    PermissionAction::Subscribe => Some(Action::Subscribe),
                    PermissionAction::All => None,
                };
                push_rule(&mut rules, effect, action, &permission.topic)?;
            }
            close_rules(&mut rules);
        }
        let expires_at = reply.expires_at.map(|s| Instant::from_micros(s.saturating_mul(1_000_000)));
        Ok(Self::Allow(Allowance { tenant: reply.tenant.map(TenantName::from), user, rules, expires_at }))
    }

    fn to_answer(&self, now: Instant) -> Answer {
        match self {
            Self::Allow(allowance) if allowance.expires_at.is_some_and(|at| at <= now) => {
                Answer::Refused(Refusal::BadCredentials)
            }
            Self::Allow(Allowance { tenant, user, rules, expires_at }) => Answer::Granted(Box::new(Grant {
                tenant: tenant.clone(),
                user: user.clone(),
                rules: rules.clone(),
                expires_at: *expires_at,
                ..Grant::default()
            })),
            Self::Deny => Answer::Refused(Refusal::BadCredentials),
            Self::Ignore => Answer::NotMine,
        }
    }
}

fn headers(config: &HttpConfig) -> Result<HeaderMap, LoadError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &config.headers {
        let bad = |problem: &str| LoadError::setting("auth.http.headers", format!("{name:?} {problem}"));
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("is no header name"))?;
        let mut value = HeaderValue::from_str(&value.0).map_err(|_| bad("has a value that cannot be sent"))?;
        value.set_sensitive(true);
        headers.insert(header, value);
    }
    Ok(headers)
}

const fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Tls => "tls",
        Transport::Ws => "ws",
        Transport::Wss => "wss",
        Transport::Unix => "unix",
    }
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
pub(super) mod tests;
