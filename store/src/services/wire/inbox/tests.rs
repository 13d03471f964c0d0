//! What one node says arrives on another, every field of it; what nobody says is refused, and never panics.

use super::*;
use crate::services::message::{AskedAs, Step};
use crate::services::wire::Remote;
use bifro_core::client::{ClientInfo, Peer, Transport, Version};
use bifro_core::ids::{ConnRef, PublisherKey, Slot, TenantIdx};
use bifro_core::limits::TOPIC_LEVELS_HARD_MAX;
use bifro_core::message::{Message, MessageView, QoS};
use bifro_core::plugin::{Action, Effect, Rule};
use bifro_core::ports::{
    AttachTerms, Attached, DetachState, FutureWill, InFlight, InboxMessage, Left, Origin, SubOptions,
};
use bifro_core::settings::{Quota, QuotaLimits, TenantSettings};
use bifro_range::inbox::OwnerRef;
use proptest::prelude::*;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

const NODE: NodeIdx = NodeIdx(3);
const TERM: u64 = 77;
const CLAIM: u32 = 7;
const SHARD: ShardId = ShardId(5);
const RANGE: RangeIdx = RangeIdx(11);
const REQ: ReqId = ReqId(u64::MAX - 1);
/// The clocks of the two nodes.
const SENT_AT: Instant = Instant::from_micros(7_000_000_000);
const HEARD_AT: Instant = Instant::from_micros(2_000_000_000);

const fn slot(index: u32) -> Slot {
    Slot { index, generation: u32::MAX - index }
}

const fn id(id: u32) -> NonZeroU32 {
    NonZeroU32::new(id).expect("above 0")
}

const fn packet_id(id: u16) -> NonZeroU16 {
    NonZeroU16::new(id).expect("above 0")
}

const fn owner() -> OwnerRef {
    OwnerRef { inbox: slot(4), epoch: 1 << 40 }
}

const fn origin(range: RangeIdx) -> Origin {
    Origin { inbox: (range, slot(8)), epoch: 1 << 50, packet_id: 65_535, nth: 1 << 60, group: 0, attempt: u64::MAX }
}

fn tenant(name: &str) -> TenantCtx {
    let (settings, quota) = (TenantSettings::default(), Arc::new(Quota::new(&QuotaLimits::default())));
    TenantCtx { idx: TenantIdx(6), name: name.into(), settings, quota }
}

fn client() -> Client {
    let rule = |effect, action| Rule { effect, action, pattern: "a/%c".into() };
    Arc::new(ClientInfo {
        tenant: "t".into(),
        user: "ann".into(),
        client_id: "client".into(),
        version: Version::V311,
        transport: Transport::Wss,
        peer: Some(Peer { ip: [127, 0, 0, 1].into(), port: 1_883 }),
        rules: [rule(Effect::Deny, None), rule(Effect::Allow, Some(Action::Publish))].into(),
        // The issuer's time, not the sender's.
        expires_at: Some(Instant::from_micros(99)),
    })
}

/// With properties and all, and 3 s left when `now` is on the clock of the node.
fn message(payload: &[u8], now: Instant) -> Arc<Message> {
    let properties = b"\x01\x01\x26\x00\x03key\x00\x05value";
    let (qos, publisher) = (QoS::ExactlyOnce, PublisherKey(77));
    let expiry_at = Some(now + Duration::from_secs(3));
    MessageView { topic: "a/b", properties, payload, qos, retain: true, expiry_at, publisher }.to_message()
}

fn queued(seq: Option<u64>, now: Instant) -> InboxMessage {
    InboxMessage {
        seq: seq.map(InboxSeq),
        message: message(b"queued", now),
        qos: QoS::AtLeastOnce,
        retain: true,
        subscription_ids: [id(1), id(268_435_455)].into_iter().collect(),
        check_delivery: true,
    }
}

const fn options(subscription_id: Option<NonZeroU32>) -> SubOptions {
    SubOptions {
        qos: QoS::ExactlyOnce,
        no_local: true,
        retain_as_published: false,
        subscription_id,
        check_deliveries: true,
    }
}

fn attached(now: Instant) -> Attached {
    let in_flight = |id, released| InFlight { packet_id: packet_id(id), released, message: queued(Some(9), now) };
    Attached {
        present: true,
        inbox: Some((RANGE, slot(1))),
        epoch: u64::MAX,
        durable: true,
        subscriptions: vec![("$share/g/a/+".into(), options(Some(id(5)))), ("#".into(), options(None))],
        received_qos2: vec![1, 65_535],
        in_flight: vec![in_flight(2, true), in_flight(1, false)],
        next: InboxSeq(1 << 50),
    }
}

fn in_hand() -> InHand {
    InHand { seqs: vec![InboxSeq(1 << 60), InboxSeq(3)], next: InboxSeq(u64::MAX) }
}

fn detach_state(now: Instant) -> DetachState {
    DetachState {
        in_hand: in_hand(),
        received_qos2: vec![7, 3],
        in_flight: vec![
            (packet_id(65_535), true, Left::Stored(InboxSeq(1 << 60))),
            (packet_id(1), false, Left::Unstored(Box::new(queued(None, now)))),
        ],
        waiting: vec![queued(None, now), queued(Some(2), now)],
        will: Some((Duration::from_secs(8), message(b"will", now))),
        expiry_s: u32::MAX,
    }
}

/// Requests that travel, by the clock of the sender or the receiver; `node` is whom the connection is one of.
fn requests(node: NodeIdx, now: Instant) -> Vec<Inbox> {
    let (req, range, client, owner) = (REQ, RANGE, client(), owner());
    let tenant = TenantIdx(6);
    let conn = ConnRef { node, shard: ShardId(2), slot: slot(1) };
    let (delay, expiry) = (Duration::from_secs(u64::from(u32::MAX)), Some(Duration::from_secs(1)));
    let will = Some(FutureWill { delay, expiry, message: message(b"will", now) });
    let step = |step| Inbox::Step { req, range, step };
    vec![
        Inbox::Attach {
            req,
            range,
            conn,
            tenant,
            client: client.clone(),
            terms: AttachTerms { clean_start: true, expiry_s: 100, will },
        },
        Inbox::Attach { req, range, conn, tenant, client: client.clone(), terms: AttachTerms::default() },
        Inbox::Discard { req, range, tenant, client: client.clone() },
        Inbox::Detach { req, range, owner, client: client.clone(), state: Box::new(detach_state(now)) },
        Inbox::Detach { req, range, owner, client, state: Box::default() },
        Inbox::Subscribe { req, range, owner, filter: "$oshare/g/a/#".into(), options: options(Some(id(1))) },
        Inbox::Unsubscribe { req, range, owner, filter: "a/#".into() },
        step(Step::Receive(origin(RANGE))),
        step(Step::Release(origin(RANGE))),
        step(Step::Forget(origin(RangeIdx(0)), true)),
        step(Step::Inquire(origin(RangeIdx(0)))),
        step(Step::Hold(owner, InboxSeq(u64::MAX))),
        Inbox::Settle { token: u32::MAX, range, origins: [origin(RangeIdx(0)), origin(RANGE)].into() },
        Inbox::Commit { range, owner, done: vec![InboxSeq(0), InboxSeq(u64::MAX)] },
        Inbox::Reattach { range, conn, owner, in_hand: in_hand() },
    ]
}

/// Answers and pushes, likewise.
fn answers(node: NodeIdx, now: Instant) -> Vec<Inbox> {
    let (req, refusals) = (REQ, [PortError::QuotaExceeded, PortError::NotOwner, PortError::Unavailable]);
    let conn = ConnRef { node, shard: SHARD, slot: slot(1) };
    let mut answers = vec![
        Inbox::Attached { req, result: Ok(Box::new(attached(now))) },
        Inbox::Attached { req, result: Ok(Box::default()) },
        Inbox::Detached { req },
        Inbox::Subscribed { req, result: Ok(true) },
        Inbox::Unsubscribed { req, existed: true },
        Inbox::Done { req, result: Ok(()) },
        Inbox::Found { req, groups: vec![1, u64::MAX] },
        Inbox::Settled { token: 1, range: RANGE },
        Inbox::Lost { conn },
        Inbox::Push { conn, messages: vec![queued(Some(u64::MAX), now), queued(None, now)] },
    ];
    answers.extend(refusals.map(|refusal| Inbox::Attached { req, result: Err(refusal) }));
    answers.extend(refusals.map(|refusal| Inbox::Subscribed { req, result: Err(refusal) }));
    answers
}

/// As the sender writes them.
pub(in crate::services::wire) fn all() -> Vec<RemoteInbox> {
    let mut all = requests(NodeIdx::HERE, SENT_AT);
    all.extend(answers(NODE, SENT_AT));
    all.iter().map(|message| RemoteInbox::of(message, SHARD, TERM, CLAIM, SENT_AT).expect("it travels")).collect()
}

fn carry(message: &RemoteInbox) -> Option<RemoteInbox> {
    match Remote::decode(&Remote::Inbox(message.clone()).encode()) {
        Some(Remote::Inbox(message)) => Some(message),
        _ => None,
    }
}

/// As the receiver reads it under the name of tenant `t`.
fn read(message: RemoteInbox) -> Option<(ShardId, u64, u32, Inbox)> {
    message.into_message(NODE, Some(&tenant("t")), HEARD_AT)
}

#[test]
fn everything_that_is_said_arrives_with_all_that_belongs_to_it() {
    let mut expected = requests(NODE, HEARD_AT);
    expected.extend(answers(NodeIdx::HERE, HEARD_AT));
    let all = all();
    assert_eq!(all.len(), expected.len());
    for (message, expected) in all.iter().zip(expected) {
        let carried = carry(message).expect("just written");
        assert_eq!(carried, *message);
        let (shard, term, claim, heard) = read(carried).expect("a node says so");
        assert_eq!((shard, term, claim), (SHARD, if heard.range().is_some() { TERM } else { 0 }, CLAIM));
        assert_eq!(format!("{heard:?}"), format!("{expected:?}"));
        assert_eq!(heard.range(), expected.range());
    }
}

#[test]
fn what_is_for_this_node_alone_never_travels() {
    let of_another = || Box::new(Inbox::Done { req: REQ, result: Err(PortError::NotOwner) });
    let insert = Inbox::Insert {
        req: REQ,
        range: RANGE,
        tenant: TenantIdx(6),
        places: [(slot(1), 2)].into(),
        message: message(b"", SENT_AT),
        origin: None,
    };
    let here = [
        insert,
        Inbox::Inserted { req: REQ, result: Ok(()) },
        Inbox::Answer { node: NODE, shard: SHARD, claim: CLAIM, answer: of_another() },
    ];
    assert!(here.iter().all(|message| RemoteInbox::of(message, SHARD, TERM, CLAIM, SENT_AT).is_none()));
}

#[test]
fn a_request_is_known_by_the_number_it_is_answered_by() {
    for request in requests(NODE, HEARD_AT) {
        let asked = match request {
            Inbox::Settle { token, .. } => Some(AskedAs::Token(token)),
            Inbox::Commit { .. } | Inbox::Reattach { .. } => None,
            _ => Some(AskedAs::Req(REQ)),
        };
        assert_eq!(request.asked_as(), asked, "{request:?}");
    }
}

#[test]
fn a_client_is_of_the_tenant_under_whose_name_it_comes() {
    for message in all() {
        let RemoteInbox::Request { request, .. } = &message else { continue };
        let (needs_tenant, has_client) = match request {
            Request::Attach { .. } | Request::Discard { .. } => (true, true),
            Request::Detach { .. } => (false, true),
            _ => (false, false),
        };
        let under = |tenant: Option<&TenantCtx>| message.clone().into_message(NODE, tenant, HEARD_AT).is_some();
        assert_eq!(under(None), !needs_tenant, "{request:?}");
        assert_eq!(under(Some(&tenant("other"))), !has_client, "{request:?}");
        assert!(under(Some(&tenant("t"))));
    }
}

#[test]
fn a_step_of_an_inbox_in_another_range_is_refused() {
    for step in [Step::Receive(origin(RangeIdx(0))), Step::Release(origin(RangeIdx(0)))] {
        let message = RemoteInbox::of(&Inbox::Step { req: REQ, range: RANGE, step }, SHARD, TERM, CLAIM, SENT_AT);
        assert!(read(message.expect("it travels")).is_none());
    }
}

#[test]
fn what_no_client_can_have_subscribed_is_refused() {
    let subscribe = |filter: &str, subscription_id| {
        let (filter, options) = (filter.into(), options(subscription_id));
        let message = Inbox::Subscribe { req: REQ, range: RANGE, owner: owner(), filter, options };
        read(RemoteInbox::of(&message, SHARD, TERM, CLAIM, SENT_AT).expect("it travels"))
    };
    assert!(subscribe("a", Some(id(268_435_455))).is_some());
    assert!(subscribe("a", Some(id(268_435_456))).is_none());
    let (long, deep) = ("a".repeat(65_536), "/".repeat(TOPIC_LEVELS_HARD_MAX));
    for filter in ["", "a/#/b", "a+", "a\0", "$share//a", &long, &deep] {
        assert!(subscribe(filter, None).is_none(), "{filter:?}");
    }
}

/// An archive is read from its end, so the beginning of a long one may by chance be another message. Frames say how long they are; what
/// matters is that no part is taken for the whole, and that none panics.
#[test]
fn what_is_cut_short_is_never_taken_for_the_whole() {
    for message in all() {
        let bytes = Remote::Inbox(message.clone()).encode();
        for len in 0..bytes.len() {
            if let Some(Remote::Inbox(part)) = Remote::decode(&bytes[..len]) {
                assert_ne!(part, message, "{len} of {} bytes", bytes.len());
                read(part);
            }
        }
    }
}

#[test]
fn a_record_that_is_cut_short_or_goes_on_is_refused_wherever_it_is() {
    for cut in [true, false] {
        let spoil = |bytes: &mut Vec<u8>| if cut { bytes.truncate(bytes.len() - 1) } else { bytes.push(0) };
        for mut message in all() {
            match &mut message {
                RemoteInbox::Request { request: Request::Attach { client, .. }, .. }
                | RemoteInbox::Request { request: Request::Discard { client, .. }, .. }
                | RemoteInbox::Request { request: Request::Detach { client, .. }, .. } => spoil(client),
                RemoteInbox::Push { messages, .. } => spoil(&mut messages[1].message),
                _ => continue,
            }
            assert!(read(message).is_none());
        }
    }
}

proptest! {
    #[test]
    fn a_flipped_byte_never_panics(which in 0_usize..1_000, at in 0_usize..100_000, flip in 1_u8..) {
        let mut all = all();
        let message = all.swap_remove(which % all.len());
        let mut bytes = Remote::Inbox(message).encode();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        if let Some(Remote::Inbox(message)) = Remote::decode(&bytes) {
            // What is read at all is something that can be said, and is written alike.
            if let Some((shard, _, _, heard)) = read(message) {
                let again = RemoteInbox::of(&heard, shard, TERM, CLAIM, HEARD_AT).expect("it travels");
                let (.., once_more) = read(carry(&again).expect("just written")).expect("as before");
                prop_assert_eq!(format!("{once_more:?}"), format!("{heard:?}"));
            }
        }
    }
}
