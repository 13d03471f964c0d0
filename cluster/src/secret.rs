//! The secret that all nodes of a cluster know, and how a connection proves that both its ends do.
//!
//! Certificates are made at each start and not verified. Instead each end sends a keyed hash of what only the two ends of this TLS session
//! can compute (RFC 5705); whoever sits between two sessions has two different values and no key.

use ring::hmac;
use std::fmt;

/// Bytes of a proof.
pub(crate) const PROOF_BYTES: usize = 32;
/// Names the exporter's value, as RFC 5705 asks for.
const LABEL: &[u8] = b"EXPERIMENTAL bifro-uring cluster";

/// Which end of a connection speaks: so that no proof can be sent back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Dialler,
    Acceptor,
}

/// The shared secret. An empty one is what nodes of one machine do without.
#[derive(Clone)]
pub struct Secret(hmac::Key);

impl Secret {
    /// From the file's contents, white space at its ends left out.
    pub fn new(text: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, text.trim().as_bytes()))
    }

    /// What `end` of the connection has to send. None if the connection is gone.
    pub(crate) fn proof(&self, connection: &quinn::Connection, end: End) -> Option<[u8; PROOF_BYTES]> {
        let tag = hmac::sign(&self.0, &exported(connection, end)?);
        tag.as_ref().try_into().ok()
    }

    /// Whether `end` of the connection knows the secret. Takes the same time whatever is wrong.
    pub(crate) fn verify(&self, connection: &quinn::Connection, end: End, proof: &[u8]) -> bool {
        exported(connection, end).is_some_and(|exported| hmac::verify(&self.0, &exported, proof).is_ok())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

fn exported(connection: &quinn::Connection, end: End) -> Option<[u8; 32]> {
    let context: &[u8] = match end {
        End::Dialler => b"dialler",
        End::Acceptor => b"acceptor",
    };
    let mut value = [0; 32];
    connection.export_keying_material(&mut value, LABEL, context).ok()?;
    Some(value)
}
