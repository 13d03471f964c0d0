//! What the tests of several providers need: requests, files, a runtime on its own thread, and a plane with one shard.

use super::chain::{Answer, Attempt};
use super::{AuthConfig, AuthPlane, ProviderKind, ShardAuthenticator};
use bifro_core::client::{ClientInfo, Transport, Version};
use bifro_core::ids::{ReqId, ShardId};
use bifro_core::plugin::{AuthOutcome, AuthRequest, Authenticator, EnhancedAuth, Grant, Refusal};
use bifro_core::time::Instant;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest wait for an answer that must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// The time of most tests: 2033.
pub(crate) const NOW: Instant = Instant::from_micros(2_000_000_000_000_000);

/// A file that is gone after the test.
#[derive(Debug)]
pub(crate) struct TempFile {
    path: PathBuf,
}

impl TempFile {
    pub(crate) fn new(content: &str) -> Self {
        Self::bytes(content.as_bytes())
    }

    pub(crate) fn bytes(content: &[u8]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("bifro-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, content).expect("the temporary directory is writable");
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn rewrite(&self, content: &str) {
        std::fs::write(&self.path, content).expect("the temporary directory is writable");
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A CONNECT without credentials from a loopback address.
pub(crate) fn plain_request() -> AuthRequest {
    AuthRequest {
        listener: 0,
        version: Version::V5,
        transport: Transport::Tcp,
        peer: Some(SocketAddr::from(([127, 0, 0, 1], 40_000))),
        client_id: "c1".into(),
        username: None,
        password: None,
        certificate: None,
        enhanced: None,
    }
}

/// A CONNECT with user name and password.
pub(crate) fn password_request(username: &str, password: &str) -> AuthRequest {
    AuthRequest { username: Some(username.into()), password: Some(password.as_bytes().into()), ..plain_request() }
}

/// The first step of an enhanced authentication.
pub(crate) fn enhanced_request(method: &str, data: Option<&[u8]>) -> AuthRequest {
    let data = data.map(Box::from);
    let enhanced = EnhancedAuth { method: method.into(), data, state: None, reauthenticates: None };
    AuthRequest { enhanced: Some(enhanced), ..plain_request() }
}

/// An enhanced authentication on the live session of `user` of `tenant`.
pub(crate) fn again_as(tenant: &str, user: &str, method: &str, data: Option<&[u8]>) -> AuthRequest {
    let mut request = enhanced_request(method, data);
    let client = ClientInfo {
        tenant: tenant.into(),
        user: user.into(),
        client_id: request.client_id.clone(),
        version: request.version,
        transport: request.transport,
        peer: request.peer.map(Into::into),
        rules: [].into(),
        expires_at: None,
    };
    if let Some(enhanced) = &mut request.enhanced {
        enhanced.reauthenticates = Some(Arc::new(client));
    }
    request
}

/// An admin runtime.
#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) handle: tokio::runtime::Handle,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Runtime {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let handle = runtime.handle().clone();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let _ = stopped.await;
            });
        });
        Self { handle, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A plane, its runtime and one shard.
#[derive(Debug)]
pub(crate) struct Plane {
    pub(crate) plane: AuthPlane,
    pub(crate) shard: ShardAuthenticator,
    pub(crate) answers: Receiver<(ReqId, AuthOutcome)>,
    next: u64,
    _runtime: Runtime,
}

impl Plane {
    /// One listener with the chain given.
    pub(crate) fn new(config: &AuthConfig, chain: &[ProviderKind]) -> Self {
        Self::on(Runtime::start(), config, chain)
    }

    pub(crate) fn on(runtime: Runtime, config: &AuthConfig, chain: &[ProviderKind]) -> Self {
        let plane =
            AuthPlane::new(config, &[chain.to_vec()], runtime.handle.clone()).expect("the configuration is valid");
        let (sender, answers) = channel();
        let sender = Mutex::new(sender);
        let reply = move |req, outcome| {
            let _ = sender.lock().expect("no test panics inside").send((req, outcome));
        };
        let shard = plane.for_shard(ShardId(0), Arc::new(reply));
        Self { plane, shard, answers, next: 0, _runtime: runtime }
    }

    /// Begins a step; the answer if there is one at once.
    pub(crate) fn start(&mut self, request: AuthRequest, now: Instant) -> (ReqId, Option<AuthOutcome>) {
        self.next += 1;
        let req = ReqId(self.next);
        (req, self.shard.start(req, request, now))
    }

    /// The answer to a step, now or later.
    pub(crate) fn ask_at(&mut self, request: AuthRequest, now: Instant) -> AuthOutcome {
        let (req, outcome) = self.start(request, now);
        outcome.unwrap_or_else(|| self.wait_for(req))
    }

    pub(crate) fn ask(&mut self, request: AuthRequest) -> AuthOutcome {
        self.ask_at(request, NOW)
    }

    /// The answer to a step that was not answered at once.
    pub(crate) fn wait_for(&self, req: ReqId) -> AuthOutcome {
        let (answered, outcome) = self.answers.recv_timeout(PATIENCE).expect("every step is answered");
        assert_eq!(answered, req);
        outcome
    }
}

/// The grant in an outcome.
pub(crate) fn granted(outcome: AuthOutcome) -> Grant {
    match outcome {
        AuthOutcome::Granted(grant) => *grant,
        other => panic!("expected a grant, got {other:?}"),
    }
}

/// The refusal in an outcome.
pub(crate) fn refused(outcome: AuthOutcome) -> Refusal {
    match outcome {
        AuthOutcome::Refused(refusal) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// The answer of a provider that must have one at once.
pub(super) fn immediate(attempt: Attempt) -> Answer {
    match attempt {
        Attempt::Now(answer) => answer,
        Attempt::Compute(..) | Attempt::Wait(_) => panic!("expected an answer at once"),
    }
}
