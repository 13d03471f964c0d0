//! The owner table: takeovers in every order, with exact effects.

use super::*;
use alloc::sync::Arc;
use alloc::vec;
use bifro_core::client::{ClientInfo, Transport, Version};
use bifro_core::ids::{ShardId, Slot, TenantIdx};
use core::time::Duration;

const CLIENT: TenantKeyRef<'static> = TenantKeyRef { tenant: TenantIdx(0), name: "c" };

/// A client with the id of [`CLIENT`]; each connection has an identity of its own.
fn client() -> Client {
    Arc::new(ClientInfo {
        tenant: "t".into(),
        user: "".into(),
        client_id: CLIENT.name.into(),
        version: Version::V5,
        transport: Transport::Tcp,
        peer: None,
        rules: [].into(),
        expires_at: None,
    })
}

fn conn(index: u32) -> ConnRef {
    ConnRef { node: NodeIdx::HERE, shard: ShardId(0), slot: Slot { index, generation: 0 } }
}

fn at(millis: u64) -> Instant {
    Instant::from_micros(millis * 1_000)
}

fn registered(index: u32) -> DictEffect {
    DictEffect::Registered { conn: conn(index), req: ReqId(u64::from(index)) }
}

fn kicked(index: u32) -> DictEffect {
    DictEffect::Kick { conn: conn(index) }
}

#[derive(Default)]
struct Driven {
    table: OwnerTable,
}

impl Driven {
    fn register(&mut self, millis: u64, index: u32) -> Vec<DictEffect> {
        let mut effects = vec![];
        self.table.register(at(millis), CLIENT.tenant, &client(), conn(index), ReqId(u64::from(index)), &mut effects);
        self.table.validate();
        effects
    }

    fn unregister(&mut self, millis: u64, index: u32) -> Vec<DictEffect> {
        let mut effects = vec![];
        self.table.unregister(at(millis), CLIENT, conn(index), &mut effects);
        self.table.validate();
        effects
    }

    fn timeout(&mut self, millis: u64) -> Vec<DictEffect> {
        let mut effects = vec![];
        self.table.handle_timeout(at(millis), &mut effects);
        self.table.validate();
        effects
    }
}

#[test]
fn the_first_to_come_owns_at_once_and_leaves_nothing_behind() {
    let mut dict = Driven::default();
    assert_eq!(dict.register(0, 1), [registered(1)]);
    assert_eq!(dict.table.owner(CLIENT), Some(conn(1)));
    assert_eq!(dict.unregister(1, 1), []);
    assert!(dict.table.is_empty());
    assert_eq!(dict.table.next_timeout(), None);
}

/// [MQTT-3.1.4-2] [MQTT5-3.1.4-3]
#[test]
fn a_second_connection_waits_until_the_kicked_owner_has_gone() {
    let mut dict = Driven::default();
    dict.register(0, 1);
    assert_eq!(dict.register(10, 2), [kicked(1)]);
    assert_eq!(dict.table.owner(CLIENT), Some(conn(1)), "not before the first has gone");
    assert_eq!(dict.unregister(20, 1), [registered(2)]);
    assert_eq!(dict.table.next_timeout(), None);
}

#[test]
fn those_who_wait_are_served_in_order_and_each_is_kicked_as_soon_as_it_owns() {
    let mut dict = Driven::default();
    dict.register(0, 1);
    assert_eq!(dict.register(1, 2), [kicked(1)]);
    assert_eq!(dict.register(2, 3), []);
    assert_eq!(dict.unregister(3, 1), [registered(2), kicked(2)]);
    assert_eq!(dict.unregister(4, 2), [registered(3)]);
    assert_eq!(dict.unregister(5, 3), []);
    assert!(dict.table.is_empty());
}

#[test]
fn an_owner_that_does_not_go_is_succeeded_at_its_deadline_and_ignored_afterwards() {
    let mut dict = Driven::default();
    dict.register(0, 1);
    dict.register(100, 2);
    assert_eq!(dict.table.next_timeout(), Some(at(100) + TAKEOVER_DEADLINE));
    assert_eq!(dict.timeout(5_099), []);
    assert_eq!(dict.timeout(5_100), [registered(2)]);
    assert_eq!(dict.unregister(6_000, 1), [], "too late to matter");
    assert_eq!(dict.table.owner(CLIENT), Some(conn(2)));
}

#[test]
fn a_connection_that_only_waits_leaves_the_queue_by_unregistering() {
    let mut dict = Driven::default();
    dict.register(0, 1);
    dict.register(1, 2);
    dict.register(2, 3);
    assert_eq!(dict.unregister(3, 2), []);
    assert_eq!(dict.unregister(4, 1), [registered(3)]);
}

#[test]
fn an_owner_nobody_waits_for_any_more_stays_and_is_kicked_again_later() {
    let mut dict = Driven::default();
    dict.register(0, 1);
    dict.register(1, 2);
    dict.unregister(2, 2);
    assert_eq!(dict.timeout(6_000), []);
    assert_eq!(dict.table.owner(CLIENT), Some(conn(1)));
    assert_eq!(dict.register(7_000, 3), [kicked(1)]);
}

#[test]
fn a_deadline_is_renewed_for_each_successor() {
    let mut dict = Driven::default();
    dict.register(0, 1);
    dict.register(0, 2);
    dict.register(0, 3);
    assert_eq!(dict.timeout(5_000), [registered(2), kicked(2)]);
    assert_eq!(dict.table.next_timeout(), Some(at(5_000) + TAKEOVER_DEADLINE));
    assert_eq!(dict.timeout(10_000), [registered(3)]);
    assert_eq!(dict.table.next_timeout(), None);
}

#[test]
fn registering_again_changes_nothing() {
    let mut dict = Driven::default();
    dict.register(0, 1);
    assert_eq!(dict.register(1, 1), [registered(1)]);
    assert_eq!(dict.table.len(), 1);
}

#[test]
fn beyond_the_limit_the_longest_waiting_is_kicked_unserved() {
    let mut dict = Driven::default();
    dict.register(0, 0);
    let last = u32::try_from(TAKEOVERS_WAITING_MAX).unwrap();
    for index in 1..=last {
        dict.register(0, index);
    }
    assert_eq!(dict.register(0, last + 1), [kicked(1)]);
    assert_eq!(dict.unregister(1, 0), [registered(2), kicked(2)]);
}

#[test]
fn tenants_do_not_share_client_ids() {
    let (mut dict, mut effects) = (OwnerTable::new(), vec![]);
    dict.register(at(0), CLIENT.tenant, &client(), conn(1), ReqId(1), &mut effects);
    dict.register(at(0), TenantIdx(1), &client(), conn(2), ReqId(2), &mut effects);
    assert_eq!(effects, [registered(1), registered(2)]);
    assert_eq!(Duration::from_secs(5), TAKEOVER_DEADLINE);
}
