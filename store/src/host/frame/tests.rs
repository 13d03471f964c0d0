//! Frames are read as they were written, and nothing else is read.

use super::*;
use bifro_core::ids::NodeId;
use bifro_raft::{EntryKind, Membership, SnapshotMeta};
use bytes::Bytes;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

fn log_id() -> impl Strategy<Value = LogId> {
    (any::<u64>(), any::<u64>()).prop_map(|(term, index)| LogId::new(term, index))
}

fn index() -> impl Strategy<Value = Index> {
    any::<u64>().prop_map(Index)
}

fn round() -> impl Strategy<Value = Round> {
    any::<u64>().prop_map(Round)
}

fn membership() -> impl Strategy<Value = Membership> {
    let nodes = |first: u64| btree_set(first..first + 8, 0..4);
    (btree_set(0..8_u64, 1..4), nodes(0), nodes(8)).prop_map(|(voters, outgoing, learners)| Membership {
        outgoing: outgoing.into_iter().map(NodeId).collect(),
        ..Membership::new(voters.into_iter().map(NodeId), learners.into_iter().map(NodeId))
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let kind = prop_oneof![
        Just(EntryKind::Noop),
        vec(any::<u8>(), 0..40).prop_map(|data| EntryKind::Data(Bytes::from(data))),
        membership().prop_map(EntryKind::Membership),
    ];
    (log_id(), kind).prop_map(|(id, kind)| Entry { id, kind })
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        log_id().prop_map(|last| Body::PreVote { last }),
        (any::<u64>(), any::<bool>()).prop_map(|(term, granted)| Body::PreVoteReply { asked_in: Term(term), granted }),
        (log_id(), any::<bool>()).prop_map(|(last, transfer)| Body::Vote { last, transfer }),
        any::<bool>().prop_map(|granted| Body::VoteReply { granted }),
        (log_id(), vec(entry(), 0..4), index(), round()).prop_map(|(prev, entries, commit, round)| Body::Append {
            prev,
            entries,
            commit,
            round
        }),
        (index(), round()).prop_map(|(matched, round)| Body::Accepted { matched, round }),
        (index(), log_id(), round()).prop_map(|(at, hint, round)| Body::Rejected { at, hint, round }),
        (index(), round(), any::<bool>()).prop_map(|(commit, round, quiesce)| Body::Heartbeat {
            commit,
            round,
            quiesce
        }),
        round().prop_map(|round| Body::HeartbeatReply { round }),
        (log_id(), membership(), round()).prop_map(|(last, membership, round)| Body::SnapshotOffer {
            meta: SnapshotMeta { last, membership },
            round
        }),
        round().prop_map(|round| Body::SnapshotPending { round }),
        log_id().prop_map(|last| Body::SnapshotFailed { last }),
        Just(Body::TimeoutNow),
        Just(Body::TermIsOver),
    ]
}

fn part() -> impl Strategy<Value = Part> {
    let key = || vec(any::<u8>(), 0..9);
    let pair = (key(), key()).prop_map(|(key, value)| (key.into_boxed_slice(), value.into_boxed_slice()));
    prop_oneof![
        8 => (any::<u64>(), body()).prop_map(|(term, body)| Part::Raft(Message { term: Term(term), body })),
        1 => (log_id(), key()).prop_map(|(last, from)| Part::Fetch { last, from }),
        1 => (log_id(), key(), vec(pair, 0..4), proptest::option::of(key()))
            .prop_map(|(last, from, pairs, next)| Part::Chunk { last, from, pairs, next }),
        1 => log_id().prop_map(|last| Part::NoSnapshot { last }),
        1 => Just(Part::IsMember),
        1 => (log_id(), log_id()).prop_map(|(since, as_of)| Part::NotMember { since, as_of }),
    ]
}

fn parts() -> impl Strategy<Value = Vec<(RangeId, Part)>> {
    vec(((0..9_u64).prop_map(RangeId), part()), 1..6)
}

fn frame(parts: &[(RangeId, Part)]) -> Vec<u8> {
    let mut frames = FrameWriter::default();
    parts.iter().for_each(|(range, part)| frames.push(*range, part));
    let [frame] = <[Vec<u8>; 1]>::try_from(frames.finish()).expect("few bytes are one frame");
    frame
}

proptest! {
    #[test]
    fn a_frame_is_read_as_it_was_written_and_no_part_of_it_is_one(parts in parts()) {
        let bytes = frame(&parts);
        prop_assert_eq!(read(&bytes), Some(parts));
        for cut in 0..bytes.len() {
            prop_assert_eq!(read(&bytes[..cut]), None, "cut at {}", cut);
        }
        prop_assert_eq!(read(&[&bytes[..], &[0]].concat()), None, "trailing bytes");
        prop_assert_eq!(read(&[&[VERSION + 1], &bytes[1..]].concat()), None, "another version");
    }

    #[test]
    fn no_bytes_do_harm(mut bytes in vec(any::<u8>(), 0..200), parts in parts(), at in any::<prop::sample::Index>(), byte: u8) {
        let _may_be_anything = (read(&bytes), split(&bytes, |_| 0));
        if let Some(version) = bytes.first_mut() {
            *version = VERSION;
            let _may_be_anything = (read(&bytes), split(&bytes, |_| 0));
        }
        let mut damaged = frame(&parts);
        let at = at.index(damaged.len());
        damaged[at] = byte;
        let _may_be_anything = (read(&damaged), split(&damaged, |_| 0));
    }

    #[test]
    fn shards_get_all_parts_of_their_ranges_in_order(parts in parts()) {
        let home = |range: RangeId| (range.0 % 3) as u16;
        let shares = split(&frame(&parts), home).expect("a frame");
        let mut seen = 0;
        for (shard, bytes) in shares {
            let share = read(&bytes).expect("a frame again");
            seen += share.len();
            let expected: Vec<_> = parts.iter().filter(|(range, _)| home(*range) == shard).cloned().collect();
            prop_assert_eq!(share, expected);
        }
        prop_assert_eq!(seen, parts.len());
    }
}

#[test]
fn frames_are_closed_when_they_are_large() {
    let mut frames = FrameWriter::default();
    let data = Bytes::from(vec![7; 300 << 10]);
    for index in 1..=9 {
        let entries = vec![Entry { id: LogId::new(1, index), kind: EntryKind::Data(data.clone()) }];
        let body = Body::Append { prev: LogId::new(1, index - 1), entries, commit: Index(0), round: Round(0) };
        frames.push(RangeId(1), &Part::Raft(Message { term: Term(1), body }));
    }
    let frames = frames.finish();
    assert!(frames.iter().all(|frame| frame.len() < FRAME_BYTES + (310 << 10)));
    let parts = frames.iter().map(|frame| read(frame).expect("a frame").len());
    assert_eq!(parts.collect::<Vec<_>>(), [4, 4, 1]);
}

#[test]
fn what_was_said_may_not_contradict_itself() {
    let chunk = Part::Chunk { last: LogId::new(1, 1), from: Vec::new(), pairs: Vec::new(), next: Some(vec![1]) };
    let mut bytes = frame(&[(RangeId(1), chunk)]);
    let flag = HEADER_BYTES + 13 + 16 + 4;
    assert_eq!(bytes[flag], 1);
    bytes[flag] = 0;
    assert_eq!(read(&bytes), None, "no rest, and where it begins");
    bytes[flag] = 2;
    assert_eq!(read(&bytes), None, "neither true nor false");
    assert_eq!(read(&[VERSION, 0, 0, 0, 0]), None, "a frame says something");
}

/// One of each kind.
fn every_part() -> Vec<Part> {
    let (last, round, commit) = (LogId::new(3, 9), Round(5), Index(8));
    let membership =
        Membership { outgoing: [NodeId(4)].into(), ..Membership::new([NodeId(1), NodeId(2)], [NodeId(3)]) };
    let kinds =
        [EntryKind::Noop, EntryKind::Data(Bytes::from_static(b"changes")), EntryKind::Membership(membership.clone())];
    let entries = (10..).zip(kinds).map(|(index, kind)| Entry { id: LogId::new(3, index), kind }).collect();
    let bodies = [
        Body::PreVote { last },
        Body::PreVoteReply { asked_in: Term(2), granted: true },
        Body::Vote { last, transfer: true },
        Body::VoteReply { granted: false },
        Body::Append { prev: last, entries, commit, round },
        Body::Accepted { matched: commit, round },
        Body::Rejected { at: commit, hint: last, round },
        Body::Heartbeat { commit, round, quiesce: true },
        Body::HeartbeatReply { round },
        Body::SnapshotOffer { meta: SnapshotMeta { last, membership }, round },
        Body::SnapshotPending { round },
        Body::SnapshotFailed { last },
        Body::TimeoutNow,
        Body::TermIsOver,
    ];
    let mut parts: Vec<Part> = bodies.map(|body| Part::Raft(Message { term: Term(4), body })).into();
    let pairs: Vec<Pair> = vec![(b"key".as_slice().into(), b"value".as_slice().into())];
    parts.extend([
        Part::Fetch { last, from: b"key".to_vec() },
        Part::Chunk { last, from: b"key".to_vec(), pairs, next: Some(b"next".to_vec()) },
        Part::NoSnapshot { last },
        Part::NotMember { since: last, as_of: LogId::new(3, 10) },
        Part::IsMember,
    ]);
    parts
}

#[test]
fn frames_are_as_recorded() {
    let frames: Vec<Vec<u8>> = every_part().into_iter().map(|part| frame(&[(RangeId(7), part)])).collect();
    crate::recorded::check("hosts", &frames, |bytes| {
        let parts = read(bytes)?;
        Some((format!("{parts:?}"), frame(&parts)))
    });
}
