//! A node of one shard: everything is done within the call, nothing is sent.

use super::*;
use bifro_core::ports::{DetachState, Dist, GroupName, Inbox, InboxOwner, PortError, Receiver, Retain, SessionDict};

struct One {
    sim: Sim,
    client: Client,
}

impl One {
    fn new() -> Self {
        Self { sim: Sim::new(1, 1), client: client("c") }
    }

    /// Calls, and returns the one thing heard of it.
    fn done(&mut self, call: impl FnOnce(&mut RangeServices, Instant, ReqId, &Client, &TenantCtx)) -> Completion {
        let (req, client) = (self.sim.req(), self.client.clone());
        self.sim.call(ShardId(0), |services, now, tenant| call(services, now, req, &client, tenant));
        assert!(self.sim.mesh.is_empty(), "there is nobody to send to");
        let mut heard = self.sim.take_heard();
        assert_eq!(heard.len(), 1, "{heard:?}");
        heard.remove(0).1
    }
}

#[test]
fn every_request_is_completed_within_its_call() {
    let mut one = One::new();
    let (here, group) = (conn(ShardId(0), 1), GroupName { name: "g".into(), ordered: true });
    let listener = Receiver::Live { shard: ShardId(0), slot: slot(1) };
    let published = message("a/b", "m", QoS::AtLeastOnce);

    let heard = one.done(|s, now, req, client, tenant| s.register(now, req, here, client, tenant));
    assert!(matches!(heard, Completion::Registered { .. }));
    let heard =
        one.done(|s, now, req, client, tenant| s.attach(now, req, here, client, tenant, AttachTerms::default()));
    let Completion::Attached { result: Ok(attached), .. } = heard else { panic!("{heard:?}") };
    let inbox = attached.inbox.expect("a place");
    let client = one.client.clone();
    let owner = InboxOwner { conn: here, client: &client, tenant: TENANT, inbox, epoch: attached.epoch };
    let heard = one.done(|s, now, req, _, _| s.subscribe(now, req, owner, "a/#", QOS1));
    assert!(matches!(heard, Completion::InboxSubscribed { result: Ok(false), .. }));
    let heard = one.done(|s, now, req, _, tenant| s.add_route(now, req, tenant, "+/b", Some(&group), listener));
    assert!(matches!(heard, Completion::RouteAdded { result: Ok(()), .. }));
    let heard = one.done(|s, now, req, _, tenant| s.request_matches(now, req, tenant.idx, "a/b"));
    let Completion::Matched { matches, .. } = heard else { panic!("{heard:?}") };
    assert_eq!((matches.inboxes.len(), matches.groups[0].members.len()), (1, 1));
    let heard = one.done(|s, now, req, _, tenant| s.request_group(now, req, tenant.idx, "+/b", &group));
    assert!(matches!(heard, Completion::Matched { matches, .. } if matches.groups.len() == 1));
    let heard = one.done(|s, now, req, client, tenant| s.set(now, req, tenant, client, &published));
    assert!(matches!(heard, Completion::RetainSet { result: Ok(()), .. }));
    let heard = one.done(|s, now, req, _, tenant| s.find(now, req, tenant, "#"));
    assert!(matches!(heard, Completion::Retained { messages, .. } if messages.len() == 1));
    let heard = one.done(|s, now, req, _, _| s.unsubscribe(now, req, owner, "a/#"));
    assert!(matches!(heard, Completion::InboxUnsubscribed { existed: true, .. }));
    let (_, places) = &matches.inboxes[0];
    let heard =
        one.done(|s, now, req, _, tenant| s.insert(now, req, tenant.idx, (RangeIdx(0), places), &published, None));
    assert!(matches!(heard, Completion::Inserted { result: Ok(()), .. }), "unsubscribed: nothing is pushed");
    let state = DetachState { expiry_s: 60, ..DetachState::default() };
    let heard = one.done(|s, now, req, _, _| s.detach(now, req, owner, state));
    assert!(matches!(heard, Completion::Detached { .. }));
    let heard = one.done(|s, now, req, _, _| s.subscribe(now, req, InboxOwner { epoch: 0, ..owner }, "x", QOS1));
    assert!(matches!(heard, Completion::InboxSubscribed { result: Err(PortError::NotOwner), .. }));
}

/// [MQTT5-3.1.2-8] [MQTT5-3.1.3-9]
#[test]
fn the_timer_publishes_wills_and_ends_sessions() {
    let mut one = One::new();
    let here = conn(ShardId(0), 1);
    let heard = one.done(|s, now, req, client, tenant| {
        s.attach(now, req, here, client, tenant, AttachTerms { clean_start: true, ..AttachTerms::default() })
    });
    let Completion::Attached { result: Ok(attached), .. } = heard else { panic!("{heard:?}") };
    let client = one.client.clone();
    let inbox = attached.inbox.expect("a place");
    let owner = InboxOwner { conn: here, client: &client, tenant: TENANT, inbox, epoch: attached.epoch };
    let will = Some((Duration::from_secs(5), message("w", "will", QoS::AtLeastOnce)));
    let state = DetachState { will, expiry_s: 10, ..DetachState::default() };
    one.done(|s, now, req, _, _| s.detach(now, req, owner, state));
    one.sim.advance(5);
    assert!(matches!(&one.sim.take_heard()[..], [(_, Completion::WillDue { will, .. })] if text(will) == "will"));
    one.sim.advance(5);
    assert!(matches!(one.sim.take_heard()[..], [(_, Completion::Event(_))]));
    one.sim.assert_nothing_used();
    assert_eq!(one.sim.shards[0].next_timeout(), None);
}

#[test]
fn a_tenant_nobody_was_told_of_is_refused_and_nothing_hangs() {
    let mut one = One::new();
    one.sim.shards[0].tenants = Tenants::default();
    let published = message("a/b", "m", QoS::AtLeastOnce);
    let here = conn(ShardId(0), 1);
    let unavailable = Err(PortError::Unavailable);
    let heard =
        one.done(|s, now, req, client, tenant| s.attach(now, req, here, client, tenant, AttachTerms::default()));
    assert!(matches!(heard, Completion::Attached { result: Err(PortError::Unavailable), .. }));
    let heard = one.done(|s, now, req, client, tenant| s.set(now, req, tenant, client, &published));
    assert!(matches!(heard, Completion::RetainSet { result, .. } if result == unavailable));
    let heard = one.done(|s, now, req, _, tenant| s.find(now, req, tenant, "#"));
    assert!(matches!(heard, Completion::Retained { messages, .. } if messages.is_empty()));
}

/// Dropped messages are told to the metrics once each.
#[test]
fn messages_dropped_by_full_inboxes_are_counted() {
    let settings = TenantSettings { inbox_messages_max: 1, ..TenantSettings::default() };
    let mut one = One { sim: Sim::with(1, 1, settings, &QuotaLimits::default()), client: client("c") };
    let here = conn(ShardId(0), 1);
    let heard =
        one.done(|s, now, req, client, tenant| s.attach(now, req, here, client, tenant, AttachTerms::default()));
    let Completion::Attached { result: Ok(attached), .. } = heard else { panic!("{heard:?}") };
    let client = one.client.clone();
    let inbox = attached.inbox.expect("a place");
    let owner = InboxOwner { conn: here, client: &client, tenant: TENANT, inbox, epoch: attached.epoch };
    one.done(|s, now, req, _, _| s.subscribe(now, req, owner, "a", QOS1));
    let places: Arc<[_]> = Arc::from([(inbox.1, 0)]);
    for payload in ["kept", "dropped", "dropped"] {
        let published = message("a", payload, QoS::AtLeastOnce);
        let req = one.sim.req();
        one.sim.call(ShardId(0), |s, now, tenant| {
            s.insert(now, req, tenant.idx, (RangeIdx(0), &places), &published, None)
        });
    }
    let metrics = &one.sim.metrics[0];
    assert_eq!((metrics.dropped_queue_full.read(), metrics.inbox_messages.read(), metrics.inboxes.read()), (2, 1, 1));
    assert!(metrics.inbox_bytes.read() > 0);
}
