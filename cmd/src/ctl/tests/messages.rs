//! `bifroctl pub` and `bifroctl sub` against a scripted broker.

use super::broker::{Broker, Peer, ack, because, nothing, packet_id};
use super::{Run, bifroctl, is_refused};
use crate::auth::testing::TempFile;
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::{Disconnect, Packet};
use bifro_mqtt::property::{Properties, PropertyId};
use bifro_mqtt::reason::Reason;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

fn run(port: &str, args: &[&str]) -> Run {
    run_with(port, args, b"")
}

fn run_with(port: &str, args: &[&str], input: &[u8]) -> Run {
    bifroctl(&[&args[..1], &["-H", "127.0.0.1", "-p", port], &args[1..]].concat(), input, &[])
}

/// Takes messages, acknowledging each, until DISCONNECT; returns payloads.
fn take_all<S: Read + Write>(peer: &mut Peer<S>) -> Vec<String> {
    let mut payloads = Vec::new();
    loop {
        let next = peer.next(|packet| match packet {
            Packet::Publish(publish) => Some((publish.qos, publish.packet_id, publish.payload.to_vec())),
            Packet::Disconnect(_) => None,
            other => panic!("unexpected {other:?}"),
        });
        let (qos, id, payload) = match next {
            Some(Some(publish)) => publish,
            Some(None) => return payloads,
            None => panic!("closed without DISCONNECT"),
        };
        payloads.push(String::from_utf8(payload).expect("text"));
        match (qos, id) {
            (QoS::AtMostOnce, None) => {}
            (QoS::AtLeastOnce, Some(id)) => peer.send(&Packet::PubAck(ack(id, Reason::SUCCESS))),
            (QoS::ExactlyOnce, Some(id)) => {
                peer.send(&Packet::PubRec(ack(id, Reason::SUCCESS)));
                peer.next(|packet| assert!(matches!(packet, Packet::PubRel(rel) if rel.packet_id == id)));
                peer.send(&Packet::PubComp(ack(id, Reason::SUCCESS)));
            }
            other => panic!("QoS and identifier do not go together: {other:?}"),
        }
    }
}

fn collector() -> Broker<Vec<String>> {
    Broker::start(|mut peer| {
        peer.accept(Reason::SUCCESS, nothing);
        take_all(&mut peer)
    })
}

#[test]
fn a_message_is_published_at_every_qos_and_version() {
    for version in ["3.1.1", "5"] {
        for qos in ["0", "1", "2"] {
            let broker = collector();
            let sent = run(&broker.port, &["pub", "-V", version, "-q", qos, "-t", "a/b", "-m", "hello", "-C", "3"]);
            sent.result.unwrap_or_else(|error| panic!("{version} {qos}: {error}"));
            assert_eq!(broker.finish(), ["hello"; 3]);
        }
    }
}

#[test]
fn the_payload_comes_from_where_it_is_said_to_come() {
    let file = TempFile::new("from file\n");
    let path = file.path().display().to_string();
    for (source, expected) in [
        (&["-s"][..], &["line 1\nline 2"][..]),
        (&["-l"], &["line 1", "line 2"]),
        (&["-n"], &[""]),
        (&["-f", &path], &["from file\n"]),
    ] {
        let broker = collector();
        let args = [&["pub", "-t", "a"][..], source].concat();
        run_with(&broker.port, &args, b"line 1\nline 2").result.expect("published");
        assert_eq!(broker.finish(), expected);
    }
    assert!(is_refused(&["pub", "-t", "a"]), "one source is needed");
    assert!(is_refused(&["pub", "-t", "a", "-m", "x", "-n"]), "and one is enough");
}

/// [MQTT-3.1.2-22]
#[test]
fn credentials_and_client_id_stand_in_connect() {
    let broker = Broker::start(|mut peer| {
        peer.next(|packet| match packet {
            Packet::Connect(connect) => {
                let password = connect.password.map(<[u8]>::to_vec);
                (connect.version, connect.client_id.to_owned(), connect.username.map(str::to_owned), password)
            }
            other => panic!("unexpected {other:?}"),
        })
    });
    let password = TempFile::new("s3cret\n");
    let path = password.path().display().to_string();
    let args = ["pub", "-V", "3.1.1", "-t", "a", "-n", "-u", "alice", "--password-file", &path, "-i", "c7"];
    assert!(run(&broker.port, &args).error().contains("connection lost while waiting for CONNACK"));
    let expected = (Version::V311, "c7".to_owned(), Some("alice".to_owned()), Some(b"s3cret".to_vec()));
    assert_eq!(broker.finish(), Some(expected));
    let without_user = run("1", &["pub", "-V", "3.1.1", "-t", "a", "-n", "-P", "x"]);
    assert!(without_user.error().contains("--username"));
}

#[test]
fn a_refusal_says_what_was_refused_and_why() {
    let broker = Broker::start(|mut peer| peer.accept(Reason::BAD_USER_NAME_OR_PASSWORD, because("no such user")));
    let error = run(&broker.port, &["pub", "-t", "a", "-n"]).error();
    assert!(error.contains("refused the connection: 0x86 BAD_USER_NAME_OR_PASSWORD (no such user)"), "{error}");
    broker.finish();
    let broker = Broker::start(|mut peer| peer.accept(Reason::NOT_AUTHORIZED, nothing));
    let error = run(&broker.port, &["pub", "-V", "3.1.1", "-t", "a", "-n"]).error();
    assert!(error.contains("0x87 NOT_AUTHORIZED"), "the return code 5 of MQTT 3.1.1: {error}");
    broker.finish();
    for qos in ["1", "2"] {
        let broker = Broker::start(move |mut peer| {
            peer.accept(Reason::SUCCESS, nothing);
            peer.next(|_| ());
            let refusal = ack(packet_id(1), Reason::QUOTA_EXCEEDED);
            peer.send(&if qos == "1" { Packet::PubAck(refusal) } else { Packet::PubRec(refusal) });
            peer.next(|_| ()).is_none()
        });
        let error = run(&broker.port, &["pub", "-q", qos, "-t", "a/b", "-n"]).error();
        assert!(error.contains("refused the message to a/b: 0x97"), "{error}");
        assert!(broker.finish(), "nothing follows the refusal");
    }
}

/// [MQTT5-3.2.2-11] [MQTT5-3.2.2-14] [MQTT5-3.2.2-15]
#[test]
fn what_the_broker_does_not_accept_is_not_sent() {
    let strict = || {
        Broker::start(|mut peer| {
            peer.accept(Reason::SUCCESS, |writer| {
                writer.byte(PropertyId::MaximumQos, 1).byte(PropertyId::RetainAvailable, 0);
                writer.u32(PropertyId::MaximumPacketSize, 40);
            });
            peer.next(|packet| matches!(packet, Packet::Publish(_)))
        })
    };
    let long = "x".repeat(50);
    for (args, problem) in
        [(&["-q", "2", "-n"][..], "lower --qos"), (&["-r", "-n"], "leave out --retain"), (&["-m", &long], "accepts 40")]
    {
        let broker = strict();
        let error = run(&broker.port, &[&["pub", "-t", "a"][..], args].concat()).error();
        assert!(error.contains(problem), "{error}");
        assert_eq!(broker.finish(), None, "not even tried");
    }
}

#[test]
fn topics_and_filters_are_checked_before_connecting() {
    for topic in ["", "a/#", "a\u{0}b"] {
        assert!(run("1", &["pub", "-t", topic, "-n"]).error().contains("no topic name"));
    }
    for filter in ["", "a/#/b", "a+", "$share//x"] {
        assert!(run("1", &["sub", "-t", filter]).error().contains("no topic filter"));
    }
    assert!(is_refused(&["pub", "-t", "a", "-n", "-q", "3"]));
}

#[test]
fn a_port_without_a_broker_says_so() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let error = run(&free.port().to_string(), &["pub", "-t", "a", "-n"]).error();
    assert!(error.contains("cannot connect") && error.contains(&free.port().to_string()), "{error}");
    let silent = Broker::start(|mut peer| peer.next(|_| ()).and_then(|()| peer.next(|_| ())));
    let error = run(&silent.port, &["pub", "-t", "a", "-n", "--timeout", "1"]).error();
    assert!(error.contains("no answer while waiting for CONNACK"), "{error}");
    silent.finish();
    let web = Broker::start(|mut peer| peer.send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    let error = run(&web.port, &["pub", "-t", "a", "-n"]).error();
    assert!(error.contains("does not speak MQTT") || error.contains("connection lost"), "{error}");
    web.finish();
}

/// [MQTT-3.8.4-5] [MQTT5-3.8.4-6] [MQTT-4.3.3-2] [MQTT5-4.3.3-10]
#[test]
fn a_subscription_prints_messages_and_acknowledges_them() {
    for version in ["3.1.1", "5"] {
        let broker = Broker::start(|mut peer| {
            peer.accept(Reason::SUCCESS, nothing);
            let filters = peer.next(|packet| match packet {
                Packet::Subscribe(subscribe) => {
                    subscribe.filters.iter().map(|filter| (filter.filter.to_owned(), filter.qos)).collect::<Vec<_>>()
                }
                other => panic!("unexpected {other:?}"),
            });
            // A message may overtake SUBACK (section 3.8.4).
            peer.publish("a/0", b"zero", QoS::AtMostOnce, 1, false);
            peer.suback(packet_id(1), &[2, 2]);
            peer.publish("a/1", b"one", QoS::AtLeastOnce, 7, false);
            peer.next(|packet| assert!(matches!(packet, Packet::PubAck(ack) if ack.packet_id == packet_id(7))));
            for dup in [false, true] {
                peer.publish("a/2", b"two", QoS::ExactlyOnce, 8, dup);
                peer.next(|packet| assert!(matches!(packet, Packet::PubRec(ack) if ack.packet_id == packet_id(8))));
            }
            peer.send(&Packet::PubRel(ack(packet_id(8), Reason::SUCCESS)));
            peer.next(|packet| assert!(matches!(packet, Packet::PubComp(ack) if ack.packet_id == packet_id(8))));
            peer.publish("b", b"\xc3\xa9", QoS::AtMostOnce, 1, false);
            peer.next(|packet| assert!(matches!(packet, Packet::Disconnect(_))));
            filters
        });
        let args = ["sub", "-V", version, "-t", "a/#", "-t", "b", "-q", "2", "-v", "-C", "4"];
        let printed = run(&broker.port, &args);
        assert_eq!(printed.output, "a/0 zero\na/1 one\na/2 two\nb é\n", "{:?}", printed.result);
        printed.result.expect("ends after four messages");
        assert!(printed.notes.contains("subscribed to a/#, b"));
        let asked = [("a/#".to_owned(), QoS::ExactlyOnce), ("b".to_owned(), QoS::ExactlyOnce)];
        assert_eq!(broker.finish().as_deref(), Some(&asked[..]));
    }
}

#[test]
fn a_refused_subscription_and_a_disconnect_end_with_the_reason() {
    let broker = Broker::start(|mut peer| {
        peer.accept(Reason::SUCCESS, nothing);
        peer.next(|_| ());
        peer.suback(packet_id(1), &[0, Reason::NOT_AUTHORIZED.0]);
    });
    let error = run(&broker.port, &["sub", "-t", "a", "-t", "secret"]).error();
    assert!(error.contains("refused the subscription to secret: 0x87"), "{error}");
    broker.finish();
    let broker = Broker::start(|mut peer| {
        peer.accept(Reason::SUCCESS, nothing);
        peer.next(|_| ());
        peer.suback(packet_id(1), &[0]);
        let properties = Properties::default();
        peer.send(&Packet::Disconnect(Disconnect { reason: Reason::SERVER_SHUTTING_DOWN, properties }));
    });
    let error = run(&broker.port, &["sub", "-t", "a"]).error();
    assert!(error.contains("0x8b SERVER_SHUTTING_DOWN"), "{error}");
    broker.finish();
}

/// [MQTT-3.1.2-23] [MQTT5-3.1.2-20] [MQTT5-3.1.2-21]
#[test]
fn an_idle_subscription_is_kept_alive_as_the_broker_asks() {
    let broker = Broker::start(|mut peer| {
        peer.accept(Reason::SUCCESS, |writer| {
            writer.u16(PropertyId::ServerKeepAlive, 1);
        });
        peer.next(|_| ());
        peer.suback(packet_id(1), &[0]);
        for _ in 0..2 {
            peer.next(|packet| assert!(matches!(packet, Packet::PingReq), "{packet:?}"));
            peer.send(&Packet::PingResp);
        }
        peer.publish("a", b"after", QoS::AtMostOnce, 1, false);
        peer.next(|packet| matches!(packet, Packet::Disconnect(_)))
    });
    assert_eq!(run(&broker.port, &["sub", "-t", "a", "-C", "1"]).output, "after\n");
    assert_eq!(broker.finish(), Some(true));
}

/// A server's side of TLS with a certificate for 127.0.0.1, and the certificate in PEM.
fn tls_server() -> (impl FnOnce(TcpStream) -> rustls::StreamOwned<rustls::ServerConnection, TcpStream>, TempFile) {
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .expect("a matching key");
    let connection = rustls::ServerConnection::new(Arc::new(config)).expect("a connection");
    (move |socket| rustls::StreamOwned::new(connection, socket), TempFile::new(&certified.cert.pem()))
}

#[test]
fn tls_is_trusted_by_authority_or_on_demand_and_not_otherwise() {
    let script = |mut peer: Peer<_>| {
        peer.accept(Reason::SUCCESS, nothing);
        take_all(&mut peer)
    };
    let (wrap, pem) = tls_server();
    let broker = Broker::start_with(wrap, script);
    let cafile = pem.path().display().to_string();
    run(&broker.port, &["pub", "-t", "a", "-m", "x", "-q", "1", "--cafile", &cafile]).result.expect("trusted");
    assert_eq!(broker.finish(), ["x"]);
    let (wrap, _pem) = tls_server();
    let broker = Broker::start_with(wrap, script);
    run(&broker.port, &["pub", "-t", "a", "-m", "y", "--insecure"]).result.expect("not checked");
    assert_eq!(broker.finish(), ["y"]);
    for (args, problem) in [(&["--tls"][..], "certificate"), (&["--cafile", &cafile], "certificate")] {
        let (wrap, _pem) = tls_server();
        let broker = Broker::start_with(wrap, |mut peer| peer.next(|_| ()).is_none());
        let error = run(&broker.port, &[&["pub", "-t", "a", "-n"][..], args].concat()).error();
        assert!(error.contains("no TLS connection") && error.contains(problem), "{error}");
        assert!(broker.finish(), "nothing was said to a stranger");
    }
    let garbage = TempFile::new("garbage");
    let path = garbage.path().display().to_string();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port().to_string();
    assert!(run(&port, &["pub", "-t", "a", "-n", "--cafile", &path]).error().contains("no certificate in it"));
}
