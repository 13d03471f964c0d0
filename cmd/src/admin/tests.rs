//! The endpoint over real sockets: what it answers, and what it does to clients that misbehave (HOSTILE 22).

use super::*;
use bifro_core::config::LogConfig;
use bifro_core::event::{Event, EventKind};
use bifro_core::settings::{QuotaLimits, Resource};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

#[derive(Debug)]
struct Tenants(Vec<(TenantName, Arc<Quota>)>);

impl TenantSource for Tenants {
    fn tenants(&self) -> Vec<(TenantName, Arc<Quota>)> {
        self.0.clone()
    }
}

fn state() -> AdminState {
    let limited = QuotaLimits { total_connections: 10, ..QuotaLimits::default() };
    let tenant = |name: &str| (TenantName::from(name), Arc::new(Quota::new(&limited)));
    AdminState {
        metrics: vec![Arc::default(), Arc::default()],
        beats: vec![Arc::default(), Arc::default()],
        tenants: Arc::new(Tenants(vec![tenant("acme"), tenant("b\"\n"), tenant("third"), tenant("fourth")])),
        readiness: Arc::default(),
        events: Arc::new(EventLog::new(2, &LogConfig::default())),
        lines_dropped: Arc::default(),
        storage: None,
        cluster: ClusterCell::default(),
        shards: ShardsCell::default(),
    }
}

fn config() -> AdminConfig {
    AdminConfig { bind: Some(SocketAddr::from(([127, 0, 0, 1], 0))), tenant_metrics_max: 2, ..AdminConfig::default() }
}

fn endpoint(state: AdminState) -> AdminHandle {
    start(&config(), state).expect("a free port on loopback")
}

fn connect(admin: &AdminHandle) -> TcpStream {
    let stream = TcpStream::connect(admin.address().expect("switched on")).expect("it listens");
    stream.set_read_timeout(Some(server::CONNECTION_DEADLINE * 2)).expect("a timeout");
    stream
}

/// Sends raw bytes and returns everything that comes back until the end of the connection.
fn exchange(admin: &AdminHandle, request: &[u8]) -> String {
    let mut stream = connect(admin);
    // The endpoint may answer and close before it has read everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).expect("answers are text")
}

fn get(admin: &AdminHandle, path: &str) -> (String, String) {
    let answer = exchange(admin, format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").expect("a header and a body");
    (head.split(' ').nth(1).expect("a status").to_owned(), body.to_owned())
}

#[test]
fn metrics_sum_the_shards_or_tell_them_apart() {
    let state = state();
    state.metrics[0].connections_accepted.add(3);
    state.metrics[1].connections_accepted.add(4);
    state.metrics[1].sessions.set(2);
    state.events.log_event(1, &Event::of(EventKind::Kicked, None, ""));
    let admin = endpoint(state);
    let (status, page) = get(&admin, "/metrics");
    assert_eq!(status, "200");
    for line in ["bifro_connections_accepted_total 7", "bifro_sessions 2", "bifro_events_total{kind=\"kicked\"} 1"] {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }
    assert!(page.contains("bifro_build_info{version=\"") && page.ends_with("# EOF\n"), "{page}");
    assert!(page.contains("process_resident_memory_bytes ") && page.contains("process_cpu_seconds_total "), "{page}");
    assert!(!page.contains("shard="));
    let (_, page) = get(&admin, "/metrics?per=shard");
    for line in ["bifro_connections_accepted_total{shard=\"0\"} 3", "bifro_connections_accepted_total{shard=\"1\"} 4"] {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }
}

#[test]
fn tenants_beyond_the_limit_are_summed_up() {
    let state = state();
    for (index, (_, quota)) in state.tenants.tenants().iter().enumerate() {
        assert!(quota.acquire(Resource::TotalConnections, 1 + index as u64));
    }
    let (_, page) = get(&endpoint(state), "/metrics");
    let connections: Vec<&str> = page.lines().filter(|line| line.contains("resource=\"total_connections\"")).collect();
    let expected = [
        "bifro_tenant_used{tenant=\"acme\",resource=\"total_connections\"} 1",
        "bifro_tenant_used{tenant=\"b\\\"\\n\",resource=\"total_connections\"} 2",
        "bifro_tenant_used{tenant=\"other\",resource=\"total_connections\"} 7",
        "bifro_tenant_limit{tenant=\"acme\",resource=\"total_connections\"} 10",
        "bifro_tenant_limit{tenant=\"b\\\"\\n\",resource=\"total_connections\"} 10",
    ];
    assert_eq!(connections, expected);
}

#[test]
fn readiness_follows_the_phase() {
    let state = state();
    let readiness = Arc::clone(&state.readiness);
    let admin = endpoint(state);
    assert_eq!(get(&admin, "/readyz"), ("503".to_owned(), "starting\n".to_owned()));
    readiness.enter(Phase::Ready);
    assert_eq!(get(&admin, "/readyz"), ("200".to_owned(), "ready\n".to_owned()));
    readiness.enter(Phase::Draining);
    assert_eq!(get(&admin, "/readyz"), ("503".to_owned(), "draining\n".to_owned()));
}

#[test]
fn health_names_the_shard_that_does_not_turn() {
    let state = state();
    let beats = state.beats.clone();
    assert_eq!(get(&endpoint(state.clone()), "/healthz").0, "200");
    // A bound of zero makes any silence too long, so that the test need not wait.
    let strict = start(&AdminConfig { stall_s: 0, ..config() }, state).expect("a free port on loopback");
    beats[0].beat();
    let (status, body) = get(&strict, "/healthz");
    assert_eq!(status, "503");
    assert!(body.contains("shard 1 has not turned for"), "{body}");
}

#[test]
fn wrong_paths_and_methods_get_their_status() {
    let admin = endpoint(state());
    let status = |request: &str| {
        let answer = exchange(&admin, format!("{request} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes());
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(status("GET /"), "200");
    assert_eq!(status("HEAD /healthz"), "200");
    assert_eq!(status("GET /nowhere"), "404");
    assert_eq!(status("GET /metrics/"), "404");
    assert_eq!(status("GET /..%2f..%2fetc/passwd"), "404");
    assert_eq!(status("GET /%ff%00"), "404");
    assert_eq!(status("GET /metrics?per=galaxy"), "400");
    assert_eq!(status("GET /metrics?per=%zz&x"), "400");
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        assert_eq!(status(&format!("{method} /metrics")), "405", "{method}");
    }
}

#[test]
fn oversized_and_malformed_requests_are_refused() {
    let admin = endpoint(state());
    let long = "a".repeat(server::HEADER_BYTES_MAX * 2);
    for request in [format!("GET /{long} HTTP/1.1\r\n\r\n"), format!("GET / HTTP/1.1\r\nHost: t\r\nX: {long}\r\n\r\n")]
    {
        let answer = exchange(&admin, request.as_bytes());
        // The answer may be lost to the reset that unread bytes cause; what must not come is success.
        assert!(!answer.contains("200 OK"), "{answer}");
    }
    let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    let answer = exchange(&admin, format!("GET / HTTP/1.1\r\nHost: t\r\n{many}\r\n").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(exchange(&admin, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").starts_with("HTTP/1.1 400"));
    assert!(exchange(&admin, b"GET / HTTP/9.9\r\n\r\n").starts_with("HTTP/1.1 400"));
    let body = exchange(&admin, b"GET / HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999\r\n\r\n");
    assert!(body.starts_with("HTTP/1.1 200"), "a body nobody asked for is not waited for: {body}");
    assert_eq!(get(&admin, "/healthz").0, "200", "and the endpoint goes on");
}

#[test]
fn slow_clients_are_cut_off_while_others_are_served() {
    let admin = endpoint(state());
    let begun = Instant::now();
    let mut slow: Vec<TcpStream> = (0..8).map(|_| connect(&admin)).collect();
    for stream in &mut slow {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: ").expect("half a header");
    }
    assert_eq!(get(&admin, "/healthz").0, "200");
    for stream in &mut slow {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }
    assert!(begun.elapsed() < server::CONNECTION_DEADLINE);
}

#[test]
fn an_address_in_use_is_named() {
    let first = endpoint(state());
    let taken = AdminConfig { bind: first.address(), ..config() };
    let error = start(&taken, state()).expect_err("the port is taken");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().starts_with("admin.bind = \"127.0.0.1:"), "{error}");
}

#[test]
fn without_an_address_the_runtime_still_serves_plugins() {
    let admin = start(&AdminConfig { bind: None, ..config() }, state()).expect("nothing to bind");
    assert_eq!(admin.address(), None);
    let (told, heard) = std::sync::mpsc::channel();
    admin.runtime().spawn(async move { told.send(std::thread::current().name().map(str::to_owned)) });
    assert_eq!(heard.recv_timeout(Duration::from_secs(10)), Ok(Some("admin".to_owned())));
}
