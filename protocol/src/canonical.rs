//! One way to write a statement down: the bytes that are hashed and signed.
//!
//! Every field is written with its length, in a fixed order, under a label that names the statement and its version, so
//! that two different statements never have the same bytes. Maps, floats as text and optional spaces do not occur.

use crate::digest::Digest;

/// Canonical bytes in the making. Call the field methods in the order of the struct.
#[derive(Clone, Debug)]
pub struct Canonical(Vec<u8>);

impl Canonical {
    /// A statement of the kind `label`, such as `sapwood/round/terms/v1`.
    pub fn new(label: &str) -> Self {
        Self(Vec::with_capacity(256)).str(label)
    }
    /// A byte string: its length as a little-endian `u64`, then its bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.0.extend_from_slice(bytes);
        self
    }
    /// UTF-8 text, as [`Canonical::bytes`].
    #[must_use]
    pub fn str(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }
    /// A number, little-endian.
    #[must_use]
    pub fn u64(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }
    /// A float by its IEEE 754 bits, little-endian.
    #[must_use]
    pub fn f64(self, number: f64) -> Self {
        self.u64(number.to_bits())
    }
    /// 0, or 1 and the value.
    #[must_use]
    pub fn option<T>(self, value: Option<T>, write: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            None => self.u64(0),
            Some(value) => write(self.u64(1), value),
        }
    }
    /// How many, then each.
    #[must_use]
    pub fn list<T>(self, items: impl ExactSizeIterator<Item = T>, write: impl FnMut(Self, T) -> Self) -> Self {
        let head = self.u64(items.len() as u64);
        items.fold(head, write)
    }
    /// The bytes.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
    /// SHA-256 of the bytes.
    pub fn digest(self) -> Digest {
        Digest::of(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_fields_do_not_run_together() {
        let a = Canonical::new("t").str("ab").str("c").finish();
        let b = Canonical::new("t").str("a").str("bc").finish();
        assert_ne!(a, b);
        let none = Canonical::new("t").option(None::<u64>, Canonical::u64).finish();
        let some = Canonical::new("t").option(Some(0), Canonical::u64).finish();
        assert_ne!(none, some);
        let label = Canonical::new("x").str("ab").str("c").finish();
        assert_ne!(a, label);
    }
}
