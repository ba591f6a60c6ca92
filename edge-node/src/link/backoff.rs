//! When to try again: exponential backoff with full jitter, so that a thousand nodes do not come back in one instant.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How long to wait between attempts. <https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The ceiling of the first wait.
    pub first: Duration,
    /// The ceiling that doubling stops at.
    pub most: Duration,
}

impl Policy {
    /// For a coordinator that is away for a moment.
    pub const RECONNECT: Self = Self { first: Duration::from_millis(200), most: Duration::from_secs(20) };
    /// For a refusal that only a person can lift.
    pub const REFUSED: Self = Self { first: Duration::from_secs(60), most: Duration::from_secs(600) };
}

/// A run of failures.
#[derive(Debug)]
pub struct Backoff<R> {
    failures: u32,
    random: R,
}

impl Backoff<ChaCha8Rng> {
    /// No failure yet; waits are drawn from the system's randomness.
    pub fn fresh() -> Self {
        Self::new(ChaCha8Rng::from_rng(&mut rand::rng()))
    }
}

impl<R: Rng> Backoff<R> {
    /// No failure yet; waits are drawn from `random`.
    pub fn new(random: R) -> Self {
        Self { failures: 0, random }
    }

    /// One more failure: how long to wait now, between nothing and `min(most, first · 2^failures)`.
    pub fn next(&mut self, policy: Policy) -> Duration {
        let factor = 1u32.checked_shl(self.failures).filter(|f| *f > 0).unwrap_or(u32::MAX);
        let ceiling = policy.first.saturating_mul(factor).min(policy.most);
        self.failures = self.failures.saturating_add(1);
        self.within(ceiling)
    }

    /// A random part of `ceiling`.
    pub fn within(&mut self, ceiling: Duration) -> Duration {
        // 53 random bits: a fraction in [0, 1).
        let fraction = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        ceiling.mul_f64(fraction)
    }

    /// It worked: the next failure is the first again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn backoff(seed: u64) -> Backoff<ChaCha8Rng> {
        Backoff::new(ChaCha8Rng::seed_from_u64(seed))
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_another_seed_another() {
        let schedule = |seed| {
            let mut backoff = backoff(seed);
            (0..20).map(|_| backoff.next(Policy::RECONNECT)).collect::<Vec<_>>()
        };
        assert_eq!(schedule(1), schedule(1));
        assert_ne!(schedule(1), schedule(2));
    }

    proptest! {
        #[test]
        fn waits_stay_below_a_ceiling_that_doubles_up_to_the_most(seed: u64, failures in 0usize..100) {
            let mut backoff = backoff(seed);
            for _ in 0..failures {
                backoff.next(Policy::RECONNECT);
            }
            let ceiling = Policy::RECONNECT.first.as_secs_f64() * 2f64.powi(i32::try_from(failures).unwrap());
            let wait = backoff.next(Policy::RECONNECT);
            prop_assert!(wait.as_secs_f64() <= ceiling.min(Policy::RECONNECT.most.as_secs_f64()));
        }
    }

    #[test]
    fn jitter_is_full_and_a_success_starts_over() {
        let mut backoff = backoff(3);
        for _ in 0..40 {
            backoff.next(Policy::RECONNECT);
        }
        let most = Policy::RECONNECT.most;
        let waits: Vec<_> = (0..200).map(|_| backoff.next(Policy::RECONNECT)).collect();
        assert!(waits.iter().any(|w| *w < most / 4), "some nodes come back early");
        assert!(waits.iter().any(|w| *w > most * 3 / 4), "and some late");
        backoff.reset();
        assert!(backoff.next(Policy::RECONNECT) <= Policy::RECONNECT.first);
    }
}
