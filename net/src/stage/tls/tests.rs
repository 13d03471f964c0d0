//! TLS against a rustls client, in one piece and byte by byte; HOSTILE row 31.

use super::*;
use crate::stage::fixtures::*;
use crate::stage::{ListenerStages, Pipeline};
use proptest::prelude::*;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, CertificateError, InvalidMessage, PeerIncompatible, SupportedProtocolVersion};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

fn pipeline(stages: &ListenerStages) -> Box<Pipeline> {
    Pipeline::new(stages, peer("192.0.2.1:5000")).expect("a TLS stage")
}

/// The alert a client was closed with.
fn alert(client: &TlsClient) -> Option<AlertDescription> {
    match client.error {
        Some(rustls::Error::AlertReceived(alert)) => Some(alert),
        _ => None,
    }
}

#[test]
fn both_versions_carry_bytes_both_ways_however_they_are_split() {
    let authority = Authority::new();
    let stages = tls_stages(&[&authority.issue("localhost")], ClientAuth::Off);
    for version in VERSIONS {
        for step in [1, 7, usize::MAX] {
            let mut server = pipeline(&stages);
            let mut client = TlsClient::new(authority.client(None, version), "localhost");
            client.write(CONNECT);
            assert_eq!(client.converse(&mut server, step).expect("no error"), CONNECT);
            assert!(server.handshake_done());
            assert_eq!(server.client_certificate(), None);
            let mut net = Vec::new();
            server.send(&wire(b"\x20\x02\x00\x00"), &mut net).expect("sent");
            net.chunks(step).for_each(|piece| client.incoming(piece));
            assert_eq!(client.received, b"\x20\x02\x00\x00");
        }
    }
}

#[test]
fn an_idle_session_holds_no_buffer() {
    let authority = Authority::new();
    let stages = tls_stages(&[&authority.issue("localhost")], ClientAuth::Off);
    for version in VERSIONS {
        let mut server = pipeline(&stages);
        let mut client = TlsClient::new(authority.client(None, version), "localhost");
        client.write(&[7; 100_000]);
        assert_eq!(client.converse(&mut server, 1_500).expect("no error").len(), 100_000);
        assert_eq!(server.tls.as_ref().map(|tls| tls.pending.capacity()), Some(0));
    }
}

#[test]
fn large_wires_are_packed_into_full_records() {
    let authority = Authority::new();
    let stages = tls_stages(&[&authority.issue("localhost")], ClientAuth::Off);
    let mut server = pipeline(&stages);
    let mut client = TlsClient::new(authority.client(None, &TLS13), "localhost");
    client.converse(&mut server, usize::MAX).expect("no error");
    let plain: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut net = Vec::new();
    server.send(&wire(&plain), &mut net).expect("sent");
    assert!(net.len() < plain.len() + 7 * RECORD_EXTRA_BYTES, "7 records, not more");
    client.incoming(&net);
    assert_eq!(client.received, plain);
}

#[test]
fn the_certificate_is_chosen_by_name_with_the_first_as_default() {
    let authority = Authority::new();
    let (first, second) = (authority.issue("one.example"), authority.issue("*.two.example"));
    let stages = tls_stages(&[&first, &second], ClientAuth::Off);
    for version in VERSIONS {
        for (name, expected) in [("one.example", &first), ("a.two.example", &second)] {
            let mut client = TlsClient::new(authority.client(None, version), name);
            client.converse(&mut pipeline(&stages), usize::MAX).expect("no error");
            let presented = client.connection.peer_certificates().expect("a certificate");
            assert_eq!(presented, std::slice::from_ref(&expected.der));
        }
        let mut stranger = TlsClient::new(authority.client(None, version), "three.example");
        let error = stranger.converse(&mut pipeline(&stages), usize::MAX);
        assert!(matches!(stranger.error, Some(rustls::Error::InvalidCertificate(_))), "it got the default");
        assert!(error.is_err(), "and its alert reached us");
    }
}

#[test]
fn a_client_certificate_is_told_once_verified() {
    let authority = Authority::new();
    let (server, device) = (authority.issue("localhost"), authority.issue("device-1"));
    for version in VERSIONS {
        for client_auth in [ClientAuth::Optional(authority.pem()), ClientAuth::Required(authority.pem())] {
            let mut server = pipeline(&tls_stages(&[&server], client_auth));
            let mut client = TlsClient::new(authority.client(Some(&device), version), "localhost");
            assert_eq!(server.client_certificate(), None, "not before the handshake");
            client.converse(&mut server, 100).expect("no error");
            assert_eq!(server.client_certificate(), Some(device.der.as_ref()));
        }
    }
}

#[test]
fn a_missing_client_certificate_is_accepted_only_where_optional() {
    let authority = Authority::new();
    let identity = authority.issue("localhost");
    for version in VERSIONS {
        let mut server = pipeline(&tls_stages(&[&identity], ClientAuth::Optional(authority.pem())));
        let mut client = TlsClient::new(authority.client(None, version), "localhost");
        client.converse(&mut server, 100).expect("no error");
        assert_eq!((server.handshake_done(), server.client_certificate()), (true, None));

        let mut server = pipeline(&tls_stages(&[&identity], ClientAuth::Required(authority.pem())));
        let mut client = TlsClient::new(authority.client(None, version), "localhost");
        let error = client.converse(&mut server, 100).expect_err("refused");
        assert!(matches!(error, StageError::Tls(TlsError::Peer(rustls::Error::NoCertificatesPresented))), "{error}");
        assert!(alert(&client).is_some(), "the client is told");
    }
}

#[test]
fn self_signed_expired_and_foreign_client_certificates_are_refused() {
    let authority = Authority::new();
    let identity = authority.issue("localhost");
    let stages = tls_stages(&[&identity], ClientAuth::Optional(authority.pem()));
    let offers = [
        (Identity::self_signed("device-1"), AlertDescription::UnknownCA),
        (Authority::new().issue("device-1"), AlertDescription::DecryptError),
        (authority.issue_until("device-1", 2001), AlertDescription::CertificateExpired),
    ];
    for version in VERSIONS {
        for (offer, expected) in &offers {
            let mut server = pipeline(&stages);
            let mut client = TlsClient::new(authority.client(Some(offer), version), "localhost");
            client.write(CONNECT);
            let error = client.converse(&mut server, 100).expect_err("refused");
            let StageError::Tls(TlsError::Peer(rustls::Error::InvalidCertificate(reason))) = &error else {
                panic!("{error}");
            };
            let expired = matches!(reason, CertificateError::Expired | CertificateError::ExpiredContext { .. });
            assert_eq!(expired, *expected == AlertDescription::CertificateExpired);
            assert_eq!(alert(&client), Some(*expected));
            assert_eq!(server.client_certificate(), None);
            assert_eq!(
                (server.receive(CONNECT, &mut Vec::new(), &mut Vec::new())).ok(),
                Some(()),
                "ignored from now on"
            );
        }
    }
}

#[test]
fn a_client_below_the_minimum_version_is_refused_with_an_alert() {
    let authority = Authority::new();
    let certificates = vec![authority.issue("localhost").source()];
    let source = TlsSource { certificates, minimum: TlsVersion::Tls13, client_auth: ClientAuth::Off };
    let cell = TlsCell::new(load(&source).expect("a configuration"));
    let stages = ListenerStages { tls: Some(Arc::new(cell)), ..ListenerStages::default() };
    let mut client = TlsClient::new(authority.client(None, &TLS12), "localhost");
    let error = client.converse(&mut pipeline(&stages), usize::MAX).expect_err("refused");
    let StageError::Tls(TlsError::Peer(rustls::Error::PeerIncompatible(reason))) = error else { panic!("{error}") };
    assert_eq!(reason, PeerIncompatible::Tls12NotOfferedOrEnabled);
    assert_eq!(alert(&client), Some(AlertDescription::ProtocolVersion));
}

#[test]
fn plain_mqtt_on_the_tls_port_gets_a_fatal_alert() {
    let stages = tls_stages(&[&Authority::new().issue("localhost")], ClientAuth::Off);
    for step in [1, usize::MAX] {
        let (mut server, mut app, mut net) = (pipeline(&stages), Vec::new(), Vec::new());
        let mut pieces = CONNECT.chunks(step);
        let error = pieces.find_map(|piece| server.receive(piece, &mut app, &mut net).err()).expect("refused");
        let expected = rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType);
        assert!(matches!(&error, StageError::Tls(TlsError::Peer(error)) if *error == expected), "{error}");
        assert_eq!(net[..3], [0x15, 3, 3], "an alert record");
        assert_eq!(net[5], 2, "fatal");
        assert!(app.is_empty());
    }
}

#[test]
fn a_reload_applies_to_new_connections_and_leaves_live_ones_alone() {
    let (old, new) = (Authority::new(), Authority::new());
    let stages = tls_stages(&[&old.issue("localhost")], ClientAuth::Off);
    let mut live = pipeline(&stages);
    let mut live_client = TlsClient::new(old.client(None, &TLS13), "localhost");
    live_client.converse(&mut live, usize::MAX).expect("no error");

    let reloaded = tls_stages(&[&new.issue("localhost")], ClientAuth::Off);
    let cell = stages.tls.as_ref().expect("a TLS stage");
    cell.replace(reloaded.tls.expect("a TLS stage").current());

    live_client.write(CONNECT);
    assert_eq!(live_client.converse(&mut live, usize::MAX).expect("no error"), CONNECT);
    let mut client = TlsClient::new(new.client(None, &TLS13), "localhost");
    client.converse(&mut pipeline(&stages), usize::MAX).expect("the new certificate");
    let mut client = TlsClient::new(old.client(None, &TLS13), "localhost");
    assert!(client.converse(&mut pipeline(&stages), usize::MAX).is_err(), "the old one is gone");
}

#[test]
fn sessions_resume_by_ticket_unless_client_certificates_are_verified() {
    let authority = Authority::new();
    let identity = authority.issue("localhost");
    for (client_auth, expected) in [(ClientAuth::Off, true), (ClientAuth::Optional(authority.pem()), false)] {
        let stages = tls_stages(&[&identity], client_auth);
        for version in VERSIONS {
            let config = authority.client(None, version);
            let kinds: Vec<_> = (0..2)
                .map(|_| {
                    let mut client = TlsClient::new(config.clone(), "localhost");
                    client.converse(&mut pipeline(&stages), usize::MAX).expect("no error");
                    client.connection.handshake_kind().expect("done")
                })
                .collect();
            assert_eq!(kinds[1] == rustls::HandshakeKind::Resumed, expected, "{version:?}");
        }
    }
}

#[test]
fn closing_says_close_notify_once_and_ends_sending() {
    let authority = Authority::new();
    let stages = tls_stages(&[&authority.issue("localhost")], ClientAuth::Off);
    for version in VERSIONS {
        let mut server = pipeline(&stages);
        let mut client = TlsClient::new(authority.client(None, version), "localhost");
        client.converse(&mut server, usize::MAX).expect("no error");
        let mut net = Vec::new();
        server.close(&mut net);
        let once = net.len();
        server.close(&mut net);
        assert_eq!(net.len(), once);
        client.incoming(&net);
        assert!(client.closed);
        assert!(matches!(server.send(&wire(b"\xd0\0"), &mut net), Err(StageError::Closed)));
    }
}

#[test]
fn a_peers_close_notify_ends_the_connection_after_its_last_bytes() {
    let authority = Authority::new();
    let stages = tls_stages(&[&authority.issue("localhost")], ClientAuth::Off);
    for version in VERSIONS {
        let mut server = pipeline(&stages);
        let mut client = TlsClient::new(authority.client(None, version), "localhost");
        client.converse(&mut server, usize::MAX).expect("no error");
        client.write(b"\xe0\0");
        client.connection.send_close_notify();
        assert_eq!(client.converse(&mut server, usize::MAX).expect("no error"), b"\xe0\0");
        assert!(server.peer_closed());
        assert!(client.closed, "answered in kind");
    }
}

#[test]
fn nothing_is_sent_before_the_handshake_is_over() {
    let stages = tls_stages(&[&Authority::new().issue("localhost")], ClientAuth::Off);
    let (mut server, mut net) = (pipeline(&stages), Vec::new());
    assert!(matches!(server.send(&wire(b"\xd0\0"), &mut net), Err(StageError::HandshakeIncomplete)));
    server.close(&mut net);
    assert!(net.is_empty());
}

#[test]
fn a_handshake_message_longer_than_allowed_is_refused_before_it_is_held() {
    let stages = tls_stages(&[&Authority::new().issue("localhost")], ClientAuth::Off);
    let (mut server, mut app, mut net) = (pipeline(&stages), Vec::new(), Vec::new());
    // A ClientHello of 16 MiB - 1, in records of 16 KiB.
    let mut record = vec![0x16, 3, 1, 0x40, 0, 1, 0xFF, 0xFF, 0xFF];
    record.resize(5 + (16 << 10), 0);
    let refused = (0..8).find_map(|_| {
        let result = server.receive(&record, &mut app, &mut net);
        record[5..9].fill(0);
        assert!(server.tls.as_ref().is_some_and(|tls| tls.pending.len() <= TLS_PENDING_BYTES_MAX));
        result.err()
    });
    assert!(matches!(refused, Some(StageError::Tls(_))));
}

#[test]
fn unusable_files_are_named_with_the_reason() {
    let authority = Authority::new();
    let (good, other) = (authority.issue("localhost"), authority.issue("localhost"));
    let text = |chain: &str, key: &str| {
        let certificates = vec![CertificateSource { chain: pem("chain.pem", chain), key: pem("key.pem", key) }];
        load(&TlsSource { certificates, ..TlsSource::default() }).expect_err("unusable").to_string()
    };
    let key = good.key.serialize_pem();
    assert!(text("", &key).starts_with("chain.pem: no usable certificate"));
    assert!(text("-----BEGIN CERTIFICATE-----\n!\n", &key).starts_with("chain.pem: no usable certificate"));
    assert!(text(&good.chain, "").starts_with("key.pem: no usable private key"));
    assert!(text(&good.chain, &other.key.serialize_pem()).starts_with("chain.pem: "), "key of another certificate");
    assert!(text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key).starts_with("chain.pem: "));
    let none = load(&TlsSource::default()).expect_err("unusable").to_string();
    assert_eq!(none, "between 1 and 64 certificates are needed, not 0");
    for file in [pem("ca.pem", ""), pem("ca.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")] {
        let client_auth = ClientAuth::Required(file);
        let source = TlsSource { certificates: vec![good.source()], client_auth, ..TlsSource::default() };
        assert!(load(&source).expect_err("unusable").to_string().starts_with("ca.pem: "));
    }
    let missing = PemFile::read(std::path::Path::new("/nonexistent/key.pem")).expect_err("missing");
    assert_eq!(missing.to_string(), "/nonexistent/key.pem: cannot be read");
}

/// Damage done to what a client sends, counted from its first byte.
#[derive(Clone, Debug)]
enum Damage {
    Flip(u8),
    Insert(Vec<u8>),
    Remove(usize),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>, at: usize) {
        match self {
            Self::Flip(bits) => bytes[at] ^= bits,
            Self::Insert(more) => drop(bytes.splice(at..at, more.iter().copied())),
            Self::Remove(length) => drop(bytes.drain(at..bytes.len().min(at + length))),
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (1..=u8::MAX).prop_map(Damage::Flip),
        proptest::collection::vec(any::<u8>(), 1..40).prop_map(Damage::Insert),
        // A whole record, of each kind that a handshake has.
        (20_u8..25, 0_u8..20).prop_map(|(kind, length)| {
            let body = std::iter::repeat_n(kind, usize::from(length));
            Damage::Insert([kind, 3, 3, 0, length].into_iter().chain(body).collect())
        }),
        (1_usize..60).prop_map(Damage::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_damaged_conversation_ends_in_an_error_or_in_waiting_and_never_forges_bytes(
        damage in damage(), at in 0_usize..3_000, step in 1_usize..600, modern: bool, certified: bool,
    ) {
        let authority = Authority::new();
        let device = authority.issue("device-1");
        let client_auth = if certified { ClientAuth::Required(authority.pem()) } else { ClientAuth::Off };
        let mut server = pipeline(&tls_stages(&[&authority.issue("localhost")], client_auth));
        let config = authority.client(certified.then_some(&device), if modern { &TLS13 } else { &TLS12 });
        let mut client = TlsClient::new(config, "localhost");
        let plain = [7; 1_500];
        client.write(&plain);
        let (mut app, mut sent) = (Vec::new(), 0);
        loop {
            let (mut up, mut net) = (client.outgoing(), Vec::new());
            if up.is_empty() {
                break;
            }
            let within = at.wrapping_sub(sent);
            sent += up.len();
            if within < up.len() {
                damage.apply(&mut up, within);
            }
            let failed = up.chunks(step).any(|piece| server.receive(piece, &mut app, &mut net).is_err());
            if server.handshake_done() {
                // It may have failed, or not: neither call may do more than say so.
                let _closed = server.send(&wire(b"\xd0\0"), &mut net);
            }
            client.incoming(&net);
            if failed {
                server.close(&mut net);
                break;
            }
        }
        prop_assert!(plain.starts_with(&app));
    }

    #[test]
    fn arbitrary_bytes_instead_of_a_handshake_end_in_an_error_or_in_waiting(
        bytes in proptest::collection::vec(any::<u8>(), 0..400), handshake: bool, step in 1_usize..50,
    ) {
        let stages = tls_stages(&[&Identity::self_signed("localhost")], ClientAuth::Off);
        let (mut server, mut app, mut net) = (pipeline(&stages), Vec::new(), Vec::new());
        let prefix: &[u8] = if handshake { &[0x16, 3, 1, 1, 0, 1] } else { &[] };
        for piece in [prefix, &bytes].concat().chunks(step) {
            if server.receive(piece, &mut app, &mut net).is_err() {
                break;
            }
        }
        prop_assert!(app.is_empty() && !server.handshake_done());
    }

    #[test]
    fn any_split_of_the_clients_records_gives_the_same_bytes(
        plain in proptest::collection::vec(any::<u8>(), 1..20_000), step in 1_usize..3_000, modern: bool,
    ) {
        let authority = Authority::new();
        let stages = tls_stages(&[&authority.issue("localhost")], ClientAuth::Off);
        let mut server = pipeline(&stages);
        let version = if modern { &TLS13 } else { &TLS12 };
        let mut client = TlsClient::new(authority.client(None, version), "localhost");
        client.write(&plain);
        prop_assert_eq!(client.converse(&mut server, step).expect("no error"), plain);
    }
}
