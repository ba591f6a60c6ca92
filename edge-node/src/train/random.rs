//! Bench only: an update of the right length without any training, so that a round's overhead can be measured.

use sapwood_privacy::Contribution;
use sapwood_protocol::{NodeId, round::Terms};

use super::Update;

/// A random update, another for each node and round, about half as long as the clip norm.
pub(super) fn update(terms: &Terms, node: &NodeId) -> (Update, Contribution) {
    let length = terms.dimension();
    // Uniform in [-a, a] has the standard deviation a/√3.
    let most = terms.encoding.clip * 0.5 * (3.0 / length.max(1) as f64).sqrt();
    let scale = most as f32 / 2f32.powi(31);
    let mut state = terms.training_seed(node);
    let mut update = Vec::with_capacity(length + 1);
    while update.len() < length {
        let bits = split_mix(&mut state);
        // Truncations are meant: two halves of one word.
        update.extend([(bits >> 32) as i32 as f32 * scale, bits as i32 as f32 * scale]);
    }
    update.truncate(length);
    (Update::Vector(update), Contribution { examples: 100, correct: None, loss: 1.0 })
}

/// SplitMix64 (Steele, Lea, Flood 2014): a few instructions a word, and good enough to be different.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
