//! CONNECT and CONNACK.

use super::rig::{Rig, connect, present, props};
use crate::codec::{DecodeError, DecodeOptions, decode};
use crate::packet::Packet;
use crate::property::{Properties, PropertyId as P};
use bifro_core::client::Version::{self, V5, V31, V311};
use bifro_core::plugin::{AuthOutcome, Grant, Refusal};
use bifro_core::ports::{Attached, PortError};
use bifro_core::settings::{QuotaLimits, Resource, TenantSettings};
use std::boxed::Box;
use std::vec;

fn refused_with(settings: TenantSettings, version: Version) -> std::vec::Vec<std::string::String> {
    let mut rig = Rig::with(version, settings);
    rig.feed(&Packet::Connect(connect(version)));
    rig.grant(Grant::default());
    rig.identified()
}

/// [MQTT-3.2.0-1] [MQTT-3.1.4-4] [MQTT-3.2.2-1]
#[test]
fn a_clean_311_client_goes_through_every_step_and_hears_connack_last() {
    let mut rig = Rig::new(V311);
    assert_eq!(rig.feed(&Packet::Connect(connect(V311))), ["authenticate c"]);
    assert_eq!(rig.grant(Grant::default()), ["identify default/c"]);
    assert_eq!(rig.identified(), ["register"]);
    assert_eq!(rig.registered(), ["discard"]);
    assert!(!rig.session.wants_packets());
    assert_eq!(rig.attached(Attached::default()), ["CONNACK 00"]);
    assert_eq!(rig.bytes, [0x20, 2, 0, 0]);
    assert!(rig.session.wants_packets());
    assert_eq!(rig.tenant.quota.used(Resource::TotalConnections), 1);
    assert_eq!(rig.closed(), ["unregister", "close Transport"]);
    assert_eq!(rig.tenant.quota.used(Resource::TotalConnections), 0);
}

/// [MQTT5-3.2.0-1]
#[test]
fn a_5_0_client_is_told_what_the_server_does_differently_from_the_standards_defaults() {
    let mut rig = Rig::new(V5);
    let lines = rig.connect(&connect(V5));
    assert_eq!(lines, ["CONNACK 00 ReceiveMaximum=U16(64) MaximumPacketSize=U32(393231) TopicAliasMaximum=U16(10)"]);
}

/// [MQTT5-3.2.2-9] [MQTT5-3.2.2-16] [MQTT5-3.2.2-17] [MQTT5-3.2.2-21] [MQTT5-3.1.3-6]
#[test]
fn what_a_tenant_has_switched_off_is_announced() {
    let settings = TenantSettings {
        maximum_qos: 1,
        retain_enabled: false,
        wildcard_subscription_enabled: false,
        subscription_identifier_enabled: false,
        shared_subscription_enabled: false,
        topic_alias_max: 0,
        receive_maximum: u16::MAX,
        keep_alive_min_s: 60,
        session_expiry_max_s: 50,
        ..TenantSettings::default()
    };
    let mut rig = Rig::with(V5, settings);
    let block = props(|p| {
        p.u32(P::SessionExpiryInterval, 100);
    });
    let mut packet = connect(V5);
    packet.client_id = "";
    packet.properties = Properties::new(&block);
    let lines = rig.connect(&packet);
    assert_eq!(
        lines,
        ["CONNACK 00 SessionExpiryInterval=U32(50) MaximumQos=Byte(1) RetainAvailable=Byte(0) \
          MaximumPacketSize=U32(393231) AssignedClientIdentifier=Str(\"auto-00000000000000000000000000000005\") \
          WildcardSubscriptionAvailable=Byte(0) SubscriptionIdentifierAvailable=Byte(0) \
          SharedSubscriptionAvailable=Byte(0) ServerKeepAlive=U16(60)"]
    );
}

/// [MQTT5-3.1.2-28] [MQTT5-3.2.2-20]
#[test]
fn response_information_goes_to_those_who_asked_and_extras_are_left_out_if_they_would_not_fit() {
    let grant = || Grant {
        response_information: Some("r/1".into()),
        user_properties: vec![("k".into(), "v".into())],
        ..Grant::default()
    };
    let connack = |asks: u8, max: u32| {
        let mut rig = Rig::new(V5);
        let block = props(|p| {
            p.byte(P::RequestResponseInformation, asks).u32(P::MaximumPacketSize, max);
        });
        let mut packet = connect(V5);
        packet.properties = Properties::new(&block);
        rig.feed(&Packet::Connect(packet));
        rig.grant(grant());
        rig.identified();
        rig.registered();
        rig.attached(Attached::default()).remove(0)
    };
    assert!(connack(1, 100).ends_with("ResponseInformation=Str(\"r/1\") UserProperty=Pair(\"k\", \"v\")"));
    assert!(connack(0, 100).ends_with("TopicAliasMaximum=U16(10) UserProperty=Pair(\"k\", \"v\")"));
    assert!(connack(1, 20).ends_with("TopicAliasMaximum=U16(10)"));
}

/// [MQTT-3.1.0-1] [MQTT5-3.1.0-1]
#[test]
fn whoever_does_not_begin_with_connect_is_cut_off_without_a_word() {
    let mut rig = Rig::new(V5);
    let (_, lines) = rig.step(|session, cx, out| session.handle_packet(cx, Packet::PingReq, out));
    assert_eq!(lines, ["close Violation(Reason(130))"]);
    assert_eq!(rig.closed(), [""; 0], "a dead session says nothing more");
}

/// [MQTT-3.1.0-2] [MQTT5-3.1.0-2]
#[test]
fn a_second_connect_ends_the_session() {
    let mut rig = Rig::connected(V5, TenantSettings::default());
    let lines = rig.feed(&Packet::Connect(connect(V5)));
    assert_eq!(
        lines,
        ["DISCONNECT 82 ReasonString=Str(\"a second CONNECT\")", "unregister", "close Violation(Reason(130))"]
    );
    let mut rig = Rig::connected(V311, TenantSettings::default());
    assert_eq!(rig.feed(&Packet::Connect(connect(V311))), ["unregister", "close Violation(Reason(130))"]);
}

/// [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.1.3-8] [MQTT-3.1.3-9]
#[test]
fn an_empty_client_id_needs_a_clean_session() {
    let mut packet = connect(V311);
    packet.client_id = "";
    assert_eq!(Rig::new(V311).feed(&Packet::Connect(packet)), ["authenticate auto-00000000000000000000000000000005"]);
    packet.clean_start = false;
    let mut rig = Rig::new(V311);
    assert_eq!(rig.feed(&Packet::Connect(packet)), ["CONNACK 02", "close Refused(Reason(133))"]);
    assert_eq!(rig.bytes, [0x20, 2, 0, 2]);
    let mut packet = connect(V31);
    packet.client_id = "";
    assert_eq!(Rig::new(V31).feed(&Packet::Connect(packet)), ["CONNACK 02", "close Refused(Reason(133))"]);
}

/// [MQTT-3.1.2-2] [MQTT5-3.1.2-2]
#[test]
fn a_version_the_tenant_has_disabled_is_refused_after_identification() {
    let off = TenantSettings { mqtt_311_enabled: false, mqtt_5_enabled: false, ..TenantSettings::default() };
    assert_eq!(refused_with(off.clone(), V311), ["CONNACK 01", "close Refused(Reason(132))"]);
    assert_eq!(refused_with(off.clone(), V31), ["register"]);
    let lines = refused_with(off, V5);
    assert_eq!(lines[0], "CONNACK 84 ReasonString=Str(\"this protocol version is disabled\")");
}

/// [MQTT-3.1.2-2] [MQTT5-3.1.2-2] [MQTT-3.1.4-1]
#[test]
fn an_unknown_version_is_told_so_and_garbage_is_not_answered() {
    let mut rig = Rig::new(V311);
    let bytes = [0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 2, 2, 0, 10, 0, 0];
    let options = DecodeOptions { version: None, packet_bytes_max: 100 };
    let error = decode(&bytes, &options).expect_err("level 2 does not exist");
    let ((), lines) = rig.step(|session, cx, out| session.handle_malformed(cx, error, out));
    assert_eq!(lines, ["CONNACK 01", "close Violation(Reason(132))"]);
    let mut rig = Rig::new(V311);
    let ((), lines) = rig.step(|session, cx, out| session.handle_malformed(cx, DecodeError::Truncated, out));
    assert_eq!(lines, ["close Violation(Reason(129))"]);
}

#[test]
fn a_shard_over_its_budget_and_a_tenant_over_its_quota_refuse() {
    let mut rig = Rig::new(V311);
    rig.over_budget = true;
    assert_eq!(rig.feed(&Packet::Connect(connect(V311))), ["CONNACK 03", "close Refused(Reason(151))"]);
    let mut rig = Rig::new(V311);
    rig.tenant.quota.set_limits(&QuotaLimits { total_connections: 1, ..QuotaLimits::default() });
    assert!(rig.tenant.quota.acquire(Resource::TotalConnections, 1));
    rig.feed(&Packet::Connect(connect(V311)));
    rig.grant(Grant::default());
    assert_eq!(rig.identified(), ["CONNACK 03", "close Refused(Reason(151))"]);
    assert_eq!(rig.tenant.quota.used(Resource::TotalConnections), 1, "what was not taken is not given back");
}

/// [MQTT-3.2.2-4] [MQTT-3.2.2-5] [MQTT5-3.2.2-6] [MQTT5-3.2.2-7]
#[test]
fn every_refusal_of_authentication_has_its_code() {
    let cases = [
        (Refusal::BadCredentials, "CONNACK 04", "CONNACK 86"),
        (Refusal::NotAuthorized, "CONNACK 05", "CONNACK 87"),
        (Refusal::Banned, "CONNACK 05", "CONNACK 8a"),
        (Refusal::BadMethod, "CONNACK 04", "CONNACK 8c"),
        (Refusal::Unavailable, "CONNACK 03", "CONNACK 88"),
    ];
    for (refusal, old, new) in cases {
        for (version, expected) in [(V311, old), (V5, new)] {
            let mut rig = Rig::new(version);
            rig.feed(&Packet::Connect(connect(version)));
            let lines = rig.auth(AuthOutcome::Refused(refusal));
            assert!(lines[0].starts_with(expected), "{refusal:?}: {lines:?}");
            assert!(lines[1].starts_with("close Refused"), "{lines:?}");
        }
    }
}

/// [MQTT5-3.1.2-29]
#[test]
fn who_wants_no_problem_information_gets_no_reason_string() {
    let block = props(|p| {
        p.byte(P::RequestProblemInformation, 0);
    });
    let mut packet = connect(V5);
    packet.properties = Properties::new(&block);
    let mut rig = Rig::new(V5);
    rig.feed(&Packet::Connect(packet));
    assert_eq!(rig.auth(AuthOutcome::Refused(Refusal::Banned))[0], "CONNACK 8a");
}

/// [MQTT-3.1.2-4] [MQTT-3.1.2-6] [MQTT5-3.1.2-4] [MQTT5-3.1.2-5] [MQTT5-3.1.2-6]
#[test]
fn clean_start_and_expiry_decide_between_attaching_and_discarding() {
    let decided = |version, clean_start, expiry: Option<u32>, force_transient| {
        let mut rig = Rig::with(version, TenantSettings { force_transient, ..TenantSettings::default() });
        let block = props(|p| {
            if let Some(expiry) = expiry {
                p.u32(P::SessionExpiryInterval, expiry);
            }
        });
        let mut packet = connect(version);
        packet.clean_start = clean_start;
        packet.properties = Properties::new(&block);
        rig.feed(&Packet::Connect(packet));
        rig.grant(Grant::default());
        rig.identified();
        rig.registered().remove(0)
    };
    assert_eq!(decided(V311, true, None, false), "discard");
    assert_eq!(decided(V311, false, None, false), "attach clean=false");
    assert_eq!(decided(V311, false, None, true), "discard");
    assert_eq!(decided(V5, true, None, false), "discard");
    assert_eq!(decided(V5, true, Some(0), false), "discard");
    assert_eq!(decided(V5, true, Some(9), false), "attach clean=true");
    assert_eq!(decided(V5, false, Some(9), false), "attach clean=false");
    assert_eq!(decided(V5, false, None, false), "attach clean=false", "resumes, and ends with the connection");
    assert_eq!(decided(V5, false, Some(9), true), "discard");
}

/// [MQTT-3.2.2-2] [MQTT-3.2.2-3] [MQTT5-3.2.2-2] [MQTT5-3.2.2-3]
#[test]
fn session_present_says_whether_the_inbox_was_there_but_not_to_31() {
    for (version, expected) in [(V311, "CONNACK present 00"), (V31, "CONNACK 00")] {
        let (rig, lines) = Rig::resumed(version, TenantSettings::default(), present());
        assert_eq!(lines, [expected]);
        assert!(rig.session.is_persistent());
        assert_eq!(rig.session.inbox().map(|(_, epoch)| epoch), Some(4));
    }
    let (_, lines) = Rig::resumed(V5, TenantSettings::default(), present());
    assert!(lines[0].starts_with("CONNACK present 00"));
    let fresh = Attached { present: false, ..present() };
    let (_, lines) = Rig::resumed(V311, TenantSettings::default(), fresh);
    assert_eq!(lines, ["CONNACK 00"]);
}

#[test]
fn an_inbox_that_cannot_be_reached_refuses_and_gives_everything_back() {
    for (error, code) in [(PortError::QuotaExceeded, "CONNACK 97"), (PortError::Unavailable, "CONNACK 88")] {
        let mut rig = Rig::new(V5);
        rig.feed(&Packet::Connect(connect(V5)));
        rig.grant(Grant::default());
        rig.identified();
        rig.registered();
        let ((), lines) = rig.step(|session, cx, out| session.handle_attached(cx, Err(error), out));
        assert!(lines[0].starts_with(code), "{lines:?}");
        assert_eq!(lines[1], "unregister");
        assert!(lines[2].starts_with("close Refused"));
        assert_eq!(rig.tenant.quota.used(Resource::TotalConnections), 0);
    }
}

#[test]
fn a_connection_lost_while_its_inbox_is_attached_leaves_the_inbox_as_it_found_it() {
    let mut rig = Rig::new(V311);
    let mut packet = connect(V311);
    packet.clean_start = false;
    rig.feed(&Packet::Connect(packet));
    rig.grant(Grant::default());
    rig.identified();
    rig.registered();
    assert_eq!(rig.closed(), [""; 0], "the inbox is not ours yet");
    assert_eq!(rig.closed(), [""; 0]);
    let attached = Attached { received_qos2: vec![3], ..present() };
    let expiry = rig.tenant.settings.session_expiry_max_s;
    let detach = std::format!("detach expiry={expiry} qos2=[3] in_flight=[]");
    assert_eq!(rig.attached(attached), [detach.as_str(), "unregister", "close Transport"]);
    assert_eq!(rig.tenant.quota.used(Resource::TotalConnections), 0);
}

#[test]
fn completions_out_of_turn_are_ignored() {
    let mut rig = Rig::new(V311);
    assert_eq!(rig.grant(Grant::default()), [""; 0]);
    assert_eq!(rig.identified(), [""; 0]);
    rig.feed(&Packet::Connect(connect(V311)));
    assert_eq!(rig.registered(), [""; 0]);
    assert_eq!(rig.attached(Attached::default()), [""; 0]);
    let unavailable =
        |session: &mut crate::session::Session, cx: &crate::session::Cx<'_>, out: &mut crate::session::Outbox<'_>| {
            session.handle_attached(cx, Ok(Box::default()), out);
        };
    assert_eq!(rig.step(unavailable).1, [""; 0]);
    assert_eq!(rig.grant(Grant::default()), ["identify default/c"]);
    assert_eq!(rig.grant(Grant::default()), [""; 0], "once is enough");
}
