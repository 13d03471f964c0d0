//! JSON Web Tokens (RFC 7519), in a CONNECT's password or user name, or as the single step of the enhanced authentication
//! method `JWT`, which lets a client re-authenticate with a fresh token on a live connection.
//!
//! What looks like a token is this provider's alone: if it is not valid, the chain ends. The key's type decides which algorithms
//! are possible, never the token (RFC 8725 section 3.1).

mod claims;
mod keys;
mod remote;

use self::keys::{KeySet, Unverified, parse_algorithms};
use self::remote::RemoteKeys;
use super::chain::{Answer, Attempt, Call, Provider};
use super::config::{JwtConfig, TokenField};
use super::error::LoadError;
use bifro_core::plugin::Refusal;
use jsonwebtoken::Algorithm;
use std::sync::Arc;

/// The method's name in CONNECT and AUTH.
const METHOD: &str = "JWT";

/// Longest token, in bytes; longer ones are refused unread.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// The provider.
#[derive(Debug)]
pub(super) struct Jwt {
    config: JwtConfig,
    algorithms: Vec<Algorithm>,
    keys: Keys,
}

#[derive(Debug)]
enum Keys {
    Fixed(KeySet),
    Remote(Arc<RemoteKeys>),
}

impl Jwt {
    /// Loads the keys. With a URL they are on their way; `before` is the provider that this one replaces, whose keys stay if
    /// they come from the same place.
    ///
    /// # Errors
    /// [`LoadError`], with key or file.
    pub(super) fn load(
        config: &JwtConfig,
        runtime: &tokio::runtime::Handle,
        before: Option<&Self>,
    ) -> Result<Self, LoadError> {
        let algorithms = parse_algorithms(&config.algorithms)?;
        let keys = match (&config.secret_file, &config.public_key_file, &config.jwks_file, &config.jwks_url) {
            (Some(path), None, None, None) => Keys::Fixed(KeySet::from_secret_file(path)?),
            (None, Some(path), None, None) => Keys::Fixed(KeySet::from_pem_file(path)?),
            (None, None, Some(path), None) => Keys::Fixed(KeySet::from_jwks_file(path)?),
            (None, None, None, Some(url)) => Keys::Remote(match before {
                Some(Self { config: old, keys: Keys::Remote(keys), .. }) if remote::is_same(old, config) => {
                    Arc::clone(keys)
                }
                _ => Arc::new(RemoteKeys::start(config, url, runtime)?),
            }),
            _ => return Err(LoadError::setting("auth.jwt", "set exactly one source of keys")),
        };
        if let Keys::Fixed(set) = &keys
            && !algorithms.is_empty()
            && !algorithms.iter().any(|algorithm| set.supports(*algorithm))
        {
            return Err(LoadError::setting("auth.jwt.algorithms", "lists none that the keys can be used with"));
        }
        Ok(Self { config: config.clone(), algorithms, keys })
    }

    /// Fetches of a key set that failed.
    pub(super) fn failures(&self) -> u64 {
        match &self.keys {
            Keys::Fixed(_) => 0,
            Keys::Remote(remote) => remote.failures(),
        }
    }

    fn verify(self: Arc<Self>, call: &Arc<Call>, token: Box<str>) -> Attempt {
        let remote = match &self.keys {
            Keys::Fixed(set) => return Attempt::Now(self.judge(call, &token, Some(set))),
            Keys::Remote(remote) => Arc::clone(remote),
        };
        let known = remote.keys();
        let is_unknown = match &known {
            Some(set) => matches!(set.verify(&token, &self.algorithms), Err(Unverified::UnknownKey)),
            None => true,
        };
        if !is_unknown {
            return Attempt::Now(self.judge(call, &token, known.as_deref()));
        }
        let Some(wait) = remote.refetch() else {
            return Attempt::Now(self.judge(call, &token, known.as_deref()));
        };
        let call = Arc::clone(call);
        Attempt::Wait(Box::pin(async move {
            let fresh = wait.await;
            self.judge(&call, &token, fresh.as_deref())
        }))
    }

    /// The answer to a token, given the keys there are; without any, nobody can be told right from wrong.
    fn judge(&self, call: &Call, token: &str, keys: Option<&KeySet>) -> Answer {
        let Some(keys) = keys else { return Answer::Refused(Refusal::Unavailable) };
        let problem = match keys.verify(token, &self.algorithms) {
            Ok(claims) => match claims::to_grant(&self.config, &call.request, &claims, call.now()) {
                Ok(grant) => return Answer::Granted(Box::new(grant)),
                Err(problem) => problem,
            },
            Err(unverified) => unverified.as_str(),
        };
        tracing::debug!(client_id = %call.request.client_id, peer = ?call.request.peer, problem, "token refused");
        Answer::Refused(Refusal::BadCredentials)
    }

    /// The token of a step, if it brings one.
    fn token(&self, call: &Call) -> Option<Result<Box<str>, Refusal>> {
        let request = &call.request;
        if let Some(enhanced) = &request.enhanced {
            let data = self.speaks(&enhanced.method).then_some(enhanced.data.as_deref())?;
            let token = data.and_then(|bytes| std::str::from_utf8(bytes).ok());
            return Some(token.map(Box::from).ok_or(Refusal::BadCredentials));
        }
        let text = match self.config.token {
            TokenField::Password => std::str::from_utf8(request.password.as_deref()?).ok()?,
            TokenField::Username => request.username.as_deref()?,
        };
        keys::looks_like_token(text).then(|| Ok(text.into()))
    }
}

impl Provider for Jwt {
    fn attempt(self: Arc<Self>, call: &Arc<Call>) -> Attempt {
        match self.token(call) {
            None => Attempt::Now(Answer::NotMine),
            Some(Ok(token)) if token.len() <= TOKEN_BYTES_MAX => self.verify(call, token),
            Some(Ok(_)) => Attempt::Now(Answer::Refused(Refusal::BadCredentials)),
            Some(Err(refusal)) => Attempt::Now(Answer::Refused(refusal)),
        }
    }

    fn speaks(&self, method: &str) -> bool {
        method == METHOD
    }
}

#[cfg(test)]
mod rsa_vectors;
#[cfg(test)]
mod tests;
