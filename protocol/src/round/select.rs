//! Who takes part: a seeded choice, so that a run can be repeated.

use std::collections::BTreeSet;

use rand::seq::SliceRandom;

use crate::{ids::NodeId, machine::replayable};

/// Chooses `want` of `eligible`, uniformly by a shuffle that depends on the run's seed, the round and the eligible nodes
/// alone. Members of `prefer` come first (they have trained already), those of `avoid` last (they failed this very round).
/// The answer is in ascending order, and shorter if there are fewer.
pub(crate) fn choose(
    eligible: &BTreeSet<NodeId>,
    seed: u64,
    round: u32,
    want: usize,
    prefer: &BTreeSet<NodeId>,
    avoid: &BTreeSet<NodeId>,
) -> Vec<NodeId> {
    let mut order: Vec<&NodeId> = eligible.iter().collect();
    order.shuffle(&mut replayable(&[b"sapwood/round/cohort/v1", &seed.to_le_bytes(), &round.to_le_bytes()]));
    // Stable: within a class the shuffle decides.
    order.sort_by_key(|node| if prefer.contains(*node) { 0 } else { 1 + u8::from(avoid.contains(*node)) });
    let mut cohort: Vec<NodeId> = order.into_iter().take(want).cloned().collect();
    cohort.sort_unstable();
    cohort
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(n: usize) -> BTreeSet<NodeId> {
        (0..n).map(|i| format!("n{i:03}").parse().unwrap()).collect()
    }
    fn pick(n: usize, seed: u64, round: u32, want: usize) -> Vec<NodeId> {
        choose(&nodes(n), seed, round, want, &BTreeSet::new(), &BTreeSet::new())
    }

    #[test]
    fn the_same_seed_and_round_choose_the_same_cohort() {
        assert_eq!(pick(50, 7, 3, 10), pick(50, 7, 3, 10));
        assert_ne!(pick(50, 7, 3, 10), pick(50, 7, 4, 10));
        assert_ne!(pick(50, 7, 3, 10), pick(50, 8, 3, 10));
        assert_eq!(pick(4, 7, 3, 10).len(), 4);
    }

    /// Over many rounds each node is chosen about equally often: 2,000 rounds of 10 in 40 give 500 each, sd 19.4.
    #[test]
    fn the_choice_is_uniform() {
        let mut count = std::collections::BTreeMap::new();
        for round in 0..2000 {
            for node in pick(40, 1, round, 10) {
                *count.entry(node).or_insert(0u32) += 1;
            }
        }
        assert_eq!(count.len(), 40);
        assert!(count.values().all(|c| (400..600).contains(c)), "{count:?}");
    }

    #[test]
    fn those_who_failed_come_last_and_those_who_trained_first() {
        let all = nodes(6);
        let bad: BTreeSet<_> = all.iter().take(3).cloned().collect();
        let good: Vec<_> = all.iter().skip(3).cloned().collect();
        let none = BTreeSet::new();
        assert_eq!(choose(&all, 1, 1, 3, &none, &bad), good);
        assert_eq!(choose(&all, 1, 1, 3, &bad, &none).into_iter().collect::<BTreeSet<_>>(), bad);
        assert_eq!(choose(&all, 1, 1, 6, &none, &bad).len(), 6);
    }
}
