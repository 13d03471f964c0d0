//! What is asked of an inbox on another node, answered and pushed: [`Inbox`] as plain values.
//!
//! Requests go to the node that leads the range, answers to the shard that asked. Messages are inserted where the range is led, so an
//! insertion never travels. Messages and clients inside are bifro-range's records ([`bifro_range::record`]), messages with the moment of
//! writing: what a record says of expiry is by the writer's clock, as it was for a disk that only its writer reads. Every other span here
//! is relative by itself, to when the request is carried out.
//!
//! A client names its tenant, as at rest; a request that also comes under a tenant's name must agree with it.

mod parts;
#[cfg(test)]
pub(super) mod tests;

use super::{Conn, is_filter};
use crate::services::message::Inbox;
use bifro_core::client::Client;
use bifro_core::ids::{InboxSeq, NodeIdx, RangeIdx, ReqId, ShardId};
use bifro_core::ports::{InHand, PortError};
use bifro_core::tenant::TenantCtx;
use bifro_core::time::Instant;
use bifro_range::record::{decode_client, encode_client};
use parts::{Exchange, Options, Owner, Queued, Refusal, Session, Source, State, Terms};
use rkyv::{Archive, Deserialize, Serialize};

/// A message about an inbox, between the shards of two nodes.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(in crate::services) enum RemoteInbox {
    /// For whoever has the range.
    Request {
        /// The sender's shard that asks.
        shard: u16,
        /// The range.
        range: u16,
        /// The term in which it takes the receiver for the range's leader.
        term: u64,
        /// How it counts this leader: comes back.
        claim: u32,
        /// What it is asked.
        request: Request,
    },
    /// What has become of a request.
    Answer {
        /// The receiver's shard that has asked.
        shard: u16,
        /// How the receiver counts this leader.
        claim: u32,
        /// What it hears.
        answer: Answer,
    },
    /// Messages for a connection of the receiver's.
    Push {
        /// The connection.
        conn: Conn,
        /// How the receiver counts this leader.
        claim: u32,
        /// The messages.
        messages: Vec<Queued>,
    },
}

/// What can be asked, as in [`Inbox`].
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(in crate::services) enum Request {
    /// Under the tenant's name.
    Attach {
        req: u64,
        conn: Conn,
        client: Vec<u8>,
        terms: Terms,
    },
    /// Under the tenant's name.
    Discard {
        req: u64,
        client: Vec<u8>,
    },
    Reattach {
        conn: Conn,
        owner: Owner,
        seqs: Vec<u64>,
        next: u64,
    },
    Detach {
        req: u64,
        owner: Owner,
        client: Vec<u8>,
        state: State,
    },
    Subscribe {
        req: u64,
        owner: Owner,
        filter: String,
        options: Options,
    },
    Unsubscribe {
        req: u64,
        owner: Owner,
        filter: String,
    },
    Step {
        req: u64,
        step: Exchange,
    },
    Settle {
        token: u32,
        origins: Vec<Source>,
    },
    Commit {
        owner: Owner,
        done: Vec<u64>,
    },
}

/// What can be answered, as in [`Inbox`].
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(in crate::services) enum Answer {
    Attached {
        req: u64,
        result: Result<Session, Refusal>,
    },
    Detached {
        req: u64,
    },
    Subscribed {
        req: u64,
        result: Result<bool, Refusal>,
    },
    Unsubscribed {
        req: u64,
        existed: bool,
    },
    Done {
        req: u64,
        result: Result<(), Refusal>,
    },
    Found {
        req: u64,
        groups: Vec<u64>,
    },
    Settled {
        token: u32,
        range: u16,
    },
    /// A session of this connection counts on it no more.
    Lost {
        conn: Conn,
    },
}

impl RemoteInbox {
    /// What is to be said on another node; none of what never leaves this one. `shard` is the one that asks or has asked, of
    /// whichever node; a push has it in its connection. `term` is of a request.
    pub(in crate::services) fn of(
        message: &Inbox,
        shard: ShardId,
        term: u64,
        claim: u32,
        now: Instant,
    ) -> Option<Self> {
        let shard = shard.0;
        if let Inbox::Push { conn, messages } = message {
            return Some(Self::Push { conn: (*conn).into(), claim, messages: Queued::of_all(messages, now) });
        }
        match message.range() {
            Some(range) => {
                Some(Self::Request { shard, range: range.0, term, claim, request: Request::of(message, now)? })
            }
            None => Some(Self::Answer { shard, claim, answer: Answer::of(message, now)? }),
        }
    }

    /// What `node` has said, under the name of `tenant` if it is given, and the term and the asker's count: a request, with the shard that asks there; or an answer
    /// or a push, with the shard here that it is for, which need not exist. None if nobody says such a thing.
    pub(in crate::services) fn into_message(
        self,
        node: NodeIdx,
        tenant: Option<&TenantCtx>,
        now: Instant,
    ) -> Option<(ShardId, u64, u32, Inbox)> {
        match self {
            Self::Request { shard, range, term, claim, request } => {
                Some((ShardId(shard), term, claim, request.into_message(node, tenant, RangeIdx(range), now)?))
            }
            Self::Answer { shard, claim, answer } => Some((ShardId(shard), 0, claim, answer.into_message(now)?)),
            Self::Push { conn, claim, messages } => {
                let conn = conn.of(NodeIdx::HERE);
                Some((conn.shard, 0, claim, Inbox::Push { conn, messages: Queued::read_all(messages, now)? }))
            }
        }
    }
}

impl Request {
    fn of(message: &Inbox, now: Instant) -> Option<Self> {
        match message {
            Inbox::Attach { req, range: _, conn, tenant: _, client, terms } => Some(Self::Attach {
                req: req.0,
                conn: (*conn).into(),
                client: encode_client(client),
                terms: Terms::of(terms, now),
            }),
            Inbox::Discard { req, range: _, tenant: _, client } => {
                Some(Self::Discard { req: req.0, client: encode_client(client) })
            }
            Inbox::Reattach { range: _, conn, owner, in_hand } => Some(Self::Reattach {
                conn: (*conn).into(),
                owner: (*owner).into(),
                seqs: in_hand.seqs.iter().map(|seq| seq.0).collect(),
                next: in_hand.next.0,
            }),
            Inbox::Detach { req, range: _, owner, client, state } => Some(Self::Detach {
                req: req.0,
                owner: (*owner).into(),
                client: encode_client(client),
                state: State::of(state, now),
            }),
            Inbox::Subscribe { req, range: _, owner, filter, options } => Some(Self::Subscribe {
                req: req.0,
                owner: (*owner).into(),
                filter: filter.to_string(),
                options: (*options).into(),
            }),
            Inbox::Unsubscribe { req, range: _, owner, filter } => {
                Some(Self::Unsubscribe { req: req.0, owner: (*owner).into(), filter: filter.to_string() })
            }
            Inbox::Step { req, range: _, step } => Some(Self::Step { req: req.0, step: (*step).into() }),
            Inbox::Settle { token, range: _, origins } => {
                Some(Self::Settle { token: *token, origins: origins.iter().map(|&origin| origin.into()).collect() })
            }
            Inbox::Commit { range: _, owner, done } => {
                Some(Self::Commit { owner: (*owner).into(), done: done.iter().map(|seq| seq.0).collect() })
            }
            _ => None,
        }
    }

    fn into_message(self, node: NodeIdx, tenant: Option<&TenantCtx>, range: RangeIdx, now: Instant) -> Option<Inbox> {
        Some(match self {
            Self::Attach { req, conn, client, terms } => Inbox::Attach {
                req: ReqId(req),
                range,
                conn: conn.of(node),
                tenant: tenant?.idx,
                client: read_client(&client, tenant)?,
                terms: terms.read(now)?,
            },
            Self::Discard { req, client } => {
                Inbox::Discard { req: ReqId(req), range, tenant: tenant?.idx, client: read_client(&client, tenant)? }
            }
            Self::Reattach { conn, owner, seqs, next } => {
                let in_hand = InHand { seqs: seqs.into_iter().map(InboxSeq).collect(), next: InboxSeq(next) };
                Inbox::Reattach { range, conn: conn.of(node), owner: owner.into(), in_hand }
            }
            Self::Detach { req, owner, client, state } => Inbox::Detach {
                req: ReqId(req),
                range,
                owner: owner.into(),
                client: read_client(&client, tenant)?,
                state: Box::new(state.read(now)?),
            },
            Self::Subscribe { req, owner, filter, options } => {
                is_filter(&filter).then_some(())?;
                let (owner, filter) = (owner.into(), filter.into());
                Inbox::Subscribe { req: ReqId(req), range, owner, filter, options: options.read()? }
            }
            Self::Unsubscribe { req, owner, filter } => {
                Inbox::Unsubscribe { req: ReqId(req), range, owner: owner.into(), filter: filter.into() }
            }
            Self::Step { req, step } => Inbox::Step { req: ReqId(req), range, step: step.read(range)? },
            Self::Settle { token, origins } => {
                Inbox::Settle { token, range, origins: origins.into_iter().map(Into::into).collect() }
            }
            Self::Commit { owner, done } => {
                Inbox::Commit { range, owner: owner.into(), done: done.into_iter().map(InboxSeq).collect() }
            }
        })
    }
}

impl Answer {
    fn of(message: &Inbox, now: Instant) -> Option<Self> {
        match message {
            Inbox::Attached { req, result } => {
                let result = result.as_ref().map(|attached| Session::of(attached, now));
                Some(Self::Attached { req: req.0, result: result.map_err(|&error| error.into()) })
            }
            Inbox::Detached { req } => Some(Self::Detached { req: req.0 }),
            Inbox::Subscribed { req, result } => {
                Some(Self::Subscribed { req: req.0, result: result.map_err(Refusal::from) })
            }
            Inbox::Unsubscribed { req, existed } => Some(Self::Unsubscribed { req: req.0, existed: *existed }),
            Inbox::Done { req, result } => Some(Self::Done { req: req.0, result: result.map_err(Refusal::from) }),
            Inbox::Found { req, groups } => Some(Self::Found { req: req.0, groups: groups.clone() }),
            Inbox::Settled { token, range } => Some(Self::Settled { token: *token, range: range.0 }),
            Inbox::Lost { conn } => Some(Self::Lost { conn: (*conn).into() }),
            _ => None,
        }
    }

    fn into_message(self, now: Instant) -> Option<Inbox> {
        Some(match self {
            Self::Attached { req, result } => {
                let result = match result {
                    Ok(session) => Ok(Box::new(session.read(now)?)),
                    Err(refusal) => Err(refusal.into()),
                };
                Inbox::Attached { req: ReqId(req), result }
            }
            Self::Detached { req } => Inbox::Detached { req: ReqId(req) },
            Self::Subscribed { req, result } => {
                Inbox::Subscribed { req: ReqId(req), result: result.map_err(PortError::from) }
            }
            Self::Unsubscribed { req, existed } => Inbox::Unsubscribed { req: ReqId(req), existed },
            Self::Done { req, result } => Inbox::Done { req: ReqId(req), result: result.map_err(PortError::from) },
            Self::Found { req, groups } => Inbox::Found { req: ReqId(req), groups },
            Self::Settled { token, range } => Inbox::Settled { token, range: RangeIdx(range) },
            Self::Lost { conn } => Inbox::Lost { conn: conn.of(NodeIdx::HERE) },
        })
    }
}

/// None if it is none, or another tenant's than it is said to be.
fn read_client(bytes: &[u8], tenant: Option<&TenantCtx>) -> Option<Client> {
    let client = decode_client(bytes).ok()?;
    tenant.is_none_or(|tenant| *tenant.name == *client.tenant).then_some(client)
}
