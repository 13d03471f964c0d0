//! The payloads of SUBSCRIBE and UNSUBSCRIBE: checked once when they are decoded, then walked in place.
//!
//! Invariant of both: `raw` is a sequence of exactly `count` entries, each with a string in UTF-8 and, in a SUBSCRIBE,
//! a byte of valid options. [`SubscribeFilters::decode`], [`SubscribeFilters::encode`] and their counterparts are the
//! only makers.

use super::{SubscribeFilter, SubscribeFilters, UnsubscribeFilters};
use crate::codec::DecodeError;
use crate::codec::reader::Reader;
use crate::codec::writer::put_str;
use alloc::vec::Vec;
use bifro_core::client::Version;
use bifro_core::message::QoS;

const NO_LOCAL: u8 = 0x04;
const RETAIN_AS_PUBLISHED: u8 = 0x08;
const RETAIN_HANDLING_SHIFT: u8 = 4;

impl SubscribeFilter<'_> {
    /// The byte of options as MQTT 5 writes it (section 3.8.3.1).
    pub(crate) const fn option_bits(&self) -> u8 {
        let no_local = if self.no_local { NO_LOCAL } else { 0 };
        let retain_as_published = if self.retain_as_published { RETAIN_AS_PUBLISHED } else { 0 };
        self.qos as u8 | no_local | retain_as_published | self.retain_handling << RETAIN_HANDLING_SHIFT
    }
}

fn read_filter<'a>(reader: &mut Reader<'a>, version: Version) -> Result<SubscribeFilter<'a>, DecodeError> {
    // [MQTT-3.8.3-1] [MQTT5-3.8.3-1]
    let filter = reader.string()?;
    let options = reader.u8()?;
    let reserved = if version == Version::V5 { 0b1100_0000 } else { 0b1111_1100 };
    // [MQTT-3.8.3-4] [MQTT5-3.8.3-5]
    if options & reserved != 0 {
        return Err(DecodeError::SubscribeOptionsReserved);
    }
    let qos = QoS::from_bits(options & 3).ok_or(DecodeError::SubscribeQosReserved)?;
    let retain_handling = options >> RETAIN_HANDLING_SHIFT & 3;
    if retain_handling == 3 {
        return Err(DecodeError::RetainHandlingReserved);
    }
    let (no_local, retain_as_published) = (options & NO_LOCAL != 0, options & RETAIN_AS_PUBLISHED != 0);
    Ok(SubscribeFilter { filter, qos, no_local, retain_as_published, retain_handling })
}

/// Appends a filter that [`Reader::string`] will accept.
fn put_filter(scratch: &mut Vec<u8>, filter: &str) {
    assert!(!filter.contains('\0'), "a string on the wire has no U+0000");
    put_str(scratch, filter);
}

impl<'a> SubscribeFilters<'a> {
    /// Checks the rest of a SUBSCRIBE.
    pub(crate) fn decode(body: Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let (mut reader, mut count) = (body, 0);
        while !reader.is_empty() {
            read_filter(&mut reader, version)?;
            count += 1;
        }
        // [MQTT-3.8.3-3] [MQTT5-3.8.3-2]
        if count == 0 { Err(DecodeError::FiltersMissing) } else { Ok(Self { raw: body.rest(), count }) }
    }

    /// Writes `filters` to `scratch`, which is emptied first.
    ///
    /// # Panics
    /// If a filter is longer than 65,535 bytes or contains U+0000, or a retain handling is above 2.
    pub fn encode<'f>(filters: impl IntoIterator<Item = SubscribeFilter<'f>>, scratch: &'a mut Vec<u8>) -> Self {
        scratch.clear();
        let mut count = 0;
        for filter in filters {
            assert!(filter.retain_handling <= 2, "retain handling is 0, 1 or 2");
            put_filter(scratch, filter.filter);
            scratch.push(filter.option_bits());
            count += 1;
        }
        Self { raw: scratch, count }
    }

    /// The filters in their order.
    pub const fn iter(&self) -> SubscribeFilterIter<'a> {
        SubscribeFilterIter { reader: Reader::new(self.raw), left: self.count }
    }

    /// How many filters there are.
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// There are no filters, which a decoded packet cannot be.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<'a> IntoIterator for &SubscribeFilters<'a> {
    type Item = SubscribeFilter<'a>;
    type IntoIter = SubscribeFilterIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Iterator of [`SubscribeFilters::iter`].
#[derive(Clone, Debug)]
pub struct SubscribeFilterIter<'a> {
    reader: Reader<'a>,
    left: u32,
}

impl<'a> Iterator for SubscribeFilterIter<'a> {
    type Item = SubscribeFilter<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        // The entries were valid for their version; all of them are for MQTT 5, whose options contain those of 3.x.
        Some(read_filter(&mut self.reader, Version::V5).expect("the maker of the filters has checked them"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for SubscribeFilterIter<'_> {}

impl<'a> UnsubscribeFilters<'a> {
    /// Checks the rest of an UNSUBSCRIBE.
    pub(crate) fn decode(body: Reader<'a>) -> Result<Self, DecodeError> {
        let (mut reader, mut count) = (body, 0);
        while !reader.is_empty() {
            // [MQTT-3.10.3-1] [MQTT5-3.10.3-1]
            reader.string()?;
            count += 1;
        }
        // [MQTT-3.10.3-2] [MQTT5-3.10.3-2]
        if count == 0 { Err(DecodeError::FiltersMissing) } else { Ok(Self { raw: body.rest(), count }) }
    }

    /// Writes `filters` to `scratch`, which is emptied first.
    ///
    /// # Panics
    /// If a filter is longer than 65,535 bytes or contains U+0000.
    pub fn encode<'f>(filters: impl IntoIterator<Item = &'f str>, scratch: &'a mut Vec<u8>) -> Self {
        scratch.clear();
        let mut count = 0;
        for filter in filters {
            put_filter(scratch, filter);
            count += 1;
        }
        Self { raw: scratch, count }
    }

    /// The filters in their order.
    pub const fn iter(&self) -> UnsubscribeFilterIter<'a> {
        UnsubscribeFilterIter { reader: Reader::new(self.raw), left: self.count }
    }

    /// How many filters there are.
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// There are no filters, which a decoded packet cannot be.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<'a> IntoIterator for &UnsubscribeFilters<'a> {
    type Item = &'a str;
    type IntoIter = UnsubscribeFilterIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Iterator of [`UnsubscribeFilters::iter`].
#[derive(Clone, Debug)]
pub struct UnsubscribeFilterIter<'a> {
    reader: Reader<'a>,
    left: u32,
}

impl<'a> Iterator for UnsubscribeFilterIter<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some(self.reader.string().expect("the maker of the filters has checked them"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for UnsubscribeFilterIter<'_> {}
