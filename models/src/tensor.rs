//! Dense host tensors: the only tensor type that crosses crate borders.

use crate::ModelError;
use crate::onnx::Element;

/// A dense row-major tensor in host memory.
///
/// The fields are open so that readers can build one without a copy; code that gets a
/// tensor from outside calls [`Tensor::check`] (or [`Tensor::new`]) before it indexes.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Extent of each axis; empty for a scalar.
    pub shape: Vec<usize>,
    /// The values, row-major; `shape.iter().product()` of them.
    pub data: TensorData,
}

/// The values of a [`Tensor`] by element type.
#[derive(Debug, Clone, PartialEq)]
pub enum TensorData {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 64-bit signed integers.
    I64(Vec<i64>),
    /// 32-bit signed integers.
    I32(Vec<i32>),
    /// Bytes.
    U8(Vec<u8>),
    /// Signed bytes.
    I8(Vec<i8>),
    /// Truth values.
    Bool(Vec<bool>),
}

impl TensorData {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::U8(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::Bool(v) => v.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Type of the values.
    pub fn element(&self) -> Element {
        match self {
            Self::F32(_) => Element::F32,
            Self::I64(_) => Element::I64,
            Self::I32(_) => Element::I32,
            Self::U8(_) => Element::U8,
            Self::I8(_) => Element::I8,
            Self::Bool(_) => Element::Bool,
        }
    }
}

/// Product of the dims, or `None` if it overflows.
pub fn numel(shape: &[usize]) -> Option<usize> {
    // A zero makes the whole product zero, also where a prefix would overflow.
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))
}

impl Tensor {
    /// A tensor whose shape and number of values agree.
    ///
    /// # Errors
    /// [`ModelError::BadTensor`] if they do not.
    pub fn new(shape: impl Into<Vec<usize>>, data: TensorData) -> Result<Self, ModelError> {
        let tensor = Self { shape: shape.into(), data };
        tensor.check()?;
        Ok(tensor)
    }

    /// A tensor of 32-bit floats.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn f32(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Result<Self, ModelError> {
        Self::new(shape, TensorData::F32(values))
    }

    /// A tensor of 64-bit integers.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn i64(shape: impl Into<Vec<usize>>, values: Vec<i64>) -> Result<Self, ModelError> {
        Self::new(shape, TensorData::I64(values))
    }

    /// A scalar float.
    pub fn scalar(value: f32) -> Self {
        Self { shape: Vec::new(), data: TensorData::F32(vec![value]) }
    }

    /// Whether shape and number of values agree.
    ///
    /// # Errors
    /// [`ModelError::BadTensor`] if they do not.
    pub fn check(&self) -> Result<(), ModelError> {
        if numel(&self.shape) == Some(self.data.len()) {
            return Ok(());
        }
        Err(ModelError::BadTensor {
            tensor: String::new(),
            reason: format!("shape {:?} does not hold {} values", self.shape, self.data.len()),
        })
    }

    /// Number of values.
    pub fn numel(&self) -> usize {
        self.data.len()
    }

    /// Type of the values.
    pub fn element(&self) -> Element {
        self.data.element()
    }

    /// Extent of the first axis; 1 for a scalar.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Values in one row, that is, in one index of the first axis.
    pub fn row_len(&self) -> usize {
        self.shape.get(1..).map_or(1, |rest| rest.iter().product())
    }

    /// The values, if they are 32-bit floats.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            TensorData::F32(v) => Some(v),
            _ => None,
        }
    }

    /// The values, if they are 64-bit integers.
    pub fn as_i64(&self) -> Option<&[i64]> {
        match &self.data {
            TensorData::I64(v) => Some(v),
            _ => None,
        }
    }

    /// Adds the rows of `more` behind those of this one. False, and nothing has happened, if they have another shape or are no f32.
    #[must_use]
    pub fn append(&mut self, more: &Self) -> bool {
        if self.shape.is_empty() || self.shape.get(1..) != more.shape.get(1..) {
            return false;
        }
        let (TensorData::F32(values), TensorData::F32(new)) = (&mut self.data, &more.data) else { return false };
        values.extend_from_slice(new);
        self.shape[0] += more.shape[0];
        true
    }

    /// The named rows, in that order; rows may repeat.
    ///
    /// # Panics
    /// If a row is not in the tensor, as slice indexing does.
    pub fn take_rows(&self, rows: &[usize]) -> Self {
        fn take<T: Copy>(values: &[T], width: usize, rows: &[usize]) -> Vec<T> {
            let mut out = Vec::with_capacity(rows.len() * width);
            for &row in rows {
                out.extend_from_slice(&values[row * width..(row + 1) * width]);
            }
            out
        }
        let width = self.row_len();
        let data = match &self.data {
            TensorData::F32(v) => TensorData::F32(take(v, width, rows)),
            TensorData::I64(v) => TensorData::I64(take(v, width, rows)),
            TensorData::I32(v) => TensorData::I32(take(v, width, rows)),
            TensorData::U8(v) => TensorData::U8(take(v, width, rows)),
            TensorData::I8(v) => TensorData::I8(take(v, width, rows)),
            TensorData::Bool(v) => TensorData::Bool(take(v, width, rows)),
        };
        let mut shape = self.shape.clone();
        match shape.first_mut() {
            Some(first) => *first = rows.len(),
            None => shape.push(rows.len()),
        }
        Self { shape, data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_and_values_must_agree() {
        assert!(Tensor::f32([2, 3], vec![0.0; 6]).is_ok());
        assert!(matches!(Tensor::f32([2, 3], vec![0.0; 5]), Err(ModelError::BadTensor { .. })));
        let huge = vec![usize::MAX, 2];
        assert!(matches!(Tensor::f32(huge, vec![]), Err(ModelError::BadTensor { .. })));
        assert_eq!(numel(&[usize::MAX, 4, 0]), Some(0));
        assert_eq!(numel(&[]), Some(1));
    }

    #[test]
    fn rows_are_taken_in_the_asked_order() {
        let t = Tensor::f32([3, 2], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let picked = t.take_rows(&[2, 0, 2]);
        assert_eq!(picked.shape, [3, 2]);
        assert_eq!(picked.as_f32().unwrap(), [4.0, 5.0, 0.0, 1.0, 4.0, 5.0]);
        assert_eq!(t.row_len(), 2);
        assert_eq!(Tensor::scalar(1.0).rows(), 1);
    }
}
