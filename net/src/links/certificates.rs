//! Certificates that an operator gives to nodes: `[cluster.tls]`, read once at the start.
//!
//! Each end of a connection shows its certificate, and takes the other's if it was issued by the cluster's CA, for this use, to the name
//! [`SERVER_NAME`], and is valid now. The name is the same for all nodes, since their addresses change; it keeps out who has a certificate
//! of the same CA for something else.
//!
//! What a peer would refuse is refused here first: a node whose certificate nobody takes does not start.

use super::tls::{SERVER_NAME, provider};
use crate::stage::tls::{PemFile, TlsConfigError};
use bifro_core::config::ClusterTlsConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, DistinguishedName, InconsistentKeys, RootCertStore, SignatureScheme};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use x509_parser::time::ASN1Time;

/// What `[cluster.tls]` names, read.
#[derive(Clone, Debug)]
pub struct ClusterPem {
    /// Whom to trust: one CA or more.
    pub ca: PemFile,
    /// The node's certificate, then those between it and the CA, if there are any.
    pub certificate: PemFile,
    /// The private key of the first.
    pub key: PemFile,
}

/// A file of `[cluster.tls]` that does not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cluster.tls.{key} = \"{file}\": {problem}")]
pub struct CertificateFault {
    /// The configuration's name for it.
    pub key: &'static str,
    /// The file.
    pub file: String,
    /// What is wrong with it, and what to do.
    pub problem: String,
}

/// A node's certificate, its key, and whose certificates it takes. Copies share everything.
#[derive(Clone)]
pub struct Certificates {
    authorities: Arc<RootCertStore>,
    identity: Arc<CertifiedKey>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificates")
    }
}

impl Certificates {
    /// Reads the files and sees that other nodes with the same CA would take them.
    ///
    /// # Errors
    /// The first file that does not do, and why.
    pub fn load(files: &ClusterTlsConfig) -> Result<Self, CertificateFault> {
        Self::new(&ClusterPem {
            ca: read("ca", &files.ca)?,
            certificate: read("certificate", &files.certificate)?,
            key: read("key", &files.key)?,
        })
    }

    /// As [`Self::load`], from what the files hold.
    ///
    /// # Errors
    /// See there.
    pub fn new(pem: &ClusterPem) -> Result<Self, CertificateFault> {
        let certificates = Self::parse(pem)?;
        certificates.check().map_err(|error| {
            let problem = match error {
                rustls::Error::InvalidCertificate(error) => described(&error, &pem.ca.name),
                error => error.to_string(),
            };
            fault("certificate", &pem.certificate, problem)
        })?;
        Ok(certificates)
    }

    /// Without asking whether others would take the certificate.
    pub(super) fn parse(pem: &ClusterPem) -> Result<Self, CertificateFault> {
        let authorities = authorities(&pem.ca)?;
        let chain = certificates("certificate", &pem.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&pem.key.bytes)
            .map_err(|error| fault("key", &pem.key, format!("has no private key in PEM: {}", unreadable(&error))))?;
        let key = provider().key_provider.load_private_key(key);
        let key = key.map_err(|error| fault("key", &pem.key, format!("has a key that cannot be used: {error}")))?;
        let identity = CertifiedKey::new(chain, key);
        match identity.keys_match() {
            // Unknown: this kind of key cannot tell. The first handshake will.
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                let problem = format!("is not the key of the certificate in {}", pem.certificate.name);
                return Err(fault("key", &pem.key, problem));
            }
            Err(error) => return Err(fault("certificate", &pem.certificate, error.to_string())),
        }
        Ok(Self { authorities: Arc::new(authorities), identity: Arc::new(identity) })
    }

    /// Whether nodes that trust the same authorities take this one, whichever calls.
    fn check(&self) -> Result<(), rustls::Error> {
        let (leaf, between) = self.identity.cert.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        let builder = |error: VerifierBuilderError| rustls::Error::General(error.to_string());
        let (server, client) = (self.server_verifier().map_err(builder)?, self.client_verifier().map_err(builder)?);
        let now = UnixTime::now();
        server.verify_server_cert(leaf, between, &node_name(), &[], now)?;
        client.verify_client_cert(leaf, between, now)?;
        Ok(())
    }

    /// Shows the certificate, to callers and to those called.
    pub(super) fn resolver(&self) -> Arc<SingleCertAndKey> {
        Arc::new(SingleCertAndKey::from(self.identity.clone()))
    }

    /// Judges those called.
    pub(super) fn server_verifier(&self) -> Result<Arc<WebPkiServerVerifier>, VerifierBuilderError> {
        WebPkiServerVerifier::builder_with_provider(self.authorities.clone(), provider()).build()
    }

    /// Judges callers.
    pub(super) fn client_verifier(&self) -> Result<Arc<CallerVerifier>, VerifierBuilderError> {
        let chains = WebPkiClientVerifier::builder_with_provider(self.authorities.clone(), provider()).build()?;
        Ok(Arc::new(CallerVerifier { chains }))
    }
}

/// Takes a caller that those called would take as well: TLS itself asks callers for no name.
#[derive(Debug)]
pub(super) struct CallerVerifier {
    chains: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for CallerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chains.verify_client_cert(end_entity, intermediates, now)?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, &node_name())?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

fn node_name() -> ServerName<'static> {
    ServerName::try_from(SERVER_NAME).expect("the constant is a DNS name: a test makes a certificate for it")
}

fn fault(key: &'static str, file: &PemFile, problem: impl Into<String>) -> CertificateFault {
    CertificateFault { key, file: file.name.clone(), problem: problem.into() }
}

fn read(key: &'static str, path: &str) -> Result<PemFile, CertificateFault> {
    PemFile::read(Path::new(path)).map_err(|error| {
        let problem = match error {
            TlsConfigError::Read { source, .. } => format!("cannot be read: {source}"),
            error => error.to_string(),
        };
        CertificateFault { key, file: path.to_owned(), problem }
    })
}

fn certificates(key: &'static str, file: &PemFile) -> Result<Vec<CertificateDer<'static>>, CertificateFault> {
    let refuse = |error| fault(key, file, format!("has no certificate in PEM: {}", unreadable(&error)));
    let found: Vec<_> = CertificateDer::pem_slice_iter(&file.bytes).collect::<Result<_, _>>().map_err(refuse)?;
    if found.is_empty() { Err(refuse(pem::Error::NoItemsFound)) } else { Ok(found) }
}

fn unreadable(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "there is none between BEGIN and END lines".to_owned(),
        error => error.to_string(),
    }
}

/// Those of the file that are valid now: one that has expired may stand beside its successor. That they are is looked at here alone, for no
/// handshake asks how old a CA is.
fn authorities(file: &PemFile) -> Result<RootCertStore, CertificateFault> {
    let mut trusted = RootCertStore::empty();
    let mut out_of_time = None;
    for der in certificates("ca", file)? {
        let (_, certificate) = x509_parser::parse_x509_certificate(&der)
            .map_err(|error| fault("ca", file, format!("has a certificate that cannot be read: {error}")))?;
        if !certificate.is_ca() {
            return Err(fault("ca", file, format!("has the certificate of {}, which is no CA", certificate.subject())));
        }
        let (valid, now) = (certificate.validity(), ASN1Time::now());
        if valid.not_after < now {
            out_of_time =
                Some(format!("has expired on {}: make another CA, or name one that is valid", valid.not_after));
        } else if valid.not_before > now {
            out_of_time = Some(format!("is valid from {} only: is the clock right?", valid.not_before));
        } else {
            trusted.add(der).map_err(|error| fault("ca", file, format!("has a CA that cannot be used: {error}")))?;
        }
    }
    match out_of_time {
        Some(problem) if trusted.is_empty() => Err(fault("ca", file, problem)),
        _ => Ok(trusted),
    }
}

/// Why nobody would take this node's certificate.
fn described(error: &CertificateError, ca: &str) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "has expired: make another with `bifroctl certs node --force`".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet: is the clock right?".to_owned()
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            format!("was not issued by the CA in {ca}, or its intermediate certificates are missing")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("is not for the name {SERVER_NAME:?}, which each node's must be: `bifroctl certs node` makes such")
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "must be for servers and for clients: `bifroctl certs node` makes such".to_owned()
        }
        other => other.to_string(),
    }
}
