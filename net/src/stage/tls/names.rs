//! Which certificate to present: the first that is valid for the name the client asks for by SNI, else the default.

use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::Arc;

/// A default certificate and others with names of their own.
#[derive(Debug)]
pub(super) struct CertificatesByName {
    default: Arc<CertifiedKey>,
    others: Vec<Arc<CertifiedKey>>,
}

impl CertificatesByName {
    pub(super) const fn new(default: Arc<CertifiedKey>, others: Vec<Arc<CertifiedKey>>) -> Self {
        Self { default, others }
    }
}

impl ResolvesServerCert for CertificatesByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let wanted = hello.server_name().filter(|_| !self.others.is_empty());
        let wanted = wanted.and_then(|name| ServerName::try_from(name).ok());
        let chosen = wanted.and_then(|name| {
            std::iter::once(&self.default).chain(&self.others).find(|certificate| is_valid_for(certificate, &name))
        });
        Some(Arc::clone(chosen.unwrap_or(&self.default)))
    }
}

/// Whether the leaf names `name`, wildcards included.
fn is_valid_for(certificate: &CertifiedKey, name: &ServerName<'_>) -> bool {
    certificate
        .end_entity_cert()
        .and_then(ParsedCertificate::try_from)
        .is_ok_and(|leaf| verify_server_name(&leaf, name).is_ok())
}
