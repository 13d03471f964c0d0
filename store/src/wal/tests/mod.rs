//! Tests of the log, against real files.

mod basics;
mod damage;
mod faults;
#[cfg(feature = "simulation")]
mod stepped;

use super::*;
use crate::fatal::Fatal;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// A log in a directory of its own, with one port that can wait.
pub(super) struct Bench {
    pub(super) wal: Option<Wal>,
    pub(super) port: WalPort,
    pub(super) woken: Receiver<()>,
    pub(super) groups: Vec<RecoveredGroup>,
}

/// Reasons given to the fatal hook.
pub(super) type Reasons = Arc<Mutex<Vec<String>>>;

pub(super) fn noting(reasons: &Reasons) -> Fatal {
    let reasons = reasons.clone();
    Arc::new(move |reason| reasons.lock().expect("not poisoned").push(reason.to_owned()))
}

/// Small files and no reserve, so that tests are quick on any disk.
pub(super) fn small() -> WalConfig {
    WalConfig {
        file_bytes: 64 << 10,
        purge_bytes: 256 << 10,
        reserve_bytes: 0,
        purge_interval: Duration::from_millis(20),
        ..WalConfig::default()
    }
}

pub(super) fn try_open(dir: &Path, config: WalConfig, fatal: Fatal) -> Result<Bench, OpenError> {
    let data = DataDir::open(dir).expect("a data directory");
    let (wal, groups) = Wal::open(&data, config, fatal)?;
    let (ring, woken) = channel();
    let ring = Mutex::new(ring);
    let port = wal.port(Arc::new(move || {
        // The test may be over.
        let _sent = ring.lock().expect("not poisoned").send(());
    }));
    Ok(Bench { wal: Some(wal), port, woken, groups })
}

pub(super) fn open(dir: &Path, config: WalConfig) -> Bench {
    let fatal: Fatal = Arc::new(|reason| panic!("fatal: {reason}"));
    let start = Instant::now();
    loop {
        match try_open(dir, config.clone(), fatal.clone()) {
            Ok(bench) => return bench,
            // Another test starts a process, which has everything open that this one has, locks too, until it is another program.
            Err(error)
                if start.elapsed() < Duration::from_secs(5) && format!("{error:?}").contains("Failed to lock file") => {
            }
            Err(error) => panic!("the log does not open: {error:?}"),
        }
    }
}

impl Bench {
    pub(super) fn wal(&self) -> &Wal {
        self.wal.as_ref().expect("open")
    }

    /// All events up to and including the first that `is_last`.
    pub(super) fn events_until(&mut self, is_last: impl Fn(&WalEvent) -> bool) -> Vec<WalEvent> {
        let mut events = Vec::new();
        loop {
            self.port.poll(&mut events);
            if events.iter().any(&is_last) {
                return events;
            }
            let waited = self.woken.recv_timeout(Duration::from_secs(20));
            waited.unwrap_or_else(|_| panic!("nothing came; so far {events:?}"));
        }
    }

    /// Submits and waits until durable; what came before, without the durability itself.
    pub(super) fn write(&mut self, batch: WalBatch) -> Vec<WalEvent> {
        let token = self.port.submit(batch).expect("there is room");
        let mut events =
            self.events_until(|event| matches!(event, WalEvent::Durable { token: done } if *done >= token));
        events.retain(|event| !matches!(event, WalEvent::Durable { .. }));
        events
    }

    pub(super) fn read(&mut self, group: GroupId, range: Range<u64>) -> Result<Vec<WalEntry>, WalError> {
        assert!(self.port.read(1, group, range, usize::MAX));
        let events = self.events_until(|event| matches!(event, WalEvent::Entries { .. }));
        let mut answers = events.into_iter().filter_map(|event| match event {
            WalEvent::Entries { result, .. } => Some(result),
            _ => None,
        });
        answers.next_back().expect("waited for it")
    }
}

pub(super) fn entries(range: Range<u64>, payload: &[u8]) -> Vec<WalEntry> {
    range.map(|index| WalEntry::new(index, payload)).collect()
}

pub(super) fn append(group: GroupId, range: Range<u64>, payload: &[u8]) -> WalBatch {
    let mut batch = WalBatch::default();
    batch.append(group, entries(range, payload));
    batch
}
