//! Inboxes at rest: exact changes, and sessions that another process goes on with.

use super::*;
use crate::changes::{Change, Changes};
use crate::inbox::books::{Kind, key};
use crate::inbox::load::read_queued;
use crate::inbox::queue::Carried;
use crate::limits::INBOX_FETCH_MESSAGES_MAX;
use crate::record::Reader;
use alloc::collections::BTreeMap;
use bifro_core::ports::{FutureWill, InHand, Left, Origin};
use core::num::NonZeroU16;
use core::time::Duration;
use proptest::prelude::*;

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Origins name a publisher's inbox, which may be anywhere.
fn origin(packet_id: u16) -> Origin {
    Origin { inbox: (RangeIdx(7), Slot { index: 1, generation: 2 }), epoch: 3, packet_id, nth: 1, group: 0, attempt: 0 }
}

fn tenant(inbox_messages_max: u32) -> Arc<TenantCtx> {
    let settings = TenantSettings { inbox_messages_max, ..TenantSettings::default() };
    let quota = Arc::new(Quota::new(&QuotaLimits::default()));
    Arc::new(TenantCtx { idx: TenantIdx(0), name: "t".into(), settings, quota })
}

/// A durable table with its records.
pub(super) struct Kept {
    pub(super) table: InboxTable,
    pub(super) tenant: Arc<TenantCtx>,
    records: Records,
    pub(super) now: Instant,
    /// Places of subscriptions whose routes are there.
    places: Vec<(Slot, u32)>,
    owners: BTreeMap<String, OwnerRef>,
    /// Pushed to live owners and not committed.
    pub(super) pushed: BTreeMap<String, Vec<InboxMessage>>,
    pub(super) fetches: u32,
}

impl Kept {
    pub(super) fn new() -> Self {
        Self {
            table: InboxTable::durable(RangeIdx(0), SEED),
            tenant: tenant(50),
            records: Records::new(),
            now: at(1),
            places: vec![],
            owners: BTreeMap::new(),
            pushed: BTreeMap::new(),
            fetches: 0,
        }
    }

    /// As another process finds it.
    pub(super) fn recovered(&self) -> (Self, Vec<String>) {
        self.loaded(None)
    }

    /// As the next leader finds it, which gives out places from `first` on.
    fn loaded(&self, first: Option<InboxSeq>) -> (Self, Vec<String>) {
        let tenant = tenant(self.tenant.settings.inbox_messages_max);
        let mut kept = Self { records: self.records.clone(), now: self.now, tenant, ..Self::new() };
        let mut loader = Loader::new(InboxTable::durable(RangeIdx(0), SEED));
        for (key, value) in &self.records {
            loader.load(key, value, |_| kept.tenant.clone()).expect("written by the table");
        }
        let mut effects = vec![];
        kept.table = loader.finish(self.now, first, &mut effects);
        let lines = effects.iter().map(line).collect();
        kept.carry_out(effects);
        (kept, lines)
    }

    fn run(&mut self, call: impl FnOnce(&mut Self, &mut Vec<InboxEffect>)) -> Vec<String> {
        let mut effects = vec![];
        call(self, &mut effects);
        let lines = effects.iter().map(line).collect();
        self.carry_out(effects);
        lines
    }

    /// Answers routes, notes what clients hear, writes what has changed, and then reads what is to be fetched.
    fn carry_out(&mut self, effects: Vec<InboxEffect>) {
        let (mut more, mut fetches) = (vec![], vec![]);
        for effect in effects {
            match effect {
                InboxEffect::AddRoute { receiver: Receiver::Inbox { inbox, subscription, .. }, .. } => {
                    self.places.push((inbox, subscription));
                    self.table.route_added(inbox, subscription, Ok(()), &mut more);
                }
                InboxEffect::RemoveRoute { receiver: Receiver::Inbox { inbox, subscription, .. }, .. } => {
                    self.places.retain(|&place| place != (inbox, subscription));
                }
                InboxEffect::Push { conn, messages, .. } => {
                    self.pushed.entry(name(conn.slot.index)).or_default().extend(messages);
                }
                InboxEffect::Attached { result: Ok(attached), to } | InboxEffect::SettleAndAttach { attached, to } => {
                    let owner = OwnerRef { inbox: attached.inbox.expect("a place").1, epoch: attached.epoch };
                    self.owners.insert(name(to.req.0 as u32), owner);
                }
                InboxEffect::Fetch { inbox, from, to } => fetches.push((inbox, from, to)),
                _ => {}
            }
        }
        self.write();
        for (inbox, from, to) in fetches {
            self.fetches += 1;
            let found = self.records.range(from..to).take(INBOX_FETCH_MESSAGES_MAX);
            let found = found.map(|(key, value)| (&**key, &**value));
            self.table.fetched(self.now, inbox, found, &mut more).expect("written by the table");
        }
        if !more.is_empty() {
            self.carry_out(more);
        }
    }

    fn write(&mut self) {
        let bytes = self.table.changes().map(Changes::take).unwrap_or_default();
        for change in Changes::read(&bytes) {
            match change.expect("just written") {
                Change::Put { key, value, fresh } => {
                    let before = self.records.insert(key.to_vec(), value.to_vec());
                    assert!(!fresh || before.is_none(), "what is said to be fresh is");
                }
                Change::Delete { key } => assert!(self.records.remove(key).is_some(), "only what is there is deleted"),
            }
        }
        self.table.validate();
        let Totals { inboxes, bytes, .. } = self.table.totals();
        assert_eq!(self.tenant.quota.used(Resource::TotalPersistentSessions), inboxes);
        assert_eq!(self.tenant.quota.used(Resource::TotalPersistentSessionSpaceBytes), bytes);
    }

    pub(super) fn attach(&mut self, who: u32, clean_start: bool) -> Vec<String> {
        self.attach_with(who, AttachTerms { clean_start, expiry_s: 100, will: None })
    }

    fn attach_with(&mut self, who: u32, terms: AttachTerms) -> Vec<String> {
        self.pushed.remove(&name(who));
        let to = ReplyTo { node: NodeIdx::HERE, shard: ShardId(1), claim: 0, req: ReqId(who.into()) };
        self.run(|kept, effects| {
            kept.table.attach(kept.now, to, conn(who), &client(&name(who)), &kept.tenant.clone(), terms, effects);
        })
    }

    fn owner(&self, who: u32) -> Option<OwnerRef> {
        self.owners.get(&name(who)).copied()
    }

    pub(super) fn subscribe(&mut self, who: u32, full: &str, options: SubOptions) -> Vec<String> {
        let Some(owner) = self.owner(who) else { return vec![] };
        self.run(|kept, effects| kept.table.subscribe(TO, owner, full, options, effects))
    }

    pub(super) fn insert(&mut self, payload: &str, qos: QoS, origin: Option<Origin>) -> Vec<String> {
        let (places, message) = (self.places.clone(), message(payload, qos));
        self.run(|kept, effects| {
            kept.table.insert(kept.now, TO, &kept.tenant.clone(), &places, &message, origin, effects);
        })
    }

    pub(super) fn commit_first(&mut self, who: u32) -> Vec<String> {
        let Some(owner) = self.owner(who) else { return vec![] };
        let pushed = self.pushed.entry(name(who)).or_default();
        if pushed.is_empty() {
            return vec![];
        }
        let done: Vec<InboxSeq> = pushed.remove(0).seq.into_iter().collect();
        self.run(|kept, effects| kept.table.commit(kept.now, owner, &done, effects))
    }

    fn hold_first(&mut self, who: u32) -> Vec<String> {
        let Some(owner) = self.owner(who) else { return vec![] };
        let first = self.pushed.get(&name(who)).and_then(|pushed| pushed.first()?.seq);
        let Some(seq) = first else { return vec![] };
        self.run(|kept, effects| kept.table.hold(TO, owner, seq, effects))
    }

    /// The connection goes, and leaves everything that was pushed in flight.
    pub(super) fn detach(&mut self, who: u32, expiry_s: u32) -> Vec<String> {
        let Some(owner) = self.owners.remove(&name(who)) else { return vec![] };
        let pushed = self.pushed.remove(&name(who)).unwrap_or_default();
        let sent = pushed.iter().filter(|message| message.qos != QoS::AtMostOnce).filter_map(|message| message.seq);
        let in_flight = sent.map(|seq| (seq.packet_id(), false, Left::Stored(seq))).collect();
        let state = DetachState { in_flight, expiry_s, ..DetachState::default() };
        self.run(|kept, effects| kept.table.detach(kept.now, TO, owner, &client(&name(who)), state, effects))
    }

    fn received(&mut self, who: u32, packet_id: u16, release: bool) -> Vec<String> {
        let Some(owner) = self.owner(who) else { return vec![] };
        let origin =
            Origin { inbox: (RangeIdx(0), owner.inbox), epoch: owner.epoch, packet_id, nth: 1, group: 0, attempt: 0 };
        self.run(|kept, effects| match release {
            false => kept.table.receive(TO, origin, effects),
            true => kept.table.release(TO, origin, effects),
        })
    }

    /// Everything that outlives the process, by client; what may be lost with it is left out.
    fn dump(&self) -> Vec<String> {
        let mut lines: Vec<String> = (self.table.index.iter())
            .map(|(key, &slot)| {
                let inbox = self.table.inboxes.occupant(slot).expect("indexed");
                let subscriptions: Vec<_> =
                    inbox.subscriptions.iter().map(|(place, entry)| (place, &*entry.full, entry.options)).collect();
                let queue: Vec<_> = (inbox.queue.iter())
                    .filter(|(_, queued)| queued.qos != QoS::AtMostOnce)
                    .map(|(seq, queued)| {
                        let at_rest = self.at_rest(slot, seq);
                        let Carried { message, shared } = queued.carried.as_deref().unwrap_or(&at_rest);
                        let sources: Vec<_> = shared.iter().map(|source| source.filter.clone()).collect();
                        (seq.0, message.qos, message.message.payload().to_vec(), queued.held, queued.stored, sources)
                    })
                    .collect();
                let mut received = inbox.received_qos2.clone();
                received.sort_unstable();
                format!("{} {slot} {subscriptions:?} {queue:?} {received:?}", key.name)
            })
            .collect();
        lines.sort();
        let origins = self.table.books.origins.noted();
        let shared = self.table.books.shared.iter();
        let mut shared: Vec<_> = shared.map(|(number, shared)| (*number, shared.readers)).collect();
        shared.sort_unstable();
        lines.push(format!("{origins:?} {shared:?}"));
        lines
    }

    /// What the record of a message says.
    fn at_rest(&self, slot: Slot, seq: InboxSeq) -> Carried {
        let key = key(Kind::Queued, Some(slot), &seq.0.to_be_bytes());
        let mut value = Reader::new(&self.records[&*key]).expect("written by the table");
        let shared = |number| self.table.books.shared_message(number);
        read_queued(&mut value, seq, shared).expect("written by the table").0
    }

    /// Records by the first byte of their keys.
    fn kinds(&self) -> Vec<u8> {
        self.records.keys().map(|key| key[0]).collect()
    }
}

fn name(who: u32) -> String {
    format!("c{who}")
}

#[test]
fn a_message_to_one_session_is_one_record_and_to_several_its_payload_is_written_once() {
    let mut kept = Kept::new();
    kept.attach(1, false);
    kept.subscribe(1, "a/#", QOS2);
    assert_eq!(kept.kinds(), [1, 3, 4], "counter, session, subscription");
    kept.insert("one", QoS::AtLeastOnce, None);
    kept.insert("not kept", QoS::AtMostOnce, None);
    assert_eq!(kept.kinds(), [1, 3, 4, 5]);
    kept.attach(2, false);
    kept.subscribe(2, "a/+", QOS1);
    kept.insert("both", QoS::AtLeastOnce, None);
    assert_eq!(kept.kinds(), [1, 2, 3, 3, 4, 4, 5, 5, 5]);
    let with_payload = |kept: &Kept| {
        let has = |value: &Vec<u8>| value.windows(4).any(|bytes| bytes == b"both");
        kept.records.values().filter(|value| has(value)).count()
    };
    assert_eq!(with_payload(&kept), 1);
    kept.commit_first(2);
    assert_eq!(kept.kinds(), [1, 2, 3, 3, 4, 4, 5, 5], "the other still has it");
    // The first session's first message is "one", then the QoS 0 message that has no record, then "both".
    (0..3).for_each(|_| drop(kept.commit_first(1)));
    assert_eq!(kept.kinds(), [1, 3, 3, 4, 4], "nobody has it");
}

#[test]
fn an_ended_session_leaves_nothing_but_the_count() {
    let mut kept = Kept::new();
    kept.attach(1, false);
    kept.subscribe(1, "a/#", QOS2);
    kept.subscribe(1, "$share/g/x", QOS1);
    kept.insert("one", QoS::ExactlyOnce, None);
    kept.hold_first(1);
    kept.received(1, 9, false);
    assert_eq!(kept.kinds(), [1, 3, 4, 4, 5, 6, 7]);
    kept.run(|kept, effects| kept.table.discard(kept.now, TO, kept.tenant.idx, &client("c1"), effects));
    assert_eq!(kept.kinds(), [1]);
    let (mut kept, _) = kept.recovered();
    kept.attach(2, false);
    assert_eq!(kept.owner(2).map(|owner| owner.inbox.generation), Some(2), "no slot is given out twice");
}

/// [MQTT-4.3.3-2] [MQTT5-4.3.3-10]
#[test]
fn a_publish_that_is_repeated_to_the_next_process_is_stored_once_until_it_is_forgotten() {
    let mut kept = Kept::new();
    kept.attach(1, false);
    kept.subscribe(1, "a/#", QOS2);
    kept.insert("x", QoS::ExactlyOnce, Some(origin(5)));
    let (mut kept, _) = kept.recovered();
    assert_eq!(kept.insert("x", QoS::ExactlyOnce, Some(origin(5))), ["inserted Ok(())"]);
    assert_eq!(kept.table.totals().messages, 1);
    kept.run(|kept, effects| kept.table.forget(kept.now, TO, origin(5), false, effects));
    let (mut kept, _) = kept.recovered();
    kept.insert("y", QoS::ExactlyOnce, Some(origin(5)));
    assert_eq!(kept.table.totals().messages, 2, "another message under the same identifier");
}

/// [MQTT-4.3.3-2] [MQTT5-4.3.3-10]
#[test]
fn which_groups_have_a_publish_is_known_after_a_crash_until_it_is_forgotten() {
    let mut kept = Kept::new();
    kept.attach(1, false);
    kept.subscribe(1, "a/#", QOS2);
    let of = |group, attempt| Origin { group, attempt, ..origin(5) };
    kept.insert("x", QoS::ExactlyOnce, Some(of(9, 1)));
    let (mut kept, _) = kept.recovered();
    let inquire =
        |kept: &mut Kept, nth| kept.run(|kept, effects| kept.table.inquire(kept.now, TO, of(0, nth), effects));
    assert_eq!(inquire(&mut kept, 3), ["found [9]"]);
    let late = kept.insert("x", QoS::ExactlyOnce, Some(of(8, 2)));
    assert_eq!(late, ["inserted Err(NotOwner)"], "it comes of a try before");
    kept.insert("x", QoS::ExactlyOnce, Some(of(8, 4)));
    assert_eq!((inquire(&mut kept, 5), kept.table.totals().messages), (vec!["found [8, 9]".into()], 2));
    kept.run(|kept, effects| kept.table.forget(kept.now, TO, of(0, 0), false, effects));
    let (mut kept, _) = kept.recovered();
    assert_eq!(inquire(&mut kept, 6), ["found []"]);
}

#[test]
fn a_connection_that_has_lost_its_session_hears_so_of_its_exchanges_which_change_nothing() {
    let mut kept = Kept::new();
    kept.attach(1, false);
    kept.received(1, 7, false);
    let lost = kept.owner(1).expect("attached");
    kept.attach(1, false);
    assert!(!kept.table.is_owned(lost) && kept.table.is_owned(kept.owner(1).expect("attached")));
    let of = |packet_id| Origin { inbox: (RangeIdx(0), lost.inbox), epoch: lost.epoch, ..origin(packet_id) };
    let refused = ["done: Err(NotOwner)"];
    assert_eq!(kept.run(|kept, effects| kept.table.receive(TO, of(8), effects)), refused);
    assert_eq!(kept.run(|kept, effects| kept.table.release(TO, of(7), effects)), refused);
    assert_eq!(kept.run(|kept, effects| kept.table.hold(TO, lost, InboxSeq(0), effects)), refused);
    assert_eq!(kept.table.inboxes.occupant(lost.inbox).expect("it is there").received_qos2, [7]);
}

/// Ranges may still have notes of what the last owner had received, and its identifier may name another message soon.
#[test]
fn whoever_takes_a_session_over_or_comes_back_to_it_has_forgotten_everywhere_what_was_received() {
    let mut kept = Kept::new();
    kept.attach(1, false);
    kept.received(1, 5, false);
    let mut effects = vec![];
    let terms = AttachTerms { expiry_s: 100, ..AttachTerms::default() };
    kept.table.attach(kept.now, TO, conn(2), &client("c1"), &kept.tenant.clone(), terms, &mut effects);
    let owner = effects.iter().find_map(|effect| match effect {
        InboxEffect::SettleAndAttach { attached, .. } => {
            Some(OwnerRef { inbox: attached.inbox?.1, epoch: attached.epoch })
        }
        _ => None,
    });
    let before = kept.owners.insert("c1".into(), owner.expect("it is settled first")).expect("it was attached");
    let late =
        Origin { inbox: (RangeIdx(0), before.inbox), epoch: before.epoch, packet_id: 6, nth: 2, group: 0, attempt: 0 };
    let refused = "done: Err(NotOwner)";
    assert_eq!(kept.run(|kept, effects| kept.table.receive(TO, late, effects)), [refused], "nobody would know of it");
    kept.detach(1, 100);
    assert_eq!(kept.attach(1, false), ["attached when settled"]);
    kept.received(1, 5, true);
    kept.detach(1, 100);
    assert_eq!(kept.attach(1, false), ["attached present=true"], "nothing is left to forget");
}

/// [MQTT-4.4.0-1] [MQTT5-4.4.0-1]
#[test]
fn what_was_pushed_when_the_process_ended_comes_back_in_flight_under_its_identifier() {
    let mut kept = Kept::new();
    kept.attach(1, false);
    kept.subscribe(1, "a/#", QOS2);
    for payload in ["held", "sent", "gone"] {
        kept.insert(payload, QoS::ExactlyOnce, None);
    }
    kept.hold_first(1);
    let done = kept.pushed["c1"][2].seq.expect("stored");
    let owner = kept.owner(1).expect("attached");
    kept.run(|kept, effects| kept.table.commit(kept.now, owner, &[done], effects));
    kept.received(1, 77, false);
    let (mut kept, lines) = kept.recovered();
    assert_eq!(lines, ["add route a/#"]);
    let mut attached = None;
    let mut effects = vec![];
    let terms = AttachTerms::default();
    kept.table.attach(kept.now, TO, conn(1), &client("c1"), &kept.tenant.clone(), terms, &mut effects);
    for effect in effects {
        match effect {
            InboxEffect::SettleAndAttach { attached: found, .. } => attached = Some(found),
            InboxEffect::Push { messages, .. } => panic!("{messages:?} may have reached the client: it is in flight"),
            _ => {}
        }
    }
    let attached = attached.expect("it is settled first, since a publish was received");
    let in_flight: Vec<_> = attached.in_flight.iter().map(|one| (one.packet_id.get(), one.released)).collect();
    assert_eq!(in_flight, [(1, true), (2, false)]);
    assert_eq!((attached.present, attached.received_qos2), (true, vec![77]));
}

/// [MQTT5-3.1.2-23] [MQTT5-3.1.2-8]
#[test]
fn a_session_that_had_an_owner_goes_on_as_if_the_connection_had_broken_at_the_start() {
    let mut kept = Kept::new();
    let will = FutureWill {
        delay: Duration::from_secs(5),
        expiry: Some(Duration::from_secs(60)),
        message: message("will", QoS::AtLeastOnce),
    };
    kept.attach_with(1, AttachTerms { clean_start: false, expiry_s: 100, will: Some(will) });
    kept.now = at(1_000);
    let (mut kept, _) = kept.recovered();
    let timeout = |kept: &mut Kept, secs| {
        kept.now = at(secs);
        kept.run(|kept, effects| kept.table.handle_timeout(kept.now, effects))
    };
    assert!(timeout(&mut kept, 1_004).is_empty());
    assert_eq!(timeout(&mut kept, 1_005), ["will of : will"]);
    let (mut kept, _) = kept.recovered();
    assert!(timeout(&mut kept, 1_099).is_empty(), "the will is published once");
    assert_eq!(timeout(&mut kept, 1_100), ["event mqtt_session_stop"]);
    assert_eq!(kept.kinds(), [1]);
}

#[test]
fn what_a_connection_brought_from_elsewhere_keeps_its_identifier() {
    let mut kept = Kept::new();
    kept.attach(1, false);
    let owner = kept.owner(1).expect("attached");
    let id = NonZeroU16::new(40_000).expect("not zero");
    let retained = InboxMessage {
        seq: None,
        message: message("retained", QoS::ExactlyOnce),
        qos: QoS::ExactlyOnce,
        retain: true,
        subscription_ids: smallvec::SmallVec::new(),
        check_delivery: false,
    };
    let in_flight = vec![(id, true, Left::Unstored(Box::new(retained)))];
    let state = DetachState { in_flight, expiry_s: 100, ..DetachState::default() };
    kept.run(|kept, effects| kept.table.detach(kept.now, TO, owner, &client("c1"), state, effects));
    let (kept, _) = kept.recovered();
    let slot = kept.table.index.values().next().copied().expect("one session");
    let inbox = kept.table.inboxes.occupant(slot).expect("indexed");
    let resumed = inbox.resumed(RangeIdx(0), true);
    assert_eq!(resumed.in_flight.iter().map(|one| (one.packet_id, one.released)).collect::<Vec<_>>(), [(id, true)]);
}

/// One step of a random history: what, who, and a detail.
fn steps() -> impl Strategy<Value = Vec<(u8, u32, u8)>> {
    prop::collection::vec((0_u8..16, 0_u32..4, any::<u8>()), 1..120)
}

fn step(kept: &mut Kept, (what, who, detail): (u8, u32, u8)) -> Vec<String> {
    const FILTERS: [&str; 4] = ["a/#", "a/b", "$share/g/a/b", "+/b"];
    let filter = FILTERS[(detail % 4) as usize];
    let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][(detail / 4 % 3) as usize];
    match what {
        0 | 1 => kept.attach(who, detail % 8 == 0),
        2 | 3 => kept.subscribe(who, filter, SubOptions { qos, ..QOS0 }),
        4 => {
            let Some(owner) = kept.owner(who) else { return vec![] };
            kept.run(|kept, effects| kept.table.unsubscribe(TO, owner, filter, effects))
        }
        5..=8 => kept.insert(&format!("m{detail}"), qos, (what == 8).then(|| origin((detail % 4).into()))),
        9 | 10 => kept.commit_first(who),
        11 => kept.hold_first(who),
        12 => kept.detach(who, u32::from(detail % 16) * 10),
        13 => kept.received(who, (detail % 3 + 1).into(), detail > 127),
        14 => kept.run(|kept, effects| kept.table.forget(kept.now, TO, origin((detail % 4).into()), false, effects)),
        _ => {
            kept.now = kept.now + Duration::from_secs((detail % 32).into());
            kept.run(|kept, effects| kept.table.handle_timeout(kept.now, effects))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_table_recovered_at_any_moment_has_everything_that_outlives_a_process(
        before in steps(), after in steps(),
    ) {
        let mut kept = Kept::new();
        before.into_iter().for_each(|one| drop(step(&mut kept, one)));
        let (mut recovered, _) = kept.recovered();
        prop_assert_eq!(kept.dump(), recovered.dump());
        // And it goes on: what it writes from now on is as complete.
        after.into_iter().for_each(|one| drop(step(&mut recovered, one)));
        let (again, _) = recovered.recovered();
        prop_assert_eq!(recovered.dump(), again.dump());
    }
}

/// A client with one connection, and what it has received of QoS 1 and 2.
struct Moving {
    kept: Kept,
    next: InboxSeq,
    received: Vec<String>,
    sent: u32,
    term: u64,
}

impl Moving {
    fn new() -> Self {
        // More than any row of steps publishes: a full queue drops.
        let mut kept = Kept { tenant: tenant(1_000), ..Kept::new() };
        kept.attach(1, false);
        kept.subscribe(1, "a/#", QOS2);
        Self { kept, next: InboxSeq(0), received: vec![], sent: 0, term: 0 }
    }

    fn publish(&mut self, qos: QoS) {
        self.sent += 1;
        self.kept.insert(&format!("{}", self.sent), qos, None);
        self.take_pushed();
    }

    /// The connection has the client acknowledge as soon as it is asked to.
    fn take_pushed(&mut self) {
        let pushed = self.kept.pushed.entry(name(1)).or_default();
        for message in pushed.iter().filter(|message| message.seq.is_some_and(|seq| seq >= self.next)) {
            if message.qos != QoS::AtMostOnce {
                self.received.push(String::from_utf8(message.message.payload().to_vec()).expect("a number"));
            }
        }
        pushed.retain(|message| message.seq.is_some());
        self.next = pushed.last().and_then(|last| last.seq).map_or(self.next, |last| InboxSeq(last.0 + 1));
    }

    /// Another node leads. It has stored some messages before it hears of the connection.
    fn change_leader(&mut self, messages: u8, lost_commits: u8) {
        self.term += 1;
        let (mut kept, _) = self.kept.loaded(Some(InboxSeq(self.term << 40)));
        kept.owners.clone_from(&self.kept.owners);
        kept.pushed.clone_from(&self.kept.pushed);
        self.kept = kept;
        self.kept.table.expect_owners(self.kept.now);
        for _ in 0..messages {
            self.publish(QoS::AtLeastOnce);
        }
        let pushed = self.kept.pushed.entry(name(1)).or_default();
        pushed.drain(..pushed.len().min(lost_commits.into()));
        let in_hand = InHand { seqs: pushed.iter().filter_map(|message| message.seq).collect(), next: self.next };
        let owner = self.kept.owner(1).expect("attached");
        let lines =
            self.kept.run(|kept, effects| kept.table.reattach(kept.now, (conn(1), 0), owner, &in_hand, effects));
        assert!(!lines.iter().any(|line| line.starts_with("lost")), "{lines:?}");
        self.take_pushed();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// [MQTT-4.6.0-6] [MQTT-4.3.3-1]
    #[test]
    fn a_connection_that_goes_on_under_other_leaders_gets_everything_once_and_in_order(
        steps in prop::collection::vec((0_u8..8, 0_u8..4, 0_u8..4), 1..200),
    ) {
        let mut moving = Moving::new();
        let mut expected = vec![];
        for (what, detail, more) in steps {
            match what {
                0..=3 => {
                    let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(detail.min(2))];
                    moving.publish(qos);
                    expected.extend((qos != QoS::AtMostOnce).then(|| format!("{}", moving.sent)));
                }
                4..=6 => {
                    moving.kept.commit_first(1);
                    moving.take_pushed();
                }
                _ => {
                    let first = moving.sent + 1;
                    moving.change_leader(detail, more);
                    expected.extend((first..=moving.sent).map(|number| format!("{number}")));
                }
            }
        }
        while moving.kept.pushed.get("c1").is_some_and(|pushed| !pushed.is_empty()) {
            moving.kept.commit_first(1);
            moving.take_pushed();
        }
        prop_assert_eq!(moving.received, expected);
        prop_assert_eq!(moving.kept.table.totals().messages, 0);
    }
}
