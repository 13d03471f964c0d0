//! What all foreign clients did and saw, by whichever thread hears of it.

use bifro_tests::history::{Event, History, Mark, Promise, Violation, check};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

/// See the module's page.
#[derive(Default)]
pub(super) struct Record {
    inner: Mutex<Inner>,
    publishing_is_over: AtomicBool,
    all_is_over: AtomicBool,
    connections: AtomicU32,
}

#[derive(Default)]
struct Inner {
    history: History,
    /// When a message was published first: a length of the history.
    published: HashMap<Mark, usize>,
    in_flight: HashSet<Mark>,
    /// Of QoS 2, sent again on another connection than at first.
    interrupted: HashSet<Mark>,
    acknowledged: BTreeMap<u32, u64>,
    subscribed: HashSet<u32>,
    refused: u32,
    disconnects: u32,
    /// What no client may see.
    faults: Vec<String>,
}

/// Where a client's messages go in the history.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    pub(super) audience: u32,
    pub(super) conn: u32,
    pub(super) dup: bool,
}

impl Record {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics with it")
    }

    /// Before it is sent.
    pub(super) fn published(&self, mark: Mark) {
        let mut inner = self.inner();
        let now = inner.history.now();
        inner.history.push(Event::Published { mark });
        inner.published.insert(mark, now);
        inner.in_flight.insert(mark);
    }

    /// On another connection, without an answer on the first.
    pub(super) fn sent_again(&self, mark: Mark, qos: u8) {
        let mut inner = self.inner();
        if qos == 2 {
            inner.interrupted.insert(mark);
        } else {
            inner.history.push(Event::Published { mark });
        }
    }

    pub(super) fn answered(&self, mark: Mark, is_success: bool) {
        let mut inner = self.inner();
        inner.in_flight.remove(&mark);
        if is_success {
            inner.history.push(Event::Acknowledged { mark });
            *inner.acknowledged.entry(mark.stream).or_default() += 1;
        } else {
            inner.refused += 1;
        }
    }

    pub(super) fn subscribed_by(&self, audience: u32) {
        self.inner().subscribed.insert(audience);
    }

    /// A subscriber got its CONNACK. Returns the connection's number.
    pub(super) fn connected(&self, audience: u32, session_present: bool) -> u32 {
        let conn = self.connections.fetch_add(1, Ordering::Relaxed);
        let mut inner = self.inner();
        inner.history.push(Event::Connected { id: audience, conn });
        if inner.subscribed.contains(&audience) && !session_present {
            inner.faults.push(format!("the session of subscriber {audience} is gone"));
        }
        conn
    }

    pub(super) fn disconnected(&self) {
        self.inner().disconnects += 1;
    }

    pub(super) fn received(&self, heard: Heard, payload: &[u8]) {
        let Some(mark) = Mark::parse(payload) else { return self.fault(format!("{heard:?}: not a mark: {payload:?}")) };
        let Heard { audience, conn, dup } = heard;
        let mut inner = self.inner();
        inner.history.push(Event::Received { audience, member: 0, mark, dup, kept: true });
        if let Some(&cause) = inner.published.get(&mark) {
            inner.history.push(Event::Served { id: audience, conn, cause });
        }
    }

    pub(super) fn fault(&self, what: String) {
        self.inner().faults.push(what);
    }

    pub(super) fn end_publishing(&self) {
        self.publishing_is_over.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_publishing_over(&self) -> bool {
        self.publishing_is_over.load(Ordering::Relaxed)
    }

    pub(super) fn end_all(&self) {
        self.all_is_over.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_all_over(&self) -> bool {
        self.all_is_over.load(Ordering::Relaxed)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.inner().in_flight.len()
    }

    pub(super) fn subscribed(&self) -> usize {
        self.inner().subscribed.len()
    }

    pub(super) fn acknowledged_by_stream(&self) -> BTreeMap<u32, u64> {
        self.inner().acknowledged.clone()
    }

    /// How many acknowledged messages somebody has not got yet.
    pub(super) fn lost(&self, promises: &[Promise]) -> usize {
        let history = self.inner().history.clone();
        let is_lost = |violation: &&Violation| matches!(violation, Violation::Lost { .. });
        check(&history, promises).iter().filter(is_lost).count()
    }

    /// Compares all with what was promised.
    pub(super) fn expect_kept(&self, promises: &[Promise]) {
        let inner = self.inner();
        let once: HashSet<(u32, u32)> = promises
            .iter()
            .filter(|promise| promise.guarantee == bifro_tests::history::Guarantee::ExactlyOnce)
            .map(|promise| (promise.audience, promise.stream))
            .collect();
        // A range that changes its leader is sent a message of QoS 1 again, which nobody could mark as a duplicate.
        let may_come_twice = |violation: &Violation| match violation {
            Violation::Repeated { audience, mark } => !once.contains(&(*audience, mark.stream)),
            _ => false,
        };
        let (repeated, broken): (Vec<_>, Vec<_>) =
            check(&inner.history, promises).into_iter().partition(may_come_twice);
        eprintln!(
            "acknowledged by stream {:?}; {} refused, {} of QoS 2 interrupted, {} without an answer; {} came again; {} connections ended",
            inner.acknowledged,
            inner.refused,
            inner.interrupted.len(),
            inner.in_flight.len(),
            repeated.len(),
            inner.disconnects
        );
        assert!(inner.faults.is_empty(), "{:#?}", inner.faults);
        let shown = &broken[..broken.len().min(10)];
        assert!(broken.is_empty(), "{} promises broken: {shown:#?}\n{}", broken.len(), inner.story(shown));
        assert!(inner.disconnects > 0, "nothing went wrong");
    }
}

impl Inner {
    /// Everything that happened to the first mark of a violation.
    fn story(&self, violations: &[Violation]) -> String {
        let Some((_, wanted)) = violations.iter().find_map(Violation::concerns) else { return String::new() };
        let tells = |event: &Event| match *event {
            Event::Published { mark } | Event::Acknowledged { mark } | Event::Received { mark, .. } => mark == wanted,
            _ => false,
        };
        let events = self.history.events().iter().enumerate().filter(|(_, event)| tells(event));
        events.map(|(time, event)| format!("{time}: {event:?}\n")).collect()
    }
}
