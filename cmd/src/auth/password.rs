//! User name and password against a file of Argon2id hashes.
//!
//! A verification takes tens of milliseconds by design, so it runs on the hash pool, and a success is remembered for a while.
//! Unknown users cost as much as known ones, so that time does not tell who exists; only then is the next provider asked.
//! Whoever is in the file is this provider's alone: a wrong password ends the chain.

use super::cache::AnswerCache;
use super::chain::{Answer, Attempt, Call, Provider};
use super::config::PasswordFileConfig;
use super::error::LoadError;
use super::name::parse_login;
use super::pool::HashPool;
use super::source;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Argon2, Params};
use bifro_core::plugin::{Grant, Refusal};
use bifro_core::tenant::TenantName;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Largest file: some 100,000 users.
pub(crate) const FILE_BYTES_MAX: usize = 16 << 20;

/// Most memory one hash may ask for, in KiB: it is allocated once per hash thread.
const MEMORY_KIB_MAX: u32 = 256 << 10;

/// Most passes over the memory a hash may ask for.
const PASSES_MAX: u32 = 32;

/// Most lanes a hash may ask for.
const LANES_MAX: u32 = 16;

/// One user of the file.
#[derive(Debug)]
struct Entry {
    tenant: Option<TenantName>,
    user: Box<str>,
    hash: Arc<PasswordHash>,
}

/// The provider.
#[derive(Debug)]
pub(super) struct PasswordFile {
    entries: HashMap<Box<str>, Entry>,
    /// What the passwords of unknown users are compared with; as expensive as the first user's.
    decoy: Arc<PasswordHash>,
    verified: AnswerCache<()>,
    ttl: Duration,
    pool: Arc<HashPool>,
}

/// The hash of a password, as a PHC string with the recommended cost.
///
/// # Errors
/// [`LoadError::Random`] if there is no randomness for a salt.
pub(crate) fn hash_password(password: &[u8]) -> Result<String, LoadError> {
    hash_with(&Argon2::default(), password).map(|hash| hash.to_string())
}

fn hash_with(argon: &Argon2<'_>, password: &[u8]) -> Result<PasswordHash, LoadError> {
    argon.hash_password(password).map_err(|_| LoadError::Random)
}

/// Whether `password` is the one of `hash`. Takes as long as the hash's cost says.
pub(crate) fn verify_password(password: &[u8], hash: &PasswordHash) -> bool {
    Argon2::default().verify_password(password, hash).is_ok()
}

/// Reads the hash part of a line.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub(crate) fn parse_hash(text: &str) -> Result<PasswordHash, String> {
    let advice = "write it with `bifroctl passwd add`";
    let hash = PasswordHash::new(text).map_err(|error| format!("not a password hash ({error}); {advice}"))?;
    if hash.algorithm.as_str() != "argon2id" || hash.salt.is_none() || hash.hash.is_none() {
        return Err(format!("not an argon2id hash with salt and output; {advice}"));
    }
    let params = Params::try_from(&hash).map_err(|error| format!("unusable argon2 parameters ({error}); {advice}"))?;
    if params.m_cost() > MEMORY_KIB_MAX || params.t_cost() > PASSES_MAX || params.p_cost() > LANES_MAX {
        return Err(format!(
            "argon2 parameters above m={MEMORY_KIB_MAX}, t={PASSES_MAX}, p={LANES_MAX} would stall the broker; {advice}"
        ));
    }
    Ok(hash)
}

impl PasswordFile {
    /// Loads the file as a whole.
    ///
    /// # Errors
    /// [`LoadError`], with file and line.
    pub(super) fn load(config: &PasswordFileConfig, pool: Arc<HashPool>) -> Result<Self, LoadError> {
        let (entries, first) = read_entries(&config.path)?;
        let decoy = match first.and_then(|hash| Params::try_from(&*hash).ok()) {
            Some(params) => hash_with(&Argon2::from(params), b"decoy")?,
            None => hash_with(&Argon2::default(), b"decoy")?,
        };
        Ok(Self {
            entries,
            decoy: Arc::new(decoy),
            verified: AnswerCache::new(config.cache_entries_max)?,
            ttl: Duration::from_secs(config.cache_ttl_s.into()),
            pool,
        })
    }

    fn grant(&self, username: &str) -> Answer {
        match self.entries.get(username) {
            Some(entry) => Answer::Granted(Box::new(Grant {
                tenant: entry.tenant.clone(),
                user: entry.user.clone(),
                ..Grant::default()
            })),
            None => Answer::NotMine,
        }
    }
}

impl Provider for PasswordFile {
    fn attempt(self: Arc<Self>, call: &Arc<Call>) -> Attempt {
        let request = &call.request;
        let (Some(username), Some(password), None) = (&request.username, &request.password, &request.enhanced) else {
            return Attempt::Now(Answer::NotMine);
        };
        let key = self.verified.key(&[Some(username.as_bytes()), Some(password)]);
        if self.verified.answer(&key, call.now()).is_some() {
            return Attempt::Now(self.grant(username));
        }
        let Some(slot) = self.pool.reserve() else {
            return Attempt::Now(Answer::Refused(Refusal::Unavailable));
        };
        let call = Arc::clone(call);
        let work = move || {
            let (Some(username), Some(password)) = (&call.request.username, &call.request.password) else {
                return Answer::NotMine;
            };
            let Some(entry) = self.entries.get(&**username) else {
                verify_password(password, &self.decoy);
                return Answer::NotMine;
            };
            if !verify_password(password, &entry.hash) {
                return Answer::Refused(Refusal::BadCredentials);
            }
            self.verified.remember(key, (), self.ttl, call.now());
            self.grant(username)
        };
        Attempt::Compute(slot, Box::new(work))
    }
}

type Entries = (HashMap<Box<str>, Entry>, Option<Arc<PasswordHash>>);

fn read_entries(path: &Path) -> Result<Entries, LoadError> {
    let mut entries = HashMap::new();
    let mut first = None;
    for (number, line) in source::read_lines(path, FILE_BYTES_MAX)? {
        let fail = |problem: String| LoadError::line(path, number, problem);
        let (login, hash) = line.split_once(':').ok_or_else(|| {
            fail("expected `user:hash` or `tenant/user:hash`; write it with `bifroctl passwd add`".to_owned())
        })?;
        let name = parse_login(login).map_err(fail)?;
        let hash = Arc::new(parse_hash(hash.trim_end()).map_err(fail)?);
        first.get_or_insert_with(|| Arc::clone(&hash));
        let entry = Entry { tenant: name.tenant.map(TenantName::from), user: name.user.into(), hash };
        if entries.insert(login.into(), entry).is_some() {
            return Err(fail(format!("{login:?} appears a second time; keep one of the lines")));
        }
    }
    Ok((entries, first))
}

#[cfg(test)]
#[path = "password_tests.rs"]
mod tests;
