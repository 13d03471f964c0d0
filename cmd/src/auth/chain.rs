//! One authentication step on its way through a listener's providers.
//!
//! ```text
//!   start ──► provider 0 ──NotMine──► provider 1 ──NotMine──► … ──► exhausted: refused
//!                │ Now: answered on the shard
//!                └ Later: on the hash pool or the admin runtime; goes on from there, answers through the reply handle
//! ```
//!
//! Invariants: a step is answered exactly once; a failure of any kind (panic, lost runtime, full queue) is an answer, and it is
//! `Unavailable`; nothing but [`Answer::NotMine`] ever reaches the next provider.

use super::pool::{HashPool, Slot};
use bifro_core::ids::ReqId;
use bifro_core::plugin::{AuthOutcome, AuthRequest, Grant, Refusal};
use bifro_core::tenant::DEFAULT_TENANT;
use bifro_core::time::Instant;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where answers that were not given at once go: called from any thread, once per request.
pub type Reply = Arc<dyn Fn(ReqId, AuthOutcome) + Send + Sync>;

/// What a provider says about a step.
#[derive(Debug)]
pub(super) enum Answer {
    /// The client is who it says.
    Granted(Box<Grant>),
    /// The exchange goes on.
    Continue {
        /// For the client.
        data: Box<[u8]>,
        /// For the next step.
        state: Box<[u8]>,
    },
    /// The client is refused; nobody else is asked.
    Refused(Refusal),
    /// The step is none of this provider's business: ask the next one.
    NotMine,
}

/// How a provider goes about a step.
pub(super) enum Attempt {
    /// It knows already.
    Now(Answer),
    /// It has to compute for longer than a shard may; the slot is in the hash pool.
    Compute(Slot, Box<dyn FnOnce() -> Answer + Send>),
    /// It has to wait for somebody; runs on the admin runtime, and bounds its own waiting.
    Wait(Pin<Box<dyn Future<Output = Answer> + Send>>),
}

/// One way to authenticate.
pub(super) trait Provider: Send + Sync + fmt::Debug {
    /// Begins a step. Runs on shards, so it must not block.
    fn attempt(self: Arc<Self>, call: &Arc<Call>) -> Attempt;

    /// Whether it speaks this method of enhanced authentication.
    fn speaks(&self, _method: &str) -> bool {
        false
    }
}

/// A step and what is known about it, shared by everything that works on it.
#[derive(Debug)]
pub(super) struct Call {
    /// The step.
    pub(super) request: AuthRequest,
    now: Instant,
    taken: std::time::Instant,
    abandoned: AtomicBool,
}

impl Call {
    /// A step that begins at `now`.
    pub(super) fn new(request: AuthRequest, now: Instant) -> Self {
        Self { request, now, taken: std::time::Instant::now(), abandoned: AtomicBool::new(false) }
    }

    /// The time, also on other threads than the one that knew it.
    pub(super) fn now(&self) -> Instant {
        self.now + self.taken.elapsed()
    }

    /// Nobody waits for the answer any more.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// Whether work on it would be in vain.
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }
}

/// The providers of one listener, in the order in which they are asked.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// The providers.
    pub(super) providers: Vec<Arc<dyn Provider>>,
}

/// Where slow work goes.
#[derive(Clone, Debug)]
pub(super) struct Engines {
    /// Computing.
    pub(super) pool: Arc<HashPool>,
    /// Waiting.
    pub(super) runtime: tokio::runtime::Handle,
}

/// A step in progress.
pub(super) struct Run {
    chain: Arc<Chain>,
    next: usize,
    call: Arc<Call>,
    debt: Debt,
    engines: Engines,
}

/// An answer owed: dropping it unpaid refuses the client.
struct Debt {
    req: ReqId,
    reply: Option<Reply>,
}

impl Debt {
    /// The answer is given by the caller.
    fn settle(mut self) {
        self.reply = None;
    }

    fn pay(mut self, outcome: AuthOutcome) {
        if let Some(reply) = self.reply.take() {
            reply(self.req, outcome);
        }
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            reply(self.req, AuthOutcome::Refused(Refusal::Unavailable));
        }
    }
}

enum Progress {
    Done(Debt, AuthOutcome),
    Moved,
}

impl Run {
    /// A step at the head of `chain`.
    pub(super) fn new(chain: Arc<Chain>, call: Arc<Call>, req: ReqId, reply: Reply, engines: Engines) -> Self {
        Self { chain, next: 0, call, debt: Debt { req, reply: Some(reply) }, engines }
    }

    /// Begins, on the shard. None means that the reply handle will be called.
    pub(super) fn start(self) -> Option<AuthOutcome> {
        match self.advance() {
            Progress::Done(debt, outcome) => {
                debt.settle();
                Some(outcome)
            }
            Progress::Moved => None,
        }
    }

    /// Goes on, on another thread, with the answer of the provider that needed time.
    fn resume(self, answer: Answer) {
        let progress = match outcome(&self.call.request, answer) {
            Some(outcome) => Progress::Done(self.debt, outcome),
            None => self.advance(),
        };
        if let Progress::Done(debt, outcome) = progress {
            debt.pay(outcome);
        }
    }

    /// Asks one provider after the other until there is an answer or one needs time.
    fn advance(mut self) -> Progress {
        while let Some(provider) = self.chain.providers.get(self.next) {
            self.next += 1;
            match Arc::clone(provider).attempt(&self.call) {
                Attempt::Now(answer) => {
                    if let Some(outcome) = outcome(&self.call.request, answer) {
                        return Progress::Done(self.debt, outcome);
                    }
                }
                Attempt::Compute(slot, work) => {
                    let pool = Arc::clone(&self.engines.pool);
                    pool.submit(slot, move || {
                        if !self.call.is_abandoned() {
                            self.resume(work());
                        }
                    });
                    return Progress::Moved;
                }
                Attempt::Wait(work) => {
                    let runtime = self.engines.runtime.clone();
                    // Nobody joins the task: every provider bounds its waiting, and a task that the runtime drops answers by
                    // the debt it holds.
                    drop(runtime.spawn(async move {
                        let answer = work.await;
                        self.resume(answer);
                    }));
                    return Progress::Moved;
                }
            }
        }
        let refusal = exhausted(&self.chain, &self.call.request);
        Progress::Done(self.debt, AuthOutcome::Refused(refusal))
    }
}

/// What an answer means for the client; none if the next provider is to be asked.
fn outcome(request: &AuthRequest, answer: Answer) -> Option<AuthOutcome> {
    match answer {
        Answer::Granted(grant) if is_somebody_else(request, &grant) => {
            Some(AuthOutcome::Refused(Refusal::NotAuthorized))
        }
        Answer::Granted(grant) => Some(AuthOutcome::Granted(grant)),
        Answer::Continue { data, state } => Some(AuthOutcome::Continue { data: Some(data), state }),
        Answer::Refused(refusal) => Some(AuthOutcome::Refused(refusal)),
        Answer::NotMine => None,
    }
}

/// Re-authentication must not hand a session to another tenant or user.
fn is_somebody_else(request: &AuthRequest, grant: &Grant) -> bool {
    let session = request.enhanced.as_ref().and_then(|enhanced| enhanced.reauthenticates.as_ref());
    let tenant = grant.tenant.as_deref().unwrap_or(DEFAULT_TENANT);
    session.is_some_and(|client| client.user != grant.user || *client.tenant != *tenant)
}

/// The refusal of a client that no provider knows.
fn exhausted(chain: &Chain, request: &AuthRequest) -> Refusal {
    match &request.enhanced {
        Some(enhanced) if !chain.providers.iter().any(|provider| provider.speaks(&enhanced.method)) => {
            Refusal::BadMethod // [MQTT5-4.12.0-1]
        }
        None if request.username.is_none() && request.password.is_none() => Refusal::NotAuthorized,
        _ => Refusal::BadCredentials,
    }
}
