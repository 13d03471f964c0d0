//! TLS 1.2 and 1.3 by rustls, as its unbuffered machine: records in, plaintext out, and the other way round.
//!
//! Between calls a session holds only the bytes of a record or handshake message that is not yet complete, so an idle one
//! holds none. What it may hold is bounded by [`TLS_PENDING_BYTES_MAX`].

mod config;
mod names;

#[cfg(test)]
mod tests;

pub use config::{
    CERTIFICATES_MAX, CertificateSource, ClientAuth, PEM_BYTES_MAX, PemFile, TlsCell, TlsConfigError, TlsSource,
    TlsVersion, load,
};

use crate::stage::StageError;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, WriteTraffic};
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// Bytes that may wait for the rest of their record or handshake message: rustls takes handshake messages of up to 64 KiB
/// and records of up to 16 KiB + 2 KiB of expansion + 5. A peer that exceeds it is disconnected.
pub const TLS_PENDING_BYTES_MAX: usize = 0xFFFF + RECORD_PLAIN_BYTES + 2_048 + 5;

/// Most plaintext in one record (RFC 8446, 5.1).
const RECORD_PLAIN_BYTES: usize = 16 << 10;

/// Room for what encryption adds to one record: header, explicit nonce, content type, tag.
const RECORD_EXTRA_BYTES: usize = 64;

/// Why a TLS session ended.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The peer broke the protocol, or shares no version, cipher or trusted certificate with us.
    #[error(transparent)]
    Peer(#[from] rustls::Error),
    /// More than [`TLS_PENDING_BYTES_MAX`] without completing a message.
    #[error("incomplete message too long")]
    PendingTooLong,
    /// The session's keys must not encrypt any more data.
    #[error("session keys exhausted")]
    KeysExhausted,
    /// The session can send no application data: it is not established, or it has ended.
    #[error("session cannot send")]
    NotWritable,
    /// The configuration and the provider do not fit together; found out when the session was set up.
    #[error("configuration unusable: {0}")]
    Unusable(rustls::Error),
}

/// One connection's TLS.
pub(super) struct TlsSession {
    connection: Result<UnbufferedServerConnection, rustls::Error>,
    /// Input of which rustls has not let go.
    pending: Vec<u8>,
    peer_closed: bool,
    /// A fatal alert or close_notify has been sent: nothing more leaves.
    ended: bool,
}

impl fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSession")
            .field("established", &self.is_established())
            .field("pending", &self.pending.len())
            .field("peer_closed", &self.peer_closed)
            .field("ended", &self.ended)
            .finish()
    }
}

/// What one step of the machine came to.
enum Step {
    Again,
    Idle,
    Failed(StageError),
}

impl TlsSession {
    /// A server session under `config`, kept for its whole life.
    pub(super) fn new(config: Arc<rustls::ServerConfig>) -> Self {
        let connection = UnbufferedServerConnection::new(config);
        Self { connection, pending: Vec::new(), peer_closed: false, ended: false }
    }

    /// Takes `bytes` from the socket, hands plaintext to `sink`, appends handshake records and alerts to `net`.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        net: &mut Vec<u8>,
        mut sink: impl FnMut(&[u8]) -> Result<(), StageError>,
    ) -> Result<(), StageError> {
        let connection = match &mut self.connection {
            Ok(connection) => connection,
            Err(error) => return Err(TlsError::Unusable(error.clone()).into()),
        };
        self.pending.extend_from_slice(bytes);
        let mut used = 0;
        let result = loop {
            let status = connection.process_tls_records(&mut self.pending[used..]);
            let mut discard = status.discard;
            let step = match status.state {
                Err(error) => Step::Failed(TlsError::Peer(error).into()),
                Ok(ConnectionState::PeerClosed) => {
                    self.peer_closed = true;
                    Step::Again
                }
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    let mut step = Step::Again;
                    while let Some(record) = traffic.next_record() {
                        let outcome = record.map_err(TlsError::Peer).map_err(StageError::from).and_then(|record| {
                            discard += record.discard;
                            sink(record.payload)
                        });
                        if let Err(error) = outcome {
                            step = Step::Failed(error);
                            break;
                        }
                    }
                    step
                }
                Ok(state) => transmit(state, net),
            };
            used += discard;
            match step {
                Step::Again => {}
                Step::Idle => break Ok(()),
                Step::Failed(error) => break Err(error),
            }
        };
        self.settle(used, result, net)
    }

    /// Drops what has been used, sends the alert of a failure, checks the bound.
    fn settle(&mut self, used: usize, result: Result<(), StageError>, net: &mut Vec<u8>) -> Result<(), StageError> {
        if used == self.pending.len() {
            self.pending = Vec::new();
        } else {
            self.pending.drain(..used);
        }
        match result {
            Err(error @ StageError::Tls(_)) => {
                self.flush(net);
                self.ended = true;
                Err(error)
            }
            // The stage above has failed on application data. Unread records are dropped so that its answer can still be
            // sent; rustls points into none of them, for application data never comes amid a handshake message.
            Err(error) => {
                self.pending = Vec::new();
                Err(error)
            }
            Ok(()) if self.pending.len() > TLS_PENDING_BYTES_MAX => {
                self.ended = true;
                Err(TlsError::PendingTooLong.into())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Appends the records that encrypt `pieces`, in order and packed into as few records as possible, to `net`.
    pub(super) fn encrypt<'a>(
        &mut self,
        pieces: impl Iterator<Item = &'a [u8]>,
        net: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        let mut pieces = pieces.filter(|piece| !piece.is_empty()).peekable();
        if pieces.peek().is_none() {
            return Ok(());
        }
        self.with_traffic(net, |traffic, net| {
            let mut record = Vec::new();
            for mut piece in pieces {
                while record.len() + piece.len() >= RECORD_PLAIN_BYTES {
                    let (head, tail) = piece.split_at(RECORD_PLAIN_BYTES - record.len());
                    if record.is_empty() {
                        encrypt(traffic, head, net)?;
                    } else {
                        record.extend_from_slice(head);
                        encrypt(traffic, &record, net)?;
                        record.clear();
                    }
                    piece = tail;
                }
                record.extend_from_slice(piece);
            }
            encrypt(traffic, &record, net)
        })
    }

    /// Encrypts `last` as far as the session still can, then closes it.
    pub(super) fn farewell(&mut self, last: &[u8], net: &mut Vec<u8>) {
        if self.is_established() && self.encrypt(std::iter::once(last), net).is_ok() {
            self.close(net);
        }
    }

    /// Appends close_notify, if the session is established and has not ended.
    pub(super) fn close(&mut self, net: &mut Vec<u8>) {
        if self.ended || !self.is_established() {
            return;
        }
        // A session that cannot send has nothing to close politely: dropping the connection is all that is left.
        let _unsendable = self
            .with_traffic(net, |traffic, net| append(net, RECORD_EXTRA_BYTES, |room| traffic.queue_close_notify(room)));
        self.ended = true;
    }

    /// The handshake is complete.
    pub(super) fn is_established(&self) -> bool {
        self.connection.as_ref().is_ok_and(|connection| !connection.is_handshaking())
    }

    /// The peer has sent close_notify.
    pub(super) const fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// DER of the leaf certificate the client has proven to own.
    pub(super) fn client_certificate(&self) -> Option<&[u8]> {
        let connection = self.connection.as_ref().ok().filter(|connection| !connection.is_handshaking())?;
        connection.peer_certificates()?.first().map(AsRef::as_ref)
    }

    /// Sends what rustls has queued, the alert above all. A failed session must not be asked for more than that: it would look
    /// at the offending bytes once again.
    fn flush(&mut self, net: &mut Vec<u8>) {
        let Ok(connection) = &mut self.connection else { return };
        while connection.wants_write() {
            match connection.process_tls_records(&mut self.pending).state {
                Ok(state @ ConnectionState::EncodeTlsData(_)) => transmit(state, net),
                _ => return,
            };
        }
    }

    /// Brings the machine to the state in which it can send, then runs `with`.
    fn with_traffic<T>(
        &mut self,
        net: &mut Vec<u8>,
        with: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>, &mut Vec<u8>) -> Result<T, TlsError>,
    ) -> Result<T, TlsError> {
        let connection = self.connection.as_mut().map_err(|error| TlsError::Unusable(error.clone()))?;
        if self.ended {
            return Err(TlsError::NotWritable);
        }
        loop {
            // `receive` has left nothing complete in `pending`, so there is nothing here to read or discard.
            let status = connection.process_tls_records(&mut self.pending);
            debug_assert_eq!(status.discard, 0);
            match status.state? {
                ConnectionState::WriteTraffic(mut traffic) => return with(&mut traffic, net),
                state => {
                    if !matches!(transmit(state, net), Step::Again) {
                        return Err(TlsError::NotWritable);
                    }
                }
            }
        }
    }
}

/// Handles the states in which rustls has something to send; any other has to wait for the peer.
fn transmit(state: ConnectionState<'_, '_, ServerConnectionData>, net: &mut Vec<u8>) -> Step {
    match state {
        ConnectionState::EncodeTlsData(mut data) => {
            let start = net.len();
            loop {
                match data.encode(&mut net[start..]) {
                    Ok(written) => {
                        net.truncate(start + written);
                        return Step::Again;
                    }
                    Err(EncodeError::InsufficientSize(error)) => net.resize(start + error.required_size, 0),
                    Err(EncodeError::AlreadyEncoded) => return Step::Again,
                }
            }
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Step::Again
        }
        _ => Step::Idle,
    }
}

/// Appends the records of `plain`, which fit one record, to `net`.
fn encrypt(
    traffic: &mut WriteTraffic<'_, ServerConnectionData>,
    plain: &[u8],
    net: &mut Vec<u8>,
) -> Result<(), TlsError> {
    append(net, plain.len() + RECORD_EXTRA_BYTES, |room| traffic.encrypt(plain, room))
}

/// Lets `write` fill room at the end of `net`: first `expected` bytes, then as many as it says it needs.
fn append(
    net: &mut Vec<u8>,
    expected: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), TlsError> {
    let start = net.len();
    net.resize(start + expected, 0);
    loop {
        match write(&mut net[start..]) {
            Ok(written) => {
                net.truncate(start + written);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(error)) => net.resize(start + error.required_size, 0),
            Err(EncryptError::EncryptExhausted) => {
                net.truncate(start);
                return Err(TlsError::KeysExhausted);
            }
        }
    }
}
