//! Loading the configuration: read, merge, check, and compare with the one in force.
//!
//! Order of the checks: TOML syntax; range of every number ([`bounds`]); names and types of keys (serde); relations between
//! keys ([`rules`]). Every mistake names file, line and key. Nothing is applied unless everything is in order, so a bad file
//! at reload changes nothing.

mod bounds;
mod document;
mod error;
pub mod memory;
mod reload;
mod roles;
mod rules;
mod tenants;
#[cfg(test)]
mod tests;

pub use error::{ConfigError, ConfigErrors};
pub use reload::{Reload, diff};

use crate::acl::AclConfig;
use crate::auth::{AuthConfig, ListenerChains, LoadError, ProviderKind};
use bifro_core::config::{AuthMethod, NodeConfig, StoreDurability};
use document::Document;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The commented reference: every key with its unit, default and bound. Also the configuration of a node without a file.
pub const REFERENCE: &str = include_str!("../../node.toml");

/// Where a configuration came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// No file was named.
    Defaults,
    /// The file.
    File(PathBuf),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Defaults => f.write_str("built-in defaults"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A configuration that has passed every check.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The values; relative paths are resolved against the file's directory, here as in `auth` and `acl`.
    pub config: NodeConfig,
    /// `[auth]`: the providers that listeners name.
    pub auth: AuthConfig,
    /// `[acl]`: access rules.
    pub acl: AclConfig,
    /// Where they came from; [`Loaded::load_again`] reads from there.
    pub source: Source,
    /// What `--cores` said; it wins over the file at every load.
    pub cores_flag: Option<u16>,
    /// Whether `--volatile` was given; it wins likewise.
    pub volatile_flag: bool,
}

/// Every table a file may have.
const TABLES: [&str; 12] = [
    "node",
    "store",
    "cluster",
    "roles",
    "listener",
    "auth",
    "acl",
    "admin",
    "limits",
    "log",
    "tenant_defaults",
    "tenant",
];

impl Loaded {
    /// Reads the configuration from where it comes.
    ///
    /// # Errors
    /// The file cannot be read, or anything in it is wrong.
    pub fn load(source: Source) -> Result<Self, ConfigErrors> {
        let Source::File(path) = &source else {
            return Self::parse(REFERENCE, source);
        };
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            file: path.display().to_string(),
            line: None,
            key: String::new(),
            problem: format!("cannot be read: {error}"),
        })?;
        Self::parse(&text, source)
    }

    /// Reads the configuration once more from where this one came, with the same flags.
    ///
    /// # Errors
    /// The file cannot be read any more, or anything in it is wrong.
    pub fn load_again(&self) -> Result<Self, ConfigErrors> {
        let mut loaded = Self::load(self.source.clone())?;
        if self.volatile_flag {
            loaded = loaded.volatile();
        }
        match self.cores_flag {
            Some(cores) => loaded.with_cores(cores),
            None => Ok(loaded),
        }
    }

    /// Checks `text` as the configuration that `source` holds.
    ///
    /// # Errors
    /// Anything in it is wrong.
    pub fn parse(text: &str, source: Source) -> Result<Self, ConfigErrors> {
        let mut document = Document::parse(&source.to_string(), text)?;
        let mut wrong = document.unknown_tables(&TABLES);
        wrong.extend(bounds::check(&document));
        if !wrong.is_empty() {
            return Err(ConfigErrors(wrong));
        }
        let (tenant_defaults, tenant) = tenants::take(&mut document)?;
        let auth: AuthConfig = document.take("auth")?;
        let acl = document.take("acl")?;
        let mut config = NodeConfig { tenant_defaults, tenant, ..document.read_rest()? };
        admit_local_clients(&mut config);
        let roles = roles::apply(&document, &mut config);
        let mut broken = rules::check(&document, &config, &auth);
        broken.extend(roles);
        broken.extend(auth.check().err().map(|error| auth_error(&document, error)));
        if !broken.is_empty() {
            return Err(ConfigErrors(broken));
        }
        let mut loaded = Self { config, auth, acl, source, cores_flag: None, volatile_flag: false };
        loaded.resolve_paths();
        Ok(loaded)
    }

    /// The providers of each listener, as authentication names them.
    pub fn auth_chains(&self) -> ListenerChains {
        let chain = |auth: &[AuthMethod]| auth.iter().copied().map(provider).collect();
        self.config.listener.iter().map(|listener| chain(&listener.auth)).collect()
    }

    /// Overrides `node.cores`, as `--cores` does.
    ///
    /// # Errors
    /// The number is out of range.
    pub fn with_cores(mut self, cores: u16) -> Result<Self, ConfigErrors> {
        let key = "node.cores";
        if let Some((low, high)) = bounds::bound(key)
            && !(low..=high).contains(&i64::from(cores))
        {
            let problem = format!("{cores} is out of range: allowed is {low} to {high}");
            return Err(ConfigError { file: "--cores".to_owned(), line: None, key: key.to_owned(), problem }.into());
        }
        self.config.node.cores = cores;
        self.cores_flag = Some(cores);
        Ok(self)
    }

    /// Overrides `store.durability`, as `--volatile` does.
    #[must_use]
    pub fn volatile(mut self) -> Self {
        self.config.store.durability = StoreDurability::Volatile;
        self.volatile_flag = true;
        self
    }

    /// The configuration in force as TOML, every default spelt out; loading it again gives the same configuration.
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.printed()).expect("every configuration is a TOML table: a test loads what this prints")
    }

    const fn printed(&self) -> Printed<'_> {
        Printed { config: &self.config, auth: &self.auth, acl: &self.acl }
    }

    /// Makes every path relative to the file's directory; absolute paths stay.
    fn resolve_paths(&mut self) {
        let Source::File(file) = &self.source else { return };
        let base = file.parent().unwrap_or(Path::new(""));
        let cluster = self.config.cluster.iter_mut().flat_map(|cluster| {
            let tls = cluster.tls.iter_mut().flat_map(|tls| [&mut tls.ca, &mut tls.certificate, &mut tls.key]);
            cluster.secret_file.iter_mut().chain(tls)
        });
        let node = std::iter::once(&mut self.config.node.data_dir).chain(cluster);
        let listeners = self.config.listener.iter_mut().flat_map(|listener| {
            let tls = listener.tls.iter_mut().flat_map(|tls| {
                let sni = tls.sni.iter_mut().flat_map(|pair| [&mut pair.certificate, &mut pair.key]);
                [&mut tls.certificate, &mut tls.key].into_iter().chain(&mut tls.client_ca).chain(sni)
            });
            listener.path.iter_mut().chain(tls)
        });
        for path in node.chain(listeners) {
            // Both parts are UTF-8 unless the directory is not; then the path stays as written rather than being mangled.
            if let Some(joined) = base.join(&*path).to_str() {
                *path = joined.to_owned();
            }
        }
        self.auth.resolve_paths(base);
        if let Some(file) = &mut self.acl.file {
            *file = base.join(&*file);
        }
    }
}

/// Everything a file can say.
#[derive(Serialize)]
struct Printed<'a> {
    #[serde(flatten)]
    config: &'a NodeConfig,
    auth: &'a AuthConfig,
    acl: &'a AclConfig,
}

/// What authentication calls a method of the configuration.
const fn provider(method: AuthMethod) -> ProviderKind {
    match method {
        AuthMethod::Anonymous => ProviderKind::Anonymous,
        AuthMethod::PasswordFile => ProviderKind::PasswordFile,
        AuthMethod::Scram => ProviderKind::Scram,
        AuthMethod::Jwt => ProviderKind::Jwt,
        AuthMethod::Http => ProviderKind::Http,
        AuthMethod::Certificate => ProviderKind::Certificate,
    }
}

/// Puts a mistake that authentication found under its line.
fn auth_error(document: &Document<'_>, error: LoadError) -> ConfigError {
    match error {
        LoadError::Setting { key, problem } => document.error(key, problem),
        other => document.error("auth", other.to_string()),
    }
}

/// Listeners that only this machine can reach admit anonymous clients unless they say otherwise.
fn admit_local_clients(config: &mut NodeConfig) {
    for listener in &mut config.listener {
        if listener.auth.is_empty() && listener.is_local() {
            listener.auth.push(AuthMethod::Anonymous);
        }
    }
}
