//! Borrowed tensors, so that a server can hand a request's bytes to the library, and the
//! library's output to the response, without a copy.

use std::borrow::Cow;

use bytemuck::{CheckedBitPattern, NoUninit, Pod, PodCastError, checked::CheckedCastError};
use ort::{
    session::SessionInputValue,
    value::{DynValue, PrimitiveTensorElementType, Tensor as OrtTensor, TensorRef},
};
use sapwood_models::{Tensor, TensorData, onnx::Element};

#[cfg(target_endian = "big")]
compile_error!("raw tensors are little-endian bytes and are read in place");

/// The values of a tensor, borrowed, row-major.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum View<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// 64-bit signed integers.
    I64(&'a [i64]),
    /// 32-bit signed integers.
    I32(&'a [i32]),
    /// Bytes.
    U8(&'a [u8]),
    /// Signed bytes.
    I8(&'a [i8]),
    /// Truth values.
    Bool(&'a [bool]),
    /// Little-endian bytes of values of this type, as they came over a wire. They are read in
    /// place if they are aligned, and copied once if they are not.
    Raw(Element, &'a [u8]),
}

/// A named tensor to run a model with.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Name of the model's input.
    pub name: &'a str,
    /// Extent of each axis.
    pub shape: &'a [usize],
    /// The values.
    pub data: View<'a>,
}

/// A named tensor that a model has answered with.
#[derive(Clone, Debug)]
pub struct Output<'a> {
    /// Name of the model's output.
    pub name: &'a str,
    /// Extent of each axis.
    pub shape: Vec<usize>,
    /// The values; never [`View::Raw`].
    pub data: View<'a>,
}

impl<'a> View<'a> {
    /// Type of the values.
    #[must_use]
    pub fn element(self) -> Element {
        match self {
            Self::F32(_) => Element::F32,
            Self::I64(_) => Element::I64,
            Self::I32(_) => Element::I32,
            Self::U8(_) => Element::U8,
            Self::I8(_) => Element::I8,
            Self::Bool(_) => Element::Bool,
            Self::Raw(element, _) => element,
        }
    }

    /// The values as little-endian bytes; a truth value is one byte, 0 or 1.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::F32(v) => bytemuck::cast_slice(v),
            Self::I64(v) => bytemuck::cast_slice(v),
            Self::I32(v) => bytemuck::cast_slice(v),
            Self::I8(v) => bytemuck::cast_slice(v),
            Self::Bool(v) => bytemuck::cast_slice(v),
            Self::U8(v) | Self::Raw(_, v) => v,
        }
    }

    /// Hands the values to the library: `shape` has been checked against what the model reads.
    pub(crate) fn lend(self, shape: &'a [usize]) -> Result<SessionInputValue<'a>, String> {
        match self {
            Self::F32(v) => borrowed(shape, v),
            Self::I64(v) => borrowed(shape, v),
            Self::I32(v) => borrowed(shape, v),
            Self::U8(v) | Self::Raw(Element::U8, v) => borrowed(shape, v),
            Self::I8(v) => borrowed(shape, v),
            Self::Bool(v) => borrowed(shape, v),
            Self::Raw(Element::F32, raw) => numbers::<f32>(shape, raw),
            Self::Raw(Element::I64, raw) => numbers::<i64>(shape, raw),
            Self::Raw(Element::I32, raw) => numbers::<i32>(shape, raw),
            Self::Raw(Element::I8, raw) => numbers::<i8>(shape, raw),
            Self::Raw(Element::Bool, raw) => truth_values(shape, raw),
            Self::Raw(other, _) => Err(format!("bytes of {other:?} cannot be read")),
        }
    }

    /// Borrows the values of an output, with its shape.
    pub(crate) fn of(value: &'a DynValue) -> Option<(Vec<usize>, Self)> {
        fn try_as<T: PrimitiveTensorElementType>(value: &DynValue) -> Option<(Vec<usize>, &[T])> {
            let (shape, data) = value.try_extract_tensor::<T>().ok()?;
            let dims = shape.iter().map(|d| usize::try_from(*d).ok());
            Some((dims.collect::<Option<_>>()?, data))
        }
        use ort::value::TensorElementType as Type;
        match value.dtype().tensor_type()? {
            Type::Float32 => try_as(value).map(|(shape, v)| (shape, Self::F32(v))),
            Type::Int64 => try_as(value).map(|(shape, v)| (shape, Self::I64(v))),
            Type::Int32 => try_as(value).map(|(shape, v)| (shape, Self::I32(v))),
            Type::Uint8 => try_as(value).map(|(shape, v)| (shape, Self::U8(v))),
            Type::Int8 => try_as(value).map(|(shape, v)| (shape, Self::I8(v))),
            Type::Bool => try_as(value).map(|(shape, v)| (shape, Self::Bool(v))),
            _ => None,
        }
    }

    /// A copy of the values.
    ///
    /// # Errors
    /// Why the bytes are no values of their type; only [`View::Raw`] can fail.
    pub fn to_data(self) -> Result<TensorData, String> {
        Ok(match self {
            Self::F32(v) => TensorData::F32(v.to_vec()),
            Self::I64(v) => TensorData::I64(v.to_vec()),
            Self::I32(v) => TensorData::I32(v.to_vec()),
            Self::U8(v) | Self::Raw(Element::U8, v) => TensorData::U8(v.to_vec()),
            Self::I8(v) => TensorData::I8(v.to_vec()),
            Self::Bool(v) => TensorData::Bool(v.to_vec()),
            Self::Raw(Element::F32, raw) => TensorData::F32(read::<f32>(raw)?.into_owned()),
            Self::Raw(Element::I64, raw) => TensorData::I64(read::<i64>(raw)?.into_owned()),
            Self::Raw(Element::I32, raw) => TensorData::I32(read::<i32>(raw)?.into_owned()),
            Self::Raw(Element::I8, raw) => TensorData::I8(read::<i8>(raw)?.into_owned()),
            Self::Raw(Element::Bool, raw) => TensorData::Bool(read_bool(raw)?.to_vec()),
            Self::Raw(other, _) => return Err(format!("bytes of {other:?} cannot be read")),
        })
    }
}

impl<'a> From<&'a Tensor> for View<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        match &tensor.data {
            TensorData::F32(v) => Self::F32(v),
            TensorData::I64(v) => Self::I64(v),
            TensorData::I32(v) => Self::I32(v),
            TensorData::U8(v) => Self::U8(v),
            TensorData::I8(v) => Self::I8(v),
            TensorData::Bool(v) => Self::Bool(v),
        }
    }
}

impl<'a> Input<'a> {
    /// A tensor under the name of an input.
    #[must_use]
    pub fn new(name: &'a str, tensor: &'a Tensor) -> Self {
        Self { name, shape: &tensor.shape, data: tensor.into() }
    }
}

fn borrowed<'a, T>(shape: &'a [usize], values: &'a [T]) -> Result<SessionInputValue<'a>, String>
where
    T: PrimitiveTensorElementType + Clone + std::fmt::Debug + 'static,
{
    let tensor = TensorRef::from_array_view((shape, values)).map_err(|e| e.to_string())?;
    Ok(tensor.into())
}

fn numbers<'a, T>(shape: &'a [usize], raw: &'a [u8]) -> Result<SessionInputValue<'a>, String>
where
    T: PrimitiveTensorElementType + Pod + std::fmt::Debug,
{
    match read::<T>(raw)? {
        Cow::Borrowed(values) => borrowed(shape, values),
        Cow::Owned(values) => {
            let tensor = OrtTensor::from_array((shape, values)).map_err(|e| e.to_string())?;
            Ok(tensor.into())
        }
    }
}

fn truth_values<'a>(shape: &'a [usize], raw: &'a [u8]) -> Result<SessionInputValue<'a>, String> {
    borrowed(shape, read_bool(raw)?)
}

/// In place if the bytes are aligned for the type, else a copy.
fn read<T: Pod>(raw: &[u8]) -> Result<Cow<'_, [T]>, String> {
    match bytemuck::try_cast_slice(raw) {
        Ok(values) => Ok(Cow::Borrowed(values)),
        Err(PodCastError::TargetAlignmentGreaterAndInputNotAligned) if raw.len().is_multiple_of(size_of::<T>()) => {
            Ok(Cow::Owned(bytemuck::pod_collect_to_vec(raw)))
        }
        Err(_) => Err(format!("{} bytes are no whole number of values of {} bytes", raw.len(), size_of::<T>())),
    }
}

fn read_bool(raw: &[u8]) -> Result<&[bool], String> {
    checked_cast(raw).map_err(|_| "a truth value is a byte of 0 or 1".to_owned())
}

fn checked_cast<T: CheckedBitPattern + NoUninit>(raw: &[u8]) -> Result<&[T], CheckedCastError> {
    bytemuck::checked::try_cast_slice(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_bytes_are_read_in_place_or_copied_when_unaligned() {
        let values = [1.5f32, -2.0, 3.25];
        let aligned: &[u8] = bytemuck::cast_slice(&values);
        assert!(matches!(read::<f32>(aligned), Ok(Cow::Borrowed(v)) if v == values));
        // One byte into a buffer of floats is aligned for none.
        let mut room = [0f32; 4];
        let shifted = &mut bytemuck::cast_slice_mut::<f32, u8>(&mut room)[1..13];
        shifted.copy_from_slice(aligned);
        assert!(matches!(read::<f32>(shifted), Ok(Cow::Owned(v)) if v == values));
    }

    #[test]
    fn bytes_that_are_no_values_are_refused() {
        assert!(read::<f32>(&[0; 7]).is_err());
        assert!(read::<i64>(&[0; 7][1..]).is_err());
        assert!(read_bool(&[0, 1, 2]).is_err());
        assert_eq!(View::Raw(Element::Bool, &[0, 1]).to_data(), Ok(TensorData::Bool(vec![false, true])));
        assert!(View::Raw(Element::F16, &[0, 0]).to_data().is_err());
    }
}
