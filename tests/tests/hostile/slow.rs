//! Row 19: clients that take their time, fall silent, or never read.

use crate::arena::{Arena, MIB, VERSIONS};
use crate::raw::packet;
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::reason::Reason;
use bifro_tests::client::Stream;
use bifro_tests::{Client, ConnectOptions};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

#[test]
fn row_19_a_connect_byte_by_byte_is_closed_at_the_deadline_and_not_later() {
    let mut arena = Arena::with(
        "connect_deadline_s = 1\n[[listener]]\nprotocol = \"ws\"\nbind = \"127.0.0.1:0\"\nconnect_deadline_s = 1\n",
    );
    let connect = packet(0x10, &[&crate::raw::field(b"MQTT"), &[5, 2, 0, 0, 0], &crate::raw::field(&[b'x'; 5000])]);
    let request = format!("GET /mqtt HTTP/1.1\r\n{}X: {}", crate::ws_client::UPGRADE, "x".repeat(5000));
    for (protocol, bytes) in [("tcp", connect.as_slice()), ("ws", request.as_bytes())] {
        let start = Instant::now();
        let mut streams: Vec<TcpStream> = (0..20)
            .map(|_| {
                let mut stream = TcpStream::connect(arena.broker.address(protocol)).expect("the broker listens");
                stream.set_timeout(Duration::from_millis(2));
                stream
            })
            .collect();
        for byte in bytes {
            // A read that times out sets the pace; one that does not is the end.
            streams.retain_mut(|stream| {
                let sent = stream.write_all(&[*byte]).is_ok();
                let open =
                    matches!(stream.read(&mut [0; 16]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
                sent && open
            });
            if streams.is_empty() {
                break;
            }
        }
        assert!(streams.is_empty(), "{} of 20 are still at it after {:?}", streams.len(), start.elapsed());
        assert!(start.elapsed() >= Duration::from_millis(900), "closed early, after {:?}", start.elapsed());
    }
    arena.check();
    arena.wait_until_left();
    arena.finish(16 * MIB);
}

/// [MQTT-3.1.2-24] [MQTT5-3.1.2-22]
#[test]
fn row_19_keep_alive_of_one_closes_the_silent_and_those_of_zero_and_65535_do_not() {
    let mut arena = Arena::new();
    let with = |version, keep_alive: u16| {
        let mut options = ConnectOptions::new(version, &format!("{version:?}-{keep_alive}"));
        options.keep_alive = keep_alive;
        Client::connect_with(arena.tcp(), &options).0
    };
    let mut patient: Vec<Client> =
        VERSIONS.into_iter().flat_map(|version| [0, u16::MAX].map(|keep_alive| with(version, keep_alive))).collect();
    for version in VERSIONS {
        let start = Instant::now();
        let mut silent = with(version, 1);
        silent.expect_disconnect(Reason::KEEP_ALIVE_TIMEOUT);
        let lasted = start.elapsed();
        assert!(lasted >= Duration::from_millis(1400), "{version:?}: closed after {lasted:?}");
        assert!(lasted < Duration::from_secs(4), "{version:?}: closed only after {lasted:?}");
    }
    for client in &mut patient {
        client.expect_silence();
    }
    arena.check();
    arena.finish(16 * MIB);
}

#[test]
fn row_19_a_peer_that_says_goodbye_by_half_is_let_go() {
    let arena = Arena::new();
    for version in VERSIONS {
        let stream = TcpStream::connect(arena.tcp()).expect("the broker listens");
        let mut options = ConnectOptions::new(version, "half");
        options.keep_alive = 0;
        options.will = Some(("row19/will".into(), b"gone".to_vec(), QoS::AtMostOnce, false, Vec::new()));
        let mut witness = arena.client(Version::V5, "witness");
        assert_eq!(witness.subscribe("row19/will", QoS::AtMostOnce), 0);
        let mut client = Client::over(Box::new(stream.try_clone().expect("a descriptor")), version);
        client.send_bytes(&options.encode());
        assert!(matches!(client.recv().packet(), Packet::ConnAck(_)));
        stream.shutdown(Shutdown::Write).expect("connected");
        client.expect_closed();
        assert!(matches!(witness.recv_publish().packet(), Packet::Publish(publish) if publish.payload == b"gone"));
    }
    // Nobody says a word, from the beginning.
    let mute = TcpStream::connect(arena.tcp()).expect("the broker listens");
    mute.shutdown(Shutdown::Write).expect("connected");
    arena.wait_until_left();
    arena.finish(16 * MIB);
}

#[test]
fn row_19_a_subscriber_that_never_reads_loses_qos_0_and_then_its_connection() {
    let mut arena = Arena::with("[limits]\nslow_subscriber_s = 1\nwrite_high_water_bytes = 16384\n");
    for version in VERSIONS {
        let closed_before = arena.broker.metric("bifro_slow_disconnects_total");
        let mut idle = arena.client(version, "never-reads");
        idle.subscribe("row19/bulk", QoS::AtMostOnce);
        let mut publisher = arena.client(Version::V5, "publisher");
        let payload = vec![7; 64 << 10];
        let deadline = Instant::now() + bifro_tests::PATIENCE;
        while arena.broker.metric("bifro_slow_disconnects_total") <= closed_before {
            assert!(Instant::now() < deadline, "{version:?}: never closed");
            for _ in 0..32 {
                publisher.publish("row19/bulk", &payload, QoS::AtMostOnce, false);
            }
            publisher.expect_silence();
        }
        assert!(arena.broker.metric("bifro_dropped_qos0_slow_total") > 0.0);
        arena.check();
    }
    arena.wait_until_left();
    arena.finish(48 * MIB);
}
