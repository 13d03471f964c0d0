//! Histories with planted violations: the checker must find each, and nothing in the honest ones.

use super::*;

const MARK: Mark = Mark { stream: 1, seq: 0 };

fn mark(seq: u32) -> Mark {
    Mark { stream: 1, seq }
}

fn published(seq: u32) -> Event {
    Event::Published { mark: mark(seq) }
}

fn acknowledged(seq: u32) -> Event {
    Event::Acknowledged { mark: mark(seq) }
}

fn received(member: u32, seq: u32, dup: bool) -> Event {
    Event::Received { audience: 7, member, mark: mark(seq), dup, kept: true }
}

fn promise(guarantee: Guarantee) -> Promise {
    Promise { audience: 7, stream: 1, from: 0, guarantee, ordered: true }
}

fn violations(guarantee: Guarantee, events: &[Event]) -> Vec<Violation> {
    check(&History { events: events.to_vec() }, &[promise(guarantee)])
}

#[test]
fn an_honest_history_has_no_violation_whatever_was_promised() {
    let events =
        [published(0), published(1), acknowledged(0), received(0, 0, false), received(0, 1, false), acknowledged(1)];
    for guarantee in [Guarantee::AtMostOnce, Guarantee::AtLeastOnce, Guarantee::ExactlyOnce] {
        assert_eq!(violations(guarantee, &events), []);
    }
}

#[test]
fn an_acknowledged_message_that_never_comes_is_lost() {
    let events = [published(0), acknowledged(0), published(1), received(0, 1, false)];
    let lost = [Violation::Lost { audience: 7, mark: MARK }];
    assert_eq!(violations(Guarantee::AtLeastOnce, &events), lost);
    assert_eq!(violations(Guarantee::ExactlyOnce, &events), lost);
    assert_eq!(violations(Guarantee::AtMostOnce, &events), []);
}

#[test]
fn a_message_from_before_the_promise_may_be_missing() {
    let events = [published(0), acknowledged(0), published(1), acknowledged(1), received(0, 1, false)];
    let promise = Promise { from: 1, ..promise(Guarantee::ExactlyOnce) };
    assert_eq!(check(&History { events: events.to_vec() }, &[promise]), []);
}

#[test]
fn what_a_member_took_but_never_acknowledged_is_lost_unless_another_keeps_it() {
    let taken = Event::Received { audience: 7, member: 0, mark: MARK, dup: false, kept: false };
    let events = [published(0), acknowledged(0), taken];
    assert_eq!(violations(Guarantee::AtLeastOnce, &events), [Violation::Lost { audience: 7, mark: MARK }]);
    let departed = Event::Departed { audience: 7, member: 0 };
    let events = [published(0), acknowledged(0), taken, departed, received(1, 0, false)];
    assert_eq!(violations(Guarantee::AtLeastOnce, &events), []);
}

#[test]
fn two_members_of_a_group_with_one_message_are_a_repetition() {
    let events = [published(0), acknowledged(0), received(0, 0, false), received(1, 0, false)];
    assert_eq!(violations(Guarantee::AtLeastOnce, &events), [Violation::Repeated { audience: 7, mark: MARK }]);
}

#[test]
fn a_repetition_at_qos_1_needs_dup_or_a_publisher_that_sent_twice() {
    let repeated = [Violation::Repeated { audience: 7, mark: MARK }];
    let events = [published(0), received(0, 0, false), received(0, 0, false)];
    assert_eq!(violations(Guarantee::AtLeastOnce, &events), repeated);
    let events = [published(0), received(0, 0, false), received(0, 0, true)];
    assert_eq!(violations(Guarantee::AtLeastOnce, &events), []);
    assert_eq!(violations(Guarantee::ExactlyOnce, &events), repeated);
    assert_eq!(violations(Guarantee::AtMostOnce, &events), repeated);
    let events = [published(0), published(0), received(0, 0, false), received(0, 0, false)];
    assert_eq!(violations(Guarantee::AtMostOnce, &events), []);
    assert_eq!(violations(Guarantee::AtLeastOnce, &events), []);
    assert_eq!(violations(Guarantee::ExactlyOnce, &events), repeated);
}

#[test]
fn overtaking_is_found_and_a_redelivery_is_no_overtaking() {
    let events = [published(0), published(1), received(0, 1, false), received(0, 0, false)];
    assert_eq!(
        violations(Guarantee::AtLeastOnce, &events),
        [Violation::OutOfOrder { audience: 7, mark: MARK, after: 1 }]
    );
    let again = [published(0), published(1), received(0, 0, false), received(0, 1, false), received(0, 0, true)];
    assert_eq!(violations(Guarantee::AtLeastOnce, &again), []);
    // The first copy was lost to a subscriber of QoS 0, and the publisher has sent another.
    let twice = [published(0), published(1), received(0, 1, false), published(0), received(0, 0, false)];
    assert_eq!(violations(Guarantee::AtMostOnce, &twice), []);
    let overtaken = [Violation::OutOfOrder { audience: 7, mark: MARK, after: 1 }];
    assert_eq!(violations(Guarantee::AtLeastOnce, &twice), overtaken);
    assert_eq!(violations(Guarantee::AtMostOnce, &events), overtaken);
}

#[test]
fn messages_from_nowhere_and_to_the_wrong_audience_are_unexpected() {
    let unexpected = [Violation::Unexpected { audience: 7, mark: MARK }];
    assert_eq!(violations(Guarantee::AtMostOnce, &[received(0, 0, false)]), unexpected);
    assert_eq!(violations(Guarantee::AtMostOnce, &[received(0, 0, false), published(0)]), unexpected);
    let history = History { events: vec![published(0), received(0, 0, false)] };
    assert_eq!(check(&history, &[]), unexpected);
}

fn connected(conn: u32) -> Event {
    Event::Connected { id: 3, conn }
}

fn served(conn: u32, cause: usize) -> Event {
    Event::Served { id: 3, conn, cause }
}

#[test]
fn two_connections_served_after_both_were_admitted_are_two_owners() {
    let history = History { events: vec![connected(0), connected(1), served(0, 2), served(1, 3)] };
    assert_eq!(check(&history, &[]), [Violation::TwoOwners { id: 3, conns: (0, 1) }]);
}

#[test]
fn the_old_owner_may_have_been_served_before_and_reads_may_lag() {
    // The answer to what was asked before the takeover is read after it.
    let history = History { events: vec![connected(0), connected(1), served(0, 1), served(1, 3)] };
    assert_eq!(check(&history, &[]), []);
    // The CONNACKs were read in the wrong order: who was served decides who is the owner.
    let history = History { events: vec![connected(1), connected(0), served(1, 3), served(1, 4)] };
    assert_eq!(check(&history, &[]), []);
}

#[test]
fn a_mark_survives_its_payload_and_a_mixed_payload_is_refused() {
    let payload = mark(77).payload(300);
    assert_eq!(payload.len(), 300);
    assert_eq!(Mark::parse(&payload), Some(mark(77)));
    let mut mixed = payload;
    mixed[250..].copy_from_slice(&mark(78).payload(300)[250..]);
    assert_eq!(Mark::parse(&mixed), None);
    assert_eq!(Mark::parse(&[1, 2, 3]), None);
}
