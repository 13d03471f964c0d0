//! Idle connections over both shards: kept alive by pings, none lost, and cheap. `scripts/figures.sh` measures the full size.

use crate::{broker, expect_both_shards, options};
use bifro_mqtt::packet::Packet;
use bifro_tests::load::{Incoming, Swarm};
use std::time::{Duration, Instant};

/// These come first and touch what a shard has whatever the number of its connections, above all its receive buffers.
const WARM: u32 = 500;
const CONNECTIONS: u32 = 2_000;
/// What the figure for release builds at full size must not exceed, doubled for a debug build.
const BYTES_PER_CONNECTION_MAX: u64 = 2 << 10;

struct Idlers {
    swarm: Swarm,
    keys: Vec<usize>,
    admitted: u32,
}

impl Idlers {
    fn connect(&mut self, count: u32) {
        for _ in 0..count {
            let mut options = options("idle", self.keys.len() as u32, false);
            options.keep_alive = 6;
            self.keys.push(self.swarm.connect(&options));
            self.turn(Duration::ZERO);
        }
    }

    fn turn(&mut self, patience: Duration) {
        let admitted = &mut self.admitted;
        self.swarm.turn(patience, |_, _, incoming| {
            *admitted += u32::from(matches!(incoming, Incoming::Packet(Packet::ConnAck(_))));
        });
    }

    fn ping_all(&mut self) {
        for &key in &self.keys {
            if let Some(sender) = self.swarm.sender(key) {
                sender.packet(&Packet::PingReq);
            }
        }
    }

    /// Pings every `interval`, for so long.
    fn stay(&mut self, span: Duration, interval: Duration) {
        let start = Instant::now();
        let mut next = start;
        while start.elapsed() < span {
            if Instant::now() >= next {
                next += interval;
                self.ping_all();
            }
            self.turn(Duration::from_millis(20));
        }
    }
}

#[test]
fn two_thousand_idle_connections_stay_and_cost_little() {
    let broker = broker();
    let mut idlers = Idlers { swarm: Swarm::new(broker.tcp()), keys: Vec::new(), admitted: 0 };
    idlers.connect(WARM);
    // Enough receives to have gone round all buffers of both shards several times.
    idlers.stay(Duration::from_secs(3), Duration::from_millis(100));
    let warm = broker.resident_bytes();
    idlers.connect(CONNECTIONS);
    idlers.stay(Duration::from_secs(15), Duration::from_secs(3));
    let all = WARM + CONNECTIONS;
    assert_eq!((idlers.admitted, idlers.swarm.len()), (all, all as usize), "all were admitted and none was lost");
    let each = broker.resident_bytes().saturating_sub(warm) / u64::from(CONNECTIONS);
    assert!(each <= BYTES_PER_CONNECTION_MAX, "{each} bytes for one more idle connection");
    assert!(broker.metric("bifro_sessions") >= f64::from(all));
    expect_both_shards(&broker);
}
