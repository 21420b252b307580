//! XXH64 (Collet, 2014): a quick hash that finds damage, not forgery.

const PRIMES: [u64; 5] =
    [0x9e37_79b1_85eb_ca87, 0xc2b2_ae3d_27d4_eb4f, 0x1656_67b1_9e37_79f9, 0x85eb_ca77_c2b2_ae63, 0x27d4_eb2f_1656_67c5];

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(PRIMES[1])).rotate_left(31).wrapping_mul(PRIMES[0])
}

/// The hash of `bytes`; another one for every `seed`.
pub fn xxh64(bytes: &[u8], seed: u64) -> u64 {
    let [p0, p1, p2, p3, p4] = PRIMES;
    let (stripes, rest) = bytes.as_chunks::<32>();
    let mut hash = seed.wrapping_add(p4);
    if !stripes.is_empty() {
        let mut lanes = [seed.wrapping_add(p0).wrapping_add(p1), seed.wrapping_add(p1), seed, seed.wrapping_sub(p0)];
        for stripe in stripes {
            for (lane, word) in lanes.iter_mut().zip(stripe.as_chunks::<8>().0) {
                *lane = round(*lane, u64::from_le_bytes(*word));
            }
        }
        let [a, b, c, d] = lanes;
        hash = a.rotate_left(1).wrapping_add(b.rotate_left(7));
        hash = hash.wrapping_add(c.rotate_left(12)).wrapping_add(d.rotate_left(18));
        for lane in lanes {
            hash = (hash ^ round(0, lane)).wrapping_mul(p0).wrapping_add(p3);
        }
    }
    hash = hash.wrapping_add(bytes.len() as u64);
    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        hash = (hash ^ round(0, u64::from_le_bytes(*word))).rotate_left(27).wrapping_mul(p0).wrapping_add(p3);
    }
    let (halves, rest) = rest.as_chunks::<4>();
    for half in halves {
        let half = u64::from(u32::from_le_bytes(*half));
        hash = (hash ^ half.wrapping_mul(p0)).rotate_left(23).wrapping_mul(p1).wrapping_add(p2);
    }
    for &byte in rest {
        hash = (hash ^ u64::from(byte).wrapping_mul(p4)).rotate_left(11).wrapping_mul(p0);
    }
    hash = (hash ^ hash >> 33).wrapping_mul(p1);
    hash = (hash ^ hash >> 29).wrapping_mul(p2);
    hash ^ hash >> 32
}

#[cfg(test)]
mod tests {
    use super::xxh64;

    #[test]
    fn hashes_are_the_reference_implementations() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(xxh64(b"", 0), 0xef46_db37_51d8_e999);
        assert_eq!(xxh64(b"abc", 0), 0x44bc_2cf5_ad77_0999);
        assert_eq!(xxh64(&bytes[..77], 7), 0xf8ad_c776_6762_a998);
        assert_eq!(xxh64(&bytes, 0), 0x1fac_be84_06cd_904b);
    }
}
