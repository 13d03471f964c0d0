//! Typed events: each kind has a level, which operators can change at run time, and counters, whether it is logged or not.

use bifro_core::config::{LogConfig, LogLevel};
use bifro_core::event::{Event, EventKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

const KINDS: usize = EventKind::ALL.len();

/// One shard's counters, on cache lines of their own.
#[derive(Debug)]
#[repr(align(128))]
struct Stripe([AtomicU64; KINDS]);

/// Where events go.
#[derive(Debug)]
pub struct EventLog {
    levels: [AtomicU8; KINDS],
    stripes: Box<[Stripe]>,
}

impl EventLog {
    /// For `shards` shards, with the levels of `config`.
    pub fn new(shards: usize, config: &LogConfig) -> Self {
        let stripe = || Stripe([const { AtomicU64::new(0) }; KINDS]);
        let log = Self {
            levels: [const { AtomicU8::new(0) }; KINDS],
            stripes: std::iter::repeat_with(stripe).take(shards.max(1)).collect(),
        };
        log.apply(config);
        log
    }

    /// Takes the levels over.
    pub fn apply(&self, config: &LogConfig) {
        for &kind in EventKind::ALL {
            let level = config.events.get(kind.name()).copied().unwrap_or(default_level(kind));
            self.levels[kind as usize].store(level as u8, Ordering::Relaxed);
        }
    }

    /// Counts and, if its level says so, logs an event. `shard` picks the counters; any number is fine.
    pub fn log_event(&self, shard: usize, event: &Event) {
        let kind = event.kind as usize;
        self.stripes[shard % self.stripes.len()].0[kind].fetch_add(1, Ordering::Relaxed);
        log_at(self.levels[kind].load(Ordering::Relaxed), event);
    }

    /// How often each kind has happened.
    pub fn counts(&self) -> impl Iterator<Item = (EventKind, u64)> {
        let sum = |kind: usize| self.stripes.iter().map(|stripe| stripe.0[kind].load(Ordering::Relaxed)).sum();
        EventKind::ALL.iter().map(move |&kind| (kind, sum(kind as usize)))
    }
}

/// What a newcomer wants to see: clients that come and go, and everything that goes wrong; not every packet.
const fn default_level(kind: EventKind) -> LogLevel {
    use EventKind as E;
    match kind {
        E::AuthError
        | E::ServerBusy
        | E::InboxTransientError
        | E::WillDistError
        | E::PubDistError
        | E::MsgRetainedError
        | E::MatchRetainError => LogLevel::Warn,
        E::PingReq
        | E::Discard
        | E::WillDisted
        | E::PubAcked
        | E::PubReced
        | E::MsgRetained
        | E::RetainMsgCleared
        | E::RetainMsgMatched
        | E::Pushed
        | E::Dropped
        | E::Confirmed
        | E::SubAcked
        | E::UnsubAcked
        | E::OversizePacketDropped
        | E::GroupFanoutThrottled
        | E::PersistentFanoutThrottled
        | E::PersistentFanoutBytesThrottled
        | E::Overflowed
        | E::SubStalled
        | E::MqttSessionStart
        | E::MqttSessionStop => LogLevel::Debug,
        _ => LogLevel::Info,
    }
}

/// Client-supplied text is always a field, never the message: fields are quoted and escaped, so that a client id with a
/// line break cannot forge a line.
macro_rules! log_line {
    ($level:ident, $event:expr) => {{
        let event: &Event = $event;
        let client = event.client.as_deref();
        let peer = event.peer.or(client.and_then(|client| client.peer.map(SocketAddr::from)));
        tracing::event!(
            target: "bifro::event",
            tracing::Level::$level,
            kind = event.kind.name(),
            tenant = client.map(|client| &*client.tenant),
            client_id = client.map(|client| &*client.client_id),
            user = client.map(|client| &*client.user),
            peer = peer.map(tracing::field::display),
            topic = event.topic.as_deref(),
            qos = event.qos.map(|qos| qos as u8),
            dropped = event.dropped.map(tracing::field::debug),
            detail = &*event.detail,
        );
    }};
}

fn log_at(level: u8, event: &Event) {
    const ERROR: u8 = LogLevel::Error as u8;
    const WARN: u8 = LogLevel::Warn as u8;
    const INFO: u8 = LogLevel::Info as u8;
    const DEBUG: u8 = LogLevel::Debug as u8;
    const TRACE: u8 = LogLevel::Trace as u8;
    match level {
        ERROR => log_line!(ERROR, event),
        WARN => log_line!(WARN, event),
        INFO => log_line!(INFO, event),
        DEBUG => log_line!(DEBUG, event),
        TRACE => log_line!(TRACE, event),
        _ => {}
    }
}
