//! Whoever does not know the secret: refused, bounded, harmless.

use super::*;
use bifro_core::rng::Prng;
use std::net::UdpSocket;

#[test]
fn a_wrong_secret_is_refused_at_both_ends() {
    let mut pair = Pair::new(config(1, "secret"), config(2, "another"));
    let link = pair.one.dial(pair.two.links.local_addr());
    pair.until("refused", |pair| !pair.one.downs().is_empty());
    let downs = pair.one.downs();
    assert_eq!((downs.len(), downs[0].0, downs[0].1), (1, link, false));
    assert!(downs[0].2.contains("the cluster's secret was not proven"), "{downs:?}");
    assert!(pair.one.ups().is_empty() && pair.two.events.is_empty());
    assert_eq!(pair.two.links.counters().proofs_refused, 1);
    assert_eq!(pair.two.links.counters().handshakes_failed, 1);
    assert_eq!(pair.one.links.counters().handshakes_failed, 1);
}

#[test]
fn random_datagrams_do_no_harm() {
    let (mut pair, at_one, _) = Pair::linked(config(1, "secret"), config(2, "secret"));
    let stranger = UdpSocket::bind(("127.0.0.1", 0)).expect("bind");
    let mut random = Prng::new(0x6c69_6e6b);
    let before = pair.two.links.counters();
    for round in 0..2000_usize {
        let mut bytes: Vec<u8> = (0..1 + round % 1400).map(|_| random.next_u64() as u8).collect();
        // A third look like the first packet of a connection, a third like one of a connection there is.
        match round % 3 {
            0 => bytes[0] = 0xc0 | (bytes[0] & 0x0f),
            1 => bytes[0] = 0x40 | (bytes[0] & 0x3f),
            _ => {}
        }
        if round % 2 == 0 && bytes.len() > 5 {
            bytes[1..5].copy_from_slice(&1_u32.to_be_bytes());
        }
        stranger.send_to(&bytes, pair.two.links.local_addr()).expect("send");
        pair.two.turn();
    }
    let after = pair.two.links.counters();
    assert!(after.datagrams_ignored > before.datagrams_ignored + 1000, "{after:?}");
    assert!(pair.two.downs().is_empty() && pair.one.downs().is_empty());
    pair.one.links.send(at_one, Lane::Control, b"unharmed").expect("up");
    pair.until("heard", |pair| !pair.two.received(Lane::Control).is_empty());
}

#[test]
fn callers_that_prove_nothing_are_bounded_and_sent_away_in_time() {
    let mut strict = config(2, "secret");
    strict.limits.unproven_links = 2;
    strict.limits.handshake = Duration::from_millis(300);
    let mut two = End::new(strict);
    // Endpoints that finish the TLS handshake and then say nothing: their greeting is never sent.
    let mut mute: Vec<End> = (0..2).map(|node| End::new(config(10 + node, "secret"))).collect();
    for end in &mut mute {
        end.dial(two.links.local_addr());
    }
    let start = Instant::now();
    while two.links.counters().datagrams_received < 2 {
        mute.iter_mut().for_each(End::turn);
        two.turn();
        assert!(start.elapsed() < PATIENCE);
    }
    let mut pair = Pair { one: End::new(config(1, "secret")), two };
    let refused = pair.one.dial(pair.two.links.local_addr());
    pair.until("refused", |pair| !pair.one.downs().is_empty());
    assert_eq!(pair.one.downs()[0].0, refused);
    assert_eq!(pair.two.links.counters().callers_refused, 1);

    pair.until("the mute are sent away", |pair| pair.two.links.counters().handshakes_failed == 2);
    pair.until("and forgotten", |pair| pair.two.links.next_timeout().is_none());
    assert!(pair.two.events.is_empty(), "none of that is the owner's business");
    pair.one.dial(pair.two.links.local_addr());
    pair.until("up", |pair| !pair.one.ups().is_empty() && !pair.two.ups().is_empty());
}

#[test]
fn many_callers_have_to_show_that_they_receive_where_they_send_from() {
    const CALLERS: usize = limits::UNVALIDATED_LINKS + 8;
    let mut pair = Pair::new(config(1, "secret"), config(2, "secret"));
    for _ in 0..CALLERS {
        pair.one.dial(pair.two.links.local_addr());
    }
    pair.until("all are up", |pair| pair.one.ups().len() == CALLERS && pair.two.ups().len() == CALLERS);
    assert_eq!(pair.two.links.counters().callers_refused, 0);
}
