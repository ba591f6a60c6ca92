//! Seven folds of two held-out form blocks, each with some seeds, as many at a time as there are cores.

use std::{num::NonZeroUsize, sync::Mutex, thread};

use anyhow::{Result, bail};
use sapwood_data::digits;
use sapwood_models::{Dataset, Model};
use sapwood_simulator::preprocess;

/// Of two blocks each.
pub const FOLDS: usize = digits::BLOCK_COUNT / 2;

/// One fold with one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trial {
    /// From 1.
    pub fold: usize,
    /// From 1.
    pub seed: u64,
}

impl Trial {
    /// The blocks that are held out.
    pub fn held(self) -> [usize; 2] {
        [2 * self.fold - 1, 2 * self.fold]
    }

    /// A node for each block that is not held out, and those that are, all behind `prefix`.
    ///
    /// # Errors
    /// If `prefix` does not take digits.
    pub fn data(self, prefix: &Model) -> Result<(Vec<Dataset>, Dataset)> {
        let held = self.held();
        let nodes = (1..=digits::BLOCK_COUNT)
            .filter(|block| !held.contains(block))
            .map(|block| preprocess(prefix, digits::block(block)))
            .collect::<Result<_, _>>()?;
        Ok((nodes, preprocess(prefix, digits::blocks(held))?))
    }
}

/// What `one` gives for the first `folds` folds with `seeds` seeds each, by fold and seed.
///
/// # Errors
/// The first of `one`.
pub fn sweep<T: Send>(folds: usize, seeds: u64, one: impl Fn(Trial) -> Result<T> + Sync) -> Result<Vec<T>> {
    let todo: Vec<Trial> = (1..=folds).flat_map(|fold| (1..=seeds).map(move |seed| Trial { fold, seed })).rev().collect();
    let todo = Mutex::new(todo);
    let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let worker = || -> Result<Vec<(Trial, T)>> {
        let mut done = Vec::new();
        loop {
            let next = todo.lock().ok().and_then(|mut todo| todo.pop());
            let Some(trial) = next else { return Ok(done) };
            done.push((trial, one(trial)?));
        }
    };
    let parts = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        let joined = workers.into_iter().map(|w| w.join().unwrap_or_else(|_| bail!("a worker panicked")));
        joined.collect::<Result<Vec<_>>>()
    })?;
    let mut all: Vec<(Trial, T)> = parts.into_iter().flatten().collect();
    all.sort_by_key(|(trial, _)| *trial);
    Ok(all.into_iter().map(|(_, given)| given).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fold_is_tried_with_each_seed_in_order() {
        let all = sweep(FOLDS, 3, Ok).unwrap();
        assert_eq!(all.len(), 21);
        assert!(all.is_sorted());
        let mut held: Vec<usize> = all.iter().filter(|trial| trial.seed == 2).flat_map(|trial| trial.held()).collect();
        held.sort_unstable();
        assert_eq!(held, (1..=digits::BLOCK_COUNT).collect::<Vec<_>>());
        assert!(sweep(2, 2, |trial| if trial.seed == 2 { bail!("no") } else { Ok(()) }).is_err());
    }
}
