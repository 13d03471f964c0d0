//! The table at rest: exact changes, and equal tables from the records at any moment.

use super::*;
use crate::changes::{Change, Changes};
use crate::record::RecordError;
use alloc::collections::BTreeMap;
use bifro_core::ids::PublisherKey;
use bifro_core::message::{MessageView, QoS};
use bifro_core::settings::{QuotaLimits, TenantSettings};
use proptest::prelude::*;

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

fn at(secs: u64) -> Instant {
    Instant::from_micros(secs * 1_000_000)
}

fn tenant() -> Arc<TenantCtx> {
    let quota = Arc::new(Quota::new(&QuotaLimits::default()));
    Arc::new(TenantCtx { idx: TenantIdx(0), name: "t".into(), settings: TenantSettings::default(), quota })
}

/// A table, its tenant and its records at rest.
struct Driven {
    table: RetainTable,
    tenant: Arc<TenantCtx>,
    records: Records,
}

impl Driven {
    fn new() -> Self {
        Self { table: RetainTable::durable(), tenant: tenant(), records: Records::new() }
    }

    /// As another process finds it.
    fn recovered(&self) -> Self {
        let mut driven = Self { records: self.records.clone(), ..Self::new() };
        for record in self.records.values() {
            driven.table.load(record, |_| driven.tenant.clone()).expect("written by the table");
        }
        driven.check();
        driven
    }

    fn check(&self) {
        self.table.validate();
        assert_eq!(self.tenant.quota.used(Resource::TotalRetainTopics), self.table.messages());
        assert_eq!(self.tenant.quota.used(Resource::TotalRetainMessageSpaceBytes), self.table.bytes());
    }

    /// Writes what has changed; how many records that were.
    fn write(&mut self) -> usize {
        self.check();
        let bytes = self.table.changes().map(Changes::take).unwrap_or_default();
        let mut changed = 0;
        for change in Changes::read(&bytes) {
            match change.expect("just written") {
                Change::Put { key, value, .. } => drop(self.records.insert(key.to_vec(), value.to_vec())),
                Change::Delete { key } => assert!(self.records.remove(key).is_some(), "only what was there is deleted"),
            }
            changed += 1;
        }
        changed
    }

    fn set(&mut self, now: u64, topic: &str, payload: &[u8], expiry_at: Option<u64>) -> usize {
        let view = MessageView {
            topic,
            properties: &[],
            payload,
            qos: QoS::AtLeastOnce,
            retain: true,
            expiry_at: expiry_at.map(at),
            publisher: PublisherKey(1),
        };
        self.table.set(at(now), &self.tenant, &tests::publisher(), &view.to_message()).expect("no quota");
        self.write()
    }

    fn expire(&mut self, now: u64) -> usize {
        self.table.handle_timeout(at(now), &mut Vec::new());
        self.write()
    }

    /// Everything held, by topic.
    fn held(&self) -> Vec<(alloc::string::String, Vec<u8>, Option<Instant>)> {
        let mut held: Vec<_> = (self.table.tenants.values().flat_map(|of| of.topics.iter()))
            .map(|(topic, entry)| (topic, entry.retained.message.payload().to_vec(), entry.deadline))
            .map(|(topic, payload, deadline)| (alloc::string::String::from(topic), payload, deadline))
            .collect();
        held.sort();
        held
    }
}

#[test]
fn set_replace_clear_and_expire_change_exactly_their_record() {
    let mut driven = Driven::new();
    assert_eq!((driven.set(1, "a", b"x", None), driven.records.len()), (1, 1));
    assert_eq!((driven.set(2, "a", b"longer", None), driven.records.len()), (1, 1));
    assert_eq!((driven.set(3, "a", b"", None), driven.records.len()), (1, 0));
    assert_eq!(driven.set(4, "a", b"", None), 0, "nothing was there");
    assert_eq!(driven.set(5, "b", b"x", Some(9)), 1);
    assert_eq!((driven.expire(8), driven.expire(9), driven.records.len()), (0, 1, 0));
}

#[test]
fn topics_too_long_for_a_key_are_told_apart_all_the_same() {
    let mut driven = Driven::new();
    let long = "l/".repeat(20_000);
    driven.set(1, &alloc::format!("{long}a"), b"1", None);
    driven.set(1, &alloc::format!("{long}b"), b"2", None);
    assert_eq!(driven.recovered().held(), driven.held());
    assert!(driven.records.keys().all(|key| key.len() < 8_192), "a base takes keys below 64 KiB");
}

#[test]
fn what_is_no_record_changes_nothing() {
    let mut driven = Driven::new();
    driven.set(1, "a", b"x", None);
    let record = driven.records.values().next().expect("one").clone();
    let mut table = RetainTable::durable();
    let cut = table.load(&record[..record.len() - 1], |_| tenant());
    assert_eq!((cut, table.messages()), (Err(RecordError::Truncated), 0));
}

#[test]
fn a_table_that_is_not_durable_writes_nothing() {
    let mut driven = Driven { table: RetainTable::new(), ..Driven::new() };
    assert_eq!((driven.set(1, "a", b"x", None), driven.set(2, "a", b"", None)), (0, 0));
}

fn steps() -> impl Strategy<Value = Vec<(u8, u8, Option<u64>)>> {
    prop::collection::vec((0_u8..6, 0_u8..4, prop::option::of(1_u64..40)), 1..40)
}

proptest! {
    #[test]
    fn a_table_recovered_at_any_moment_goes_on_like_the_one_that_was_not(script in steps(), crash in 0_usize..40) {
        let (mut whole, mut other) = (Driven::new(), Driven::new());
        for (now, (at, &(topic, payload, expiry))) in (1..).zip(script.iter().enumerate()) {
            if at == crash {
                other = other.recovered();
            }
            for driven in [&mut whole, &mut other] {
                match topic {
                    0 => driven.expire(now),
                    _ => driven.set(now, &alloc::format!("a/{topic}"), &alloc::vec![7; payload.into()], expiry),
                };
            }
            prop_assert_eq!(whole.held(), other.held());
            prop_assert_eq!(&whole.records, &other.records);
        }
    }
}
