//! Enhanced authentication [MQTT5-4.12].

use super::rig::{Rig, connect, props};
use crate::packet::{Auth, Packet};
use crate::property::{Properties, PropertyId as P};
use crate::reason::Reason;
use bifro_core::client::Version::{V5, V311};
use bifro_core::plugin::{AuthOutcome, Grant, Refusal};
use bifro_core::ports::Attached;
use bifro_core::settings::TenantSettings;
use std::boxed::Box;
use std::string::String;
use std::vec::Vec;

fn auth(rig: &mut Rig, reason: Reason, method: &str) -> Vec<String> {
    let block = props(|p| {
        p.str(P::AuthenticationMethod, method).binary(P::AuthenticationData, b"d");
    });
    rig.feed(&Packet::Auth(Auth { reason, properties: Properties::new(&block) }))
}

fn proceed() -> AuthOutcome {
    AuthOutcome::Continue { data: Some(Box::from(*b"s")), state: Box::from(*b"1") }
}

fn begun() -> Rig {
    let block = props(|p| {
        p.str(P::AuthenticationMethod, "M");
    });
    let mut packet = connect(V5);
    packet.properties = Properties::new(&block);
    let mut rig = Rig::new(V5);
    assert_eq!(rig.feed(&Packet::Connect(packet)), ["authenticate c"]);
    rig
}

fn connected() -> Rig {
    let mut rig = begun();
    rig.grant(Grant { data: Some(Box::from(*b"f")), ..Grant::default() });
    rig.identified();
    rig.registered();
    let connack = rig.attached(Attached::default()).remove(0);
    assert!(connack.ends_with("AuthenticationMethod=Str(\"M\") AuthenticationData=Binary([102])"), "{connack}");
    rig
}

/// [MQTT5-4.12.0-2] [MQTT5-4.12.0-3] [MQTT5-4.12.0-5]
#[test]
fn an_exchange_goes_back_and_forth_with_the_method_of_connect() {
    let mut rig = begun();
    assert!(!rig.session.wants_packets());
    let step = ["AUTH 18 AuthenticationMethod=Str(\"M\") AuthenticationData=Binary([115])"];
    assert_eq!(rig.auth(proceed()), step);
    assert!(rig.session.wants_packets());
    assert_eq!(auth(&mut rig, Reason::CONTINUE_AUTHENTICATION, "M"), ["authenticate c"]);
    assert_eq!(rig.auth(proceed()), step);
    auth(&mut rig, Reason::CONTINUE_AUTHENTICATION, "M");
    assert_eq!(rig.grant(Grant::default()), ["identify default/c"]);
}

/// [MQTT5-4.12.0-5] [MQTT5-4.12.0-3] [MQTT5-3.1.2-30]
#[test]
fn another_method_or_an_auth_out_of_turn_ends_the_exchange() {
    let mut rig = begun();
    rig.auth(proceed());
    assert!(auth(&mut rig, Reason::CONTINUE_AUTHENTICATION, "N")[0].starts_with("CONNACK 8c"));
    let mut rig = begun();
    rig.auth(proceed());
    assert!(auth(&mut rig, Reason::RE_AUTHENTICATE, "M")[0].starts_with("CONNACK 82"));
    let mut rig = begun();
    rig.auth(proceed());
    assert!(rig.feed(&Packet::PingReq)[0].starts_with("CONNACK 82"));
}

/// [MQTT5-4.12.0-6] [MQTT5-4.12.0-7]
#[test]
fn without_a_method_there_is_no_auth_in_either_direction() {
    let mut rig = Rig::new(V311);
    rig.feed(&Packet::Connect(connect(V311)));
    assert_eq!(rig.auth(proceed()), ["CONNACK 03", "close Refused(Reason(136))"]);
    let mut rig = Rig::connected(V5, TenantSettings::default());
    assert!(auth(&mut rig, Reason::RE_AUTHENTICATE, "M")[0].starts_with("DISCONNECT 82"));
}

/// [MQTT5-4.12.1-1] [MQTT5-4.12.1-2]
#[test]
fn a_live_client_authenticates_again() {
    let mut rig = connected();
    rig.subscribe(1, &[("a", 0)]);
    rig.subscribed(0);
    assert_eq!(auth(&mut rig, Reason::RE_AUTHENTICATE, "M"), ["authenticate c"]);
    assert!(rig.session.wants_packets(), "traffic goes on meanwhile");
    assert!(rig.auth(proceed())[0].starts_with("AUTH 18"));
    assert_eq!(auth(&mut rig, Reason::CONTINUE_AUTHENTICATION, "M"), ["authenticate c"]);
    rig.acl.denied_subscribe.push("a");
    assert_eq!(
        rig.grant(Grant { user: "other".into(), ..Grant::default() }),
        ["AUTH 00 AuthenticationMethod=Str(\"M\")", "reidentified other", "unsubscribe [2] a"]
    );
    assert_eq!(rig.session.client().map(|client| &*client.user), Some("other"));
}

/// [MQTT5-4.12.1-2]
#[test]
fn who_fails_to_authenticate_again_is_put_out() {
    let mut rig = connected();
    auth(&mut rig, Reason::RE_AUTHENTICATE, "M");
    assert!(rig.auth(AuthOutcome::Refused(Refusal::Banned))[0].starts_with("DISCONNECT 87"));
    let mut rig = connected();
    auth(&mut rig, Reason::RE_AUTHENTICATE, "M");
    let elsewhere = Grant { tenant: Some("other".into()), ..Grant::default() };
    assert!(rig.grant(elsewhere)[0].starts_with("DISCONNECT 87"), "a session does not change its tenant");
    assert!(auth(&mut connected(), Reason::RE_AUTHENTICATE, "N")[0].starts_with("DISCONNECT 8c"));
    assert!(auth(&mut connected(), Reason::CONTINUE_AUTHENTICATION, "M")[0].starts_with("DISCONNECT 82"));
    assert_eq!(connected().grant(Grant::default()), [""; 0], "nobody asked");
}
