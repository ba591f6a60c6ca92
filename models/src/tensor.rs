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

/// Above this, whole numbers next to each other are the same f32.
const EXACT: f32 = 16_777_216.0;

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

    /// The first value as a number; truth is 1.
    pub fn first(&self) -> Option<f64> {
        match &self.data {
            TensorData::F32(v) => v.first().map(|v| f64::from(*v)),
            TensorData::I64(v) => v.first().map(|v| *v as f64),
            TensorData::I32(v) => v.first().map(|v| f64::from(*v)),
            TensorData::U8(v) => v.first().map(|v| f64::from(*v)),
            TensorData::I8(v) => v.first().map(|v| f64::from(*v)),
            TensorData::Bool(v) => v.first().map(|v| f64::from(u8::from(*v))),
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

    /// The same numbers as the type that a graph reads: token numbers, lengths and masks come from files as floats, too.
    /// `Err` is the flat index of the first value that is no number of that type.
    ///
    /// A whole number beyond 2^24 is none either: what it was before it became a float is not known.
    ///
    /// # Errors
    /// That index; 0 if there is no way from this tensor's type to `element`.
    pub fn read_as(self, element: Element) -> Result<Self, usize> {
        fn each<T>(values: &[f32], to: impl Fn(i64) -> Option<T>) -> Result<Vec<T>, usize> {
            let whole = |v: f32| (v.fract() == 0.0 && v.abs() <= EXACT).then_some(v as i64);
            values.iter().enumerate().map(|(i, v)| whole(*v).and_then(&to).ok_or(i)).collect()
        }
        fn float(values: impl IntoIterator<Item = i64>) -> Result<TensorData, usize> {
            let exact = |(i, v): (usize, i64)| if (v as f32).abs() <= EXACT { Ok(v as f32) } else { Err(i) };
            Ok(TensorData::F32(values.into_iter().enumerate().map(exact).collect::<Result<_, _>>()?))
        }
        if self.element() == element {
            return Ok(self);
        }
        let data = match (self.data, element) {
            (TensorData::F32(values), Element::I64) => TensorData::I64(each(&values, Some)?),
            (TensorData::F32(values), Element::I32) => TensorData::I32(each(&values, |v| v.try_into().ok())?),
            (TensorData::F32(values), Element::U8) => TensorData::U8(each(&values, |v| v.try_into().ok())?),
            (TensorData::F32(values), Element::I8) => TensorData::I8(each(&values, |v| v.try_into().ok())?),
            (TensorData::F32(values), Element::Bool) => {
                TensorData::Bool(each(&values, |v| [false, true].get(usize::try_from(v).ok()?).copied())?)
            }
            (TensorData::I64(values), Element::F32) => float(values)?,
            (TensorData::I32(values), Element::F32) => float(values.into_iter().map(i64::from))?,
            (TensorData::U8(values), Element::F32) => float(values.into_iter().map(i64::from))?,
            (TensorData::I8(values), Element::F32) => float(values.into_iter().map(i64::from))?,
            (TensorData::Bool(values), Element::F32) => float(values.into_iter().map(i64::from))?,
            _ => return Err(0),
        };
        Ok(Self { shape: self.shape, data })
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
    fn floats_become_what_a_model_reads() {
        let read = |values: &[f32], element| Tensor::f32([values.len()], values.to_vec()).unwrap().read_as(element).map(|t| t.data);
        assert_eq!(read(&[0.5, -1e30], Element::F32), Ok(TensorData::F32(vec![0.5, -1e30])));
        assert_eq!(read(&[3.0, -16_777_216.0], Element::I64), Ok(TensorData::I64(vec![3, -16_777_216])));
        assert_eq!(read(&[3.0, -2.0], Element::I32), Ok(TensorData::I32(vec![3, -2])));
        assert_eq!(read(&[0.0, 255.0], Element::U8), Ok(TensorData::U8(vec![0, 255])));
        assert_eq!(read(&[-128.0, 127.0], Element::I8), Ok(TensorData::I8(vec![-128, 127])));
        assert_eq!(read(&[0.0, 1.0], Element::Bool), Ok(TensorData::Bool(vec![false, true])));
        for bad in [0.5, f32::NAN, f32::INFINITY, 16_777_218.0, -16_777_218.0] {
            assert_eq!(read(&[1.0, bad], Element::I64), Err(1), "{bad}");
        }
        for (bad, element) in [(256.0, Element::U8), (-1.0, Element::U8), (128.0, Element::I8), (2.0, Element::Bool), (-1.0, Element::Bool)]
        {
            assert_eq!(read(&[1.0, bad], element), Err(1), "{bad} {element:?}");
        }
        assert_eq!(read(&[1.0], Element::F16), Err(0));
        assert_eq!(read(&[1.0], Element::F64), Err(0));
        let whole = |last: i64| Tensor::i64([2], vec![-3, last]).unwrap();
        assert_eq!(whole(1).read_as(Element::I64), Ok(whole(1)));
        assert_eq!(whole(1).read_as(Element::I32), Err(0));
        assert_eq!(whole(1 << 24).read_as(Element::F32).unwrap().as_f32().unwrap(), [-3.0, 16_777_216.0]);
        assert_eq!(whole(i64::MAX).read_as(Element::F32), Err(1));
        for data in
            [TensorData::I32(vec![1, 0]), TensorData::U8(vec![1, 0]), TensorData::I8(vec![1, 0]), TensorData::Bool(vec![true, false])]
        {
            let element = data.element();
            let floats = Tensor { shape: vec![2], data }.read_as(Element::F32).unwrap();
            assert_eq!(floats.as_f32().unwrap(), [1.0, 0.0], "{element:?}");
        }
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
