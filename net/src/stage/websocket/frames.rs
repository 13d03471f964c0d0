//! WebSocket frames after the handshake, decoded as they arrive.
//!
//! Held between calls: at most one incomplete header (14 bytes) or one incomplete control frame ([`CONTROL_BYTES_MAX`]).
//! Of several pings in one call only the last is answered (RFC 6455, 5.5.3), so that pings cannot grow the output.

use std::io::Cursor;
use thiserror::Error;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

/// Longest payload of a ping, pong or close frame (RFC 6455, 5.5).
pub const CONTROL_BYTES_MAX: u64 = 125;

/// Longest header: two bytes, 64-bit length, mask.
const HEADER_BYTES_MAX: usize = 14;

/// How a frame broke the rules; each is answered with a close frame of [`FrameViolation::close_code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameViolation {
    /// A text frame [MQTT-6.0.0-1] [MQTT5-6.0.0-1].
    #[error("not a binary frame")]
    Text,
    /// Longer than the listener allows.
    #[error("frame too long")]
    TooLong,
    /// Clients must mask their frames.
    #[error("frame not masked")]
    Unmasked,
    /// A reserved bit without an extension that gives it meaning.
    #[error("reserved bit set")]
    ReservedBit,
    /// A reserved opcode.
    #[error("reserved opcode")]
    Opcode,
    /// A length not in its shortest form, or above 2^63 - 1.
    #[error("length not in its shortest form")]
    Length,
    /// A fragment without a beginning, or a new message within one.
    #[error("fragment out of order")]
    Fragment,
    /// A control frame that is fragmented or longer than [`CONTROL_BYTES_MAX`].
    #[error("control frame fragmented or too long")]
    Control,
    /// A close frame with half a code, or a code that must not be sent.
    #[error("invalid close frame")]
    Close,
    /// A close frame whose reason is not UTF-8.
    #[error("close reason is not UTF-8")]
    CloseReason,
}

impl FrameViolation {
    /// The code of the close frame that answers it (RFC 6455, 7.4.1).
    pub const fn close_code(self) -> u16 {
        match self {
            Self::Text => 1003,
            Self::TooLong => 1009,
            Self::CloseReason => 1007,
            Self::Unmasked
            | Self::ReservedBit
            | Self::Opcode
            | Self::Length
            | Self::Fragment
            | Self::Control
            | Self::Close => 1002,
        }
    }
}

/// Decoder of a client's frames.
#[derive(Debug)]
pub(super) struct Frames {
    frame_bytes_max: u64,
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    frame: Option<Frame>,
    /// Between the first and the last fragment of a message.
    in_message: bool,
    /// A close frame has been sent: whatever comes is ignored.
    closed: bool,
    peer_closed: bool,
}

/// The frame whose payload is being read.
#[derive(Debug)]
struct Frame {
    left: u64,
    /// Rotated so that its first byte belongs to the next payload byte.
    mask: [u8; 4],
    /// For a control frame, what it is and its payload so far.
    control: Option<(Control, Vec<u8>)>,
}

impl Frames {
    /// A decoder that takes frames of up to `frame_bytes_max` bytes.
    pub(super) const fn new(frame_bytes_max: u64) -> Self {
        Self {
            frame_bytes_max,
            header: [0; HEADER_BYTES_MAX],
            header_len: 0,
            frame: None,
            in_message: false,
            closed: false,
            peer_closed: false,
        }
    }

    /// Takes `bytes` from the client, appends payload of data frames to `app` and answers to control frames to `net`.
    pub(super) fn receive(&mut self, bytes: &[u8], app: &mut Vec<u8>, net: &mut Vec<u8>) -> Result<(), FrameViolation> {
        let mut pong = None;
        let result = self.decode(bytes, app, &mut pong, net);
        if let Err(violation) = result {
            self.write_close(&violation.close_code().to_be_bytes(), net);
        }
        result
    }

    /// Appends a close frame with code 1000, unless one has been sent.
    pub(super) fn close(&mut self, net: &mut Vec<u8>) {
        self.write_close(&u16::from(CloseCode::Normal).to_be_bytes(), net);
    }

    /// The client has sent a close frame.
    pub(super) const fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    fn decode(
        &mut self,
        mut rest: &[u8],
        app: &mut Vec<u8>,
        pong: &mut Option<Vec<u8>>,
        net: &mut Vec<u8>,
    ) -> Result<(), FrameViolation> {
        while !self.closed {
            let frame = match self.frame.take() {
                Some(frame) => Some(frame),
                None => self.read_header(&mut rest)?,
            };
            let Some(mut frame) = frame else { break };
            frame.read_payload(&mut rest, app);
            if frame.left > 0 {
                self.frame = Some(frame);
                break;
            }
            match frame.control {
                Some((Control::Ping, payload)) => *pong = Some(payload),
                Some((Control::Close, payload)) => {
                    check_close(&payload)?;
                    self.peer_closed = true;
                    self.write_close(payload.first_chunk::<2>().map_or(&[], |code| code), net);
                }
                Some((Control::Pong | Control::Reserved(_), _)) | None => {}
            }
        }
        if let Some(payload) = pong.take().filter(|_| !self.closed) {
            write_frame(OpCode::Control(Control::Pong), &payload, net);
        }
        Ok(())
    }

    /// Takes bytes of the next header; the frame it announces once it is complete.
    fn read_header(&mut self, rest: &mut &[u8]) -> Result<Option<Frame>, FrameViolation> {
        let before = self.header_len;
        let taken = rest.len().min(HEADER_BYTES_MAX - before);
        self.header[before..before + taken].copy_from_slice(&rest[..taken]);
        self.header_len += taken;
        let mut cursor = Cursor::new(&self.header[..self.header_len]);
        let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(|_| FrameViolation::Opcode)? else {
            *rest = &rest[taken..];
            return Ok(None);
        };
        let parsed = usize::try_from(cursor.position()).unwrap_or(HEADER_BYTES_MAX);
        *rest = &rest[parsed - before..];
        self.header_len = 0;
        self.check_header(&header, length, parsed).map(Some)
    }

    fn check_header(&mut self, header: &FrameHeader, length: u64, parsed: usize) -> Result<Frame, FrameViolation> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(FrameViolation::ReservedBit);
        }
        let mask = header.mask.ok_or(FrameViolation::Unmasked)?;
        if header.len(length) != parsed || length > u64::MAX >> 1 {
            return Err(FrameViolation::Length);
        }
        let control = match header.opcode {
            OpCode::Control(control) => {
                if !header.is_final || length > CONTROL_BYTES_MAX {
                    return Err(FrameViolation::Control);
                }
                Some((control, Vec::new()))
            }
            OpCode::Data(data) => {
                self.check_data(data, header.is_final, length)?;
                None
            }
        };
        Ok(Frame { left: length, mask, control })
    }

    fn check_data(&mut self, data: Data, is_final: bool, length: u64) -> Result<(), FrameViolation> {
        match data {
            // [MQTT-6.0.0-1] [MQTT5-6.0.0-1]: any other kind of data frame closes the connection.
            Data::Text => return Err(FrameViolation::Text),
            Data::Reserved(_) => return Err(FrameViolation::Opcode),
            Data::Binary if self.in_message => return Err(FrameViolation::Fragment),
            Data::Continue if !self.in_message => return Err(FrameViolation::Fragment),
            Data::Binary | Data::Continue => {}
        }
        if length > self.frame_bytes_max {
            return Err(FrameViolation::TooLong);
        }
        self.in_message = !is_final;
        Ok(())
    }

    fn write_close(&mut self, payload: &[u8], net: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.closed, true) {
            write_frame(OpCode::Control(Control::Close), payload, net);
        }
    }
}

impl Frame {
    /// Moves as much payload as there is, unmasked, to `app` or to the control frame's own buffer.
    fn read_payload(&mut self, rest: &mut &[u8], app: &mut Vec<u8>) {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
        let (payload, after) = rest.split_at(length);
        *rest = after;
        self.left -= length as u64;
        // [MQTT-6.0.0-2] [MQTT5-6.0.0-2]: frames are not packets, their payloads are one stream of bytes.
        let into = self.control.as_mut().map_or(app, |(_, held)| held);
        let start = into.len();
        into.extend_from_slice(payload);
        for word in into[start..].chunks_mut(self.mask.len()) {
            word.iter_mut().zip(self.mask).for_each(|(byte, mask)| *byte ^= mask);
        }
        self.mask.rotate_left(length % 4);
    }
}

/// Appends the header of an unfragmented binary frame with `length` bytes of payload.
pub(in crate::stage) fn write_binary_header(length: usize, net: &mut Vec<u8>) {
    write_header(OpCode::Data(Data::Binary), length, net);
}

fn write_frame(opcode: OpCode, payload: &[u8], net: &mut Vec<u8>) {
    write_header(opcode, payload.len(), net);
    net.extend_from_slice(payload);
}

fn write_header(opcode: OpCode, length: usize, net: &mut Vec<u8>) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    header.format(length as u64, net).expect("writing to a vector cannot fail, and nothing else in it can");
}

fn check_close(payload: &[u8]) -> Result<(), FrameViolation> {
    match payload {
        [] => Ok(()),
        [_] => Err(FrameViolation::Close),
        [high, low, reason @ ..] => {
            if !CloseCode::from(u16::from_be_bytes([*high, *low])).is_allowed() {
                return Err(FrameViolation::Close);
            }
            std::str::from_utf8(reason).map(|_| ()).map_err(|_| FrameViolation::CloseReason)
        }
    }
}
