//! The model driver, its client, and what must hold between them and the session.

use bifro_core::client::{ClientInfo, Transport, Version};
use bifro_core::ids::{InboxSeq, PublisherKey, RangeIdx, Slot, TenantIdx};
use bifro_core::message::{Message, MessageView, QoS};
use bifro_core::plugin::{Action, AuthOutcome, Authorizer, Grant, Refusal, Verdict};
use bifro_core::ports::{Attached, GroupName, InFlight, InboxMessage, PortError, RetainedMessage};
use bifro_core::rng::Prng;
use bifro_core::settings::{Quota, QuotaLimits, Resource, TenantSettings};
use bifro_core::tenant::TenantCtx;
use bifro_core::time::Instant;
use bifro_mqtt::codec::{DecodeOptions, Fanout, decode};
use bifro_mqtt::packet::{
    Ack, Auth, Connect, Disconnect, Packet, PacketId, Publish, PublishProperties, Subscribe, SubscribeFilter,
    SubscribeFilters, Unsubscribe, UnsubscribeFilters, Will,
};
use bifro_mqtt::property::{Properties, PropertyId, PropertyWriter};
use bifro_mqtt::reason::Reason;
use bifro_mqtt::session::{Cx, Delivery, Effect, Origin, Outbox, PublishToken, Published, Session, Tally, Token};
use bifro_mqtt::wire::Wire;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

const FILTERS: &[&str] = &["a", "a/b", "#", "+/b", "$share/g/a", "$oshare/g/#", "bad#", "no", "$share//x"];
const TOPICS: &[&str] = &["a", "a/b", "no", "long/topic/one", "long/topic/two", "x/+"];

/// Denies the topic `no`; `#` is covered partly. Turned around by a reload.
#[derive(Debug)]
struct Fickle {
    strict: bool,
}

impl Authorizer for Fickle {
    fn check(&self, _client: &ClientInfo, action: Action, topic: &str) -> Verdict {
        match (action, topic) {
            (_, "no") => Verdict::Denied,
            (Action::Subscribe, "#") => Verdict::Partly,
            (_, "a/b") if self.strict => Verdict::Denied,
            _ => Verdict::Allowed,
        }
    }
}

/// What the driver still owes the session.
#[derive(Debug)]
enum Owed {
    Auth,
    Identified,
    Registered,
    Attached { persistent: bool },
    Held(PacketId),
    Released(PacketId),
    Subscribed(Token),
    Unsubscribed(Token),
    Retained(Token),
    Published(PublishToken),
}

struct Model {
    random: Prng,
    session: Session,
    tenant: TenantCtx,
    authorizer: Fickle,
    now: Instant,
    version: Version,
    /// The client's Receive Maximum.
    window: usize,
    owed: VecDeque<Owed>,
    /// QoS 1 and 2 PUBLISHes the client has not finished: what it sends next about each.
    received: BTreeMap<u16, QoS>,
    released: BTreeSet<u16>,
    /// Identifiers an earlier connection used, not seen again yet.
    resumes: BTreeSet<u16>,
    /// Identifiers of publishes to be acknowledged, in order.
    unacknowledged: VecDeque<(u16, QoS)>,
    next_seq: u64,
    persistent: bool,
    closes: u32,
    registers: i32,
    trace: Vec<String>,
}

/// One session from CONNECT to its end; what it did, step by step.
pub(crate) fn conversation(seed: u64) -> Vec<String> {
    let mut model = Model::new(seed);
    model.connect();
    for _ in 0..200 {
        model.event();
        if model.closes > 0 {
            break;
        }
    }
    model.finish();
    model.trace
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = Prng::new(seed);
        let version = [Version::V31, Version::V311, Version::V5][random.below(3) as usize];
        let now = Instant::from_micros(1_000_000_000);
        let origin = Origin {
            listener: 1,
            transport: Transport::Tcp,
            peer: None,
            certificate: None,
            nonce: u128::from(random.next_u64()),
            pre_auth_packet_bytes_max: 65_536,
        };
        let settings = TenantSettings {
            receive_maximum: 1 + random.below(4) as u16,
            send_maximum: 1 + random.below(5) as u16,
            inbox_messages_max: 1 + random.below(6) as u32,
            qos0_drop_oldest: random.below(2) == 0,
            maximum_qos: 2 - (random.below(8) == 0) as u8,
            resend_timeout_s: random.below(2) as u32 * 3,
            topic_alias_max: random.below(3) as u16,
            force_transient: random.below(5) == 0,
            publish_rate_max: if random.below(10) == 0 { 5 } else { 0 },
            ..TenantSettings::default()
        };
        let limits = QuotaLimits { total_transient_subscriptions: random.below(6), ..QuotaLimits::default() };
        Self {
            session: Session::new(origin, now),
            tenant: TenantCtx {
                idx: TenantIdx(0),
                name: "default".into(),
                settings,
                quota: Arc::new(Quota::new(&limits)),
            },
            random,
            authorizer: Fickle { strict: false },
            now,
            version,
            window: usize::from(u16::MAX),
            owed: VecDeque::new(),
            received: BTreeMap::new(),
            released: BTreeSet::new(),
            resumes: BTreeSet::new(),
            unacknowledged: VecDeque::new(),
            next_seq: 100,
            persistent: false,
            closes: 0,
            registers: 0,
            trace: Vec::new(),
        }
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.random.below(one_in) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.random.below(from.len() as u64) as usize]
    }

    fn qos(&mut self) -> QoS {
        self.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
    }

    /// One call of the machine, with everything that must hold after it.
    fn step<R>(&mut self, act: impl FnOnce(&mut Session, &Cx<'_>, &mut Outbox<'_>) -> R) -> R {
        let (mut wire, mut effects, mut tally) = (Wire::default(), Vec::new(), Tally::default());
        let congested = self.random.below(6) == 0;
        let cx = Cx { now: self.now, tenant: &self.tenant, authorizer: &self.authorizer, over_budget: false };
        let mut out = Outbox { wire: &mut wire, effects: &mut effects, tally: &mut tally, congested, share: 4096 };
        let was_closed = self.session.is_closed();
        let result = act(&mut self.session, &cx, &mut out);
        self.session.validate();
        let bytes: Vec<u8> = wire.pieces().flatten().copied().collect();
        assert!(!was_closed || (bytes.is_empty() && effects.is_empty()), "a dead session is silent");
        self.trace.push(format!("{} bytes, {effects:?}", bytes.len()));
        self.hear(&bytes);
        for effect in effects {
            self.carry_out(effect);
        }
        result
    }

    fn carry_out(&mut self, effect: Effect) {
        assert_eq!(self.closes, 0, "nothing follows Close: {effect:?}");
        match effect {
            Effect::Authenticate(_) => self.owed.push_back(Owed::Auth),
            Effect::Identify(_) => self.owed.push_back(Owed::Identified),
            Effect::Register => {
                self.registers += 1;
                self.owed.push_back(Owed::Registered);
            }
            Effect::Attach { .. } => self.owed.push_back(Owed::Attached { persistent: true }),
            Effect::Discard => self.owed.push_back(Owed::Attached { persistent: false }),
            Effect::Subscribe { token, .. } => self.owed.push_back(Owed::Subscribed(token)),
            Effect::Hold { packet_id, .. } => self.owed.push_back(Owed::Held(packet_id)),
            Effect::Release { packet_id } => self.owed.push_back(Owed::Released(packet_id)),
            Effect::Unsubscribe { token, .. } => self.owed.push_back(Owed::Unsubscribed(token)),
            Effect::FindRetained { token, .. } => self.owed.push_back(Owed::Retained(token)),
            Effect::Unregister => self.registers -= 1,
            Effect::Detach { state, .. } => {
                assert!(self.persistent && self.registers == 1, "an inbox is left before the client id is given up");
                assert!(state.in_flight.len() <= 64);
            }
            Effect::Commit(done) => assert!(self.persistent && !done.is_empty()),
            Effect::Reattach(_) => assert!(self.persistent),
            Effect::Redeliver { .. } => assert!(!self.persistent),
            Effect::Close(_) => self.closes += 1,
            Effect::PublishWill(_) | Effect::Reidentified(_) | Effect::Event(_) => {}
        }
    }

    /// The client reads what it was sent.
    fn hear(&mut self, bytes: &[u8]) {
        let options = DecodeOptions { version: Some(self.version), packet_bytes_max: u32::MAX };
        let mut rest = bytes;
        while let Some((packet, len)) = decode(rest, &options).expect("the server writes packets") {
            rest = &rest[len..];
            match packet {
                Packet::Publish(Publish { qos, packet_id: Some(id), dup, .. }) => {
                    let before = self.received.insert(id.get(), qos);
                    let resumed = self.resumes.remove(&id.get());
                    self.released.remove(&id.get());
                    assert_eq!(dup, resumed || before.is_some(), "DUP tells a repetition from a new message");
                    // Only MQTT 5 has a Maximum Packet Size, by which one of them may be lost.
                    let all_resumed = self.resumes.is_empty() || self.version == Version::V5;
                    assert!(dup || all_resumed, "what was in flight comes before what is new");
                    assert!(dup || before.is_none(), "identifier {id} is given out twice");
                    assert!(self.received.len() <= self.window, "Receive Maximum {} is exceeded", self.window);
                }
                Packet::PubRel(ack) => drop(self.released.insert(ack.packet_id.get())),
                Packet::PubAck(ack) => self.acknowledged(ack.packet_id.get(), QoS::AtLeastOnce),
                Packet::PubRec(ack) => self.acknowledged(ack.packet_id.get(), QoS::ExactlyOnce),
                _ => {}
            }
        }
        assert!(rest.is_empty(), "the server writes whole packets");
    }

    /// Identifiers may have been dropped in between (3.x failures) or repeated, but never change places.
    fn acknowledged(&mut self, id: u16, qos: QoS) {
        let at = self.unacknowledged.iter().position(|&entry| entry == (id, qos));
        let at = at.expect("an acknowledgement belongs to a publish, in order");
        self.unacknowledged.drain(..=at);
    }

    fn feed(&mut self, packet: &Packet<'_>) {
        if !self.session.wants_packets() {
            return;
        }
        let mut bytes = Vec::new();
        bifro_mqtt::codec::encode(packet, self.version, &mut bytes);
        let options = self.session.decode_options();
        if let Packet::Publish(Publish { qos, packet_id: Some(id), .. }) = packet {
            self.unacknowledged.push_back((id.get(), *qos));
        }
        let token = match decode(&bytes, &options) {
            Ok(Some((packet, _))) => {
                let owed: Option<PublishToken> = self.step(|session, cx, out| {
                    let request = session.handle_packet(cx, packet, out);
                    request.and_then(|request| {
                        assert!(!request.topic.as_str().is_empty());
                        request.token
                    })
                });
                owed
            }
            Ok(None) => unreachable!("whole packets are fed"),
            Err(error) => {
                self.step(|session, cx, out| session.handle_malformed(cx, error, out));
                None
            }
        };
        self.owed.extend(token.map(Owed::Published));
    }

    fn connect(&mut self) {
        let window = 1 + self.random.below(4) as u16;
        let mut block = Vec::new();
        let mut properties = PropertyWriter::new(&mut block);
        properties.u16(PropertyId::ReceiveMaximum, window);
        properties.u32(PropertyId::SessionExpiryInterval, self.random.below(2) as u32 * 60);
        properties.u16(PropertyId::TopicAliasMaximum, self.random.below(3) as u16);
        properties.u32(PropertyId::MaximumPacketSize, 60 + self.random.below(3) as u32 * 1_000);
        if self.random.below(2) == 0 {
            properties.str(PropertyId::AuthenticationMethod, "M");
        }
        let is_v5 = self.version == Version::V5;
        if is_v5 {
            self.window = usize::from(window);
        }
        let will = Will {
            topic: self.pick(&["w", "no"]),
            payload: b"bye",
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Properties::default(),
        };
        let connect = Connect {
            version: self.version,
            bridge: self.chance(8) && !is_v5,
            clean_start: self.chance(2),
            keep_alive: self.random.below(20) as u16,
            properties: if is_v5 { Properties::new(&block) } else { Properties::default() },
            client_id: if self.chance(10) { "" } else { "client" },
            will: self.chance(2).then_some(will),
            username: None,
            password: None,
        };
        self.feed(&Packet::Connect(connect));
    }

    fn event(&mut self) {
        match self.random.below(20) {
            0..=5 => self.answer(),
            6..=8 => self.client_publishes(),
            9..=11 => self.client_acknowledges(),
            12..=14 => self.server_delivers(),
            15 => self.client_subscribes(),
            16 => self.client_says_something_else(),
            17 => self.time_passes(),
            18 => self.step(|session, cx, out| session.handle_writable(cx, out)),
            _ => self.rare(),
        }
    }

    /// The driver answers one of the things it owes, mostly the oldest.
    fn answer(&mut self) {
        if self.owed.is_empty() {
            return;
        }
        let at = if self.chance(3) { self.random.below(self.owed.len() as u64) as usize } else { 0 };
        let owed = self.owed.remove(at).expect("within bounds");
        let error = self.pick(&[PortError::QuotaExceeded, PortError::Unavailable, PortError::NotOwner]);
        let fails = self.chance(8);
        let result = if fails { Err(error) } else { Ok(()) };
        match owed {
            Owed::Auth => self.answer_auth(),
            Owed::Identified => {
                self.step(|session, cx, out| session.handle_identified(cx, TenantIdx(0), PublisherKey(5), out));
            }
            Owed::Registered => self.step(|session, cx, out| session.handle_registered(cx, out)),
            Owed::Attached { persistent } => self.answer_attached(persistent, fails, error),
            Owed::Held(packet_id) => self.step(|session, cx, out| session.handle_held(cx, packet_id, out)),
            Owed::Released(packet_id) => self.step(|session, _, out| session.handle_released(packet_id, out)),
            Owed::Subscribed(token) => {
                self.step(|session, cx, out| session.handle_subscribed(cx, token, result, out));
            }
            Owed::Unsubscribed(token) => self.step(|session, cx, out| session.handle_unsubscribed(cx, token, out)),
            Owed::Retained(token) => self.answer_retained(token),
            Owed::Published(token) => {
                let matched = self.chance(2);
                let published = if fails { Published::Failed(error) } else { Published::Done { matched } };
                self.step(|session, cx, out| session.handle_published(cx, token, published, out));
            }
        }
    }

    fn answer_auth(&mut self) {
        let outcome = match self.random.below(8) {
            0 => AuthOutcome::Refused(self.pick(&[Refusal::Banned, Refusal::Unavailable])),
            1..=2 => AuthOutcome::Continue { data: None, state: Box::from([1]) },
            _ => {
                let expires_at = self.chance(10).then(|| self.now + Duration::from_secs(20));
                AuthOutcome::Granted(Box::new(Grant { expires_at, ..Grant::default() }))
            }
        };
        self.step(|session, cx, out| session.handle_auth(cx, outcome, out));
    }

    fn answer_attached(&mut self, persistent: bool, fails: bool, error: PortError) {
        if fails {
            self.step(|session, cx, out| session.handle_attached(cx, Err(error), out));
            return;
        }
        self.persistent = persistent;
        let present = persistent && self.chance(2);
        let mut attached = Attached { present, epoch: 1, ..Attached::default() };
        if persistent {
            attached.inbox = Some((RangeIdx(0), Slot { index: 0, generation: 0 }));
        }
        if present {
            attached.received_qos2 = vec![1, 2];
            for n in 1..=self.random.below(6) as u16 {
                let message = self.inbox_message();
                let released = self.chance(3);
                if released {
                    self.released.insert(n);
                } else {
                    self.resumes.insert(n);
                }
                let packet_id = PacketId::new(n).expect("not zero");
                attached.in_flight.push(InFlight { packet_id, released, message });
            }
        }
        self.step(|session, cx, out| session.handle_attached(cx, Ok(Box::new(attached)), out));
    }

    fn answer_retained(&mut self, token: Token) {
        let Some(publisher) = self.session.client().cloned() else { return };
        let count = self.random.below(5);
        let messages = (0..count).map(|_| RetainedMessage { message: self.message(), publisher: publisher.clone() });
        let messages = messages.collect();
        self.step(|session, cx, out| session.handle_retained(cx, token, messages, out));
    }

    fn message(&mut self) -> Arc<Message> {
        let payload = vec![b'x'; self.random.below(3) as usize * 40];
        let view = MessageView {
            topic: self.pick(&TOPICS[..5]),
            properties: &[],
            payload: &payload,
            qos: self.qos(),
            retain: false,
            expiry_at: self.chance(5).then(|| self.now + Duration::from_secs(2)),
            publisher: PublisherKey(self.random.below(2) + 4),
        };
        view.to_message()
    }

    fn inbox_message(&mut self) -> InboxMessage {
        self.next_seq += 1;
        InboxMessage {
            seq: Some(InboxSeq(self.next_seq)),
            message: self.message(),
            qos: self.pick(&[QoS::AtLeastOnce, QoS::ExactlyOnce]),
            retain: false,
            subscription_ids: smallvec::SmallVec::new(),
            check_delivery: self.chance(2),
        }
    }

    fn client_publishes(&mut self) {
        let qos = self.qos();
        let id = PacketId::new(1 + self.random.below(6) as u16).filter(|_| qos != QoS::AtMostOnce);
        let topic = if self.chance(20) { TOPICS[5] } else { self.pick(&TOPICS[..5]) };
        let mut block = Vec::new();
        if self.version == Version::V5 && self.chance(4) {
            PropertyWriter::new(&mut block).u16(PropertyId::TopicAlias, 1 + self.random.below(2) as u16);
        }
        let properties = PublishProperties { all: Properties::new(&block), ..PublishProperties::default() };
        let dup = qos != QoS::AtMostOnce && self.chance(3);
        let retain = self.chance(5);
        let publish = Publish { dup, qos, retain, topic, packet_id: id, properties, payload: b"payload" };
        self.feed(&Packet::Publish(publish));
    }

    /// Answers something that was received, or, rarely, something that was not.
    fn client_acknowledges(&mut self) {
        let reason = Reason::SUCCESS;
        let ack = |id: u16| Ack {
            packet_id: PacketId::new(id).expect("identifiers count from 1"),
            reason,
            properties: Properties::default(),
        };
        if self.chance(12) {
            let id = 1 + self.random.below(9) as u16;
            let wrap = self.pick(&[Packet::PubRel, Packet::PubRec]);
            self.feed(&wrap(ack(id)));
            return;
        }
        if !self.session.wants_packets() {
            return;
        }
        if let Some(id) = self.released.pop_first() {
            self.received.remove(&id);
            self.feed(&Packet::PubComp(ack(id)));
        } else if let Some((&id, &qos)) = self.received.iter().next() {
            match qos {
                QoS::ExactlyOnce => self.feed(&Packet::PubRec(ack(id))),
                _ => {
                    self.received.remove(&id);
                    self.feed(&Packet::PubAck(ack(id)));
                }
            }
        } else {
            self.feed(&Packet::PubRel(ack(1)));
        }
    }

    fn server_delivers(&mut self) {
        if self.persistent {
            let messages = (0..1 + self.random.below(3)).map(|_| self.inbox_message()).collect();
            self.step(|session, cx, out| session.handle_inbox(cx, messages, out));
            if self.chance(4) {
                self.step(|session, _, out| session.handle_inbox_moved(out));
            }
            return;
        }
        let message = self.message();
        let group = GroupName { name: "g".into(), ordered: false };
        let delivery = Delivery {
            qos: self.qos(),
            retain: false,
            subscription_ids: &[],
            check: self.chance(3),
            seq: None,
            shared: self.chance(3).then_some(("a", &group)),
        };
        let now = self.now;
        let mut fanout = Fanout::new(message.view(), Some(message.clone()), now);
        self.step(|session, cx, out| session.deliver(cx, &mut fanout, &delivery, out));
    }

    fn client_subscribes(&mut self) {
        let mut scratch = Vec::new();
        let packet_id = PacketId::new(1 + self.random.below(9) as u16).expect("not zero");
        let properties = Properties::default();
        if self.chance(3) {
            let filters = [self.pick(FILTERS), self.pick(FILTERS)];
            let filters = UnsubscribeFilters::encode(filters, &mut scratch);
            return self.feed(&Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters }));
        }
        let filters: Vec<_> = (0..1 + self.random.below(3))
            .map(|_| SubscribeFilter {
                filter: self.pick(FILTERS),
                qos: self.qos(),
                no_local: self.version == Version::V5 && self.chance(12),
                retain_as_published: false,
                retain_handling: if self.version == Version::V5 { self.random.below(3) as u8 } else { 0 },
            })
            .collect();
        let filters = SubscribeFilters::encode(filters, &mut scratch);
        self.feed(&Packet::Subscribe(Subscribe { packet_id, properties, filters }));
    }

    fn client_says_something_else(&mut self) {
        let mut block = Vec::new();
        let method = self.pick(&["M", "M", "M", "N"]);
        PropertyWriter::new(&mut block).str(PropertyId::AuthenticationMethod, method);
        let reason = self.pick(&[Reason::CONTINUE_AUTHENTICATION, Reason::RE_AUTHENTICATE]);
        if self.version == Version::V5 && self.chance(2) {
            self.feed(&Packet::Auth(Auth { reason, properties: Properties::new(&block) }));
        } else {
            self.feed(&Packet::PingReq);
        }
    }

    fn time_passes(&mut self) {
        self.now = self.now + Duration::from_millis(self.random.below(3_000));
        if self.session.next_timeout().is_some_and(|at| at <= self.now) {
            self.step(|session, cx, out| session.handle_timeout(cx, out));
        }
    }

    fn rare(&mut self) {
        match self.random.below(12) {
            0 => self.step(|session, cx, out| session.handle_closed(cx, out)),
            1 => {
                let reason = self.pick(&[Reason::SESSION_TAKEN_OVER, Reason::SERVER_SHUTTING_DOWN]);
                self.step(|session, cx, out| session.close(cx, reason, None, out));
            }
            2 => {
                let reason = if self.version == Version::V5 {
                    self.pick(&[Reason::SUCCESS, Reason::DISCONNECT_WITH_WILL])
                } else {
                    Reason::SUCCESS
                };
                self.feed(&Packet::Disconnect(Disconnect { reason, properties: Properties::default() }));
            }
            3..=5 => {
                self.authorizer.strict = !self.authorizer.strict;
                self.step(|session, cx, out| session.handle_reloaded(cx, out));
            }
            _ => {}
        }
    }

    /// Whatever has happened: the transport goes, the driver answers what it owes, and nothing is left.
    fn finish(&mut self) {
        self.step(|session, cx, out| session.handle_closed(cx, out));
        while !self.owed.is_empty() {
            self.answer();
        }
        assert_eq!(self.closes, 1, "exactly one Close");
        assert_eq!(self.registers, 0, "the client id is given up");
        for resource in
            [Resource::TotalConnections, Resource::TotalTransientSubscriptions, Resource::TotalSharedSubscriptions]
        {
            assert_eq!(self.tenant.quota.used(resource), 0, "{resource:?} is given back");
        }
    }
}
