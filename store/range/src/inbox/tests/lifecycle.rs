//! Attach, detach, expiry, wills and fencing.

use super::*;

/// [MQTT-3.1.2-4] [MQTT5-3.1.2-6]
#[test]
fn an_attach_without_a_session_makes_one() {
    let mut inbox = Driven::new();
    assert_eq!(inbox.attach(1, &client("c"), false), ["attached present=false"]);
    assert_eq!(inbox.used(Resource::TotalPersistentSessions), 1);
    assert_eq!(inbox.table.totals().inboxes, 1);
}

/// [MQTT-3.1.2-4] [MQTT5-3.1.2-5] [MQTT5-3.2.2-3] [MQTT5-3.1.2-23]
#[test]
fn an_attach_resumes_the_session_with_everything_it_remembers() {
    let (mut inbox, c) = (Driven::new(), client("c"));
    inbox.attach(1, &c, false);
    let options = SubOptions { subscription_id: core::num::NonZeroU32::new(9), ..QOS1 };
    inbox.subscribe("a/+", options);
    inbox.detach(&c, DetachState { received_qos2: vec![3, 5], ..for_s(60) });
    inbox.now = at(59);
    assert_eq!(inbox.attach(2, &c, false), ["attached present=true"]);
    assert_eq!(inbox.attached.received_qos2, [3, 5]);
    assert_eq!(inbox.attached.subscriptions, [(Box::from("a/+"), options)]);
    assert_eq!(inbox.table.next_timeout(), None, "nothing is due while somebody is attached");
}

/// The request of a connection that has gone may come late, when its client is back on another. That one would wait for ever.
#[test]
fn a_connection_whose_session_another_takes_without_its_leave_hears_of_it() {
    let (mut inbox, c) = (Driven::new(), client("c"));
    inbox.attach(2, &c, false);
    assert_eq!(inbox.attach(1, &c, false), ["lost 2", "attached present=true"]);
    assert_eq!(inbox.attach(1, &c, false), ["attached present=true"], "the same request again");
}

/// [MQTT-3.1.2-6] [MQTT5-3.1.2-4]
#[test]
fn a_clean_start_discards_the_session_and_its_routes() {
    let (mut inbox, c) = (Driven::new(), client("c"));
    inbox.attach(1, &c, false);
    inbox.subscribe("a/b", QOS1);
    inbox.detach(&c, for_s(60));
    inbox.insert(&message("m", QoS::AtLeastOnce));
    let lines = inbox.attach(2, &c, true);
    assert_eq!(lines, ["remove route a/b", "event mqtt_session_stop", "attached present=false"]);
    assert_eq!(inbox.used(Resource::TotalPersistentSessionSpaceBytes), 0);
    assert_eq!(inbox.used(Resource::TotalPersistentSubscriptions), 0);
    assert_eq!(inbox.used(Resource::TotalPersistentSessions), 1);
}

/// [MQTT5-4.1.0-2]
#[test]
fn a_session_ends_when_its_expiry_interval_has_passed() {
    let (mut inbox, c) = (Driven::new(), client("c"));
    inbox.attach(1, &c, false);
    inbox.subscribe("$share/g/a/#", QOS1);
    inbox.detach(&c, for_s(60));
    assert_eq!(inbox.table.next_timeout(), Some(at(60)));
    assert_eq!(inbox.timeout(59), [""; 0]);
    assert_eq!(inbox.timeout(60), ["remove route a/#", "event mqtt_session_stop"]);
    inbox.assert_nothing_used();
}

/// [MQTT5-4.1.0-2]
#[test]
fn an_expired_session_is_not_resumed_even_if_the_timer_is_late() {
    let (mut inbox, c) = (Driven::new(), client("c"));
    inbox.attach(1, &c, false);
    inbox.detach(&c, for_s(60));
    inbox.now = at(61);
    assert_eq!(inbox.attach(2, &c, false), ["event mqtt_session_stop", "attached present=false"]);
}

#[test]
fn a_session_that_never_expires_has_no_deadline() {
    let (mut inbox, c) = (Driven::new(), client("c"));
    inbox.attach(1, &c, false);
    inbox.detach(&c, for_s(u32::MAX));
    assert_eq!(inbox.table.next_timeout(), None);
}

#[test]
fn an_expiry_of_zero_ends_the_session_at_once_and_discard_ends_it_at_any_time() {
    let (mut inbox, c) = (Driven::new(), client("c"));
    inbox.attach(1, &c, false);
    assert_eq!(inbox.detach(&c, for_s(0)), ["event mqtt_session_stop", "detached"]);
    inbox.assert_nothing_used();
    inbox.attach(2, &c, false);
    inbox.detach(&c, for_s(9));
    let lines = inbox.run(|this, effects| this.table.discard(this.now, TO, TenantIdx(0), &c, effects));
    assert_eq!(lines, ["event mqtt_session_stop", "detached"]);
    inbox.assert_nothing_used();
    assert_eq!(inbox.table.next_timeout(), None);
}

/// [MQTT5-3.1.2-8]
#[test]
fn a_will_is_published_when_its_delay_has_passed_for_the_client_that_left_it() {
    let mut inbox = Driven::new();
    let ann = by_user("ann");
    inbox.attach(1, &ann, false);
    inbox.detach(&ann, with_will(10, 60));
    assert_eq!(inbox.timeout(10), ["will of ann: will"]);
    assert_eq!(inbox.table.next_timeout(), Some(at(60)), "the session goes on");
}

/// [MQTT5-3.1.2-8]
#[test]
fn a_will_is_published_when_the_session_ends_before_its_delay() {
    let (mut inbox, ann) = (Driven::new(), by_user("ann"));
    inbox.attach(1, &ann, false);
    inbox.detach(&ann, with_will(100, 60));
    assert_eq!(inbox.timeout(60), ["will of ann: will", "event mqtt_session_stop"]);
    inbox.attach(1, &ann, false);
    assert_eq!(inbox.detach(&ann, with_will(100, 0)), ["will of ann: will", "event mqtt_session_stop", "detached"]);
}

/// [MQTT5-3.1.3-9]
#[test]
fn a_new_connection_in_time_cancels_the_will() {
    let (mut inbox, c) = (Driven::new(), client("c"));
    inbox.attach(1, &c, false);
    inbox.detach(&c, with_will(10, 60));
    inbox.now = at(9);
    assert_eq!(inbox.attach(2, &c, false), ["attached present=true"]);
    assert_eq!(inbox.timeout(100), [""; 0]);
}

/// The session ends with Clean Start, so its will is due although its delay is not over [MQTT5-3.1.2-8] [MQTT5-3.1.2-4].
#[test]
fn a_clean_start_publishes_the_will_of_the_session_it_ends() {
    let mut inbox = Driven::new();
    inbox.attach(1, &by_user("ann"), false);
    inbox.detach(&by_user("ann"), with_will(10, 60));
    let lines = inbox.attach(2, &by_user("bob"), true);
    assert_eq!(lines, ["will of ann: will", "event mqtt_session_stop", "attached present=false"]);
}

#[test]
fn an_owner_of_an_older_epoch_changes_nothing() {
    let (mut inbox, c) = (Driven::new(), client("c"));
    inbox.attach(1, &c, false);
    inbox.subscribe("a/b", QOS1);
    let old = inbox.owner();
    inbox.insert(&message("m", QoS::AtLeastOnce));
    assert_eq!(inbox.attach(2, &c, false), ["lost 1", "attached present=true", "push 2 0:m"]);
    let lines = inbox.run(|this, effects| {
        this.table.commit(this.now, old, &[InboxSeq(0)], effects);
        this.table.subscribe(TO, old, "x", QOS1, effects);
        this.table.unsubscribe(TO, old, "a/b", effects);
        this.table.detach(this.now, TO, old, &c, with_will(0, 0), effects);
    });
    assert_eq!(lines, ["subscribed Err(NotOwner)", "unsubscribed false", "detached"]);
    assert_eq!(inbox.table.totals().messages, 1, "the new owner still has the message to commit");
    assert_eq!(inbox.commit(&[0]), [""; 0]);
    assert_eq!(inbox.table.totals().messages, 0);
}

/// [MQTT5-3.1.2-8]
#[test]
fn the_will_of_a_connection_whose_session_was_discarded_under_it_is_published() {
    let (mut inbox, ann) = (Driven::new(), by_user("ann"));
    inbox.attach(1, &ann, false);
    let old = inbox.owner();
    inbox.attach(2, &by_user("bob"), true);
    let lines = inbox.run(|this, effects| this.table.detach(this.now, TO, old, &ann, with_will(9, 9), effects));
    assert_eq!(lines, ["will of ann: will", "detached"]);
}

#[test]
fn sessions_beyond_the_quota_are_refused_until_one_ends() {
    let limits = QuotaLimits { total_persistent_sessions: 1, ..QuotaLimits::default() };
    let mut inbox = Driven::with(TenantSettings::default(), &limits);
    inbox.attach(1, &client("one"), false);
    assert_eq!(
        inbox.attach(2, &client("two"), false),
        ["event out_of_tenant_resource", "attach refused QuotaExceeded"]
    );
    assert_eq!(inbox.attach(3, &client("one"), true)[1], "attached present=false", "its own place is free again");
    inbox.detach(&client("one"), for_s(0));
    assert_eq!(inbox.attach(2, &client("two"), false), ["attached present=false"]);
}

#[test]
fn many_sessions_that_expire_together_end_in_bounded_portions() {
    let mut inbox = Driven::new();
    let all = crate::limits::SESSIONS_EXPIRED_PER_CALL_MAX + 1;
    for index in 0..all {
        let c = client(&format!("c{index}"));
        inbox.attach(1, &c, false);
        inbox.detach(&c, for_s(1));
    }
    assert_eq!(inbox.timeout(1).len(), all - 1);
    assert_eq!(inbox.table.next_timeout(), Some(at(1)), "the rest is due at once");
    assert_eq!(inbox.timeout(1).len(), 1);
    inbox.assert_nothing_used();
}
