//! What the stages' tests share: an authority that issues certificates, a rustls client, a tungstenite client, and the cable
//! between them and a pipeline.

use super::tls::{CertificateSource, ClientAuth, PemFile, TlsCell, TlsSource, TlsVersion, load};
use super::websocket::WsConfig;
use super::{ListenerStages, Pipeline, StageError};
use bifro_mqtt::wire::Wire;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tungstenite::handshake::HandshakeError;
use tungstenite::{ClientHandshake, ClientRequestBuilder, WebSocket};

/// An MQTT 3.1.1 CONNECT of client "a".
pub(super) const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a";

pub(super) fn wire(bytes: &[u8]) -> Wire {
    Wire::from(bytes.to_vec())
}

pub(super) fn peer(text: &str) -> Option<SocketAddr> {
    Some(text.parse().expect("a socket address"))
}

/// A certificate authority.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub(super) struct Identity {
    pub(super) chain: String,
    pub(super) key: KeyPair,
    pub(super) der: CertificateDer<'static>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    pub(super) fn issue(&self, name: &str) -> Identity {
        self.issue_until(name, 2100)
    }

    pub(super) fn issue_until(&self, name: &str, year: i32) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.not_after = date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Identity { chain: certificate.pem(), key, der: certificate.der().clone() }
    }

    pub(super) fn pem(&self) -> PemFile {
        pem("ca.pem", &self.0.pem())
    }

    /// A client that trusts this authority.
    pub(super) fn client(
        &self,
        identity: Option<&Identity>,
        version: &'static SupportedProtocolVersion,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots);
        match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = PrivateKeyDer::try_from(identity.key.serialize_der()).expect("a key");
                builder.with_client_auth_cert(vec![identity.der.clone()], key).expect("a certificate")
            }
        }
    }
}

impl Identity {
    pub(super) fn self_signed(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
        Self { chain: made.cert.pem(), der: made.cert.der().clone(), key: made.signing_key }
    }

    pub(super) fn source(&self) -> CertificateSource {
        CertificateSource { chain: pem("chain.pem", &self.chain), key: pem("key.pem", &self.key.serialize_pem()) }
    }
}

pub(super) fn pem(name: &str, text: &str) -> PemFile {
    PemFile { name: name.to_owned(), bytes: text.as_bytes().to_vec() }
}

pub(super) fn tls_stages(identities: &[&Identity], client_auth: ClientAuth) -> ListenerStages {
    let certificates = identities.iter().map(|identity| identity.source()).collect();
    let config = load(&TlsSource { certificates, minimum: TlsVersion::Tls12, client_auth }).expect("a configuration");
    ListenerStages { tls: Some(Arc::new(TlsCell::new(config))), ..ListenerStages::default() }
}

pub(super) fn ws_config() -> WsConfig {
    WsConfig { path: "/mqtt".to_owned(), frame_bytes_max: 1 << 20, trust_forwarded_for: Vec::new() }
}

pub(super) fn ws_stages() -> ListenerStages {
    ListenerStages { ws: Some(Arc::new(ws_config())), ..ListenerStages::default() }
}

/// A rustls client and what it met.
pub(super) struct TlsClient {
    pub(super) connection: ClientConnection,
    pub(super) error: Option<rustls::Error>,
    pub(super) closed: bool,
    pub(super) received: Vec<u8>,
}

impl TlsClient {
    pub(super) fn new(config: ClientConfig, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
        Self { connection, error: None, closed: false, received: Vec::new() }
    }

    pub(super) fn write(&mut self, plain: &[u8]) {
        self.connection.set_buffer_limit(None);
        self.connection.writer().write_all(plain).expect("unlimited");
    }

    /// Bytes for the server.
    pub(super) fn outgoing(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut bytes).expect("writing to memory");
        }
        bytes
    }

    /// Bytes from the server.
    pub(super) fn incoming(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.error.is_none() && !self.closed {
            self.connection.read_tls(&mut bytes).expect("reading from memory");
            match self.connection.process_new_packets() {
                Err(error) => self.error = Some(error),
                Ok(state) => {
                    self.closed = state.peer_has_closed();
                    let mut plain = vec![0; state.plaintext_bytes_to_read()];
                    self.connection.reader().read_exact(&mut plain).expect("as many as announced");
                    self.received.append(&mut plain);
                }
            }
        }
    }

    /// Carries bytes to and fro, in pieces of `step`, until both are silent. What reached the application, or the server's error.
    pub(super) fn converse(&mut self, pipeline: &mut Pipeline, step: usize) -> Result<Vec<u8>, StageError> {
        let mut app = Vec::new();
        loop {
            let (up, mut down) = (self.outgoing(), Vec::new());
            let result = up.chunks(step).try_for_each(|piece| pipeline.receive(piece, &mut app, &mut down));
            for piece in down.chunks(step) {
                self.incoming(piece);
            }
            result?;
            if up.is_empty() && down.is_empty() {
                return Ok(app);
            }
        }
    }
}

/// The client's end of a cable that never blocks.
#[derive(Clone, Debug, Default)]
pub(super) struct Cable(Rc<RefCell<Ends>>);

#[derive(Debug, Default)]
struct Ends {
    to_client: Vec<u8>,
    to_server: Vec<u8>,
}

impl Read for Cable {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let waiting = &mut self.0.borrow_mut().to_client;
        if waiting.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let length = waiting.len().min(into.len());
        into[..length].copy_from_slice(&waiting[..length]);
        waiting.drain(..length);
        Ok(length)
    }
}

impl Write for Cable {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().to_server.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Cable {
    pub(super) fn take_outgoing(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.borrow_mut().to_server)
    }

    pub(super) fn give(&self, bytes: &[u8]) {
        self.0.borrow_mut().to_client.extend_from_slice(bytes);
    }

    /// Carries what the client has written into `pipeline` in pieces of `step`, and the answers back.
    pub(super) fn carry(&self, pipeline: &mut Pipeline, step: usize) -> Result<Vec<u8>, StageError> {
        let (mut app, mut net) = (Vec::new(), Vec::new());
        let up = self.take_outgoing();
        let result = up.chunks(step).try_for_each(|piece| pipeline.receive(piece, &mut app, &mut net));
        self.give(&net);
        result.map(|()| app)
    }
}

pub(super) fn request(path: &str) -> ClientRequestBuilder {
    ClientRequestBuilder::new(format!("ws://localhost{path}").parse().expect("a uri"))
}

/// A tungstenite client in the middle of its handshake: its request waits on the cable.
pub(super) fn begin_websocket(
    cable: &Cable,
    request: ClientRequestBuilder,
) -> tungstenite::handshake::MidHandshake<ClientHandshake<Cable>> {
    match tungstenite::client(request, cable.clone()) {
        Err(HandshakeError::Interrupted(mid)) => mid,
        other => panic!("the client cannot be further yet: {other:?}"),
    }
}

/// A tungstenite client and a pipeline past their handshake.
pub(super) fn open_websocket(stages: &ListenerStages, step: usize) -> (WebSocket<Cable>, Cable, Box<Pipeline>) {
    let mut pipeline = Pipeline::new(stages, peer("192.0.2.1:5000")).expect("stages");
    let cable = Cable::default();
    let client = begin_websocket(&cable, request("/mqtt").with_sub_protocol("mqtt"));
    cable.carry(&mut pipeline, step).expect("accepted");
    let (client, response) = client.handshake().expect("accepted");
    assert_eq!(response.headers()["sec-websocket-protocol"], "mqtt");
    (client, cable, pipeline)
}
