//! Who is whose neighbour.
//!
//! A Harary graph: participants stand in a ring in a random order, each the neighbour of the k/2 before and the k/2 behind it.
//! With k = n - 1 the graph is complete and needs no order.
//!
//! A ring falls apart only where two stretches of k/2 places hold nobody who is left and honest. Who leaves is chance under
//! [`super::Profile::Curious`]; under [`super::Profile::SemiMalicious`] the server may choose it, knowing the order and its
//! colluders, and leave only colluders standing in both stretches. They stand where chance put them, so
//! [`Plan::clustered`] bounds how many a stretch holds, and a survivor set is refused if two stretches have no more than
//! that many left.
//!
//! The order is a Fisher-Yates shuffle whose randomness is the AES-256 keystream under
//! H("fl/secagg/v1/graph" ‖ digest of the roll). The roll commits to every advertised key and to a nonce of each participant,
//! all of which are sent before anybody knows the order, so no order can be chosen. A server that already cheats while keys
//! are collected can still admit another subset and look at what follows; the profiles exclude that (a nonce that is
//! revealed in a further message would not help: it can be withheld just as well).

use super::{
    mask::{CHUNK, Keystream, Suite},
    plan::Plan,
    set::RankSet,
    terms::sha256,
};

/// The neighbour graph of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    n: u32,
    /// k/2, or nothing in a complete graph.
    reach: Option<u32>,
    /// How many of those left in a stretch may be colluders.
    clustered: usize,
    /// Which rank stands at a position of the ring.
    order: Vec<u32>,
    /// At which position a rank stands.
    position: Vec<u32>,
}

impl Graph {
    /// From the digest of the roll. Everybody who has the roll gets the same.
    pub fn new(plan: &Plan, roll: &[u8; 32]) -> Self {
        let n = plan.participants();
        if plan.is_complete() {
            return Self { n, reach: None, clustered: 0, order: Vec::new(), position: Vec::new() };
        }
        let order = shuffle(n, &sha256(&[b"fl/secagg/v1/graph", roll]));
        let mut position = vec![0; n as usize];
        for (at, rank) in (0..).zip(&order) {
            position[*rank as usize] = at;
        }
        Self { n, reach: Some(plan.degree() / 2), clustered: plan.clustered() as usize, order, position }
    }

    /// The neighbours of `rank`, in ascending order.
    pub fn neighbours(&self, rank: u32) -> Vec<u32> {
        let Some(reach) = self.reach else {
            return (0..self.n).filter(|other| *other != rank).collect();
        };
        let at = self.position[rank as usize];
        let ahead = (1..=reach).map(|step| (at + step) % self.n);
        let behind = (1..=reach).map(|step| (at + self.n - step) % self.n);
        let mut neighbours: Vec<u32> = ahead.chain(behind).map(|at| self.order[at as usize]).collect();
        neighbours.sort_unstable();
        neighbours
    }

    /// Whether those who are left still form one piece, wherever the colluders among them stand.
    ///
    /// A cut at i: between the survivors i and i + c + 1, in the order of the ring, lies a whole stretch, so that the c survivors
    /// between them could be all that holds the ring together there. Two cuts make two pieces if each has somebody left.
    pub fn connects(&self, left: &RankSet) -> bool {
        let Some(reach) = self.reach else { return true };
        let standing: Vec<u32> = (0..self.n).filter(|at| left.contains(self.order[*at as usize])).collect();
        let (m, step) = (standing.len(), self.clustered + 1);
        if m <= step {
            return m <= 1;
        }
        let place = |i: usize| standing[i % m] + if i < m { 0 } else { self.n };
        let cuts: Vec<usize> = (0..m).filter(|i| place(i + step) - place(*i) > reach).collect();
        cuts.iter().all(|i| {
            let next = cuts.partition_point(|j| *j < i + step);
            cuts.get(next).is_none_or(|j| j + step > i + m)
        })
    }
}

/// A uniformly random order of 0 to n-1 under `seed`.
fn shuffle(n: u32, seed: &[u8; 32]) -> Vec<u32> {
    let stream = Keystream::new(Suite::Aes256, seed);
    let mut buffer = Box::new([0u8; CHUNK]);
    let (mut chunk, mut used) = (0, CHUNK);
    let mut word = || {
        if used == CHUNK {
            stream.fill(chunk, buffer.as_mut_slice());
            (chunk, used) = (chunk + 1, 0);
        }
        used += 4;
        u32::from_le_bytes(buffer[used - 4..used].try_into().expect("4 bytes"))
    };
    let mut order: Vec<u32> = (0..n).collect();
    for i in (1..n).rev() {
        let j = below(i + 1, &mut word);
        order.swap(i as usize, j as usize);
    }
    order
}

/// A uniformly random number below `bound`, of uniformly random words: those above the largest multiple of `bound` are passed
/// over, so that no remainder is more likely than another.
fn below(bound: u32, mut word: impl FnMut() -> u32) -> u32 {
    let limit = u32::MAX - u32::MAX % bound;
    loop {
        let word = word();
        if word < limit {
            return word % bound;
        }
    }
}

#[cfg(test)]
#[path = "tests/graph.rs"]
mod tests;
