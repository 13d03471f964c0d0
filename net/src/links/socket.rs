//! The UDP socket of an endpoint: many datagrams per system call, each way (GSO, GRO, recvmmsg).
//!
//! Invariant: what the kernel had no room for is kept and goes before everything else; until then nothing more is to be sent.

use super::limits::{DATAGRAM_BYTES, RECEIVED_AT_ONCE, SEND_BATCH_BYTES, SOCKET_BUFFER_BYTES};
use bytes::BytesMut;
use quinn_proto::{EcnCodepoint, Transmit};
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// What came from one sender: datagrams of `stride` bytes in a row, the last may be shorter.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) remote: SocketAddr,
    pub(super) local_ip: Option<IpAddr>,
    pub(super) ecn: Option<EcnCodepoint>,
    pub(super) bytes: BytesMut,
    pub(super) stride: usize,
}

/// See the module's page.
pub(super) struct Socket {
    udp: UdpSocket,
    state: UdpSocketState,
    /// Where the kernel writes to: a part for each message of a batch.
    received: Box<[u8]>,
    kept: Option<(Transmit, Vec<u8>)>,
}

impl Socket {
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let udp = UdpSocket::bind(address)?;
        let state = UdpSocketState::new(UdpSockRef::from(&udp))?;
        // Links work with what the kernel gives, if less fast.
        for result in [
            state.set_recv_buffer_size(UdpSockRef::from(&udp), SOCKET_BUFFER_BYTES),
            state.set_send_buffer_size(UdpSockRef::from(&udp), SOCKET_BUFFER_BYTES),
        ] {
            if let Err(error) = result {
                tracing::debug!(%address, %error, "the buffers of a socket between nodes stay as they are");
            }
        }
        let part = (usize::from(DATAGRAM_BYTES) * state.gro_segments()).min(usize::from(u16::MAX));
        let received = vec![0; part * RECEIVED_AT_ONCE].into_boxed_slice();
        Ok(Self { udp, state, received, kept: None })
    }

    pub(super) const fn udp(&self) -> &UdpSocket {
        &self.udp
    }

    /// Whether path MTU discovery can be relied on.
    pub(super) fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    /// Datagrams of `mtu` bytes that go in one call.
    pub(super) fn batch(&self, mtu: u16) -> usize {
        self.state.max_gso_segments().min(SEND_BATCH_BYTES / usize::from(mtu)).max(1)
    }

    /// Receives one batch. True if there may be more.
    ///
    /// # Errors
    /// As `recvmmsg`, [`io::ErrorKind::WouldBlock`] excepted.
    pub(super) fn receive(&mut self, arrivals: &mut Vec<Arrival>) -> io::Result<bool> {
        let mut meta = [RecvMeta::default(); RECEIVED_AT_ONCE];
        let part = self.received.len() / RECEIVED_AT_ONCE;
        let mut parts = self.received.chunks_exact_mut(part);
        let mut slices: [IoSliceMut<'_>; RECEIVED_AT_ONCE] =
            std::array::from_fn(|_| IoSliceMut::new(parts.next().expect("as many parts as messages")));
        let count = match self.state.recv(UdpSockRef::from(&self.udp), &mut slices, &mut meta) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        arrivals.extend(meta[..count].iter().zip(&slices).filter(|(meta, _)| meta.len > 0).map(|(meta, slice)| {
            Arrival {
                remote: meta.addr,
                local_ip: meta.dst_ip,
                ecn: meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
                bytes: BytesMut::from(&slice[..meta.len]),
                stride: meta.stride.max(1),
            }
        }));
        Ok(count == RECEIVED_AT_ONCE)
    }

    /// Sends again what was kept. True if nothing is kept any longer.
    pub(super) fn unblock(&mut self) -> bool {
        let Some((transmit, bytes)) = self.kept.take() else { return true };
        self.send(transmit, &bytes)
    }

    /// Sends datagrams, or keeps them. False if they are kept.
    pub(super) fn send(&mut self, transmit: Transmit, bytes: &[u8]) -> bool {
        debug_assert!(self.kept.is_none(), "asked to send while something is kept");
        let sent = self.try_send(&transmit, bytes);
        if !sent {
            self.kept = Some((transmit, bytes[..].to_vec()));
        }
        sent
    }

    /// Sends an answer to a datagram that belongs to no link. It is lost when there is no room: so may any datagram be.
    pub(super) fn answer(&self, transmit: &Transmit, bytes: &[u8]) {
        self.try_send(transmit, bytes);
    }

    /// False if the kernel has no room. Other errors are as if the network had lost it, and logged by quinn-udp once a minute.
    fn try_send(&self, transmit: &Transmit, bytes: &[u8]) -> bool {
        let transmit = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
            contents: &bytes[..transmit.size],
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        self.state.send(UdpSockRef::from(&self.udp), &transmit).is_ok()
    }
}

/// How many datagrams a transmit is.
pub(super) fn datagrams(transmit: &Transmit) -> u64 {
    transmit.segment_size.map_or(1, |segment| transmit.size.div_ceil(segment)) as u64
}
