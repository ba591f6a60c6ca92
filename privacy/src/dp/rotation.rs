//! The randomized Hadamard rotation H·diag(ξ)/√D, with ξ uniform signs from a public seed.
//!
//! It spreads any vector of norm c evenly: each rotated coordinate is sub-Gaussian with variance c²/D, so the grid needs room
//! for that and not for a single coordinate that holds the whole norm (Kairouz, Liu, Steinke 2021). H is its own
//! inverse up to the factor D.
//!
//! The transform here leaves 1/√D out, so on whole numbers it is exact: norms grow by exactly √D, and a vector that differs in
//! one example differs after it by exactly the rotated example. On floats it serves the coordinator, which only post-processes.

use std::ops::{Add, Neg, Sub};

use super::RotationSeed;

/// Elements that stay in the nearest cache.
const BLOCK: usize = 1 << 11;

/// H·x in place, without the factor 1/√D.
///
/// # Panics
/// If the length is no power of two.
pub fn hadamard<T: Copy + Add<Output = T> + Sub<Output = T>>(x: &mut [T]) {
    assert!(x.len().is_power_of_two(), "a Hadamard transform of a length that is no power of two");
    recurse(x);
}

/// Two levels at a time over the whole, then each quarter by itself: the memory is passed over as seldom as possible.
fn recurse<T: Copy + Add<Output = T> + Sub<Output = T>>(x: &mut [T]) {
    if x.len() <= BLOCK {
        let mut h = 1;
        while h < x.len() {
            for pair in x.chunks_exact_mut(2 * h) {
                let (low, high) = pair.split_at_mut(h);
                for (a, b) in low.iter_mut().zip(high) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            h *= 2;
        }
        return;
    }
    let quarter = x.len() / 4;
    let (low, high) = x.split_at_mut(2 * quarter);
    let ((p, q), (r, s)) = (low.split_at_mut(quarter), high.split_at_mut(quarter));
    for (((p, q), r), s) in p.iter_mut().zip(q).zip(r).zip(s) {
        let (a, b, c, d) = (*p + *r, *q + *s, *p - *r, *q - *s);
        (*p, *q, *r, *s) = (a + b, a - b, c + d, c - d);
    }
    for part in x.chunks_exact_mut(quarter) {
        recurse(part);
    }
}

/// diag(ξ)·x in place.
pub fn flip_signs<T: Copy + Neg<Output = T>>(x: &mut [T], seed: RotationSeed) {
    for (block, word) in x.chunks_mut(64).zip(seed.words()) {
        for (i, value) in block.iter_mut().enumerate() {
            // Written either way, so that there is no branch to guess.
            *value = if word >> i & 1 == 1 { -*value } else { *value };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: RotationSeed = RotationSeed::new([3; 32]);

    /// The definition: entry (i, j) of H is -1 to the number of common bits.
    fn by_definition(x: &[i64]) -> Vec<i64> {
        let entry = |i: usize, j: usize| if (i & j).count_ones().is_multiple_of(2) { 1 } else { -1 };
        (0..x.len()).map(|i| x.iter().enumerate().map(|(j, v)| entry(i, j) * v).sum()).collect()
    }

    #[test]
    fn the_transform_is_the_matrix() {
        for k in 0..=9 {
            let x: Vec<i64> = (0..1 << k).map(|i| (i * i * 7919) % 1009 - 500).collect();
            let mut y = x.clone();
            hadamard(&mut y);
            assert_eq!(y, by_definition(&x), "2^{k}");
        }
    }

    #[test]
    fn above_one_block_it_is_its_own_inverse_times_d_and_keeps_the_norm() {
        for k in [12, 13, 15] {
            let d = 1i64 << k;
            let x: Vec<i64> = (0..d).map(|i| (i * i * 7919) % 100_003 - 50_000).collect();
            let mut y = x.clone();
            flip_signs(&mut y, SEED);
            hadamard(&mut y);
            let square = |v: &[i64]| v.iter().map(|v| i128::from(*v) * i128::from(*v)).sum::<i128>();
            assert_eq!(square(&y), square(&x) * i128::from(d));
            hadamard(&mut y);
            flip_signs(&mut y, SEED);
            assert!(x.iter().zip(&y).all(|(x, y)| x * d == *y));
        }
    }

    #[test]
    fn a_large_transform_is_the_matrix_at_some_rows() {
        let d = 1usize << 13;
        let x: Vec<i64> = (0..d as i64).map(|i| (i * i * 31) % 1009 - 500).collect();
        let mut y = x.clone();
        hadamard(&mut y);
        for i in [0, 1, 2047, 2048, 4097, 8191] {
            let expected: i64 = x.iter().enumerate().map(|(j, v)| if (i & j).count_ones() % 2 == 0 { *v } else { -*v }).sum();
            assert_eq!(y[i], expected, "row {i}");
        }
    }

    #[test]
    fn floats_come_back() {
        let x: Vec<f32> = (0..4096).map(|i| (i as f32).sin()).collect();
        let mut y = x.clone();
        flip_signs(&mut y, SEED);
        hadamard(&mut y);
        hadamard(&mut y);
        flip_signs(&mut y, SEED);
        for (x, y) in x.iter().zip(&y) {
            assert!((x - y / 4096.0).abs() < 1e-6);
        }
    }

    #[test]
    fn a_set_bit_is_a_minus() {
        let mut x = [1i64; 100];
        flip_signs(&mut x, SEED);
        for (block, word) in x.chunks(64).zip(SEED.words()) {
            assert_eq!(
                block.iter().enumerate().fold(0, |bits, (i, x)| bits | u64::from(*x < 0) << i),
                word & (u64::MAX >> (64 - block.len()))
            );
        }
    }

    #[test]
    fn another_seed_gives_other_signs_and_about_half_of_them() {
        let signs = |seed| {
            let mut x = vec![1i64; 10_000];
            flip_signs(&mut x, RotationSeed::new([seed; 32]));
            x
        };
        let (a, b) = (signs(1), signs(2));
        assert_ne!(a, b);
        // Standard deviation 100: beyond 500 once in 1.7 million; the seed is fixed.
        assert!(a.iter().sum::<i64>().abs() < 500);
    }
}
