//! What links are bounded by. What a running node may want otherwise is a field of [`LinkLimits`]; the rest are constants.

use std::time::Duration;

/// Bytes a link may have queued in both lanes together: beyond that a message is refused, for its peer is too slow. What QUIC has taken
/// over and not had acknowledged comes on top, up to [`SEND_WINDOW_BYTES`].
pub const QUEUED_BYTES: usize = 64 << 20;
/// Bytes of one message, the length before it not counted. A longer one is not sent, and ends the link on which it is announced.
pub const MESSAGE_BYTES: usize = 16 << 20;
/// Bytes of one lane that may be on their way to this end or wait here for the one that was lost before them.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// The same for both lanes of a link: one lane alone cannot use up what the other needs.
pub const LINK_WINDOW_BYTES: u32 = 2 * STREAM_WINDOW_BYTES;
/// Bytes QUIC may hold for a link until the peer has acknowledged them. More than the peer's windows allow to be sent, so that Bulk, which
/// its own window holds back first, never keeps Control from being sent.
pub const SEND_WINDOW_BYTES: u64 = 2 * LINK_WINDOW_BYTES as u64;
/// Bytes a peer may make this end hold before it has proven the secret: its greeting and little else.
pub const UNPROVEN_WINDOW_BYTES: u32 = 1024;
/// Connections of others that have not proven the secret, those being closed included. Whoever calls beyond that is refused.
pub const UNPROVEN_LINKS: usize = 256;
/// From so many unproven connections on, a caller has to show first that it receives at the address it sends from (RFC 9000, 8.1.2):
/// forged addresses cannot use up [`UNPROVEN_LINKS`].
pub const UNVALIDATED_LINKS: usize = 32;
/// Bytes taken from the socket in one turn; the batch in which it is reached is finished.
pub const READ_BYTES_PER_TURN: usize = 1 << 20;
/// Messages taken from the socket with one system call, each of up to 64 KiB, for which there is room all the time.
pub const RECEIVED_AT_ONCE: usize = 4;
/// System calls a link may send with in one turn, each with up to [`SEND_BATCH_BYTES`].
pub const SEND_BATCHES_PER_TURN: usize = 16;
/// Bytes of the largest datagram that is tried (RFC 8899): what a frame of 9,000 bytes carries over IPv6. On loopback and between hosts with
/// such frames it halves the cost of a byte; elsewhere it costs a few lost probes per link.
pub const DATAGRAM_BYTES: u16 = 8952;
/// Bytes of datagrams given to the kernel in one call: it takes no more than a UDP datagram could carry.
pub const SEND_BATCH_BYTES: usize = 65_000;
/// What the kernel is asked to hold for the socket, each way; it may give less (`net.core.rmem_max`, `net.core.wmem_max`).
pub const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Characters of a reason of the peer's that are passed on.
pub const REASON_CHARS: usize = 256;

/// How long a link may take to be made and proven.
pub const HANDSHAKE: Duration = Duration::from_secs(5);
/// A link with nothing to say says so this often.
pub const KEEP_ALIVE: Duration = Duration::from_millis(500);
/// A peer that was not heard for so long is gone.
pub const IDLE: Duration = Duration::from_secs(3);
/// The round trip that is assumed before one was measured: nodes are near each other, and a lost packet of a handshake is not to
/// cost a second.
pub const INITIAL_RTT: Duration = Duration::from_millis(50);
/// When the kernel had no room to send, it is asked again after this long.
pub const BLOCKED: Duration = Duration::from_millis(1);

const _: () =
    assert!(SEND_BATCH_BYTES < 1 << 16 && DATAGRAM_BYTES as usize <= SEND_BATCH_BYTES, "UDP's length has 16 bits");
const _: () = assert!(MESSAGE_BYTES < QUEUED_BYTES, "a message fits the queue");
const _: () =
    assert!(SEND_WINDOW_BYTES > LINK_WINDOW_BYTES as u64, "the peer's windows hold Bulk back, not the send window");
const _: () = assert!(KEEP_ALIVE.as_millis() * 3 <= IDLE.as_millis(), "two keep-alives may be lost");
const _: () = assert!(UNPROVEN_WINDOW_BYTES as usize >= super::hello::FRAME_BYTES, "the greeting fits");

/// The limits that can be chosen, each with the constant of its name as default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkLimits {
    /// See [`QUEUED_BYTES`].
    pub queued_bytes: usize,
    /// See [`MESSAGE_BYTES`]; at most `u32::MAX`. The same on all nodes, or the shorter holds.
    pub message_bytes: usize,
    /// See [`UNPROVEN_LINKS`].
    pub unproven_links: usize,
    /// See [`READ_BYTES_PER_TURN`].
    pub read_bytes_per_turn: usize,
    /// See [`HANDSHAKE`].
    pub handshake: Duration,
    /// See [`KEEP_ALIVE`].
    pub keep_alive: Duration,
    /// See [`IDLE`]. The shorter of the two ends' holds.
    pub idle: Duration,
}

impl Default for LinkLimits {
    fn default() -> Self {
        Self {
            queued_bytes: QUEUED_BYTES,
            message_bytes: MESSAGE_BYTES,
            unproven_links: UNPROVEN_LINKS,
            read_bytes_per_turn: READ_BYTES_PER_TURN,
            handshake: HANDSHAKE,
            keep_alive: KEEP_ALIVE,
            idle: IDLE,
        }
    }
}
