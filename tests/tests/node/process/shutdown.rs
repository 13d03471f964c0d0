//! SIGTERM: sessions are told, the process ends with status 0 within the deadline, whatever the clients do.

use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::reason::Reason;
use bifro_tests::{Broker, Client, PATIENCE, http};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(5);

fn start(cores: u16) -> Broker {
    let listener = "[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\n";
    Broker::start_with(cores, &format!("[node]\nshutdown_deadline_s = {}\n{listener}", DEADLINE.as_secs()), &[])
}

/// Publishes until the connection ends; returns the reason of the DISCONNECT, if there was one.
fn talk(mut client: Client, topic: &str) -> Option<Reason> {
    loop {
        client.publish(topic, b"busy", QoS::AtLeastOnce, false);
        loop {
            match client.try_recv()?.packet() {
                Packet::PubAck(_) => break,
                Packet::Disconnect(disconnect) => return Some(disconnect.reason),
                Packet::Publish(publish) => {
                    if let Some(id) = publish.packet_id {
                        client.ack(bifro_tests::client::AckKind::PubAck, id);
                    }
                }
                _ => {}
            }
        }
    }
}

/// The reason is 0x8B, section 3.14.2.1 of MQTT 5.
#[test]
fn sigterm_under_load_tells_every_session_and_exits_0_in_time() {
    const CLIENTS: usize = 60;
    let mut broker = start(2);
    let versions = [Version::V31, Version::V311, Version::V5];
    let clients: Vec<_> = (0..CLIENTS)
        .map(|index| {
            let version = versions[index % 3];
            let mut client = Client::connect(broker.tcp(), version, &format!("c{index}"));
            assert_eq!(client.subscribe(&format!("busy/{}", index / 2), QoS::AtLeastOnce), 1);
            (version, client)
        })
        .collect();
    // A connection that says nothing must not hold the exit up.
    let _silent = TcpStream::connect(broker.tcp()).expect("the broker listens");
    let threads: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(index, (version, client))| {
            (version, std::thread::spawn(move || talk(client, &format!("busy/{}", index / 2))))
        })
        .collect();
    broker.wait_for_metric("bifro_publishes_received_total", |publishes| publishes > CLIENTS as f64);
    let begin = Instant::now();
    broker.signal(libc::SIGTERM);
    let status = broker.wait(DEADLINE + PATIENCE);
    assert!(status.success(), "{status}: {}", broker.log_lines().join("\n"));
    assert!(begin.elapsed() <= DEADLINE + Duration::from_secs(1), "{:?}", begin.elapsed());
    for (version, thread) in threads {
        let reason = thread.join().expect("the client does not panic");
        let expected = (version == Version::V5).then_some(Reason::SERVER_SHUTTING_DOWN);
        assert_eq!(reason, expected, "{version:?}");
    }
    let lines = broker.log_lines();
    assert!(lines.iter().any(|line| line.contains("the node has ended")), "{}", lines.join("\n"));
}

/// A client that never reads keeps its session's last bytes in the broker; the deadline still holds.
#[test]
fn a_draining_node_is_not_ready_and_a_second_signal_ends_it_at_once() {
    let mut broker = start(1);
    let admin = broker.address("admin");
    assert_eq!(http::get(admin, "/readyz").status, 200);
    // Sessions are ended a few at a time, so this many take a moment.
    let idle: Vec<_> = (0..2_000).map(|_| TcpStream::connect(broker.tcp()).expect("the broker listens")).collect();
    broker.wait_for_metric("bifro_connections_accepted_total", |accepted| accepted >= 2_000.0);
    let begin = Instant::now();
    // Two different ones, since the system merges a signal that is pending already.
    broker.signal(libc::SIGTERM);
    broker.signal(libc::SIGINT);
    let status = broker.wait(PATIENCE);
    assert_eq!(status.code(), Some(1), "{}", broker.log_lines().join("\n"));
    assert!(begin.elapsed() < DEADLINE);
    assert!(broker.log_lines().iter().any(|line| line.contains("second time")));
    drop(idle);
}
