//! A key set behind a URL: fetched by a task of the admin runtime, at intervals and when a token names an unknown key.
//!
//! Invariants: keys once fetched stay until others replace them, whatever fails; tokens cause at most one fetch per
//! `jwks_refetch_min_s`, and those that come while it is under way wait for it; the task ends with the last user of the keys.

use super::keys::{KEYS_BYTES_MAX, KeySet};
use crate::auth::config::JwtConfig;
use crate::auth::error::LoadError;
use crate::auth::http_client::{self, CallError, FailureLog};
use reqwest::{Client, Url};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, Semaphore, watch};

/// Tokens that may wait for a fetch at the same time; further ones are judged by the keys there are.
const WAITERS_MAX: usize = 4_096;

/// Pause after a failed fetch, doubled with each further one up to the scheduled interval.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The keys and the task that keeps them fresh.
#[derive(Debug)]
pub(super) struct RemoteKeys {
    state: watch::Receiver<Fetched>,
    demand: Mutex<Demand>,
    wanted: Arc<Notify>,
    waiters: Arc<Semaphore>,
    refetch_min: Duration,
    patience: Duration,
    failures: Arc<FailureLog>,
}

#[derive(Clone, Debug, Default)]
struct Fetched {
    keys: Option<Arc<KeySet>>,
    /// Fetches that ended, well or not.
    finished: u64,
}

/// The last fetch that a token caused.
#[derive(Debug, Default)]
struct Demand {
    at: Option<Instant>,
    /// [`Fetched::finished`] at that time: as long as it stays, the fetch is under way.
    finished: u64,
}

struct Fetcher {
    client: Client,
    url: Url,
    interval: Duration,
    state: watch::Sender<Fetched>,
    wanted: Arc<Notify>,
    failures: Arc<FailureLog>,
}

/// Whether both configurations mean the same keys, fetched in the same way.
pub(super) fn is_same(a: &JwtConfig, b: &JwtConfig) -> bool {
    let place = |config: &JwtConfig| {
        let times = (config.jwks_refresh_s, config.jwks_refetch_min_s, config.jwks_timeout_ms);
        (config.jwks_url.clone(), config.ca_file.clone(), times)
    };
    place(a) == place(b)
}

impl RemoteKeys {
    /// Starts fetching.
    ///
    /// # Errors
    /// [`LoadError`] if the URL or the authorities' file are not usable. That nobody answers is no error.
    pub(super) fn start(config: &JwtConfig, url: &str, runtime: &tokio::runtime::Handle) -> Result<Self, LoadError> {
        let key = "auth.jwt.jwks_url";
        let timeout = Duration::from_millis(config.jwks_timeout_ms.into());
        let (sender, state) = watch::channel(Fetched::default());
        let (wanted, failures) = (Arc::new(Notify::new()), Arc::new(FailureLog::default()));
        let fetcher = Fetcher {
            client: http_client::client(key, config.ca_file.as_deref(), timeout)?,
            url: http_client::parse_url(key, url)?,
            interval: Duration::from_secs(config.jwks_refresh_s.into()),
            state: sender,
            wanted: Arc::clone(&wanted),
            failures: Arc::clone(&failures),
        };
        // The task is not joined: it ends when `state`, its only reader, is dropped.
        drop(runtime.spawn(fetcher.run()));
        Ok(Self {
            state,
            demand: Mutex::default(),
            wanted,
            waiters: Arc::new(Semaphore::new(WAITERS_MAX)),
            refetch_min: Duration::from_secs(config.jwks_refetch_min_s.into()),
            patience: timeout * 2,
            failures,
        })
    }

    /// The keys there are.
    pub(super) fn keys(&self) -> Option<Arc<KeySet>> {
        self.state.borrow().keys.clone()
    }

    /// Fetches that failed.
    pub(super) fn failures(&self) -> u64 {
        self.failures.count()
    }

    /// Asks for a fetch because a key is unknown. None if there was one too recently, or too many wait for it already;
    /// otherwise something to wait for, which gives the keys there are then.
    pub(super) fn refetch(&self) -> Option<impl Future<Output = Option<Arc<KeySet>>> + Send + use<>> {
        let permit = Arc::clone(&self.waiters).try_acquire_owned().ok()?;
        let seen = self.demand()?;
        let (mut state, patience) = (self.state.clone(), self.patience);
        Some(async move {
            let _permit = permit;
            // Whether it came or not, what counts is what there is now.
            let _ = tokio::time::timeout(patience, state.wait_for(|fetched| fetched.finished > seen)).await;
            state.borrow().keys.clone()
        })
    }

    /// Joins the fetch under way or causes one; returns the number of fetches that had ended before it.
    fn demand(&self) -> Option<u64> {
        let mut demand = self.demand.lock().unwrap_or_else(PoisonError::into_inner);
        let finished = self.state.borrow().finished;
        let is_under_way = finished == 0 || (demand.at.is_some() && demand.finished == finished);
        if is_under_way {
            return Some(finished);
        }
        if demand.at.is_some_and(|at| at.elapsed() < self.refetch_min) {
            return None;
        }
        *demand = Demand { at: Some(Instant::now()), finished };
        self.wanted.notify_one();
        Some(finished)
    }
}

impl Fetcher {
    async fn run(self) {
        let mut pause = RETRY_PAUSE;
        loop {
            let fetched = self.fetch().await;
            let delay = if fetched.is_ok() { self.interval } else { pause.min(self.interval) };
            pause = if fetched.is_ok() { RETRY_PAUSE } else { pause.saturating_mul(2).min(self.interval) };
            if let Err(error) = &fetched {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                self.failures.note(since_epoch.as_secs(), self.url.as_str(), error);
            }
            self.state.send_modify(|state| {
                state.finished += 1;
                if let Ok(keys) = fetched {
                    state.keys = Some(Arc::new(keys));
                }
            });
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.wanted.notified() => {}
                () = self.state.closed() => return,
            }
        }
    }

    async fn fetch(&self) -> Result<KeySet, CallError> {
        let response = self.client.get(self.url.clone()).send().await?;
        let body = http_client::body(response, KEYS_BYTES_MAX).await?;
        KeySet::from_jwks(&body, false).map_err(CallError::Content)
    }
}
