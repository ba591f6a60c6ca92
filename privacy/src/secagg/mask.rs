//! Masks: a 32-byte seed stretched to a vector that looks uniform.
//!
//! The keystream is cut into chunks of 16 KiB, each with its own nonce `0^8 ‖ be32(chunk)`: any part of a mask can be computed
//! by itself, so cores share a vector without locks and several masks are added to one chunk while it is in the nearest
//! cache. An element is four keystream bytes, little-endian, whatever the width of the ring.
//!
//! - Suite 1: AES-256-GCM over zeros with the tag dropped. By definition of GCM that is AES-256 in counter mode from
//!   the counter block `nonce ‖ be32(2)`, so every other library can reproduce it.
//! - Suite 2: ChaCha20 (RFC 8439) from block counter 1, for processors without AES instructions.
//!
//! A key serves one mask of one session only.

use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::{
    Bits,
    wire::{pack_into, packed_len},
};

/// Bytes of keystream under one nonce.
pub(super) const CHUNK: usize = 16 << 10;
/// Elements that one nonce masks.
const LANES: usize = CHUNK / 4;

/// How a seed becomes a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// 1: AES-256 in counter mode.
    Aes256,
    /// 2: ChaCha20.
    ChaCha20,
}

impl Suite {
    /// On the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::Aes256 => 1,
            Self::ChaCha20 => 2,
        }
    }
    /// From the wire.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Aes256),
            2 => Some(Self::ChaCha20),
            _ => None,
        }
    }
}

/// A seed, expanded once.
pub(super) struct Keystream(LessSafeKey);

impl Keystream {
    pub(super) fn new(suite: Suite, seed: &[u8; 32]) -> Self {
        let algorithm = match suite {
            Suite::Aes256 => &AES_256_GCM,
            Suite::ChaCha20 => &CHACHA20_POLY1305,
        };
        Self(LessSafeKey::new(UnboundKey::new(algorithm, seed).expect("both ciphers take 32 bytes")))
    }
    /// Overwrites `bytes`, at most a chunk, with the start of a chunk.
    pub(super) fn fill(&self, chunk: u32, bytes: &mut [u8]) {
        bytes.fill(0);
        let mut nonce = [0; 12];
        nonce[8..].copy_from_slice(&chunk.to_be_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let _tag = self.0.seal_in_place_separate_tag(nonce, Aad::empty(), bytes).expect("a chunk is far below the cipher's limit");
    }
}

/// Whether a mask goes on or comes off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    Plus,
    Minus,
}

impl Sign {
    /// Of the mask that `own` and `peer` share, in the vector of `own`: the two cancel.
    pub(super) fn between(own: u32, peer: u32) -> Self {
        if own < peer { Self::Plus } else { Self::Minus }
    }
    pub(super) fn opposite(self) -> Self {
        match self {
            Self::Plus => Self::Minus,
            Self::Minus => Self::Plus,
        }
    }
}

/// A mask to be added or taken away.
pub(super) struct Mask {
    sign: Sign,
    stream: Keystream,
}

impl Mask {
    pub(super) fn new(suite: Suite, seed: &[u8; 32], sign: Sign) -> Self {
        Self { sign, stream: Keystream::new(suite, seed) }
    }
}

/// Adds all `masks` to `lanes`, modulo 2^32, on up to `threads` cores.
pub(super) fn apply(lanes: &mut [u32], masks: &[Mask], threads: usize) {
    let share = share(lanes.len(), threads);
    std::thread::scope(|scope| {
        for (part, lanes) in (0..).zip(lanes.chunks_mut(share * LANES)) {
            scope.spawn(move || each_chunk(part * share as u32, lanes, masks, |_| ()));
        }
    });
}

/// As [`apply`], and packs the sum modulo 2^b while it is at hand.
pub(super) fn apply_and_pack(lanes: &mut [u32], masks: &[Mask], bits: Bits, threads: usize) -> Vec<u8> {
    let share = share(lanes.len(), threads);
    let mut packed = vec![0; packed_len(lanes.len(), bits)];
    // A chunk of elements is whole bytes in every width.
    let chunk_bytes = packed_len(LANES, bits);
    std::thread::scope(|scope| {
        let parts = lanes.chunks_mut(share * LANES).zip(packed.chunks_mut(share * chunk_bytes));
        for (part, (lanes, packed)) in (0..).zip(parts) {
            scope.spawn(move || {
                let mut places = packed.chunks_mut(chunk_bytes);
                each_chunk(part * share as u32, lanes, masks, |lanes| {
                    lanes.iter_mut().for_each(|lane| *lane &= bits.mask());
                    pack_into(lanes, bits, places.next().expect("a place for each chunk"));
                });
            });
        }
    });
    packed
}

/// How many chunks a core gets.
fn share(lanes: usize, threads: usize) -> usize {
    lanes.div_ceil(LANES).div_ceil(threads.max(1)).max(1)
}

/// Adds all `masks` to `lanes`, which begin with chunk `first` of the vector. A chunk of the sum and one of keystream stay in
/// the nearest cache while all masks pass over them; `then` sees it before it leaves.
fn each_chunk(first: u32, lanes: &mut [u32], masks: &[Mask], mut then: impl FnMut(&mut [u32])) {
    let mut buffer = Zeroizing::new(vec![0u8; CHUNK.min(4 * lanes.len())]);
    for (chunk, lanes) in (first..).zip(lanes.chunks_mut(LANES)) {
        let bytes = &mut buffer[..4 * lanes.len()];
        for mask in masks {
            mask.stream.fill(chunk, bytes);
            let words = bytes.as_chunks::<4>().0;
            match mask.sign {
                Sign::Plus => {
                    for (lane, word) in lanes.iter_mut().zip(words) {
                        *lane = lane.wrapping_add(u32::from_le_bytes(*word));
                    }
                }
                Sign::Minus => {
                    for (lane, word) in lanes.iter_mut().zip(words) {
                        *lane = lane.wrapping_sub(u32::from_le_bytes(*word));
                    }
                }
            }
        }
        then(lanes);
    }
}

#[cfg(test)]
#[path = "tests/mask.rs"]
mod tests;
