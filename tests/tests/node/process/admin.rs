//! The admin endpoint of a node with clients.

use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_tests::{Broker, Client, http};

#[test]
fn metrics_tell_what_clients_do() {
    let broker = Broker::start(2, "");
    let admin = broker.address("admin");
    let mut clients: Vec<_> =
        (0..8).map(|index| Client::connect(broker.tcp(), Version::V5, &format!("c{index}"))).collect();
    for client in &mut clients {
        assert_eq!(client.subscribe("t/+", QoS::AtLeastOnce), 1);
    }
    for index in 0..4 {
        clients[0].publish(&format!("t/{index}"), b"x", QoS::AtMostOnce, false);
    }
    for client in &mut clients {
        for _ in 0..4 {
            client.recv_publish();
        }
    }
    broker.wait_for_metric("bifro_sessions", |sessions| sessions == 8.0);
    assert_eq!(broker.metric("bifro_connections_accepted_total"), 8.0);
    let page = http::get(admin, "/metrics");
    assert_eq!(page.status, 200);
    assert!(page.head.to_ascii_lowercase().contains("content-type: application/openmetrics-text"), "{}", page.head);
    assert!(page.body.ends_with("# EOF\n"));
    for text in [
        "bifro_build_info{version=\"",
        "bifro_events_total{kind=\"client_connected\"} 8",
        "bifro_events_total{kind=\"sub_acked\"} 8",
        "process_resident_memory_bytes ",
        "tenant=\"default\"",
    ] {
        assert!(page.body.contains(text), "no {text} in\n{}", page.body);
    }
    every_sample_has_help_and_type(&page.body);
    let per_shard = http::get(admin, "/metrics?per=shard").body;
    for shard in 0..2 {
        let accepted = format!("bifro_connections_accepted_total{{shard=\"{shard}\"}} ");
        assert!(per_shard.contains(&accepted), "no {accepted} in\n{per_shard}");
    }
    assert_eq!(broker.metric("bifro_connects_accepted_total"), 8.0);
    clients.into_iter().for_each(Client::disconnect);
    broker.wait_for_metric("bifro_sessions", |sessions| sessions == 0.0);
    assert_eq!(broker.metric("bifro_disconnects_total"), 8.0);
}

fn every_sample_has_help_and_type(page: &str) {
    let named = |keyword: &str| -> Vec<&str> {
        let lines = page.lines().filter_map(|line| line.strip_prefix(keyword));
        lines.filter_map(|line| line.split(' ').next()).collect()
    };
    let (helps, types) = (named("# HELP "), named("# TYPE "));
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let sample = line.split(['{', ' ']).next().expect("a split has a first part");
        for (what, families) in [("HELP", &helps), ("TYPE", &types)] {
            let described = families.iter().any(|family| {
                let suffix = sample.strip_prefix(family);
                suffix.is_some_and(|rest| {
                    matches!(rest, "" | "_total" | "_info" | "_bucket" | "_sum" | "_count" | "_created")
                })
            });
            assert!(described, "{sample} has no {what}");
        }
    }
}

#[test]
fn health_and_readiness_answer_plainly() {
    let broker = Broker::start(2, "");
    let admin = broker.address("admin");
    for (path, body) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let answer = http::get(admin, path);
        assert_eq!((answer.status, answer.body.as_str()), (200, body), "{path}");
    }
    assert_eq!(http::get(admin, "/nowhere").status, 404);
    let post = format!("POST /readyz HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert_eq!(http::send(admin, post.as_bytes()).status, 405);
}
