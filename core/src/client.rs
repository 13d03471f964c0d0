//! Who a session belongs to, as authentication established it.

use crate::plugin::Rule;
use crate::tenant::TenantName;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::net::{IpAddr, SocketAddr};

/// MQTT protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Version {
    /// 3.1, protocol name `MQIsdp`, level 3.
    V31 = 3,
    /// 3.1.1, level 4.
    V311 = 4,
    /// 5.0, level 5.
    V5 = 5,
}

/// How the bytes of a connection reach the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Plain TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// WebSocket over TCP.
    Ws,
    /// WebSocket over TLS.
    Wss,
    /// Unix-domain stream socket.
    Unix,
}

/// Where a client is: what an operator needs of a socket address, in fewer bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Its address.
    pub ip: IpAddr,
    /// Its port; 0 if a proxy named none.
    pub port: u16,
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self { ip: address.ip(), port: address.port() }
    }
}

impl From<Peer> for SocketAddr {
    fn from(peer: Peer) -> Self {
        Self::new(peer.ip, peer.port)
    }
}

/// The authenticated identity of a session; immutable, shared by everything that speaks of the client.
#[derive(Debug)]
pub struct ClientInfo {
    /// Tenant as authentication named it.
    pub tenant: TenantName,
    /// User as authentication named it; empty for anonymous clients.
    pub user: Box<str>,
    /// Client identifier, assigned by the server if the client sent none.
    pub client_id: Box<str>,
    /// Protocol version.
    pub version: Version,
    /// Transport.
    pub transport: Transport,
    /// Peer address: as the PROXY header gave it where one was trusted; none on Unix sockets.
    pub peer: Option<Peer>,
    /// Rules that authentication attached to this client; they are asked before the ACL file.
    pub rules: Box<[Rule]>,
    /// When the credentials expire (JWT `exp`): the session is closed with 0x87 then.
    pub expires_at: Option<Instant>,
}

// One for every connection, idle or not.
const _: () = assert!(size_of::<ClientInfo>() <= 104);

/// Shared identity.
pub type Client = Arc<ClientInfo>;
