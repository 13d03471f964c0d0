//! What is in memory of messages that nobody waits for, and how they come back.

use super::durable::Kept;
use super::*;
use crate::limits::QUEUED_OVERHEAD_BYTES;
use bifro_core::limits::INBOX_PUSH_WINDOW;

impl Kept {
    /// Lets queues be longer than a window.
    fn make_room(&mut self) {
        let settings = TenantSettings { inbox_messages_max: 1_000, ..TenantSettings::default() };
        let quota = self.tenant.quota.clone();
        self.tenant = Arc::new(TenantCtx { idx: TenantIdx(0), name: "t".into(), settings, quota });
    }
}

#[test]
fn what_nobody_waits_for_is_not_in_memory_and_comes_from_the_records_in_order() {
    let mut kept = Kept::new();
    kept.attach(1, false);
    kept.subscribe(1, "a/#", QOS1);
    let before = kept.table.totals().resident_bytes;
    kept.detach(1, 100);
    let payload = |n: u32| format!("{n:0>200}");
    (0..20).for_each(|n| drop(kept.insert(&payload(n), QoS::AtLeastOnce, None)));
    let totals = kept.table.totals();
    assert_eq!(totals.resident_bytes, before + 20 * QUEUED_OVERHEAD_BYTES, "twenty places, no message");
    assert!(totals.bytes > 20 * 200, "quotas count all of it");
    let (mut kept, _) = kept.recovered();
    assert_eq!(kept.table.totals().resident_bytes, totals.resident_bytes, "nor after a start");
    assert_eq!(kept.attach(1, false), ["attached present=true", "fetch for 0.1"], "the answer does not wait");
    let pushed: Vec<_> = kept.pushed["c1"].iter().map(|m| String::from_utf8(m.message.payload().to_vec())).collect();
    assert_eq!(pushed, (0..20).map(|n| Ok(payload(n))).collect::<Vec<_>>());
    assert_eq!(kept.fetches, 7, "three at a time");
}

#[test]
fn a_backlog_rests_behind_what_the_owner_has() {
    let mut kept = Kept::new();
    kept.make_room();
    kept.attach(1, false);
    kept.subscribe(1, "a/#", QOS1);
    let window = u64::try_from(INBOX_PUSH_WINDOW).expect("small");
    (0..window + 5).for_each(|n| drop(kept.insert(&format!("{n}"), QoS::AtLeastOnce, None)));
    assert!(kept.fetches > 0, "so that the first of them are there when the window moves on");
    for _ in 0..window + 5 {
        kept.commit_first(1);
    }
    let Totals { messages, resident_bytes, .. } = kept.table.totals();
    assert_eq!((messages, resident_bytes), (0, 0));
}

#[test]
fn large_messages_rest_behind_the_first_and_come_one_after_the_other() {
    let mut kept = Kept::new();
    kept.attach(1, false);
    kept.subscribe(1, "a/#", QOS1);
    kept.detach(1, 100);
    let payload = |n: u64| format!("{n:0>30000}");
    (0..10).for_each(|n| drop(kept.insert(&payload(n), QoS::AtLeastOnce, None)));
    kept.attach(1, false);
    assert_eq!(kept.pushed["c1"].len(), 10, "the owner's window is theirs to fill");
    let window = u64::try_from(INBOX_PUSH_WINDOW).expect("small");
    kept.make_room();
    (10..window + 10).for_each(|n| drop(kept.insert(&payload(n), QoS::AtLeastOnce, None)));
    let (pushed, totals) = (kept.pushed["c1"].len() as u64, kept.table.totals());
    assert_eq!(pushed, window);
    let each = totals.bytes / totals.messages;
    assert!(totals.resident_bytes < (window + 5) * each, "of ten that wait few are in memory: {totals:?}");
}

#[test]
fn a_record_that_is_missing_is_damage() {
    let mut kept = Kept::new();
    kept.attach(1, false);
    kept.subscribe(1, "a/#", QOS1);
    kept.detach(1, 100);
    kept.insert("one", QoS::AtLeastOnce, None);
    let mut effects = vec![];
    let terms = AttachTerms { clean_start: false, expiry_s: 100, will: None };
    kept.table.attach(kept.now, TO, conn(1), &client("c1"), &kept.tenant.clone(), terms, &mut effects);
    let Some(InboxEffect::Fetch { inbox, .. }) = effects.pop() else { panic!("a fetch") };
    assert!(kept.table.fetched(kept.now, inbox, core::iter::empty(), &mut effects).is_err());
}
