//! Two shards really share the work: clients of both, with a history checker. Every test drives a real broker with `--cores 2`
//! and names its seed when it fails; `BIFRO_SEED` replays one, `BIFRO_SOAK_SECONDS` goes on with new seeds for so long.

mod delivery;
mod idle;
mod races;
mod retained;
mod shared;
mod takeover;
mod wills;

use bifro_core::client::Version;
use bifro_mqtt::property::{PropertyId, PropertyWriter};
use bifro_tests::load::version_of;
use bifro_tests::{Broker, ConnectOptions};

/// Queues wide enough, and deadlines long enough, for what these tests do on a busy machine.
const WIDE: &str = "[limits]\npublish_deadline_ms = 60000\n\
                    [tenant_defaults]\ninbox_messages_max = 100000\nshared_group_members_max = 1000\n";

fn broker() -> Broker {
    Broker::start(2, WIDE)
}

/// Client `n` under this name: 3.1.1 and 5.0 in turn; its session ends with the connection, or stays.
fn options(name: &str, n: u32, persistent: bool) -> ConnectOptions {
    let mut options = ConnectOptions::new(version_of(n), &format!("{name}-{n}"));
    options.clean = !persistent;
    if persistent && options.version == Version::V5 {
        PropertyWriter::new(&mut options.properties).u32(PropertyId::SessionExpiryInterval, 3600);
    }
    options
}

/// Asserts that both shards have taken in clients, and that messages went from one to the other.
fn expect_both_shards(broker: &Broker) {
    let accepted = per_shard(broker, "bifro_connections_accepted_total");
    assert_eq!(accepted.len(), 2, "two shards");
    let sum: f64 = accepted.iter().sum();
    assert!(accepted.iter().all(|&count| count > sum / 10.0), "connections are spread: {accepted:?}");
    let sent = per_shard(broker, "bifro_mesh_sent_total");
    assert!(sent.iter().all(|&count| count > 0.0), "both shards have told the other something: {sent:?}");
}

fn per_shard(broker: &Broker, name: &str) -> Vec<f64> {
    let page = bifro_tests::http::get(broker.address("admin"), "/metrics?per=shard").body;
    let start = format!("{name}{{");
    let lines = page.lines().filter(|line| line.starts_with(&start));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse().ok()).collect()
}
