//! QUIC's TLS: certificates that are made at each start and trusted by nobody. See [`crate::secret`] for what is trusted.

use crate::error::UnderlayError;
use bifro_net::any_server::AnyServer;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use std::sync::Arc;

/// What nodes call each other in the handshake.
pub(crate) const SERVER_NAME: &str = "bifro-uring";
/// The protocol's name and version.
const ALPN: &[u8] = b"bifro-cluster/1";

pub(crate) fn server() -> Result<QuicServerConfig, UnderlayError> {
    let made = rcgen::generate_simple_self_signed([SERVER_NAME.to_owned()]).map_err(tls)?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(tls)?;
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls)?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key);
    let mut config = config.map_err(tls)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    QuicServerConfig::try_from(config).map_err(tls)
}

pub(crate) fn client() -> Result<QuicClientConfig, UnderlayError> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer::new(provider())))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    QuicClientConfig::try_from(config).map_err(tls)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn tls(error: impl std::fmt::Display) -> UnderlayError {
    UnderlayError::Tls(error.to_string())
}
