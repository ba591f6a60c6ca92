//! Shamir's secret sharing (1979): a secret is the value at 0 of a random polynomial of degree t - 1, a share is its value
//! elsewhere. t shares give the secret, t - 1 say nothing.
//!
//! 32 bytes are five limbs of 56 bits in GF(2^61 - 1), each shared by itself. Sharing takes the same time for every secret;
//! recovering is done by the server, to whom the secret is public then.

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{field::Element, message::Malformed, terms::Random};

const LIMBS: usize = 5;
const LIMB_BYTES: usize = 7;
/// Bytes of a share.
pub const SHARE_BYTES: usize = 8 * LIMBS;

/// One holder's share of a 32-byte secret.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Share([Element; LIMBS]);

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Share(…)")
    }
}

/// Where the holder of `rank` stands. Never 0, where the secret is.
fn point(rank: u32) -> Element {
    Element::new(u64::from(rank) + 1).expect("2^32 is below p")
}

impl Share {
    /// Five numbers below 2^61 - 1, little-endian.
    pub fn to_bytes(&self) -> Zeroizing<[u8; SHARE_BYTES]> {
        let mut bytes = Zeroizing::new([0; SHARE_BYTES]);
        for (to, limb) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(&self.0) {
            *to = limb.get().to_le_bytes();
        }
        bytes
    }
    /// # Errors
    /// [`Malformed::Value`] for a number of 2^61 - 1 or more.
    pub fn from_bytes(bytes: &[u8; SHARE_BYTES]) -> Result<Self, Malformed> {
        let mut share = Self([Element::ZERO; LIMBS]);
        for (limb, from) in share.0.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *limb = Element::new(u64::from_le_bytes(*from)).ok_or(Malformed::Value { what: "a share" })?;
        }
        Ok(share)
    }
}

/// One share for each of the `holders`, distinct ranks, of which any `threshold` give `secret` back.
pub fn share(secret: &[u8; 32], threshold: u32, holders: &[u32], random: &mut dyn Random) -> Vec<Share> {
    let mut padded = Zeroizing::new([0u8; LIMBS * LIMB_BYTES]);
    padded[..32].copy_from_slice(secret);
    let mut shares = vec![Share([Element::ZERO; LIMBS]); holders.len()];
    for (i, limb) in padded.as_chunks::<LIMB_BYTES>().0.iter().enumerate() {
        let mut word = Zeroizing::new([0u8; 8]);
        word[..LIMB_BYTES].copy_from_slice(limb);
        let constant = Element::new(u64::from_le_bytes(*word)).expect("56 bits are below p");
        // From the highest power down to the constant term.
        let mut polynomial = Zeroizing::new(Vec::with_capacity(threshold as usize));
        polynomial.extend((1..threshold).map(|_| Element::random(random)));
        polynomial.push(constant);
        for (share, holder) in shares.iter_mut().zip(holders) {
            let x = point(*holder);
            share.0[i] = polynomial.iter().fold(Element::ZERO, |value, coefficient| value.times(x).plus(*coefficient));
        }
    }
    shares
}

/// Lagrange's coefficients at 0 for the shares of `holders`: they serve every secret that the same holders share.
pub struct Recovery(Vec<Element>);

impl Recovery {
    /// For distinct ranks, exactly as many as the threshold.
    pub fn new(holders: &[u32]) -> Self {
        let coefficients = holders.iter().map(|i| {
            let others = holders.iter().filter(|j| *j != i);
            let (above, below) = others
                .fold((Element::ONE, Element::ONE), |(above, below), j| (above.times(point(*j)), below.times(point(*j).minus(point(*i)))));
            above.times(below.inverse())
        });
        Self(coefficients.collect())
    }
    /// The secret behind the holders' shares, in the same order; nothing if they are no shares of 32 bytes.
    pub fn secret<'a>(&self, shares: impl IntoIterator<Item = &'a Share>) -> Option<Zeroizing<[u8; 32]>> {
        let mut limbs = [Element::ZERO; LIMBS];
        for (coefficient, share) in self.0.iter().zip(shares) {
            for (limb, value) in limbs.iter_mut().zip(&share.0) {
                *limb = limb.plus(coefficient.times(*value));
            }
        }
        let mut padded = Zeroizing::new([0u8; LIMBS * LIMB_BYTES]);
        for (bytes, limb) in padded.as_chunks_mut::<LIMB_BYTES>().0.iter_mut().zip(limbs) {
            let word = limb.get().to_le_bytes();
            if word[LIMB_BYTES] != 0 {
                return None;
            }
            bytes.copy_from_slice(&word[..LIMB_BYTES]);
        }
        limbs.zeroize();
        let (secret, rest) = padded.split_first_chunk().expect("35 bytes");
        (rest == [0; LIMBS * LIMB_BYTES - 32]).then(|| Zeroizing::new(*secret))
    }
}

#[cfg(test)]
#[path = "tests/shamir.rs"]
mod tests;
