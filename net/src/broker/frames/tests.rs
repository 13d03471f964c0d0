//! Frames as bytes.

use super::*;
use std::time::Duration;

const NOW: Instant = Instant::from_micros(5_000_000);
const ORIGIN: Origin = Origin {
    inbox: (RangeIdx(1), Slot { index: 2, generation: 3 }),
    epoch: 4,
    packet_id: 5,
    nth: 6,
    group: 0,
    attempt: 7,
};

fn message(payload: &[u8]) -> MessageView<'_> {
    MessageView {
        topic: "a/b",
        properties: &[1, 1],
        payload,
        qos: QoS::ExactlyOnce,
        retain: true,
        expiry_at: Some(NOW + Duration::from_millis(1_500)),
        publisher: PublisherKey(77),
    }
}

fn put(forward: &Forward<'_>, batch: &mut Blocks) {
    put_forward(forward, NOW, batch, &mut Sent::default());
}

fn batch() -> Vec<u8> {
    let mut batch = Blocks::default();
    put_service("t", b"bytes", &mut batch);
    let group = Some(("a/+", "g", true));
    let forward = Forward { publish: 9, tenant: "t", unheard: true, group, origin: None, message: message(b"payload") };
    put(&forward, &mut batch);
    put(&Forward { group: None, unheard: false, ..forward }, &mut batch);
    put_taken(&[1, 2, 3], &mut batch);
    put_refused(4, Refusal::NoMember, &mut batch);
    put(&Forward { group: None, origin: Some(ORIGIN), ..forward }, &mut batch);
    put_noted(5, true, &[RangeIdx(6), RangeIdx(700)], &mut batch);
    put_forget(6, &Over { origin: ORIGIN, others: [7, 800].into(), in_doubt: true }, &mut batch);
    put(&Forward { origin: Some(ORIGIN), ..forward }, &mut batch);
    put_inquire(7, &Inquiry { origin: ORIGIN, content: 8 }, &mut batch);
    put_found(7, &[9, u64::MAX], &mut batch);
    let mut last = Sent::default();
    for payload in [&b"one"[..], b"", b"three"] {
        put_forward(&unawaited(payload), NOW, &mut batch, &mut last);
    }
    bytes_of(batch)
}

/// A message that nobody waits for, and others may follow.
fn unawaited(payload: &[u8]) -> Forward<'_> {
    let message = MessageView { qos: QoS::AtMostOnce, expiry_at: None, ..message(payload) };
    Forward { publish: 0, tenant: "t", unheard: false, group: None, origin: None, message }
}

fn bytes_of(mut batch: Blocks) -> Vec<u8> {
    let mut bytes = Vec::new();
    batch.hand_over(|block| {
        bytes.extend_from_slice(block);
        true
    });
    bytes
}

#[test]
fn frames_are_read_as_they_were_written_and_expiry_is_what_is_left_of_it() {
    let batch = batch();
    let later = NOW + Duration::from_secs(100);
    let (mut rest, mut last) = (&batch[..], Last::default());
    let mut read = || next(&mut rest, later, &mut last).expect("well formed");
    assert!(matches!(read(), Frame::ServicePart(b"byte")));
    assert!(matches!(read(), Frame::Service { tenant: "t", bytes: b"s" }));
    let Frame::Deliver(shared) = read() else { panic!("a message") };
    assert_eq!((shared.publish, shared.tenant, shared.unheard), (9, "t", true));
    assert_eq!(shared.group, Some(("a/+", "g", true)));
    let message = shared.message;
    assert_eq!((message.topic, message.properties, message.payload), ("a/b", &[1, 1][..], &b"payload"[..]));
    assert_eq!((message.qos, message.retain, message.publisher), (QoS::ExactlyOnce, true, PublisherKey(77)));
    assert_eq!(message.expiry_at, Some(later + Duration::from_millis(1_500)));
    let Frame::Deliver(plain) = read() else { panic!("a message") };
    assert_eq!((plain.group, plain.unheard), (None, false));
    let Frame::Taken(taken) = read() else { panic!("an answer") };
    assert_eq!(taken.iter().map(|publish| u64::from_le_bytes(*publish)).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(matches!(read(), Frame::Refused { publish: 4, refusal: Refusal::NoMember }));
    let Frame::Deliver(once) = read() else { panic!("a message") };
    assert_eq!((once.group, once.origin, once.message.payload), (None, Some(ORIGIN), &b"payload"[..]));
    let Frame::Noted { publish: 5, live: true, ranges } = read() else { panic!("an answer") };
    assert_eq!(ranges.iter().map(|range| u16::from_le_bytes(*range)).collect::<Vec<_>>(), [6, 700]);
    let Frame::Forget { publish: 6, over } = read() else { panic!("what is over") };
    assert_eq!(over, Over { origin: ORIGIN, others: [7, 800].into(), in_doubt: true });
    let Frame::Deliver(member) = read() else { panic!("a message") };
    assert_eq!((member.group, member.origin), (Some(("a/+", "g", true)), Some(ORIGIN)));
    let Frame::Inquire { publish: 7, inquiry } = read() else { panic!("a question") };
    assert_eq!(inquiry, Inquiry { origin: ORIGIN, content: 8 });
    let Frame::Found { publish: 7, groups } = read() else { panic!("its answer") };
    assert_eq!(groups.iter().map(|group| u64::from_le_bytes(*group)).collect::<Vec<_>>(), [9, u64::MAX]);
    let Frame::Deliver(unawaited) = read() else { panic!("a message") };
    assert_eq!((unawaited.publish, unawaited.message.payload), (0, &b"one"[..]));
    assert!(matches!(read(), Frame::DeliverMore(b"")));
    assert!(matches!(read(), Frame::DeliverMore(b"three")));
    assert!(rest.is_empty());
}

/// What a frame says, and the same frame again.
fn reread(mut bytes: &[u8]) -> Option<(String, Vec<u8>)> {
    let mut head = Sent::default();
    put_forward(&unawaited(b"before"), NOW, &mut Blocks::default(), &mut head);
    let frame = next(&mut bytes, NOW, &mut Last::default()).filter(|_| bytes.is_empty())?;
    let (meaning, mut again) = (format!("{frame:?}"), Blocks::default());
    match frame {
        Frame::Service { tenant, bytes } => put_service(tenant, bytes, &mut again),
        Frame::ServicePart(part) => super::frame(SERVICE_PART, part.len(), &mut again, |block| block.put_slice(part)),
        Frame::Deliver(forward) => put(&forward, &mut again),
        Frame::DeliverMore(payload) => put_forward(&unawaited(payload), NOW, &mut again, &mut head),
        Frame::Taken(publishes) => {
            let publishes: Vec<u64> = publishes.iter().map(|publish| u64::from_le_bytes(*publish)).collect();
            put_taken(&publishes, &mut again);
        }
        Frame::Forget { publish, over } => put_forget(publish, &over, &mut again),
        Frame::Noted { publish, live, ranges } => {
            let ranges: Vec<_> = ranges.iter().map(|range| RangeIdx(u16::from_le_bytes(*range))).collect();
            put_noted(publish, live, &ranges, &mut again);
        }
        Frame::Inquire { publish, inquiry } => put_inquire(publish, &inquiry, &mut again),
        Frame::Found { publish, groups } => {
            let groups: Vec<u64> = groups.iter().map(|group| u64::from_le_bytes(*group)).collect();
            put_found(publish, &groups, &mut again);
        }
        Frame::Refused { publish, refusal } => put_refused(publish, refusal, &mut again),
    }
    Some((meaning, bytes_of(again)))
}

#[test]
fn a_batch_is_as_recorded() {
    let (batch, mut frames) = (batch(), Vec::new());
    let (mut rest, mut last) = (&batch[..], Last::default());
    while !rest.is_empty() {
        let before = rest;
        next(&mut rest, NOW, &mut last).expect("well formed");
        frames.push(before[..before.len() - rest.len()].to_vec());
    }
    crate::recorded::check("batches", &frames, reread);
}

#[test]
fn a_frame_of_a_message_is_no_longer_than_was_set_aside_for_it() {
    let group = Some(("", "", true));
    let empty = MessageView { topic: "", properties: &[], payload: &[], ..message(&[]) };
    let forward = Forward { publish: 9, tenant: "", unheard: true, group, origin: None, message: empty };
    let origin = Some(ORIGIN);
    for forward in [forward, Forward { group: None, origin, ..forward }, Forward { origin, ..forward }] {
        let mut batch = Blocks::default();
        put(&forward, &mut batch);
        assert!(batch.queued() <= PREFIX_BYTES + 1 + FORWARD_FIXED_BYTES, "{}", batch.queued());
    }
}

#[test]
fn whatever_is_cut_off_or_broken_is_refused_and_never_read_past_its_end() {
    let batch = batch();
    for end in 0..batch.len() {
        let (mut rest, mut last) = (&batch[..end], Last::default());
        while !rest.is_empty() && next(&mut rest, NOW, &mut last).is_some() {}
    }
    for at in 0..batch.len() {
        for bit in 0..8 {
            let mut broken = batch.clone();
            broken[at] ^= 1 << bit;
            let (mut rest, mut last) = (&broken[..], Last::default());
            while !rest.is_empty() && next(&mut rest, NOW, &mut last).is_some() {}
        }
    }
}

#[test]
fn a_message_is_its_payload_alone_if_nothing_else_differs_from_the_last_that_may_be_followed() {
    let (mut last, plain) = (Sent::default(), unawaited(b"payload"));
    let mut kinds = |forward: Forward<'_>| {
        let mut batch = Blocks::default();
        put_forward(&forward, NOW, &mut batch, &mut last);
        bytes_of(batch)[PREFIX_BYTES]
    };
    let of = |message| Forward { message, ..plain };
    let differing = [
        Forward { tenant: "u", ..plain },
        Forward { unheard: true, ..plain },
        of(MessageView { topic: "a/c", ..plain.message }),
        of(MessageView { properties: &[1, 0], ..plain.message }),
        of(MessageView { retain: false, ..plain.message }),
        of(MessageView { publisher: PublisherKey(78), ..plain.message }),
    ];
    for forward in differing {
        assert_eq!([plain, plain, forward, forward].map(&mut kinds), [DELIVER, DELIVER_MORE, DELIVER, DELIVER_MORE]);
    }
    let expires = of(MessageView { expiry_at: Some(NOW), ..plain.message });
    let group = Some(("a/+", "g", true));
    let other = [
        (Forward { publish: 1, ..plain }, DELIVER),
        (expires, DELIVER),
        (Forward { group, ..plain }, DELIVER_SHARED),
        (Forward { publish: 1, origin: Some(ORIGIN), ..plain }, DELIVER_ONCE),
        (Forward { publish: 1, group, origin: Some(ORIGIN), ..plain }, DELIVER_SHARED_ONCE),
    ];
    assert_eq!(kinds(plain), DELIVER);
    for (forward, kind) in other {
        assert_eq!(
            [forward, forward, plain].map(&mut kinds),
            [kind, kind, DELIVER_MORE],
            "it is between, and not followed"
        );
    }
}

#[test]
fn what_may_be_followed_is_kept_from_batch_to_batch() {
    let (mut head, mut read) = (Sent::default(), Vec::new());
    for payload in [&b"one"[..], b"two", b"three"] {
        let mut batch = Blocks::default();
        put_forward(&unawaited(payload), NOW, &mut batch, &mut head);
        let bytes = bytes_of(batch);
        let mut last = Last::of(&read);
        let frame = next(&mut &bytes[..], NOW, &mut last).expect("well formed");
        assert!(matches!(frame, Frame::Deliver(_)) == (payload == b"one"));
        assert!(payload == b"one" || matches!(frame, Frame::DeliverMore(read) if read == payload));
        assert_eq!(last.forward().map(|forward| forward.message.topic), Some("a/b"));
        read = last.head().to_vec();
    }
    assert!(Last::of(&[]).forward().is_none());
}
