//! `conn`: connections that only are there, or that come and go.

use crate::check::Findings;
use crate::connect::{ConnectError, open, shake_hands};
use crate::frames::{Identity, PING_REQUEST, put_disconnect};
use crate::options::ConnOptions;
use crate::plan::Plan;
use crate::progress::{CoreResult, Phase, Progress, latency_histogram};
use crate::transport::{Connection, Transport};
use bifro_core::message::QoS;
use hdrhistogram::Histogram;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Connection attempts under way at a time on one core.
const ATTEMPTS_MAX: u32 = 128;

struct Idle {
    index: usize,
    options: ConnOptions,
    transport: Transport,
    progress: Arc<Progress>,
    latency: RefCell<Histogram<u64>>,
}

/// The plan of `conn`: nobody publishes.
pub fn plan(options: &ConnOptions) -> Plan {
    let client = crate::plan::ClientPlan {
        client_id: String::new(),
        core: 0,
        filters: Vec::new(),
        expects: 0..0,
        is_shared: false,
        publisher: None,
    };
    Plan { clients: vec![client; options.connections as usize], copies: Vec::new() }
}

/// Runs core `index` until the run stops.
///
/// # Errors
/// If there is no ring to be had.
pub fn run(index: usize, options: &ConnOptions, progress: &Arc<Progress>) -> std::io::Result<CoreResult> {
    let mut runtime =
        monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().with_entries(4096).enable_timer().build()?;
    let transport = Transport::new(&options.load)?;
    let latency = RefCell::new(latency_histogram());
    let idle = Rc::new(Idle { index, options: options.clone(), transport, progress: progress.clone(), latency });
    runtime.block_on(supervise(&idle));
    let latency = idle.latency.borrow().clone();
    Ok(CoreResult { latency, findings: Findings::default() })
}

async fn supervise(idle: &Rc<Idle>) {
    let cores = idle.progress.cores.len() as u32;
    let begin = Instant::now();
    let own = (0..idle.options.connections).filter(|number| *number as usize % cores as usize == idle.index);
    let mut attempts = Vec::new();
    for number in own {
        if idle.progress.phase() == Phase::Stop {
            return;
        }
        if idle.options.ramp > 0 {
            let due = Duration::from_secs_f64(f64::from(number) / f64::from(idle.options.ramp));
            monoio::time::sleep(due.saturating_sub(begin.elapsed())).await;
        }
        let task = if idle.options.churn {
            monoio::spawn(churn(idle.clone(), number))
        } else {
            monoio::spawn(hold(idle.clone(), number))
        };
        attempts.push(task);
        if attempts.len() as u32 == ATTEMPTS_MAX && !idle.options.churn {
            idle.until_ready(number, cores).await;
            attempts.clear();
        }
    }
    while idle.progress.phase() != Phase::Stop {
        monoio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Idle {
    /// Waits until this core's connections up to `number` are made or have failed.
    async fn until_ready(&self, number: u32, cores: u32) {
        let counters = &self.progress.cores[self.index];
        let wanted = u64::from(number / cores + 1);
        while counters.ready.load(Relaxed) + counters.disconnects.load(Relaxed) < wanted {
            monoio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn identity(&self, number: u64) -> Identity {
        Identity {
            version: self.options.load.version(),
            client_id: format!("bench-{}-conn-{number}", self.options.load.seed),
            clean: !self.options.load.persistent,
            keep_alive_s: self.options.keep_alive,
            credentials: self.options.load.credentials(),
        }
    }

    async fn connect(&self, number: u64, name: u64) -> Result<Connection, ConnectError> {
        let targets = &self.options.load.targets;
        let begin = Instant::now();
        let mut stream = open(&self.transport, targets[number as usize % targets.len()], number).await?;
        shake_hands(&mut stream, &self.identity(name), &[], QoS::AtMostOnce).await?;
        if self.progress.phase() <= Phase::Measure {
            self.latency.borrow_mut().saturating_record(begin.elapsed().as_nanos() as u64);
        }
        Ok(stream)
    }

    fn fail(&self, reason: String) {
        if self.progress.phase() != Phase::Stop {
            self.progress.fail(reason);
            self.progress.cores[self.index].disconnects.fetch_add(1, Relaxed);
        }
    }
}

/// Connects, then pings at half the keep-alive until the run stops.
async fn hold(idle: Rc<Idle>, number: u32) {
    let mut stream = match idle.connect(u64::from(number), u64::from(number)).await {
        Ok(stream) => stream,
        Err(error) => return idle.fail(error.to_string()),
    };
    idle.progress.cores[idle.index].ready.fetch_add(1, Relaxed);
    if idle.options.keep_alive == 0 {
        return std::future::pending().await;
    }
    loop {
        monoio::time::sleep(Duration::from_secs(u64::from(idle.options.keep_alive)) / 2).await;
        let sent = stream.write_all(PING_REQUEST.to_vec()).await.0;
        let (received, _) = stream.read_more(Vec::with_capacity(4)).await;
        if sent.is_err() || received.unwrap_or(0) == 0 {
            return idle.fail("an idle connection was closed".to_owned());
        }
    }
}

/// Connects and disconnects until the measured time is over.
async fn churn(idle: Rc<Idle>, number: u32) {
    let counters = &idle.progress.cores[idle.index];
    counters.ready.fetch_add(1, Relaxed);
    while idle.progress.phase() == Phase::Ramp {
        monoio::time::sleep(Duration::from_millis(1)).await;
    }
    while idle.progress.phase() < Phase::Drain {
        // The port of every connection we close is blocked for a minute: go through the source addresses.
        let made = counters.published.fetch_add(1, Relaxed);
        let stream = idle.connect(made + 20_000, u64::from(number)).await;
        let mut stream = match stream {
            Ok(stream) => stream,
            Err(error) => return idle.fail(error.to_string()),
        };
        counters.received.fetch_add(1, Relaxed);
        let mut out = Vec::with_capacity(4);
        put_disconnect(idle.options.load.version(), &mut out);
        let (sent, _) = stream.write_all(out).await;
        // The broker closes first: it has seen DISCONNECT, and the identifier is free.
        let (received, _) = stream.read_more(Vec::with_capacity(4)).await;
        if sent.is_err() || received.is_err() {
            return idle.fail("a connection failed after CONNACK".to_owned());
        }
    }
}
