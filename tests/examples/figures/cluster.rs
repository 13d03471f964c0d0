//! How long a cluster of three takes to know that one of its processes is gone.

use crate::{Row, choose};
use bifro_tests::cluster::{cluster, id, page, wait_for};
use std::time::{Duration, Instant};

pub(crate) fn measure() -> Vec<Row> {
    let mut nodes = cluster(3);
    let mut detections = Vec::new();
    for _ in 0..choose(20, 5) {
        let last = nodes.pop().expect("there are three");
        let name = id(&last);
        let killed_at = Instant::now();
        let crashed = last.crash();
        for node in &nodes {
            while !is_dead(&page(node), &name) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        detections.push(killed_at.elapsed());
        nodes.push(crashed.restart());
        for node in &nodes {
            wait_for(node, &["alive"; 3]);
        }
    }
    detections.sort_unstable();
    let (median, worst) = (detections[detections.len() / 2], detections[detections.len() - 1]);
    let figure = format!("{median:.2?}, worst of {} {worst:.2?}", detections.len());
    vec![Row::new("a killed process is known to be dead on both other nodes: median", figure, "< 2 s")]
}

fn is_dead(page: &serde_json::Value, name: &str) -> bool {
    let nodes = page["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    nodes.iter().any(|node| node["id"] == name && node["status"] == "dead")
}
