//! The four messages of RFC 5802 and the arithmetic between them. Parsing is strict: every message has one form, and what
//! has another is none.

use super::file::Credential;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac};
use serde::{Deserialize, Serialize};

/// Bytes of a key, a proof and a signature.
pub(crate) const KEY_BYTES: usize = digest::SHA256_OUTPUT_LEN;

/// A key, a proof or a signature.
pub(crate) type Key = [u8; KEY_BYTES];

/// Longest nonce a client may choose, in bytes; the exchange's state carries it.
const CLIENT_NONCE_BYTES_MAX: usize = 256;

/// What the broker remembers between the two steps. It stays in the session and is never sent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Opening {
    pub(super) user: String,
    pub(super) gs2_header: String,
    pub(super) nonce: String,
    pub(super) client_first_bare: String,
    pub(super) server_first: String,
}

/// The client's first message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientFirst<'a> {
    pub(super) gs2_header: &'a str,
    pub(super) bare: &'a str,
    pub(super) user: String,
    pub(super) nonce: &'a str,
}

impl<'a> ClientFirst<'a> {
    /// `gs2-header n=user,r=nonce`. Channel binding (`p=`), an identity to act as (`a=`) and mandatory extensions (`m=`) are
    /// refused, because the broker supports none.
    pub(super) fn parse(message: &'a str) -> Option<Self> {
        let bare = message.strip_prefix("n,,").or_else(|| message.strip_prefix("y,,"))?;
        let gs2_header = &message[..message.len() - bare.len()];
        let mut attributes = bare.split(',');
        let user = decode_name(attributes.next()?.strip_prefix("n=")?)?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        let printable = nonce.bytes().all(|byte| byte.is_ascii_graphic());
        if nonce.is_empty() || nonce.len() > CLIENT_NONCE_BYTES_MAX || !printable {
            return None;
        }
        Some(Self { gs2_header, bare, user, nonce })
    }
}

/// The client's last message.
#[derive(Debug)]
pub(super) struct ClientFinal<'a> {
    pub(super) channel_binding: Vec<u8>,
    pub(super) nonce: &'a str,
    pub(super) proof: Key,
    pub(super) without_proof: &'a str,
}

impl<'a> ClientFinal<'a> {
    /// `c=channel-binding,r=nonce,p=proof`.
    pub(super) fn parse(message: &'a str) -> Option<Self> {
        let (without_proof, proof) = message.rsplit_once(",p=")?;
        let mut attributes = without_proof.split(',');
        let channel_binding = STANDARD.decode(attributes.next()?.strip_prefix("c=")?).ok()?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        let proof = STANDARD.decode(proof).ok()?.try_into().ok()?;
        Some(Self { channel_binding, nonce, proof, without_proof })
    }
}

/// The broker's first message.
pub(super) fn server_first(nonce: &str, credential: &Credential) -> String {
    format!("r={nonce},s={},i={}", encode(&credential.salt), credential.iterations)
}

/// Whether `proof` shows that the client knows the key whose hash is `stored_key`.
pub(super) fn proof_is_valid(stored_key: &Key, auth_message: &[u8], proof: &Key) -> bool {
    let signature = sign(stored_key, auth_message);
    let mut client_key = *proof;
    for (byte, mask) in client_key.iter_mut().zip(signature) {
        *byte ^= mask;
    }
    // Compared in constant time, by way of their codes under one key.
    let key = hmac::Key::new(hmac::HMAC_SHA256, stored_key);
    hmac::verify(&key, &hash(&client_key), hmac::sign(&key, stored_key).as_ref()).is_ok()
}

/// What shows the client that the broker knows its credential, in Base64.
pub(super) fn server_signature(server_key: &Key, auth_message: &[u8]) -> String {
    encode(&sign(server_key, auth_message))
}

/// HMAC-SHA-256.
pub(super) fn sign(key: &[u8], message: &[u8]) -> Key {
    let mut out = Key::default();
    out.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref());
    out
}

/// SHA-256.
pub(super) fn hash(message: &[u8]) -> Key {
    let mut out = Key::default();
    out.copy_from_slice(digest::digest(&digest::SHA256, message).as_ref());
    out
}

/// Base64 with padding, as the messages and the file use it.
pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Reads a `saslname`: `=2C` stands for a comma, `=3D` for an equals sign, and no other `=` may occur.
fn decode_name(text: &str) -> Option<String> {
    let mut name = String::with_capacity(text.len());
    let mut parts = text.split('=');
    name.push_str(parts.next()?);
    for part in parts {
        let (character, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            (None, None) => return None,
        };
        name.push(character);
        name.push_str(rest);
    }
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_message_has_one_form() {
        let first = ClientFirst::parse("n,,n=a=2Cb=3Dc,r=abc").expect("well-formed");
        assert_eq!((first.user.as_str(), first.nonce, first.gs2_header), ("a,b=c", "abc", "n,,"));
        for wrong in [
            "",
            "n=user,r=abc",
            "n,,r=abc,n=user",
            "n,,n=user",
            "n,,n=user,r=",
            "n,,n=,r=abc",
            "n,,n=us=er,r=abc",
            "n,,m=ext,n=user,r=abc",
            "n,a=admin,n=user,r=abc",
            "p=tls-unique,,n=user,r=abc",
            "n,,n=user,r=a b",
        ] {
            assert_eq!(ClientFirst::parse(wrong), None, "{wrong:?}");
        }
        assert!(ClientFirst::parse(&format!("n,,n=user,r={}", "x".repeat(257))).is_none());
    }

    #[test]
    fn the_last_message_needs_a_whole_proof() {
        assert!(ClientFinal::parse("c=biws,r=abc,p=AAAA").is_none());
        assert!(ClientFinal::parse("c=biws,r=abc").is_none());
        assert!(ClientFinal::parse("c=!,r=abc,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=").is_none());
    }
}
