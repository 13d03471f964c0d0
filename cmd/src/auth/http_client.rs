//! Outgoing HTTP: to the deciding service, and for key sets. Runs on the admin runtime only.
//!
//! No redirects and no proxies: credentials go where the configuration says, and nowhere else.

use super::error::LoadError;
use super::source;
use reqwest::{Client, Response, Url};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Largest file of certificate authorities.
const CA_BYTES_MAX: usize = 4 << 20;

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// No connection, no complete answer in time.
    #[error("no answer: {0}")]
    Transport(#[from] reqwest::Error),
    /// Another status than 2xx.
    #[error("answered with status {0}")]
    Status(u16),
    /// A body beyond the limit.
    #[error("answered with more than {0} bytes")]
    TooLarge(usize),
    /// A body that is not what it should be.
    #[error("answered with something else than expected: {0}")]
    Content(String),
    /// The time was up before the call had its turn.
    #[error("too many calls under way")]
    Timeout,
}

/// A client that trusts the authorities of `ca_file`, or the web's.
///
/// # Errors
/// [`LoadError`] about the file, or about `key` if the client cannot be made.
pub(super) fn client(key: &'static str, ca_file: Option<&Path>, timeout: Duration) -> Result<Client, LoadError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| LoadError::setting(key, error.to_string()))?
        .with_root_certificates(roots(ca_file)?)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(timeout)
        .user_agent("bifro-uring")
        .build()
        .map_err(|error| LoadError::setting(key, error.to_string()))
}

/// An `http` or `https` URL without credentials, which would end in logs. Warns if what is sent there can be read on the way.
///
/// # Errors
/// [`LoadError::Setting`] for `key`.
pub(super) fn parse_url(key: &'static str, text: &str) -> Result<Url, LoadError> {
    let url = Url::parse(text).map_err(|error| LoadError::setting(key, format!("not a URL ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(LoadError::setting(key, format!("has the scheme {:?}, but must be http or https", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(LoadError::setting(key, "holds credentials; put them into a header"));
    }
    let is_local = url.host_str().is_some_and(|host| {
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    });
    if url.scheme() == "http" && !is_local {
        tracing::warn!(
            key,
            url = url.as_str(),
            "plain HTTP to another machine: who sits between decides who is admitted"
        );
    }
    Ok(url)
}

/// The whole body of a 2xx answer, if it is no longer than `bytes_max`.
///
/// # Errors
/// [`CallError`].
pub(super) async fn body(mut response: Response, bytes_max: usize) -> Result<Vec<u8>, CallError> {
    if !response.status().is_success() {
        return Err(CallError::Status(response.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > bytes_max {
            return Err(CallError::TooLarge(bytes_max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, LoadError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca_file else {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        return Ok(roots);
    };
    for certificate in CertificateDer::pem_slice_iter(&source::read(path, CA_BYTES_MAX)?) {
        let certificate = certificate.map_err(|error| LoadError::content(path, format!("not PEM ({error})")))?;
        roots
            .add(certificate)
            .map_err(|error| LoadError::content(path, format!("an unusable certificate ({error})")))?;
    }
    if roots.is_empty() {
        return Err(LoadError::content(path, "no certificate in it; give the authority's certificate in PEM"));
    }
    Ok(roots)
}

/// Counts failures, and says at most once per second that there are some.
#[derive(Debug, Default)]
pub(super) struct FailureLog {
    count: AtomicU64,
    said_at_s: AtomicU64,
}

impl FailureLog {
    /// Counts a failure of `whom` at `unix_s`.
    pub(super) fn note(&self, unix_s: u64, whom: &str, error: &CallError) {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if self.said_at_s.swap(unix_s, Ordering::Relaxed) != unix_s {
            tracing::warn!(url = whom, count, %error, "authentication service failed; clients are refused meanwhile");
        }
    }

    /// Failures since the start.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}
