//! Signed tokens and the keys to check them with, made here with `ring`, not with the library the broker checks them with.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use ring::{hmac, rsa};
use serde_json::{Value, json};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since the epoch, this far from now.
pub(super) fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
    i64::try_from(now).expect("not yet so late") + seconds
}

/// Something that signs tokens.
pub(super) enum Signer {
    Hs256(hmac::Key),
    Rs256(RsaKeyPair),
    Es256(EcdsaKeyPair),
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    pub(super) fn secret(secret: &[u8]) -> Self {
        Self::Hs256(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// A fresh P-256 key.
    pub(super) fn elliptic() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let der = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("random numbers");
        Self::Es256(EcdsaKeyPair::from_pkcs8(algorithm, der.as_ref(), &random).expect("what ring has made"))
    }

    /// A fresh RSA key, by way of `openssl`; none if that is not installed.
    pub(super) fn rsa() -> Option<Self> {
        let arguments =
            ["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-outform", "DER"];
        let output = Command::new("openssl").args(arguments).output().ok()?;
        assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
        // Older versions of openssl write PKCS #1 here, newer ones PKCS #8.
        let pair = RsaKeyPair::from_pkcs8(&output.stdout).or_else(|_| RsaKeyPair::from_der(&output.stdout));
        Some(Self::Rs256(pair.expect("an RSA key")))
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Hs256(_) => "HS256",
            Self::Rs256(_) => "RS256",
            Self::Es256(_) => "ES256",
        }
    }

    /// The public key as a JSON Web Key.
    pub(super) fn jwk(&self, id: &str) -> Value {
        match self {
            Self::Hs256(_) => panic!("a secret has no public half"),
            Self::Rs256(pair) => {
                let public = rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({"kty": "RSA", "use": "sig", "kid": id, "n": encode(&public.n), "e": encode(&public.e)})
            }
            Self::Es256(pair) => {
                // An uncompressed point: 0x04, x, y.
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "kid": id, "x": encode(x), "y": encode(y)})
            }
        }
    }

    /// A token with these claims.
    pub(super) fn token(&self, key_id: Option<&str>, claims: &Value) -> String {
        let mut header = json!({"typ": "JWT", "alg": self.algorithm()});
        if let Some(id) = key_id {
            header["kid"] = id.into();
        }
        let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let random = SystemRandom::new();
        let signature = match self {
            Self::Hs256(key) => hmac::sign(key, signed.as_bytes()).as_ref().to_vec(),
            Self::Rs256(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).expect("a long enough key");
                signature
            }
            Self::Es256(pair) => pair.sign(&random, signed.as_bytes()).expect("random numbers").as_ref().to_vec(),
        };
        format!("{signed}.{}", encode(&signature))
    }
}

/// A token whose header says that it needs no signature.
pub(super) fn unsigned_token(claims: &Value) -> String {
    let header = json!({"typ": "JWT", "alg": "none"});
    format!("{}.{}.", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()))
}
