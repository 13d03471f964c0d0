//! The retain machine replayed: exact changes, and equal tables from the log and from the records at any position.

use super::*;
use crate::record::RecordError;
use alloc::collections::BTreeMap;
use alloc::vec;
use bifro_core::client::{ClientInfo, Transport, Version};
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

fn set(now: u64, topic: &str, payload: &[u8], expiry_at: Option<u64>) -> RetainCommand {
    let publisher = ClientInfo {
        tenant: "t".into(),
        user: "ann".into(),
        client_id: "c".into(),
        version: Version::V5,
        transport: Transport::Tcp,
        peer: None,
        rules: [].into(),
        expires_at: None,
    };
    let view = MessageView {
        topic,
        properties: &[],
        payload,
        qos: QoS::AtLeastOnce,
        retain: true,
        expiry_at: expiry_at.map(at),
        publisher: PublisherKey(1),
    };
    let retained = RetainedMessage { message: view.to_message(), publisher: Arc::new(publisher) };
    RetainCommand::Set { now: at(now), retained }
}

fn apply(table: &mut RetainTable, tenant: &Arc<TenantCtx>, command: &RetainCommand) -> Vec<RetainChange> {
    let read_back = RetainCommand::decode(&command.encode()).expect("just written");
    let mut changes = Vec::new();
    table.apply(&read_back, |_| tenant.clone(), &mut changes);
    table.validate();
    assert_eq!(tenant.quota.used(Resource::TotalRetainTopics), table.messages());
    assert_eq!(tenant.quota.used(Resource::TotalRetainMessageSpaceBytes), table.bytes());
    changes
}

fn write(records: &mut Records, changes: Vec<RetainChange>) {
    for RetainChange { key, value } in changes {
        match value {
            Some(value) => records.insert(key, value),
            None => records.remove(&key),
        };
    }
}

fn loaded(records: &Records, tenant: &Arc<TenantCtx>) -> RetainTable {
    let mut table = RetainTable::new();
    for record in records.values() {
        table.load(record, |_| tenant.clone()).expect("written by apply");
    }
    table.validate();
    table
}

/// Everything a table holds, by topic.
fn held(table: &RetainTable) -> Vec<(alloc::string::String, Vec<u8>, Option<Instant>)> {
    let mut held: Vec<_> = (table.tenants.values().flat_map(|of| of.topics.iter()))
        .map(|(topic, entry)| (topic, entry.retained.message.payload().to_vec(), entry.deadline))
        .map(|(topic, payload, deadline)| (alloc::string::String::from(topic), payload, deadline))
        .collect();
    held.sort();
    held
}

#[test]
fn set_replace_clear_and_expire_change_exactly_their_record() {
    let (mut table, tenant) = (RetainTable::new(), tenant());
    let put = apply(&mut table, &tenant, &set(1, "a", b"x", None));
    let key = put[0].key.clone();
    assert!(put.len() == 1 && put[0].value.is_some());
    let replaced = apply(&mut table, &tenant, &set(2, "a", b"longer", None));
    assert!(replaced.len() == 1 && replaced[0].key == key && replaced[0].value != put[0].value);
    assert_eq!(apply(&mut table, &tenant, &set(3, "a", b"", None)), [RetainChange { key, value: None }]);
    assert_eq!(apply(&mut table, &tenant, &set(4, "a", b"", None)), [], "nothing was there");
    let expiring = apply(&mut table, &tenant, &set(5, "b", b"x", Some(9)));
    assert_eq!(apply(&mut table, &tenant, &RetainCommand::Expire { now: at(8) }), []);
    let gone = vec![RetainChange { key: expiring[0].key.clone(), value: None }];
    assert_eq!(apply(&mut table, &tenant, &RetainCommand::Expire { now: at(9) }), gone);
    assert_eq!(table.messages(), 0);
}

#[test]
fn what_is_no_command_or_record_changes_nothing() {
    let command = set(1, "a", b"x", None).encode();
    let cut = RetainCommand::decode(&command[..command.len() - 1]);
    assert_eq!(cut.expect_err("cut off"), RecordError::Truncated);
    let mut table = RetainTable::new();
    assert_eq!(table.load(&command, |_| tenant()).map_err(|_| ()), Err(()), "a command is not a record");
    assert_eq!(table.messages(), 0);
}

fn commands() -> impl Strategy<Value = Vec<(u8, u8, Option<u64>)>> {
    prop::collection::vec((0_u8..6, 0_u8..4, prop::option::of(1_u64..40)), 1..40)
}

proptest! {
    #[test]
    fn the_log_alone_and_records_with_the_log_s_tail_give_equal_tables(script in commands(), cut in 0_usize..40) {
        let commands: Vec<_> = (script.iter().zip(1_u64..))
            .map(|(&(topic, payload, expiry), now)| match topic {
                0 => RetainCommand::Expire { now: at(now) },
                _ => set(now, &alloc::format!("a/{topic}"), &vec![7; payload.into()], expiry),
            })
            .collect();
        let (head, tail) = commands.split_at(cut.min(commands.len()));
        let (mut whole, mut records, first) = (RetainTable::new(), Records::new(), tenant());
        for command in head {
            write(&mut records, apply(&mut whole, &first, command));
        }
        let second = tenant();
        let mut recovered = loaded(&records, &second);
        prop_assert_eq!(held(&whole), held(&recovered));
        for command in tail {
            let changes = apply(&mut whole, &first, command);
            prop_assert_eq!(changes, apply(&mut recovered, &second, command));
        }
        prop_assert_eq!(held(&whole), held(&recovered));
    }
}
