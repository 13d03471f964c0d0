//! What a listener admits, and that everything counted is given back.

use super::*;
use std::time::Duration;

const NOW: Instant = Instant::from_micros(1_700_000_000_000_000);

fn limiter(limits: ConnLimits) -> Arc<ConnLimiter> {
    Arc::new(ConnLimiter::new(&limits))
}

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().expect("an address"))
}

fn entries(limiter: &ConnLimiter) -> usize {
    limiter.by_address.iter().map(|stripe| stripe.lock().expect("not poisoned").len()).sum()
}

#[test]
fn without_limits_everything_is_admitted_and_given_back() {
    let limiter = limiter(ConnLimits::default());
    let permits: Vec<_> = (0..100).map(|_| limiter.admit(ip("192.0.2.1"), NOW).expect("admitted")).collect();
    assert_eq!((limiter.open(), entries(&limiter)), (100, 1));
    drop(permits);
    assert_eq!((limiter.open(), entries(&limiter)), (0, 0));
}

#[test]
fn the_connection_limit_frees_a_place_when_a_permit_is_dropped() {
    let limiter = limiter(ConnLimits { connections_max: 2, ..ConnLimits::default() });
    let first = limiter.admit(None, NOW).expect("admitted");
    let _second = limiter.admit(None, NOW).expect("admitted");
    assert_eq!(limiter.admit(None, NOW).unwrap_err(), ConnRefusal::Connections);
    drop(first);
    assert!(limiter.admit(None, NOW).is_ok());
}

#[test]
fn the_address_limit_counts_an_ipv6_network_of_64_bits_and_mapped_ipv4_as_one() {
    let limiter = limiter(ConnLimits { per_address_max: 1, ..ConnLimits::default() });
    let _v4 = limiter.admit(ip("192.0.2.1"), NOW).expect("admitted");
    let _v6 = limiter.admit(ip("2001:db8:0:1::1"), NOW).expect("admitted");
    assert_eq!(limiter.admit(ip("::ffff:192.0.2.1"), NOW).unwrap_err(), ConnRefusal::PerAddress);
    assert_eq!(limiter.admit(ip("2001:db8:0:1:ffff::9"), NOW).unwrap_err(), ConnRefusal::PerAddress);
    assert_eq!(limiter.open(), 2, "a refused connection does not count");
    assert!(limiter.admit(ip("2001:db8:0:2::1"), NOW).is_ok());
}

#[test]
fn the_rate_admits_its_burst_and_then_one_per_interval() {
    let limiter = limiter(ConnLimits { accepts_per_s_max: 10, accept_burst: 3, ..ConnLimits::default() });
    let admits = |now| limiter.admit(None, now).map(drop);
    assert_eq!([admits(NOW), admits(NOW), admits(NOW)], [Ok(()); 3]);
    assert_eq!(admits(NOW + Duration::from_millis(99)), Err(ConnRefusal::Rate));
    assert_eq!(admits(NOW + Duration::from_millis(100)), Ok(()));
    assert_eq!(admits(NOW + Duration::from_millis(199)), Err(ConnRefusal::Rate));
    let later = NOW + Duration::from_secs(3600);
    assert_eq!([admits(later), admits(later), admits(later)], [Ok(()); 3]);
    assert_eq!(admits(later), Err(ConnRefusal::Rate), "a quiet hour saves up no more than the burst");
}

#[test]
fn an_address_beyond_its_limit_does_not_use_up_the_rate() {
    let limits = ConnLimits { per_address_max: 1, accepts_per_s_max: 1, accept_burst: 2, ..ConnLimits::default() };
    let limiter = limiter(limits);
    let _held = limiter.admit(ip("192.0.2.1"), NOW).expect("admitted");
    for _ in 0..10 {
        assert_eq!(limiter.admit(ip("192.0.2.1"), NOW).unwrap_err(), ConnRefusal::PerAddress);
    }
    assert!(limiter.admit(ip("192.0.2.2"), NOW).is_ok());
}

#[test]
fn a_proxied_connection_is_counted_for_the_client_behind_the_proxy() {
    let limiter = limiter(ConnLimits { per_address_max: 1, ..ConnLimits::default() });
    let mut first = limiter.admit(None, NOW).expect("admitted");
    let mut second = limiter.admit(ip("192.0.2.9"), NOW).expect("admitted");
    let client = ip("203.0.113.7").expect("an address");
    assert_eq!(first.identify(client), Ok(()));
    assert_eq!(first.identify(client), Ok(()), "twice the same is counted once");
    assert_eq!(second.identify(client), Err(ConnRefusal::PerAddress));
    assert_eq!(entries(&limiter), 2);
    drop(first);
    assert_eq!(second.identify(client), Ok(()));
    assert_eq!(entries(&limiter), 1);
    drop(second);
    assert_eq!(entries(&limiter), 0);
}

#[test]
fn new_limits_apply_to_new_connections_only() {
    let limiter = limiter(ConnLimits::default());
    let permits: Vec<_> = (0..3).map(|_| limiter.admit(None, NOW).expect("admitted")).collect();
    limiter.set_limits(&ConnLimits { connections_max: 2, ..ConnLimits::default() });
    assert_eq!((permits.len(), limiter.open()), (3, 3));
    assert_eq!(limiter.admit(None, NOW).unwrap_err(), ConnRefusal::Connections);
}

#[test]
fn shards_that_race_for_the_last_places_never_exceed_the_limits() {
    let limits = ConnLimits { connections_max: 50, per_address_max: 20, ..ConnLimits::default() };
    let limiter = limiter(limits);
    let admitted: Vec<Vec<ConnPermit>> = std::thread::scope(|scope| {
        let shards: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    (0..100)
                        .filter_map(|n| limiter.admit(ip(if n % 2 == 0 { "192.0.2.1" } else { "192.0.2.2" }), NOW).ok())
                        .collect()
                })
            })
            .collect();
        shards.into_iter().map(|shard| shard.join().expect("no panic")).collect()
    });
    assert_eq!(admitted.iter().map(Vec::len).sum::<usize>(), 40);
    drop(admitted);
    assert_eq!((limiter.open(), entries(&limiter)), (0, 0));
}
