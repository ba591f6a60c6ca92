//! Golden examples: inputs and the outputs that the release gave for them, tried on the device before it goes live.
//!
//! `golden/inputs.npy` and `golden/outputs.npy`: NumPy format 1.0, little-endian float32, C order, first axis = examples.

use crate::fault::Fault;

/// A dense float32 array, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Axes, outermost first.
    pub shape: Vec<usize>,
    /// Product of the axes many.
    pub values: Vec<f32>,
}

/// Name of the inputs' entry.
pub const INPUTS: &str = "golden/inputs.npy";
/// Name of the outputs' entry.
pub const OUTPUTS: &str = "golden/outputs.npy";

impl Array {
    /// As `.npy` bytes.
    pub fn to_npy(&self) -> Vec<u8> {
        Vec::new()
    }
    /// From `.npy` bytes; `name` appears in refusals.
    pub fn from_npy(name: &str, bytes: &[u8]) -> Result<Self, Fault> {
        let _ = (name, bytes);
        Ok(Self { shape: Vec::new(), values: Vec::new() })
    }
    /// The largest absolute difference of two arrays of one shape; refuses other shapes and numbers that are none.
    pub fn distance(&self, other: &Self) -> Result<f64, Fault> {
        let _ = other;
        Ok(0.0)
    }
}
