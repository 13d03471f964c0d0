//! Rows 4 and 29: much of the same, sent by those who never read, never release, or have not even said who they are.

use crate::arena::{Arena, MIB, VERSIONS};
use crate::raw::{PINGREQ, block, field, packet};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::{Packet, PacketId};
use bifro_mqtt::reason::Reason;
use bifro_tests::client::AckKind;
use bifro_tests::{Broker, Client, ConnectOptions, PATIENCE};
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// A PUBLISH with QoS 2 and this packet identifier.
fn publish_qos2(version: Version, topic: &str, packet_id: u16) -> Vec<u8> {
    packet(0x34, &[&field(topic.as_bytes()), &packet_id.to_be_bytes(), &block(version, &[]), b"flood"])
}

/// Sends a ping and reads up to its answer; returns how many PUBRECs came before it.
fn count_pubrecs(client: &mut Client) -> u32 {
    client.send_bytes(&PINGREQ);
    let mut pubrecs = 0;
    loop {
        let received = client.recv();
        match received.packet() {
            Packet::PubRec(_) => pubrecs += 1,
            Packet::PingResp => return pubrecs,
            _ => panic!("unexpected: {received:?}"),
        }
    }
}

/// [MQTT-4.3.3-2] [MQTT5-4.3.3-10]
#[test]
fn row_04_qos2_flood_with_one_packet_id_and_no_pubrel_is_one_message() {
    let mut arena = Arena::new();
    for version in VERSIONS {
        let topic = format!("row04/{version:?}");
        let mut witness = arena.client(Version::V5, "witness");
        assert_eq!(witness.subscribe(&topic, QoS::ExactlyOnce), 2);
        let mut client = arena.client(version, "offender");
        let burst = publish_qos2(version, &topic, 1).repeat(500);
        let mut pubrecs = 0;
        for _ in 0..20 {
            client.send_bytes(&burst);
            pubrecs += count_pubrecs(&mut client);
        }
        assert!((1..=10_000).contains(&pubrecs), "{pubrecs} PUBRECs");
        witness.recv_publish();
        // The first PUBRECs may still have been on their way.
        count_pubrecs(&mut client);
        let id = PacketId::MIN;
        client.ack(AckKind::PubRel, id);
        assert!(
            matches!(client.recv().packet(), Packet::PubComp(ack) if ack.packet_id == id && !ack.reason.is_error())
        );
        witness.expect_silence();
        // Once released the identifier is good for another message.
        client.send_bytes(&publish_qos2(version, &topic, 1));
        assert!(matches!(client.recv().packet(), Packet::PubRec(ack) if ack.packet_id == id && !ack.reason.is_error()));
        witness.recv_publish();
        witness.disconnect();
        arena.check();
    }
    arena.finish(16 * MIB);
}

/// [MQTT5-3.3.4-7] [MQTT5-3.3.4-9]
#[test]
fn row_04_qos2_flood_with_many_packet_ids_and_no_pubrel_is_held_to_receive_maximum() {
    let mut arena = Arena::new();
    let mut client = arena.client(Version::V5, "offender");
    for id in 1..=65 {
        client.send_bytes(&publish_qos2(Version::V5, "row04/many", id));
    }
    client.expect_disconnect(Reason::RECEIVE_MAXIMUM_EXCEEDED);
    // Older versions know no such limit: what is kept for each identifier is its number.
    for version in [Version::V31, Version::V311] {
        let mut client = arena.client(version, "offender");
        let mut pubrecs = 0;
        for start in (1..=10_000_u16).step_by(500) {
            let burst: Vec<u8> = (start..start + 500).flat_map(|id| publish_qos2(version, "row04/many", id)).collect();
            client.send_bytes(&burst);
            for _ in 0..500 {
                assert!(matches!(client.recv().packet(), Packet::PubRec(_)));
                pubrecs += 1;
            }
        }
        assert_eq!(pubrecs, 10_000);
        arena.check();
    }
    arena.finish(16 * MIB);
}

/// A broker whose budget is the smallest there is.
fn small() -> Arena {
    Arena::with("[limits]\nslow_subscriber_s = 2\n[node]\nmemory_budget_mib = 64\n")
}

/// Writes until the broker does not read any more, has closed, or has taken `bytes_max`.
fn write_blindly(stream: &mut TcpStream, chunk: &[u8], bytes_max: usize) -> usize {
    stream.set_write_timeout(Some(Duration::from_millis(300))).expect("a positive timeout");
    let mut written = 0;
    while written < bytes_max {
        match stream.write(chunk) {
            Ok(n) if n > 0 => written += n,
            _ => break,
        }
    }
    written
}

#[test]
fn row_29_small_packets_before_authentication_are_not_kept() {
    let mut arena = small();
    // Each begins well and goes on with what may only follow CONNACK; none reads a byte.
    let mut connect = ConnectOptions::new(Version::V311, "").encode();
    connect.extend(PINGREQ.repeat(30_000));
    let offenders: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(arena.tcp()).expect("the broker listens");
            write_blindly(&mut stream, &connect, connect.len());
            stream
        })
        .collect();
    arena.check();
    let growth = arena.growth();
    assert!(growth < 64 * MIB, "{growth} bytes for packets that came with CONNECT");
    drop(offenders);
    arena.wait_until_left();
    arena.finish(64 * MIB);
}

/// Keeps what the kernel holds for a socket that nobody reads small.
fn shrink_receive_buffer(stream: &TcpStream) {
    let bytes: libc::c_int = 4096;
    let length = libc::socklen_t::try_from(size_of_val(&bytes)).expect("four");
    // SAFETY: the pointer is to an int of the length given, and the descriptor is the stream's.
    let set = unsafe {
        libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, (&raw const bytes).cast(), length)
    };
    assert_eq!(set, 0);
}

#[test]
fn row_29_answers_that_are_never_read_do_not_gather_without_end() {
    let mut arena = Arena::with("[limits]\nwrite_high_water_bytes = 65536\n");
    let pubrels: Vec<u8> = [0x62, 2, 0, 1].repeat(16_384);
    let pings = PINGREQ.repeat(32_768);
    let limit = 24 << 20;
    for (version, chunk) in [(Version::V31, &pings), (Version::V311, &pubrels), (Version::V5, &pings)] {
        let mut stream = TcpStream::connect(arena.tcp()).expect("the broker listens");
        shrink_receive_buffer(&stream);
        stream.write_all(&ConnectOptions::new(version, "offender").encode()).expect("the broker reads");
        let written = write_blindly(&mut stream, chunk, limit);
        assert!(written < limit, "{version:?}: the broker reads on although nobody reads its answers");
        arena.check();
        let growth = arena.growth();
        assert!(growth < 16 * MIB, "{version:?}: {growth} bytes for answers that nobody reads");
        // Whoever reads after all is served on.
        let mut client = Client::over(Box::new(stream), version);
        assert!(matches!(client.recv().packet(), Packet::ConnAck(_)));
        for _ in 0..10_000 {
            let received = client.recv();
            assert!(matches!(received.packet(), Packet::PingResp | Packet::PubComp(_)), "{received:?}");
        }
    }
    arena.wait_until_left();
    arena.finish(24 * MIB);
}

#[test]
fn row_29_many_small_messages_to_one_who_never_reads_are_dropped_within_the_budget() {
    let mut arena = small();
    let mut idle = arena.client(Version::V5, "never-reads");
    assert_eq!(idle.subscribe("row29/#", QoS::AtLeastOnce), 1);
    let mut offender = arena.client(Version::V5, "offender");
    let one = packet(0x30, &[&field(b"row29/small"), &block(Version::V5, &[]), &[7; 32]]);
    let burst = one.repeat(1000);
    for round in 0..120 {
        offender.send_bytes(&burst);
        if round % 20 == 0 {
            offender.expect_silence();
            arena.check();
        }
    }
    offender.expect_silence();
    let growth = arena.growth();
    assert!(growth < 96 * MIB, "the node has grown by {growth} bytes");
    drop(idle);
    arena.finish(96 * MIB);
}

#[test]
fn row_29_many_small_messages_for_one_who_is_away_are_kept_up_to_the_limit() {
    let mut arena = small();
    for (version, properties) in [(Version::V5, vec![17, 0, 0, 1, 0]), (Version::V311, vec![])] {
        let mut options = ConnectOptions::new(version, "away");
        options.clean = false;
        options.properties = properties;
        let (mut away, _) = Client::connect_with(arena.tcp(), &options);
        assert_eq!(away.subscribe("row29/#", QoS::AtLeastOnce), 1);
        away.disconnect();
        let mut offender = arena.client(Version::V311, "offender");
        for number in 0..100_u16 {
            let burst: Vec<u8> = (0..60_u16)
                .flat_map(|n| {
                    let id = (number * 60 + n + 1).to_be_bytes();
                    packet(0x32, &[&field(b"row29/away"), &id, &[7; 32]])
                })
                .collect();
            offender.send_bytes(&burst);
            for _ in 0..60 {
                assert!(matches!(offender.recv().packet(), Packet::PubAck(_)));
            }
        }
        let held = arena.broker.metric("bifro_inbox_messages");
        assert!((1.0..=1000.0).contains(&held), "{held} messages are queued");
        arena.check();
        options.clean = true;
        Client::connect_with(arena.tcp(), &options).0.disconnect();
        arena.broker.wait_for_metric("bifro_inbox_messages", |held| held == 0.0);
    }
    arena.finish(32 * MIB);
}

#[test]
fn row_29_wrong_credentials_in_a_storm_cost_a_bounded_amount() {
    let hash = crate::access::PASSWORD_SECRET;
    let config = "[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\nauth = [\"anonymous\"]\n\
                  [[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\nauth = [\"password_file\"]\n\
                  [auth.password_file]\npath = \"users\"\n[node]\nmemory_budget_mib = 64\n";
    let broker = Broker::start_with(2, config, &[("users", format!("alice:{hash}\n").as_bytes())]);
    let arena = Arena::around(broker);
    let address = arena.broker.nth_address("tcp", 1);
    let mut offenders = Vec::new();
    for number in 0..300 {
        let mut options = ConnectOptions::new(VERSIONS[number % 3], &format!("offender-{number}"));
        options.credentials = Some(("alice".into(), "x".repeat(40_000)));
        let mut client = Client::open(address, options.version);
        client.send_bytes(&options.encode());
        client.send_bytes(&PINGREQ.repeat(500));
        offenders.push(client);
    }
    let deadline = Instant::now() + PATIENCE;
    for client in &mut offenders {
        // Wrong, or too busy to find out; never admitted.
        let left = deadline.saturating_duration_since(Instant::now());
        let received = client.recv_within(left).expect("an answer in time");
        if let Some(received) = received {
            assert!(matches!(received.packet(), Packet::ConnAck(ack) if ack.reason != Reason::SUCCESS), "{received:?}");
        }
    }
    drop(offenders);
    arena.broker.wait_for_metric("bifro_auth_failures_total", |failures| failures >= 300.0);
    arena.wait_until_left();
    arena.finish(64 * MIB);
}
