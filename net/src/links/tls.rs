//! QUIC's TLS between nodes, in the underlay and between shards. With [`Certificates`] each end verifies the other's; without, certificates
//! are made at each start and trusted by nobody, and [`super::Secret`] is all there is to be trusted.

use super::Certificates;
use super::limits::REASON_CHARS;
use crate::any_server::AnyServer;
use quinn_proto::ConnectionError;
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::AlertDescription;
use rustls::CipherSuite;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::NoServerSessionStorage;
use std::fmt;
use std::io;
use std::sync::Arc;

/// What nodes call each other in the handshake, whatever their addresses: the DNS name in each node's certificate.
pub const SERVER_NAME: &str = "bifro-uring-node";
/// QUIC's error codes for TLS alerts begin here (RFC 9000, 20.1).
const CRYPTO_ERRORS: u64 = 0x100;

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

/// For the end that is called, TLS 1.3 only. `alpn` is the protocol's name and version. Without `certificates` a new one is made, and
/// callers are asked for none.
///
/// # Errors
/// If the machine has no random numbers, or rustls refuses.
pub fn server(alpn: &[u8], certificates: Option<&Certificates>) -> Result<QuicServerConfig, TlsError> {
    let builder = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::new)?;
    let mut config = match certificates {
        Some(certificates) => {
            let verifier = certificates.client_verifier().map_err(TlsError::new)?;
            builder.with_client_cert_verifier(verifier).with_cert_resolver(certificates.resolver())
        }
        None => {
            let made = rcgen::generate_simple_self_signed([SERVER_NAME.to_owned()]).map_err(TlsError::new)?;
            let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(TlsError::new)?;
            let chain = vec![made.cert.der().clone()];
            builder.with_no_client_auth().with_single_cert(chain, key).map_err(TlsError::new)?
        }
    };
    // A resumed session would not verify certificates again: they may have expired since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![alpn.to_vec()];
    QuicServerConfig::try_from(config).map_err(TlsError::new)
}

/// For the end that calls. `alpn` as for [`server`]. Without `certificates` it takes any.
///
/// # Errors
/// If rustls refuses.
pub fn client(alpn: &[u8], certificates: Option<&Certificates>) -> Result<QuicClientConfig, TlsError> {
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::new)?;
    let mut config = match certificates {
        Some(certificates) => {
            let verifier = certificates.server_verifier().map_err(TlsError::new)?;
            builder.with_webpki_verifier(verifier).with_client_cert_resolver(certificates.resolver())
        }
        None => {
            let any = Arc::new(AnyServer::new(provider()));
            builder.dangerous().with_custom_certificate_verifier(any).with_no_client_auth()
        }
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![alpn.to_vec()];
    QuicClientConfig::try_from(config).map_err(TlsError::new)
}

/// What to do about a connection that was lost for the sake of certificates, in words for a log; none if it was lost otherwise.
pub fn refusal(lost: &ConnectionError) -> Option<String> {
    match lost {
        ConnectionError::TransportError(error) => {
            let advice = advice(error.code.into())?;
            Some(format!("its certificate {advice} ({})", printable(&error.reason)))
        }
        ConnectionError::ConnectionClosed(close) => {
            Some(format!("it does not take this node's certificate, which {}", advice(close.error_code.into())?))
        }
        _ => None,
    }
}

/// What is wrong with a certificate if the connection ended with this code: QUIC's for TLS alerts (RFC 9001, 4.8), TLS's for certificates
/// (RFC 8446, 6.2).
fn advice(code: u64) -> Option<&'static str> {
    let alert = u8::try_from(code.checked_sub(CRYPTO_ERRORS)?).ok()?;
    match AlertDescription::from(alert) {
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            Some("is not of the same CA: see that cluster.tls.ca is the same on all nodes")
        }
        AlertDescription::CertificateRequired => {
            Some("is missing: see that either all nodes have [cluster.tls] or none has")
        }
        AlertDescription::CertificateExpired => {
            Some("has expired or is not valid yet: look at it, and at the clocks of both nodes")
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown => Some("is not that of a node: `bifroctl certs node` makes such"),
        _ => None,
    }
}

/// Text that the peer may have written part of, fit for a log.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(REASON_CHARS).collect()
}

/// AES with keys of 128 bits comes first, which costs a quarter less than with 256, of a tenth of what a forwarded message costs.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}
