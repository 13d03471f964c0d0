//! A connection, its driver and its client in one: feeds packets through the codec, and writes down what comes out.

use crate::codec::{DecodeOptions, Fanout, decode, encode};
use crate::packet::{
    Ack, Connect, Disconnect, Packet, PacketId, Publish, PublishProperties, Subscribe, SubscribeFilter,
    SubscribeFilters, Unsubscribe, UnsubscribeFilters, Will,
};
use crate::property::{Properties, PropertyWriter};
use crate::reason::Reason;
use crate::session::{Cx, Delivered, Delivery, Effect, Origin, Outbox, Session, Tally, Token};
use crate::wire::Wire;
use bifro_core::client::{ClientInfo, Transport, Version};
use bifro_core::ids::{InboxSeq, PublisherKey, RangeIdx, Slot, TenantIdx};
use bifro_core::message::{Message, MessageView, QoS};
use bifro_core::plugin::{Action, AuthOutcome, Authorizer, Grant, Verdict};
use bifro_core::ports::{Attached, InHand, InboxMessage, Left};
use bifro_core::settings::{Quota, QuotaLimits, TenantSettings};
use bifro_core::tenant::TenantCtx;
use bifro_core::time::Instant;
use std::borrow::ToOwned;
use std::boxed::Box;
use std::format;
use std::string::{String, ToString};
use std::sync::Arc;
use std::time::Duration;
use std::vec::Vec;

/// Permissions by exact topic or filter; everything else is allowed.
#[derive(Debug, Default)]
pub(super) struct Acl {
    pub(super) denied_publish: Vec<&'static str>,
    pub(super) denied_subscribe: Vec<&'static str>,
    pub(super) partly: Vec<&'static str>,
}

impl Authorizer for Acl {
    fn check(&self, _client: &ClientInfo, action: Action, topic: &str) -> Verdict {
        match action {
            Action::Publish if self.denied_publish.contains(&topic) => Verdict::Denied,
            Action::Subscribe if self.denied_subscribe.contains(&topic) => Verdict::Denied,
            Action::Subscribe if self.partly.contains(&topic) => Verdict::Partly,
            _ => Verdict::Allowed,
        }
    }
}

pub(super) struct Rig {
    pub(super) session: Session,
    pub(super) tenant: TenantCtx,
    pub(super) acl: Acl,
    pub(super) now: Instant,
    pub(super) congested: bool,
    pub(super) over_budget: bool,
    pub(super) shows_events: bool,
    pub(super) tally: Tally,
    pub(super) version: Version,
    /// The bytes of the last step.
    pub(super) bytes: Vec<u8>,
}

/// What one step did, line by line.
pub(super) type Lines = Vec<String>;

impl Rig {
    pub(super) fn new(version: Version) -> Self {
        Self::with(version, TenantSettings::default())
    }

    pub(super) fn with(version: Version, settings: TenantSettings) -> Self {
        let now = Instant::from_micros(1_000_000_000);
        let origin = Origin {
            listener: 7,
            transport: Transport::Tcp,
            peer: None,
            certificate: None,
            nonce: 5,
            pre_auth_packet_bytes_max: 65_536,
        };
        let quota = Arc::new(Quota::new(&QuotaLimits::default()));
        Self {
            session: Session::new(origin, now),
            tenant: TenantCtx { idx: TenantIdx(0), name: "default".into(), settings, quota },
            acl: Acl::default(),
            now,
            congested: false,
            over_budget: false,
            shows_events: false,
            tally: Tally::default(),
            version,
            bytes: Vec::new(),
        }
    }

    /// A transient session that has just been connected.
    pub(super) fn connected(version: Version, settings: TenantSettings) -> Self {
        let mut rig = Self::with(version, settings);
        rig.connect(&connect(version));
        assert!(rig.session.is_connected());
        rig
    }

    /// A persistent session that goes on with what the inbox remembers.
    pub(super) fn resumed(version: Version, settings: TenantSettings, attached: Attached) -> (Self, Lines) {
        let mut rig = Self::with(version, settings);
        let mut packet = connect(version);
        packet.clean_start = false;
        let block = props(|p| {
            p.u32(crate::property::PropertyId::SessionExpiryInterval, 100);
        });
        if version == Version::V5 {
            packet.properties = Properties::new(&block);
        }
        rig.feed(&Packet::Connect(packet));
        rig.grant(Grant::default());
        rig.identified();
        rig.registered();
        let lines = rig.attached(attached);
        (rig, lines)
    }

    /// Does one step and writes down what came out: packets first, then effects.
    pub(super) fn step<R>(&mut self, act: impl FnOnce(&mut Session, &Cx<'_>, &mut Outbox<'_>) -> R) -> (R, Lines) {
        let (mut wire, mut effects) = (Wire::default(), Vec::new());
        let cx = Cx { now: self.now, tenant: &self.tenant, authorizer: &self.acl, over_budget: self.over_budget };
        let mut out = Outbox {
            wire: &mut wire,
            effects: &mut effects,
            tally: &mut self.tally,
            congested: self.congested,
            share: 64 << 10,
        };
        let result = act(&mut self.session, &cx, &mut out);
        self.session.validate();
        self.bytes = wire.pieces().flatten().copied().collect();
        let mut lines = packets(&self.bytes, self.version);
        lines.extend(effects.iter().filter_map(|effect| line(effect, self.shows_events)));
        (result, lines)
    }

    /// The client sends `packet`. A publish that is to be routed comes first.
    pub(super) fn feed(&mut self, packet: &Packet<'_>) -> Lines {
        let mut bytes = Vec::new();
        encode(packet, self.version, &mut bytes);
        self.feed_bytes(&bytes)
    }

    pub(super) fn feed_bytes(&mut self, bytes: &[u8]) -> Lines {
        let options = self.session.decode_options();
        let (packet, len) = decode(bytes, &options).expect("well-formed").expect("complete");
        assert_eq!(len, bytes.len());
        let (request, mut lines) = self.step(|session, cx, out| session.handle_packet(cx, packet, out));
        if let Some(request) = request {
            let view = request.view(PublisherKey(1));
            let token = request.token.map_or(String::new(), |token| format!(" token={}", token.0));
            let retain = if view.retain { " retain" } else { "" };
            let expiry = view.expiry_at.map_or(String::new(), |at| format!(" expires={:?}", at.since(self.now)));
            let payload = String::from_utf8_lossy(view.payload).into_owned();
            let properties = Properties::new(view.properties);
            let properties = shown(&properties);
            lines.insert(
                0,
                format!("route {} {payload} q{}{retain}{expiry}{properties}{token}", view.topic, view.qos as u8),
            );
        }
        lines
    }

    /// The whole way from CONNECT to CONNACK for a client that nobody refuses; returns the last step.
    pub(super) fn connect(&mut self, connect: &Connect<'_>) -> Lines {
        self.feed(&Packet::Connect(*connect));
        self.grant(Grant::default());
        self.identified();
        self.registered();
        self.attached(Attached::default())
    }

    pub(super) fn grant(&mut self, grant: Grant) -> Lines {
        self.auth(AuthOutcome::Granted(Box::new(grant)))
    }

    pub(super) fn auth(&mut self, outcome: AuthOutcome) -> Lines {
        self.step(|session, cx, out| session.handle_auth(cx, outcome, out)).1
    }

    pub(super) fn identified(&mut self) -> Lines {
        self.step(|session, cx, out| session.handle_identified(cx, TenantIdx(3), PublisherKey(9), out)).1
    }

    pub(super) fn registered(&mut self) -> Lines {
        self.step(|session, cx, out| session.handle_registered(cx, out)).1
    }

    pub(super) fn attached(&mut self, attached: Attached) -> Lines {
        self.step(|session, cx, out| session.handle_attached(cx, Ok(Box::new(attached)), out)).1
    }

    pub(super) fn publish(&mut self, qos: QoS, id: u16, topic: &str, payload: &str) -> Lines {
        self.feed(&Packet::Publish(publish(qos, id, topic, payload)))
    }

    pub(super) fn published(&mut self, token: u32, result: crate::session::Published) -> Lines {
        let token = crate::session::PublishToken(token);
        self.step(|session, cx, out| session.handle_published(cx, token, result, out)).1
    }

    pub(super) fn ack(&mut self, wrap: fn(Ack<'static>) -> Packet<'static>, id: u16) -> Lines {
        self.ack_with(wrap, id, Reason::SUCCESS)
    }

    pub(super) fn ack_with(&mut self, wrap: fn(Ack<'static>) -> Packet<'static>, id: u16, reason: Reason) -> Lines {
        self.feed(&wrap(Ack { packet_id: pid(id), reason, properties: Properties::default() }))
    }

    pub(super) fn subscribe(&mut self, id: u16, filters: &[(&str, u8)]) -> Lines {
        let filters = filters.iter().map(|&(filter, qos)| sub(filter, qos));
        self.subscribe_with(id, filters.collect(), &[])
    }

    pub(super) fn subscribe_with(&mut self, id: u16, filters: Vec<SubscribeFilter<'_>>, block: &[u8]) -> Lines {
        let mut scratch = Vec::new();
        let filters = SubscribeFilters::encode(filters, &mut scratch);
        self.feed(&Packet::Subscribe(Subscribe { packet_id: pid(id), properties: Properties::new(block), filters }))
    }

    pub(super) fn unsubscribe(&mut self, id: u16, filters: &[&str]) -> Lines {
        let mut scratch = Vec::new();
        let filters = UnsubscribeFilters::encode(filters.iter().copied(), &mut scratch);
        self.feed(&Packet::Unsubscribe(Unsubscribe { packet_id: pid(id), properties: Properties::default(), filters }))
    }

    pub(super) fn subscribed(&mut self, token: u32) -> Lines {
        self.step(|session, cx, out| session.handle_subscribed(cx, Token(token), Ok(()), out)).1
    }

    pub(super) fn unsubscribed(&mut self, token: u32) -> Lines {
        self.step(|session, cx, out| session.handle_unsubscribed(cx, Token(token), out)).1
    }

    pub(super) fn disconnect(&mut self, reason: Reason, block: &[u8]) -> Lines {
        self.feed(&Packet::Disconnect(Disconnect { reason, properties: Properties::new(block) }))
    }

    pub(super) fn closed(&mut self) -> Lines {
        self.step(|session, cx, out| session.handle_closed(cx, out)).1
    }

    pub(super) fn close(&mut self, reason: Reason) -> Lines {
        self.step(|session, cx, out| session.close(cx, reason, None, out)).1
    }

    pub(super) fn deliver(&mut self, qos: QoS, topic: &str, payload: &str) -> (Delivered, Lines) {
        self.deliver_as(topic, payload, &delivery(qos))
    }

    pub(super) fn deliver_as(&mut self, topic: &str, payload: &str, delivery: &Delivery<'_>) -> (Delivered, Lines) {
        let message = message(topic, payload, delivery.qos);
        let now = self.now;
        let mut fanout = Fanout::new(message.view(), Some(message.clone()), now);
        self.step(|session, cx, out| session.deliver(cx, &mut fanout, delivery, out))
    }

    pub(super) fn inbox(&mut self, messages: Vec<InboxMessage>) -> Lines {
        self.step(|session, cx, out| session.handle_inbox(cx, messages, out)).1
    }

    pub(super) fn writable(&mut self) -> Lines {
        self.step(|session, cx, out| session.handle_writable(cx, out)).1
    }

    pub(super) fn timeout(&mut self) -> Lines {
        self.step(|session, cx, out| session.handle_timeout(cx, out)).1
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.now = self.now + by;
    }
}

pub(super) fn pid(id: u16) -> PacketId {
    PacketId::new(id).expect("not zero")
}

pub(super) fn props(write: impl FnOnce(&mut PropertyWriter<'_>)) -> Vec<u8> {
    let mut block = Vec::new();
    write(&mut PropertyWriter::new(&mut block));
    block
}

pub(super) fn connect(version: Version) -> Connect<'static> {
    Connect {
        version,
        bridge: false,
        clean_start: true,
        keep_alive: 10,
        properties: Properties::default(),
        client_id: "c",
        will: None,
        username: None,
        password: None,
    }
}

pub(super) fn will(topic: &'static str) -> Will<'static> {
    Will { topic, payload: b"bye", qos: QoS::AtLeastOnce, retain: false, properties: Properties::default() }
}

pub(super) fn publish<'a>(qos: QoS, id: u16, topic: &'a str, payload: &'a str) -> Publish<'a> {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: PacketId::new(id),
        properties: PublishProperties::default(),
        payload: payload.as_bytes(),
    }
}

/// A PUBLISH with this block of properties; the codec picks it apart when it is fed.
pub(super) fn publish_with<'a>(qos: QoS, id: u16, topic: &'a str, payload: &'a str, block: &'a [u8]) -> Packet<'a> {
    let mut publish = publish(qos, id, topic, payload);
    publish.properties.all = Properties::new(block);
    Packet::Publish(publish)
}

pub(super) fn sub(filter: &str, qos: u8) -> SubscribeFilter<'_> {
    let qos = QoS::from_bits(qos).expect("0 to 2");
    SubscribeFilter { filter, qos, no_local: false, retain_as_published: false, retain_handling: 0 }
}

pub(super) fn delivery(qos: QoS) -> Delivery<'static> {
    Delivery { qos, retain: false, subscription_ids: &[], check: false, seq: None, shared: None }
}

pub(super) fn message(topic: &str, payload: &str, qos: QoS) -> Arc<Message> {
    let view = MessageView {
        topic,
        properties: &[],
        payload: payload.as_bytes(),
        qos,
        retain: false,
        expiry_at: None,
        publisher: PublisherKey(1),
    };
    view.to_message()
}

pub(super) fn inbox_message(seq: u64, qos: QoS, payload: &str) -> InboxMessage {
    InboxMessage {
        seq: Some(InboxSeq(seq)),
        message: message("t", payload, qos),
        qos,
        retain: false,
        subscription_ids: smallvec::SmallVec::new(),
        check_delivery: false,
    }
}

/// An inbox that exists already.
pub(super) fn present() -> Attached {
    let inbox = Some((RangeIdx(1), Slot { index: 2, generation: 3 }));
    Attached { present: true, inbox, epoch: 4, ..Attached::default() }
}

fn packets(bytes: &[u8], version: Version) -> Lines {
    let options = DecodeOptions { version: Some(version), packet_bytes_max: u32::MAX };
    let (mut lines, mut rest) = (Lines::new(), bytes);
    while let Some((packet, len)) = decode(rest, &options).expect("the server writes packets") {
        lines.push(written(&packet));
        rest = &rest[len..];
    }
    assert!(rest.is_empty(), "the server writes whole packets");
    lines
}

fn shown(properties: &Properties<'_>) -> String {
    properties.iter().map(|(id, value)| format!(" {id:?}={value:?}")).collect()
}

fn written(packet: &Packet<'_>) -> String {
    let ack = |name: &str, ack: &Ack<'_>| format!("{name} {} {:02x}", ack.packet_id, ack.reason.0);
    match packet {
        Packet::ConnAck(p) => {
            let present = if p.session_present { " present" } else { "" };
            format!("CONNACK{present} {:02x}{}", p.reason.0, shown(&p.properties))
        }
        Packet::Publish(p) => {
            let id = p.packet_id.map_or(String::new(), |id| format!(" #{id}"));
            let dup = if p.dup { " dup" } else { "" };
            let retain = if p.retain { " retain" } else { "" };
            let payload = String::from_utf8_lossy(p.payload).into_owned();
            format!("PUBLISH {} {payload} q{}{id}{dup}{retain}{}", p.topic, p.qos as u8, shown(&p.properties.all))
        }
        Packet::PubAck(p) => ack("PUBACK", p),
        Packet::PubRec(p) => ack("PUBREC", p),
        Packet::PubRel(p) => ack("PUBREL", p),
        Packet::PubComp(p) => ack("PUBCOMP", p),
        Packet::SubAck(p) => format!("SUBACK {} {:02x?}", p.packet_id, p.codes),
        Packet::UnsubAck(p) => format!("UNSUBACK {} {:02x?}", p.packet_id, p.codes),
        Packet::PingResp => "PINGRESP".to_owned(),
        Packet::Disconnect(p) => format!("DISCONNECT {:02x}{}", p.reason.0, shown(&p.properties)),
        Packet::Auth(p) => format!("AUTH {:02x}{}", p.reason.0, shown(&p.properties)),
        other => format!("not a server's packet: {other:?}"),
    }
}

fn line(effect: &Effect, shows_events: bool) -> Option<String> {
    let text = match effect {
        Effect::Event(event) if shows_events => format!("event {}", event.kind.name()),
        Effect::Event(_) => return None,
        Effect::Authenticate(request) => format!("authenticate {}", request.client_id),
        Effect::Identify(identity) => format!("identify {}/{}", identity.client.tenant, identity.client.client_id),
        Effect::Register => "register".to_owned(),
        Effect::Attach(terms) => format!("attach clean={}", terms.clean_start),
        Effect::Hold { seq, packet_id } => format!("hold {} id={packet_id}", seq.0),
        Effect::Release { packet_id } => format!("release id={packet_id}"),
        Effect::Reattach(InHand { seqs, next }) => {
            format!("reattach {:?} next={}", seqs.iter().map(|seq| seq.0).collect::<Vec<_>>(), next.0)
        }
        Effect::Discard => "discard".to_owned(),
        Effect::Subscribe { token, full, filter, group, options, replaces } => {
            let group = group.as_ref().map_or(String::new(), |g| format!(" group={} ordered={}", g.name, g.ordered));
            let flags = [
                (options.no_local, " no_local"),
                (options.retain_as_published, " as_published"),
                (options.check_deliveries, " check"),
                (*replaces, " replaces"),
            ];
            let flags: String = flags.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
            let id = options.subscription_id.map_or(String::new(), |id| format!(" id={id}"));
            let of = if full == filter { String::new() } else { format!(" of {full}") };
            format!("subscribe [{}] {filter}{of} q{}{group}{flags}{id}", token.0, options.qos as u8)
        }
        Effect::Unsubscribe { token, full, .. } => format!("unsubscribe [{}] {full}", token.0),
        Effect::FindRetained { token, filter } => format!("find retained [{}] {filter}", token.0),
        Effect::PublishWill(will) => format!("will {} q{}", will.topic(), will.view().qos as u8),
        Effect::Commit(done) => format!("commit {:?}", done.iter().map(|seq| seq.0).collect::<Vec<_>>()),
        Effect::Detach { state, .. } => {
            let text = |message: &InboxMessage| String::from_utf8_lossy(message.message.payload()).into_owned();
            let in_flight: Vec<_> = (state.in_flight.iter())
                .map(|(id, released, left)| match left {
                    Left::Stored(seq) => format!("({id}, {released}, {})", seq.0),
                    Left::Unstored(message) => format!("({id}, {released}, {} q{})", text(message), message.qos as u8),
                })
                .collect();
            let waiting = state.waiting.iter().fold(String::new(), |all, message| all + " waiting=" + &text(message));
            let will =
                state.will.as_ref().map_or(String::new(), |(delay, will)| format!(" will={} {delay:?}", will.topic()));
            format!(
                "detach expiry={} qos2={:?} in_flight=[{}]{waiting}{will}",
                state.expiry_s,
                state.received_qos2,
                in_flight.join(", ")
            )
        }
        Effect::Redeliver { filter, group, message } => {
            format!("redeliver {filter} {} {}", group.name, String::from_utf8_lossy(message.payload()))
        }
        Effect::Unregister => "unregister".to_owned(),
        Effect::Reidentified(client) => format!("reidentified {}", client.user),
        Effect::Close(closed) => format!("close {closed:?}"),
    };
    Some(text.to_string())
}
