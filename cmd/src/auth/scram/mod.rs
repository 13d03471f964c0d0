//! MQTT 5 enhanced authentication with SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding.
//!
//! ```text
//!   client                                                   broker
//!   CONNECT  n,,n=user,r=C                          ──►      first step
//!                                                   ◄──      AUTH 0x18  r=CS,s=salt,i=iterations
//!   AUTH 0x18  c=biws,r=CS,p=proof                  ──►      second step
//!                                                   ◄──      CONNACK (or AUTH 0x00)  v=signature
//! ```
//!
//! The broker never sees the password, and its file does not hold what is needed to log in. An unknown user gets a salt like
//! any other and fails at the proof, so that nobody can ask who exists. Names and passwords are compared as bytes: SASLprep is
//! the identity on printable ASCII, to which `bifroctl passwd --scram` keeps them.

mod exchange;
pub(crate) mod file;

use self::exchange::{ClientFinal, ClientFirst, Opening, proof_is_valid, server_first, server_signature};
use self::file::{Credential, ScramFile};
use super::chain::{Answer, Attempt, Call, Provider};
use super::config::ScramConfig;
use super::error::LoadError;
use bifro_core::plugin::{EnhancedAuth, Grant, Refusal};
use ring::rand::{SecureRandom, SystemRandom};
use std::sync::Arc;

/// The method's name in CONNECT and AUTH.
const METHOD: &str = "SCRAM-SHA-256";

/// Bytes of randomness in the broker's nonce.
const NONCE_BYTES: usize = 18;

/// The provider.
#[derive(Debug)]
pub(super) struct Scram {
    file: ScramFile,
}

impl Scram {
    /// Loads the file as a whole.
    ///
    /// # Errors
    /// [`LoadError`], with file and line.
    pub(super) fn load(config: &ScramConfig) -> Result<Self, LoadError> {
        Ok(Self { file: ScramFile::load(&config.path)? })
    }

    fn answer(&self, enhanced: &EnhancedAuth) -> Answer {
        let message = enhanced.data.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok());
        let answer = match (&enhanced.state, message) {
            (None, Some(message)) => self.open(message),
            (Some(state), Some(message)) => self.close(state, message),
            (_, None) => None,
        };
        answer.unwrap_or(Answer::Refused(Refusal::BadCredentials))
    }

    /// First step: answers any well-formed opening, whoever it is about.
    fn open(&self, message: &str) -> Option<Answer> {
        let mut random = [0; NONCE_BYTES];
        if SystemRandom::new().fill(&mut random).is_err() {
            return Some(Answer::Refused(Refusal::Unavailable));
        }
        self.open_with(message, &exchange::encode(&random))
    }

    fn open_with(&self, message: &str, nonce: &str) -> Option<Answer> {
        let first = ClientFirst::parse(message)?;
        let credential = self.file.credential_or_decoy(&first.user);
        let opening = Opening {
            gs2_header: first.gs2_header.to_owned(),
            nonce: format!("{}{nonce}", first.nonce),
            client_first_bare: first.bare.to_owned(),
            server_first: String::new(),
            user: first.user,
        };
        let opening = Opening { server_first: server_first(&opening.nonce, &credential), ..opening };
        let state = serde_json::to_vec(&opening).ok()?;
        Some(Answer::Continue { data: opening.server_first.into_bytes().into(), state: state.into() })
    }

    /// Second step: the proof.
    fn close(&self, state: &[u8], message: &str) -> Option<Answer> {
        let opening: Opening = serde_json::from_slice(state).ok()?;
        let last = ClientFinal::parse(message)?;
        if last.channel_binding != opening.gs2_header.as_bytes() || last.nonce != opening.nonce {
            return None;
        }
        let auth_message = format!("{},{},{}", opening.client_first_bare, opening.server_first, last.without_proof);
        // Looked up anew: if the file was reloaded meanwhile, what it says now counts. A decoy has no user to be granted.
        let Credential { stored_key, server_key, identity, .. } = self.file.credential_or_decoy(&opening.user);
        let valid = proof_is_valid(&stored_key, auth_message.as_bytes(), &last.proof);
        let identity = identity.filter(|_| valid)?;
        let signature = server_signature(&server_key, auth_message.as_bytes());
        Some(Answer::Granted(Box::new(Grant {
            tenant: identity.tenant,
            user: identity.user,
            data: Some(format!("v={signature}").into_bytes().into()),
            ..Grant::default()
        })))
    }
}

impl Provider for Scram {
    fn attempt(self: Arc<Self>, call: &Arc<Call>) -> Attempt {
        Attempt::Now(match &call.request.enhanced {
            Some(enhanced) if self.speaks(&enhanced.method) => self.answer(enhanced),
            _ => Answer::NotMine,
        })
    }

    fn speaks(&self, method: &str) -> bool {
        method == METHOD
    }
}

#[cfg(test)]
mod tests;
