//! Which parameters must stay: those that some run needs. All others may go as soon as a round has superseded them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use sapwood_protocol::{Digest, RunId};

/// What each run needs. Two runs may need the same bytes.
#[derive(Default)]
pub(crate) struct Shelf(Mutex<BTreeMap<RunId, BTreeSet<Digest>>>);

impl Shelf {
    fn with<T>(&self, body: impl FnOnce(&mut BTreeMap<RunId, BTreeSet<Digest>>) -> T) -> T {
        body(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `run` needs `digest`, too.
    pub(crate) fn pin(&self, run: &RunId, digest: Digest) {
        self.with(|shelf| shelf.entry(run.clone()).or_default().insert(digest));
    }

    /// `run` needs these and no others; what nobody needs any more.
    pub(crate) fn keep(&self, run: &RunId, needed: impl IntoIterator<Item = Digest>) -> Vec<Digest> {
        self.with(|shelf| {
            let before = shelf.insert(run.clone(), needed.into_iter().collect()).unwrap_or_default();
            before.into_iter().filter(|digest| !shelf.values().any(|kept| kept.contains(digest))).collect()
        })
    }

    /// Whether somebody needs it.
    pub(crate) fn has(&self, digest: Digest) -> bool {
        self.with(|shelf| shelf.values().any(|kept| kept.contains(&digest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_run_needs_stays() {
        let shelf = Shelf::default();
        let (a, b): (RunId, RunId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let [one, two, three] = [b"1", b"2", b"3"].map(|bytes| Digest::of(bytes));
        assert!(shelf.keep(&a, [one, two]).is_empty());
        assert!(shelf.keep(&b, [two]).is_empty());
        shelf.pin(&a, three);
        assert!(shelf.has(three));
        assert_eq!(shelf.keep(&a, [three]), [one], "b needs two");
        assert_eq!(shelf.keep(&b, []), [two]);
        assert!(!shelf.has(two));
    }
}
