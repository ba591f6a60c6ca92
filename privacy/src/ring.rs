//! Z_2^b: integers modulo 2^b, many at once.
//!
//! Lanes are `u32` whatever the width, and are reduced modulo 2^b only when they are read: 2^b divides 2^32, so wrapping
//! additions on `u32` stay right below. Masks will be added to the same lanes.

use zeroize::ZeroizeOnDrop;

use crate::{Fault, wire};

/// b, the width of the ring: 8 to 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bits(u8);

impl Bits {
    /// The whole `u32`: elements on the wire are aligned, so packing costs no more than copying.
    pub const FULL: Self = Self(32);

    /// # Errors
    /// [`Fault::Bits`] outside 8 to 32.
    pub fn new(bits: u8) -> Result<Self, Fault> {
        if (8..=32).contains(&bits) { Ok(Self(bits)) } else { Err(Fault::Bits { bits }) }
    }
    /// As a number.
    pub const fn get(self) -> u8 {
        self.0
    }
    /// 2^b - 1.
    pub const fn mask(self) -> u32 {
        u32::MAX >> (32 - self.0)
    }
    /// The representative of `lane` in [-2^(b-1), 2^(b-1)); bits above b are ignored.
    pub const fn centre(self, lane: u32) -> i32 {
        let unused = 32 - self.0 as u32;
        ((lane << unused) as i32) >> unused
    }
}

/// A running sum of vectors over Z_2^b. Wiped when dropped.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Accumulator {
    lanes: Vec<u32>,
    #[zeroize(skip)]
    bits: Bits,
    #[zeroize(skip)]
    added: u32,
    #[zeroize(skip)]
    most: u32,
}

impl Accumulator {
    /// The empty sum of at most `most` vectors of `len` elements.
    pub fn new(len: usize, bits: Bits, most: u32) -> Self {
        Self { lanes: vec![0; len], bits, added: 0, most }
    }
    /// Elements in each vector.
    pub fn len(&self) -> usize {
        self.lanes.len()
    }
    /// Whether the vectors have no elements.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }
    /// Width of the ring.
    pub fn bits(&self) -> Bits {
        self.bits
    }
    /// Vectors in the sum.
    pub fn added(&self) -> u32 {
        self.added
    }

    /// Adds one packed vector. On `Err` the sum is as it was.
    ///
    /// # Errors
    /// [`Fault::Full`], [`Fault::Length`] in bytes, [`Fault::Padding`].
    pub fn add_packed(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.add_chunks(&[bytes])
    }

    /// Adds one packed vector that lies in several pieces, cut anywhere. On `Err` the sum is as it was.
    ///
    /// # Errors
    /// As [`Accumulator::add_packed`].
    pub fn add_chunks<B: AsRef<[u8]>>(&mut self, chunks: &[B]) -> Result<(), Fault> {
        self.room(1)?;
        wire::check(chunks, self.lanes.len(), self.bits)?;
        wire::add(chunks, &mut self.lanes, self.bits);
        self.added += 1;
        Ok(())
    }

    /// Adds the sum of another shard. On `Err` the sum is as it was.
    ///
    /// # Errors
    /// [`Fault::Mismatch`], [`Fault::Full`].
    pub fn merge(&mut self, other: &Self) -> Result<(), Fault> {
        if self.lanes.len() != other.lanes.len() || self.bits != other.bits {
            return Err(Fault::Mismatch);
        }
        self.room(other.added)?;
        for (lane, more) in self.lanes.iter_mut().zip(&other.lanes) {
            *lane = lane.wrapping_add(*more);
        }
        self.added += other.added;
        Ok(())
    }

    /// The sums, centred: exact as long as no true sum leaves [-2^(b-1), 2^(b-1)).
    pub fn centred(&self) -> impl ExactSizeIterator<Item = i32> + '_ {
        let bits = self.bits;
        self.lanes.iter().map(move |lane| bits.centre(*lane))
    }

    /// The sums modulo 2^b.
    pub fn residues(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        let mask = self.bits.mask();
        self.lanes.iter().map(move |lane| lane & mask)
    }

    pub(crate) fn lanes(&self) -> &[u32] {
        &self.lanes
    }
    /// For masks to come off.
    pub(crate) fn lanes_mut(&mut self) -> &mut [u32] {
        &mut self.lanes
    }

    fn room(&self, more: u32) -> Result<(), Fault> {
        match self.added.checked_add(more) {
            Some(n) if n <= self.most => Ok(()),
            _ => Err(Fault::Full { most: self.most }),
        }
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
