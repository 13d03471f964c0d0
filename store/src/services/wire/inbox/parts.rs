//! What the messages about inboxes are made of: the ports' types as plain values. Each is taken apart field by field, so that a field which is
//! added to a port's type does not compile until it travels.

use crate::services::message::Step;
use bifro_core::ids::{InboxSeq, RangeIdx, Slot};
use bifro_core::message::QoS;
use bifro_core::ports::{
    AttachTerms, Attached, DetachState, FutureWill, InFlight, InHand, InboxMessage, Left, Origin, PortError, SubOptions,
};
use bifro_core::time::Instant;
use bifro_range::inbox::OwnerRef;
use bifro_range::record::{decode_message, encode_message};
use rkyv::{Archive, Deserialize, Serialize};
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

/// The highest Subscription Identifier [MQTT5-3.8.2.1.2].
const SUBSCRIPTION_ID_MAX: u32 = 268_435_455;

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn read_subscription_id(id: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(id).filter(|id| id.get() <= SUBSCRIPTION_ID_MAX)
}

/// A [`Slot`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(in crate::services) struct Place {
    index: u32,
    generation: u32,
}

impl From<Slot> for Place {
    fn from(Slot { index, generation }: Slot) -> Self {
        Self { index, generation }
    }
}

impl From<Place> for Slot {
    fn from(Place { index, generation }: Place) -> Self {
        Self { index, generation }
    }
}

/// An [`OwnerRef`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(in crate::services) struct Owner {
    inbox: Place,
    epoch: u64,
}

impl From<OwnerRef> for Owner {
    fn from(OwnerRef { inbox, epoch }: OwnerRef) -> Self {
        Self { inbox: inbox.into(), epoch }
    }
}

impl From<Owner> for OwnerRef {
    fn from(Owner { inbox, epoch }: Owner) -> Self {
        Self { inbox: inbox.into(), epoch }
    }
}

/// An [`Origin`] of no group: what goes to one is stored where it is led.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(in crate::services) struct Source {
    range: u16,
    inbox: Place,
    epoch: u64,
    packet_id: u16,
    nth: u64,
    attempt: u64,
}

impl From<Origin> for Source {
    fn from(Origin { inbox: (range, inbox), epoch, packet_id, nth, group: _, attempt }: Origin) -> Self {
        Self { range: range.0, inbox: inbox.into(), epoch, packet_id, nth, attempt }
    }
}

impl From<Source> for Origin {
    fn from(Source { range, inbox, epoch, packet_id, nth, attempt }: Source) -> Self {
        Self { inbox: (RangeIdx(range), inbox.into()), epoch, packet_id, nth, group: 0, attempt }
    }
}

/// A [`Step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(in crate::services) enum Exchange {
    Receive(Source),
    Release(Source),
    Forget(Source, bool),
    Inquire(Source),
    Hold(Owner, u64),
}

impl From<Step> for Exchange {
    fn from(step: Step) -> Self {
        match step {
            Step::Receive(origin) => Self::Receive(origin.into()),
            Step::Release(origin) => Self::Release(origin.into()),
            Step::Forget(origin, in_doubt) => Self::Forget(origin.into(), in_doubt),
            Step::Inquire(origin) => Self::Inquire(origin.into()),
            Step::Hold(owner, InboxSeq(seq)) => Self::Hold(owner.into(), seq),
        }
    }
}

impl Exchange {
    /// None if it is a step of an inbox in another range than the one that is asked.
    pub(super) fn read(self, range: RangeIdx) -> Option<Step> {
        match self {
            Self::Receive(of) if of.range == range.0 => Some(Step::Receive(of.into())),
            Self::Release(of) if of.range == range.0 => Some(Step::Release(of.into())),
            Self::Receive(_) | Self::Release(_) => None,
            Self::Inquire(of) => Some(Step::Inquire(of.into())),
            Self::Forget(of, in_doubt) => Some(Step::Forget(of.into(), in_doubt)),
            Self::Hold(owner, seq) => Some(Step::Hold(owner.into(), InboxSeq(seq))),
        }
    }
}

/// A [`PortError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(in crate::services) enum Refusal {
    QuotaExceeded,
    NotOwner,
    Unavailable,
}

impl From<PortError> for Refusal {
    fn from(error: PortError) -> Self {
        match error {
            PortError::QuotaExceeded => Self::QuotaExceeded,
            PortError::NotOwner => Self::NotOwner,
            PortError::Unavailable => Self::Unavailable,
        }
    }
}

impl From<Refusal> for PortError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::QuotaExceeded => Self::QuotaExceeded,
            Refusal::NotOwner => Self::NotOwner,
            Refusal::Unavailable => Self::Unavailable,
        }
    }
}

/// [`SubOptions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(in crate::services) struct Options {
    qos: u8,
    no_local: bool,
    retain_as_published: bool,
    subscription_id: Option<u32>,
    check_deliveries: bool,
}

impl From<SubOptions> for Options {
    fn from(options: SubOptions) -> Self {
        let SubOptions { qos, no_local, retain_as_published, subscription_id, check_deliveries } = options;
        let subscription_id = subscription_id.map(NonZeroU32::get);
        Self { qos: qos as u8, no_local, retain_as_published, subscription_id, check_deliveries }
    }
}

impl Options {
    pub(super) fn read(self) -> Option<SubOptions> {
        let Self { qos, no_local, retain_as_published, subscription_id, check_deliveries } = self;
        let subscription_id = match subscription_id {
            Some(id) => Some(read_subscription_id(id)?),
            None => None,
        };
        let qos = QoS::from_bits(qos)?;
        Some(SubOptions { qos, no_local, retain_as_published, subscription_id, check_deliveries })
    }
}

/// An [`InboxMessage`].
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(in crate::services) struct Queued {
    seq: Option<u64>,
    pub(super) message: Vec<u8>,
    qos: u8,
    retain: bool,
    subscription_ids: Vec<u32>,
    check_delivery: bool,
}

impl Queued {
    pub(super) fn of(queued: &InboxMessage, now: Instant) -> Self {
        let InboxMessage { seq, message, qos, retain, subscription_ids, check_delivery } = queued;
        Self {
            seq: seq.map(|seq| seq.0),
            message: encode_message(message, now),
            qos: *qos as u8,
            retain: *retain,
            subscription_ids: subscription_ids.iter().map(|id| id.get()).collect(),
            check_delivery: *check_delivery,
        }
    }

    pub(super) fn read(self, now: Instant) -> Option<InboxMessage> {
        let Self { seq, message, qos, retain, subscription_ids, check_delivery } = self;
        Some(InboxMessage {
            seq: seq.map(InboxSeq),
            message: decode_message(&message, now).ok()?,
            qos: QoS::from_bits(qos)?,
            retain,
            subscription_ids: subscription_ids.into_iter().map(read_subscription_id).collect::<Option<_>>()?,
            check_delivery,
        })
    }

    pub(super) fn of_all(queued: &[InboxMessage], now: Instant) -> Vec<Self> {
        queued.iter().map(|queued| Self::of(queued, now)).collect()
    }

    pub(super) fn read_all(queued: Vec<Self>, now: Instant) -> Option<Vec<InboxMessage>> {
        queued.into_iter().map(|queued| queued.read(now)).collect()
    }
}

/// A [`FutureWill`].
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
struct Will {
    delay_us: u64,
    expiry_us: Option<u64>,
    message: Vec<u8>,
}

/// [`AttachTerms`].
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(in crate::services) struct Terms {
    clean_start: bool,
    expiry_s: u32,
    will: Option<Will>,
}

impl Terms {
    pub(super) fn of(terms: &AttachTerms, now: Instant) -> Self {
        let AttachTerms { clean_start, expiry_s, will } = terms;
        let will = will.as_ref().map(|FutureWill { delay, expiry, message }| Will {
            delay_us: micros(*delay),
            expiry_us: expiry.map(micros),
            message: encode_message(message, now),
        });
        Self { clean_start: *clean_start, expiry_s: *expiry_s, will }
    }

    pub(super) fn read(self, now: Instant) -> Option<AttachTerms> {
        let Self { clean_start, expiry_s, will } = self;
        let will = match will {
            Some(Will { delay_us, expiry_us, message }) => Some(FutureWill {
                delay: Duration::from_micros(delay_us),
                expiry: expiry_us.map(Duration::from_micros),
                message: decode_message(&message, now).ok()?,
            }),
            None => None,
        };
        Some(AttachTerms { clean_start, expiry_s, will })
    }
}

/// [`Left`].
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
enum LeftBehind {
    Stored(u64),
    Unstored(Queued),
}

/// A [`DetachState`].
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(in crate::services) struct State {
    seqs: Vec<u64>,
    next: u64,
    received_qos2: Vec<u16>,
    in_flight: Vec<(u16, bool, LeftBehind)>,
    waiting: Vec<Queued>,
    /// Delay in microseconds, and message.
    will: Option<(u64, Vec<u8>)>,
    expiry_s: u32,
}

impl State {
    pub(super) fn of(state: &DetachState, now: Instant) -> Self {
        let DetachState { in_hand, received_qos2, in_flight, waiting, will, expiry_s } = state;
        let in_flight = in_flight.iter().map(|(packet_id, released, left)| {
            let left = match left {
                Left::Stored(seq) => LeftBehind::Stored(seq.0),
                Left::Unstored(message) => LeftBehind::Unstored(Queued::of(message, now)),
            };
            (packet_id.get(), *released, left)
        });
        Self {
            seqs: in_hand.seqs.iter().map(|seq| seq.0).collect(),
            next: in_hand.next.0,
            received_qos2: received_qos2.clone(),
            in_flight: in_flight.collect(),
            waiting: Queued::of_all(waiting, now),
            will: will.as_ref().map(|(delay, message)| (micros(*delay), encode_message(message, now))),
            expiry_s: *expiry_s,
        }
    }

    pub(super) fn read(self, now: Instant) -> Option<DetachState> {
        let Self { seqs, next, received_qos2, in_flight, waiting, will, expiry_s } = self;
        let in_hand = InHand { seqs: seqs.into_iter().map(InboxSeq).collect(), next: InboxSeq(next) };
        let in_flight = in_flight.into_iter().map(|(packet_id, released, left)| {
            let left = match left {
                LeftBehind::Stored(seq) => Left::Stored(InboxSeq(seq)),
                LeftBehind::Unstored(message) => Left::Unstored(Box::new(message.read(now)?)),
            };
            Some((NonZeroU16::new(packet_id)?, released, left))
        });
        let in_flight = in_flight.collect::<Option<_>>()?;
        let will = match will {
            Some((delay, message)) => Some((Duration::from_micros(delay), decode_message(&message, now).ok()?)),
            None => None,
        };
        let waiting = Queued::read_all(waiting, now)?;
        Some(DetachState { in_hand, received_qos2, in_flight, waiting, will, expiry_s })
    }
}

/// What is [`Attached`].
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(in crate::services) struct Session {
    present: bool,
    inbox: Option<(u16, Place)>,
    epoch: u64,
    durable: bool,
    subscriptions: Vec<(String, Options)>,
    received_qos2: Vec<u16>,
    in_flight: Vec<(u16, bool, Queued)>,
    next: u64,
}

impl Session {
    pub(super) fn of(attached: &Attached, now: Instant) -> Self {
        let Attached { present, inbox, epoch, durable, subscriptions, received_qos2, in_flight, next } = attached;
        let in_flight = in_flight
            .iter()
            .map(|InFlight { packet_id, released, message }| (packet_id.get(), *released, Queued::of(message, now)));
        Self {
            present: *present,
            inbox: inbox.map(|(range, slot)| (range.0, slot.into())),
            epoch: *epoch,
            durable: *durable,
            subscriptions: (subscriptions.iter())
                .map(|(filter, options)| (filter.to_string(), (*options).into()))
                .collect(),
            received_qos2: received_qos2.clone(),
            in_flight: in_flight.collect(),
            next: next.0,
        }
    }

    pub(super) fn read(self, now: Instant) -> Option<Attached> {
        let Self { present, inbox, epoch, durable, subscriptions, received_qos2, in_flight, next } = self;
        let subscriptions = subscriptions.into_iter().map(|(filter, options)| Some((filter.into(), options.read()?)));
        let in_flight = in_flight.into_iter().map(|(packet_id, released, message)| {
            let packet_id = NonZeroU16::new(packet_id)?;
            Some(InFlight { packet_id, released, message: message.read(now)? })
        });
        Some(Attached {
            present,
            inbox: inbox.map(|(range, place)| (RangeIdx(range), place.into())),
            epoch,
            durable,
            subscriptions: subscriptions.collect::<Option<_>>()?,
            received_qos2,
            in_flight: in_flight.collect::<Option<_>>()?,
            next: InboxSeq(next),
        })
    }
}
