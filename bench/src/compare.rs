//! `compare`: brokers side by side. Every run starts a fresh broker on its CPU and this binary anew on another; rounds
//! alternate the brokers, so that what the machine does meanwhile meets all of them.

use crate::options::CompareOptions;
use crate::report::{Report, grouped};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a broker may take to listen, and to end.
const BROKER_WAIT: Duration = Duration::from_secs(15);

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Rounds; each runs every broker once per scenario.
    pub rounds: u32,
    /// Seconds to measure.
    pub duration_s: f64,
    /// Seconds of load before.
    pub warm_up_s: f64,
    /// CPU of the broker.
    pub broker_cpus: Vec<usize>,
    /// CPUs of the generator.
    pub generator_cpus: Vec<usize>,
    /// Brokers; ratios are to the first.
    #[serde(rename = "broker")]
    pub brokers: Vec<Broker>,
    /// Scenarios.
    #[serde(rename = "scenario")]
    pub scenarios: Vec<Scenario>,
}

/// How to start a broker. In command and configuration `{port}`, `{dir}` (a fresh directory) and `{config}` (its
/// configuration file) are replaced.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    /// Its name.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Port it is to listen on.
    pub port: u16,
    /// Content of its configuration file.
    #[serde(default)]
    pub config: String,
}

/// What to run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// Subcommand and options, as on the command line.
    pub run: String,
    /// Seconds to measure, if not the file's.
    pub duration_s: Option<f64>,
}

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A file or a process.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The configuration.
    #[error("{path}: {source}")]
    Config {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: Box<toml::de::Error>,
    },
    /// A broker does not listen.
    #[error("{0} does not listen on port {1}")]
    NotListening(String, u16),
    /// A run without a result.
    #[error("no result of {scenario} with {broker}: {reason}")]
    NoResult {
        /// The scenario.
        scenario: String,
        /// The broker.
        broker: String,
        /// Why.
        reason: String,
    },
    /// Nothing to run.
    #[error("no such scenario or broker")]
    Nothing,
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> CompareError {
    let what = what.into();
    move |source| CompareError::Io { what, source }
}

/// A broker that runs; ended when dropped.
struct Running {
    child: Child,
    dir: PathBuf,
}

impl Running {
    fn start(broker: &Broker, cpus: &[usize]) -> Result<Self, CompareError> {
        let dir = std::env::temp_dir().join(format!("bifro-compare-{}-{}", std::process::id(), broker.name));
        fs::create_dir_all(&dir).map_err(failed(format!("{}", dir.display())))?;
        let config = dir.join("broker.conf");
        let fill = |text: &str| {
            let text = text.replace("{port}", &broker.port.to_string());
            text.replace("{dir}", &dir.to_string_lossy()).replace("{config}", &config.to_string_lossy())
        };
        fs::write(&config, fill(&broker.config)).map_err(failed(format!("{}", config.display())))?;
        let log = fs::File::create(dir.join("log")).map_err(failed("the broker's log"))?;
        let program = fill(broker.command.first().map_or("", String::as_str));
        let mut command = Command::new(fs::canonicalize(&program).unwrap_or_else(|_| program.clone().into()));
        command.args(broker.command.iter().skip(1).map(|argument| fill(argument))).current_dir(&dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let cpus = cpus.to_vec();
        // SAFETY: between fork and exec only sched_setaffinity is called, on memory the child has its own copy of.
        unsafe { command.pre_exec(move || pin(&cpus)) };
        let child = command.spawn().map_err(failed(program))?;
        let mut running = Self { child, dir };
        running.wait_until_listening(broker)?;
        Ok(running)
    }

    fn wait_until_listening(&mut self, broker: &Broker) -> Result<(), CompareError> {
        let (address, deadline) = (SocketAddr::from(([127, 0, 0, 1], broker.port)), Instant::now() + BROKER_WAIT);
        while TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_err() {
            let is_gone = self.child.try_wait().ok().flatten().is_some();
            if is_gone || Instant::now() > deadline {
                return Err(CompareError::NotListening(broker.name.clone(), broker.port));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end(&mut self.child, libc::SIGTERM);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn pin(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: a cpu_set_t of zeros is an empty set; it outlives the call, and CPU_SET checks its bounds.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        cpus.iter().for_each(|cpu| libc::CPU_SET(*cpu, &mut set));
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Runs `scenario` against a fresh `broker`.
fn run_once(config: &Config, broker: &Broker, scenario: &Scenario) -> Result<Report, CompareError> {
    let running = Running::start(broker, &config.broker_cpus)?;
    drive(config, broker, scenario, &running)
}

/// System calls of `broker` per message received in `scenario`: a run of its own, since tracing slows the broker down.
fn count_system_calls(config: &Config, broker: &Broker, scenario: &Scenario) -> Result<f64, CompareError> {
    let running = Running::start(broker, &config.broker_cpus)?;
    let summary = running.dir.join("strace");
    let mut strace = Command::new("strace");
    strace.args(["-c", "-f", "-p", &running.child.id().to_string(), "-o"]).arg(&summary);
    let mut strace = strace.stderr(Stdio::null()).spawn().map_err(failed("strace"))?;
    let report = drive(config, broker, scenario, &running);
    end(&mut strace, libc::SIGINT);
    let calls = strace_total(&fs::read_to_string(&summary).unwrap_or_default());
    Ok(calls as f64 / report?.findings.received.max(1) as f64)
}

/// Calls in the last line of `strace -c`: share, seconds, microseconds per call, calls, perhaps errors, `total`.
fn strace_total(summary: &str) -> u64 {
    let total = summary.lines().find(|line| line.trim_end().ends_with(" total"));
    total.and_then(|line| line.split_whitespace().nth(3)?.parse().ok()).unwrap_or(0)
}

/// Signals a child and waits for it; kills it if that takes too long.
fn end(child: &mut Child, signal: i32) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // SAFETY: no pointers; the child has not been waited for, so the pid is still its own.
        unsafe { libc::kill(pid, signal) };
    }
    let deadline = Instant::now() + BROKER_WAIT;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() > deadline {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs the generator against a broker that listens.
fn drive(config: &Config, broker: &Broker, scenario: &Scenario, running: &Running) -> Result<Report, CompareError> {
    let json = running.dir.join("result.json");
    let cpus: Vec<String> = config.generator_cpus.iter().map(ToString::to_string).collect();
    let exe = std::env::current_exe().map_err(failed("this binary"))?;
    let mut command = Command::new(exe);
    command.args(scenario.run.split_whitespace());
    command.args(["--target", &format!("127.0.0.1:{}", broker.port)]);
    command.args(["--target-pid", &running.child.id().to_string()]);
    command.args(["--cores", &cpus.len().to_string(), "--cpus", &cpus.join(",")]);
    command.args(["--duration", &scenario.duration_s.unwrap_or(config.duration_s).to_string()]);
    command.args(["--warm-up", &config.warm_up_s.to_string(), "--json"]).arg(&json);
    let generator_cpus = config.generator_cpus.clone();
    // SAFETY: as for the broker. The coordinating thread is to stay off the broker's CPU too.
    unsafe { command.pre_exec(move || pin(&generator_cpus)) };
    let output = command.stdin(Stdio::null()).output().map_err(failed("bifro-bench"))?;
    let text = fs::read(&json).unwrap_or_default();
    serde_json::from_slice(&text).map_err(|_| CompareError::NoResult {
        scenario: scenario.name.clone(),
        broker: broker.name.clone(),
        reason: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A column of the comparison.
type Metric = (&'static str, fn(&Report) -> f64);

const METRICS: [Metric; 7] = [
    ("msg/s", |report| report.received_per_s),
    ("msg/CPU-s", |report| report.received_per_cpu_s),
    ("p50 µs", |report| report.latency.p50_us),
    ("p99 µs", |report| report.latency.p99_us),
    ("p99.9 µs", |report| report.latency.p999_us),
    ("RSS/conn B", |report| report.rss_per_connection),
    ("gen CPUs", |report| report.generator_cpus),
];

/// The middle one; the mean of the two in the middle of an even number. 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    sorted.get(low).zip(sorted.get(high)).map_or(0.0, |(low, high)| f64::midpoint(*low, *high))
}

/// Results by scenario and broker, in the order of the rounds.
type Results = BTreeMap<String, BTreeMap<String, Vec<Report>>>;

#[derive(Serialize)]
struct Outcome<'a> {
    results: &'a Results,
}

/// Runs the comparison and returns its table. `say` hears of every run.
///
/// # Errors
/// If the configuration is wrong, a broker does not start, or a run has no result.
pub fn compare(options: &CompareOptions, say: &dyn Fn(&str)) -> Result<String, CompareError> {
    let config = read(&options.config, options)?;
    let mut results = Results::new();
    let mut table = String::new();
    for scenario in &config.scenarios {
        for round in 1..=config.rounds {
            for broker in &config.brokers {
                let report = run_once(&config, broker, scenario)?;
                let failures = report.failures.join("; ");
                let rate = grouped(report.received_per_s);
                say(&format!("{} round {round} {}: {rate} /s {failures}", scenario.name, broker.name));
                let of_scenario = results.entry(scenario.name.clone()).or_default();
                of_scenario.entry(broker.name.clone()).or_default().push(report);
            }
        }
        put_scenario(&mut table, &config, scenario, &results[&scenario.name]);
        for broker in config.brokers.iter().filter(|_| options.syscalls) {
            let calls = count_system_calls(&config, broker, scenario)?;
            let _ = writeln!(table, "{:<24}{calls:>16.3} system calls per message", broker.name);
        }
    }
    if let Some(path) = &options.json {
        let text = serde_json::to_vec_pretty(&Outcome { results: &results }).map_err(io::Error::other);
        text.and_then(|text| fs::write(path, text)).map_err(failed(format!("{}", path.display())))?;
    }
    Ok(table)
}

fn read(path: &Path, options: &CompareOptions) -> Result<Config, CompareError> {
    let text = fs::read_to_string(path).map_err(failed(format!("{}", path.display())))?;
    let mut config: Config = toml::from_str(&text)
        .map_err(|source| CompareError::Config { path: path.display().to_string(), source: Box::new(source) })?;
    let is_chosen = |chosen: &[String], name: &str| chosen.is_empty() || chosen.iter().any(|one| one == name);
    config.scenarios.retain(|scenario| is_chosen(&options.only, &scenario.name));
    config.brokers.retain(|broker| is_chosen(&options.brokers, &broker.name));
    config.rounds = options.rounds.unwrap_or(config.rounds);
    if let Some(duration_s) = options.duration {
        config.duration_s = duration_s;
        config.scenarios.iter_mut().for_each(|scenario| scenario.duration_s = None);
    }
    if config.scenarios.is_empty() || config.brokers.is_empty() { Err(CompareError::Nothing) } else { Ok(config) }
}

/// Appends the medians of a scenario, and the first broker's ratios to the others with their spread over the rounds.
fn put_scenario(table: &mut String, config: &Config, scenario: &Scenario, results: &BTreeMap<String, Vec<Report>>) {
    let _ = writeln!(table, "\n{}: {}", scenario.name, scenario.run);
    let _ = write!(table, "{:<24}", "");
    for (name, _) in METRICS {
        let _ = write!(table, "{name:>16}");
    }
    table.push('\n');
    let values = |broker: &Broker, metric: fn(&Report) -> f64| -> Vec<f64> {
        results[&broker.name].iter().map(metric).collect()
    };
    for broker in &config.brokers {
        let _ = write!(table, "{:<24}", broker.name);
        for (_, metric) in METRICS {
            let _ = write!(table, "{:>16.1}", median(&values(broker, metric)));
        }
        let failed = results[&broker.name].iter().filter(|report| !report.is_good()).count();
        let _ =
            writeln!(table, "{}", if failed > 0 { format!("  {failed} runs FAILED a check") } else { String::new() });
    }
    let Some((first, others)) = config.brokers.split_first() else { return };
    for other in others {
        let _ = write!(table, "{:<24}", format!("{} / {}", first.name, other.name));
        for (_, metric) in METRICS {
            let pairs = values(first, metric).into_iter().zip(values(other, metric));
            let ratios: Vec<f64> = pairs.filter(|(_, of)| *of > 0.0).map(|(ratio, of)| ratio / of).collect();
            let (low, high) =
                ratios.iter().fold((f64::MAX, 0.0_f64), |(low, high), one| (low.min(*one), high.max(*one)));
            let text =
                if ratios.is_empty() { "-".into() } else { format!("{:.2} [{low:.2}-{high:.2}]", median(&ratios)) };
            let _ = write!(table, "{text:>17}");
        }
        table.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_numbers() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
    }

    #[test]
    fn the_total_of_strace_is_its_calls() {
        let line = "100.00    0.004532           2      1945        12 total";
        assert_eq!(strace_total(&format!("% time seconds\n------\n{line}\n")), 1945);
        assert_eq!(strace_total("100.00    0.004532           2      1945           total"), 1945);
        assert_eq!(strace_total(""), 0);
    }

    #[test]
    fn the_comparison_of_the_repository_can_be_read() {
        let config: Config = toml::from_str(include_str!("../compare.toml")).expect("valid");
        assert_eq!(
            config.brokers.iter().map(|broker| broker.name.as_str()).collect::<Vec<_>>(),
            ["bifro-uring", "mosquitto"]
        );
        for scenario in &config.scenarios {
            let words = ["bifro-bench"].into_iter().chain(scenario.run.split_whitespace());
            assert!(<crate::options::Cli as clap::Parser>::try_parse_from(words).is_ok(), "{}", scenario.name);
        }
    }
}
