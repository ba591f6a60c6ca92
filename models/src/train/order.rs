//! The random choices of training, each drawn from its own stream of one seed, so that
//! dropout does not disturb the order of the examples.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a stream of random numbers is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// The order of one epoch's examples.
    Order,
    /// The dropout masks of one epoch.
    Masks,
}

/// The generator of one purpose in one epoch: ChaCha8 with the seed as key and a stream
/// number of its own.
pub(super) fn generator(seed: u64, epoch: usize, purpose: Purpose) -> ChaCha8Rng {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(2 * epoch as u64 + matches!(purpose, Purpose::Masks) as u64);
    generator
}

/// A uniformly random order of `0..n` (Fisher and Yates, as Durstenfeld 1964 has it).
pub(super) fn shuffled(n: usize, generator: &mut ChaCha8Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, below(i as u64 + 1, generator) as usize);
    }
    order
}

/// A uniform number below `bound` without bias (Lemire 2019).
fn below(bound: u64, generator: &mut ChaCha8Rng) -> u64 {
    let threshold = bound.wrapping_neg() % bound;
    loop {
        let wide = u128::from(generator.next_u64()) * u128::from(bound);
        if wide as u64 >= threshold {
            return (wide >> 64) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_permutation_and_depends_on_seed_and_epoch() {
        let draw = |seed, epoch| shuffled(100, &mut generator(seed, epoch, Purpose::Order));
        let mut sorted = draw(1, 0);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(1, 1));
        assert_ne!(draw(1, 0), draw(2, 0));
        assert_eq!(shuffled(0, &mut generator(1, 0, Purpose::Order)), Vec::<usize>::new());
    }

    /// Each of the six orders of three elements comes up about equally often.
    #[test]
    fn orders_are_uniform() {
        let mut counts = std::collections::BTreeMap::new();
        let mut generator = generator(7, 0, Purpose::Order);
        for _ in 0..6000 {
            *counts.entry(shuffled(3, &mut generator)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        // Standard deviation is 29; five of them.
        assert!(counts.values().all(|c| (855..1145).contains(c)), "{counts:?}");
    }
}
