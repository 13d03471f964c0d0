//! Chapter 4.7: topic names and filters.

use crate::suite::{ALL, AT_MOST_ONCE, anybody, as_publish, expect_payload, filter, frame, name, no_properties, text};
use bifro_core::client::Version;
use bifro_mqtt::packet::Packet;

/// [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT-4.7.3-1] [MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT5-4.7.3-1]
#[test]
fn filters_with_misplaced_wildcards_or_none_at_all_are_refused() {
    for version in ALL {
        let mut client = anybody(version);
        let refused = if version == Version::V5 { 0x8F } else { 0x80 };
        for bad in ["a#", "a/#/b", "#/", "##", "a/b#", "+a", "a+", "a/+b/c", "++", "a/++", ""] {
            assert_eq!(client.subscribe(bad, AT_MOST_ONCE), refused, "{version:?} {bad:?}");
        }
        for good in ["#", "+", "a/#", "+/#", "/", "//", "/+", "+/+/+", "a//#"] {
            assert_eq!(client.subscribe(good, AT_MOST_ONCE), 0, "{version:?} {good:?}");
            client.unsubscribe(good);
        }
    }
}

/// [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT-4.7.3-4] [MQTT5-4.7.3-4] [MQTT-3.3.2-3]
/// [MQTT5-3.3.2-3]
#[test]
fn a_filter_matches_what_the_specification_says() {
    let cases: [(&str, &[&str], &[&str]); 8] = [
        ("s/#", &["s", "s/", "s/a", "s/a/b", "s//"], &["sa", "S/a", "/s/a"]),
        ("s/+", &["s/a", "s/", "s/é"], &["s", "s/a/b", "s//"]),
        ("+/a", &["x/a", "/a"], &["a", "x/y/a", "x/A"]),
        ("/+", &["/a", "/"], &["a", "/a/b"]),
        ("a/+/c/#", &["a/b/c", "a//c", "a/b/c/d/e"], &["a/c", "a/b/d"]),
        ("Accounts payable", &["Accounts payable"], &["Accounts Payable", "Accounts  payable", "Accountspayable"]),
        ("é", &["é"], &["e\u{301}", "e"]),
        ("a/./b", &["a/./b"], &["a/b", "a/x/b"]),
    ];
    for version in ALL {
        for (pattern, matching, others) in cases {
            let root = name("match");
            let mut client = anybody(version);
            client.subscribe(&format!("{root}/{pattern}"), AT_MOST_ONCE);
            for topic in others.iter().chain(matching) {
                client.publish(&format!("{root}/{topic}"), topic.as_bytes(), AT_MOST_ONCE, false);
            }
            for topic in matching {
                let received = expect_payload(&mut client, topic);
                assert_eq!(as_publish(&received).topic, format!("{root}/{topic}"));
            }
            client.expect_silence();
        }
    }
}

/// [MQTT-4.7.2-1] [MQTT5-4.7.2-1]
#[test]
fn a_leading_wildcard_does_not_match_topics_that_begin_with_a_dollar() {
    for version in ALL {
        let name = name("dollar");
        let mut wild = anybody(version);
        wild.subscribe_with(
            &[filter(&format!("+/{name}/#"), AT_MOST_ONCE), filter(&format!("+/{name}"), AT_MOST_ONCE)],
            &[],
        );
        let mut named = anybody(version);
        named.subscribe(&format!("$custom/{name}/#"), AT_MOST_ONCE);
        let mut inner = anybody(version);
        inner.subscribe(&format!("{name}/+"), AT_MOST_ONCE);
        let mut publisher = anybody(version);
        for topic in
            [format!("$custom/{name}"), format!("$custom/{name}/a"), format!("plain/{name}"), format!("{name}/$x")]
        {
            publisher.publish(&topic, topic.as_bytes(), AT_MOST_ONCE, false);
        }
        expect_payload(&mut wild, format!("plain/{name}"));
        expect_payload(&mut named, format!("$custom/{name}"));
        expect_payload(&mut named, format!("$custom/{name}/a"));
        expect_payload(&mut inner, format!("{name}/$x"));
        for client in [&mut wild, &mut named, &mut inner] {
            client.expect_silence();
        }
    }
}

/// [MQTT-4.7.2-1] [MQTT5-4.7.2-1]: `#` alone as well, for live and for retained messages.
#[test]
fn a_lone_hash_sees_no_dollar_topics() {
    let root = name("$lone");
    let mut publisher = anybody(Version::V311);
    publisher.publish(&root, b"kept", crate::suite::AT_LEAST_ONCE, true);
    publisher.recv();
    let mut client = anybody(Version::V311);
    client.subscribe("#", AT_MOST_ONCE);
    let marker = name("lone/marker");
    publisher.publish(&root, b"live", AT_MOST_ONCE, false);
    publisher.publish(&marker, b"end", AT_MOST_ONCE, false);
    loop {
        let received = client.recv();
        let publish = as_publish(&received);
        assert!(!publish.topic.starts_with('$'), "{received:?}");
        if publish.topic == marker {
            break;
        }
    }
    publisher.publish(&root, b"", crate::suite::AT_LEAST_ONCE, true);
}

/// [MQTT-4.7.3-3] [MQTT5-4.7.3-3]
#[test]
fn a_topic_may_have_65535_bytes() {
    for version in ALL {
        let mut client = anybody(version);
        let root = name("long/");
        let topic = format!("{root}{}", "x".repeat(65_535 - root.len()));
        client.subscribe(&topic, AT_MOST_ONCE);
        client.send_bytes(&frame(0x30, &[&text(&topic), no_properties(version), b"x"]));
        let received = client.recv();
        assert!(matches!(received.packet(), Packet::Publish(publish) if publish.topic == topic));
    }
}

/// [MQTT-4.7.3-4] [MQTT5-4.7.3-4]: characters that look alike or change in transit elsewhere.
#[test]
fn topics_are_neither_normalised_nor_substituted() {
    for version in ALL {
        let root = name("bytes");
        let alike =
            ["ﬀ", "ff", "Å", "A\u{30A}", "\u{212B}", "ß", "SS", " a", "a ", "a\tb", "%61", "\u{FFFD}", "\u{200B}"];
        let mut client = anybody(version);
        for topic in alike {
            let topic = format!("{root}/{topic}");
            client.subscribe(&topic, AT_MOST_ONCE);
            for other in alike {
                client.publish(&format!("{root}/{other}"), other.as_bytes(), AT_MOST_ONCE, false);
            }
            let received = client.recv();
            assert_eq!(as_publish(&received).topic, topic);
            client.expect_silence();
            client.unsubscribe(&topic);
        }
    }
}
