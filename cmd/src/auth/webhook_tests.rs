//! The HTTP service as it should be, and as it should not.

use super::*;
use crate::auth::config::Secret;
use crate::auth::testing::{NOW, Plane, Runtime, granted, password_request, plain_request, refused};
use crate::auth::{AuthConfig, ProviderKind};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap as Headers, StatusCode};
use axum::response::Response;
use axum::routing::post;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A service on loopback that notes what it is asked.
struct Service {
    url: String,
    asked: Arc<Mutex<Vec<(Headers, serde_json::Value)>>>,
}

impl Service {
    fn start(runtime: &Runtime, answer: impl Fn() -> Response + Clone + Send + Sync + 'static) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let handler = move |headers: Headers, body: Bytes| {
            let question = serde_json::from_slice(&body).expect("the broker sends JSON");
            seen.lock().expect("no panic inside").push((headers, question));
            let answer = answer();
            async move { answer }
        };
        let url = serve(runtime, Router::new().route("/auth", post(handler)));
        Self { url: format!("{url}/auth"), asked }
    }

    fn saying(runtime: &Runtime, json: &'static str) -> Self {
        Self::start(runtime, move || Response::new(Body::from(json)))
    }

    fn asked(&self) -> usize {
        self.asked.lock().expect("no panic inside").len()
    }
}

pub(crate) fn serve(runtime: &Runtime, router: Router) -> String {
    let (sender, address) = std::sync::mpsc::channel();
    runtime.handle.spawn(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        sender.send(listener.local_addr().expect("bound")).expect("the test waits");
        axum::serve(listener, router).await.expect("serves until the runtime ends");
    });
    format!("http://{}", address.recv().expect("the server starts"))
}

fn config(url: &str) -> HttpConfig {
    let text = format!("url = '{url}'\ntimeout_ms = 2000\nheaders = {{ Authorization = 'Bearer t0ken' }}");
    toml::from_str(&text).expect("valid")
}

fn plane(runtime: Runtime, http: HttpConfig) -> Plane {
    let mut config = AuthConfig { http: Some(http), ..AuthConfig::default() };
    config.anonymous.ignore_credentials = true;
    Plane::on(runtime, &config, &[ProviderKind::Http, ProviderKind::Anonymous])
}

#[test]
fn an_allowance_carries_tenant_user_rules_and_end() {
    let runtime = Runtime::start();
    let service = Service::saying(
        &runtime,
        r#"{"result": "allow", "tenant": "acme", "user": "al", "expires_at": 2000000100, "acl": [
            {"permission": "deny", "action": "publish", "topic": "a/secret"},
            {"permission": "allow", "action": "all", "topic": "a/#"}]}"#,
    );
    let mut plane = plane(runtime, config(&service.url));
    let grant = granted(plane.ask(password_request("alice", "x")));
    assert_eq!((&*grant.user, grant.tenant.as_deref()), ("al", Some("acme")));
    assert_eq!(grant.expires_at.map(Instant::as_unix_secs), Some(2_000_000_100));
    let rule = |effect, action, pattern: &str| Rule { effect, action, pattern: pattern.into() };
    let expected = [
        rule(Effect::Deny, Some(Action::Publish), "a/secret"),
        rule(Effect::Allow, None, "a/#"),
        rule(Effect::Deny, None, "#"),
    ];
    assert_eq!(grant.rules, expected);
    assert_eq!(plane.plane.usage().http_pending, 0);
}

#[test]
fn the_service_is_told_what_the_client_said() {
    let runtime = Runtime::start();
    let service = Service::saying(&runtime, r#"{"result": "allow"}"#);
    let mut plane = plane(runtime, config(&service.url));
    assert_eq!(&*granted(plane.ask(password_request("alice", "s3cret"))).user, "alice");
    let mut binary = password_request("bob", "");
    binary.password = Some(Box::from(&b"\xff\x00"[..]));
    granted(plane.ask(binary));
    let asked = service.asked.lock().expect("no panic inside");
    let expected = serde_json::json!({
        "listener": 0, "protocol_version": 5, "transport": "tcp", "peer": "127.0.0.1:40000",
        "client_id": "c1", "username": "alice", "password": "s3cret", "certificate": null,
    });
    assert_eq!(asked[0].1, expected);
    assert_eq!(asked[0].0.get("authorization").map(|value| value.as_bytes()), Some(&b"Bearer t0ken"[..]));
    assert_eq!((&asked[1].1["password"], &asked[1].1["password_base64"]), (&serde_json::Value::Null, &"/wA=".into()));
}

#[test]
fn deny_ends_the_chain_and_ignore_does_not() {
    let runtime = Runtime::start();
    let service = Service::saying(&runtime, r#"{"result": "deny"}"#);
    let mut denied = plane(runtime, config(&service.url));
    assert_eq!(refused(denied.ask(plain_request())), Refusal::BadCredentials);
    let runtime = Runtime::start();
    let service = Service::saying(&runtime, r#"{"result": "ignore"}"#);
    let mut ignored = plane(runtime, config(&service.url));
    assert_eq!(&*granted(ignored.ask(plain_request())).user, "");
}

#[test]
fn everything_but_a_proper_answer_refuses_and_never_falls_through() {
    let ok = |body: String| Response::new(Body::from(body));
    let status = |code: u16| {
        let mut response = Response::new(Body::from(r#"{"result": "allow"}"#));
        *response.status_mut() = StatusCode::from_u16(code).expect("a status");
        response
    };
    let oversize = format!(r#"{{"result": "allow", "user": "{}"}}"#, "x".repeat(ANSWER_BYTES_MAX));
    let bodies = [
        "",
        "garbage",
        "{}",
        r#"{"result": "yes"}"#,
        r#"{"result": "allow", "superuser": true}"#,
        r#"{"result": "allow", "tenant": "a/b"}"#,
        r#"{"result": "allow", "user": ""}"#,
        r#"{"result": "allow", "expires_at": -1}"#,
        r#"{"result": "allow", "acl": [{"permission": "allow", "action": "all", "topic": "a/#/b"}]}"#,
        r#"{"result": "allow", "acl": [{"permission": "allow", "topic": "a"}]}"#,
        &oversize,
    ];
    let runtime = Runtime::start();
    let next = Arc::new(Mutex::new(Vec::<Response>::new()));
    let answers = Arc::clone(&next);
    let service = Service::start(&runtime, move || {
        answers.lock().expect("no panic inside").pop().unwrap_or_else(|| Response::new(Body::empty()))
    });
    let mut plane = plane(runtime, config(&service.url));
    let responses = bodies.iter().map(|body| ok((*body).to_owned())).chain([500, 404, 302, 401].map(status));
    for (index, response) in responses.enumerate() {
        next.lock().expect("no panic inside").push(response);
        assert_eq!(refused(plane.ask(plain_request())), Refusal::Unavailable, "answer {index}");
        assert_eq!(service.asked(), index + 1, "failures are not remembered");
    }
    assert_eq!(plane.plane.usage().http_failures as usize, service.asked());
}

#[test]
fn a_service_that_is_slow_or_gone_refuses() {
    let runtime = Runtime::start();
    let url = serve(&runtime, Router::new().route("/auth", post(std::future::pending::<StatusCode>)));
    let mut http = config(&format!("{url}/auth"));
    http.timeout_ms = 100;
    let mut slow = plane(runtime, http);
    assert_eq!(refused(slow.ask(plain_request())), Refusal::Unavailable);
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let mut gone = plane(Runtime::start(), config(&format!("http://{free}/auth")));
    assert_eq!(refused(gone.ask(plain_request())), Refusal::Unavailable);
}

#[test]
fn calls_are_bounded_and_the_overflow_is_refused_at_once() {
    let runtime = Runtime::start();
    let (release, gate) = tokio::sync::watch::channel(false);
    let (running, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let highest = Arc::clone(&peak);
    let handler = move || {
        let (mut gate, running, peak) = (gate.clone(), Arc::clone(&running), Arc::clone(&highest));
        async move {
            peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let _ = gate.wait_for(|open| *open).await;
            running.fetch_sub(1, Ordering::SeqCst);
            r#"{"result": "allow"}"#
        }
    };
    let url = serve(&runtime, Router::new().route("/auth", post(handler)));
    let mut http = config(&format!("{url}/auth"));
    (http.concurrency_max, http.queue_max, http.timeout_ms) = (2, 3, 60_000);
    let mut plane = plane(runtime, http);
    for n in 0..5 {
        assert!(plane.start(password_request(&n.to_string(), "x"), NOW).1.is_none());
    }
    let (_, overflow) = plane.start(password_request("5", "x"), NOW);
    assert_eq!(overflow.map(refused), Some(Refusal::Unavailable));
    assert_eq!(plane.plane.usage().http_pending, 5);
    release.send(true).expect("the handlers wait");
    for _ in 0..5 {
        let (_, outcome) = plane.answers.recv().expect("an answer");
        granted(outcome);
    }
    assert!(peak.load(Ordering::SeqCst) <= 2);
}

#[test]
fn answers_are_remembered_for_the_same_credentials_only_and_not_for_long() {
    let runtime = Runtime::start();
    let service = Service::saying(&runtime, r#"{"result": "allow", "expires_at": 2000000005}"#);
    let mut plane = plane(runtime, config(&service.url));
    granted(plane.ask(password_request("alice", "x")));
    let mut other_port = password_request("alice", "x");
    other_port.peer = Some("127.0.0.1:40001".parse().expect("valid"));
    granted(plane.ask(other_port));
    assert_eq!(service.asked(), 1);
    assert_eq!(
        refused(plane.ask_at(password_request("alice", "x"), NOW + Duration::from_secs(6))),
        Refusal::BadCredentials
    );
    assert_eq!(service.asked(), 1, "an answer that has expired is not used");
    granted(plane.ask(password_request("alice", "y")));
    assert_eq!(service.asked(), 2);
    let _ = plane.ask_at(password_request("alice", "x"), NOW + Duration::from_secs(60));
    assert_eq!(service.asked(), 3, "remembered for ten seconds");
}

#[test]
fn headers_are_not_shown() {
    let http = config("http://127.0.0.1:1/");
    let shown = format!("{http:?} {}", toml::to_string(&http).expect("serializes"));
    assert!(shown.contains("***") && !shown.contains("t0ken"), "{shown}");
}

#[test]
fn urls_and_headers_are_checked_at_load() {
    let fails = |change: &dyn Fn(&mut HttpConfig)| {
        let mut http = config("http://127.0.0.1:1/");
        change(&mut http);
        Webhook::new(&http).expect_err("refused").to_string()
    };
    assert!(fails(&|http| http.url = "ftp://127.0.0.1/".to_owned()).contains("must be http or https"));
    assert!(fails(&|http| http.url = "http://user:pw@127.0.0.1/".to_owned()).contains("put them into a header"));
    assert!(fails(&|http| http.url = "127.0.0.1".to_owned()).contains("not a URL"));
    assert!(
        fails(&|http| drop(http.headers.insert("a b".to_owned(), Secret(String::new())))).contains("no header name")
    );
    assert!(fails(&|http| http.ca_file = Some("/nonexistent".into())).contains("/nonexistent"));
}
