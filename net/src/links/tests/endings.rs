//! How links end: by either side's will, by silence, for want of anybody to answer.

use super::*;
use std::net::UdpSocket;

/// Limits under which silence is noticed soon.
fn hasty(mut config: LinksConfig) -> LinksConfig {
    config.limits.keep_alive = Duration::from_millis(50);
    config.limits.idle = Duration::from_millis(400);
    config.limits.handshake = Duration::from_millis(600);
    config
}

/// Takes turns of one endpoint, whose peer is gone, until its link is down. How long that took.
fn until_down(end: &mut End) -> Duration {
    let start = Instant::now();
    while end.downs().is_empty() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {:?}", end.links);
        end.turn();
    }
    start.elapsed()
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
    let (pair, _, at_two) = Pair::linked(hasty(config(1, "secret")), hasty(config(2, "secret")));
    let Pair { one, mut two } = pair;
    drop(one);
    two.links.send(at_two, Lane::Bulk, b"into the void").expect("still up");
    let took = until_down(&mut two);
    let downs = two.downs();
    assert_eq!((downs.len(), downs[0].0, downs[0].1), (1, at_two, true));
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn a_quiet_link_outlives_the_idle_timeout() {
    let (mut pair, at_one, _) = Pair::linked(hasty(config(1, "secret")), hasty(config(2, "secret")));
    let since = Instant::now();
    pair.until("three timeouts", |_| since.elapsed() > Duration::from_millis(1200));
    assert!(pair.one.downs().is_empty() && pair.two.downs().is_empty());
    pair.one.links.send(at_one, Lane::Control, b"still here").expect("up");
    pair.until("heard", |pair| !pair.two.received(Lane::Control).is_empty());
}

#[test]
fn dialling_nobody_goes_down_within_the_deadline() {
    let silent = UdpSocket::bind(("127.0.0.1", 0)).expect("bind");
    for (nobody, idle) in [(true, 400), (false, 60_000)] {
        let mut limits = hasty(config(1, "secret"));
        limits.limits.idle = Duration::from_millis(idle);
        let mut one = End::new(limits);
        let link = if nobody {
            let gone = UdpSocket::bind(("127.0.0.1", 0)).expect("bind").local_addr().expect("bound");
            one.dial(gone)
        } else {
            one.dial(silent.local_addr().expect("bound"))
        };
        let took = until_down(&mut one);
        let downs = one.downs();
        assert_eq!((downs.len(), downs[0].0, downs[0].1), (1, link, false), "{downs:?}");
        assert!(took < Duration::from_secs(4), "{took:?}");
        assert_eq!(one.links.counters().handshakes_failed, 1);
    }
}

#[test]
fn an_address_that_cannot_be_called_goes_down_at_once() {
    let mut one = End::new(config(1, "secret"));
    let link = one.dial(([0, 0, 0, 0], 1).into());
    assert!(one.links.has_more(), "there is an event to read");
    one.turn();
    let downs = one.downs();
    assert_eq!((downs.len(), downs[0].0, downs[0].1), (1, link, false));
    assert!(downs[0].2.contains("0.0.0.0:1"), "{downs:?}");
    one.close(link, "it never was");
    assert_eq!(one.links.queued_bytes(link), 0);
}
