//! The credential file: lines `user:iterations:salt:StoredKey:ServerKey` (or `tenant/user:…`), the last three in Base64.

use super::exchange::{self, Key};
use crate::auth::error::LoadError;
use crate::auth::name::parse_login;
use crate::auth::source;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bifro_core::tenant::TenantName;
use ring::pbkdf2;
use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::Path;

/// Largest file: some 100,000 users.
pub(crate) const FILE_BYTES_MAX: usize = 16 << 20;

/// Iterations of new credentials. The client pays for them, at each connection, so they are fewer than a server would choose.
pub(crate) const ITERATIONS_DEFAULT: u32 = 15_000;

/// Fewest iterations accepted: RFC 7677 section 4.
pub(crate) const ITERATIONS_MIN: u32 = 4_096;

/// Most iterations accepted: a client would need seconds.
pub(crate) const ITERATIONS_MAX: u32 = 10_000_000;

/// Bytes of the salt of new credentials and decoys.
const SALT_BYTES: usize = 16;

/// What the broker knows about a user instead of the password.
#[derive(Clone)]
pub(crate) struct Credential {
    pub(super) salt: Box<[u8]>,
    pub(super) iterations: u32,
    pub(super) stored_key: Key,
    pub(super) server_key: Key,
    /// Whom it admits; none for a decoy.
    pub(super) identity: Option<Identity>,
}

/// Whom a credential admits.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) tenant: Option<TenantName>,
    pub(super) user: Box<str>,
}

/// The file in memory.
#[derive(Clone)]
pub(super) struct ScramFile {
    credentials: HashMap<Box<str>, Credential>,
    /// Derived from the file, so that decoys are the same on every node that has it, and after a restart.
    decoy_key: Key,
    decoy_iterations: u32,
}

impl fmt::Debug for ScramFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramFile").field("users", &self.credentials.len()).finish_non_exhaustive()
    }
}

impl ScramFile {
    /// Loads the file as a whole.
    ///
    /// # Errors
    /// [`LoadError`], with file and line.
    pub(super) fn load(path: &Path) -> Result<Self, LoadError> {
        let mut credentials = HashMap::new();
        let (mut secret, mut iterations) = (Vec::new(), None);
        for (number, line) in source::read_lines(path, FILE_BYTES_MAX)? {
            let fail = |problem: String| LoadError::line(path, number, problem);
            let (login, rest) = line.split_once(':').unwrap_or((&line, ""));
            let credential = Credential::parse(login, rest).map_err(fail)?;
            iterations.get_or_insert(credential.iterations);
            secret.extend_from_slice(&credential.stored_key);
            if credentials.insert(login.into(), credential).is_some() {
                return Err(fail(format!("{login:?} appears a second time; keep one of the lines")));
            }
        }
        let decoy_iterations = iterations.unwrap_or(ITERATIONS_DEFAULT);
        Ok(Self { credentials, decoy_key: exchange::hash(&secret), decoy_iterations })
    }

    /// The credential of `login`; of an unknown one, something that looks like it and admits nobody.
    pub(super) fn credential_or_decoy(&self, login: &str) -> Credential {
        if let Some(credential) = self.credentials.get(login) {
            return credential.clone();
        }
        let material = exchange::sign(&self.decoy_key, login.as_bytes());
        Credential {
            salt: material[..SALT_BYTES].into(),
            iterations: self.decoy_iterations,
            stored_key: exchange::sign(&self.decoy_key, &material),
            server_key: material,
            identity: None,
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No keys: what is formatted may end in a log.
        f.debug_struct("Credential").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Credential {
    /// Derives the credential of a password.
    pub(crate) fn derive(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Self {
        let mut salted = Key::default();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password, &mut salted);
        Self {
            salt: salt.into(),
            iterations: iterations.get(),
            stored_key: exchange::hash(&exchange::sign(&salted, b"Client Key")),
            server_key: exchange::sign(&salted, b"Server Key"),
            identity: None,
        }
    }

    /// Whether `password` is the one it was derived from.
    pub(crate) fn admits(&self, password: &[u8]) -> bool {
        NonZeroU32::new(self.iterations)
            .is_some_and(|iterations| Self::derive(password, &self.salt, iterations).stored_key == self.stored_key)
    }

    /// What stands behind the login in the file.
    pub(crate) fn to_line(&self) -> String {
        let [salt, stored, server] = [&*self.salt, &self.stored_key, &self.server_key].map(exchange::encode);
        format!("{}:{salt}:{stored}:{server}", self.iterations)
    }

    /// Reads a line, taken apart at its first colon.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence.
    pub(crate) fn parse(login: &str, rest: &str) -> Result<Self, String> {
        let name = parse_login(login)?;
        let advice = "write it with `bifroctl passwd add --scram`";
        let fields: Vec<&str> = rest.trim_end().split(':').collect();
        let [iterations, salt, stored_key, server_key] = fields[..] else {
            return Err(format!("expected `user:iterations:salt:StoredKey:ServerKey`; {advice}"));
        };
        let iterations: u32 =
            iterations.parse().map_err(|_| format!("{iterations:?} is not a number of iterations; {advice}"))?;
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
            return Err(format!(
                "{iterations} iterations, but {ITERATIONS_MIN} to {ITERATIONS_MAX} are possible; {advice}"
            ));
        }
        let key = |name: &str, text: &str| -> Result<Key, String> {
            let bytes = STANDARD.decode(text).unwrap_or_default();
            bytes.try_into().map_err(|_| format!("{name} is not 32 bytes in Base64; {advice}"))
        };
        let salt_bytes = STANDARD.decode(salt).unwrap_or_default();
        if salt_bytes.len() < 8 || salt_bytes.len() > 64 {
            return Err(format!("the salt is not 8 to 64 bytes in Base64; {advice}"));
        }
        Ok(Self {
            salt: salt_bytes.into(),
            iterations,
            stored_key: key("StoredKey", stored_key)?,
            server_key: key("ServerKey", server_key)?,
            identity: Some(Identity { tenant: name.tenant.map(TenantName::from), user: name.user.into() }),
        })
    }

    /// A salt for a new credential.
    ///
    /// # Errors
    /// [`LoadError::Random`].
    pub(crate) fn fresh_salt() -> Result<[u8; SALT_BYTES], LoadError> {
        let mut salt = [0; SALT_BYTES];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut salt).map_err(|_| LoadError::Random)?;
        Ok(salt)
    }
}
