//! The ends of a session.

use super::rig::{Rig, connect, delivery, present, props};
use crate::codec::DecodeError;
use crate::packet::{Disconnect, Packet};
use crate::property::{Properties, PropertyId as P};
use crate::reason::Reason;
use crate::session::Delivery;
use bifro_core::client::Version::{V5, V311};
use bifro_core::message::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use bifro_core::plugin::Grant;
use bifro_core::ports::GroupName;
use bifro_core::settings::TenantSettings;
use std::time::Duration;

fn v5() -> Rig {
    Rig::connected(V5, TenantSettings::default())
}

/// [MQTT-3.14.4-1] [MQTT5-3.14.4-1]
#[test]
fn disconnect_ends_the_session_and_nothing_follows() {
    let mut rig = v5();
    rig.shows_events = true;
    assert_eq!(
        rig.disconnect(Reason::SUCCESS, &[]),
        ["event by_client", "unregister", "event mqtt_session_stop", "close ByClient"]
    );
    assert_eq!(rig.close(Reason::SESSION_TAKEN_OVER), [""; 0]);
    assert_eq!(rig.closed(), [""; 0]);
    assert_eq!(rig.timeout(), [""; 0]);
    assert_eq!(rig.session.next_timeout(), None);
    let (request, lines) = rig.step(|session, cx, out| session.handle_packet(cx, Packet::PingReq, out).is_some());
    assert!(!request && lines.is_empty());
}

/// [MQTT-3.1.4-2] [MQTT5-3.1.4-3]
#[test]
fn a_kicked_client_is_told_if_it_can_understand() {
    assert_eq!(v5().close(Reason::SESSION_TAKEN_OVER), ["DISCONNECT 8e", "unregister", "close Server(Reason(142))"]);
    let mut rig = Rig::connected(V311, TenantSettings::default());
    assert_eq!(rig.close(Reason::SESSION_TAKEN_OVER), ["unregister", "close Server(Reason(142))"]);
}

#[test]
fn a_redirected_client_is_told_where_to_go() {
    let mut rig = v5();
    let ((), lines) = rig.step(|session, cx, out| session.close(cx, Reason::SERVER_MOVED, Some("b:1883"), out));
    assert_eq!(lines[0], "DISCONNECT 9d ServerReference=Str(\"b:1883\")");
    let mut rig = Rig::new(V5);
    rig.feed(&Packet::Connect(connect(V5)));
    let ((), lines) = rig.step(|session, cx, out| session.close(cx, Reason::USE_ANOTHER_SERVER, Some("b"), out));
    assert_eq!(lines, ["CONNACK 9c ServerReference=Str(\"b\")", "close Server(Reason(156))"]);
}

/// [MQTT-4.8.0-1] [MQTT5-4.13.1-1]
#[test]
fn malformed_bytes_end_the_session() {
    let mut rig = v5();
    let ((), lines) = rig.step(|session, cx, out| session.handle_malformed(cx, DecodeError::VarIntTooLong, out));
    assert!(lines[0].starts_with("DISCONNECT 81"), "{lines:?}");
    assert_eq!(lines[1..], ["unregister", "close Violation(Reason(129))"]);
}

/// [MQTT-3.1.2-24] [MQTT5-3.1.2-22]
#[test]
fn silence_for_one_and_a_half_keep_alive_ends_the_session() {
    let mut rig = v5();
    assert_eq!(rig.session.next_timeout(), Some(rig.now + Duration::from_secs(15)));
    rig.advance(Duration::from_secs(14));
    assert_eq!(rig.timeout(), [""; 0]);
    assert_eq!(rig.feed(&Packet::PingReq), ["PINGRESP"]); // [MQTT-3.12.4-1] [MQTT5-3.12.4-1]
    rig.advance(Duration::from_secs(14));
    assert_eq!(rig.timeout(), [""; 0]);
    rig.advance(Duration::from_secs(1));
    assert!(rig.timeout()[0].starts_with("DISCONNECT 8d"));
    let mut packet = connect(V5);
    packet.keep_alive = 0;
    let mut rig = Rig::new(V5);
    rig.connect(&packet);
    assert_eq!(rig.session.next_timeout(), None);
}

#[test]
fn expired_credentials_end_the_session() {
    let mut rig = Rig::new(V5);
    rig.shows_events = true;
    rig.feed(&Packet::Connect(connect(V5)));
    let expires_at = Some(rig.now + Duration::from_secs(3));
    rig.grant(Grant { expires_at, ..Grant::default() });
    rig.identified();
    rig.registered();
    rig.attached(bifro_core::ports::Attached::default());
    assert_eq!(rig.session.next_timeout(), expires_at);
    rig.advance(Duration::from_secs(3));
    let lines = rig.timeout();
    assert!(lines[0].starts_with("DISCONNECT 87"));
    assert_eq!(lines[1], "event re_auth_failed");
}

/// Section 3.14.2.2.2 of MQTT 5.0.
#[test]
fn disconnect_may_change_the_expiry_but_not_from_zero() {
    let block = |expiry| {
        props(|p| {
            p.u32(P::SessionExpiryInterval, expiry);
        })
    };
    let lines = v5().disconnect(Reason::SUCCESS, &block(5));
    assert!(lines[0].starts_with("DISCONNECT 82"), "{lines:?}");
    for (asked, detach) in [(0, "detach expiry=0"), (7, "detach expiry=7"), (u32::MAX, "detach expiry=2592000")] {
        let (mut rig, _) = Rig::resumed(V5, TenantSettings::default(), present());
        let lines = rig.disconnect(Reason::SUCCESS, &block(asked));
        assert!(lines[0].starts_with(detach), "{lines:?}");
        assert_eq!(lines[1..], ["unregister", "close ByClient"]);
    }
}

/// [MQTT5-4.8.2-4] [MQTT5-4.8.2-5]
#[test]
fn shared_messages_a_transient_member_leaves_behind_go_to_others_but_not_those_sent_with_qos2() {
    let settings = TenantSettings { send_maximum: 2, ..TenantSettings::default() };
    let mut rig = Rig::connected(V311, settings);
    let group = GroupName { name: "g".into(), ordered: false };
    let shared = |qos| Delivery { shared: Some(("f/#", &group)), ..delivery(qos) };
    rig.deliver_as("f/1", "one", &shared(AtLeastOnce));
    rig.deliver_as("f/2", "two", &shared(ExactlyOnce));
    rig.deliver_as("f/3", "three", &shared(ExactlyOnce));
    rig.deliver_as("f/4", "four", &shared(AtMostOnce));
    rig.deliver_as("f/5", "five", &delivery(AtLeastOnce));
    assert_eq!(rig.closed(), ["redeliver f/# g one", "redeliver f/# g three", "unregister", "close Transport"]);
}

#[test]
fn operators_can_tell_a_broken_connection_from_one_the_client_closed() {
    let (mut closed, mut broken) = (v5(), v5());
    (closed.shows_events, broken.shows_events) = (true, true);
    assert_eq!(closed.closed()[0], "event by_client");
    let (_, lines) = broken.step(|session, cx, out| session.handle_broken(cx, out));
    assert_eq!(lines, ["event client_channel_error", "unregister", "event mqtt_session_stop", "close Transport"]);
}

#[test]
fn a_client_that_leaves_during_authentication_never_had_a_session() {
    let mut rig = Rig::new(V5);
    rig.shows_events = true;
    rig.feed(&Packet::Connect(connect(V5)));
    let farewell = Packet::Disconnect(Disconnect { reason: Reason::SUCCESS, properties: Properties::default() });
    assert_eq!(rig.feed(&farewell), ["event enhanced_auth_abort_by_client", "close ByClient"]);
}

#[test]
fn packets_only_servers_send_end_the_session() {
    let mut rig = v5();
    let (_, lines) = rig.step(|session, cx, out| session.handle_packet(cx, Packet::PingResp, out).is_some());
    assert!(lines[0].starts_with("DISCONNECT 82"), "{lines:?}");
}
