//! The `[auth]` part of the configuration: what each provider needs to know.
//!
//! Invariant: a value that passed [`AuthConfig::check`] is within the bounds its key documents; providers rely on it.
//! Which providers a listener asks, and in which order, is the listener's `auth` list of [`ProviderKind`] names.

use super::error::LoadError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The name of a provider in a listener's `auth` list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderKind {
    /// Clients that send no credentials.
    Anonymous,
    /// User name and password against a file of Argon2id hashes.
    PasswordFile,
    /// MQTT 5 enhanced authentication with SCRAM-SHA-256.
    Scram,
    /// JSON Web Tokens, in the password or by enhanced authentication.
    Jwt,
    /// An HTTP service decides.
    Http,
    /// The TLS client certificate names the user.
    Certificate,
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "anonymous",
            Self::PasswordFile => "password_file",
            Self::Scram => "scram",
            Self::Jwt => "jwt",
            Self::Http => "http",
            Self::Certificate => "certificate",
        })
    }
}

/// `[auth]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// Threads that verify passwords; each needs the memory of one Argon2 run (19 MiB by default). Default 2, 1 to 64.
    /// Read at start only.
    pub hash_threads: u16,
    /// Passwords waiting for or under verification at most; beyond it clients hear 0x88 (3.x: 3). Default 1,024, 1 to
    /// 65,536. Read at start only.
    pub hash_queue_max: u32,
    /// `[auth.anonymous]`; always present, since a listener must name it to use it.
    pub anonymous: AnonymousConfig,
    /// `[auth.password_file]`.
    pub password_file: Option<PasswordFileConfig>,
    /// `[auth.scram]`.
    pub scram: Option<ScramConfig>,
    /// `[auth.jwt]`.
    pub jwt: Option<JwtConfig>,
    /// `[auth.http]`.
    pub http: Option<HttpConfig>,
    /// `[auth.certificate]`.
    pub certificate: Option<CertificateConfig>,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            hash_threads: 2,
            hash_queue_max: 1_024,
            anonymous: AnonymousConfig::default(),
            password_file: None,
            scram: None,
            jwt: None,
            http: None,
            certificate: None,
        }
    }
}

/// `[auth.anonymous]`: admits clients that send neither user name nor password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnonymousConfig {
    /// Admit only peers on a loopback address or a Unix socket. Default true.
    pub loopback_only: bool,
    /// Admit clients that send a user name or password nobody before in the chain has claimed; both are ignored.
    /// Default false: credentials that nobody can check are refused.
    pub ignore_credentials: bool,
    /// Tenant of anonymous clients. Default: the tenant `default`.
    pub tenant: Option<String>,
}

impl Default for AnonymousConfig {
    fn default() -> Self {
        Self { loopback_only: true, ignore_credentials: false, tenant: None }
    }
}

/// `[auth.password_file]`: lines `user:PHC` or `tenant/user:PHC`, as `bifroctl passwd` writes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PasswordFileConfig {
    /// The file; at most 16 MiB.
    pub path: PathBuf,
    /// Seconds a verified password is remembered (as a keyed hash, in memory, until the next reload), so that a storm of
    /// reconnecting clients does not cost an Argon2 run each. Default 300, 0 = off, at most 86,400.
    #[serde(default = "defaults::password_cache_ttl_s")]
    pub cache_ttl_s: u32,
    /// Verified passwords remembered at most. Default 100,000, 1 to 10,000,000.
    #[serde(default = "defaults::password_cache_entries_max")]
    pub cache_entries_max: u32,
}

/// `[auth.scram]`: lines `user:iterations:salt:StoredKey:ServerKey`, as `bifroctl passwd --scram` writes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScramConfig {
    /// The file; at most 16 MiB.
    pub path: PathBuf,
}

/// Where a client puts its token in a CONNECT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenField {
    /// In the password.
    #[default]
    Password,
    /// In the user name.
    Username,
}

/// `[auth.jwt]`. Exactly one of `secret_file`, `public_key_file`, `jwks_file` and `jwks_url` must be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtConfig {
    /// File with the secret of HS256, HS384, HS512, as it stands but for one trailing line break; at least 32 bytes.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// File with one PEM public key: RSA, P-256, P-384 or Ed25519.
    #[serde(default)]
    pub public_key_file: Option<PathBuf>,
    /// File with a JSON Web Key Set.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// URL of a JSON Web Key Set, `http://` or `https://`; symmetric keys in it are ignored.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// PEM file of the certificate authorities trusted for `jwks_url`. Default: the web's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Seconds between scheduled fetches of `jwks_url`. Default 300, 10 to 86,400.
    #[serde(default = "defaults::jwks_refresh_s")]
    pub jwks_refresh_s: u32,
    /// Seconds between fetches that tokens with an unknown key id cause. Default 30, 1 to 86,400.
    #[serde(default = "defaults::jwks_refetch_min_s")]
    pub jwks_refetch_min_s: u32,
    /// Milliseconds a fetch of `jwks_url` may take. Default 5,000, 100 to 60,000.
    #[serde(default = "defaults::http_timeout_ms")]
    pub jwks_timeout_ms: u32,
    /// Algorithms accepted, of HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA.
    /// Default: those the key's type can be meant for; a token never chooses the type.
    #[serde(default)]
    pub algorithms: Vec<String>,
    /// Where the token stands in CONNECT. Default `password`.
    #[serde(default)]
    pub token: TokenField,
    /// Claim that names the user. Default `sub`.
    #[serde(default = "defaults::user_claim")]
    pub user_claim: String,
    /// Claim that names the tenant; then required. Default: none, the tenant is `default`.
    #[serde(default)]
    pub tenant_claim: Option<String>,
    /// Claim that must equal the client identifier; then required. Default: none.
    #[serde(default)]
    pub client_id_claim: Option<String>,
    /// Claim with `{"pub": [...], "sub": [...], "all": [...]}`; where present, whatever it does not list is denied.
    /// Default `acl`.
    #[serde(default = "defaults::acl_claim")]
    pub acl_claim: String,
    /// Refuse tokens without `exp`. Default true. A session ends when its token expires.
    #[serde(default = "defaults::yes")]
    pub require_exp: bool,
    /// Accepted audiences; if not empty, `aud` must name one. If empty, a token with `aud` is accepted as well.
    #[serde(default)]
    pub audience: Vec<String>,
    /// Accepted issuers; if not empty, `iss` must be one.
    #[serde(default)]
    pub issuer: Vec<String>,
    /// Seconds by which clocks may differ. Default 5, at most 3,600.
    #[serde(default = "defaults::leeway_s")]
    pub leeway_s: u32,
}

/// Text that is never shown: formatted or serialized it is a few asterisks.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"***\"")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// `[auth.http]`: an HTTP service decides, see `auth::webhook` for the format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// URL to POST to, `http://` or `https://`; without credentials, those belong into a header.
    pub url: String,
    /// PEM file of the certificate authorities trusted for it. Default: the web's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Headers to send along, for example `Authorization`.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// Milliseconds until an answer must be complete, waiting included. Default 5,000, 100 to 60,000.
    #[serde(default = "defaults::http_timeout_ms")]
    pub timeout_ms: u32,
    /// Requests under way at most. Default 64, 1 to 4,096.
    #[serde(default = "defaults::http_concurrency_max")]
    pub concurrency_max: u32,
    /// Requests waiting for their turn at most; beyond it clients hear 0x88 (3.x: 3). Default 4,096, at most 65,536.
    #[serde(default = "defaults::http_queue_max")]
    pub queue_max: u32,
    /// Seconds an `allow` is remembered for the same credentials. Default 10, 0 = off, at most 86,400.
    #[serde(default = "defaults::http_cache_ttl_s")]
    pub cache_ttl_s: u32,
    /// Seconds a `deny` or `ignore` is remembered for the same credentials. Default 2, 0 = off, at most 86,400.
    #[serde(default = "defaults::http_negative_cache_ttl_s")]
    pub negative_cache_ttl_s: u32,
    /// Answers remembered at most. Default 100,000, 1 to 10,000,000.
    #[serde(default = "defaults::password_cache_entries_max")]
    pub cache_entries_max: u32,
}

/// The part of a certificate that names the user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateField {
    /// Common Name of the subject.
    #[default]
    CommonName,
    /// First DNS name among the subject alternative names.
    Dns,
    /// First e-mail address among the subject alternative names.
    Email,
    /// First URI among the subject alternative names.
    Uri,
}

/// The part of a certificate that names the tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantField {
    /// Organization of the subject.
    Organization,
    /// Organizational Unit of the subject.
    OrganizationalUnit,
}

/// `[auth.certificate]`: the certificate that the listener's CA has verified names the user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CertificateConfig {
    /// Part that names the user. Default `common_name`.
    pub user: CertificateField,
    /// Part that names the tenant; certificates without it are refused. Default: none. Excludes `tenant`.
    pub tenant_from: Option<TenantField>,
    /// Tenant of all certificates. Default: the tenant `default`.
    pub tenant: Option<String>,
    /// Refuse clients without a certificate, instead of asking the next provider. Default false.
    pub required: bool,
}

mod defaults {
    pub(super) const fn password_cache_ttl_s() -> u32 {
        300
    }
    pub(super) const fn password_cache_entries_max() -> u32 {
        100_000
    }
    pub(super) const fn jwks_refresh_s() -> u32 {
        300
    }
    pub(super) const fn jwks_refetch_min_s() -> u32 {
        30
    }
    pub(super) const fn http_timeout_ms() -> u32 {
        5_000
    }
    pub(super) const fn http_concurrency_max() -> u32 {
        64
    }
    pub(super) const fn http_queue_max() -> u32 {
        4_096
    }
    pub(super) const fn http_cache_ttl_s() -> u32 {
        10
    }
    pub(super) const fn http_negative_cache_ttl_s() -> u32 {
        2
    }
    pub(super) const fn leeway_s() -> u32 {
        5
    }
    pub(super) const fn yes() -> bool {
        true
    }
    pub(super) fn user_claim() -> String {
        "sub".to_owned()
    }
    pub(super) fn acl_claim() -> String {
        "acl".to_owned()
    }
}

impl AuthConfig {
    /// Checks every bound and exclusion; touches no file.
    ///
    /// # Errors
    /// [`LoadError::Setting`], naming the key.
    pub fn check(&self) -> Result<(), LoadError> {
        const DAY_S: u32 = 86_400;
        within("auth.hash_threads", self.hash_threads.into(), 1, 64)?;
        within("auth.hash_queue_max", self.hash_queue_max, 1, 65_536)?;
        tenant("auth.anonymous.tenant", self.anonymous.tenant.as_deref())?;
        if let Some(file) = &self.password_file {
            within("auth.password_file.cache_ttl_s", file.cache_ttl_s, 0, DAY_S)?;
            within("auth.password_file.cache_entries_max", file.cache_entries_max, 1, 10_000_000)?;
        }
        if let Some(jwt) = &self.jwt {
            jwt.check()?;
        }
        if let Some(http) = &self.http {
            within("auth.http.timeout_ms", http.timeout_ms, 100, 60_000)?;
            within("auth.http.concurrency_max", http.concurrency_max, 1, 4_096)?;
            within("auth.http.queue_max", http.queue_max, 0, 65_536)?;
            within("auth.http.cache_ttl_s", http.cache_ttl_s, 0, DAY_S)?;
            within("auth.http.negative_cache_ttl_s", http.negative_cache_ttl_s, 0, DAY_S)?;
            within("auth.http.cache_entries_max", http.cache_entries_max, 1, 10_000_000)?;
        }
        if let Some(certificate) = &self.certificate {
            tenant("auth.certificate.tenant", certificate.tenant.as_deref())?;
            if certificate.tenant.is_some() && certificate.tenant_from.is_some() {
                return Err(LoadError::setting(
                    "auth.certificate.tenant",
                    "excludes `tenant_from`; remove one of them",
                ));
            }
        }
        Ok(())
    }
}

impl AuthConfig {
    /// Makes relative paths relative to `base`, the directory of the configuration file.
    pub fn resolve_paths(&mut self, base: &Path) {
        let jwt = self.jwt.as_mut().map(|jwt| {
            [&mut jwt.secret_file, &mut jwt.public_key_file, &mut jwt.jwks_file, &mut jwt.ca_file].into_iter().flatten()
        });
        let http = self.http.as_mut().and_then(|http| http.ca_file.as_mut());
        let files =
            [self.password_file.as_mut().map(|file| &mut file.path), self.scram.as_mut().map(|file| &mut file.path)];
        for path in files.into_iter().flatten().chain(jwt.into_iter().flatten()).chain(http) {
            *path = base.join(&*path);
        }
    }
}

impl JwtConfig {
    fn check(&self) -> Result<(), LoadError> {
        let sources = [
            self.secret_file.is_some(),
            self.public_key_file.is_some(),
            self.jwks_file.is_some(),
            self.jwks_url.is_some(),
        ];
        if sources.iter().filter(|set| **set).count() != 1 {
            return Err(LoadError::setting(
                "auth.jwt",
                "set exactly one of `secret_file`, `public_key_file`, `jwks_file` and `jwks_url`",
            ));
        }
        within("auth.jwt.jwks_refresh_s", self.jwks_refresh_s, 10, 86_400)?;
        within("auth.jwt.jwks_refetch_min_s", self.jwks_refetch_min_s, 1, 86_400)?;
        within("auth.jwt.jwks_timeout_ms", self.jwks_timeout_ms, 100, 60_000)?;
        within("auth.jwt.leeway_s", self.leeway_s, 0, 3_600)
    }
}

fn within(key: &'static str, value: u32, min: u32, max: u32) -> Result<(), LoadError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(LoadError::setting(key, format!("is {value}, but must be {min} to {max}")))
}

fn tenant(key: &'static str, name: Option<&str>) -> Result<(), LoadError> {
    match name {
        Some(name) => super::name::check_tenant(name).map_err(|problem| LoadError::setting(key, problem)),
        None => Ok(()),
    }
}
