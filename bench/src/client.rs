//! A client for loads that go step by step: publishes a batch and waits for its acknowledgements, receives a known number
//! of messages.

use crate::connect::{ConnectError, open, shake_hands};
use crate::frames::{Identity, PING_REQUEST, Stamp, next_frame, put_disconnect, split_publish};
use crate::options::LoadOptions;
use crate::transport::{Connection, Transport};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use std::io;
use std::time::Duration;

/// How long a step waits for the broker.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection with what it has received.
#[derive(Debug)]
pub struct Client {
    stream: Connection,
    version: Version,
    held: Vec<u8>,
    /// Publications above QoS 0 the broker takes unacknowledged.
    pub receive_maximum: u16,
}

/// What came in one step.
#[derive(Debug, Default)]
struct Arrived {
    messages: u64,
    acknowledgements: u64,
    pongs: u64,
}

impl Client {
    /// Connects as `client_id` and subscribes. `number` chooses target and source address.
    ///
    /// # Errors
    /// Those of the handshake.
    pub async fn connect(
        options: &LoadOptions,
        client_id: String,
        clean: bool,
        filters: &[String],
        number: u64,
    ) -> Result<Self, ConnectError> {
        let target = options.targets[number as usize % options.targets.len()];
        let mut stream = open(&Transport::new(options)?, target, number).await?;
        let version = options.version();
        let identity = Identity { version, client_id, clean, keep_alive_s: 0, credentials: options.credentials() };
        let accepted = shake_hands(&mut stream, &identity, filters, options.quality()).await?;
        Ok(Self { stream, version, held: accepted.held, receive_maximum: accepted.receive_maximum })
    }

    /// Sends `frames`, `expected` messages in all, and waits until the broker has acknowledged (at QoS 0: read) them.
    ///
    /// # Errors
    /// If the connection fails or the broker does not answer in time.
    pub async fn publish(&mut self, frames: Vec<u8>, qos: QoS, expected: u64) -> io::Result<()> {
        self.stream.write_all(frames).await.0?;
        if qos == QoS::AtMostOnce {
            self.stream.write_all(PING_REQUEST.to_vec()).await.0?;
            return self.step(|arrived| arrived.pongs > 0, &mut |_| {}).await;
        }
        self.step(|arrived| arrived.acknowledgements >= expected, &mut |_| {}).await
    }

    /// Receives and acknowledges `expected` messages; `each` is told their stamps.
    ///
    /// # Errors
    /// If the connection fails or they do not come in time.
    pub async fn receive(&mut self, expected: u64, each: &mut dyn FnMut(Stamp)) -> io::Result<()> {
        self.step(|arrived| arrived.messages >= expected, each).await
    }

    /// Waits until the broker closes the connection.
    ///
    /// # Errors
    /// If it does not in time.
    pub async fn closed(mut self) -> io::Result<()> {
        loop {
            match self.fill().await {
                Ok(()) => self.held.clear(),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(error),
                Err(_) => return Ok(()),
            }
        }
    }

    /// Says goodbye and waits until the broker has closed.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn disconnect(mut self) -> io::Result<()> {
        let mut out = Vec::new();
        put_disconnect(self.version, &mut out);
        self.stream.write_all(out).await.0?;
        self.closed().await
    }

    /// Handles what comes until `is_done`.
    async fn step(&mut self, is_done: impl Fn(&Arrived) -> bool, each: &mut dyn FnMut(Stamp)) -> io::Result<()> {
        let mut arrived = Arrived::default();
        loop {
            let mut out = Vec::new();
            self.handle(&mut arrived, &mut out, each)?;
            if !out.is_empty() {
                self.stream.write_all(out).await.0?;
            }
            if is_done(&arrived) {
                return Ok(());
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> io::Result<()> {
        let read = self.stream.read_more(Vec::with_capacity(64 * 1024));
        let (result, bytes) = monoio::time::timeout(PATIENCE, read)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the broker did not answer in time"))?;
        if result? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the broker closed the connection"));
        }
        self.held.extend_from_slice(&bytes);
        Ok(())
    }

    fn handle(&mut self, arrived: &mut Arrived, out: &mut Vec<u8>, each: &mut dyn FnMut(Stamp)) -> io::Result<()> {
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "the broker sent a malformed packet");
        let mut at = 0;
        while let Some(frame) = next_frame(&self.held[at..]).map_err(io::Error::other)? {
            at += frame.len;
            let id: [u8; 2] = frame.body.first_chunk().copied().unwrap_or_default();
            match frame.first >> 4 {
                3 => {
                    let (id, payload) = split_publish(self.version, frame.first, frame.body).ok_or_else(malformed)?;
                    if let Some(stamp) = Stamp::read(payload) {
                        arrived.messages += 1;
                        each(stamp);
                    }
                    let [high, low] = id.to_be_bytes();
                    match frame.first >> 1 & 3 {
                        0 => {}
                        1 => out.extend_from_slice(&[0x40, 2, high, low]),
                        _ => out.extend_from_slice(&[0x50, 2, high, low]),
                    }
                }
                4 | 7 => arrived.acknowledgements += 1,
                5 => out.extend_from_slice(&[0x62, 2, id[0], id[1]]),
                6 => out.extend_from_slice(&[0x70, 2, id[0], id[1]]),
                13 => arrived.pongs += 1,
                _ => {}
            }
        }
        self.held.drain(..at);
        Ok(())
    }
}
