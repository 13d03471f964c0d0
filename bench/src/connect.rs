//! Opening a connection: socket, source address, handshake, subscription.

use crate::frames::{Identity, next_frame, put_connect, put_subscribe};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::TcpStream;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Connections from one loopback address before the next one is used: the kernel has 28,232 ports for each.
const PORTS_PER_SOURCE: u64 = 20_000;

/// Source addresses of the loopback network used, 127.0.0.2 and up.
const SOURCES: u64 = 250;

/// Why a client is not connected.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The socket failed.
    #[error("connection to the broker: {source}{hint}", hint = hint(.0), source = .0)]
    Io(#[from] io::Error),
    /// The broker closed the connection.
    #[error("the broker closed the connection during the handshake")]
    Closed,
    /// CONNACK with a code.
    #[error("CONNACK with code {0}")]
    Refused(u8),
    /// SUBACK with a code.
    #[error("SUBACK with code {0}")]
    SubscriptionRefused(u8),
    /// Another packet than was due.
    #[error("a packet of type {0} instead of the acknowledgement")]
    Unexpected(u8),
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE) => " (raise the limit of open descriptors: ulimit -Hn, or LimitNOFILE=)",
        Some(libc::EADDRNOTAVAIL) => " (no free port: fewer connections, or several --target addresses)",
        _ => "",
    }
}

/// The source address of connection `number` to `target`: on loopback the ports of one address do not last.
fn source_of(target: SocketAddr, number: u64) -> Option<Ipv4Addr> {
    let IpAddr::V4(address) = target.ip() else { return None };
    let block = number / PORTS_PER_SOURCE;
    (address.is_loopback() && block > 0).then(|| Ipv4Addr::new(127, 0, 0, (1 + block % SOURCES) as u8))
}

/// Connects to `target` as connection `number` of this process.
///
/// # Errors
/// Those of the socket.
pub async fn open(target: SocketAddr, number: u64) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source_of(target, number) {
        let on: libc::c_int = 1;
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the option is an int that outlives the call. The port is then chosen by connect, per target.
        unsafe {
            let option = libc::IP_BIND_ADDRESS_NO_PORT;
            libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, option, (&raw const on).cast(), size);
        }
        socket.bind(&SocketAddr::new(source.into(), 0).into())?;
    }
    socket.set_nonblocking(true)?;
    let is_pending = match socket.connect(&target.into()) {
        Ok(()) => false,
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => true,
        Err(error) => return Err(error),
    };
    // The ring wants sockets that block: it waits for them itself.
    socket.set_nonblocking(false)?;
    let stream = TcpStream::from_std(socket.into())?;
    if is_pending {
        stream.writable(true).await?;
        // SAFETY: the descriptor is open as long as the stream, which outlives the borrowed view.
        let descriptor = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
        if let Some(error) = SockRef::from(&descriptor).take_error()? {
            return Err(error);
        }
    }
    Ok(stream)
}

/// Sends CONNECT and waits for CONNACK; then SUBSCRIBE and SUBACK if there are `filters`. Returns what came behind them.
///
/// # Errors
/// What the broker answered instead.
pub async fn shake_hands(
    stream: &mut TcpStream,
    identity: &Identity,
    filters: &[String],
    qos: QoS,
) -> Result<Vec<u8>, ConnectError> {
    let mut out = Vec::with_capacity(128);
    put_connect(identity, &mut out);
    stream.write_all(out).await.0?;
    let mut held = Vec::new();
    let code = wait_for(stream, 0x20, &mut held, |body| body.get(1).copied().unwrap_or(u8::MAX)).await?;
    if code != 0 {
        return Err(ConnectError::Refused(code));
    }
    if !filters.is_empty() {
        let mut out = Vec::with_capacity(128);
        put_subscribe(identity.version, filters, qos, &mut out);
        stream.write_all(out).await.0?;
        let first_code = if identity.version == Version::V5 { 3 } else { 2 };
        let worst = |body: &[u8]| body.get(first_code..).and_then(|codes| codes.iter().max()).copied().unwrap_or(0x80);
        let code = wait_for(stream, 0x90, &mut held, worst).await?;
        if code >= 0x80 {
            return Err(ConnectError::SubscriptionRefused(code));
        }
    }
    Ok(held)
}

/// Reads until a whole frame is there, takes it off `held` and returns what `read` makes of its body.
async fn wait_for(
    stream: &mut TcpStream,
    first: u8,
    held: &mut Vec<u8>,
    read: impl Fn(&[u8]) -> u8,
) -> Result<u8, ConnectError> {
    let mut buffer = Vec::with_capacity(512);
    loop {
        if let Ok(Some(frame)) = next_frame(held) {
            if frame.first != first {
                return Err(ConnectError::Unexpected(frame.first >> 4));
            }
            let (code, len) = (read(frame.body), frame.len);
            held.drain(..len);
            return Ok(code);
        }
        let (result, filled) = stream.read(buffer).await;
        if result? == 0 {
            return Err(ConnectError::Closed);
        }
        held.extend_from_slice(&filled);
        buffer = filled;
        buffer.clear();
    }
}
