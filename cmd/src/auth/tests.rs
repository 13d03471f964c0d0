//! Chains as a shard asks them: order, exhaustion, failure, and the plane's loading rules.

use super::chain::{Answer, Attempt, Provider};
use super::config::{AnonymousConfig, CertificateConfig, CertificateField, TenantField};
use super::testing::{
    NOW, Plane, Runtime, again_as, enhanced_request, granted, password_request, plain_request, refused,
};
use super::*;
use bifro_core::client::Transport;
use bifro_core::plugin::{Grant, Refusal};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::mpsc::channel;

/// A provider that does what the test says.
struct Scripted<F>(F);

impl<F> fmt::Debug for Scripted<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

impl<F: Fn() -> Attempt + Send + Sync> Provider for Scripted<F> {
    fn attempt(self: Arc<Self>, _call: &Arc<Call>) -> Attempt {
        (self.0)()
    }
}

fn scripted(attempt: impl Fn() -> Attempt + Send + Sync + 'static) -> Arc<dyn Provider> {
    Arc::new(Scripted(attempt))
}

fn grant(user: &str) -> Answer {
    Answer::Granted(Box::new(Grant { user: user.into(), ..Grant::default() }))
}

/// The outcome of a chain, wherever it is found; checks that it is given once.
fn run(providers: Vec<Arc<dyn Provider>>, request: AuthRequest, runtime: &Runtime) -> AuthOutcome {
    run_on(providers, request, runtime.handle.clone())
}

fn run_on(providers: Vec<Arc<dyn Provider>>, request: AuthRequest, runtime: tokio::runtime::Handle) -> AuthOutcome {
    let pool = Arc::new(HashPool::start(1, 4).expect("threads"));
    let engines = Engines { pool, runtime };
    let (sender, answers) = channel();
    let sender = Mutex::new(sender);
    let reply: Reply = Arc::new(move |req, outcome| {
        let _ = sender.lock().expect("no panic inside").send((req, outcome));
    });
    let call = Arc::new(Call::new(request, NOW));
    let run = Run::new(Arc::new(Chain { providers }), call, ReqId(7), reply, engines);
    match run.start() {
        Some(outcome) => {
            assert!(answers.recv().is_err(), "answered once");
            outcome
        }
        None => {
            let (req, outcome) = answers.recv().expect("an answer");
            assert_eq!(req, ReqId(7));
            assert!(answers.recv().is_err(), "answered once");
            outcome
        }
    }
}

fn compute(work: impl FnOnce() -> Answer + Send + 'static) -> Attempt {
    let pool = HashPool::start(1, 1).expect("threads");
    Attempt::Compute(pool.reserve().expect("a free pool"), Box::new(work))
}

#[test]
fn the_first_opinion_counts_wherever_it_is_formed() {
    let runtime = Runtime::start();
    let now = || scripted(|| Attempt::Now(Answer::NotMine));
    let waits = || scripted(|| Attempt::Wait(Box::pin(async { Answer::NotMine })));
    let computes = scripted(|| compute(|| Answer::NotMine));
    let last = scripted(|| Attempt::Wait(Box::pin(async { grant("last") })));
    let never = scripted(|| Attempt::Now(grant("never")));
    let chain = vec![now(), computes, waits(), now(), last, never];
    assert_eq!(&*granted(run(chain, plain_request(), &runtime)).user, "last");
}

#[test]
fn a_refusal_ends_the_chain() {
    let runtime = Runtime::start();
    for refusal in [Refusal::Unavailable, Refusal::Banned, Refusal::BadCredentials] {
        let refuses = scripted(move || Attempt::Wait(Box::pin(async move { Answer::Refused(refusal) })));
        let admits = scripted(|| Attempt::Now(grant("")));
        assert_eq!(refused(run(vec![refuses, admits], plain_request(), &runtime)), refusal);
    }
}

#[test]
fn a_panic_refuses_and_does_not_fall_through() {
    let runtime = Runtime::start();
    let admits = || scripted(|| Attempt::Now(grant("")));
    let panics = scripted(|| Attempt::Wait(Box::pin(async { panic!("as the test wants") })));
    assert_eq!(refused(run(vec![panics, admits()], plain_request(), &runtime)), Refusal::Unavailable);
    let panics = scripted(|| compute(|| panic!("as the test wants")));
    assert_eq!(refused(run(vec![panics, admits()], plain_request(), &runtime)), Refusal::Unavailable);
}

#[test]
fn a_runtime_that_ends_refuses_those_who_wait() {
    let runtime = Runtime::start();
    let handle = runtime.handle.clone();
    drop(runtime);
    let waits = scripted(|| Attempt::Wait(Box::pin(std::future::pending())));
    assert_eq!(refused(run_on(vec![waits], plain_request(), handle)), Refusal::Unavailable);
}

#[test]
fn an_exhausted_chain_refuses_by_what_was_sent() {
    let runtime = Runtime::start();
    assert_eq!(refused(run(vec![], plain_request(), &runtime)), Refusal::NotAuthorized);
    assert_eq!(refused(run(vec![], password_request("a", "b"), &runtime)), Refusal::BadCredentials);
}

/// [MQTT5-4.12.0-1]
#[test]
fn an_unknown_method_of_enhanced_authentication_is_refused_as_such() {
    let config = AuthConfig {
        anonymous: AnonymousConfig { ignore_credentials: true, ..Default::default() },
        ..Default::default()
    };
    let mut plane = Plane::new(&config, &[ProviderKind::Anonymous]);
    for method in ["KERBEROS", "SCRAM-SHA-256", "JWT", "scram-sha-256", ""] {
        assert_eq!(refused(plane.ask(enhanced_request(method, Some(b"x")))), Refusal::BadMethod, "{method}");
    }
}

/// MQTT 5 section 4.12.1: what re-authentication proves is that the client is still who it was.
#[test]
fn re_authentication_as_somebody_else_is_refused() {
    let runtime = Runtime::start();
    let admits = |tenant: Option<&'static str>, user: &'static str| {
        let grant = move || Grant { tenant: tenant.map(Into::into), user: user.into(), ..Grant::default() };
        vec![scripted(move || Attempt::Now(Answer::Granted(Box::new(grant()))))]
    };
    for (tenant, session) in [(None, "default"), (Some("default"), "default"), (Some("acme"), "acme")] {
        let request = again_as(session, "alice", "TEST", None);
        assert_eq!(&*granted(run(admits(tenant, "alice"), request, &runtime)).user, "alice");
    }
    for (tenant, user) in [(Some("acme"), "bob"), (Some("other"), "alice"), (None, "alice"), (Some("acme"), "")] {
        let request = again_as("acme", "alice", "TEST", None);
        assert_eq!(refused(run(admits(tenant, user), request, &runtime)), Refusal::NotAuthorized, "{tenant:?} {user}");
    }
}

#[test]
fn anonymous_clients_are_admitted_from_this_machine_only() {
    let mut plane = Plane::new(&AuthConfig::default(), &[ProviderKind::Anonymous]);
    let from = |peer: &str| AuthRequest { peer: peer.parse::<SocketAddr>().ok(), ..plain_request() };
    for near in ["127.0.0.1:1", "127.8.9.10:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert_eq!(&*granted(plane.ask(from(near))).user, "", "{near}");
    }
    for far in ["192.0.2.1:1", "[2001:db8::1]:1", "[::ffff:192.0.2.1]:1", "0.0.0.0:1"] {
        assert_eq!(refused(plane.ask(from(far))), Refusal::NotAuthorized, "{far}");
    }
    let unix = AuthRequest { peer: None, transport: Transport::Unix, ..plain_request() };
    granted(plane.ask(unix));
    assert_eq!(refused(plane.ask(AuthRequest { peer: None, ..plain_request() })), Refusal::NotAuthorized);
}

#[test]
fn anonymous_does_not_admit_credentials_that_nobody_has_checked() {
    let mut plane = Plane::new(&AuthConfig::default(), &[ProviderKind::Anonymous]);
    assert_eq!(refused(plane.ask(password_request("alice", "x"))), Refusal::BadCredentials);
    let name_only = AuthRequest { username: Some("alice".into()), ..plain_request() };
    assert_eq!(refused(plane.ask(name_only)), Refusal::BadCredentials);
    let anonymous =
        AnonymousConfig { ignore_credentials: true, loopback_only: false, tenant: Some("guests".to_owned()) };
    let mut plane = Plane::new(&AuthConfig { anonymous, ..AuthConfig::default() }, &[ProviderKind::Anonymous]);
    let guest = granted(plane.ask(password_request("alice", "x")));
    assert_eq!((&*guest.user, guest.tenant.as_deref()), ("", Some("guests")));
}

#[test]
fn a_listener_without_a_chain_admits_nobody() {
    let mut plane = Plane::new(&AuthConfig::default(), &[]);
    assert_eq!(refused(plane.ask(plain_request())), Refusal::NotAuthorized);
    assert_eq!(refused(plane.ask(AuthRequest { listener: 9, ..plain_request() })), Refusal::NotAuthorized);
}

#[test]
fn a_chain_that_names_what_is_not_configured_is_refused_with_advice() {
    let runtime = Runtime::start();
    let chains = [vec![ProviderKind::Anonymous], vec![ProviderKind::PasswordFile]];
    let error = AuthPlane::new(&AuthConfig::default(), &chains, runtime.handle.clone()).expect_err("not configured");
    let text = error.to_string();
    assert!(text.contains("listener 1") && text.contains("[auth.password_file]"), "{text}");
}

/// HOSTILE 26 and 30.
#[test]
fn configuration_with_unknown_keys_or_values_out_of_bounds_is_refused() {
    let parse = |text: &str| toml::from_str::<AuthConfig>(text);
    assert!(parse("anonymus = {}").is_err());
    assert!(parse("[anonymous]\nloopback = true").is_err());
    assert!(parse("[password_file]\npath = 'x'\ncache_ttl = 3").is_err());
    assert!(parse("[password_file]").is_err(), "a path is needed");
    for (text, key) in [
        ("hash_threads = 0", "auth.hash_threads"),
        ("hash_queue_max = 0", "auth.hash_queue_max"),
        ("[http]\nurl = 'http://127.0.0.1/'\nconcurrency_max = 0", "auth.http.concurrency_max"),
        ("[http]\nurl = 'http://127.0.0.1/'\ntimeout_ms = 0", "auth.http.timeout_ms"),
        ("[jwt]", "auth.jwt"),
        ("[jwt]\nsecret_file = 'a'\njwks_file = 'b'", "auth.jwt"),
        ("[jwt]\njwks_url = 'http://127.0.0.1/'\njwks_refresh_s = 0", "auth.jwt.jwks_refresh_s"),
        ("[anonymous]\ntenant = 'a/b'", "auth.anonymous.tenant"),
        ("[certificate]\ntenant = 'a'\ntenant_from = 'organization'", "auth.certificate.tenant"),
    ] {
        let error = parse(text).expect("well-formed").check().expect_err(text).to_string();
        assert!(error.contains(key), "{error}");
    }
}

/// A self-signed certificate, valid until 2050.
fn certificate(common_names: &[&str], organization: Option<&str>, alternative: &[rcgen::SanType]) -> Box<[u8]> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for name in common_names {
        params.distinguished_name.push(rcgen::DnType::CommonName, *name);
    }
    if let Some(name) = organization {
        params.distinguished_name.push(rcgen::DnType::OrganizationName, name);
    }
    params.subject_alt_names = alternative.to_vec();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2050, 1, 1);
    let key = rcgen::KeyPair::generate().expect("a key");
    params.self_signed(&key).expect("a certificate").der().to_vec().into()
}

fn certificate_plane(certificate: CertificateConfig) -> Plane {
    let config = AuthConfig { certificate: Some(certificate), ..AuthConfig::default() };
    Plane::new(&config, &[ProviderKind::Certificate, ProviderKind::Anonymous])
}

fn with_certificate(der: Box<[u8]>) -> AuthRequest {
    AuthRequest { certificate: Some(der), ..plain_request() }
}

#[test]
fn a_certificate_names_user_tenant_and_end() {
    let der = certificate(&["meter-7"], Some("acme"), &[]);
    let config = CertificateConfig { tenant_from: Some(TenantField::Organization), ..Default::default() };
    let grant = granted(certificate_plane(config).ask(with_certificate(der)));
    assert_eq!((&*grant.user, grant.tenant.as_deref()), ("meter-7", Some("acme")));
    assert_eq!(grant.expires_at.map(Instant::as_unix_secs), Some(2_524_608_000));
}

#[test]
fn alternative_names_are_found_by_their_kind() {
    let text = |name: &str| name.try_into().expect("ASCII");
    let names = [
        rcgen::SanType::URI(text("urn:dev:7")),
        rcgen::SanType::Rfc822Name(text("a@example.org")),
        rcgen::SanType::DnsName(text("meter.example.org")),
    ];
    for (user, name) in [
        (CertificateField::Uri, "urn:dev:7"),
        (CertificateField::Email, "a@example.org"),
        (CertificateField::Dns, "meter.example.org"),
    ] {
        let mut plane = certificate_plane(CertificateConfig { user, ..Default::default() });
        assert_eq!(&*granted(plane.ask(with_certificate(certificate(&[], None, &names)))).user, name);
        assert_eq!(refused(plane.ask(with_certificate(certificate(&["x"], None, &[])))), Refusal::BadCredentials);
    }
}

/// HOSTILE 31.
#[test]
fn a_certificate_that_is_expired_garbage_or_ambiguous_ends_the_chain() {
    let mut plane = certificate_plane(CertificateConfig::default());
    let good = certificate(&["a"], None, &[]);
    granted(plane.ask(with_certificate(good.clone())));
    let after_2050 = Instant::from_micros(2_600_000_000_000_000);
    assert_eq!(refused(plane.ask_at(with_certificate(good.clone()), after_2050)), Refusal::BadCredentials);
    let before_2020 = Instant::from_micros(1_500_000_000_000_000);
    assert_eq!(refused(plane.ask_at(with_certificate(good), before_2020)), Refusal::BadCredentials);
    for bad in
        [certificate(&[], None, &[]), certificate(&["a\nb"], None, &[]), Box::from(&b"garbage"[..]), Box::default()]
    {
        assert_eq!(refused(plane.ask(with_certificate(bad))), Refusal::BadCredentials);
    }
    let config = CertificateConfig { tenant_from: Some(TenantField::Organization), ..Default::default() };
    let mut plane = certificate_plane(config);
    assert_eq!(refused(plane.ask(with_certificate(certificate(&["a"], None, &[])))), Refusal::BadCredentials);
    assert_eq!(refused(plane.ask(with_certificate(certificate(&["a"], Some("x/y"), &[])))), Refusal::BadCredentials);
}

#[test]
fn a_missing_certificate_is_the_next_providers_business_unless_it_is_required() {
    granted(certificate_plane(CertificateConfig::default()).ask(plain_request()));
    let mut strict = certificate_plane(CertificateConfig { required: true, ..Default::default() });
    assert_eq!(refused(strict.ask(plain_request())), Refusal::NotAuthorized);
    assert_eq!(refused(strict.ask(enhanced_request("JWT", None))), Refusal::NotAuthorized);
}
