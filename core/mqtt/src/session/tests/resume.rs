//! What one connection leaves behind, and the next one goes on with.

use super::rig::{Rig, inbox_message, pid, present};
use crate::packet::Packet;
use crate::session::{PublishToken, Published};
use bifro_core::client::Version::{V5, V311};
use bifro_core::message::QoS::{self, AtLeastOnce, ExactlyOnce};
use bifro_core::ports::{Attached, InFlight};
use bifro_core::settings::TenantSettings;
use std::vec;

fn in_flight(id: u16, released: bool, seq: u64, qos: QoS) -> InFlight {
    InFlight { packet_id: pid(id), released, message: inbox_message(seq, qos, "x") }
}

/// [MQTT-4.4.0-1] [MQTT5-4.4.0-1] [MQTT-3.3.1-1] [MQTT-4.6.0-1]
#[test]
fn what_was_in_flight_is_sent_again_in_order_right_after_connack() {
    let in_flight = vec![
        in_flight(11, false, 1, AtLeastOnce),
        in_flight(12, true, 2, ExactlyOnce),
        in_flight(13, false, 3, ExactlyOnce),
    ];
    let (mut rig, lines) = Rig::resumed(V311, TenantSettings::default(), Attached { in_flight, ..present() });
    assert_eq!(lines, ["CONNACK present 00", "PUBREL 12 00", "PUBLISH t x q1 #11 dup", "PUBLISH t x q2 #13 dup"]);
    assert_eq!(rig.ack(Packet::PubComp, 12), ["commit [2]"]);
    assert_eq!(rig.ack(Packet::PubAck, 11), ["commit [1]"]);
    assert_eq!(rig.ack(Packet::PubRec, 13), ["PUBREL 13 00"]);
    let detach =
        std::format!("detach expiry={} qos2=[] in_flight=[(13, true, 3)]", rig.tenant.settings.session_expiry_max_s);
    assert_eq!(rig.closed()[0], detach);
}

/// [MQTT5-3.3.4-9]
#[test]
fn a_smaller_window_lets_resumed_messages_wait_without_losing_their_identifiers() {
    let flying = (1..=3).map(|n| in_flight(n, false, n.into(), AtLeastOnce)).collect();
    let settings = TenantSettings { send_maximum: 1, ..TenantSettings::default() };
    let (mut rig, lines) = Rig::resumed(V5, settings.clone(), Attached { in_flight: flying, ..present() });
    assert_eq!(lines[1..], ["PUBLISH t x q1 #1 dup"]);
    rig.inbox(vec![inbox_message(4, AtLeastOnce, "new")]);
    assert_eq!(rig.ack(Packet::PubAck, 1), ["PUBLISH t x q1 #2 dup", "commit [1]"]);
    assert_eq!(rig.closed()[0], "detach expiry=100 qos2=[] in_flight=[(2, false, 2), (3, false, 3)]");
}

/// [MQTT-4.3.3-2] [MQTT5-4.3.3-10]
#[test]
fn a_qos2_publish_received_by_an_earlier_connection_is_not_routed_again() {
    let attached = || Attached { received_qos2: vec![5, 6], ..present() };
    let (mut rig, _) = Rig::resumed(V311, TenantSettings::default(), attached());
    assert_eq!(rig.publish(ExactlyOnce, 5, "a", "x"), ["PUBREC 5 00"]);
    assert_eq!(rig.ack(Packet::PubRel, 5), ["PUBCOMP 5 00"]);
    assert!(rig.closed()[0].contains("qos2=[6]"));
    let (mut rig, _) = Rig::resumed(V311, TenantSettings::default(), attached());
    assert_eq!(rig.publish(ExactlyOnce, 7, "a", "x"), ["route a x q2 token=0"]);
    assert_eq!(rig.publish(ExactlyOnce, 8, "a", "x"), ["route a x q2 token=1"]);
    rig.published(0, Published::Done { matched: true });
    assert!(rig.closed()[0].contains("qos2=[5, 6, 7]"), "8 is not taken over: the client sends it again");
}

/// [MQTT-4.4.0-1] [MQTT5-4.4.0-1]: what was not answered comes first. rumqttc 0.25 does not set DUP.
#[test]
fn the_first_qos2_publishes_of_a_session_that_goes_on_may_be_repetitions_whether_or_not_they_say_so() {
    let settings = || TenantSettings { receive_maximum: 2, ..TenantSettings::default() };
    for (attached, may_be) in [(present(), [true, true, false]), (Attached { present: false, ..present() }, [false; 3])]
    {
        let (mut rig, _) = Rig::resumed(V311, settings(), attached);
        for (token, is_repetition) in (0..).zip(may_be) {
            rig.publish(ExactlyOnce, 7, "a", "x");
            assert_eq!(rig.session.qos2_publish(PublishToken(token)), Some((pid(7), is_repetition)), "{token}");
            rig.published(token, Published::Done { matched: true });
            rig.ack(Packet::PubRel, 7);
        }
    }
}

/// HOSTILE 9.
#[test]
fn a_message_queued_before_its_permission_was_revoked_is_dropped() {
    let (mut rig, _) = Rig::resumed(V5, TenantSettings::default(), present());
    rig.acl.denied_subscribe.push("t");
    assert_eq!(rig.inbox(vec![inbox_message(1, AtLeastOnce, "a")]), ["commit [1]"]);
    assert_eq!(rig.tally.dropped_permission, 1);
}

#[test]
fn a_message_that_was_never_sent_stays_in_the_inbox() {
    let (mut rig, _) = Rig::resumed(V5, TenantSettings { send_maximum: 1, ..TenantSettings::default() }, present());
    rig.inbox(vec![inbox_message(1, AtLeastOnce, "a"), inbox_message(2, AtLeastOnce, "b")]);
    assert_eq!(rig.closed()[0], "detach expiry=100 qos2=[] in_flight=[(6, false, 1)]");
}
