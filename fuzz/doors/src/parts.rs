//! Several pieces of bytes in one.

/// Divides bytes at lengths of 32 bits that stand before each piece. A length beyond the end takes the rest; pieces that are not
/// there are empty.
pub fn split<const N: usize>(bytes: &[u8]) -> [&[u8]; N] {
    let mut rest = bytes;
    std::array::from_fn(|_| {
        let Some((length, after)) = rest.split_first_chunk() else { return std::mem::take(&mut rest) };
        let length = u32::from_le_bytes(*length) as usize;
        let (piece, after) = after.split_at(length.min(after.len()));
        rest = after;
        piece
    })
}

/// Puts pieces together so that [`split`] finds them again.
pub fn join(pieces: &[&[u8]]) -> Vec<u8> {
    let with_length =
        |piece: &&[u8]| [&u32::try_from(piece.len()).unwrap_or(u32::MAX).to_le_bytes(), *piece].concat();
    pieces.iter().flat_map(with_length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_apart_as_it_was_put_together() {
        let joined = join(&[b"one", b"", b"three"]);
        assert_eq!(split::<4>(&joined), [&b"one"[..], b"", b"three", b""]);
        assert_eq!(split::<2>(b"abc"), [&b"abc"[..], b""]);
        assert_eq!(split::<1>(&[255, 255, 255, 255, 7]), [&[7][..]]);
    }
}
