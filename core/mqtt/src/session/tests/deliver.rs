//! PUBLISH to the client: window, queue, drops, aliases.

use super::rig::{Rig, connect, delivery, inbox_message, present, props};
use crate::codec::Fanout;
use crate::packet::Packet;
use crate::property::{Properties, PropertyId as P};
use crate::reason::Reason;
use crate::session::{Delivered, Delivery};
use bifro_core::client::Version::{V5, V311};
use bifro_core::event::DropReason;
use bifro_core::message::MessageView;
use bifro_core::message::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use bifro_core::settings::TenantSettings;
use core::num::NonZeroU32;
use std::time::Duration;
use std::vec;

fn v311() -> Rig {
    Rig::connected(V311, TenantSettings::default())
}

/// A 5.0 client with these properties in its CONNECT.
fn v5(write: impl FnOnce(&mut crate::property::PropertyWriter<'_>)) -> Rig {
    let block = props(write);
    let mut packet = connect(V5);
    packet.properties = Properties::new(&block);
    let mut rig = Rig::new(V5);
    rig.connect(&packet);
    rig
}

fn window(receive_maximum: u16) -> Rig {
    v5(|p| {
        p.u16(P::ReceiveMaximum, receive_maximum);
    })
}

/// [MQTT-4.3.1-1] [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT-2.3.1-5]
#[test]
fn each_qos_goes_through_its_own_exchange() {
    let mut rig = v311();
    assert_eq!(rig.deliver(AtMostOnce, "a", "x").1, ["PUBLISH a x q0"]);
    assert_eq!(rig.bytes, [0x30, 4, 0, 1, b'a', b'x']);
    assert_eq!(rig.deliver(AtLeastOnce, "a", "x").1, ["PUBLISH a x q1 #1"]);
    assert_eq!(rig.deliver(ExactlyOnce, "a", "x").1, ["PUBLISH a x q2 #2"]);
    assert_eq!(rig.ack(Packet::PubAck, 1), [""; 0]);
    assert_eq!(rig.ack(Packet::PubRec, 2), ["PUBREL 2 00"]);
    assert_eq!(rig.bytes, [0x62, 2, 0, 2]);
    assert_eq!(rig.ack(Packet::PubRec, 2), ["PUBREL 2 00"], "PUBREL may be asked for again");
    assert_eq!(rig.ack(Packet::PubComp, 2), [""; 0]);
    assert_eq!(rig.deliver(AtLeastOnce, "a", "x").1, ["PUBLISH a x q1 #3"]);
    assert_eq!(rig.tally.publishes_sent, 4);
}

/// [MQTT5-3.3.4-9] [MQTT5-4.9.0-1] [MQTT5-4.9.0-2]
#[test]
fn a_receive_maximum_of_one_is_honoured() {
    let mut rig = window(1);
    assert!(rig.session.has_credit());
    assert_eq!(rig.deliver(ExactlyOnce, "a", "1").0, Delivered::Sent);
    assert!(!rig.session.has_credit());
    assert_eq!(rig.deliver(AtLeastOnce, "a", "2"), (Delivered::Queued, vec![]));
    assert_eq!(rig.ack(Packet::PubRec, 1), ["PUBREL 1 00"], "QoS 2 holds its place until PUBCOMP");
    assert_eq!(rig.ack(Packet::PubComp, 1), ["PUBLISH a 2 q1 #2"]);
    assert_eq!(rig.deliver(AtLeastOnce, "a", "3").0, Delivered::Queued);
    assert_eq!(rig.ack(Packet::PubAck, 2), ["PUBLISH a 3 q1 #3"]);
}

/// [MQTT5-4.4.0-2]
#[test]
fn pubrec_with_an_error_ends_the_exchange() {
    let mut rig = window(1);
    rig.deliver(ExactlyOnce, "a", "1");
    rig.deliver(ExactlyOnce, "a", "2");
    assert_eq!(rig.ack_with(Packet::PubRec, 1, Reason::QUOTA_EXCEEDED), ["PUBLISH a 2 q2 #2"]);
}

/// [MQTT-4.6.0-5] [MQTT5-4.6.0-5]
#[test]
fn nothing_overtakes_what_waits() {
    let mut rig = window(1);
    rig.deliver(AtLeastOnce, "a", "1");
    rig.deliver(AtLeastOnce, "a", "2");
    assert_eq!(rig.deliver(AtMostOnce, "a", "3").0, Delivered::Queued);
    assert_eq!(rig.ack(Packet::PubAck, 1), ["PUBLISH a 2 q1 #2", "PUBLISH a 3 q0"]);
    assert_eq!(rig.deliver(AtMostOnce, "a", "4").1, ["PUBLISH a 4 q0"]);
}

#[test]
fn acknowledgements_of_unknown_identifiers_do_no_harm_and_wrong_ones_end_a_5_0_session() {
    for mut rig in [v311(), window(5)] {
        assert_eq!(rig.ack(Packet::PubAck, 77), [""; 0]);
        assert_eq!(rig.ack(Packet::PubComp, 77), [""; 0]);
    }
    assert_eq!(v311().ack(Packet::PubRec, 77), ["PUBREL 77 00"]);
    assert_eq!(window(5).ack(Packet::PubRec, 77), ["PUBREL 77 92"]);
    let mut rig = v311();
    rig.deliver(ExactlyOnce, "a", "x");
    assert_eq!(rig.ack(Packet::PubAck, 1), [""; 0]);
    let mut rig = window(5);
    rig.deliver(ExactlyOnce, "a", "x");
    assert!(rig.ack(Packet::PubAck, 1)[0].starts_with("DISCONNECT 82"));
}

#[test]
fn a_congested_connection_drops_qos0_and_keeps_the_rest_until_it_is_writable() {
    let mut rig = v311();
    rig.congested = true;
    assert_eq!(rig.deliver(AtMostOnce, "a", "0").0, Delivered::Dropped(DropReason::ChannelError));
    assert_eq!(rig.deliver(AtLeastOnce, "a", "1").0, Delivered::Queued);
    assert_eq!(rig.writable(), [""; 0]);
    assert!(rig.session.wants_writable());
    assert!(rig.session.queued_bytes() > 0);
    rig.congested = false;
    assert_eq!(rig.writable(), ["PUBLISH a 1 q1 #1"]);
    assert!(!rig.session.wants_writable());
    assert_eq!((rig.session.queued_bytes(), rig.tally.dropped_slow), (0, 1));
}

#[test]
fn a_full_queue_drops_old_qos0_first_and_then_what_is_new() {
    let settings = TenantSettings { inbox_messages_max: 2, send_maximum: 1, ..TenantSettings::default() };
    let mut rig = Rig::connected(V311, settings.clone());
    rig.deliver(AtLeastOnce, "a", "flying");
    rig.deliver(AtLeastOnce, "a", "1");
    rig.deliver(AtMostOnce, "a", "old");
    assert_eq!(rig.deliver(AtLeastOnce, "a", "2").0, Delivered::Queued);
    assert_eq!(rig.deliver(AtLeastOnce, "a", "3").0, Delivered::Dropped(DropReason::Overflow));
    assert_eq!(rig.tally.dropped_queue_full, 2);
    assert_eq!(rig.ack(Packet::PubAck, 1), ["PUBLISH a 1 q1 #2"]);
    let mut rig = Rig::connected(V311, TenantSettings { qos0_drop_oldest: false, ..settings });
    rig.deliver(AtLeastOnce, "a", "flying");
    rig.deliver(AtLeastOnce, "a", "1");
    rig.deliver(AtMostOnce, "a", "old");
    assert_eq!(rig.deliver(AtLeastOnce, "a", "2").0, Delivered::Dropped(DropReason::Overflow));
    assert_eq!(rig.ack(Packet::PubAck, 1), ["PUBLISH a 1 q1 #2", "PUBLISH a old q0"]);
}

/// [MQTT5-3.1.2-24] [MQTT5-3.1.2-25]
#[test]
fn what_is_larger_than_the_client_accepts_is_dropped_as_if_it_had_been_sent() {
    let mut rig = v5(|p| {
        p.u32(P::MaximumPacketSize, 50);
    });
    rig.shows_events = true;
    let large = "x".repeat(60);
    let (delivered, lines) = rig.deliver(AtLeastOnce, "a", &large);
    assert_eq!(delivered, Delivered::Dropped(DropReason::Oversize));
    assert_eq!(lines, ["event oversize_packet_dropped"]);
    assert_eq!(rig.deliver(AtLeastOnce, "a", "x").1, ["PUBLISH a x q1 #1"], "no identifier was lost");
    assert_eq!(rig.tally.dropped_oversize, 1);
}

/// [MQTT5-3.3.2-5] [MQTT5-3.3.2-6]
#[test]
fn a_message_that_expires_while_it_waits_is_not_sent() {
    let mut rig = window(1);
    rig.deliver(AtLeastOnce, "a", "1");
    let view = MessageView { expiry_at: Some(rig.now + Duration::from_secs(9)), ..*message_view() };
    let owned = view.to_message();
    let now = rig.now;
    let mut fanout = Fanout::new(owned.view(), Some(owned.clone()), now);
    rig.step(|session, cx, out| session.deliver(cx, &mut fanout, &delivery(AtLeastOnce), out));
    rig.deliver(AtLeastOnce, "a", "3");
    rig.advance(Duration::from_secs(9));
    assert_eq!(rig.ack(Packet::PubAck, 1), ["PUBLISH a 3 q1 #2"]);
    assert_eq!(rig.tally.dropped_expired, 1);
}

fn message_view() -> &'static MessageView<'static> {
    const VIEW: MessageView<'static> = MessageView {
        topic: "a",
        properties: &[],
        payload: b"2",
        qos: AtLeastOnce,
        retain: false,
        expiry_at: None,
        publisher: bifro_core::ids::PublisherKey(1),
    };
    &VIEW
}

/// [MQTT5-3.3.2-13] [MQTT5-3.1.2-26]
#[test]
fn a_topic_sent_again_goes_by_alias_if_the_client_takes_aliases() {
    let mut rig = v5(|p| {
        p.u16(P::TopicAliasMaximum, 1);
    });
    assert_eq!(rig.deliver(AtMostOnce, "long/topic", "x").1, ["PUBLISH long/topic x q0"]);
    assert_eq!(rig.deliver(AtMostOnce, "long/topic", "x").1, ["PUBLISH long/topic x q0 TopicAlias=U16(1)"]);
    assert_eq!(rig.deliver(AtMostOnce, "long/topic", "x").1, ["PUBLISH  x q0 TopicAlias=U16(1)"]);
    let mut rig = window(9);
    for _ in 0..3 {
        assert_eq!(rig.deliver(AtMostOnce, "long/topic", "x").1, ["PUBLISH long/topic x q0"]);
    }
}

/// [MQTT5-3.3.4-3] [MQTT5-3.3.4-4]
#[test]
fn all_matching_subscription_ids_go_along() {
    let ids = [NonZeroU32::new(3).expect("3"), NonZeroU32::new(300).expect("300")];
    let delivery = Delivery { subscription_ids: &ids, retain: true, ..delivery(AtMostOnce) };
    let lines = window(9).deliver_as("a", "x", &delivery).1;
    assert_eq!(lines, ["PUBLISH a x q0 retain SubscriptionIdentifier=VarInt(3) SubscriptionIdentifier=VarInt(300)"]);
}

#[test]
fn a_partly_permitted_subscription_delivers_only_what_is_permitted() {
    let mut rig = v311();
    rig.acl.denied_subscribe.push("secret");
    let checked = Delivery { check: true, ..delivery(AtMostOnce) };
    assert_eq!(rig.deliver_as("open", "x", &checked).1, ["PUBLISH open x q0"]);
    assert_eq!(rig.deliver_as("secret", "x", &checked).0, Delivered::Dropped(DropReason::NoSubPermission));
    assert_eq!(rig.tally.dropped_permission, 1);
}

#[test]
fn an_inbox_hears_of_every_message_that_is_done_with() {
    let settings = TenantSettings { send_maximum: 2, ..TenantSettings::default() };
    let (mut rig, _) = Rig::resumed(V5, settings, present());
    rig.session.validate();
    let lines = rig.inbox(vec![
        inbox_message(1, AtMostOnce, "a"),
        inbox_message(2, AtMostOnce, "b"),
        inbox_message(3, AtLeastOnce, "c"),
        inbox_message(4, ExactlyOnce, "d"),
        inbox_message(5, AtLeastOnce, "e"),
    ]);
    let first = 6; // from the nonce
    assert_eq!(lines, ["PUBLISH t a q0", "PUBLISH t b q0", "PUBLISH t c q1 #6", "PUBLISH t d q2 #7", "commit [1, 2]"]);
    assert_eq!(rig.ack(Packet::PubAck, first), ["PUBLISH t e q1 #8", "commit [3]"]);
    assert_eq!(rig.ack(Packet::PubRec, first + 1), ["PUBREL 7 00"]);
    assert_eq!(rig.ack(Packet::PubComp, first + 1), ["commit [4]"]);
    rig.congested = true;
    assert_eq!(rig.inbox(vec![inbox_message(6, AtMostOnce, "f")]), [""; 0], "what was stored is not dropped");
    rig.congested = false;
    assert_eq!(rig.writable(), ["PUBLISH t f q0", "commit [6]"]);
}

/// [MQTT-4.4.0-1]
#[test]
fn a_silent_311_client_is_reminded_a_few_times() {
    let settings = TenantSettings { resend_timeout_s: 5, resend_times_max: 2, ..TenantSettings::default() };
    let mut rig = Rig::connected(V311, settings);
    let idle = rig.session.next_timeout().expect("keep alive");
    rig.deliver(AtLeastOnce, "a", "x");
    rig.deliver(ExactlyOnce, "a", "y");
    assert!(rig.session.next_timeout().expect("resend") < idle);
    rig.ack(Packet::PubRec, 2);
    rig.advance(Duration::from_secs(5));
    assert_eq!(rig.timeout(), ["PUBLISH a x q1 #1 dup", "PUBREL 2 00"]);
    rig.ack(Packet::PubComp, 2);
    rig.advance(Duration::from_secs(5));
    assert_eq!(rig.timeout(), ["PUBLISH a x q1 #1 dup"]);
    rig.advance(Duration::from_secs(5));
    assert_eq!(rig.timeout(), [""; 0], "often enough");
    assert_eq!(rig.ack(Packet::PubAck, 1), [""; 0]);
}

/// [MQTT5-4.4.0-1]
#[test]
fn a_5_0_client_is_never_sent_a_message_twice_on_one_connection() {
    let mut rig = Rig::connected(V5, TenantSettings { resend_timeout_s: 1, ..TenantSettings::default() });
    rig.deliver(AtLeastOnce, "a", "x");
    rig.advance(Duration::from_secs(5));
    assert_eq!(rig.timeout(), [""; 0]);
}

#[test]
fn a_session_that_has_ended_takes_nothing() {
    let mut rig = v311();
    rig.closed();
    assert_eq!(rig.deliver(AtMostOnce, "a", "x").0, Delivered::Dropped(DropReason::SessionClosed));
}
