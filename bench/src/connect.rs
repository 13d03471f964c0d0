//! Opening a connection: socket, source address, handshake, subscription.

use crate::frames::{Identity, next_frame, put_connect, put_subscribe};
use crate::transport::{Connection, Transport};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::codec::{DecodeOptions, decode};
use bifro_mqtt::packet::Packet;
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
/// Those of the socket, and of the transport's handshakes.
pub async fn open(transport: &Transport, target: SocketAddr, number: u64) -> io::Result<Connection> {
    transport.connect(socket(target, number).await?, target).await
}

async fn socket(target: SocketAddr, number: u64) -> io::Result<TcpStream> {
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

/// What a handshake leaves behind.
#[derive(Debug)]
pub struct Accepted {
    /// Bytes that came behind it.
    pub held: Vec<u8>,
    /// Publications above QoS 0 the broker takes unacknowledged [MQTT5-3.2.2.3.3].
    pub receive_maximum: u16,
}

/// Sends CONNECT and waits for CONNACK; then SUBSCRIBE and SUBACK if there are `filters`.
///
/// # Errors
/// What the broker answered instead.
pub async fn shake_hands(
    stream: &mut Connection,
    identity: &Identity,
    filters: &[String],
    qos: QoS,
) -> Result<Accepted, ConnectError> {
    let mut out = Vec::with_capacity(128);
    put_connect(identity, &mut out);
    stream.write_all(out).await.0?;
    let mut held = Vec::new();
    let read = |body: &[u8]| (body.get(1).copied().unwrap_or(u8::MAX), receive_maximum(identity.version, body));
    let (code, receive_maximum) = wait_for(stream, 0x20, &mut held, read).await?;
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
    Ok(Accepted { held, receive_maximum })
}

/// The Receive Maximum in the body of a CONNACK; the largest if there is none.
fn receive_maximum(version: Version, body: &[u8]) -> u16 {
    let mut whole = vec![0x20, body.len() as u8];
    whole.extend_from_slice(body);
    let options = DecodeOptions { version: Some(version), packet_bytes_max: u32::MAX };
    let announced = match decode(&whole, &options) {
        Ok(Some((Packet::ConnAck(ack), _))) => ack.properties.receive_maximum(),
        _ => None,
    };
    announced.unwrap_or(u16::MAX)
}

/// Reads until a whole frame is there, takes it off `held` and returns what `read` makes of its body.
async fn wait_for<T>(
    stream: &mut Connection,
    first: u8,
    held: &mut Vec<u8>,
    read: impl Fn(&[u8]) -> T,
) -> Result<T, ConnectError> {
    loop {
        if let Ok(Some(frame)) = next_frame(held) {
            if frame.first != first {
                return Err(ConnectError::Unexpected(frame.first >> 4));
            }
            let (found, len) = (read(frame.body), frame.len);
            held.drain(..len);
            return Ok(found);
        }
        held.reserve(512);
        let (result, filled) = stream.read_more(std::mem::take(held)).await;
        *held = filled;
        if result? == 0 {
            return Err(ConnectError::Closed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receive_maximum_of_the_broker_is_read() {
        assert_eq!(receive_maximum(Version::V5, &[0, 0, 3, 0x21, 0, 64]), 64);
        assert_eq!(receive_maximum(Version::V5, &[0, 0, 0]), u16::MAX);
        assert_eq!(receive_maximum(Version::V311, &[0, 0]), u16::MAX);
    }

    #[test]
    fn loopback_connections_go_through_the_source_addresses() {
        let target = SocketAddr::from(([127, 0, 0, 1], 1883));
        assert_eq!(source_of(target, 0), None);
        assert_eq!(source_of(target, PORTS_PER_SOURCE), Some(Ipv4Addr::new(127, 0, 0, 2)));
        assert_eq!(source_of(SocketAddr::from(([10, 0, 0, 1], 1883)), PORTS_PER_SOURCE), None);
    }
}
