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
    // Three chunks of keystream, each other words.
    assert_eq!(shuffle(10_000, &[7; 32])[..8], [6973, 3612, 8341, 4295, 5970, 3771, 7870, 2248]);
    assert_ne!(ring(100, 1).1, ring(100, 2).1);
}

/// The largest word that counts is the last below a multiple of the bound.
#[test]
fn no_remainder_is_more_likely() {
    let of = |words: [u32; 2]| {
        let mut words = words.into_iter();
        below(10, || words.next().unwrap())
    };
    // 2^32 - 1 = 10·429,496,729 + 5.
    assert_eq!(of([4_294_967_289, 3]), 9);
    for passed_over in [4_294_967_290, 4_294_967_291, u32::MAX] {
        assert_eq!(of([passed_over, 3]), 3);
    }
}

/// Few are left: one has nobody to be cut off from; of two, either may be held by colluders alone.
#[test]
fn hardly_anybody_is_one_piece_only_if_alone() {
    let plan = Plan::new(300, Rate::from_ppm(100_000).unwrap(), Rate::from_ppm(50_000).unwrap(), Profile::SemiMalicious, 3).unwrap();
    let graph = Graph::new(&plan, &[1; 32]);
    let curious = Graph { clustered: 0, ..graph.clone() };
    for one in [0, 150, 299] {
        let (alone, two) = (RankSet::of(300, |rank| rank == one), RankSet::of(300, |rank| rank == one || rank == 77));
        assert!(graph.connects(&alone) && curious.connects(&alone));
        assert!(!graph.connects(&two));
    }
}

/// Places of the ring in which nobody is left but the first `few` of each stretch of k/2.
fn cut(graph: &Graph, starts: [u32; 2], few: u32) -> RankSet {
    let reach = graph.reach.unwrap();
    let gone = |at: u32| starts.iter().any(|start| (few..reach).contains(&((at + graph.n - start) % graph.n)));
    RankSet::of(graph.n, |rank| !gone(graph.position[rank as usize]))
}

/// A server that chooses who leaves cannot split a ring along its colluders, and chance does not look like that.
#[test]
fn chosen_dropouts_cannot_cut_the_ring() {
    let rate = |ppm| Rate::from_ppm(ppm).unwrap();
    for n in [300, 1000] {
        let plan = Plan::new(n, rate(100_000), rate(50_000), Profile::SemiMalicious, 3).unwrap();
        let graph = Graph::new(&plan, &[1; 32]);
        let few = plan.clustered();
        assert!(few > 0 && few < plan.degree() / 2 && few <= plan.colluders());
        assert!(!graph.connects(&cut(&graph, [10, n / 2], 0)), "two empty stretches");
        assert!(!graph.connects(&cut(&graph, [10, n / 2], 1)), "one colluder in each");
        assert!(!graph.connects(&cut(&graph, [10, n / 2], few)), "as many as chance can put there");
        assert!(!graph.connects(&cut(&graph, [n - 5, 200], few)), "across the end of the order");
        assert!(graph.connects(&cut(&graph, [10, n / 2], few + 1)), "one of them is honest");
        assert!(graph.connects(&cut(&graph, [10, 10], 0)), "one cut leaves one piece");
        // A curious server does not choose.
        let curious = Graph { clustered: 0, ..graph.clone() };
        assert!(curious.connects(&cut(&graph, [10, n / 2], 1)));
        assert!(!curious.connects(&cut(&graph, [10, n / 2], 0)));
        // The planned share leaves by chance.
        for draw in 0..200u32 {
            let order = shuffle(n, &[&[7; 28][..], &draw.to_le_bytes()].concat().try_into().unwrap());
            assert!(graph.connects(&RankSet::of(n, |rank| order[rank as usize] >= n / 10)), "draw {draw}");
        }
    }
}

/// Against the definition: no two stretches with c survivors at most whose removal leaves two pieces.
#[test]
fn cuts_agree_with_their_definition() {
    let n = 40u32;
    let (_, graph) = ring(n, 5);
    let reach = graph.reach.unwrap();
    let mut refused = [0; 2];
    for draw in 0..400u32 {
        let mut bytes = [0; 64];
        Keystream::new(Suite::ChaCha20, &[3; 32]).fill(draw, &mut bytes);
        let left = RankSet::of(n, |rank| bytes[rank as usize] as u32 % 100 < 45 + draw % 50);
        let clustered = 1 + (draw % 2) as usize;
        let graph = Graph { clustered, ..graph.clone() };
        let stretch = |start: u32| -> Vec<u32> {
            (0..reach).map(|i| graph.order[((start + i) % n) as usize]).filter(|rank| left.contains(*rank)).collect()
        };
        let weak: Vec<Vec<u32>> = (0..n).map(stretch).filter(|stretch| stretch.len() <= clustered).collect();
        let plain = Graph { clustered: 0, ..graph.clone() };
        let splits = weak.iter().any(|a| {
            weak.iter().any(|b| {
                let rest = RankSet::of(n, |rank| left.contains(rank) && !a.contains(&rank) && !b.contains(&rank));
                !plain.connects(&rest)
            })
        });
        assert_eq!(graph.connects(&left), !splits, "draw {draw}, {clustered}");
        refused[usize::from(splits)] += 1;
    }
    assert!(refused.iter().all(|count| *count > 50), "{refused:?}");
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
