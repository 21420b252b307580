//! The alphabet of byte-level BPE (from GPT-2): every byte written as one visible character, so that a vocabulary
//! over arbitrary bytes is a list of ordinary strings.
//!
//! Bytes that are printable in Latin-1 stand for themselves; the other 68 follow from U+0100 in order.

const fn is_itself(byte: u32) -> bool {
    matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF)
}

#[allow(clippy::indexing_slicing)] // at compile time
const TABLES: ([char; 256], [u8; 68]) = {
    let mut chars = ['\0'; 256];
    let mut others = [0u8; 68];
    let (mut byte, mut n) = (0u32, 0u32);
    while byte < 256 {
        let code = if is_itself(byte) { byte } else { 256 + n };
        if code >= 256 {
            others[n as usize] = byte as u8;
            n += 1;
        }
        chars[byte as usize] = match char::from_u32(code) {
            Some(c) => c,
            None => '\0',
        };
        byte += 1;
    }
    (chars, others)
};

/// The character that stands for each byte.
pub(super) const CHARS: [char; 256] = TABLES.0;

/// The byte that `c` stands for.
pub(super) fn byte_of(c: char) -> Option<u8> {
    match c as u32 {
        code if is_itself(code) => u8::try_from(code).ok(),
        code => TABLES.1.get(code.checked_sub(256)? as usize).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::{CHARS, byte_of};

    #[test]
    fn alphabet_is_a_bijection() {
        for byte in 0..=255u8 {
            assert_eq!(byte_of(CHARS[byte as usize]), Some(byte));
        }
        assert_eq!((CHARS[b' ' as usize], CHARS[b'\n' as usize], CHARS[0xAD]), ('Ġ', 'Ċ', 'Ń'));
        assert_eq!([byte_of(' '), byte_of('\u{144}'), byte_of('語')], [None; 3]);
    }
}
