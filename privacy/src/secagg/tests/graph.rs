use super::*;
use crate::secagg::plan::{Profile, Rate};

fn ring(n: u32, seed: u8) -> (Plan, Graph) {
    let plan = Plan::new(n, Rate::from_ppm(100_000).unwrap(), Rate::from_ppm(50_000).unwrap(), Profile::Curious, 3).unwrap();
    assert!(n < 30 || !plan.is_complete());
    (plan, Graph::new(&plan, &[seed; 32]))
}

#[test]
fn everybody_has_k_neighbours_who_know_it() {
    for n in [3, 4, 29, 30, 31, 100, 257] {
        let (plan, graph) = ring(n, 1);
        for rank in 0..n {
            let neighbours = graph.neighbours(rank);
            assert_eq!(neighbours.len() as u32, plan.degree());
            assert!(neighbours.is_sorted_by(|a, b| a < b) && !neighbours.contains(&rank));
            assert!(neighbours.iter().all(|peer| graph.neighbours(*peer).contains(&rank)));
        }
    }
}

/// The order is that of the seed, a permutation, and uniform: each of 40 ranks stands at each place equally often (χ², one
/// false alarm in 10^6).
#[test]
fn the_order_is_a_uniform_permutation() {
    let n = 40u32;
    let mut counts = vec![0u32; (n * n) as usize];
    let draws = 4000u32;
    for i in 0..draws {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&i.to_le_bytes());
        let order = shuffle(n, &seed);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..n).collect::<Vec<_>>());
        (0..).zip(order).for_each(|(at, rank): (u32, u32)| counts[(at * n + rank) as usize] += 1);
    }
    let expected = f64::from(draws) / f64::from(n);
    let chi: f64 = counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
    let freedom = f64::from((n - 1) * (n - 1));
    assert!((chi - freedom).abs() < 4.9 * (2.0 * freedom).sqrt(), "χ² = {chi} with {freedom} degrees of freedom");
}

/// Pinned: both ends of every version must agree on it. Recomputed with OpenSSL's AES-256-CTR.
#[test]
fn the_order_is_pinned() {
    assert_eq!(shuffle(10, &[7; 32]), [0, 7, 9, 6, 2, 3, 4, 8, 1, 5]);
    assert_ne!(ring(100, 1).1, ring(100, 2).1);
}

/// Counting gaps in the ring says the same as walking the graph.
#[test]
fn connectivity_agrees_with_a_walk() {
    let n = 60;
    let (_, graph) = ring(n, 3);
    let mut pieces = [0; 2];
    for draw in 0..3000u32 {
        let stream = Keystream::new(Suite::ChaCha20, &[9; 32]);
        let mut bytes = [0; 64];
        stream.fill(draw, &mut bytes);
        // A few to many survivors.
        let left = RankSet::of(n, |rank| bytes[rank as usize] as u32 % 60 < 4 + draw % 56);
        let mut reached = RankSet::empty(n);
        let mut todo: Vec<u32> = left.iter().take(1).collect();
        while let Some(rank) = todo.pop() {
            if !reached.contains(rank) {
                reached.insert(rank);
                todo.extend(graph.neighbours(rank).into_iter().filter(|peer| left.contains(*peer)));
            }
        }
        let connected = reached == left;
        assert_eq!(graph.connects(&left), connected);
        pieces[usize::from(connected)] += 1;
    }
    assert!(pieces.iter().all(|count| *count > 100), "{pieces:?}");
}
