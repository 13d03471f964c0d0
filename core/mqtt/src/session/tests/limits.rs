//! What a session costs.

use super::rig::Rig;
use crate::session::Session;
use bifro_core::client::Version::V311;
use bifro_core::message::QoS::{AtLeastOnce, AtMostOnce};
use bifro_core::settings::TenantSettings;

#[test]
fn an_idle_session_is_small() {
    assert!(size_of::<Session>() <= 200, "{} bytes", size_of::<Session>());
    let rig = Rig::connected(V311, TenantSettings::default());
    assert_eq!(rig.session.memory_bytes(), size_of::<Session>(), "nothing is kept of CONNECT");
}

#[test]
fn a_subscriber_of_qos0_allocates_nothing_per_message() {
    let mut rig = Rig::connected(V311, TenantSettings::default());
    rig.subscribe(1, &[("a", 0)]);
    rig.subscribed(0);
    rig.step(|session, cx, out| session.handle_retained(cx, crate::session::Token(1), std::vec![], out));
    let before = rig.session.memory_bytes();
    for _ in 0..100 {
        rig.deliver(AtMostOnce, "a", "x");
    }
    assert_eq!(rig.session.memory_bytes(), before);
    assert!(before < size_of::<Session>() + 100, "{before} bytes with one subscription");
}

#[test]
fn memory_is_counted_as_it_grows() {
    let mut rig = Rig::connected(V311, TenantSettings::default());
    let before = rig.session.memory_bytes();
    rig.publish(AtLeastOnce, 1, "a", "x");
    rig.deliver(AtLeastOnce, "a", "x");
    assert!(rig.session.memory_bytes() > before);
}
