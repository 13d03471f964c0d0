//! TLS of the client.

use super::error::CtlError;
use super::options::ConnectOptions;
use crate::auth::LoadError;
use crate::auth::source;
use bifro_net::any_server::AnyServer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

/// Largest PEM file.
const PEM_BYTES_MAX: usize = 4 << 20;

/// Wraps a connected socket; the handshake happens with the first bytes.
///
/// # Errors
/// [`CtlError::Load`] about a file, [`CtlError::Tls`] about the rest.
pub(super) fn wrap(
    options: &ConnectOptions,
    socket: TcpStream,
) -> Result<StreamOwned<ClientConnection, TcpStream>, CtlError> {
    let fail = |problem: String| CtlError::Tls { server: options.server(), problem };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| fail(error.to_string()))?;
    let builder = if options.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer::new(provider)))
    } else {
        builder.with_root_certificates(roots(options.cafile.as_deref())?)
    };
    let config = match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(certificates(cert)?, private_key(key)?)
            .map_err(|error| fail(error.to_string()))?,
        _ => builder.with_no_client_auth(),
    };
    let name = ServerName::try_from(options.host.clone()).map_err(|error| fail(error.to_string()))?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(|error| fail(error.to_string()))?;
    Ok(StreamOwned::new(connection, socket))
}

fn roots(cafile: Option<&Path>) -> Result<RootCertStore, LoadError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = cafile else {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        return Ok(roots);
    };
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| LoadError::content(path, format!("an unusable certificate ({error})")))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let pem = source::read(path, PEM_BYTES_MAX)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|error| LoadError::content(path, format!("not PEM ({error})")))?;
    if certificates.is_empty() {
        return Err(LoadError::content(path, "no certificate in it; give certificates in PEM"));
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, LoadError> {
    let pem = source::read(path, PEM_BYTES_MAX)?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| LoadError::content(path, format!("no private key in PEM in it ({error})")))
}
