//! Keys that verify tokens, each bound to the algorithms it can be meant for.

use crate::auth::error::LoadError;
use crate::auth::source;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// Largest key file or key set.
pub(super) const KEYS_BYTES_MAX: usize = 256 << 10;

/// Most keys of a set; a token without key id is tried with all of them.
const KEYS_MAX: usize = 64;

/// Shortest secret, in bytes: RFC 7518 section 3.2 for HS256.
const SECRET_BYTES_MIN: usize = 32;

/// The claims of a verified token.
pub(super) type Claims = Map<String, Value>;

/// Why a token's signature does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unverified {
    /// Not a token, or one that demands an extension.
    Malformed,
    /// Signed with an algorithm that is not accepted, or not possible with the key.
    Algorithm,
    /// Signed with a key that is not in the set.
    UnknownKey,
    /// The signature is wrong.
    Signature,
}

impl Unverified {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed token",
            Self::Algorithm => "algorithm not accepted",
            Self::UnknownKey => "unknown key",
            Self::Signature => "wrong signature",
        }
    }
}

/// What kind of key it is, hence what it can verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyKind {
    Secret,
    Rsa,
    EllipticCurve,
    Edwards,
}

impl KeyKind {
    const fn of(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => Self::Secret,
            Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 => Self::Rsa,
            Algorithm::PS256 | Algorithm::PS384 | Algorithm::PS512 => Self::Rsa,
            Algorithm::ES256 | Algorithm::ES384 => Self::EllipticCurve,
            Algorithm::EdDSA => Self::Edwards,
        }
    }
}

type PemParser = fn(&[u8]) -> jsonwebtoken::errors::Result<DecodingKey>;

/// One key.
struct VerifyingKey {
    id: Option<String>,
    kind: KeyKind,
    /// The only algorithm its issuer wants it used with.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

impl VerifyingKey {
    fn supports(&self, algorithm: Algorithm) -> bool {
        self.kind == KeyKind::of(algorithm) && self.algorithm.is_none_or(|only| only == algorithm)
    }
}

/// The keys of one issuer.
pub(super) struct KeySet {
    keys: Vec<VerifyingKey>,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys.iter().map(|key| (&key.id, key.kind)).collect();
        f.debug_struct("KeySet").field("keys", &ids).finish()
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct RawKeySet {
    keys: Vec<Value>,
}

impl KeySet {
    /// One secret.
    pub(super) fn from_secret_file(path: &Path) -> Result<Self, LoadError> {
        let bytes = source::read(path, KEYS_BYTES_MAX)?;
        let secret = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
        if secret.len() < SECRET_BYTES_MIN {
            let problem = format!("a secret of {} bytes is too short; use {SECRET_BYTES_MIN} or more", secret.len());
            return Err(LoadError::content(path, problem));
        }
        Ok(Self::of(KeyKind::Secret, DecodingKey::from_secret(secret)))
    }

    /// One public key in PEM.
    pub(super) fn from_pem_file(path: &Path) -> Result<Self, LoadError> {
        let pem = source::read(path, KEYS_BYTES_MAX)?;
        if pem.windows(11).any(|window| window == b"PRIVATE KEY") {
            return Err(LoadError::content(path, "holds a private key; give the broker the public key only"));
        }
        let parsers: [(KeyKind, PemParser); 3] = [
            (KeyKind::Rsa, DecodingKey::from_rsa_pem),
            (KeyKind::EllipticCurve, DecodingKey::from_ec_pem),
            (KeyKind::Edwards, DecodingKey::from_ed_pem),
        ];
        let found = parsers.into_iter().find_map(|(kind, parse)| parse(&pem).ok().map(|key| Self::of(kind, key)));
        found.ok_or_else(|| LoadError::content(path, "no PEM public key for RSA, P-256, P-384 or Ed25519"))
    }

    /// A key set in a file, which may hold secrets.
    pub(super) fn from_jwks_file(path: &Path) -> Result<Self, LoadError> {
        let bytes = source::read(path, KEYS_BYTES_MAX)?;
        Self::from_jwks(&bytes, true).map_err(|problem| LoadError::content(path, problem))
    }

    /// A key set. Keys that cannot verify tokens are left out; secrets as well, unless the set comes from a private place.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence; also if no key remains.
    pub(super) fn from_jwks(bytes: &[u8], is_private: bool) -> Result<Self, String> {
        let raw: RawKeySet =
            serde_json::from_slice(bytes).map_err(|error| format!("not a JSON Web Key Set ({error})"))?;
        if raw.keys.len() > KEYS_MAX {
            return Err(format!("{} keys, but {KEYS_MAX} are possible at most", raw.keys.len()));
        }
        let keys: Vec<_> =
            raw.keys.into_iter().filter_map(from_jwk).filter(|key| is_private || key.kind != KeyKind::Secret).collect();
        if keys.is_empty() {
            return Err("no key in it that can verify tokens".to_owned());
        }
        Ok(Self { keys })
    }

    fn of(kind: KeyKind, key: DecodingKey) -> Self {
        Self { keys: vec![VerifyingKey { id: None, kind, algorithm: None, key }] }
    }

    /// Whether some key can verify `algorithm`.
    pub(super) fn supports(&self, algorithm: Algorithm) -> bool {
        self.keys.iter().any(|key| key.supports(algorithm))
    }

    /// The claims of a token whose signature is right. Times, issuer and audience are not looked at.
    ///
    /// # Errors
    /// [`Unverified`].
    pub(super) fn verify(&self, token: &str, accepted: &[Algorithm]) -> Result<Claims, Unverified> {
        let header = header(token).ok_or(Unverified::Malformed)?;
        if header.crit.is_some() {
            return Err(Unverified::Malformed); // RFC 7515 section 4.1.11: none is understood.
        }
        let algorithm = Algorithm::from_str(&header.alg).map_err(|_| Unverified::Algorithm)?;
        if !accepted.is_empty() && !accepted.contains(&algorithm) {
            return Err(Unverified::Algorithm);
        }
        let mut failure = Unverified::UnknownKey;
        for key in &self.keys {
            let is_named = match (&header.kid, &key.id) {
                (Some(wanted), Some(id)) => wanted == id,
                _ => true,
            };
            if !is_named {
                continue;
            }
            if !key.supports(algorithm) {
                failure = Unverified::Algorithm;
                continue;
            }
            match jsonwebtoken::decode::<Claims>(token, &key.key, &signature_only(algorithm)) {
                Ok(token) => return Ok(token.claims),
                Err(_) => failure = Unverified::Signature,
            }
        }
        Err(failure)
    }
}

/// Checks signatures only: times and names are judged from the claims, with the broker's clock and stricter types.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

fn from_jwk(value: Value) -> Option<VerifyingKey> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
        return None;
    }
    let algorithm = match jwk.common.key_algorithm {
        Some(algorithm) => Some(Algorithm::from_str(&algorithm.to_string()).ok()?),
        None => None,
    };
    let kind = match &jwk.algorithm {
        AlgorithmParameters::OctetKey(_) => KeyKind::Secret,
        AlgorithmParameters::RSA(_) => KeyKind::Rsa,
        AlgorithmParameters::EllipticCurve(_) => KeyKind::EllipticCurve,
        AlgorithmParameters::OctetKeyPair(_) => KeyKind::Edwards,
    };
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    Some(VerifyingKey { id: jwk.common.key_id, kind, algorithm, key })
}

fn header(token: &str) -> Option<Header> {
    let (header, _) = token.split_once('.')?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()
}

/// Whether `text` is three Base64url parts of which the first is a token's header: what else it may be, it is no password.
pub(super) fn looks_like_token(text: &str) -> bool {
    text.split('.').count() == 3 && header(text).is_some()
}

/// Reads the names of `auth.jwt.algorithms`.
///
/// # Errors
/// [`LoadError::Setting`]; `none` is no algorithm.
pub(super) fn parse_algorithms(names: &[String]) -> Result<Vec<Algorithm>, LoadError> {
    let parse = |name: &String| {
        Algorithm::from_str(name)
            .map_err(|_| LoadError::setting("auth.jwt.algorithms", format!("{name:?} is not a known algorithm")))
    };
    names.iter().map(parse).collect()
}
