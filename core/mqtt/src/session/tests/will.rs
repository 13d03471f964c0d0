//! The will.

use super::rig::{Rig, connect, present, props, will};
use crate::packet::Packet;
use crate::property::{Properties, PropertyId as P};
use crate::reason::Reason;
use bifro_core::client::Version::{V5, V311};
use bifro_core::plugin::Grant;
use bifro_core::settings::TenantSettings;

fn with_will(settings: TenantSettings) -> Rig {
    let mut packet = connect(V5);
    packet.will = Some(will("w"));
    let mut rig = Rig::with(V5, settings);
    rig.connect(&packet);
    rig
}

/// A persistent session whose will has this delay, in seconds.
fn delayed(delay: u32, expiry: u32) -> Rig {
    let block = props(|p| {
        p.u32(P::WillDelayInterval, delay);
    });
    let outer = props(|p| {
        p.u32(P::SessionExpiryInterval, expiry);
    });
    let mut packet = connect(V5);
    packet.properties = Properties::new(&outer);
    let mut will = will("w");
    will.properties = Properties::new(&block);
    packet.will = Some(will);
    let mut rig = Rig::new(V5);
    rig.feed(&Packet::Connect(packet));
    rig.grant(Grant::default());
    rig.identified();
    rig.registered();
    rig.attached(present());
    rig
}

/// [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.14.4-3] [MQTT5-3.1.2-8] [MQTT5-3.1.2-10] [MQTT5-3.14.4-3]
#[test]
fn only_a_normal_disconnect_takes_the_will_back() {
    let rig = || with_will(TenantSettings::default());
    assert_eq!(rig().closed(), ["will w q1", "unregister", "close Transport"]);
    assert_eq!(rig().disconnect(Reason::SUCCESS, &[]), ["unregister", "close ByClient"]);
    assert_eq!(rig().disconnect(Reason::DISCONNECT_WITH_WILL, &[])[0], "will w q1");
    assert_eq!(rig().disconnect(Reason::UNSPECIFIED_ERROR, &[])[0], "will w q1");
    assert_eq!(rig().close(Reason::SESSION_TAKEN_OVER)[1], "will w q1");
    assert_eq!(rig().feed(&Packet::Connect(connect(V5)))[1], "will w q1");
}

#[test]
fn a_server_that_shuts_down_publishes_no_wills_unless_it_is_told_to() {
    let mut rig = with_will(TenantSettings::default());
    assert_eq!(rig.close(Reason::SERVER_SHUTTING_DOWN)[1..], ["unregister", "close Server(Reason(139))"]);
    let mut rig = with_will(TenantSettings { no_will_at_shutdown: false, ..TenantSettings::default() });
    assert_eq!(rig.close(Reason::SERVER_SHUTTING_DOWN)[1], "will w q1");
}

/// A node that is drained cannot say where else to go; a tenant that is redirected is told, and its clients' wills are due.
#[test]
fn a_server_that_is_drained_publishes_no_wills_either() {
    let mut rig = with_will(TenantSettings::default());
    assert_eq!(rig.close(Reason::USE_ANOTHER_SERVER)[1..], ["unregister", "close Server(Reason(156))"]);
    let mut rig = with_will(TenantSettings::default());
    let ((), lines) = rig.step(|session, cx, out| session.close(cx, Reason::USE_ANOTHER_SERVER, Some("b:1883"), out));
    assert_eq!(lines[1], "will w q1");
}

/// [MQTT5-3.1.3-9] [MQTT5-3.1.2-8]
#[test]
fn a_delayed_will_waits_with_the_inbox_until_its_delay_or_the_session_is_over() {
    let detach = |delay, expiry| delayed(delay, expiry).closed().remove(0);
    assert_eq!(detach(10, 100), "detach expiry=100 qos2=[] in_flight=[] will=w 10s");
    assert_eq!(detach(100, 10), "detach expiry=10 qos2=[] in_flight=[] will=w 10s");
    assert_eq!(detach(0, 10), "will w q1");
    let ends_now = props(|p| {
        p.u32(P::SessionExpiryInterval, 0);
    });
    let lines = delayed(10, 100).disconnect(Reason::DISCONNECT_WITH_WILL, &ends_now);
    assert_eq!(lines[..2], ["will w q1", "detach expiry=0 qos2=[] in_flight=[]"]);
}

/// [MQTT5-3.2.2-12] [MQTT5-3.2.2-13]
#[test]
fn a_will_the_tenant_does_not_allow_refuses_the_connect() {
    let refused = |settings: TenantSettings, topic: &'static str, retain| {
        let mut packet = connect(V5);
        packet.will = Some(crate::packet::Will { retain, ..will(topic) });
        let mut rig = Rig::with(V5, settings);
        rig.acl.denied_publish.push("denied");
        rig.feed(&Packet::Connect(packet));
        rig.grant(Grant::default());
        rig.identified().remove(0)
    };
    let default = TenantSettings::default;
    assert!(refused(TenantSettings { maximum_qos: 0, ..default() }, "w", false).starts_with("CONNACK 9b"));
    assert!(refused(TenantSettings { retain_enabled: false, ..default() }, "w", true).starts_with("CONNACK 9a"));
    assert!(refused(TenantSettings { will_bytes_max: 2, ..default() }, "w", false).starts_with("CONNACK 95"));
    assert!(refused(default(), "w/#", false).starts_with("CONNACK 90"));
    assert!(refused(default(), "denied", false).starts_with("CONNACK 87"));
    assert_eq!(refused(default(), "w", true), "register");
}

#[test]
fn a_will_whose_permission_was_revoked_is_not_published() {
    let mut rig = with_will(TenantSettings::default());
    rig.acl.denied_publish.push("w");
    rig.shows_events = true;
    assert_eq!(
        rig.closed(),
        ["event by_client", "event will_dist_error", "unregister", "event mqtt_session_stop", "close Transport"]
    );
}

/// [MQTT-3.1.2-8]
#[test]
fn a_connect_that_fails_leaves_no_will() {
    let mut packet = connect(V311);
    packet.will = Some(will("w"));
    let mut rig = Rig::new(V311);
    rig.feed(&Packet::Connect(packet));
    rig.grant(Grant::default());
    rig.identified();
    assert_eq!(rig.closed(), ["unregister", "close Transport"]);
}
