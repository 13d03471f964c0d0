//! HOSTILE row 21: PROXY headers as proxies, and as attackers, send them.

use super::*;
use proptest::prelude::*;

fn config(required: bool) -> ProxyConfig {
    ProxyConfig { trusted: vec!["127.0.0.0/8".parse().expect("a network")], required }
}

fn proxy_ip() -> Option<IpAddr> {
    Some("127.0.0.1".parse().expect("an address"))
}

fn address(text: &str) -> Source {
    Source::Client(text.parse().expect("a socket address"))
}

/// Feeds `bytes` in pieces of `step`; the source and the bytes that were left for the next stage.
fn feed(bytes: &[u8], step: usize) -> Result<Option<(Source, Vec<u8>)>, ProxyError> {
    let mut header = ProxyHeader::expect(&config(true), proxy_ip()).expect("trusted");
    let mut at = 0;
    for piece in bytes.chunks(step) {
        if let Some((source, used)) = header.receive(piece)? {
            return Ok(Some((source, bytes[at + used..].to_vec())));
        }
        at += piece.len();
        assert!(header.held.len() <= PROXY_V2_BYTES_MAX);
    }
    Ok(None)
}

fn whole(bytes: &[u8]) -> Result<Source, ProxyError> {
    let outcome = feed(bytes, bytes.len())?;
    assert_eq!(outcome.is_some(), feed(bytes, 1)?.is_some(), "splitting must not matter");
    Ok(outcome.expect("complete").0)
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("fits");
    [V2_SIGNATURE, &[command, family], &length.to_be_bytes(), rest].concat()
}

const INET: &[u8] = &[203, 0, 113, 7, 192, 0, 2, 1, 0xC0, 0x01, 0x07, 0x5B];

#[test]
fn version_1_names_the_client_in_both_families() {
    assert_eq!(whole(b"PROXY TCP4 203.0.113.7 192.0.2.1 49153 1883\r\n"), Ok(address("203.0.113.7:49153")));
    assert_eq!(whole(b"PROXY TCP6 2001:db8::7 2001:db8::1 49153 1883\r\n"), Ok(address("[2001:db8::7]:49153")));
}

#[test]
fn version_1_unknown_keeps_the_sockets_address() {
    assert_eq!(whole(b"PROXY UNKNOWN\r\n"), Ok(Source::Connection));
    assert_eq!(whole(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), Ok(Source::Connection));
}

#[test]
fn version_1_lines_that_are_not_as_specified_are_refused() {
    for line in [
        &b"PROXY TCP4 203.0.113.7 192.0.2.1 49153\r\n"[..],
        b"PROXY TCP4 203.0.113.7 192.0.2.1 49153 1883 x\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 049153 1883\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 +4915 1883\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 70000 1883\r\n",
        b"PROXY TCP4 203.0.113.7  192.0.2.1 1 1883\r\n",
        b"PROXY TCP4 2001:db8::7 192.0.2.1 1 1883\r\n",
        b"PROXY TCP6 203.0.113.7 ::1 1 1883\r\n",
        b"PROXY UDP4 203.0.113.7 192.0.2.1 1 1883\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 1 1883\n",
        b"PROXY TCP4 \xFF\xFE 192.0.2.1 1 1883\r\n",
        b"PROXY \r\n",
    ] {
        assert_eq!(whole(line), Err(ProxyError::Line), "{}", line.escape_ascii());
    }
}

#[test]
fn version_1_longer_than_107_bytes_is_refused_without_waiting_for_its_end() {
    let mut line = b"PROXY UNKNOWN ".to_vec();
    line.resize(PROXY_V1_BYTES_MAX - 2, b'x');
    line.extend_from_slice(b"\r\n");
    assert_eq!(whole(&line), Ok(Source::Connection), "107 bytes are allowed");
    line.insert(20, b'x');
    assert_eq!(feed(&line, 1), Err(ProxyError::TooLong));
    assert_eq!(feed(&[b"PROXY ".as_slice(), &[b'x'; 101]].concat(), 7), Err(ProxyError::TooLong));
}

#[test]
fn version_2_names_the_client_in_both_families() {
    assert_eq!(whole(&v2(0x21, 0x11, INET)), Ok(address("203.0.113.7:49153")));
    let mut inet6 = [0; 36];
    inet6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    inet6[15] = 7;
    inet6[32..34].copy_from_slice(&49153_u16.to_be_bytes());
    assert_eq!(whole(&v2(0x21, 0x21, &inet6)), Ok(address("[2001:db8::7]:49153")));
}

#[test]
fn version_2_local_and_unspecified_keep_the_sockets_address_and_unix_has_none() {
    assert_eq!(whole(&v2(0x20, 0x00, &[])), Ok(Source::Connection));
    assert_eq!(whole(&v2(0x20, 0xFF, &[1, 2, 3])), Ok(Source::Connection), "LOCAL ignores the rest");
    assert_eq!(whole(&v2(0x21, 0x00, &[])), Ok(Source::Connection));
    assert_eq!(whole(&v2(0x21, 0x31, &[0; 216])), Ok(Source::Nameless));
}

#[test]
fn version_2_skips_additional_fields() {
    let fields = [INET, &[0x02, 0, 4, b'h', b'o', b's', b't'], &[0x04, 0, 0], &[0xEA, 0, 1, 9]].concat();
    assert_eq!(whole(&v2(0x21, 0x11, &fields)), Ok(address("203.0.113.7:49153")));
}

#[test]
fn version_2_fields_that_overrun_the_header_are_refused() {
    for fields in [&[0x02, 0, 4, b'x'][..], &[0x02, 0], &[0x02], &[0x02, 0xFF, 0xFF], &[FIELD_CRC, 0, 1, 0]] {
        assert_eq!(whole(&v2(0x21, 0x11, &[INET, fields].concat())), Err(ProxyError::Field), "{fields:?}");
    }
}

const FIELD_CRC: u8 = 0x03;

#[test]
fn version_2_checksum_is_verified_where_present() {
    assert_eq!(v2::crc32c(b"123456789".iter()), 0xE306_9283, "the check value of CRC-32C");
    let mut header = v2(0x21, 0x11, &[INET, &[FIELD_CRC, 0, 4, 0, 0, 0, 0], &[0x04, 0, 1, 7]].concat());
    let at = V2_FIXED_BYTES + INET.len() + 3;
    let sum = v2::crc32c(header.iter());
    header[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(whole(&header), Ok(address("203.0.113.7:49153")));
    header[V2_FIXED_BYTES] ^= 1;
    assert_eq!(whole(&header), Err(ProxyError::Checksum));
}

#[test]
fn version_2_with_reserved_values_or_too_short_is_refused() {
    for header in [
        v2(0x11, 0x11, INET),
        v2(0x22, 0x11, INET),
        v2(0x21, 0x12, INET),
        v2(0x21, 0x41, INET),
        v2(0x21, 0x11, &INET[..11]),
        v2(0x21, 0x21, &[0; 35]),
        v2(0x21, 0x31, &[0; 215]),
    ] {
        assert_eq!(whole(&header), Err(ProxyError::Binary));
    }
}

#[test]
fn version_2_longer_than_allowed_is_refused_at_its_length_field() {
    let header = v2(0x21, 0x11, &vec![0; PROXY_V2_BYTES_MAX]);
    assert_eq!(feed(&header[..V2_FIXED_BYTES], 1), Err(ProxyError::TooLong));
}

#[test]
fn an_untrusted_peer_is_refused_where_headers_are_required_and_not_parsed_where_not() {
    let stranger = Some("198.51.100.9".parse().expect("an address"));
    assert!(config(true).refuses(stranger));
    let mut header = ProxyHeader::expect(&config(true), stranger).expect("a refusing collector");
    assert_eq!(header.receive(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), Err(ProxyError::Untrusted));
    assert!(!config(false).refuses(stranger));
    assert!(ProxyHeader::expect(&config(false), stranger).is_none());
}

#[test]
fn trust_covers_mapped_addresses_and_unix_sockets() {
    assert!(!config(true).refuses(Some("::ffff:127.0.0.9".parse().expect("an address"))));
    assert!(config(true).refuses(Some("::1".parse().expect("an address"))));
    assert!(!config(true).refuses(None));
}

#[test]
fn without_a_header_a_required_one_is_missed_and_an_optional_one_is_not() {
    assert_eq!(feed(b"\x10\x0c", 1), Err(ProxyError::Missing));
    assert_eq!(feed(b"PROXX TCP4", 3), Err(ProxyError::Missing));
    let mut header = ProxyHeader::expect(&config(false), proxy_ip()).expect("trusted");
    assert_eq!(header.receive(b"PRO"), Ok(None));
    assert_eq!(header.receive(b"BLEM"), Ok(Some((Source::NoHeader(b"PROB".to_vec()), 1))));
}

proptest! {
    #[test]
    fn any_split_leaves_exactly_what_follows_the_header(
        tail in proptest::collection::vec(any::<u8>(), 0..40), step in 1_usize..60, binary: bool,
    ) {
        let header = if binary {
            v2(0x21, 0x11, &[INET, &[0x04, 0, 2, 0, 0]].concat())
        } else {
            b"PROXY TCP4 203.0.113.7 192.0.2.1 49153 1883\r\n".to_vec()
        };
        let bytes = [header.as_slice(), &tail].concat();
        prop_assert_eq!(feed(&bytes, step), Ok(Some((address("203.0.113.7:49153"), tail))));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), prefix in 0_usize..3) {
        let prefix: &[u8] = [&b""[..], V1_PREFIX, V2_SIGNATURE][prefix];
        let bytes = [prefix, &bytes].concat();
        prop_assert_eq!(feed(&bytes, 1), feed(&bytes, 64));
    }
}
