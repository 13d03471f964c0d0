//! The PROXY protocol, versions 1 and 2, as its receiver: one header before everything else tells the client's address.
//!
//! Only peers in the trusted networks may send one. With `required` (the default) a connection from elsewhere is refused, and
//! so is one that does not begin with a header. Without it both are taken as direct connections: a header from an untrusted
//! peer is then not parsed, and its bytes fail in the next stage as what they are not.
//!
//! A unix socket's peer counts as trusted: the file's permissions decided who may connect.

mod v1;
mod v2;

#[cfg(test)]
mod tests;

use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use thiserror::Error;

/// Longest version 1 header, line end included, as the specification has it; a longer one is refused.
pub const PROXY_V1_BYTES_MAX: usize = 107;

/// Longest version 2 header, additional fields (TLVs) included; a longer one is refused. The format allows 64 KiB, proxies
/// send a few hundred bytes.
pub const PROXY_V2_BYTES_MAX: usize = 4 << 10;

const V1_PREFIX: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length of the rest.
const V2_FIXED_BYTES: usize = 16;

/// Who may, and whether one must, send a PROXY header.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Networks of the proxies. Empty: nobody on a network is trusted.
    pub trusted: Vec<IpNet>,
    /// Refuse connections that are not from a proxy or do not begin with a header.
    pub required: bool,
}

impl ProxyConfig {
    /// Whether a connection from `peer` is to be closed before it has sent anything.
    pub fn refuses(&self, peer: Option<IpAddr>) -> bool {
        self.required && !self.trusts(peer)
    }

    fn trusts(&self, peer: Option<IpAddr>) -> bool {
        peer.is_none_or(|ip| super::within(&self.trusted, ip))
    }
}

/// Why the beginning of a connection was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProxyError {
    /// The peer is in no trusted network.
    #[error("the peer is not a trusted proxy")]
    Untrusted,
    /// A header is required and the connection does not begin with one.
    #[error("the connection does not begin with a header")]
    Missing,
    /// More than [`PROXY_V1_BYTES_MAX`] or [`PROXY_V2_BYTES_MAX`].
    #[error("longer than allowed")]
    TooLong,
    /// A version 1 line that is not as specified.
    #[error("malformed version 1 line")]
    Line,
    /// A version 2 header with an unknown version, command, family or transport, or shorter than its family needs.
    #[error("malformed version 2 header")]
    Binary,
    /// A version 2 additional field that runs over the header's end.
    #[error("malformed version 2 field")]
    Field,
    /// The header's CRC32c field does not match.
    #[error("checksum mismatch")]
    Checksum,
}

/// What the header said of the connection's origin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The client has this address.
    Client(SocketAddr),
    /// The client has no network address (it reached the proxy by a unix socket).
    Nameless,
    /// The proxy speaks for itself, or does not know: the socket's own address stands.
    Connection,
    /// There was no header, and none is required: these bytes, held back so far, belong to the next stage.
    NoHeader(Vec<u8>),
}

/// Collects the header of one connection.
#[derive(Debug)]
pub(super) struct ProxyHeader {
    held: Vec<u8>,
    trusted: bool,
    required: bool,
}

impl ProxyHeader {
    /// A collector for a connection from `peer`, or `None` if it is not asked for a header.
    pub(super) fn expect(config: &ProxyConfig, peer: Option<IpAddr>) -> Option<Self> {
        let trusted = config.trusts(peer);
        (trusted || config.required).then_some(Self { held: Vec::new(), trusted, required: config.required })
    }

    /// Takes bytes until the header is complete; then its source and how many of `bytes` belonged to it (or were held).
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<Option<(Source, usize)>, ProxyError> {
        if !self.trusted {
            return Err(ProxyError::Untrusted);
        }
        let mut used = 0;
        loop {
            let Some(missing) = self.missing()? else {
                return self.finish().map(|source| Some((source, used)));
            };
            // One byte at a time where only the next byte tells whether there is another, in one go where the length is known.
            let step = missing.min(bytes.len() - used);
            if step == 0 {
                return Ok(None);
            }
            self.held.extend_from_slice(&bytes[used..used + step]);
            used += step;
        }
    }

    /// How many more bytes certainly belong to the header; `None` if it is complete, or not there.
    fn missing(&self) -> Result<Option<usize>, ProxyError> {
        let held = self.held.as_slice();
        if begins(held, V2_SIGNATURE) && !held.is_empty() {
            let fixed = V2_FIXED_BYTES.saturating_sub(held.len());
            if fixed > 0 {
                // Signature bytes one by one: until it is whole it might not be one.
                return Ok(Some(if held.len() < V2_SIGNATURE.len() { 1 } else { fixed }));
            }
            let whole = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([held[14], held[15]]));
            if whole > PROXY_V2_BYTES_MAX {
                return Err(ProxyError::TooLong);
            }
            return Ok(Some(whole - held.len()).filter(|missing| *missing > 0));
        }
        if begins(held, V1_PREFIX) {
            return match held.last() {
                Some(b'\n') => Ok(None),
                _ if held.len() >= PROXY_V1_BYTES_MAX => Err(ProxyError::TooLong),
                _ => Ok(Some(1)),
            };
        }
        Ok(None)
    }

    fn finish(&mut self) -> Result<Source, ProxyError> {
        let held = std::mem::take(&mut self.held);
        if held.starts_with(V2_SIGNATURE) {
            v2::parse(&held)
        } else if held.starts_with(V1_PREFIX) {
            v1::parse(&held)
        } else if self.required {
            Err(ProxyError::Missing)
        } else {
            Ok(Source::NoHeader(held))
        }
    }
}

/// Whether `held` is the beginning of `prefix` or begins with it.
fn begins(held: &[u8], prefix: &[u8]) -> bool {
    let common = held.len().min(prefix.len());
    held[..common] == prefix[..common]
}
