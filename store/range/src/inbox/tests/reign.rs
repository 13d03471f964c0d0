//! Owners on other nodes that are lost, and the end of a reign.

use super::super::queue::{Queue, Stored};
use super::*;
use crate::limits::REATTACH_WITHIN;
use bifro_core::ports::{InHand, InboxPlaces, Left};
use core::time::Duration;

fn tenant() -> Arc<TenantCtx> {
    let quota = Arc::new(Quota::new(&QuotaLimits::default()));
    Arc::new(TenantCtx { idx: TenantIdx(0), name: "t".into(), settings: TenantSettings::default(), quota })
}

/// A table, and a client that is subscribed and has been pushed two messages.
struct Led {
    table: InboxTable,
    tenant: Arc<TenantCtx>,
    owner: OwnerRef,
}

impl Led {
    fn by(conn: ConnRef) -> Self {
        let (mut table, tenant) = (InboxTable::durable(RangeIdx(0), SEED), tenant());
        let mut effects = vec![];
        let terms = AttachTerms { clean_start: false, expiry_s: 100, will: None };
        table.attach(at(1), TO, conn, &client("c"), &tenant, terms, &mut effects);
        let Some(InboxEffect::Attached { result: Ok(attached), .. }) = effects.pop() else { panic!("{effects:?}") };
        let owner = OwnerRef { inbox: attached.inbox.expect("durable").1, epoch: attached.epoch };
        table.subscribe(TO, owner, "a/#", QOS1, &mut effects);
        table.route_added(owner.inbox, 0, Ok(()), &mut effects);
        let places: InboxPlaces = [(owner.inbox, 0)].into();
        for payload in ["1", "2"] {
            table.insert(at(2), TO, &tenant, &places, &message(payload, QoS::AtLeastOnce), None, &mut effects);
        }
        Self { table, tenant, owner }
    }

    fn run(&mut self, call: impl FnOnce(&mut Self, &mut Vec<InboxEffect>)) -> Vec<InboxEffect> {
        let mut effects = vec![];
        call(self, &mut effects);
        self.table.validate();
        effects
    }
}

fn of_node(node: u16) -> ConnRef {
    ConnRef { node: NodeIdx(node), ..conn(7) }
}

#[test]
fn a_session_whose_owner_is_lost_goes_on_as_after_a_broken_connection() {
    let mut led = Led::by(of_node(3));
    let lost = |led: &mut Led, node| {
        let effects =
            led.run(|led, effects| led.table.lose_owners(at(3), |conn| conn.node == NodeIdx(node), false, effects));
        effects.iter().map(line).collect::<Vec<_>>()
    };
    assert!(lost(&mut led, 4).is_empty(), "another node's connections are lost");
    assert_eq!(lost(&mut led, 3), ["lost 7"]);
    assert!(lost(&mut led, 3).is_empty(), "it is lost once");
    // Should the connection live after all, and say how it left: that is known by now.
    let state = DetachState { expiry_s: 0, ..DetachState::default() };
    let owner = led.owner;
    led.run(|led, effects| led.table.detach(at(4), TO, owner, &client("c"), state, effects));
    let tenant = led.tenant.clone();
    let effects = led.run(|led, effects| {
        led.table.attach(at(90), TO, of_node(4), &client("c"), &tenant, AttachTerms::default(), effects);
    });
    let Some(InboxEffect::Attached { result: Ok(attached), .. }) = effects.first() else { panic!("{effects:?}") };
    assert!(attached.present && attached.in_flight.len() == 2, "{attached:?}");
}

#[test]
fn a_session_whose_owner_is_lost_expires_by_the_terms_of_its_attach() {
    let mut led = Led::by(of_node(3));
    led.run(|led, effects| led.table.lose_owners(at(3), |_| true, false, effects));
    assert_eq!(led.table.next_timeout(), Some(at(103)));
    led.run(|led, effects| led.table.handle_timeout(at(103), effects));
    assert_eq!(led.table.totals().inboxes, 0);
}

#[test]
fn the_nodes_own_connections_are_never_lost_without_a_word() {
    let mut led = Led::by(conn(1));
    assert!(led.run(|led, effects| led.table.lose_owners(at(3), |_| true, false, effects)).is_empty());
}

#[test]
fn a_reign_that_ends_takes_its_routes_back_and_gives_the_tenants_quotas_back() {
    let Led { table, tenant, owner } = Led::by(of_node(3));
    assert!(table.has_subscription(owner.inbox, 0) && !table.has_subscription(owner.inbox, 1));
    let mut effects = vec![];
    table.retire(&mut effects);
    assert_eq!(effects.iter().map(line).collect::<Vec<_>>(), ["remove route a/#"]);
    for &resource in Resource::ALL.iter().filter(|resource| !resource.is_rate()) {
        assert_eq!(tenant.quota.used(resource), 0, "{resource:?}");
    }
}

fn push_lines(effects: &[InboxEffect]) -> Vec<String> {
    effects.iter().map(line).collect()
}

#[test]
fn a_connection_that_is_heard_of_again_goes_on_and_is_pushed_only_what_it_lacks() {
    let mut led = Led::by(of_node(3));
    assert!(led.run(|led, effects| led.table.lose_owners(at(3), |_| true, true, effects)).is_empty());
    let in_hand = InHand { seqs: vec![], next: InboxSeq(1) };
    let owner = led.owner;
    let effects = led.run(|led, effects| led.table.reattach(at(4), (of_node(3), 0), owner, &in_hand, effects));
    assert_eq!(push_lines(&effects), ["push 7 1:2"], "it is done with the first");
    assert_eq!(led.table.next_timeout(), None, "nothing expires");
    let effects = led.run(|led, effects| led.table.reattach(at(4), (of_node(3), 0), owner, &in_hand, effects));
    assert_eq!(push_lines(&effects), ["lost 7"], "whoever is not expected may have missed something");
}

#[test]
fn a_connection_that_goes_on_hears_that_it_is_the_owner_also_if_it_lacks_nothing() {
    let mut led = Led::by(of_node(3));
    let owner = led.owner;
    led.run(|led, effects| led.table.commit(at(3), owner, &[InboxSeq(0), InboxSeq(1)], effects));
    assert!(led.run(|led, effects| led.table.lose_owners(at(3), |_| true, true, effects)).is_empty());
    let in_hand = InHand { seqs: vec![], next: InboxSeq(2) };
    let effects = led.run(|led, effects| led.table.reattach(at(4), (of_node(3), 0), owner, &in_hand, effects));
    assert!(matches!(&*effects, [InboxEffect::Push { messages, .. }] if messages.is_empty()), "{effects:?}");
}

/// Found by the simulator: the client would have got it before what is being fetched [MQTT-4.6.0-6].
#[test]
fn what_waits_behind_messages_that_are_being_fetched_was_not_in_flight() {
    let mut led = Led::by(of_node(3));
    let (owner, tenant) = (led.owner, led.tenant.clone());
    let insert = |led: &mut Led, payload: &str| {
        let (places, message) = ([(owner.inbox, 0)], message(payload, QoS::AtLeastOnce));
        led.run(|led, effects| led.table.insert(at(3), TO, &tenant, &places, &message, None, effects));
    };
    let attach = |led: &mut Led| {
        let terms = AttachTerms { clean_start: false, expiry_s: 100, will: None };
        led.run(|led, effects| {
            led.table.attach(at(4), TO, of_node(3), &client("c"), &tenant, terms, effects);
        })
    };
    led.run(|led, effects| {
        led.table.commit(at(3), owner, &[InboxSeq(0), InboxSeq(1)], effects);
        led.table.lose_owners(at(3), |_| true, false, effects);
    });
    insert(&mut led, "rests");
    assert_eq!(push_lines(&attach(&mut led)), ["attached present=true", "fetch for 0.1"]);
    insert(&mut led, "waits behind it");
    led.run(|led, effects| led.table.lose_owners(at(4), |_| true, true, effects));
    let effects = attach(&mut led);
    let Some(InboxEffect::Attached { result: Ok(attached), .. }) = effects.first() else { panic!("{effects:?}") };
    assert!(attached.in_flight.is_empty(), "{:?}", attached.in_flight);
    assert_eq!(attached.next, InboxSeq(2));
}

/// [MQTT5-3.1.2-8]
#[test]
fn a_connection_that_does_not_go_on_in_time_counts_as_broken() {
    let mut led = Led::by(of_node(3));
    led.run(|led, effects| led.table.lose_owners(at(3), |_| true, true, effects));
    let until = at(3) + REATTACH_WITHIN;
    assert_eq!(led.table.next_timeout(), Some(until));
    led.run(|led, effects| led.table.handle_timeout(until, effects));
    assert_eq!(led.table.next_timeout(), Some(until + Duration::from_secs(100)), "the session expires");
    let (owner, in_hand) = (led.owner, InHand::default());
    let effects = led.run(|led, effects| led.table.reattach(until, (of_node(3), 0), owner, &in_hand, effects));
    assert_eq!(push_lines(&effects), ["lost 7"]);
}

/// [MQTT-3.1.4-2]
#[test]
fn a_connection_that_another_has_taken_over_from_is_refused() {
    let mut led = Led::by(of_node(3));
    led.run(|led, effects| led.table.lose_owners(at(3), |_| true, true, effects));
    let tenant = led.tenant.clone();
    led.run(|led, effects| {
        led.table.attach(at(4), TO, of_node(4), &client("c"), &tenant, AttachTerms::default(), effects);
    });
    let (owner, in_hand) = (led.owner, InHand::default());
    let effects = led.run(|led, effects| led.table.reattach(at(4), (of_node(3), 0), owner, &in_hand, effects));
    assert_eq!(push_lines(&effects), ["lost 7"]);
}

#[test]
fn a_connection_that_leaves_while_it_is_expected_leaves_what_it_has_in_hand() {
    let mut led = Led::by(of_node(3));
    led.run(|led, effects| led.table.lose_owners(at(3), |_| true, true, effects));
    let in_hand = InHand { seqs: vec![InboxSeq(1)], next: InboxSeq(2) };
    let in_flight = vec![(InboxSeq(1).packet_id(), false, Left::Stored(InboxSeq(1)))];
    let state = DetachState { in_hand, in_flight, expiry_s: 100, ..DetachState::default() };
    let owner = led.owner;
    led.run(|led, effects| led.table.detach(at(4), TO, owner, &client("c"), state, effects));
    assert_eq!(led.table.totals().messages, 1, "it is done with the first");
    assert_eq!(led.table.next_timeout(), Some(at(104)));
}

#[test]
fn messages_of_two_leaders_with_one_packet_identifier_are_not_both_outstanding() {
    let mut queue = Queue::default();
    let stored = Stored::Inline;
    let put = |queue: &mut Queue, seq| {
        let message = InboxMessage {
            seq: None,
            message: message("x", QoS::AtLeastOnce),
            qos: QoS::AtLeastOnce,
            retain: false,
            subscription_ids: smallvec::SmallVec::new(),
            check_delivery: false,
        };
        queue.put(InboxSeq(seq), message, smallvec::SmallVec::new(), stored);
    };
    let again = 5 * u64::from(InboxSeq::PACKET_IDS);
    for seq in [0, 1, again - 1, again] {
        put(&mut queue, seq);
    }
    let pushed = |queue: &mut Queue| {
        let mut messages = vec![];
        queue.push(at(1), 128, &mut messages, &mut vec![]);
        messages.iter().filter_map(|message| message.seq).map(|seq| seq.0).collect::<Vec<_>>()
    };
    assert_eq!(pushed(&mut queue), [0, 1, again - 1]);
    queue.remove(InboxSeq(0));
    assert_eq!(pushed(&mut queue), [again]);
}
