//! Sets of ranks as bitmaps: a thousand participants are 125 bytes, so everyone may see the whole set.

use super::{
    codec::{Reader, Writer},
    message::Malformed,
    plan::MAX_PARTICIPANTS,
};

/// Some of the ranks 0 to n-1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankSet {
    n: u32,
    words: Vec<u8>,
}

impl RankSet {
    /// The empty set of `n` possible ranks.
    pub fn empty(n: u32) -> Self {
        Self { n, words: vec![0; n.div_ceil(8) as usize] }
    }
    /// Those of the ranks below `n` that `keep` names.
    pub fn of(n: u32, keep: impl Fn(u32) -> bool) -> Self {
        let mut set = Self::empty(n);
        (0..n).filter(|rank| keep(*rank)).for_each(|rank| set.insert(rank));
        set
    }
    /// Possible ranks.
    pub fn universe(&self) -> u32 {
        self.n
    }
    /// Whether `rank` is in it.
    pub fn contains(&self, rank: u32) -> bool {
        rank < self.n && self.words[(rank / 8) as usize] >> (rank % 8) & 1 == 1
    }
    /// How many are in it.
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }
    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.n).filter(|rank| self.contains(*rank))
    }
    pub(super) fn insert(&mut self, rank: u32) {
        debug_assert!(rank < self.n);
        self.words[(rank / 8) as usize] |= 1 << (rank % 8);
    }
    pub(super) fn remove(&mut self, rank: u32) {
        debug_assert!(rank < self.n);
        self.words[(rank / 8) as usize] &= !(1 << (rank % 8));
    }
    /// The first rank that is here and not in `other`.
    pub(super) fn first_beyond(&self, other: &Self) -> Option<u32> {
        self.iter().find(|rank| !other.contains(*rank))
    }

    pub(super) fn write(&self, writer: Writer) -> Writer {
        writer.u32(self.n).raw(&self.words)
    }
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let n = reader.u32()?;
        if n > MAX_PARTICIPANTS {
            return Err(Malformed::TooLong { count: n, most: MAX_PARTICIPANTS });
        }
        let words = reader.raw(n.div_ceil(8) as usize)?.to_vec();
        // One set, one encoding: bits behind the last rank are zero.
        if n % 8 != 0 && words.last().is_some_and(|last| last >> (n % 8) != 0) {
            return Err(Malformed::Value { what: "the padding of a set" });
        }
        Ok(Self { n, words })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_go_in_and_out_one_by_one() {
        for n in [8, 13, 16] {
            let mut set = RankSet::of(n, |_| true);
            for rank in 0..n {
                assert!(set.contains(rank));
                set.remove(rank);
                assert_eq!((set.contains(rank), set.count()), (false, n - rank - 1));
            }
            assert!(set == RankSet::empty(n) && !set.contains(n) && !set.contains(u32::MAX));
            set.insert(3);
            assert_eq!(set.iter().collect::<Vec<_>>(), [3]);
        }
    }

    #[test]
    fn the_largest_set_is_read_and_no_larger() {
        let bytes = |n: u32| RankSet::of(n, |rank| rank % 3 == 0).write(Writer::default()).finish();
        let largest = RankSet::read(&mut Reader::new(&bytes(MAX_PARTICIPANTS))).unwrap();
        assert_eq!(largest.count(), MAX_PARTICIPANTS.div_ceil(3));
        let refused = Malformed::TooLong { count: MAX_PARTICIPANTS + 1, most: MAX_PARTICIPANTS };
        assert_eq!(RankSet::read(&mut Reader::new(&bytes(MAX_PARTICIPANTS + 1))), Err(refused));
    }
}
