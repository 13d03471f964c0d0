//! Exact answers of the retain machine.

use super::*;
use crate::limits::RETAINED_FIND_STEPS_MAX;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use bifro_core::client::{ClientInfo, Transport, Version};
use bifro_core::ids::{NodeIdx, PublisherKey, ReqId, ShardId};
use bifro_core::message::{MessageView, QoS};
use bifro_core::settings::{QuotaLimits, TenantSettings};

const TO: ReplyTo = ReplyTo { node: NodeIdx::HERE, shard: ShardId(0), claim: 0, req: ReqId(1) };

fn at(secs: u64) -> Instant {
    Instant::from_micros(secs * 1_000_000)
}

fn message(topic: &str, payload: &str, expiry_at: Option<Instant>) -> Arc<Message> {
    let (payload, publisher) = (payload.as_bytes(), PublisherKey(1));
    MessageView { topic, properties: &[], payload, qos: QoS::AtLeastOnce, retain: true, expiry_at, publisher }
        .to_message()
}

pub(super) fn publisher() -> Client {
    Arc::new(ClientInfo {
        tenant: "t".into(),
        user: "ann".into(),
        client_id: "c".into(),
        version: Version::V5,
        transport: Transport::Tcp,
        peer: None,
        rules: [].into(),
        expires_at: None,
    })
}

struct Driven {
    table: RetainTable,
    tenant: TenantCtx,
    now: Instant,
}

impl Driven {
    fn new() -> Self {
        Self::with(TenantSettings::default(), &QuotaLimits::default())
    }

    fn with(settings: TenantSettings, limits: &QuotaLimits) -> Self {
        let quota = Arc::new(Quota::new(limits));
        let tenant = TenantCtx { idx: TenantIdx(0), name: "t".into(), settings, quota };
        Self { table: RetainTable::new(), tenant, now: at(0) }
    }

    fn set_message(&mut self, message: &Arc<Message>) -> Result<(), PortError> {
        let result = self.table.set(self.now, &self.tenant, &publisher(), message);
        self.table.validate();
        assert_eq!(self.used(Resource::TotalRetainTopics), self.table.messages());
        assert_eq!(self.used(Resource::TotalRetainMessageSpaceBytes), self.table.bytes());
        result
    }

    fn set(&mut self, topic: &str, payload: &str) -> Result<(), PortError> {
        self.set_message(&message(topic, payload, None))
    }

    fn used(&self, resource: Resource) -> u64 {
        self.tenant.quota.used(resource)
    }

    fn find(&mut self, filter: &str) -> Vec<String> {
        let mut effects = vec![];
        let limits = FindLimits::of(&self.tenant.settings);
        self.table.find(self.now, TO, TenantIdx(0), filter.into(), limits, &mut effects);
        found(effects)
    }

    fn timeout(&mut self, secs: u64) -> Vec<String> {
        self.now = at(secs);
        let mut effects = vec![];
        self.table.handle_timeout(self.now, &mut effects);
        self.table.validate();
        found(effects)
    }
}

fn found(effects: Vec<RetainEffect>) -> Vec<String> {
    let messages = effects.into_iter().flat_map(|effect| match effect {
        RetainEffect::Found { messages, .. } => messages,
        _ => vec![],
    });
    let text = |m: &Message| format!("{}={}", m.topic(), String::from_utf8_lossy(m.payload()));
    messages.map(|retained| text(&retained.message)).collect()
}

/// [MQTT-3.3.1-5] [MQTT5-3.3.1-5]
#[test]
fn the_last_message_of_a_topic_is_retained_with_its_publisher() {
    let mut retain = Driven::new();
    retain.set("a/b", "one").unwrap();
    retain.set("a/b", "two, longer").unwrap();
    retain.set("a/c", "three").unwrap();
    assert_eq!(retain.find("a/b"), ["a/b=two, longer"]);
    assert_eq!(retain.find("#"), ["a/b=two, longer", "a/c=three"]);
    assert_eq!(retain.find("a/d"), [""; 0]);
    let mut effects = vec![];
    let limits = FindLimits::of(&retain.tenant.settings);
    retain.table.find(at(0), TO, TenantIdx(0), "a/c".into(), limits, &mut effects);
    let RetainEffect::Found { to, messages } = &effects[0] else { panic!("an answer") };
    assert_eq!((*to, &*messages[0].publisher.user), (TO, "ann"));
}

/// [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT5-3.3.1-6] [MQTT5-3.3.1-7]
#[test]
fn an_empty_payload_clears_the_topic_and_is_not_retained() {
    let mut retain = Driven::new();
    retain.set("a", "x").unwrap();
    retain.set("a", "").unwrap();
    retain.set("never", "").unwrap();
    assert_eq!(retain.find("#"), [""; 0]);
    assert_eq!((retain.table.messages(), retain.table.bytes()), (0, 0));
}

/// [MQTT-4.7.2-1] [MQTT5-4.7.2-1]
#[test]
fn a_leading_wildcard_does_not_find_dollar_topics() {
    let mut retain = Driven::new();
    retain.set("$SYS/x", "1").unwrap();
    assert_eq!(retain.find("#"), [""; 0]);
    assert_eq!(retain.find("$SYS/#"), ["$SYS/x=1"]);
}

/// [MQTT5-3.3.2-5]
#[test]
fn expired_messages_are_not_found_and_the_timer_removes_them() {
    let mut retain = Driven::new();
    retain.set_message(&message("a", "x", Some(Instant::from_micros(1_500_000)))).unwrap();
    retain.set("b", "stays").unwrap();
    assert_eq!(retain.find("a"), ["a=x"]);
    retain.now = Instant::from_micros(1_500_000);
    assert_eq!(retain.find("#"), ["b=stays"]);
    assert_eq!(retain.table.next_timeout(), Some(at(2)), "whole seconds only");
    retain.timeout(2);
    assert_eq!((retain.table.messages(), retain.table.next_timeout()), (1, None));
    assert_eq!(retain.used(Resource::TotalRetainTopics), 1);
}

#[test]
fn replacing_a_message_replaces_its_expiry() {
    let mut retain = Driven::new();
    retain.set_message(&message("a", "x", Some(at(5)))).unwrap();
    retain.set("a", "for ever").unwrap();
    assert_eq!(retain.table.next_timeout(), None);
    assert_eq!(retain.timeout(9), [""; 0]);
    assert_eq!(retain.find("a"), ["a=for ever"]);
    retain.set_message(&message("a", "expired on arrival", Some(at(9)))).unwrap();
    assert_eq!(retain.find("a"), [""; 0], "it has replaced the other, and is gone itself");
}

#[test]
fn topics_and_space_beyond_the_quota_are_refused_and_change_nothing() {
    let bytes = retained_bytes(&message("a", "12345678", None));
    let limits =
        QuotaLimits { total_retain_topics: 2, total_retain_message_space_bytes: 2 * bytes, ..QuotaLimits::default() };
    let mut retain = Driven::with(TenantSettings::default(), &limits);
    retain.set("a", "12345678").unwrap();
    assert_eq!(retain.set("b", "123456789"), Err(PortError::QuotaExceeded), "a byte too many");
    retain.set("b", "12345678").unwrap();
    assert_eq!(retain.set("c", ""), Ok(()), "clearing takes nothing");
    assert_eq!(retain.set("c", "1"), Err(PortError::QuotaExceeded), "a topic too many");
    assert_eq!(retain.set("a", "123456789"), Err(PortError::QuotaExceeded));
    assert_eq!(retain.find("a"), ["a=12345678"], "the old one stays");
    retain.set("b", "1").unwrap();
    retain.set("a", "123456789").unwrap();
    for topic in ["a", "b"] {
        retain.set(topic, "").unwrap();
    }
    assert_eq!(retain.used(Resource::TotalRetainMessageSpaceBytes), 0);
}

#[test]
fn setting_beyond_the_rate_is_refused_until_the_next_second() {
    let limits = QuotaLimits { total_retained_messages_per_second: 1, ..QuotaLimits::default() };
    let mut retain = Driven::with(TenantSettings::default(), &limits);
    retain.set("a", "1").unwrap();
    assert_eq!(retain.set("a", "2"), Err(PortError::QuotaExceeded));
    retain.now = at(1);
    retain.set("a", "3").unwrap();
    assert_eq!(retain.find("a"), ["a=3"]);
}

#[test]
fn an_answer_stays_within_the_tenants_limits() {
    let by_count = TenantSettings { retained_matches_max: 2, ..TenantSettings::default() };
    let bytes = message("a", "x", None).footprint_bytes() as u64;
    let by_bytes = TenantSettings { retained_match_bytes_max: 2 * bytes, ..TenantSettings::default() };
    for settings in [by_count, by_bytes] {
        let mut retain = Driven::with(settings, &QuotaLimits::default());
        for topic in ["c", "a", "b"] {
            retain.set(topic, "x").unwrap();
        }
        assert_eq!(retain.find("#"), ["a=x", "b=x"]);
    }
}

#[test]
fn a_long_search_goes_on_in_the_timer_and_finds_everything_once() {
    let mut retain = Driven::new();
    let all = 2 * RETAINED_FIND_STEPS_MAX + 10;
    for index in 0..all {
        let message = message(&format!("t/{index}"), "x", None);
        retain.table.set(at(0), &retain.tenant, &publisher(), &message).unwrap();
    }
    assert_eq!(retain.find("t/+"), [""; 0]);
    let mut messages = vec![];
    let mut calls = 0;
    while retain.table.next_timeout() == Some(at(0)) {
        messages.extend(retain.timeout(0));
        calls += 1;
    }
    assert_eq!((messages.len(), calls), (all, 2));
    messages.dedup();
    assert_eq!(messages.len(), all);
    assert_eq!(retain.find("t/5"), ["t/5=x".to_string()]);
}
