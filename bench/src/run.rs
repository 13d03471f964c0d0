//! A run from outside: starts the workers, moves the phases, takes samples, and puts the result together.

use crate::check::Findings;
use crate::options::LoadOptions;
use crate::plan::Plan;
use crate::proc::{self, Usage};
use crate::progress::{CoreResult, Phase, Progress, PublisherProgress, latency_histogram};
use crate::report::{Latency, Report, Sample};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two samples, and looks at the phase.
const TICK: Duration = Duration::from_millis(20);

/// Ticks between two samples.
const TICKS_PER_SAMPLE: u32 = 10;

/// How long all clients may take to connect, besides a millisecond each.
const RAMP_MAX: Duration = Duration::from_secs(30);

/// Nothing received for so long: what has not come is lost.
const QUIET: Duration = Duration::from_secs(2);

/// Told how far the run is, several times a second: seconds of load so far and in all, messages received a second.
pub type Observer<'a> = &'a dyn Fn(f64, f64, f64);

/// What a core does, told its index; returns when the phase is [`Phase::Stop`].
pub type Body = Arc<dyn Fn(usize, &Arc<Progress>) -> std::io::Result<CoreResult> + Send + Sync>;

struct Run<'a> {
    progress: Arc<Progress>,
    options: &'a LoadOptions,
    stop: &'a AtomicBool,
    observer: Observer<'a>,
    samples: Vec<Sample>,
    is_interrupted: bool,
}

/// Runs `plan`. `stop` ends it early, with the result so far.
///
/// # Errors
/// If a thread cannot be started or has no ring.
pub fn run(
    scenario: &str,
    plan: &Arc<Plan>,
    options: &LoadOptions,
    stop: &AtomicBool,
    observer: Observer<'_>,
    body: Body,
) -> std::io::Result<Report> {
    proc::raise_descriptor_limit();
    let progress = Arc::new(Progress::new(plan.copies.len(), options.cores.max(1)));
    let target_before = proc::of_all(&options.target_pids, proc::usage_with_pss);
    let workers = start_workers(&body, options, &progress)?;
    let mut run = Run { progress, options, stop, observer, samples: Vec::new(), is_interrupted: false };
    let mut report = Report { scenario: scenario.to_owned(), target_before, ..Report::default() };
    if run.ramp(plan.clients.len() as u64) {
        run.progress.enter(Phase::WarmUp);
        run.pass(Duration::from_secs_f64(options.warm_up.max(0.0)));
        run.measure(&mut report);
        run.drain(plan);
    }
    run.progress.enter(Phase::Stop);
    let results = join(workers)?;
    finish(&mut report, &run, plan, results);
    Ok(report)
}

fn start_workers(
    body: &Body,
    options: &LoadOptions,
    progress: &Arc<Progress>,
) -> std::io::Result<Vec<JoinHandle<std::io::Result<CoreResult>>>> {
    (0..options.cores.max(1))
        .map(|index| {
            let (body, cpu, progress) = (body.clone(), options.cpus.get(index).copied(), progress.clone());
            std::thread::Builder::new().name(format!("core-{index}")).spawn(move || {
                if let Some(cpu) = cpu {
                    proc::pin_thread(cpu);
                }
                let result = body(index, &progress);
                if let Err(error) = &result {
                    progress.fail(format!("io_uring: {error}"));
                    progress.cores[index].disconnects.fetch_add(1, Ordering::Relaxed);
                }
                result
            })
        })
        .collect()
}

fn join(workers: Vec<JoinHandle<std::io::Result<CoreResult>>>) -> std::io::Result<Vec<CoreResult>> {
    let panicked = || std::io::Error::other("a worker panicked");
    workers.into_iter().map(|worker| worker.join().map_err(|_| panicked())?).collect()
}

impl Run<'_> {
    /// Waits for all clients; false if some could not connect.
    fn ramp(&mut self, clients: u64) -> bool {
        let deadline = Instant::now() + RAMP_MAX + Duration::from_millis(clients);
        loop {
            let failed = self.progress.total(|core| &core.disconnects);
            if failed > 0 || self.is_stopped() {
                return false;
            }
            if self.progress.total(|core| &core.ready) == clients {
                return true;
            }
            if Instant::now() > deadline {
                self.progress.fail("not all clients were connected in time".to_owned());
                self.progress.cores[0].disconnects.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_stopped(&mut self) -> bool {
        self.is_interrupted |= self.stop.load(Ordering::Relaxed);
        self.is_interrupted
    }

    fn target(&self) -> Usage {
        proc::of_all(&self.options.target_pids, proc::usage)
    }

    /// Lets the load run for `time`, taking samples.
    fn pass(&mut self, time: Duration) {
        let counters = |progress: &Progress| {
            (progress.total(|core| &core.received), progress.total(|core| &core.published), Instant::now())
        };
        let end = Instant::now() + time;
        let (mut last, mut last_usage) = (counters(&self.progress), self.target());
        let mut tick = 0;
        while Instant::now() < end && !self.is_stopped() {
            std::thread::sleep(TICK.min(end.saturating_duration_since(Instant::now())));
            tick += 1;
            if tick % TICKS_PER_SAMPLE != 0 {
                continue;
            }
            let (now, usage) = (counters(&self.progress), self.target());
            let seconds = (now.2 - last.2).as_secs_f64();
            let sample = Sample {
                at_s: (self.progress.now_ns() - self.progress.start_ns()) as f64 / 1e9,
                received_per_s: (now.0 - last.0) as f64 / seconds,
                published_per_s: (now.1 - last.1) as f64 / seconds,
                target_cpus: (usage.cpu_s - last_usage.cpu_s).max(0.0) / seconds,
                target_rss_bytes: usage.rss_bytes,
            };
            (self.observer)(sample.at_s, self.options.warm_up + self.options.duration, sample.received_per_s);
            self.samples.push(sample);
            (last, last_usage) = (now, usage);
        }
    }

    fn measure(&mut self, report: &mut Report) {
        let before = self.target();
        let own_before = proc::usage(std::process::id()).unwrap_or_default();
        let received = self.progress.total(|core| &core.received);
        let published = self.progress.total(|core| &core.published);
        let begin = Instant::now();
        self.progress.enter(Phase::Measure);
        self.pass(self.options.measured());
        report.measured_s = begin.elapsed().as_secs_f64();
        let received = (self.progress.total(|core| &core.received) - received) as f64;
        let published = (self.progress.total(|core| &core.published) - published) as f64;
        let after = self.target();
        let own_after = proc::usage(std::process::id()).unwrap_or_default();
        self.progress.enter(Phase::Drain);
        report.received_per_s = received / report.measured_s;
        report.published_per_s = published / report.measured_s;
        report.generator_cpus = (own_after.cpu_s - own_before.cpu_s) / report.measured_s;
        let target_cpu_s = after.cpu_s - before.cpu_s;
        report.target_cpus = target_cpu_s / report.measured_s;
        report.received_per_cpu_s = if target_cpu_s > 0.0 { received / target_cpu_s } else { 0.0 };
        report.target_after = proc::of_all(&self.options.target_pids, proc::usage_with_pss);
    }

    /// Waits until everything published is received, or nothing comes any more.
    fn drain(&mut self, plan: &Plan) {
        let (mut last, mut since) = (0, Instant::now());
        while missing(&self.progress, plan) > 0 && since.elapsed() < QUIET {
            let received = self.progress.total(|core| &core.received);
            if received != last {
                (last, since) = (received, Instant::now());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Copies that were published and have not been received.
fn missing(progress: &Progress, plan: &Plan) -> u64 {
    let of = |(publisher, copies): (&PublisherProgress, &u64)| {
        let published = publisher.published.load(Ordering::Relaxed) * copies;
        published.saturating_sub(publisher.received.load(Ordering::Relaxed))
    };
    progress.publishers.iter().zip(&plan.copies).map(of).sum()
}

/// Copies that were received beyond those published: the duplicates of shared groups.
fn surplus(progress: &Progress, plan: &Plan) -> u64 {
    let of = |(publisher, copies): (&PublisherProgress, &u64)| {
        let published = publisher.published.load(Ordering::Relaxed) * copies;
        publisher.received.load(Ordering::Relaxed).saturating_sub(published)
    };
    progress.publishers.iter().zip(&plan.copies).map(of).sum()
}

fn finish(report: &mut Report, run: &Run<'_>, plan: &Plan, results: Vec<CoreResult>) {
    let (mut latency, mut findings) = (latency_histogram(), Findings::default());
    for result in results {
        latency.add(&result.latency).expect("all have the same bounds");
        findings.add(&result.findings);
    }
    report.latency = Latency::from(&latency);
    findings.duplicates += surplus(&run.progress, plan);
    report.findings = findings;
    report.lost = missing(&run.progress, plan);
    report.connections = run.progress.total(|core| &core.ready);
    report.stalls = run.progress.total(|core| &core.stalls);
    report.disconnects = run.progress.total(|core| &core.disconnects);
    report.is_interrupted = run.is_interrupted;
    report.samples.clone_from(&run.samples);
    let growth = report.target_after.rss_bytes.saturating_sub(report.target_before.rss_bytes);
    report.rss_per_connection = growth as f64 / report.connections.max(1) as f64;
    report.judge(run.options.qos, run.progress.failure());
}
