//! From PEM files to a rustls server configuration. Every error names the file and the reason, and a failed load changes
//! nothing: the caller puts the result into the listener's [`TlsCell`] only once it has it.

use super::names::CertificatesByName;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject};
use rustls::server::{ClientCertVerifierBuilder, NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use thiserror::Error;

/// Largest PEM file read; a longer one is refused. Bundles of all public authorities have a quarter of this.
pub const PEM_BYTES_MAX: u64 = 1 << 20;

/// Most certificates one listener chooses from: each is tried in turn against the name a client asks for.
pub const CERTIFICATES_MAX: usize = 64;

/// Contents of a PEM file, with the name errors call it by.
#[derive(Clone, Debug)]
pub struct PemFile {
    /// Path, for messages.
    pub name: String,
    /// Contents.
    pub bytes: Vec<u8>,
}

impl PemFile {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read or exceeds [`PEM_BYTES_MAX`].
    pub fn read(path: &Path) -> Result<Self, TlsConfigError> {
        let name = path.display().to_string();
        let mut bytes = Vec::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes));
        match read {
            Err(source) => Err(TlsConfigError::Read { file: name, source }),
            Ok(length) if length as u64 > PEM_BYTES_MAX => Err(TlsConfigError::TooLarge { file: name }),
            Ok(_) => Ok(Self { name, bytes }),
        }
    }
}

/// A certificate chain, leaf first, and its private key.
#[derive(Clone, Debug)]
pub struct CertificateSource {
    /// The chain.
    pub chain: PemFile,
    /// The key (PKCS#8, PKCS#1 or SEC1).
    pub key: PemFile,
}

/// Lowest TLS version spoken; the highest is always 1.3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Whether clients present certificates, and whose.
#[derive(Clone, Debug, Default)]
pub enum ClientAuth {
    /// They are not asked for one.
    #[default]
    Off,
    /// They may present one; if they do, it must be valid and signed by one of these authorities.
    Optional(PemFile),
    /// They must present one that is valid and signed by one of these authorities.
    Required(PemFile),
}

/// All a listener's TLS is made of.
#[derive(Clone, Debug, Default)]
pub struct TlsSource {
    /// Certificates to choose from by the name the client asks for. The first is the default, for clients that ask for
    /// none of the names or send no name.
    pub certificates: Vec<CertificateSource>,
    /// Lowest version.
    pub minimum: TlsVersion,
    /// Client certificates.
    pub client_auth: ClientAuth,
}

/// Why a TLS configuration was not accepted.
#[derive(Debug, Error)]
pub enum TlsConfigError {
    /// A file cannot be read.
    #[error("{file}: cannot be read")]
    Read {
        /// The file.
        file: String,
        /// The reason.
        source: std::io::Error,
    },
    /// A file exceeds [`PEM_BYTES_MAX`].
    #[error("{file}: larger than {PEM_BYTES_MAX} bytes")]
    TooLarge {
        /// The file.
        file: String,
    },
    /// A file is not PEM, or holds nothing of the kind that is needed.
    #[error("{file}: no usable {wanted}: {reason}")]
    Pem {
        /// The file.
        file: String,
        /// What was looked for.
        wanted: &'static str,
        /// The reason.
        reason: pem::Error,
    },
    /// A certificate or key is not usable, or the two do not belong together.
    #[error("{file}: {source}")]
    Unusable {
        /// The file.
        file: String,
        /// The reason.
        source: rustls::Error,
    },
    /// The client authorities cannot be used.
    #[error("{file}: {source}")]
    Authorities {
        /// The file.
        file: String,
        /// The reason.
        source: VerifierBuilderError,
    },
    /// No certificate, or more than [`CERTIFICATES_MAX`].
    #[error("between 1 and {CERTIFICATES_MAX} certificates are needed, not {count}")]
    CertificateCount {
        /// How many are configured.
        count: usize,
    },
    /// The cryptography does not offer what is configured.
    #[error("TLS configuration: {0}")]
    Provider(#[source] rustls::Error),
}

/// A listener's TLS configuration, replaceable while it runs: new connections take the new one, live ones keep theirs.
#[derive(Debug)]
pub struct TlsCell(RwLock<Arc<ServerConfig>>);

impl TlsCell {
    /// A cell that holds `config`.
    pub const fn new(config: Arc<ServerConfig>) -> Self {
        Self(RwLock::new(config))
    }

    /// The configuration for a connection accepted now.
    pub fn current(&self) -> Arc<ServerConfig> {
        // The lock only guards a pointer, which is whole even if a holder panicked.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the configuration for connections to come.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
    }
}

/// Builds a server configuration. Pure but for the system's randomness, from which ticket keys are drawn.
///
/// # Errors
/// When a file's content is unusable; the error names it.
pub fn load(source: &TlsSource) -> Result<Arc<ServerConfig>, TlsConfigError> {
    let provider = Arc::new(ring::default_provider());
    let certificates = certificates(&source.certificates, &provider)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(source.minimum))
        .map_err(TlsConfigError::Provider)?;
    let mut config = match &source.client_auth {
        ClientAuth::Off => builder.with_no_client_auth(),
        ClientAuth::Optional(file) => builder.with_client_cert_verifier(build_verifier(file, |authorities| {
            WebPkiClientVerifier::builder_with_provider(authorities, Arc::clone(&provider)).allow_unauthenticated()
        })?),
        ClientAuth::Required(file) => builder.with_client_cert_verifier(build_verifier(file, |authorities| {
            WebPkiClientVerifier::builder_with_provider(authorities, Arc::clone(&provider))
        })?),
    }
    .with_cert_resolver(Arc::new(certificates));
    // Resumption state travels in tickets: nothing to keep per client, nothing shared between shards.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    match source.client_auth {
        ClientAuth::Off => config.ticketer = ring::Ticketer::new().map_err(TlsConfigError::Provider)?,
        // A resumed session would not verify the client's certificate again: it may have expired since.
        ClientAuth::Optional(_) | ClientAuth::Required(_) => config.send_tls13_tickets = 0,
    }
    Ok(Arc::new(config))
}

static FROM_TLS12: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
static FROM_TLS13: [&SupportedProtocolVersion; 1] = [&version::TLS13];

const fn versions(minimum: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    match minimum {
        TlsVersion::Tls12 => &FROM_TLS12,
        TlsVersion::Tls13 => &FROM_TLS13,
    }
}

fn certificates(
    sources: &[CertificateSource],
    provider: &CryptoProvider,
) -> Result<CertificatesByName, TlsConfigError> {
    let mut certificates = sources.iter().map(|source| certified_key(source, provider));
    let count = sources.len();
    match certificates.next() {
        Some(default) if count <= CERTIFICATES_MAX => {
            Ok(CertificatesByName::new(default?, certificates.collect::<Result<_, _>>()?))
        }
        _ => Err(TlsConfigError::CertificateCount { count }),
    }
}

fn certified_key(source: &CertificateSource, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsConfigError> {
    let chain = read_certificates(&source.chain)?;
    let key = PrivateKeyDer::from_pem_slice(&source.key.bytes).map_err(|reason| TlsConfigError::Pem {
        file: source.key.name.clone(),
        wanted: "private key",
        reason,
    })?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| TlsConfigError::Unusable { file: source.key.name.clone(), source: error })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // Unknown: this kind of key cannot tell. The first handshake will.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(Arc::new(certified)),
        Err(error) => Err(TlsConfigError::Unusable { file: source.chain.name.clone(), source: error }),
    }
}

fn read_certificates(file: &PemFile) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let unreadable = |reason| TlsConfigError::Pem { file: file.name.clone(), wanted: "certificate", reason };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&file.bytes).collect::<Result<_, _>>().map_err(unreadable)?;
    if chain.is_empty() { Err(unreadable(pem::Error::NoItemsFound)) } else { Ok(chain) }
}

fn build_verifier(
    file: &PemFile,
    builder: impl FnOnce(Arc<RootCertStore>) -> ClientCertVerifierBuilder,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsConfigError> {
    let mut authorities = RootCertStore::empty();
    for certificate in read_certificates(file)? {
        authorities.add(certificate).map_err(|source| TlsConfigError::Unusable { file: file.name.clone(), source })?;
    }
    builder(Arc::new(authorities))
        .build()
        .map_err(|source| TlsConfigError::Authorities { file: file.name.clone(), source })
}
