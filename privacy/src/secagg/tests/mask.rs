use aes::Aes256;
use ctr::{
    Ctr32BE,
    cipher::{KeyIvInit, StreamCipher},
};
use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};

use super::*;

fn seed(i: u8) -> [u8; 32] {
    std::array::from_fn(|j| i.wrapping_mul(31).wrapping_add(j as u8))
}

/// The first `bytes` of a mask by other implementations of the ciphers.
fn reference(suite: Suite, seed: &[u8; 32], bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    for (chunk, out) in (0u32..).zip(out.chunks_mut(16_384)) {
        match suite {
            Suite::Aes256 => {
                let mut counter = [0; 16];
                counter[8..12].copy_from_slice(&chunk.to_be_bytes());
                counter[15] = 2;
                Ctr32BE::<Aes256>::new(seed.into(), &counter.into()).apply_keystream(out);
            }
            Suite::ChaCha20 => {
                // The original layout: a 64-bit counter, then a 64-bit nonce, whose high half ends the RFC's nonce.
                let mut rng = ChaCha20Rng::from_seed(*seed);
                rng.set_stream(u64::from(chunk.swap_bytes()) << 32);
                rng.set_word_pos(16);
                rng.fill_bytes(out);
            }
        }
    }
    out
}

fn lanes_of(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

/// Notes 7.1: both suites against second implementations, over several chunks and a ragged end.
#[test]
fn masks_agree_with_other_implementations() {
    for suite in [Suite::Aes256, Suite::ChaCha20] {
        for n in [1, 3, 1000, 4096, 4097, 3 * 4096 + 5] {
            let mut lanes = vec![0; n];
            apply(&mut lanes, &[Mask::new(suite, &seed(1), Sign::Plus)], 1);
            assert_eq!(lanes, lanes_of(&reference(suite, &seed(1), 4 * n)), "{suite:?}, {n}");
        }
    }
}

/// RFC 8439 §2.3.2 and §2.4.2 start at block counter 1 with other nonces; appendix A.1's vector 2 is the zero key and nonce at
/// counter 1, which is our chunk 0.
#[test]
fn suite_2_gives_the_vector_of_the_rfc() {
    let mut bytes = [0; 64];
    Keystream::new(Suite::ChaCha20, &[0; 32]).fill(0, &mut bytes);
    assert_eq!(
        bytes[..32],
        [
            0x9f, 0x07, 0xe7, 0xbe, 0x55, 0x51, 0x38, 0x7a, 0x98, 0xba, 0x97, 0x7c, 0x73, 0x2d, 0x08, 0x0d, 0xcb, 0x0f, 0x29, 0xa0, 0x48,
            0xe3, 0x65, 0x69, 0x12, 0xc6, 0x53, 0x3e, 0x32, 0xee, 0x7a, 0xed
        ]
    );
}

/// NIST SP 800-38D, test case 14 of the GCM specification: AES-256, zero key, zero nonce, one zero block.
#[test]
fn suite_1_gives_the_vector_of_the_specification() {
    let mut bytes = [0; 16];
    Keystream::new(Suite::Aes256, &[0; 32]).fill(0, &mut bytes);
    assert_eq!(bytes, [0xce, 0xa7, 0x40, 0x3d, 0x4d, 0x60, 0x6b, 0x6e, 0x07, 0x4e, 0xc5, 0xd3, 0xba, 0xf3, 0x9d, 0x18]);
}

#[test]
fn cores_get_equal_shares_of_whole_chunks() {
    assert_eq!([share(0, 0), share(1, 4), share(4096, 1), share(4097, 1), share(10 * 4096, 2), share(10 * 4096, 3)], [1, 1, 1, 2, 5, 4]);
}

/// However many cores share the work, the sum is the same, and what goes on comes off.
#[test]
fn cores_change_nothing() {
    let n = 5 * 4096 + 77;
    for suite in [Suite::Aes256, Suite::ChaCha20] {
        let start: Vec<u32> = (0..n as u32).map(|i| i.wrapping_mul(2_654_435_761)).collect();
        let masks = |flip: bool| -> Vec<Mask> {
            (0..5)
                .map(|i| {
                    let sign = if i % 2 == 0 { Sign::Plus } else { Sign::Minus };
                    Mask::new(suite, &seed(i), if flip { sign.opposite() } else { sign })
                })
                .collect()
        };
        let mut expected = start.clone();
        for i in 0..5u8 {
            for (lane, mask) in expected.iter_mut().zip(lanes_of(&reference(suite, &seed(i), 4 * n))) {
                *lane = if i % 2 == 0 { lane.wrapping_add(mask) } else { lane.wrapping_sub(mask) };
            }
        }
        for threads in [0, 1, 2, 3, 6, 100] {
            let mut lanes = start.clone();
            apply(&mut lanes, &masks(false), threads);
            assert_eq!(lanes, expected, "{threads} threads");
            for bits in [8, 13, 20, 32].map(|bits| Bits::new(bits).unwrap()) {
                let packed = apply_and_pack(&mut start.clone(), &masks(false), bits, threads);
                let residues: Vec<u32> = expected.iter().map(|lane| lane & bits.mask()).collect();
                assert_eq!(packed, crate::wire::pack(&residues, bits).unwrap(), "{threads} threads, {bits:?}");
            }
            apply(&mut lanes, &masks(true), threads);
            assert_eq!(lanes, start);
        }
    }
    apply(&mut [], &[Mask::new(Suite::Aes256, &seed(1), Sign::Plus)], 2);
}

#[test]
fn a_pair_takes_opposite_signs() {
    assert_eq!(Sign::between(3, 8), Sign::Plus);
    assert_eq!(Sign::between(8, 3), Sign::Minus);
    assert_eq!(Sign::between(8, 3).opposite(), Sign::Plus);
    for suite in [Suite::Aes256, Suite::ChaCha20] {
        assert_eq!(Suite::from_code(suite.code()), Some(suite));
    }
    assert!(Suite::from_code(0).is_none() && Suite::from_code(3).is_none());
}
