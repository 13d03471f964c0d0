//! How links end: by either side's will, by silence, for want of anybody to answer.

use super::*;
use std::net::UdpSocket;

/// What a turn takes where time matters.
const TURN: Duration = Duration::from_millis(1);

/// Takes turns of one endpoint, whose peer is gone, until its link is down. How long that took.
fn until_down(end: &mut End) -> Duration {
    let start = Instant::now();
    end.pace(TURN);
    let since = end.now();
    while end.downs().is_empty() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {:?}", end.links);
        end.turn();
    }
    end.now().since(since)
}

#[test]
fn a_link_closed_here_goes_down_there_with_the_reason_and_once_at_each_end() {
    let (mut pair, at_one, at_two) = Pair::linked(config(1, "secret"), config(2, "secret"));
    pair.one.close(at_one, "another link is kept");
    assert_eq!(pair.one.links.send(at_one, Lane::Control, b"late"), Err(SendError::NotUp));
    pair.one.close(at_one, "twice");
    pair.until("down", |pair| !pair.one.downs().is_empty() && !pair.two.downs().is_empty());
    assert_eq!(pair.one.downs(), [(at_one, true, "another link is kept".to_owned())]);
    let downs = pair.two.downs();
    assert_eq!((downs.len(), downs[0].0, downs[0].1), (1, at_two, true));
    assert!(downs[0].2.contains("another link is kept"), "{downs:?}");

    pair.one.pace(TURN);
    pair.two.pace(TURN);
    // Once QUIC has forgotten the connection its place is used again, under another name.
    pair.until("forgotten", |pair| pair.one.links.next_timeout().is_none() && pair.two.links.next_timeout().is_none());
    let again = pair.one.dial(pair.two.links.local_addr());
    assert_ne!(again, at_one);
    pair.until("up again", |pair| pair.one.ups().len() == 2 && pair.two.ups().len() == 2);
    pair.one.close(at_one, "long gone");
    assert_eq!(pair.one.links.send(at_one, Lane::Control, b"late"), Err(SendError::NotUp));
    pair.one.links.send(again, Lane::Control, b"alive").expect("up");
    pair.until("heard", |pair| !pair.two.received(Lane::Control).is_empty());
    assert_eq!((pair.one.downs().len(), pair.two.downs().len()), (1, 1));
}

#[test]
fn what_was_sent_before_the_close_and_has_arrived_is_handed_on() {
    let (mut pair, at_one, _) = Pair::linked(config(1, "secret"), config(2, "secret"));
    pair.one.links.send(at_one, Lane::Control, b"last words").expect("up");
    pair.one.turn();
    pair.one.close(at_one, "done");
    pair.one.turn();
    pair.until("down", |pair| !pair.two.downs().is_empty());
    assert_eq!(pair.two.received(Lane::Control), [&b"last words"[..]]);
    assert!(matches!(pair.two.events.last(), Some(LinkEvent::Down { .. })), "nothing follows");
}

#[test]
fn a_peer_that_vanishes_is_noticed_within_the_idle_timeout() {
    let (pair, _, at_two) = Pair::linked(config(1, "secret"), config(2, "secret"));
    let Pair { one, mut two } = pair;
    drop(one);
    two.links.send(at_two, Lane::Bulk, b"into the void").expect("still up");
    let took = until_down(&mut two);
    let downs = two.downs();
    assert_eq!((downs.len(), downs[0].0, downs[0].1), (1, at_two, true));
    assert!(downs[0].2.contains("not heard"), "{downs:?}");
    assert!(took <= limits::IDLE + 2 * TURN, "{took:?}");
}

/// What waited in the socket while this end stood still shows nothing of who lives now: the peer may have given it up long ago.
#[test]
fn a_link_that_was_over_while_its_end_stood_still_is_not_revived_by_what_has_arrived_meanwhile() {
    let (mut pair, at_one, at_two) = Pair::linked(config(1, "secret"), config(2, "secret"));
    pair.one.links.send(at_one, Lane::Control, b"sent while it stood still").expect("up");
    pair.one.turn();
    pair.two.pace(limits::IDLE + TURN);
    pair.two.turn();
    let downs = pair.two.downs();
    assert_eq!(downs.iter().map(|(link, ..)| *link).collect::<Vec<_>>(), [at_two]);
    assert!(pair.two.received(Lane::Control).is_empty(), "nor is it taken for news");
}

#[test]
fn a_quiet_link_outlives_the_idle_timeout() {
    let (mut pair, at_one, _) = Pair::linked(config(1, "secret"), config(2, "secret"));
    pair.one.pace(TURN);
    pair.two.pace(TURN);
    let (since, before) = (pair.one.now(), pair.one.links.counters().datagrams_sent);
    pair.until("three timeouts", |pair| pair.one.now().since(since) > 3 * limits::IDLE);
    assert!(pair.one.downs().is_empty() && pair.two.downs().is_empty());
    let datagrams = pair.one.links.counters().datagrams_sent - before;
    let keep_alives = 3 * limits::IDLE.as_millis() / limits::KEEP_ALIVE.as_millis();
    assert!(u128::from(datagrams) < 4 * keep_alives, "{datagrams} to say nothing");
    pair.one.links.send(at_one, Lane::Control, b"still here").expect("up");
    pair.until("heard", |pair| !pair.two.received(Lane::Control).is_empty());
}

#[test]
fn dialling_nobody_goes_down_by_silence_or_within_the_deadline() {
    let silent = UdpSocket::bind(("127.0.0.1", 0)).expect("bind");
    let gone = UdpSocket::bind(("127.0.0.1", 0)).expect("bind").local_addr().expect("bound");
    let hour = Duration::from_secs(3600);
    for address in [silent.local_addr().expect("bound"), gone] {
        for (idle, expected) in [(limits::IDLE, limits::IDLE), (hour, limits::HANDSHAKE)] {
            let mut config = config(1, "secret");
            config.limits.idle = idle;
            let mut one = End::new(config);
            let link = one.dial(address);
            let took = until_down(&mut one);
            let downs = one.downs();
            assert_eq!((downs.len(), downs[0].0, downs[0].1), (1, link, false), "{downs:?}");
            assert!(took <= expected + 2 * TURN, "{took:?}");
            assert_eq!(one.links.counters().handshakes_failed, 1);
        }
    }
}

#[test]
fn an_address_that_cannot_be_called_goes_down_at_once() {
    for address in ["0.0.0.0:1", "127.0.0.1:0", "[::1]:1"] {
        let mut one = End::new(config(1, "secret"));
        let link = one.dial(address.parse().expect("an address"));
        assert!(one.links.has_more(), "there is an event to read");
        one.turn();
        let downs = one.downs();
        assert_eq!((downs.len(), downs[0].0, downs[0].1), (1, link, false));
        assert!(downs[0].2.contains(address), "{downs:?}");
        one.close(link, "it never was");
        assert_eq!(one.links.queued_bytes(link), 0);
    }
}
