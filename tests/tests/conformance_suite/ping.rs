//! Chapters 3.12 and 3.1.2.10: PINGREQ and keep-alive.

use crate::suite::{ALL, anybody, at_once, broker, lasting, name, pass};
use bifro_core::client::Version;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::reason::Reason;
use bifro_tests::{Client, ConnectOptions};
use std::time::{Duration, Instant};

/// [MQTT-3.12.4-1] [MQTT5-3.12.4-1]
#[test]
fn pingreq_is_answered_with_pingresp() {
    for version in ALL {
        let mut client = anybody(version);
        client.send_bytes(&[0xC0, 0, 0xC0, 0]);
        for _ in 0..2 {
            assert_eq!(client.recv().bytes(), [0xD0, 0]);
        }
    }
}

/// [MQTT-3.1.2-24] [MQTT5-3.1.2-22]
#[test]
fn silence_of_one_and_a_half_keep_alives_ends_the_connection() {
    at_once(&ALL, |version| {
        let mut options = ConnectOptions::new(version, &name("silent"));
        options.keep_alive = 1;
        let (mut client, _) = Client::connect_with(broker().tcp(), &options);
        let start = Instant::now();
        client.expect_disconnect(Reason::KEEP_ALIVE_TIMEOUT);
        let after = start.elapsed();
        assert!(after > Duration::from_millis(1400) && after < Duration::from_secs(4), "{version:?} after {after:?}");
    });
}

/// [MQTT-3.1.2-24] [MQTT5-3.1.2-22]: any packet counts, and a keep-alive of 0 is none.
#[test]
fn a_client_that_says_something_in_time_stays() {
    at_once(&ALL, |version| {
        let mut options = ConnectOptions::new(version, &name("talks"));
        options.keep_alive = 1;
        let (mut talks, _) = Client::connect_with(broker().tcp(), &options);
        let mut options = lasting(version, &name("never"));
        options.keep_alive = 0;
        let (mut never, _) = Client::connect_with(broker().tcp(), &options);
        for _ in 0..2 {
            pass(Duration::from_millis(900));
            talks.expect_silence();
        }
        never.expect_silence();
    });
}

/// [MQTT5-3.1.2-22] [MQTT-3.1.2-24]: like a network failure, so the will is published.
#[test]
fn a_client_that_falls_silent_has_its_will_published() {
    at_once(&ALL, |version| {
        let topic = name("silent/will");
        let mut witness = anybody(Version::V5);
        witness.subscribe(&topic, crate::suite::AT_MOST_ONCE);
        let mut options = ConnectOptions::new(version, &name("silent"));
        options.keep_alive = 1;
        options.will = Some((topic.clone(), b"gone".to_vec(), crate::suite::AT_MOST_ONCE, false, Vec::new()));
        let _client = Client::connect_with(broker().tcp(), &options);
        let received = witness.recv();
        assert!(matches!(received.packet(), Packet::Publish(publish) if publish.payload == b"gone"), "{received:?}");
    });
}
