//! The command line.

use bifro_core::client::Version;
use bifro_core::message::QoS;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Loads an MQTT broker, checks every message, compares brokers. Exits with 1 when a check fails.
#[derive(Debug, Parser)]
#[command(name = "bifro-bench", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Idle connections: ramp up, hold, memory per connection; or, with --churn, connect and disconnect as fast as it goes.
    Conn(ConnOptions),
    /// Publishers to as many subscribers, each pair on a topic of its own.
    Pair(PairOptions),
    /// Few publishers on one topic to many subscribers.
    Fanout(FanoutOptions),
    /// Many publishers to the members of a shared group.
    Fanin(FaninOptions),
    /// Publishers on the leaves of a tree, subscribers with wildcards.
    Tree(TreeOptions),
    /// Retained messages: store, replay to a new subscriber, clear.
    Retain(RetainOptions),
    /// Persistent sessions: queue while the client is away, return, drain (online: `pair --persistent`).
    Session(SessionOptions),
    /// One client identifier connects again and again; each connection must end the one before.
    Takeover(TakeoverOptions),
    /// Several loads at once, weighted by a TOML file.
    Mix(MixOptions),
    /// Starts brokers in turn and compares them.
    Compare(CompareOptions),
    /// A peer that speaks just enough MQTT to show how fast the generator is.
    Sink(SinkOptions),
}

/// Version of the protocol.
#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
pub enum Protocol {
    /// 3.1.
    #[value(name = "3.1")]
    V31,
    /// 3.1.1.
    #[value(name = "3.1.1")]
    V311,
    /// 5.0.
    #[value(name = "5")]
    V5,
}

impl From<Protocol> for Version {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::V31 => Self::V31,
            Protocol::V311 => Self::V311,
            Protocol::V5 => Self::V5,
        }
    }
}

/// What every load has.
#[derive(Args, Clone, Debug)]
pub struct LoadOptions {
    /// Broker; several are used in turn.
    #[arg(long = "target", default_value = "127.0.0.1:1883")]
    pub targets: Vec<SocketAddr>,
    /// Broker that publishers connect to, if it is another node of the cluster than that of the subscribers; several are used in turn.
    #[arg(long)]
    pub publish_to: Vec<SocketAddr>,
    /// Protocol version.
    #[arg(long, value_enum, default_value = "3.1.1")]
    pub protocol: Protocol,
    /// Quality of service of publications and subscriptions.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Payload in bytes, at least 24 for the stamp.
    #[arg(long, default_value_t = 256)]
    pub payload: usize,
    /// Messages published a second by all publishers together, at fixed times. Without it: saturation with --window.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Messages in flight per publisher: published, and not yet received by all subscribers (and acknowledged, above QoS 0).
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub window: u64,
    /// Seconds of load before measuring.
    #[arg(long, default_value_t = 1.0)]
    pub warm_up: f64,
    /// Seconds to measure.
    #[arg(long, default_value_t = 10.0)]
    pub duration: f64,
    /// Keep sessions (Clean Session 0; in MQTT 5 with an expiry of an hour).
    #[arg(long)]
    pub persistent: bool,
    /// Threads of the generator.
    #[arg(long, default_value_t = 1)]
    pub cores: usize,
    /// CPUs to pin the threads to, by comma.
    #[arg(long, value_delimiter = ',')]
    pub cpus: Vec<usize>,
    /// Makes client identifiers and topics; a run with the same seed meets the sessions of the last one.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// User name.
    #[arg(long)]
    pub username: Option<String>,
    /// Password.
    #[arg(long, default_value = "")]
    pub password: String,
    /// Connect through TLS; whom to trust is said by --ca or --insecure.
    #[arg(long)]
    pub tls: bool,
    /// Certificates of those who may have signed the broker's, in PEM.
    #[arg(long)]
    pub ca: Option<PathBuf>,
    /// Trust any certificate.
    #[arg(long)]
    pub insecure: bool,
    /// Name expected in the broker's certificate; its address without it.
    #[arg(long)]
    pub server_name: Option<String>,
    /// Connect through WebSocket.
    #[arg(long)]
    pub ws: bool,
    /// Path of the WebSocket.
    #[arg(long, default_value = "/mqtt")]
    pub ws_path: String,
    /// Process whose CPU time and memory are recorded; of several together.
    #[arg(long = "target-pid")]
    pub target_pids: Vec<u32>,
    /// Writes the result as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Writes the result as a self-contained page.
    #[arg(long)]
    pub html: Option<PathBuf>,
}

impl LoadOptions {
    /// The protocol version.
    pub fn version(&self) -> Version {
        self.protocol.into()
    }

    /// The quality of service.
    pub fn quality(&self) -> QoS {
        QoS::from_bits(self.qos).unwrap_or(QoS::AtMostOnce)
    }

    /// The time to measure.
    pub fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.duration.max(0.1))
    }

    /// User name and password, if there is a user name.
    pub fn credentials(&self) -> Option<(String, String)> {
        self.username.clone().map(|name| (name, self.password.clone()))
    }
}

/// `conn`.
#[derive(Args, Clone, Debug)]
pub struct ConnOptions {
    /// Connections to hold; with --churn, connections open at a time.
    #[arg(long, default_value_t = 1000)]
    pub connections: u32,
    /// Connections opened a second; 0 is as fast as it goes.
    #[arg(long, default_value_t = 0)]
    pub ramp: u32,
    /// Keep-alive in seconds; half of it after the last packet a PINGREQ is sent.
    #[arg(long, default_value_t = 60)]
    pub keep_alive: u16,
    /// Connect, CONNACK, DISCONNECT, again.
    #[arg(long)]
    pub churn: bool,
    /// What every load has.
    #[command(flatten)]
    pub load: LoadOptions,
}

/// `pair`.
#[derive(Args, Clone, Debug)]
pub struct PairOptions {
    /// Pairs.
    #[arg(long, default_value_t = 50)]
    pub pairs: u32,
    /// What every load has.
    #[command(flatten)]
    pub load: LoadOptions,
}

/// `fanout`.
#[derive(Args, Clone, Debug)]
pub struct FanoutOptions {
    /// Publishers.
    #[arg(long, default_value_t = 1)]
    pub publishers: u32,
    /// Subscribers.
    #[arg(long, default_value_t = 1000)]
    pub subscribers: u32,
    /// What every load has.
    #[command(flatten)]
    pub load: LoadOptions,
}

/// `fanin`.
#[derive(Args, Clone, Debug)]
pub struct FaninOptions {
    /// Publishers.
    #[arg(long, default_value_t = 100)]
    pub publishers: u32,
    /// Members of the group.
    #[arg(long, default_value_t = 4)]
    pub members: u32,
    /// What every load has.
    #[command(flatten)]
    pub load: LoadOptions,
}

/// `tree`.
#[derive(Args, Clone, Debug)]
pub struct TreeOptions {
    /// Publishers, one leaf each.
    #[arg(long, default_value_t = 64)]
    pub publishers: u32,
    /// Subscribers; a third each with `#`, with `+` in the middle, with two `+`.
    #[arg(long, default_value_t = 48)]
    pub subscribers: u32,
    /// What every load has.
    #[command(flatten)]
    pub load: LoadOptions,
}

/// `retain`.
#[derive(Args, Clone, Debug)]
pub struct RetainOptions {
    /// Retained messages, one topic each.
    #[arg(long, default_value_t = 10_000)]
    pub topics: u32,
    /// Subscribers that get them all, one after the other.
    #[arg(long, default_value_t = 10)]
    pub replays: u32,
    /// What every load has.
    #[command(flatten)]
    pub load: LoadOptions,
}

/// `session`.
#[derive(Args, Clone, Debug)]
pub struct SessionOptions {
    /// Sessions.
    #[arg(long, default_value_t = 100)]
    pub sessions: u32,
    /// Messages queued for each; brokers bound their queues.
    #[arg(long, default_value_t = 500)]
    pub messages: u32,
    /// What every load has.
    #[command(flatten)]
    pub load: LoadOptions,
}

/// `takeover`.
#[derive(Args, Clone, Debug)]
pub struct TakeoverOptions {
    /// What every load has.
    #[command(flatten)]
    pub load: LoadOptions,
}

/// `mix`.
#[derive(Args, Clone, Debug)]
pub struct MixOptions {
    /// Weights of the loads: a table with any of pair, fanout, fanin and tree.
    #[arg(long)]
    pub weights: PathBuf,
    /// Publishers in all, divided by weight.
    #[arg(long, default_value_t = 100)]
    pub publishers: u32,
    /// What every load has.
    #[command(flatten)]
    pub load: LoadOptions,
}

/// `compare`.
#[derive(Args, Clone, Debug)]
pub struct CompareOptions {
    /// Brokers and scenarios.
    #[arg(long, default_value = "bench/compare.toml")]
    pub config: PathBuf,
    /// Scenarios to run, by comma; all without it.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Brokers to run, by comma; all without it.
    #[arg(long, value_delimiter = ',')]
    pub brokers: Vec<String>,
    /// Rounds; each runs every broker once.
    #[arg(long)]
    pub rounds: Option<u32>,
    /// Seconds to measure.
    #[arg(long)]
    pub duration: Option<f64>,
    /// Also counts the brokers' system calls, in a run of its own under strace.
    #[arg(long)]
    pub syscalls: bool,
    /// Writes the result as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// What the sink does wrong on purpose.
#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
pub enum Fault {
    /// Forgets every n-th message.
    Drop,
    /// Forwards every n-th message twice.
    Duplicate,
    /// Forwards every n-th message after its successor.
    Reorder,
}

/// `sink`.
#[derive(Args, Clone, Debug)]
pub struct SinkOptions {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:1883")]
    pub bind: SocketAddr,
    /// CPU to pin it to.
    #[arg(long)]
    pub cpu: Option<usize>,
    /// What it does wrong.
    #[arg(long, value_enum)]
    pub fault: Option<Fault>,
    /// To every which message of a connection.
    #[arg(long, default_value_t = 1000)]
    pub every: u64,
}
