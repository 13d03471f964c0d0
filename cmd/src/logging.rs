//! Logging to standard error: levels that change at run time, text or JSON, typed events with a level and a counter per kind.
//!
//! Nobody who logs ever waits: lines go through a bounded queue to a thread of their own ([`queue`]), and what does not fit
//! is dropped and counted. A terminal that hangs must not stop a shard.

mod events;
mod queue;

pub use events::EventLog;

use bifro_core::config::{LogConfig, LogFormat, LogLevel};
use queue::LineQueue;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::{Registry, reload};

/// Logging of this process.
#[derive(Debug)]
pub struct Logging {
    filter: reload::Handle<Targets, Registry>,
    queue: LineQueue,
    events: Arc<EventLog>,
}

impl Logging {
    /// Starts logging for the whole process. `shards` is how many shards will report events.
    ///
    /// # Errors
    /// The process logs already.
    pub fn start(config: &LogConfig, shards: usize) -> Result<Self, SetGlobalDefaultError> {
        let queue = LineQueue::start(std::io::stderr());
        let (layer, filter) = reload::Layer::new(targets(config.level));
        let lines = line_layer(config.format, std::io::stderr().is_terminal(), queue.clone());
        tracing::subscriber::set_global_default(Registry::default().with(layer).with(lines))?;
        Ok(Self { filter, queue, events: Arc::new(EventLog::new(shards, config)) })
    }

    /// Puts the live keys of a reloaded configuration in force.
    pub fn apply(&self, config: &LogConfig) {
        // Fails only if the subscriber has gone, and then nothing is logged that could be filtered.
        let _ = self.filter.reload(targets(config.level));
        self.events.apply(config);
    }

    /// Where shards report their events.
    pub fn events(&self) -> &Arc<EventLog> {
        &self.events
    }

    /// Lines dropped because standard error did not keep up.
    pub fn lines_dropped(&self) -> Arc<AtomicU64> {
        self.queue.dropped()
    }

    /// Waits until everything logged so far is written, but not longer than `patience`. To be called before the process
    /// exits.
    pub fn flush(&self, patience: Duration) {
        self.queue.flush(patience);
    }
}

/// Our own crates at `level`; those we depend on no chattier than warnings, unless everything is asked for.
fn targets(level: LogLevel) -> Targets {
    let own = level_filter(level);
    let foreign = if level == LogLevel::Trace { own } else { own.min(LevelFilter::WARN) };
    Targets::new().with_default(foreign).with_target("bifro", own)
}

const fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

fn line_layer<S, W>(format: LogFormat, colour: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'s> tracing_subscriber::registry::LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        LogFormat::Text => layer.with_ansi(colour).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

#[cfg(test)]
mod tests;
