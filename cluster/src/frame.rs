//! The header before everything nodes send each other: magic, version, kind, length of what follows.

/// First bytes of a frame.
const MAGIC: [u8; 2] = *b"bf";
/// Version of the frames and of what is in them. Neighbours one minor version apart speak the same.
const VERSION: u8 = 3;
/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 8;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A [`crate::hello::Hello`].
    Hello = 1,
    /// A [`bifro_swim::Message`].
    Membership = 2,
    /// A [`bifro_genesis::Question`].
    Question = 3,
    /// A [`bifro_genesis::Reply`].
    Reply = 4,
}

/// The frame around `payload`.
pub(crate) fn wrap(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
    frame.extend(MAGIC);
    frame.extend([VERSION, kind as u8]);
    frame.extend(u32::try_from(payload.len()).expect("frames are far smaller than 4 GiB").to_le_bytes());
    frame.extend(payload);
    frame
}

/// The payload of a frame that is nothing but one whole frame of this kind.
pub(crate) fn unwrap(kind: Kind, frame: &[u8]) -> Option<&[u8]> {
    let (header, payload) = frame.split_at_checked(HEADER_BYTES)?;
    let length = u32::from_le_bytes(header[4..].try_into().ok()?);
    let fits = header[..2] == MAGIC && header[2] == VERSION && header[3] == kind as u8;
    (fits && length as usize == payload.len()).then_some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written_and_nothing_else_is() {
        let frame = wrap(Kind::Membership, b"abc");
        assert_eq!(unwrap(Kind::Membership, &frame), Some(&b"abc"[..]));
        assert_eq!(unwrap(Kind::Hello, &frame), None);
        for at in 0..HEADER_BYTES {
            let mut broken = frame.clone();
            broken[at] ^= 1;
            assert_eq!(unwrap(Kind::Membership, &broken), None, "byte {at}");
        }
        assert_eq!(unwrap(Kind::Membership, &frame[..HEADER_BYTES + 2]), None);
        assert_eq!(unwrap(Kind::Membership, b"bf"), None);
    }
}
