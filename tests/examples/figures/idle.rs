//! Idle connections: memory of each, and that keep-alive loses none.

use crate::{Row, choose};
use bifro_mqtt::packet::Packet;
use bifro_tests::load::{Incoming, Swarm, version_of};
use bifro_tests::{Broker, ConnectOptions};
use std::time::{Duration, Instant};

const KEEP_ALIVE_S: u16 = 60;
const PING_EVERY: Duration = Duration::from_secs(45);

pub(crate) fn measure() -> Vec<Row> {
    let (connections, span) = choose((15_000, Duration::from_secs(600)), (2_000, Duration::from_secs(20)));
    let broker = Broker::start(2, "");
    // What it takes for itself it has taken by then.
    std::thread::sleep(Duration::from_secs(3));
    let empty = broker.resident_bytes();
    let mut swarm = Swarm::new(broker.tcp());
    let mut admitted = 0;
    let mut keys = Vec::new();
    let mut count = |incoming: &Incoming<'_>| admitted += u32::from(is_success(incoming));
    for n in 0..connections {
        let mut options = ConnectOptions::new(version_of(n), &format!("idle-{n}"));
        options.keep_alive = KEEP_ALIVE_S;
        keys.push(swarm.connect(&options));
        swarm.turn(Duration::ZERO, |_, _, incoming| count(&incoming));
    }
    let start = Instant::now();
    let (mut pinged, mut connected_bytes) = (0, None);
    while start.elapsed() < span {
        // Each connection's ping has its own moment, so the load is even.
        let rounds = start.elapsed().as_secs_f64() / PING_EVERY.as_secs_f64();
        let due = (rounds * f64::from(connections)) as usize;
        for number in pinged..due {
            if let Some(sender) = swarm.sender(keys[number % keys.len()]) {
                sender.packet(&Packet::PingReq);
            }
        }
        pinged = due;
        swarm.turn(Duration::from_millis(20), |_, _, incoming| count(&incoming));
        if connected_bytes.is_none() && start.elapsed() > Duration::from_secs(5) {
            connected_bytes = Some(broker.resident_bytes());
        }
    }
    let each = |bytes: u64| bytes.saturating_sub(empty) / u64::from(connections);
    let (first, last) = (each(connected_bytes.unwrap_or(empty)), each(broker.resident_bytes()));
    let lost = connections as usize - swarm.len();
    assert_eq!(admitted, connections, "every connection was admitted");
    vec![
        Row::new(
            format!("{connections} idle connections, plain TCP: resident memory of each"),
            format!("{first} B at first, {last} B after {} s", span.as_secs()),
            "≤ 1024 B",
        ),
        Row::new(format!("of them lost in {} s of keep-alive", span.as_secs()), lost.to_string(), "0"),
    ]
}

fn is_success(incoming: &Incoming<'_>) -> bool {
    matches!(incoming, Incoming::Packet(Packet::ConnAck(connack)) if connack.reason.0 == 0)
}
