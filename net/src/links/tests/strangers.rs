//! Whoever does not know the secret: refused, bounded, harmless.

use super::raw::Raw;
use super::*;
use crate::links::limits::UNPROVEN_WINDOW_BYTES;
use bifro_core::ids::ClusterId;
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
fn a_node_of_another_cluster_is_refused_at_both_ends_and_one_of_none_is_not() {
    let of = |node, cluster| {
        let mut end = End::new(config(node, "secret"));
        end.links.set_cluster(ClusterId(cluster));
        end
    };
    let mut pair = Pair { one: of(1, 7), two: of(2, 8) };
    pair.one.dial(pair.two.links.local_addr());
    pair.until("refused", |pair| !pair.one.downs().is_empty());
    let downs = pair.one.downs();
    assert!(!downs[0].1 && downs[0].2.contains("c7") && downs[0].2.contains("c8"), "{downs:?}");
    assert!(pair.one.ups().is_empty() && pair.two.events.is_empty());
    let mut pair = Pair { one: of(1, 7), two: End::new(config(2, "secret")) };
    pair.one.dial(pair.two.links.local_addr());
    pair.until("up", |pair| pair.one.ups().len() == 1 && pair.two.ups().len() == 1);
    assert_eq!(pair.two.ups()[0].1.cluster, Some(ClusterId(7)));
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
    // Sooner than they are given up for being silent.
    strict.limits.handshake = limits::IDLE / 2;
    let mut two = End::new(strict);
    // Time stands still until all have called.
    two.pace(Duration::ZERO);
    let mut mute: Vec<Raw> = (0..2).map(|_| Raw::connected(&mut two)).collect();
    let mut pair = Pair { one: End::new(config(1, "secret")), two };
    let refused = pair.one.dial(pair.two.links.local_addr());
    pair.until("refused", |pair| !pair.one.downs().is_empty());
    assert_eq!(pair.one.downs()[0].0, refused);
    assert_eq!(pair.two.links.counters().callers_refused, 1);

    pair.two.pace(Duration::from_millis(1));
    pair.until("the mute are sent away", |pair| pair.two.links.counters().handshakes_failed == 2);
    for raw in &mut mute {
        assert!(raw.until_closed(&mut pair.two).contains("the secret was not proven in time"));
    }
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

#[test]
fn before_the_proof_next_to_nothing_is_taken() {
    let mut two = End::new(config(2, "secret"));
    let mut raw = Raw::connected(&mut two);
    let window = UNPROVEN_WINDOW_BYTES as usize;
    // The lane of the greeting stays empty, so nothing else is read, let alone more of it allowed.
    let written = raw.write(1, &vec![1; 10 * window]);
    assert_eq!(written, window, "the peer's window, as announced in the handshake");
    raw.turn_with(&mut two, 100);
    assert_eq!(raw.write(1, &[1; 100]), 0, "nothing of it was read");
    assert!(two.events.is_empty());
}

#[test]
fn a_greeting_of_another_protocol_is_refused_at_its_header() {
    for greeting in [&b"GET / HTTP/1.1"[..], b"bl\x03\x01", b"bl\x02\x01\xff\xff\xff\xff", b"bf\x02\x01"] {
        let mut two = End::new(config(2, "secret"));
        let mut raw = Raw::connected(&mut two);
        assert_eq!(raw.write(0, greeting), greeting.len());
        let reason = raw.until_closed(&mut two);
        assert!(reason.contains("another protocol"), "{reason}");
        assert!(two.events.is_empty());
        assert_eq!(two.links.counters().handshakes_failed, 1);
    }
}

#[test]
fn a_proof_of_zeroes_is_refused_whatever_follows_it() {
    let mut two = End::new(config(2, "secret"));
    let mut raw = Raw::connected(&mut two);
    let me = config(1, "secret").me;
    let mut forged = hello::encode(&me, &[0; PROOF_BYTES]);
    forged.extend(5_u32.to_le_bytes());
    forged.extend(b"hello");
    assert_eq!(raw.write(0, &forged), forged.len());
    let reason = raw.until_closed(&mut two);
    assert!(reason.contains("the cluster's secret was not proven"), "{reason}");
    assert!(two.events.is_empty());
    assert_eq!(two.links.counters().proofs_refused, 1);
}

#[test]
fn a_peer_that_ends_a_lane_ends_the_link() {
    let mut two = End::new(config(2, "secret"));
    let mut raw = Raw::connected(&mut two);
    raw.greet(&Secret::new("secret"), &config(1, "secret").me);
    raw.write(1, &[0; 4]);
    raw.finish(1);
    let reason = raw.until_closed(&mut two);
    assert!(reason.contains("a lane was ended"), "{reason}");
    let downs = two.downs();
    assert_eq!((downs.len(), downs[0].1), (1, true));
    assert_eq!(two.received(Lane::Bulk), [Bytes::new()], "what came before");
}
