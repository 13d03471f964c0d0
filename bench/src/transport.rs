//! What lies between a socket and MQTT: nothing, TLS, WebSocket, or both.

use crate::options::LoadOptions;
use crate::stage::{Stages, TlsSettings};
use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt, OwnedReadHalf, OwnedWriteHalf, Splitable};
use monoio::net::TcpStream;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

/// Bytes received at once before stages take them apart.
const RECEIVED_BYTES: usize = 64 * 1024;

/// How connections are to be made.
#[derive(Clone, Debug, Default)]
pub struct Transport {
    tls: Option<TlsSettings>,
    websocket_path: Option<String>,
}

impl Transport {
    /// As the options say.
    ///
    /// # Errors
    /// If a certificate file cannot be used, or nothing says whom to trust.
    pub fn new(options: &LoadOptions) -> io::Result<Self> {
        let tls =
            options.tls.then(|| TlsSettings::new(options.ca.as_deref(), options.insecure, options.server_name.clone()));
        let websocket_path = options.ws.then(|| options.ws_path.clone());
        Ok(Self { tls: tls.transpose()?, websocket_path })
    }

    /// Goes through the handshakes on a connected socket.
    ///
    /// # Errors
    /// Those of the socket, and what the peer did wrong.
    pub async fn connect(&self, mut stream: TcpStream, target: SocketAddr) -> io::Result<Connection> {
        if self.tls.is_none() && self.websocket_path.is_none() {
            return Ok(Connection { stream, stages: None });
        }
        let tls = self.tls.as_ref().map(|settings| settings.session(target.ip())).transpose()?;
        let mut stages = Stages::new(tls, self.websocket_path.as_deref(), target)?;
        let mut received = Vec::with_capacity(RECEIVED_BYTES);
        loop {
            let out = stages.outgoing()?;
            if !out.is_empty() {
                stream.write_all(out).await.0?;
            }
            if stages.is_open() {
                return Ok(Connection { stream, stages: Some(Rc::new(RefCell::new(stages))) });
            }
            let result;
            (result, received) = stream.read(received).await;
            if result? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "closed during the handshake of TLS or WebSocket",
                ));
            }
            stages.receive(&received)?;
            received.clear();
        }
    }
}

type Shared = Option<Rc<RefCell<Stages>>>;

/// A connection to a broker.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    stages: Shared,
}

impl Connection {
    /// Appends at least one byte to `buffer`, which is returned; a count of zero is the end.
    pub async fn read_more(&mut self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        read_more(&mut self.stream, self.stages.as_deref(), buffer).await
    }

    /// Sends everything and returns the buffer.
    pub async fn write_all(&mut self, bytes: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        write_all(&mut self.stream, self.stages.as_deref(), bytes).await
    }

    /// For a task that reads and one that writes.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        let (reader, writer) = self.stream.into_split();
        (ReadHalf { reader, stages: self.stages.clone() }, WriteHalf { writer, stages: self.stages })
    }
}

/// The reading side of a [`Connection`].
#[derive(Debug)]
pub struct ReadHalf {
    reader: OwnedReadHalf<TcpStream>,
    stages: Shared,
}

impl ReadHalf {
    /// As [`Connection::read_more`].
    pub async fn read_more(&mut self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        read_more(&mut self.reader, self.stages.as_deref(), buffer).await
    }
}

/// The writing side of a [`Connection`].
#[derive(Debug)]
pub struct WriteHalf {
    writer: OwnedWriteHalf<TcpStream>,
    stages: Shared,
}

impl WriteHalf {
    /// As [`Connection::write_all`].
    pub async fn write_all(&mut self, bytes: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        write_all(&mut self.writer, self.stages.as_deref(), bytes).await
    }
}

async fn read_more(
    reader: &mut impl AsyncReadRent,
    stages: Option<&RefCell<Stages>>,
    mut buffer: Vec<u8>,
) -> (io::Result<usize>, Vec<u8>) {
    let before = buffer.len();
    let Some(stages) = stages else {
        let (result, slice) = reader.read(buffer.slice_mut(before..)).await;
        return (result, slice.into_inner());
    };
    // What came with the last handshake is there without reading.
    let mut taken = stages.borrow_mut().take(&mut buffer);
    let mut received = Vec::new();
    while taken.is_ok() && buffer.len() == before && !stages.borrow().is_closed() {
        received.reserve(RECEIVED_BYTES);
        let result;
        (result, received) = reader.read(received).await;
        match result {
            Ok(0) => return (Ok(0), buffer),
            Ok(_) => {}
            Err(error) => return (Err(error), buffer),
        }
        let mut stages = stages.borrow_mut();
        taken = stages.receive(&received).and_then(|()| stages.take(&mut buffer));
        received.clear();
    }
    (taken.map(|()| buffer.len() - before), buffer)
}

async fn write_all(
    writer: &mut impl AsyncWriteRentExt,
    stages: Option<&RefCell<Stages>>,
    bytes: Vec<u8>,
) -> (io::Result<usize>, Vec<u8>) {
    let Some(stages) = stages else { return writer.write_all(bytes).await };
    let sealed = stages.borrow_mut().seal(&bytes);
    match sealed {
        Ok(sealed) => (writer.write_all(sealed).await.0, bytes),
        Err(error) => (Err(error), bytes),
    }
}
