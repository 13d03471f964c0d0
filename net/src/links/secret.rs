//! The secret that all nodes of a cluster know, and how a connection proves that both its ends do.
//!
//! This holds whether certificates are verified ([`super::Certificates`]) or not. Each end sends a keyed hash of what only the two ends of this TLS session
//! can compute (RFC 5705); whoever sits between two sessions has two different values and no key.
//!
//! The session is given as a function that exports keying material: it fills the output it is given from a label and a context, and says
//! whether it could. So the underlay's connections and those of the shards prove the secret in one way.

use ring::hmac;
use std::fmt;

/// Bytes of a proof.
pub const PROOF_BYTES: usize = 32;
/// Names the exporter's value, as RFC 5705 asks for.
const LABEL: &[u8] = b"EXPERIMENTAL bifro-uring cluster";

/// Which end of a connection speaks: so that no proof can be sent back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The end that has called.
    Dialler,
    /// The end that was called.
    Acceptor,
}

/// The shared secret. An empty one is what nodes do without that have certificates, or that only their machine can reach.
#[derive(Clone)]
pub struct Secret(hmac::Key);

impl Secret {
    /// From the file's contents, white space at its ends left out.
    pub fn new(text: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, text.trim().as_bytes()))
    }

    /// What `end` of the TLS session has to send. None if the session exports nothing: it is gone, or not made yet.
    pub fn proof(&self, end: End, export: impl FnOnce(&mut [u8], &[u8], &[u8]) -> bool) -> Option<[u8; PROOF_BYTES]> {
        let tag = hmac::sign(&self.0, &exported(end, export)?);
        tag.as_ref().try_into().ok()
    }

    /// Whether `end` of the TLS session knows the secret. Takes the same time whatever is wrong.
    pub fn verify(&self, end: End, proof: &[u8], export: impl FnOnce(&mut [u8], &[u8], &[u8]) -> bool) -> bool {
        exported(end, export).is_some_and(|exported| hmac::verify(&self.0, &exported, proof).is_ok())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

fn exported(end: End, export: impl FnOnce(&mut [u8], &[u8], &[u8]) -> bool) -> Option<[u8; 32]> {
    let context: &[u8] = match end {
        End::Dialler => b"dialler",
        End::Acceptor => b"acceptor",
    };
    let mut value = [0; 32];
    export(&mut value, LABEL, context).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session whose keying material is its number and what was asked for.
    fn session(number: u8) -> impl Fn(&mut [u8], &[u8], &[u8]) -> bool {
        move |output, label, context| {
            assert_eq!(label, LABEL);
            output[0] = number;
            output[1..=context.len()].copy_from_slice(context);
            true
        }
    }

    #[test]
    fn a_proof_holds_for_one_secret_one_session_and_one_end() {
        let secret = Secret::new(" s3cret\n");
        let proof = secret.proof(End::Dialler, session(1)).expect("a session");
        assert!(Secret::new("s3cret").verify(End::Dialler, &proof, session(1)));
        assert!(!Secret::new("s3creT").verify(End::Dialler, &proof, session(1)));
        assert!(!secret.verify(End::Acceptor, &proof, session(1)), "sent back");
        assert!(!secret.verify(End::Dialler, &proof, session(2)), "passed on");
        assert!(!secret.verify(End::Dialler, &proof[..31], session(1)));
    }

    #[test]
    fn without_keying_material_nothing_is_proven() {
        let secret = Secret::new("s3cret");
        let gone = |_: &mut [u8], _: &[u8], _: &[u8]| false;
        assert_eq!(secret.proof(End::Dialler, gone), None);
        let of_zeroes = hmac::sign(&secret.0, &[0; 32]);
        assert!(!secret.verify(End::Dialler, of_zeroes.as_ref(), gone));
    }
}
