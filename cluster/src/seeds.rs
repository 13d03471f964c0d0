//! Where the seeds are: their names are looked up again and again, for they come to mean other addresses.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// How often the names are looked up.
const INTERVAL: Duration = Duration::from_secs(30);
/// The same while one of them has no address: what names it may be just starting.
const INTERVAL_LACKING: Duration = Duration::from_secs(5);
/// How long a look-up may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reports the addresses of each seed, whenever they are others than before, until nobody wants them.
pub(crate) async fn look_up(seeds: Vec<String>, resolved: mpsc::Sender<Vec<Vec<SocketAddr>>>) {
    let mut before = None;
    while !resolved.is_closed() {
        let mut addresses = Vec::new();
        for seed in &seeds {
            addresses.push(match timeout(PATIENCE, tokio::net::lookup_host(seed)).await {
                Ok(Ok(found)) => found.collect(),
                Ok(Err(error)) => {
                    tracing::warn!(seed, %error, "a seed's name cannot be looked up; trying again");
                    Vec::new()
                }
                Err(_) => {
                    tracing::warn!(seed, "looking a seed's name up takes too long; trying again");
                    Vec::new()
                }
            });
        }
        let interval = if addresses.iter().any(Vec::is_empty) { INTERVAL_LACKING } else { INTERVAL };
        if before.as_ref() != Some(&addresses) {
            before = Some(addresses.clone());
            if resolved.send(addresses).await.is_err() {
                return;
            }
        }
        sleep(interval).await;
    }
}
