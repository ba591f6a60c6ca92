//! One way to write a message down: fixed fields, little-endian numbers, counted lists; nothing behind the end.

use super::message::Malformed;

/// Bytes of a message in the making.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    pub(super) fn u8(self, number: u8) -> Self {
        self.raw(&[number])
    }
    pub(super) fn u32(self, number: u32) -> Self {
        self.raw(&number.to_le_bytes())
    }
    pub(super) fn u64(self, number: u64) -> Self {
        self.raw(&number.to_le_bytes())
    }
    /// For `bytes` more to be written without moving, and leaving behind, what is already here.
    pub(super) fn room(mut self, bytes: usize) -> Self {
        self.0.reserve_exact(bytes);
        self
    }
    /// How many, as `u32`, then each. Lists here are bounded far below 2^32.
    pub(super) fn list<T>(self, items: &[T], mut write: impl FnMut(Self, &T) -> Self) -> Self {
        let head = self.u32(items.len() as u32);
        items.iter().fold(head, &mut write)
    }
    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        self.u32(bytes.len() as u32).raw(bytes)
    }
    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads what [`Writer`] wrote and refuses everything else.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
    pub(super) fn raw(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(head)
    }
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(*head)
    }
    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_le_bytes)
    }
    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }
    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }
    /// At most `most` entries of at least `least` bytes each: a count alone reserves no memory.
    pub(super) fn list<T>(
        &mut self,
        most: u32,
        least: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.u32()?;
        if count > most {
            return Err(Malformed::TooLong { count, most });
        }
        if (count as usize).saturating_mul(least) > self.0.len() {
            return Err(Malformed::Short);
        }
        let mut items = Vec::with_capacity(count as usize);
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }
    pub(super) fn bytes(&mut self, most: u32) -> Result<&'a [u8], Malformed> {
        let count = self.u32()?;
        if count > most {
            return Err(Malformed::TooLong { count, most });
        }
        self.raw(count as usize)
    }
    pub(super) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::Trailing { bytes: self.0.len() }) }
    }
}
