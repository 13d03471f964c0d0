//! What can be plugged in: authentication (answers later, by request id), authorisation (answers at once, from memory).
//!
//! Both fail closed: an error, a timeout or an unreadable source denies.

use crate::client::{Client, ClientInfo, Transport, Version};
use crate::ids::ReqId;
use crate::tenant::TenantName;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

/// What a client wants to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Publish to a topic name.
    Publish,
    /// Subscribe to a topic filter, or receive a topic name.
    Subscribe,
}

/// Allow or deny; the first rule that applies decides, none denies if any rule exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The action is permitted.
    Allow,
    /// The action is refused.
    Deny,
}

/// One access rule: `effect` for `action` (both if none) on topics that `pattern` matches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Allow or deny.
    pub effect: Effect,
    /// The action it is about; none means both.
    pub action: Option<Action>,
    /// Topic filter; `%c`, `%u` and `%t` stand for client id, user and tenant.
    pub pattern: Box<str>,
}

/// The answer to a permission question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Permitted as a whole.
    Allowed,
    /// A subscription is permitted, but some topics its filter covers are not: ask again for each delivery.
    Partly,
    /// Refused.
    Denied,
}

/// Answers permission questions from memory; called on shards, so it must not block.
pub trait Authorizer: Send + Sync + core::fmt::Debug {
    /// May `client` do `action` on `topic`? `topic` is a topic filter for subscriptions (without any `$share` prefix) and
    /// a topic name for publishing and for deliveries.
    fn check(&self, client: &ClientInfo, action: Action, topic: &str) -> Verdict;
}

/// What a CONNECT (or the AUTH packets after it) tells an authentication chain.
#[derive(Clone, Debug)]
pub struct AuthRequest {
    /// Listener on which the client arrived; chooses the chain.
    pub listener: u16,
    /// Protocol version.
    pub version: Version,
    /// Transport.
    pub transport: Transport,
    /// Peer address.
    pub peer: Option<SocketAddr>,
    /// Client identifier, assigned already if the client sent none.
    pub client_id: Box<str>,
    /// User name, if sent.
    pub username: Option<Box<str>>,
    /// Password, if sent; any bytes.
    pub password: Option<Box<[u8]>>,
    /// The client's leaf certificate (DER), if it presented one that the listener's CA verified.
    pub certificate: Option<Box<[u8]>>,
    /// Enhanced authentication [MQTT5-4.12], if the client asked for it.
    pub enhanced: Option<EnhancedAuth>,
}

/// One step of an enhanced authentication exchange.
#[derive(Clone, Debug)]
pub struct EnhancedAuth {
    /// Authentication Method, the same through the exchange.
    pub method: Box<str>,
    /// Authentication Data of this step.
    pub data: Option<Box<[u8]>>,
    /// Opaque state the provider returned with its last `Continue`; none on the first step.
    pub state: Option<Box<[u8]>>,
    /// Who the session belongs to that re-authenticates, if this is not a CONNECT: it stays with that tenant and user.
    pub reauthenticates: Option<Client>,
}

/// How an authentication step ended.
#[derive(Debug)]
pub enum AuthOutcome {
    /// The client is who it says.
    Granted(Box<Grant>),
    /// The exchange goes on: send AUTH 0x18 with this data.
    Continue {
        /// Authentication Data for the client.
        data: Option<Box<[u8]>>,
        /// Opaque state handed back with the client's next step.
        state: Box<[u8]>,
    },
    /// The client is refused.
    Refused(Refusal),
}

/// What a successful authentication establishes.
#[derive(Debug, Default)]
pub struct Grant {
    /// Tenant of the client; none means the tenant of anonymous clients.
    pub tenant: Option<TenantName>,
    /// User name the broker uses from here on.
    pub user: Box<str>,
    /// Rules for this client.
    pub rules: Vec<Rule>,
    /// When the credentials expire.
    pub expires_at: Option<Instant>,
    /// Response Information for the client [MQTT5-3.2.2.3.15].
    pub response_information: Option<Box<str>>,
    /// User properties for the CONNACK.
    pub user_properties: Vec<(String, String)>,
    /// Final Authentication Data of an enhanced exchange.
    pub data: Option<Box<[u8]>>,
}

/// Why a client was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Unknown user or wrong password: 0x86.
    BadCredentials,
    /// Known, but not admitted: 0x87.
    NotAuthorized,
    /// Banned: 0x8A.
    Banned,
    /// Authentication method not supported: 0x8C.
    BadMethod,
    /// The provider failed or ran out of time: 0x88 on the wire, the client may retry.
    Unavailable,
}

/// An authentication chain. Called on shards; `start` must not block: slow work goes to other threads and the answer
/// comes back through the reply handle that the implementation was given when it was built for a shard.
pub trait Authenticator {
    /// Begins a step, and answers at once if it can.
    fn start(&mut self, req: ReqId, request: AuthRequest, now: Instant) -> Option<AuthOutcome>;

    /// The client has gone: the answer to `req` is no longer wanted.
    fn cancel(&mut self, req: ReqId);
}
