//! The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), written from the RFCs and not from the broker.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};
use std::num::NonZeroU32;

const ITERATIONS: u32 = 4_096;
const SALT: &[u8] = b"sixteen bytes of";

fn salted_password(password: &str, salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut key = [0; 32];
    let iterations = NonZeroU32::new(iterations).expect("not zero");
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password.as_bytes(), &mut key);
    key
}

fn mac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// A line of the broker's credential file.
pub(crate) fn credential_line(user: &str, password: &str) -> String {
    let salted = salted_password(password, SALT, ITERATIONS);
    let stored = hash(&mac(&salted, b"Client Key"));
    let server = mac(&salted, b"Server Key");
    let encode = |bytes: &[u8]| STANDARD.encode(bytes);
    format!("{user}:{ITERATIONS}:{}:{}:{}\n", encode(SALT), encode(&stored), encode(&server))
}

/// One exchange.
pub(crate) struct Exchange {
    user: String,
    password: String,
    nonce: String,
}

impl Exchange {
    pub(crate) fn new(user: &str, password: &str) -> Self {
        Self { user: user.into(), password: password.into(), nonce: crate::suite::name("rOprNGfwEbeRWgbNEkqO") }
    }

    /// The first message.
    pub(crate) fn first(&self) -> String {
        format!("n,,{}", self.first_bare())
    }

    fn first_bare(&self) -> String {
        format!("n={},r={}", self.user, self.nonce)
    }

    /// The final message for the server's first, and the server's final message to expect.
    pub(crate) fn last(&self, server_first: &[u8]) -> (String, String) {
        let server_first = std::str::from_utf8(server_first).expect("SCRAM is text");
        let field = |key: &str| {
            let found = server_first.split(',').find_map(|part| part.strip_prefix(key));
            found.unwrap_or_else(|| panic!("no {key} in {server_first}"))
        };
        let (nonce, iterations) = (field("r="), field("i=").parse().expect("a number"));
        assert!(nonce.starts_with(&self.nonce) && nonce.len() > self.nonce.len(), "the server adds to the nonce");
        let salt = STANDARD.decode(field("s=")).expect("Base64");
        let salted = salted_password(&self.password, &salt, iterations);
        let client_key = mac(&salted, b"Client Key");
        let without_proof = format!("c=biws,r={nonce}");
        let message = format!("{},{server_first},{without_proof}", self.first_bare());
        let signature = mac(&hash(&client_key), message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        let server_signature = mac(&mac(&salted, b"Server Key"), message.as_bytes());
        (format!("{without_proof},p={}", STANDARD.encode(proof)), format!("v={}", STANDARD.encode(server_signature)))
    }
}
