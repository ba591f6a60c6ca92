use proptest::prelude::*;
use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};

use super::*;
use crate::secagg::field::P;

/// Lagrange at 0 in plain integers: a second implementation, with inverses by Euclid.
fn lagrange(points: &[(u64, u64)]) -> u64 {
    fn inverse(a: i128) -> i128 {
        let (mut r, mut next_r, mut s, mut next_s) = (i128::from(P), a.rem_euclid(i128::from(P)), 0i128, 1i128);
        while next_r != 0 {
            let q = r / next_r;
            (r, next_r) = (next_r, r - q * next_r);
            (s, next_s) = (next_s, s - q * next_s);
        }
        s.rem_euclid(i128::from(P))
    }
    let p = i128::from(P);
    let mut sum = 0;
    for (i, (x, y)) in points.iter().enumerate() {
        let mut term = i128::from(*y);
        for (j, (other, _)) in points.iter().enumerate() {
            if i != j {
                term = term * i128::from(*other) % p * inverse(i128::from(*other) - i128::from(*x)) % p;
            }
        }
        sum = (sum + term) % p;
    }
    sum as u64
}

fn numbers(share: &Share) -> Vec<u64> {
    share.to_bytes().as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

/// Notes 7.1, by hand: with coefficients 10, 20, 30, … a line through the limb at 0.
#[test]
fn shares_are_those_computed_by_hand() {
    let mut next = 0u64;
    let mut random = |bytes: &mut [u8]| {
        next += 10;
        bytes.copy_from_slice(&next.to_le_bytes());
    };
    let mut secret = [0; 32];
    secret[0] = 7; // limb 0 is 7
    secret[8] = 1; // limb 1 is 2^8
    secret[31] = 0x80; // limb 4 is 128·2^24
    let shares = share(&secret, 2, &[0, 4], &mut random);
    // Rank 0 stands at 1, rank 4 at 5.
    assert_eq!(numbers(&shares[0]), [17, 276, 30, 40, (128 << 24) + 50]);
    assert_eq!(numbers(&shares[1]), [57, 356, 150, 200, (128 << 24) + 250]);
    assert_eq!(*Recovery::new(&[0, 4]).secret(&shares).unwrap(), secret);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Any t shares give the secret back, by two implementations; t - 1 fit every secret.
    #[test]
    fn exactly_t_shares_open(secret: [u8; 32], t in 2u32..20, extra in 0u32..12, seed: u64) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut holders: Vec<u32> = (0..t + extra).map(|i| i * 37 + (seed % 31) as u32).collect();
        let shares = share(&secret, t, &holders, &mut |bytes: &mut [u8]| rng.fill_bytes(bytes));
        // Some t of them.
        let mut chosen: Vec<usize> = (0..holders.len()).collect();
        while chosen.len() > t as usize {
            let gone = (rng.next_u32() as usize) % chosen.len();
            chosen.remove(gone);
        }
        let ranks: Vec<u32> = chosen.iter().map(|i| holders[*i]).collect();
        let recovered = Recovery::new(&ranks).secret(chosen.iter().map(|i| &shares[*i])).unwrap();
        prop_assert_eq!(*recovered, secret);
        let mut padded = [0u8; 35];
        padded[..32].copy_from_slice(&secret);
        for limb in 0..5 {
            let points: Vec<(u64, u64)> = chosen.iter().map(|i| (u64::from(holders[*i]) + 1, numbers(&shares[*i])[limb])).collect();
            let mut word = [0; 8];
            word[..7].copy_from_slice(&padded[7 * limb..7 * limb + 7]);
            prop_assert_eq!(lagrange(&points), u64::from_le_bytes(word));
            // One share less, and whatever value at 0 is claimed, there is a polynomial: the missing share decides.
            let mut short = points;
            short.pop();
            let (x, claimed) = (u64::MAX >> 4, 12_345);
            short.push((x, claimed));
            prop_assert_ne!(lagrange(&short), u64::from_le_bytes(word));
        }
        holders.pop();
    }

    /// Bytes that are no share are refused, everything else survives the way there and back.
    #[test]
    fn shares_have_one_encoding(words: [u64; 5]) {
        let mut bytes = [0; SHARE_BYTES];
        for (to, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *to = word.to_le_bytes();
        }
        match Share::from_bytes(&bytes) {
            Ok(share) => {
                prop_assert!(words.iter().all(|word| *word < P));
                prop_assert_eq!(*share.to_bytes(), bytes);
            }
            Err(_) => prop_assert!(words.iter().any(|word| *word >= P)),
        }
        // And with the high bits cut they are.
        let mut small = bytes;
        small.as_chunks_mut::<8>().0.iter_mut().for_each(|word| word[7] &= 0x0f);
        prop_assert!(Share::from_bytes(&small).is_ok());
    }
}

/// Shares of something that is not 32 bytes are noticed.
#[test]
fn nonsense_is_no_secret() {
    let mut bytes = [0; SHARE_BYTES];
    bytes[7] = 1; // 2^56 in limb 0
    let share = Share::from_bytes(&bytes).unwrap();
    assert!(Recovery::new(&[0]).secret([&share]).is_none());
    let mut bytes = [0; SHARE_BYTES];
    bytes[36] = 1; // 2^32 in limb 4, which holds 32 bits
    let share = Share::from_bytes(&bytes).unwrap();
    assert!(Recovery::new(&[0]).secret([&share]).is_none());
    assert_eq!(format!("{share:?}"), "Share(…)");
}

/// A share says nothing: over many sharings of one secret it is uniform (χ² on its top four bits, one false alarm in 10^6).
#[test]
fn a_share_is_uniform_whatever_the_secret() {
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    for secret in [[0; 32], [0xff; 32]] {
        let mut counts = [0u32; 16];
        for _ in 0..4000 {
            let shares = share(&secret, 3, &[1, 2, 3], &mut |bytes: &mut [u8]| rng.fill_bytes(bytes));
            numbers(&shares[0]).iter().for_each(|limb| counts[(limb >> 57) as usize] += 1);
        }
        let chi: f64 = counts.iter().map(|count| (f64::from(*count) - 1250.0).powi(2) / 1250.0).sum();
        assert!(chi < 56.0, "χ² = {chi} with 15 degrees of freedom");
    }
}

#[test]
fn secrets_wipe_themselves() {
    fn wiped<T: ZeroizeOnDrop>() {}
    wiped::<Share>();
    let mut share = Share([Element::ONE; LIMBS]);
    share.zeroize();
    assert_eq!(numbers(&share), [0; LIMBS]);
}
