//! Row 31: the wrong protocol on the wrong port, handshakes that never end, and certificates that prove nothing.

use crate::arena::{Arena, MIB, VERSIONS};
use bifro_core::client::Version;
use bifro_mqtt::packet::Packet;
use bifro_tests::client::Stream;
use bifro_tests::tls::{Authority, Identity};
use bifro_tests::{Broker, Client, ConnectOptions, PATIENCE};
use rustls::crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, ContentType, ProtocolVersion, RootCertStore, StreamOwned,
    SupportedCipherSuite, SupportedProtocolVersion, version,
};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

/// A broker with plain TCP, TLS without client certificates, and TLS with.
struct Setup {
    arena: Arena,
    clients: Authority,
    servers: Authority,
}

fn setup() -> Setup {
    let servers = Authority::new("servers");
    let clients = Authority::new("clients");
    let server = servers.issue("localhost", &["localhost", "127.0.0.1"], false);
    let tls = "connect_deadline_s = 2\n[listener.tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n";
    let config = format!(
        "[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\nauth = [\"anonymous\"]\n\
         [[listener]]\nprotocol = \"tls\"\nbind = \"127.0.0.1:0\"\nauth = [\"anonymous\"]\n{tls}\
         [[listener]]\nprotocol = \"tls\"\nbind = \"127.0.0.1:0\"\nauth = [\"certificate\"]\n{tls}\
         client_ca = \"clients.pem\"\nclient_auth = \"required\"\n[auth.certificate]\n"
    );
    let authority = clients.pem();
    let files = [
        ("server.pem", server.certificate.as_bytes()),
        ("server.key", server.key.as_bytes()),
        ("clients.pem", authority.as_bytes()),
    ];
    Setup { arena: Arena::around(Broker::start_with(2, &config, &files)), clients, servers }
}

struct TlsStream(StreamOwned<ClientConnection, TcpStream>);

impl Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Stream for TlsStream {
    fn set_timeout(&mut self, timeout: Duration) {
        self.0.sock.set_read_timeout(Some(timeout)).expect("a positive timeout");
    }
}

impl Setup {
    fn config(&self, versions: &[&'static SupportedProtocolVersion], identity: Option<&Identity>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.servers.pem().as_bytes()).expect("a certificate"))
            .expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions that the provider has")
            .with_root_certificates(roots);
        let Some(identity) = identity else { return builder.with_no_client_auth() };
        let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
        builder.with_client_auth_cert(chain, key).expect("a key that fits")
    }

    /// Connects to the n-th TLS listener and shakes hands as far as the client is concerned.
    fn open(&self, listener: usize, config: ClientConfig) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let mut sock = TcpStream::connect(self.arena.broker.nth_address("tls", listener))?;
        sock.set_nodelay(true)?;
        sock.set_read_timeout(Some(PATIENCE))?;
        let mut tls = connection(config);
        while tls.is_handshaking() {
            tls.complete_io(&mut sock)?;
        }
        Ok(StreamOwned::new(tls, sock))
    }

    /// Whether a client with this identity gets as far as CONNACK on the listener that wants one.
    fn admits(&self, versions: &[&'static SupportedProtocolVersion], identity: Option<&Identity>) -> bool {
        let Ok(stream) = self.open(1, self.config(versions, identity)) else { return false };
        let mut client = Client::over(Box::new(TlsStream(stream)), Version::V5);
        client.send_bytes(&ConnectOptions::new(Version::V5, "somebody").encode());
        client
            .try_recv()
            .is_some_and(|received| matches!(received.packet(), Packet::ConnAck(ack) if !ack.reason.is_error()))
    }
}

fn connection(config: ClientConfig) -> ClientConnection {
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(Arc::new(config), name).expect("a connection")
}

/// What the broker says until it closes.
fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "not closed in time");
    }
    answer
}

#[test]
fn row_31_mqtt_on_the_tls_port_and_tls_on_the_mqtt_port_are_closed() {
    let setup = setup();
    for version in VERSIONS {
        for listener in 0..2 {
            let address = setup.arena.broker.nth_address("tls", listener);
            let mut stream = TcpStream::connect(address).expect("the broker listens");
            stream.write_all(&ConnectOptions::new(version, "plain").encode()).expect("just connected");
            let answer = read_to_end(&mut stream);
            // An alert, which is record type 21, at most.
            assert!(answer.first().is_none_or(|kind| *kind == 21), "{answer:02x?}");
        }
    }
    for versions in [&[&version::TLS12][..], &[&version::TLS13]] {
        let mut hello = Vec::new();
        connection(setup.config(versions, None)).write_tls(&mut hello).expect("writing to memory");
        let mut stream = TcpStream::connect(setup.arena.tcp()).expect("the broker listens");
        stream.write_all(&hello).expect("just connected");
        assert_eq!(read_to_end(&mut stream), b"");
    }
    setup.arena.wait_until_left();
    setup.arena.finish(16 * MIB);
}

#[test]
fn row_31_client_certificates_that_are_missing_expired_or_of_another_authority_are_refused() {
    let mut setup = setup();
    let good = setup.clients.issue("device", &[], false);
    let expired = setup.clients.issue("device", &[], true);
    let foreign = Authority::new("clients").issue("device", &[], false);
    let servers = setup.servers.issue("device", &[], false);
    for versions in [&[&version::TLS12][..], &[&version::TLS13]] {
        assert!(setup.admits(versions, Some(&good)));
        for (name, identity) in [("expired", &expired), ("foreign", &foreign), ("of the servers' authority", &servers)]
        {
            assert!(!setup.admits(versions, Some(identity)), "a certificate that is {name} was accepted");
        }
        assert!(!setup.admits(versions, None), "no certificate was accepted");
        setup.arena.check();
    }
    setup.arena.broker.wait_for_metric("bifro_handshake_failures_total", |failures| failures >= 8.0);
    setup.arena.wait_until_left();
    setup.arena.finish(24 * MIB);
}

#[test]
fn row_31_a_handshake_that_breaks_off_or_never_ends_is_closed_at_the_deadline() {
    let mut setup = setup();
    let mut hello = Vec::new();
    connection(setup.config(&[&version::TLS13], None)).write_tls(&mut hello).expect("writing to memory");
    let mut stalled = Vec::new();
    for cut in [0, 1, 5, 6, hello.len() / 2, hello.len()] {
        let mut stream = TcpStream::connect(setup.arena.broker.nth_address("tls", 0)).expect("the broker listens");
        stream.write_all(&hello[..cut]).expect("just connected");
        stalled.push(stream);
    }
    // A record that announces more than a record may hold.
    let mut huge = TcpStream::connect(setup.arena.broker.nth_address("tls", 0)).expect("the broker listens");
    huge.write_all(&[22, 3, 1, 0xFF, 0xFF]).expect("just connected");
    read_to_end(&mut huge);
    // Handshake messages that announce 16 MB, filled as far as the broker takes it.
    let mut long = TcpStream::connect(setup.arena.broker.nth_address("tls", 0)).expect("the broker listens");
    long.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    let first = [&[22, 3, 1, 0x40, 0x00, 1, 0xFF, 0xFF, 0xFF][..], &[0; 0x4000 - 4]].concat();
    let more = [&[22, 3, 1, 0x40, 0x00][..], &[0; 0x4000]].concat();
    let taken = long.write_all(&first).is_ok() && (0..2000).all(|_| long.write_all(&more).is_ok());
    assert!(!taken, "32 MB of handshake were taken");
    for stream in &mut stalled {
        read_to_end(stream);
    }
    setup.arena.check();
    setup.arena.wait_until_left();
    setup.arena.finish(24 * MIB);
}

#[test]
fn row_31_nonsense_after_the_handshake_is_closed() {
    let mut setup = setup();
    for versions in [&[&version::TLS12][..], &[&version::TLS13]] {
        for nonsense in [&[23, 3, 3, 0, 32][..], &[21, 3, 3, 0, 2, 2, 40], &[0xFF; 5], &[23, 3, 3, 0xFF, 0xFF]] {
            let mut stream = setup.open(0, setup.config(versions, None)).expect("a handshake");
            stream.sock.write_all(&[nonsense, &[0; 64]].concat()).expect("connected");
            read_to_end(&mut stream.sock);
        }
        setup.arena.check();
    }
    setup.arena.wait_until_left();
    setup.arena.finish(16 * MIB);
}

/// Encrypts one record of a TLS 1.2 connection whose secrets have been taken out.
fn encrypter(suite: SupportedCipherSuite, secrets: ConnectionTrafficSecrets) -> Box<dyn MessageEncrypter> {
    let SupportedCipherSuite::Tls12(suite) = suite else { panic!("not a suite of TLS 1.2") };
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } | ConnectionTrafficSecrets::Aes256Gcm { key, iv } => {
            let (fixed, explicit) = iv.as_ref().split_at(4);
            suite.aead_alg.encrypter(key, fixed, explicit)
        }
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => suite.aead_alg.encrypter(key, iv.as_ref(), &[]),
        _ => panic!("secrets of an unknown cipher"),
    }
}

#[test]
fn row_31_a_client_that_renegotiates_again_and_again_is_closed() {
    let mut setup = setup();
    let mut hello = Vec::new();
    connection(setup.config(&[&version::TLS12], None)).write_tls(&mut hello).expect("writing to memory");
    let mut config = setup.config(&[&version::TLS12], None);
    config.enable_secret_extraction = true;
    let stream = setup.open(0, config).expect("a handshake");
    let suite = stream.conn.negotiated_cipher_suite().expect("the handshake is over");
    let StreamOwned { conn, mut sock, .. } = stream;
    let (mut sequence, secrets) = conn.dangerous_extract_secrets().expect("allowed above").tx;
    let mut encrypter = encrypter(suite, secrets);
    for _ in 0..20 {
        let record = OutboundPlainMessage {
            typ: ContentType::Handshake,
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(&hello[5..]),
        };
        let record = encrypter.encrypt(record, sequence).expect("within the limits of the key");
        sequence += 1;
        // An error means that the broker has closed already.
        let _ = sock.write_all(&record.encode());
    }
    // Alerts that say no, and the end: the connect deadline is longer than this takes.
    let answer = read_to_end(&mut sock);
    assert_eq!(answer.first(), Some(&21), "{answer:02x?}");
    setup.arena.check();
    setup.arena.wait_until_left();
    setup.arena.finish(16 * MIB);
}

#[test]
fn row_31_a_client_that_changes_its_keys_without_end_does_not_make_the_node_grow() {
    let mut setup = setup();
    let mut stream = setup.open(0, setup.config(&[&version::TLS13], None)).expect("a handshake");
    stream.write_all(&ConnectOptions::new(Version::V5, "fickle").encode()).expect("connected");
    for _ in 0..2000 {
        // Once the broker has had enough it closes.
        if stream.conn.refresh_traffic_keys().is_err() || stream.flush().is_err() {
            break;
        }
    }
    drop(stream);
    setup.arena.check();
    setup.arena.wait_until_left();
    setup.arena.finish(16 * MIB);
}
