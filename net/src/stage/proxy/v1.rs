//! Version 1: one line of text, `PROXY TCP4 <source> <destination> <source port> <destination port>` and CR LF.

use super::{ProxyError, Source, V1_PREFIX};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The source named by a complete line that begins with the prefix and ends with a line feed.
pub(super) fn parse(line: &[u8]) -> Result<Source, ProxyError> {
    let fields = line.strip_prefix(V1_PREFIX).and_then(|rest| rest.strip_suffix(b"\r\n")).ok_or(ProxyError::Line)?;
    let fields = std::str::from_utf8(fields).map_err(|_| ProxyError::Line)?;
    let mut fields = fields.split(' ');
    let source = match fields.next() {
        // Whatever follows is to be ignored.
        Some("UNKNOWN") => return Ok(Source::Connection),
        Some("TCP4") => endpoints::<Ipv4Addr>(&mut fields)?,
        Some("TCP6") => endpoints::<Ipv6Addr>(&mut fields)?,
        _ => return Err(ProxyError::Line),
    };
    match fields.next() {
        None => Ok(Source::Client(source)),
        Some(_) => Err(ProxyError::Line),
    }
}

fn endpoints<'a, A: FromStr + Into<IpAddr>>(
    fields: &mut impl Iterator<Item = &'a str>,
) -> Result<SocketAddr, ProxyError> {
    let source: A = address(fields.next())?;
    let _destination: A = address(fields.next())?;
    let source_port = port(fields.next())?;
    port(fields.next())?;
    Ok(SocketAddr::new(source.into(), source_port))
}

fn address<A: FromStr>(field: Option<&str>) -> Result<A, ProxyError> {
    field.and_then(|text| text.parse().ok()).ok_or(ProxyError::Line)
}

/// A decimal port without sign or leading zeros.
fn port(field: Option<&str>) -> Result<u16, ProxyError> {
    let text = field.ok_or(ProxyError::Line)?;
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).ok_or(ProxyError::Line)
}
