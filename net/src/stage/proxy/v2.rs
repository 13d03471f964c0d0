//! Version 2: a binary header with addresses and typed additional fields (TLVs), of which only the checksum is looked at.

use super::{ProxyError, Source, V2_FIXED_BYTES};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

const FIELD_CRC32C: u8 = 0x03;

/// The source named by a complete header: signature and length have been checked.
pub(super) fn parse(header: &[u8]) -> Result<Source, ProxyError> {
    let rest = &header[V2_FIXED_BYTES..];
    match header[12] {
        // LOCAL: the proxy's own connection, say a health check. The rest is to be ignored, whatever it says.
        0x20 => return Ok(Source::Connection),
        0x21 => {}
        _ => return Err(ProxyError::Binary),
    }
    let (source, fields_at) = match header[13] {
        0x00 => (Source::Connection, 0),
        0x11 => {
            let [a, b, c, d, _, _, _, _, port @ .., _, _] = *rest.first_chunk::<12>().ok_or(ProxyError::Binary)?;
            let address = Ipv4Addr::new(a, b, c, d);
            (Source::Client(SocketAddr::new(address.into(), u16::from_be_bytes(port))), 12)
        }
        0x21 => {
            let block = rest.first_chunk::<36>().ok_or(ProxyError::Binary)?;
            let address = *block.first_chunk::<16>().ok_or(ProxyError::Binary)?;
            let port = u16::from_be_bytes([block[32], block[33]]);
            (Source::Client(SocketAddr::new(Ipv6Addr::from(address).into(), port)), 36)
        }
        0x31 => (Source::Nameless, 216),
        // Datagram transports cannot have come over this stream; other values are reserved and to be refused.
        _ => return Err(ProxyError::Binary),
    };
    check_fields(header, V2_FIXED_BYTES + fields_at)?;
    Ok(source)
}

/// Walks the additional fields from `at` to the end and verifies the checksum if there is one.
fn check_fields(header: &[u8], at: usize) -> Result<(), ProxyError> {
    let mut at = at;
    if header.len() < at {
        return Err(ProxyError::Binary);
    }
    while at < header.len() {
        let &[kind, high, low] = header[at..].first_chunk::<3>().ok_or(ProxyError::Field)?;
        let value_at = at + 3;
        let end = value_at + usize::from(u16::from_be_bytes([high, low]));
        let value = header.get(value_at..end).ok_or(ProxyError::Field)?;
        if kind == FIELD_CRC32C {
            let expected = u32::from_be_bytes(value.try_into().map_err(|_| ProxyError::Field)?);
            // The sender computed it with the field's value as zeros.
            let sum = crc32c(header[..value_at].iter().chain(&[0; 4]).chain(&header[end..]));
            if sum != expected {
                return Err(ProxyError::Checksum);
            }
        }
        at = end;
    }
    Ok(())
}

/// CRC-32 with Castagnoli's polynomial, bit by bit: headers are short and come once per connection.
pub(super) fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    const POLYNOMIAL_REFLECTED: u32 = 0x82F6_3B78;
    !bytes.fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (POLYNOMIAL_REFLECTED & (sum & 1).wrapping_neg()))
    })
}
