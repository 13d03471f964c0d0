//! Clause by clause: what is accepted, what is refused and with which reason; round trips; fan-out.

mod ack;
mod connect;
mod fanout;
mod header;
mod properties;
mod publish;
mod round_trip;
mod strings;
mod subscribe;

use super::{DecodeError, DecodeOptions, decode, encode};
use crate::packet::{Packet, PacketId};
use crate::reason::Reason;
use alloc::vec::Vec;
use bifro_core::client::Version;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

const fn options(version: Version) -> DecodeOptions {
    DecodeOptions { version: Some(version), packet_bytes_max: u32::MAX }
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).expect("tests use identifiers above 0")
}

/// A packet with this first byte and body.
fn packet(first: u8, body: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    super::writer::put_packet(&mut out, first, |out| body.iter().for_each(|part| out.extend_from_slice(part)));
    out
}

/// Decodes bytes that must be one whole packet of `version`.
fn decoded(bytes: &[u8], version: Version) -> Packet<'_> {
    let (packet, len) = decode(bytes, &options(version)).expect("valid").expect("complete");
    assert_eq!(len, bytes.len());
    packet
}

/// The error of bytes that must be none.
fn refused(bytes: &[u8], version: Version) -> DecodeError {
    decode(bytes, &options(version)).expect_err("invalid")
}

/// Checks the error and what an MQTT 5 client would be told.
fn assert_refused(bytes: &[u8], version: Version, error: DecodeError, reason: Reason) {
    assert_eq!(refused(bytes, version), error, "{bytes:02x?} as {version:?}");
    assert_eq!(error.reason(), reason);
}

/// Encodes, decodes, compares, encodes again; then cuts the packet at every byte and demands patience.
fn assert_round_trip(packet: &Packet<'_>, version: Version) {
    let mut bytes = Vec::new();
    encode(packet, version, &mut bytes);
    assert_eq!(decoded(&bytes, version), *packet);
    let mut again = Vec::new();
    encode(&decoded(&bytes, version), version, &mut again);
    assert_eq!(again, bytes);
    for end in 0..bytes.len() {
        assert_eq!(decode(&bytes[..end], &options(version)), Ok(None), "cut at {end} of {bytes:02x?}");
    }
    let len = bytes.len();
    bytes.extend_from_slice(b"the next packet");
    assert_eq!(decode(&bytes, &options(version)), Ok(Some((*packet, len))));
}
