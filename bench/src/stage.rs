//! TLS and WebSocket of one connection, without I/O: bytes of the network in, bytes of MQTT out, and the reverse.

use crate::websocket::WebSocket;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

/// Whom to trust, and under which name.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

impl TlsSettings {
    /// Trusts the certificates in `ca`, or everybody if `insecure`; expects the target's address in the certificate unless a
    /// `name` is given.
    ///
    /// # Errors
    /// If there is neither, or the file or name is unusable.
    pub fn new(ca: Option<&Path>, insecure: bool, name: Option<String>) -> io::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let builder = match ca {
            _ if insecure => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody { provider })),
            Some(path) => builder.with_root_certificates(roots(path)?),
            None => {
                let what = "--tls needs --ca FILE, with whom to trust, or --insecure";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
        };
        let name = name.map(|name| ServerName::try_from(name).map_err(io::Error::other)).transpose()?;
        Ok(Self { config: Arc::new(builder.with_no_client_auth()), name })
    }

    /// A session with the broker at `address`.
    ///
    /// # Errors
    /// If rustls refuses the settings.
    pub fn session(&self, address: IpAddr) -> io::Result<ClientConnection> {
        let name = self.name.clone().unwrap_or_else(|| ServerName::from(address));
        let mut session = ClientConnection::new(self.config.clone(), name).map_err(io::Error::other)?;
        // Whoever writes hands everything on at once.
        session.set_buffer_limit(None);
        Ok(session)
    }
}

fn roots(path: &Path) -> io::Result<RootCertStore> {
    let unusable =
        |reason: String| io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {reason}", path.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))? {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() { Err(unusable("no certificate in it".to_owned())) } else { Ok(roots) }
}

/// Takes any certificate whose key signs.
#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The stages of one connection.
#[derive(Debug)]
pub struct Stages {
    tls: Option<Box<ClientConnection>>,
    websocket: Option<WebSocket>,
    /// Received, TLS taken off.
    plain: Vec<u8>,
    /// To be sent, TLS not yet put on.
    replies: Vec<u8>,
}

impl Stages {
    /// Before the handshakes.
    ///
    /// # Errors
    /// If there is no randomness for a WebSocket key.
    pub fn new(tls: Option<ClientConnection>, path: Option<&str>, target: SocketAddr) -> io::Result<Self> {
        let mut replies = Vec::new();
        let websocket = path.map(|path| WebSocket::new(path, target, &mut replies)).transpose()?;
        Ok(Self { tls: tls.map(Box::new), websocket, plain: Vec::new(), replies })
    }

    /// MQTT may be sent.
    pub fn is_open(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| !tls.is_handshaking())
            && self.websocket.as_ref().is_none_or(WebSocket::is_open)
    }

    /// The peer has said that nothing more will come.
    pub fn is_closed(&self) -> bool {
        self.websocket.as_ref().is_some_and(WebSocket::is_closed)
    }

    /// Takes bytes of the network in.
    ///
    /// # Errors
    /// If the peer breaks a rule.
    pub fn receive(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            self.plain.extend_from_slice(bytes);
            return self.upgrade();
        };
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes)?;
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            let before = self.plain.len();
            self.plain.resize(before + state.plaintext_bytes_to_read(), 0);
            tls.reader().read_exact(&mut self.plain[before..])?;
        }
        self.upgrade()
    }

    fn upgrade(&mut self) -> io::Result<()> {
        match &mut self.websocket {
            Some(websocket) => websocket.upgrade(&mut self.plain),
            None => Ok(()),
        }
    }

    /// Appends what MQTT there is to `buffer`.
    ///
    /// # Errors
    /// If the peer breaks a rule of WebSocket.
    pub fn take(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.websocket {
            Some(websocket) => websocket.unframe(&mut self.plain, buffer, &mut self.replies)?,
            None => buffer.append(&mut self.plain),
        }
        Ok(())
    }

    /// What has to be sent for `bytes` of MQTT, with what the stages have to say themselves.
    ///
    /// # Errors
    /// If TLS can take nothing.
    pub fn seal(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match &mut self.websocket {
            Some(websocket) => websocket.frame(bytes, &mut self.replies),
            None => self.replies.extend_from_slice(bytes),
        }
        self.outgoing()
    }

    /// What the stages have to say themselves.
    ///
    /// # Errors
    /// If TLS can take nothing.
    pub fn outgoing(&mut self) -> io::Result<Vec<u8>> {
        let Some(tls) = &mut self.tls else { return Ok(std::mem::take(&mut self.replies)) };
        if !tls.is_handshaking() {
            tls.writer().write_all(&self.replies)?;
            self.replies.clear();
        }
        let mut out = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut out)?;
        }
        Ok(out)
    }
}
