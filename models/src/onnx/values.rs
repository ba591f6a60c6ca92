//! `TensorProto` to and from [`Tensor`].
//!
//! A `TensorProto` keeps its values either in `raw_data` (little endian) or in the typed
//! field of its type. Types that have no [`TensorData`] of their own are converted to what
//! computing uses: f64, f16 and bf16 to f32; i16, u16 to i32; u32 to i64.

use super::Element;
use super::pb::{self, tensor_proto::DataLocation, tensor_proto::DataType};
use crate::ModelError;
use crate::tensor::{Tensor, TensorData};

/// Most axes of a tensor.
const MAX_RANK: usize = 32;

/// Checks dims, location and payload length without converting values.
///
/// Returns the number of elements.
pub(super) fn check(proto: &pb::TensorProto) -> Result<usize, ModelError> {
    refuse_external(proto)?;
    let shape = shape(proto)?;
    let count = crate::tensor::numel(&shape)
        .filter(|n| *n <= isize::MAX as usize / 16)
        .ok_or_else(|| broken(proto, format!("dims {:?} overflow", proto.dims)))?;
    let kind = DataType::try_from(proto.data_type()).map_err(|_| broken(proto, format!("unknown data type {}", proto.data_type())))?;
    let have = match (&proto.raw_data, kind) {
        (_, DataType::Undefined) => return Err(broken(proto, "no data type".into())),
        (Some(_), DataType::String) => {
            return Err(broken(proto, "strings cannot be raw data".into()));
        }
        (None, DataType::String) => return exact(proto, count, proto.string_data.len(), "strings"),
        (Some(raw), _) => {
            if typed_len(proto) > 0 {
                return Err(broken(proto, "values stand in raw_data and in a typed field".into()));
            }
            let need = raw_bytes(kind, count);
            return exact(proto, need, raw.len(), "bytes of raw_data").map(|_| count);
        }
        (None, _) => typed_len(proto),
    };
    let need = match kind {
        DataType::Complex64 | DataType::Complex128 => 2 * count,
        DataType::Uint4 | DataType::Int4 | DataType::Float4e2m1 => count.div_ceil(2),
        DataType::Uint2 | DataType::Int2 => count.div_ceil(4),
        _ => count,
    };
    // Packed sub-byte types may be written one to an element or packed; both are only
    // carried through, never computed with.
    if need != count && have == count {
        return Ok(count);
    }
    exact(proto, need, have, "values").map(|_| count)
}

/// The values of a tensor.
///
/// # Errors
/// [`ModelError::ExternalData`], or [`ModelError::BadTensor`] if dims, type and payload do
/// not agree or the type cannot be computed with.
pub fn read_tensor(proto: &pb::TensorProto) -> Result<Tensor, ModelError> {
    check(proto)?;
    let kind = DataType::try_from(proto.data_type()).expect("checked above");
    let ints = &proto.int32_data;
    let data = match (kind, &proto.raw_data) {
        (DataType::Float, Some(raw)) => TensorData::F32(words(raw, f32::from_le_bytes)),
        (DataType::Float, None) => TensorData::F32(proto.float_data.clone()),
        (DataType::Double, Some(raw)) => TensorData::F32(words(raw, |b| f64::from_le_bytes(b) as f32)),
        (DataType::Double, None) => TensorData::F32(proto.double_data.iter().map(|v| *v as f32).collect()),
        (DataType::Float16, Some(raw)) => TensorData::F32(words(raw, |b| half_to_f32(u16::from_le_bytes(b)))),
        (DataType::Float16, None) => TensorData::F32(narrow(proto, ints, |v: u16| half_to_f32(v))?),
        (DataType::Bfloat16, Some(raw)) => TensorData::F32(words(raw, |b| bfloat_to_f32(u16::from_le_bytes(b)))),
        (DataType::Bfloat16, None) => TensorData::F32(narrow(proto, ints, bfloat_to_f32)?),
        (DataType::Int64, Some(raw)) => TensorData::I64(words(raw, i64::from_le_bytes)),
        (DataType::Int64, None) => TensorData::I64(proto.int64_data.clone()),
        (DataType::Uint32, Some(raw)) => TensorData::I64(words(raw, |b| i64::from(u32::from_le_bytes(b)))),
        (DataType::Uint32, None) => TensorData::I64(
            proto
                .uint64_data
                .iter()
                .map(|v| u32::try_from(*v).map(i64::from))
                .collect::<Result<_, _>>()
                .map_err(|_| broken(proto, "a value is out of the type's range".into()))?,
        ),
        (DataType::Int32, Some(raw)) => TensorData::I32(words(raw, i32::from_le_bytes)),
        (DataType::Int32, None) => TensorData::I32(ints.clone()),
        (DataType::Int16, Some(raw)) => TensorData::I32(words(raw, |b| i32::from(i16::from_le_bytes(b)))),
        (DataType::Int16, None) => TensorData::I32(narrow(proto, ints, |v: i16| i32::from(v))?),
        (DataType::Uint16, Some(raw)) => TensorData::I32(words(raw, |b| i32::from(u16::from_le_bytes(b)))),
        (DataType::Uint16, None) => TensorData::I32(narrow(proto, ints, |v: u16| i32::from(v))?),
        (DataType::Uint8, Some(raw)) => TensorData::U8(raw.clone()),
        (DataType::Uint8, None) => TensorData::U8(narrow(proto, ints, |v: u8| v)?),
        (DataType::Int8, Some(raw)) => TensorData::I8(words(raw, i8::from_le_bytes)),
        (DataType::Int8, None) => TensorData::I8(narrow(proto, ints, |v: i8| v)?),
        (DataType::Bool, Some(raw)) => TensorData::Bool(raw.iter().map(|b| *b != 0).collect()),
        (DataType::Bool, None) => TensorData::Bool(ints.iter().map(|v| *v != 0).collect()),
        (other, _) => {
            return Err(broken(proto, format!("values of type {} cannot be read", other.as_str_name())));
        }
    };
    Tensor::new(shape(proto)?, data)
}

/// A `TensorProto` with the values in `raw_data`, as exporters write them.
pub fn write_tensor(name: &str, tensor: &Tensor) -> pb::TensorProto {
    pb::TensorProto {
        dims: tensor.shape.iter().map(|d| *d as i64).collect(),
        data_type: Some(tensor.element().to_onnx()),
        name: Some(name.to_owned()),
        raw_data: Some(raw(&tensor.data)),
        ..Default::default()
    }
}

/// Little-endian bytes of the values.
pub(crate) fn raw(data: &TensorData) -> Vec<u8> {
    match data {
        TensorData::F32(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
        TensorData::I64(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
        TensorData::I32(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
        TensorData::U8(v) => v.clone(),
        TensorData::I8(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
        TensorData::Bool(v) => v.iter().map(|v| u8::from(*v)).collect(),
    }
}

/// Replaces the values of a float tensor in place: `raw_data` set, typed fields cleared.
pub(crate) fn replace_f32(proto: &mut pb::TensorProto, values: &[f32]) {
    proto.float_data.clear();
    proto.double_data.clear();
    proto.int32_data.clear();
    proto.data_type = Some(Element::F32.to_onnx());
    proto.raw_data = Some(values.iter().flat_map(|v| v.to_le_bytes()).collect());
}

/// The dims as extents.
pub(crate) fn shape(proto: &pb::TensorProto) -> Result<Vec<usize>, ModelError> {
    if proto.dims.len() > MAX_RANK {
        return Err(broken(proto, format!("{} dims, at most {MAX_RANK}", proto.dims.len())));
    }
    proto.dims.iter().map(|d| usize::try_from(*d).map_err(|_| broken(proto, format!("dim {d}")))).collect()
}

fn refuse_external(proto: &pb::TensorProto) -> Result<(), ModelError> {
    let external = proto.data_location() == DataLocation::External;
    if !external && proto.external_data.is_empty() {
        return Ok(());
    }
    let location = proto.external_data.iter().find(|entry| entry.key() == "location").map_or("", |entry| entry.value());
    Err(ModelError::ExternalData { tensor: proto.name().to_owned(), location: location.to_owned(), traversal: climbs_out(location) })
}

/// Whether a location is absolute or has a `..` part, in Unix or Windows spelling.
fn climbs_out(location: &str) -> bool {
    let drive = location.as_bytes().get(1) == Some(&b':');
    location.starts_with(['/', '\\']) || drive || location.split(['/', '\\']).any(|part| part == "..")
}

fn raw_bytes(kind: DataType, count: usize) -> usize {
    // `check` bounded `count`, so 16 bytes an element cannot overflow.
    match kind {
        DataType::Complex128 => 16 * count,
        DataType::Double | DataType::Int64 | DataType::Uint64 | DataType::Complex64 => 8 * count,
        DataType::Float | DataType::Int32 | DataType::Uint32 => 4 * count,
        DataType::Float16 | DataType::Bfloat16 | DataType::Int16 | DataType::Uint16 => 2 * count,
        DataType::Uint4 | DataType::Int4 | DataType::Float4e2m1 => count.div_ceil(2),
        DataType::Uint2 | DataType::Int2 => count.div_ceil(4),
        DataType::Float6e2m3 | DataType::Float6e3m2 => (count * 6).div_ceil(8),
        _ => count,
    }
}

fn typed_len(proto: &pb::TensorProto) -> usize {
    proto.float_data.len()
        + proto.int32_data.len()
        + proto.int64_data.len()
        + proto.double_data.len()
        + proto.uint64_data.len()
        + proto.string_data.len()
}

fn exact(proto: &pb::TensorProto, need: usize, have: usize, what: &str) -> Result<usize, ModelError> {
    if need != have {
        return Err(broken(proto, format!("dims {:?} need {need} {what}, it has {have}", proto.dims)));
    }
    Ok(need)
}

fn words<const N: usize, T>(raw: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    raw.as_chunks::<N>().0.iter().map(|bytes| read(*bytes)).collect()
}

fn narrow<S: TryFrom<i32>, T>(proto: &pb::TensorProto, values: &[i32], convert: impl Fn(S) -> T) -> Result<Vec<T>, ModelError> {
    values
        .iter()
        .map(|v| S::try_from(*v).map(&convert).map_err(|_| broken(proto, format!("value {v} is out of the type's range"))))
        .collect()
}

fn bfloat_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// IEEE 754 binary16 to binary32; exact.
fn half_to_f32(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from((bits >> 10) & 0x1f);
    let fraction = f32::from(bits & 0x3ff) / 1024.0;
    match exponent {
        0 => sign * fraction * 2f32.powi(-14),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1.0 + fraction) * 2f32.powi(exponent - 15),
    }
}

fn broken(proto: &pb::TensorProto, reason: String) -> ModelError {
    ModelError::BadTensor { tensor: proto.name().to_owned(), reason }
}
