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
mod rules;
mod tenants;
#[cfg(test)]
mod tests;

pub use error::{ConfigError, ConfigErrors};
pub use reload::{Reload, diff};

use crate::acl::AclConfig;
use crate::auth::{AuthConfig, ListenerChains, ProviderKind};
use bifro_core::config::{AuthMethod, NodeConfig};
use document::Document;
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
    /// The values; relative paths are resolved against the file's directory.
    pub config: NodeConfig,
    /// `[auth]`, likewise.
    pub auth: AuthConfig,
    /// `[acl]`, likewise.
    pub acl: AclConfig,
    /// Where they came from; load from there again at reload.
    pub source: Source,
}

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

    /// Checks `text` as the configuration that `source` holds.
    ///
    /// # Errors
    /// Anything in it is wrong.
    pub fn parse(text: &str, source: Source) -> Result<Self, ConfigErrors> {
        let mut document = Document::parse(&source.to_string(), text)?;
        let out_of_range = bounds::check(&document);
        if !out_of_range.is_empty() {
            return Err(ConfigErrors(out_of_range));
        }
        let (tenant_defaults, tenant) = tenants::take(&mut document)?;
        let auth = document.take_table("auth")?;
        let mut auth: AuthConfig = document.read(auth)?;
        let acl = document.take_table("acl")?;
        let mut acl: AclConfig = document.read(acl)?;
        let mut config = NodeConfig { tenant_defaults, tenant, ..document.read_rest()? };
        admit_local_clients(&mut config);
        let broken = rules::check(&document, &config);
        if !broken.is_empty() {
            return Err(ConfigErrors(broken));
        }
        if let Source::File(path) = &source {
            let base = path.parent().unwrap_or(Path::new(""));
            resolve_paths(&mut config, base);
            auth.resolve_paths(base);
            acl.file = acl.file.map(|file| base.join(file));
        }
        Ok(Self { config, auth, acl, source })
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
        Ok(self)
    }

    /// The authentication chain of each listener.
    pub fn auth_chains(&self) -> ListenerChains {
        let kind = |method: &AuthMethod| match method {
            AuthMethod::Anonymous => ProviderKind::Anonymous,
            AuthMethod::PasswordFile => ProviderKind::PasswordFile,
            AuthMethod::Scram => ProviderKind::Scram,
            AuthMethod::Jwt => ProviderKind::Jwt,
            AuthMethod::Http => ProviderKind::Http,
            AuthMethod::Certificate => ProviderKind::Certificate,
        };
        self.config.listener.iter().map(|listener| listener.auth.iter().map(kind).collect()).collect()
    }

    /// The configuration in force as TOML, every default spelt out; loading it again gives the same configuration.
    pub fn to_toml(&self) -> String {
        #[derive(serde::Serialize)]
        struct Whole<'a> {
            #[serde(flatten)]
            config: &'a NodeConfig,
            auth: &'a AuthConfig,
            acl: &'a AclConfig,
        }
        let whole = Whole { config: &self.config, auth: &self.auth, acl: &self.acl };
        toml::to_string(&whole).expect("every configuration is a TOML table: a test loads what this prints")
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

fn resolve_paths(config: &mut NodeConfig, base: &Path) {
    resolve(base, &mut config.node.data_dir);
    for listener in &mut config.listener {
        if let Some(path) = &mut listener.path {
            resolve(base, path);
        }
        let Some(tls) = &mut listener.tls else { continue };
        resolve(base, &mut tls.certificate);
        resolve(base, &mut tls.key);
        if let Some(ca) = &mut tls.client_ca {
            resolve(base, ca);
        }
        for pair in &mut tls.sni {
            resolve(base, &mut pair.certificate);
            resolve(base, &mut pair.key);
        }
    }
}

/// Makes a path of the configuration relative to the file's directory; absolute paths stay.
fn resolve(base: &Path, path: &mut String) {
    // Both parts are UTF-8 unless the directory is not; then the path stays as written rather than being mangled.
    if let Some(joined) = base.join(&*path).to_str() {
        *path = joined.to_owned();
    }
}
