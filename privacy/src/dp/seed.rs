//! Seeds: a node's secret one for noise, and the public one of a round for rotation.
//!
//! They are two types, so that noise can never come from a seed that the coordinator knows.

use chacha20::{
    ChaCha20Rng,
    rand_core::{Rng as _, SeedableRng},
};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The seed of one node's rounding and noise in one session. Taken by value, never copied: one encoding, one seed.
///
/// Two encodings from the same seed carry the same noise, and their difference shows the difference of the updates in clear.
#[derive(ZeroizeOnDrop)]
pub struct NoiseSeed([u8; 32]);

/// What a [`NoiseSeed`] is stretched into; each has its own ChaCha20 stream.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Rounding = 1,
    Noise = 2,
}

impl NoiseSeed {
    /// Takes 32 bytes from `fill`, which must be the operating system's generator.
    ///
    /// # Errors
    /// Those of `fill`.
    pub fn draw<E>(fill: impl FnOnce(&mut [u8; 32]) -> Result<(), E>) -> Result<Self, E> {
        let mut seed = Self([0; 32]);
        fill(&mut seed.0)?;
        Ok(seed)
    }

    pub(crate) fn stream(&self, purpose: Purpose) -> ChaCha20Rng {
        let mut copy = self.0;
        let mut stream = ChaCha20Rng::from_seed(copy);
        copy.zeroize();
        stream.set_stream(purpose as u64);
        stream
    }
}

/// The public seed of a round's rotation; all nodes of the round and the coordinator hold the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationSeed([u8; 32]);

impl RotationSeed {
    /// Any 32 bytes that were fixed before the updates were known.
    pub const fn new(seed: [u8; 32]) -> Self {
        Self(seed)
    }

    /// The signs of the rotation, 64 at a time: bit j of word i is set if coordinate 64·i + j changes its sign.
    pub(crate) fn words(self) -> impl Iterator<Item = u64> {
        let mut stream = ChaCha20Rng::from_seed(self.0);
        std::iter::repeat_with(move || stream.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zero() -> NoiseSeed {
        NoiseSeed::draw(|_| Ok::<(), ()>(())).unwrap()
    }

    /// ChaCha20 with a key and a nonce of zeros, as in RFC 8439, appendix A.1: other implementations of a node rotate the same way.
    #[test]
    fn rotation_signs_are_the_keystream() {
        let words: Vec<u64> = RotationSeed::new([0; 32]).words().take(2).collect();
        assert_eq!(words, [0x903d_f1a0_ade0_b876, 0x28bd_8653_e56a_5d40]);
    }

    /// What a seed is stretched into, by another implementation of ChaCha20: stream 1 rounds, stream 2 is the noise.
    #[test]
    fn streams_agree_with_another_implementation() {
        let key = std::array::from_fn(|i| i as u8);
        for (purpose, number) in [(Purpose::Rounding, 1), (Purpose::Noise, 2)] {
            let seed = NoiseSeed::draw(|seed| {
                *seed = key;
                Ok::<(), ()>(())
            });
            let mut other = rand_chacha::ChaCha20Rng::from_seed(key);
            other.set_stream(number);
            let (mut ours, mut theirs) = ([0; 1000], [0; 1000]);
            seed.unwrap().stream(purpose).fill_bytes(&mut ours);
            other.fill_bytes(&mut theirs);
            assert_eq!(ours, theirs, "stream {number}");
        }
    }

    #[test]
    fn rounding_and_noise_have_streams_of_their_own() {
        let (mut rounding, mut noise) = (zero().stream(Purpose::Rounding), zero().stream(Purpose::Noise));
        let rotation = RotationSeed::new([0; 32]).words().next();
        let (a, b) = (rounding.next_u64(), noise.next_u64());
        assert!(a != b && Some(a) != rotation && Some(b) != rotation);
        assert_eq!(zero().stream(Purpose::Noise).next_u64(), b);
    }
}
