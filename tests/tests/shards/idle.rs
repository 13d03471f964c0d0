//! Idle connections over both shards: kept alive by pings, none lost, and cheap. `scripts/figures.sh` measures the full size.

use crate::{broker, expect_both_shards, options};
use bifro_mqtt::packet::Packet;
use bifro_tests::load::{Incoming, Swarm};
use std::time::{Duration, Instant};

const CONNECTIONS: u32 = 2_000;
/// Debug builds and small numbers need more per connection than the figure for release builds at full size.
const BYTES_PER_CONNECTION_MAX: u64 = 4 << 10;

#[test]
fn two_thousand_idle_connections_stay_and_cost_little() {
    let broker = broker();
    let empty = broker.resident_bytes();
    let mut swarm = Swarm::new(broker.tcp());
    let mut admitted = 0;
    let mut keys = Vec::new();
    for n in 0..CONNECTIONS {
        let mut options = options("idle", n, false);
        options.keep_alive = 6;
        keys.push(swarm.connect(&options));
        swarm.turn(Duration::ZERO, |_, _, incoming| {
            admitted += u32::from(matches!(incoming, Incoming::Packet(Packet::ConnAck(_))));
        });
    }
    let start = Instant::now();
    let mut next_ping = start + Duration::from_secs(3);
    while start.elapsed() < Duration::from_secs(20) {
        if Instant::now() >= next_ping {
            next_ping += Duration::from_secs(3);
            for &key in &keys {
                if let Some(sender) = swarm.sender(key) {
                    sender.packet(&Packet::PingReq);
                }
            }
        }
        swarm.turn(Duration::from_millis(50), |_, _, incoming| {
            admitted += u32::from(matches!(incoming, Incoming::Packet(Packet::ConnAck(_))));
        });
    }
    assert_eq!((admitted, swarm.len()), (CONNECTIONS, CONNECTIONS as usize), "all were admitted and none was lost");
    let each = broker.resident_bytes().saturating_sub(empty) / u64::from(CONNECTIONS);
    assert!(each <= BYTES_PER_CONNECTION_MAX, "{each} bytes per idle connection");
    assert!(broker.metric("bifro_sessions") >= f64::from(CONNECTIONS));
    expect_both_shards(&broker);
}
