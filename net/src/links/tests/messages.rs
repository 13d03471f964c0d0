//! What links carry: whole messages, in order, in few datagrams, up to their limits.

use super::*;

/// A message that says which it is, in bytes that differ from place to place.
fn message(number: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (number.wrapping_mul(31) + at) as u8 ^ (at / 251) as u8).collect()
}

#[test]
fn messages_of_all_sizes_arrive_whole_and_in_order_on_both_lanes_both_ways() {
    let (mut pair, at_one, at_two) = Pair::linked(config(1, "secret"), config(2, "secret"));
    let sizes = [0, 1, 1 << 20, 0, 3, 1452, 65_536, 3 << 20, 1];
    let messages: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(number, bytes)| message(number, *bytes)).collect();
    for bytes in &messages {
        for lane in Lane::ALL {
            pair.one.links.send(at_one, lane, bytes).expect("room");
            pair.two.links.send(at_two, lane, bytes).expect("room");
        }
    }
    pair.until("all of them", |pair| {
        let all = |end: &End| Lane::ALL.iter().all(|lane| end.received(*lane).len() == messages.len());
        all(&pair.one) && all(&pair.two)
    });
    for lane in Lane::ALL {
        assert!(pair.one.received(lane) == messages && pair.two.received(lane) == messages);
    }
    let counters = pair.one.links.counters();
    assert_eq!(counters.bytes_received, counters.bytes_sent);
    assert_eq!(counters.bytes_sent, 2 * sizes.iter().map(|bytes| PREFIX_BYTES + bytes).sum::<usize>() as u64);
}

#[test]
fn many_small_messages_share_datagrams() {
    const MESSAGES: usize = 100_000;
    const BYTES: usize = 256;
    let (mut pair, at_one, _) = Pair::linked(config(1, "secret"), config(2, "secret"));
    let before = pair.one.links.counters().datagrams_sent;
    let mut number = 0_usize;
    let mut heard = 0_usize;
    pair.until("all of them", |pair| {
        for _ in 0..64.min(MESSAGES - number) {
            let mut bytes = [0; BYTES];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            pair.one.links.send(at_one, Lane::Control, &bytes).expect("room");
            number += 1;
        }
        for event in pair.two.events.drain(..) {
            let LinkEvent::Messages { run, lane: Lane::Control, .. } = event else { continue };
            for bytes in messages_of(run) {
                assert_eq!((bytes.len(), &bytes[..8]), (BYTES, &heard.to_le_bytes()[..]));
                heard += 1;
            }
        }
        heard == MESSAGES
    });
    let datagrams = pair.one.links.counters().datagrams_sent - before;
    assert!(datagrams < MESSAGES as u64 / 4, "{datagrams} datagrams of at least 1200 bytes for 26 MB");
    let answers = pair.two.links.counters().datagrams_sent;
    assert!(answers < datagrams, "{answers} acknowledgements for {datagrams} datagrams");
}

#[test]
fn a_full_queue_refuses_and_keeps_what_it_has_taken() {
    let mut small = config(1, "secret");
    small.limits.queued_bytes = 100_000;
    let (mut pair, at_one, _) = Pair::linked(small, config(2, "secret"));
    let mut taken = Vec::new();
    let refused = loop {
        let next = message(taken.len(), 1000);
        match pair.one.links.send(at_one, Lane::Bulk, &next) {
            Ok(()) => taken.push(next),
            Err(refused) => break refused,
        }
    };
    assert_eq!(taken.len(), 99, "each with its length before it");
    assert_eq!(refused, SendError::QueueFull { queued: 99 * 1004, most: 100_000 });
    assert_eq!(pair.one.links.queued_bytes(at_one), 99 * 1004);
    assert_eq!(pair.one.links.send(at_one, Lane::Control, &[0; 1000]), Err(refused), "both lanes have one limit");
    pair.until("room again", |pair| pair.one.links.queued_bytes(at_one) == 0);
    let last = message(99, 1000);
    pair.one.links.send(at_one, Lane::Bulk, &last).expect("room again");
    taken.push(last);
    pair.until("all that was taken", |pair| pair.two.received(Lane::Bulk).len() == taken.len());
    assert!(pair.two.received(Lane::Bulk) == taken);
}

#[test]
fn a_message_longer_than_a_link_takes_is_not_sent() {
    let (mut pair, at_one, _) = Pair::linked(config(1, "secret"), config(2, "secret"));
    let refused = pair.one.links.send(at_one, Lane::Bulk, &vec![0; limits::MESSAGE_BYTES + 1]);
    assert_eq!(refused, Err(SendError::TooLong { bytes: limits::MESSAGE_BYTES + 1, most: limits::MESSAGE_BYTES }));
    assert_eq!(pair.one.links.queued_bytes(at_one), 0);
}

#[test]
fn a_message_longer_than_the_peer_takes_ends_the_link() {
    let mut strict = config(2, "secret");
    strict.limits.message_bytes = 1000;
    let (mut pair, at_one, at_two) = Pair::linked(config(1, "secret"), strict);
    pair.one.links.send(at_one, Lane::Bulk, &[1; 1000]).expect("room");
    pair.one.links.send(at_one, Lane::Bulk, &[2; 1001]).expect("room");
    pair.until("down", |pair| !pair.one.downs().is_empty() && !pair.two.downs().is_empty());
    assert_eq!(pair.two.received(Lane::Bulk), [Bytes::from(vec![1; 1000])]);
    for (downs, link) in [(pair.one.downs(), at_one), (pair.two.downs(), at_two)] {
        let [(down, was_up, reason)] = &downs[..] else { panic!("{downs:?}") };
        assert_eq!((*down, *was_up), (link, true));
        assert!(reason.contains("a message of 1001 bytes was announced; at most 1000 are taken"), "{reason}");
    }
    assert_eq!(pair.one.links.send(at_one, Lane::Bulk, &[]), Err(SendError::NotUp));
}

#[test]
fn control_overtakes_a_backlog_of_bulk() {
    const BULK: usize = 40;
    let (mut pair, at_one, _) = Pair::linked(config(1, "secret"), config(2, "secret"));
    let megabyte = vec![7; 1 << 20];
    for _ in 0..BULK {
        pair.one.links.send(at_one, Lane::Bulk, &megabyte).expect("room");
    }
    // Bulk fills what QUIC takes of it before Control has anything to say.
    pair.until("bulk under way", |pair| pair.two.received(Lane::Bulk).len() >= 2);
    let written = BULK - pair.one.links.queued_bytes(at_one).div_ceil(1 << 20);
    pair.one.links.send(at_one, Lane::Control, b"urgent").expect("room");
    pair.until("control", |pair| !pair.two.received(Lane::Control).is_empty());
    let before = pair.two.received(Lane::Bulk).len();
    assert!(before <= written + 1, "{before} of {BULK} came first, {written} were written");
    assert!(before < BULK / 2, "{before} of {BULK} came first");
    pair.until("bulk in the end", |pair| pair.two.received(Lane::Bulk).len() == BULK);
}

#[test]
fn a_message_may_be_queued_in_the_turn_that_brings_the_link_up() {
    let mut pair = Pair::new(config(1, "secret"), config(2, "secret"));
    let at_one = pair.one.dial(pair.two.links.local_addr());
    assert_eq!(pair.one.links.send(at_one, Lane::Control, b"early"), Err(SendError::NotUp));
    // The acceptor speaks first, right behind its greeting.
    pair.until("up there", |pair| {
        pair.two.links.read(pair.two.clock.now(), &mut pair.two.events);
        !pair.two.ups().is_empty()
    });
    let at_two = pair.two.ups()[0].0;
    for lane in Lane::ALL {
        pair.two.links.send(at_two, lane, b"first").expect("up");
    }
    pair.until("heard", |pair| Lane::ALL.iter().all(|lane| pair.one.received(*lane) == [&b"first"[..]]));
    assert!(matches!(pair.one.events[0], LinkEvent::Up { .. }), "before any message: {:?}", pair.one.events);
}

#[test]
fn an_owner_that_holds_gets_no_messages_and_all_of_them_afterwards_while_its_peer_is_held_back() {
    let (mut pair, at_one, _) = Pair::linked(config(1, "secret"), config(2, "secret"));
    pair.two.links.hold(true);
    let messages: Vec<Vec<u8>> = (0..64).map(|number| message(number, 1 << 19)).collect();
    for bytes in &messages {
        pair.one.links.send(at_one, Lane::Control, bytes).expect("room");
    }
    let queued = pair.one.links.queued_bytes(at_one);
    pair.until("the windows are full", |pair| pair.one.links.queued_bytes(at_one) < queued);
    let mut turns = 0;
    pair.until("turns in which more could come", |_| {
        turns += 1;
        turns > 200
    });
    assert!(pair.two.received(Lane::Control).is_empty());
    assert!(pair.one.links.queued_bytes(at_one) > queued / 2, "the peer keeps the rest");
    pair.two.links.hold(false);
    assert!(pair.two.links.has_more(), "it must not wait for the socket");
    pair.until("all of them", |pair| pair.two.received(Lane::Control).len() == messages.len());
    assert!(pair.two.received(Lane::Control) == messages);
}

#[test]
fn a_run_goes_as_it_is_or_not_at_all() {
    let mut small = config(1, "secret");
    small.limits.queued_bytes = 1000;
    let (mut pair, at_one, _) = Pair::linked(small, config(2, "secret"));
    let run_of = |messages: &[Vec<u8>]| {
        let (mut blocks, mut run) = (Blocks::default(), Bytes::new());
        messages.iter().for_each(|message| blocks.push(message));
        blocks.hand_over(|block| {
            run = block.clone();
            true
        });
        run
    };
    let messages: Vec<Vec<u8>> = (0..5).map(|number| message(number, 100)).collect();
    pair.one.links.send_run(at_one, Lane::Control, &run_of(&messages)).expect("room");
    let refused = pair.one.links.send_run(at_one, Lane::Control, &run_of(&messages));
    assert_eq!(refused, Err(SendError::QueueFull { queued: 520, most: 1000 }));
    pair.one.links.send(at_one, Lane::Control, b"last").expect("room");
    pair.until("all that was taken", |pair| pair.two.received(Lane::Control).len() == 6);
    assert!(pair.two.received(Lane::Control)[..5] == messages);
}
