//! How pairs and states are laid out in a base: each with a checksum over what it says and where it belongs.
//!
//! ```text
//! value    crc32 of key and value (4, little-endian) | value
//! state    crc32 of space and rest (4) | layout = 1 (1) | generation (8) | applied (8) | inhabited (1) | meta
//! ```

use super::base::{SpaceId, SpaceState};
use super::error::KvError;

/// Bytes before a value.
const CHECKSUM_BYTES: usize = 4;

/// Layout of a state record.
const STATE_LAYOUT: u8 = 1;

/// Bytes of a state record after the checksum and before the meta record.
const STATE_BYTES: usize = 1 + 8 + 8 + 1;

/// The length of the key goes in first, so that no two pairs have the same bytes.
fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

/// A value as stored.
pub(super) fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(CHECKSUM_BYTES + value.len());
    sealed.extend_from_slice(&checksum(key, value).to_le_bytes());
    sealed.extend_from_slice(value);
    sealed
}

/// The value in what was stored.
///
/// # Errors
/// [`KvError::Corrupt`].
pub(super) fn open<'a>(space: SpaceId, key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], KvError> {
    let corrupt = |what| KvError::Corrupt { space, key: key.to_vec(), what };
    let (stored, value) = sealed.split_first_chunk().ok_or_else(|| corrupt("too short for a checksum"))?;
    if checksum(key, value) == u32::from_le_bytes(*stored) { Ok(value) } else { Err(corrupt("checksum mismatch")) }
}

/// A state as stored. `generation` says which keyspace holds the data.
pub(super) fn seal_state(space: SpaceId, generation: u64, state: &SpaceState) -> Vec<u8> {
    let mut body = Vec::with_capacity(STATE_BYTES + state.meta.len());
    body.push(STATE_LAYOUT);
    body.extend_from_slice(&generation.to_le_bytes());
    body.extend_from_slice(&state.applied.to_le_bytes());
    body.push(u8::from(state.is_inhabited));
    body.extend_from_slice(&state.meta);
    seal(&space.0.to_be_bytes(), &body)
}

/// Generation and state in what was stored.
///
/// # Errors
/// [`KvError::Corrupt`], also for a layout of a newer version.
pub(super) fn open_state(space: SpaceId, sealed: &[u8]) -> Result<(u64, SpaceState), KvError> {
    let corrupt = |what| KvError::Corrupt { space, key: Vec::new(), what };
    let body = open(space, &space.0.to_be_bytes(), sealed)?;
    let ([layout], rest) = body.split_first_chunk().ok_or_else(|| corrupt("an empty state record"))?;
    if *layout != STATE_LAYOUT {
        return Err(corrupt("a state record of another version"));
    }
    let truncated = || corrupt("a truncated state record");
    let (generation, rest) = rest.split_first_chunk().ok_or_else(truncated)?;
    let (applied, rest) = rest.split_first_chunk().ok_or_else(truncated)?;
    let ([inhabited], meta) = rest.split_first_chunk().ok_or_else(truncated)?;
    let applied = u64::from_le_bytes(*applied);
    let state = SpaceState { applied, meta: meta.to_vec(), is_inhabited: *inhabited != 0 };
    Ok((u64::from_le_bytes(*generation), state))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: SpaceId = SpaceId(9);

    #[test]
    fn every_flipped_bit_of_a_value_is_noticed_and_so_is_a_foreign_key() {
        let sealed = seal(b"key", b"value");
        assert_eq!(open(SPACE, b"key", &sealed).expect("intact"), b"value");
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(open(SPACE, b"key", &flipped), Err(KvError::Corrupt { .. })), "bit {bit}");
        }
        assert!(open(SPACE, b"kez", &sealed).is_err());
        assert!(open(SPACE, b"ke", &seal(b"key", b"")).is_err());
        assert!(open(SPACE, b"key", b"abc").is_err());
    }

    #[test]
    fn a_state_record_belongs_to_its_space() {
        let state = SpaceState { applied: 77, meta: b"descriptor".to_vec(), is_inhabited: true };
        let sealed = seal_state(SPACE, 3, &state);
        assert_eq!(open_state(SPACE, &sealed).expect("intact"), (3, state));
        assert!(open_state(SpaceId(8), &sealed).is_err());
        assert!(open_state(SPACE, &seal(&SPACE.0.to_be_bytes(), &[STATE_LAYOUT + 1])).is_err());
    }
}
