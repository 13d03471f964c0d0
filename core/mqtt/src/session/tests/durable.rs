//! QoS 2 with an inbox that outlives the process: it is told of each step before the client is.

use super::rig::{Rig, delivery, inbox_message, pid, present};
use crate::packet::Packet;
use crate::reason::Reason;
use crate::session::PublishToken;
use bifro_core::client::Version::{V5, V311};
use bifro_core::ids::InboxSeq;
use bifro_core::message::QoS::{AtLeastOnce, ExactlyOnce};
use bifro_core::ports::Attached;
use bifro_core::settings::TenantSettings;
use std::vec;

fn durable() -> Attached {
    Attached { durable: true, ..present() }
}

fn resumed(attached: Attached) -> Rig {
    Rig::resumed(V311, TenantSettings::default(), attached).0
}

/// [MQTT-4.3.3-1] [MQTT5-4.3.3-4]
#[test]
fn pubrel_waits_until_the_inbox_has_noted_pubrec() {
    let mut rig = resumed(durable());
    assert_eq!(rig.inbox(vec![inbox_message(6, ExactlyOnce, "x")]), ["PUBLISH t x q2 #7"]);
    assert_eq!(rig.ack(Packet::PubRec, 7), ["hold 6 id=7"]);
    assert!(rig.ack(Packet::PubRec, 7).is_empty(), "it is being noted");
    let (_, lines) = rig.step(|session, cx, out| session.handle_held(cx, pid(7), out));
    assert_eq!(lines, ["PUBREL 7 00"]);
    assert_eq!(rig.ack(Packet::PubRec, 7), ["PUBREL 7 00"], "the client has not seen it");
    assert_eq!(rig.ack(Packet::PubComp, 7), ["commit [6]"]);
    let (_, lines) = rig.step(|session, cx, out| session.handle_held(cx, pid(7), out));
    assert!(lines.is_empty(), "nothing is in flight any more");
}

/// [MQTT5-4.4.0-2]
#[test]
fn a_message_the_client_refuses_is_done_with_at_once() {
    let mut rig = Rig::resumed(V5, TenantSettings::default(), durable()).0;
    rig.inbox(vec![inbox_message(6, ExactlyOnce, "x")]);
    assert_eq!(rig.ack_with(Packet::PubRec, 7, Reason::QUOTA_EXCEEDED), ["commit [6]"]);
}

#[test]
fn a_connection_that_goes_while_pubrec_is_being_noted_leaves_the_rest_to_the_inbox() {
    let mut rig = resumed(durable());
    rig.inbox(vec![inbox_message(6, ExactlyOnce, "x")]);
    rig.ack(Packet::PubRec, 7);
    assert!(rig.closed()[0].ends_with("in_flight=[(7, false, 6)]"));
}

/// [MQTT-4.3.3-2] [MQTT5-4.3.3-11]
#[test]
fn pubcomp_waits_until_the_inbox_has_forgotten_the_identifier() {
    let mut rig = resumed(Attached { received_qos2: vec![5], ..durable() });
    assert_eq!(rig.ack(Packet::PubRel, 5), ["release id=5"]);
    assert!(rig.ack(Packet::PubRel, 5).is_empty(), "it is under way");
    assert_eq!(rig.publish(ExactlyOnce, 5, "a", "x"), ["PUBREC 5 00"], "in use until then");
    let (_, lines) = rig.step(|session, _, out| session.handle_released(pid(5), out));
    assert_eq!(lines, ["PUBCOMP 5 00"]);
    assert_eq!(rig.publish(ExactlyOnce, 5, "a", "y"), ["route a y q2 token=1"], "free for the next");
    assert_eq!(rig.ack(Packet::PubRel, 9), ["PUBCOMP 9 00"], "nothing to forget");
}

#[test]
fn the_driver_learns_the_identifier_of_a_qos2_publish_that_is_being_routed() {
    let mut rig = resumed(durable());
    rig.publish(AtLeastOnce, 3, "a", "x");
    rig.publish(ExactlyOnce, 4, "a", "x");
    let id = |token| rig.session.qos2_publish(PublishToken(token)).map(|(id, _)| id);
    assert_eq!((id(0), id(1), id(2)), (None, Some(pid(4)), None));
}

/// [MQTT-2.3.1-4] [MQTT5-2.2.1-4]
#[test]
fn messages_of_the_inbox_have_identifiers_of_their_place_and_others_those_above() {
    let mut rig = resumed(durable());
    let first_free = InboxSeq::PACKET_IDS + 1;
    let last = u64::from(InboxSeq::PACKET_IDS) - 1;
    let messages = vec![inbox_message(last, AtLeastOnce, "a"), inbox_message(last + 1, AtLeastOnce, "b")];
    assert_eq!(rig.inbox(messages), ["PUBLISH t a q1 #32767", "PUBLISH t b q1 #1"]);
    for id in [first_free, first_free + 1] {
        let (_, lines) = rig.deliver_as("r", "retained", &delivery(AtLeastOnce));
        assert_eq!(lines, [std::format!("PUBLISH r retained q1 #{id}")]);
    }
}

#[test]
fn a_session_that_goes_on_under_another_leader_says_what_it_has_in_hand() {
    let mut rig = resumed(durable());
    let moved = |rig: &mut Rig| rig.step(|session, _, out| session.handle_inbox_moved(out)).1;
    assert_eq!(moved(&mut rig), ["reattach [] next=0"]);
    rig.inbox(vec![
        inbox_message(6, AtLeastOnce, "a"),
        inbox_message(7, ExactlyOnce, "b"),
        inbox_message(9, AtLeastOnce, "c"),
    ]);
    rig.ack(Packet::PubAck, 7);
    rig.ack(Packet::PubRec, 8);
    assert_eq!(moved(&mut rig), ["reattach [7, 9] next=10"], "the first is done, the second being noted");
    rig.closed();
    assert!(moved(&mut rig).is_empty(), "a session that has ended goes on with nothing");
}
