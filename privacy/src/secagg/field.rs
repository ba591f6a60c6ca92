//! GF(p) with p = 2^61 - 1, without branches on values: the secrets that are shared pass through here.

use zeroize::{DefaultIsZeroes, Zeroize};

use super::terms::Random;

/// The Mersenne prime 2^61 - 1.
pub(super) const P: u64 = (1 << 61) - 1;

/// An element, always below p.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Element(u64);

impl DefaultIsZeroes for Element {}

/// `x` below 2p, reduced below p: the borrow of the subtraction decides, as a mask.
const fn reduce(x: u64) -> u64 {
    let (difference, borrow) = x.overflowing_sub(P);
    difference.wrapping_add(P & (borrow as u64).wrapping_neg())
}

impl Element {
    pub(super) const ZERO: Self = Self(0);
    pub(super) const ONE: Self = Self(1);

    /// A number below p, or nothing.
    pub(super) const fn new(number: u64) -> Option<Self> {
        if number < P { Some(Self(number)) } else { None }
    }
    pub(super) const fn get(self) -> u64 {
        self.0
    }
    /// Uniform. Whether a draw is repeated (once in 2^61) says nothing about the draw that is kept.
    pub(super) fn random(random: &mut dyn Random) -> Self {
        let mut bytes = [0; 8];
        loop {
            random.fill(&mut bytes);
            if let Some(element) = Self::new(u64::from_le_bytes(bytes) & P) {
                bytes.zeroize();
                return element;
            }
        }
    }
    pub(super) const fn plus(self, other: Self) -> Self {
        Self(reduce(self.0 + other.0))
    }
    pub(super) const fn minus(self, other: Self) -> Self {
        Self(reduce(self.0 + P - other.0))
    }
    pub(super) const fn times(self, other: Self) -> Self {
        let product = self.0 as u128 * other.0 as u128;
        // 2^61 is 1: the high bits are worth as much as the low ones.
        Self(reduce((product as u64 & P) + (product >> 61) as u64))
    }
    /// x^(p-2), which is 1/x by Fermat; 0 for 0. The exponent is public.
    pub(super) fn inverse(self) -> Self {
        let mut result = Self::ONE;
        for bit in (0..61).rev() {
            result = result.times(result);
            if (P - 2) >> bit & 1 == 1 {
                result = result.times(self);
            }
        }
        result
    }
}

#[cfg(test)]
#[path = "tests/field.rs"]
mod tests;
