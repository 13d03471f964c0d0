//! QUIC's TLS between nodes: certificates that are made at each start and trusted by nobody. See [`super::Secret`] for what is trusted.

use crate::any_server::AnyServer;
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use std::fmt;
use std::io;
use std::sync::Arc;

/// What nodes call each other in the handshake.
pub const SERVER_NAME: &str = "bifro-uring";

/// A certificate could not be made, or TLS not be set up.
#[derive(Debug, thiserror::Error)]
#[error("TLS between nodes: {0}")]
pub struct TlsError(String);

impl TlsError {
    fn new(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        Self::other(error)
    }
}

/// For the end that is called: a new certificate, TLS 1.3 only. `alpn` is the protocol's name and version.
///
/// # Errors
/// If the machine has no random numbers, or rustls refuses.
pub fn server(alpn: &[u8]) -> Result<QuicServerConfig, TlsError> {
    let made = rcgen::generate_simple_self_signed([SERVER_NAME.to_owned()]).map_err(TlsError::new)?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(TlsError::new)?;
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::new)?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key);
    let mut config = config.map_err(TlsError::new)?;
    config.alpn_protocols = vec![alpn.to_vec()];
    QuicServerConfig::try_from(config).map_err(TlsError::new)
}

/// For the end that calls: takes any certificate. `alpn` as for [`server`].
///
/// # Errors
/// If rustls refuses.
pub fn client(alpn: &[u8]) -> Result<QuicClientConfig, TlsError> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::new)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer::new(provider())))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    QuicClientConfig::try_from(config).map_err(TlsError::new)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
