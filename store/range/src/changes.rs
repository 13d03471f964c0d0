//! What a machine changes of its records at rest, as one turn's bytes: they become one entry of the range's log, and whoever applies
//! the entry, here or on another node, carries them out on the range's key-value space.
//!
//! An operation is its kind, the key with a length of two bytes, and for puts the value with a length of four, little-endian.

use crate::record::RecordError;
use alloc::vec::Vec;

/// Kinds of operations.
const PUT: u8 = 1;
const PUT_FRESH: u8 = 2;
const DELETE: u8 = 3;

/// Gathers changes.
#[derive(Debug, Default)]
pub struct Changes(Vec<u8>);

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// A key is set.
    Put {
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
        /// The machine knows that the key was absent.
        fresh: bool,
    },
    /// A key is removed.
    Delete {
        /// The key.
        key: &'a [u8],
    },
}

impl Changes {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of them.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Sets a key to what `value` appends. `fresh` claims that the key is absent.
    ///
    /// # Panics
    /// If key or value is too long for its length field: machines bound theirs.
    pub fn put(&mut self, key: &[u8], fresh: bool, value: impl FnOnce(&mut Vec<u8>)) {
        self.begin(if fresh { PUT_FRESH } else { PUT }, key);
        let length_at = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        value(&mut self.0);
        let len = u32::try_from(self.0.len() - length_at - 4).expect("a record is far smaller than 4 GiB");
        self.0[length_at..length_at + 4].copy_from_slice(&len.to_le_bytes());
    }

    /// Removes a key.
    ///
    /// # Panics
    /// As [`Self::put`].
    pub fn delete(&mut self, key: &[u8]) {
        self.begin(DELETE, key);
    }

    fn begin(&mut self, kind: u8, key: &[u8]) {
        let len = u16::try_from(key.len()).expect("keys are shorter than 64 KiB");
        self.0.push(kind);
        self.0.extend_from_slice(&len.to_le_bytes());
        self.0.extend_from_slice(key);
    }

    /// Takes out what has gathered; empty if nothing has.
    pub fn take(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.0)
    }

    /// The changes in `bytes`, in order. After an error nothing follows.
    pub fn read(bytes: &[u8]) -> impl Iterator<Item = Result<Change<'_>, RecordError>> {
        let mut rest = bytes;
        core::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let change = read(&mut rest);
            if change.is_err() {
                rest = &[];
            }
            Some(change)
        })
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], RecordError> {
    let (head, tail) = rest.split_at_checked(len).ok_or(RecordError::Truncated)?;
    *rest = tail;
    Ok(head)
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], RecordError> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(RecordError::Truncated)?;
    *rest = tail;
    Ok(*head)
}

fn read<'a>(rest: &mut &'a [u8]) -> Result<Change<'a>, RecordError> {
    let [kind] = array(rest)?;
    let len = u16::from_le_bytes(array(rest)?);
    let key = take(rest, len.into())?;
    let fresh = match kind {
        DELETE => return Ok(Change::Delete { key }),
        PUT => false,
        PUT_FRESH => true,
        _ => return Err(RecordError::Value("kind of change")),
    };
    let len = u32::from_le_bytes(array(rest)?);
    Ok(Change::Put { key, value: take(rest, len as usize)?, fresh })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Op = (Vec<u8>, Option<Vec<u8>>, bool);

    fn written(ops: &[Op]) -> Vec<u8> {
        let mut changes = Changes::new();
        for (key, value, fresh) in ops {
            match value {
                Some(value) => changes.put(key, *fresh, |out| out.extend_from_slice(value)),
                None => changes.delete(key),
            }
        }
        changes.take()
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..40);
        prop::collection::vec((bytes(), prop::option::of(bytes()), any::<bool>()), 0..8)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_and_a_part_of_it_is_refused_or_a_whole_number_of_changes(ops in ops(), cut in 0_usize..200) {
            let bytes = written(&ops);
            let read: Vec<_> = Changes::read(&bytes).map(|change| change.expect("just written")).collect();
            let expected: Vec<_> = (ops.iter())
                .map(|(key, value, fresh)| match value {
                    Some(value) => Change::Put { key, value, fresh: *fresh },
                    None => Change::Delete { key },
                })
                .collect();
            prop_assert_eq!(&read, &expected);
            let part: Vec<_> = Changes::read(&bytes[..cut.min(bytes.len())]).collect();
            let whole = part.iter().take_while(|change| change.is_ok()).count();
            prop_assert!(part.len() - whole <= 1, "nothing follows an error");
            prop_assert!(part.iter().flatten().eq(&expected[..whole]));
        }
    }
}
