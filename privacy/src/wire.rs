//! The packed vector: `n` elements of `b` bits, little-endian, without gaps.
//!
//! Element `i` fills bits `i·b` to `(i+1)·b - 1`; bit `j` is bit `j mod 8` of byte `j / 8`. The bits behind the last element
//! are zero, so a vector has one encoding only. With b = 32 this is a row of little-endian `u32`.

use crate::{Bits, Fault};

/// Bytes of `n` packed elements.
pub const fn packed_len(n: usize, bits: Bits) -> usize {
    // n·b may exceed usize before the division; whole groups of eight elements take b bytes each.
    let b = bits.get() as usize;
    (n / 8) * b + ((n % 8) * b).div_ceil(8)
}

/// Packs `lanes`.
///
/// # Errors
/// [`Fault::Element`] for the first lane of 2^b or more.
pub fn pack(lanes: &[u32], bits: Bits) -> Result<Vec<u8>, Fault> {
    if let Some(index) = lanes.iter().position(|lane| lane & !bits.mask() != 0) {
        return Err(Fault::Element { index, value: lanes[index], bits: bits.get() });
    }
    let mut bytes = vec![0; packed_len(lanes.len(), bits)];
    pack_into(lanes, bits, &mut bytes);
    Ok(bytes)
}

/// Unpacks exactly `n` elements.
///
/// # Errors
/// [`Fault::Length`] in bytes, [`Fault::Padding`].
pub fn unpack(bytes: &[u8], n: usize, bits: Bits) -> Result<Vec<u32>, Fault> {
    check(&[bytes], n, bits)?;
    let mut lanes = vec![0; n];
    add(&[bytes], &mut lanes, bits);
    Ok(lanes)
}

/// Calls `$f::<B>` of the width `$b`, 8 to 32: with a constant width the compiler knows every shift.
macro_rules! with_width {
    ($b:expr, $f:ident($($arg:expr),*)) => {
        with_width!(@ $b, $f, ($($arg),*), 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31)
    };
    (@ $b:expr, $f:ident, $args:tt, $($w:literal)*) => {
        match $b { $($w => with_width!(! $f, $w, $args),)* _ => with_width!(! $f, 32, $args) }
    };
    (! $f:ident, $w:literal, ($($arg:expr),*)) => { $f::<$w>($($arg),*) };
}

/// Packs `lanes`, all below 2^b, into `bytes`, [`packed_len`] of them.
pub(crate) fn pack_into(lanes: &[u32], bits: Bits, bytes: &mut [u8]) {
    with_width!(bits.get(), pack_width(lanes, bytes));
}

fn pack_width<const B: usize>(lanes: &[u32], bytes: &mut [u8]) {
    let (groups, rest) = lanes.as_chunks::<8>();
    let (places, last) = bytes.as_chunks_mut::<B>();
    for (group, place) in groups.iter().zip(&mut *places) {
        *place = pack_group(group);
    }
    if !rest.is_empty() {
        let mut group = [0; 8];
        group[..rest.len()].copy_from_slice(rest);
        last.copy_from_slice(&pack_group::<B>(&group)[..last.len()]);
    }
}

/// Eight elements are B bytes.
fn pack_group<const B: usize>(group: &[u32; 8]) -> [u8; B] {
    let mut words = [0u64; 5];
    for (i, lane) in group.iter().enumerate() {
        let (word, shift) = (i * B / 64, i * B % 64);
        words[word] |= u64::from(*lane) << shift;
        if shift + B > 64 {
            words[word + 1] |= u64::from(*lane) >> (64 - shift);
        }
    }
    let bytes = words.map(u64::to_le_bytes);
    *bytes.as_flattened().first_chunk().expect("at most 32 of 40 bytes")
}

/// Packs lanes that are known to fit.
pub(crate) struct Packer {
    bytes: Vec<u8>,
    bits: u32,
    buffer: u64,
    held: u32,
}

impl Packer {
    pub(crate) fn new(n: usize, bits: Bits) -> Self {
        Self { bytes: Vec::with_capacity(packed_len(n, bits)), bits: u32::from(bits.get()), buffer: 0, held: 0 }
    }

    /// `lanes` must be below 2^b.
    pub(crate) fn extend(&mut self, lanes: &[u32]) {
        if self.bits == 32 {
            // Nothing is ever held back: every element is whole bytes.
            let start = self.bytes.len();
            self.bytes.resize(start + 4 * lanes.len(), 0);
            let (words, _) = self.bytes[start..].as_chunks_mut::<4>();
            for (word, lane) in words.iter_mut().zip(lanes) {
                *word = lane.to_le_bytes();
            }
            return;
        }
        for lane in lanes {
            self.buffer |= u64::from(*lane) << self.held;
            self.held += self.bits;
            if self.held >= 32 {
                self.bytes.extend_from_slice(&(self.buffer as u32).to_le_bytes());
                self.buffer >>= 32;
                self.held -= 32;
            }
        }
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        let rest = self.held.div_ceil(8) as usize;
        self.bytes.extend_from_slice(&self.buffer.to_le_bytes()[..rest]);
        self.bytes
    }
}

/// Whether `chunks`, one after the other, are `n` packed elements.
///
/// # Errors
/// [`Fault::Length`] in bytes, [`Fault::Padding`] for bits behind the last element.
pub fn check<B: AsRef<[u8]>>(chunks: &[B], n: usize, bits: Bits) -> Result<(), Fault> {
    let expected = packed_len(n, bits);
    let actual = chunks.iter().map(|chunk| chunk.as_ref().len()).sum();
    if actual != expected {
        return Err(Fault::Length { what: "bytes of a packed vector", expected, actual });
    }
    let used = (n % 8) * usize::from(bits.get()) % 8;
    let last = chunks.iter().rev().find_map(|chunk| chunk.as_ref().last()).copied().unwrap_or_default();
    if used != 0 && last >> used != 0 {
        return Err(Fault::Padding);
    }
    Ok(())
}

/// Adds checked packed elements to `lanes`, modulo 2^32.
pub(crate) fn add<B: AsRef<[u8]>>(chunks: &[B], lanes: &mut [u32], bits: Bits) {
    let b = usize::from(bits.get());
    let mut lanes = lanes;
    // Bytes at the end of a piece that do not fill a group; a group is the fewest elements that are whole bytes.
    let group = if b == 32 { 1 } else { 8 };
    let group_bytes = group * b / 8;
    let mut carry: Vec<u8> = Vec::with_capacity(group_bytes);
    for chunk in chunks {
        let mut bytes = chunk.as_ref();
        if !carry.is_empty() {
            let take = (group_bytes - carry.len()).min(bytes.len());
            carry.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if carry.len() < group_bytes {
                continue;
            }
            let (head, rest) = lanes.split_at_mut(group);
            add_groups(&carry, head, b);
            lanes = rest;
            carry.clear();
        }
        let groups = bytes.len() / group_bytes;
        let (whole, left) = bytes.split_at(groups * group_bytes);
        let (head, rest) = lanes.split_at_mut(groups * group);
        add_groups(whole, head, b);
        lanes = rest;
        carry.extend_from_slice(left);
    }
    if !carry.is_empty() {
        // The last, short group: its missing elements are zero.
        carry.resize(group_bytes, 0);
        let mut last = [0u32; 8];
        add_groups(&carry, &mut last[..group], b);
        for (lane, more) in lanes.iter_mut().zip(last) {
            *lane = lane.wrapping_add(more);
        }
    }
}

/// `bytes` are whole groups, `lanes` their elements.
fn add_groups(bytes: &[u8], lanes: &mut [u32], b: usize) {
    match b {
        32 => {
            for (lane, word) in lanes.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *lane = lane.wrapping_add(u32::from_le_bytes(*word));
            }
        }
        16 => {
            for (lane, word) in lanes.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *lane = lane.wrapping_add(u32::from(u16::from_le_bytes(*word)));
            }
        }
        8 => {
            for (lane, byte) in lanes.iter_mut().zip(bytes) {
                *lane = lane.wrapping_add(u32::from(*byte));
            }
        }
        _ => {
            with_width!(b, add_width(bytes, lanes));
        }
    }
}

fn add_width<const B: usize>(bytes: &[u8], lanes: &mut [u32]) {
    let mask = u64::from(u32::MAX >> (32 - B));
    for (lanes, bytes) in lanes.as_chunks_mut::<8>().0.iter_mut().zip(bytes.as_chunks::<B>().0) {
        // Each element lies within 8 bytes from its first one (7 + 31 bits at most): no loop carries bits along.
        let mut padded = [0u8; 40];
        padded[..B].copy_from_slice(bytes);
        for (i, lane) in lanes.iter_mut().enumerate() {
            let bit = i * B;
            let word: [u8; 8] = padded[bit / 8..bit / 8 + 8].try_into().expect("8 bytes");
            *lane = lane.wrapping_add((u64::from_le_bytes(word) >> (bit % 8) & mask) as u32);
        }
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
