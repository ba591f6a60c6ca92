//! NumPy arrays: bounded reading of `.npy` streams, whatever their element type and layout.

use std::io::{self, Read};

use ndarray::{ArrayD, IxDyn, ShapeBuilder as _};
use ndarray_npy::npy::header::Header;
use sapwood_models::tensor::numel;

/// Longest header that is parsed; numpy writes about 128 bytes.
const MAX_HEADER: usize = 4096;
/// Deepest nesting of brackets in a header; the parser recurses.
const MAX_NESTING: usize = 8;
/// Bytes decoded at a time; a multiple of every element size.
const CHUNK: usize = 1 << 16;

/// An array as it was stored, in row-major order.
#[derive(Debug)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) numbers: Numbers,
}

/// The element types that are read.
#[derive(Debug)]
pub(crate) enum Numbers {
    F32(Vec<f32>),
    F64(Vec<f64>),
    U8(Vec<u8>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    Bool(Vec<bool>),
}

/// Why a stream is no array that can be used.
#[derive(Debug)]
pub(crate) enum Fault {
    Malformed(String),
    TooLarge(u64),
    Type(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Malformed(match error.kind() {
            io::ErrorKind::UnexpectedEof => "it ends too early".to_owned(),
            _ => error.to_string(),
        })
    }
}

impl Numbers {
    pub(crate) fn is_float(&self) -> bool {
        matches!(self, Self::F32(_) | Self::F64(_))
    }
}

/// Reads one array to the end of the stream, taking at most `limit` bytes of data into memory.
pub(crate) fn read(mut stream: impl Read, limit: u64) -> Result<Array, Fault> {
    let header = header(&mut stream)?;
    let descriptor = header.type_descriptor.as_string().cloned();
    let descriptor = descriptor.unwrap_or_else(|| header.type_descriptor.to_string());
    let Some(count) = numel(&header.shape) else { return Err(Fault::TooLarge(u64::MAX)) };
    let fortran = header.layout.is_fortran() && header.shape.len() > 1;
    let plan = Plan { shape: header.shape, count, limit, fortran };
    let numbers = match descriptor.as_str() {
        "<f4" => Numbers::F32(plan.decode(stream, f32::from_le_bytes)?),
        "<f8" => Numbers::F64(plan.decode(stream, f64::from_le_bytes)?),
        "|u1" => Numbers::U8(plan.decode(stream, |[b]: [u8; 1]| b)?),
        "|i1" => Numbers::I8(plan.decode(stream, i8::from_le_bytes)?),
        "<i2" => Numbers::I16(plan.decode(stream, i16::from_le_bytes)?),
        "<i4" => Numbers::I32(plan.decode(stream, i32::from_le_bytes)?),
        "<i8" => Numbers::I64(plan.decode(stream, i64::from_le_bytes)?),
        "|b1" => Numbers::Bool(plan.decode(stream, |[b]: [u8; 1]| b != 0)?),
        other => return Err(Fault::Type(other.to_owned())),
    };
    Ok(Array { shape: plan.shape, numbers })
}

/// Bounds the header before the library parses it.
fn header(stream: &mut impl Read) -> Result<Header, Fault> {
    let mut start = [0; 8];
    stream.read_exact(&mut start)?;
    let mut bytes = start.to_vec();
    let long = start[6] > 1;
    let mut length = [0; 4];
    let field = if long { &mut length[..4] } else { &mut length[..2] };
    stream.read_exact(field)?;
    bytes.extend_from_slice(field);
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_HEADER {
        return Err(Fault::Malformed(format!("its header announces {length} bytes")));
    }
    let at = bytes.len();
    bytes.resize(at + length, 0);
    stream.read_exact(&mut bytes[at..])?;
    if nesting(&bytes[at..]) > MAX_NESTING {
        return Err(Fault::Malformed("its header is nested too deeply".to_owned()));
    }
    Header::from_reader(&mut &bytes[..]).map_err(|e| Fault::Malformed(e.to_string()))
}

fn nesting(text: &[u8]) -> usize {
    let opened = |depth: &mut usize, byte: &u8| {
        match byte {
            b'(' | b'[' | b'{' => *depth += 1,
            b')' | b']' | b'}' => *depth = depth.saturating_sub(1),
            _ => {}
        }
        Some(*depth)
    };
    text.iter().scan(0, opened).max().unwrap_or(0)
}

/// What the header promises.
struct Plan {
    shape: Vec<usize>,
    count: usize,
    limit: u64,
    fortran: bool,
}

impl Plan {
    /// Decodes the promised values and refuses a byte more or less. Memory grows with what is
    /// there, not with what was promised.
    fn decode<T: Clone, const N: usize>(&self, mut stream: impl Read, from: impl Fn([u8; N]) -> T) -> Result<Vec<T>, Fault> {
        let bytes = (self.count as u64).saturating_mul(N as u64);
        if bytes > self.limit {
            return Err(Fault::TooLarge(bytes));
        }
        let mut values = Vec::new();
        let mut chunk = vec![0; CHUNK];
        let mut left = self.count;
        while left > 0 {
            let take = left.min(CHUNK / N);
            let raw = &mut chunk[..take * N];
            stream.read_exact(raw)?;
            values.reserve(take);
            values.extend(raw.as_chunks::<N>().0.iter().map(|bytes| from(*bytes)));
            left -= take;
        }
        if stream.read(&mut chunk[..1])? != 0 {
            return Err(Fault::Malformed("bytes follow the data that its header announces".to_owned()));
        }
        Ok(if self.fortran { self.to_row_major(values) } else { values })
    }

    fn to_row_major<T: Clone>(&self, values: Vec<T>) -> Vec<T> {
        let array = ArrayD::from_shape_vec(IxDyn(&self.shape).f(), values);
        let array = array.expect("as many values were read as the shape holds");
        array.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, arr2};
    use ndarray_npy::WriteNpyExt as _;

    use super::*;

    fn npy<A: ndarray_npy::WritableElement>(array: &ArrayD<A>) -> Vec<u8> {
        let mut bytes = Vec::new();
        array.write_npy(&mut bytes).unwrap();
        bytes
    }

    fn example() -> Vec<u8> {
        npy(&arr2(&[[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]]).into_dyn())
    }

    fn fault(bytes: &[u8]) -> Fault {
        read(bytes, 1 << 20).unwrap_err()
    }

    #[test]
    fn both_layouts_give_row_major_values() {
        let row_major = read(&example()[..], 1 << 20).unwrap();
        let column_major = Array2::from_shape_vec((2, 3).f(), vec![1.0f32, 4.0, 2.0, 5.0, 3.0, 6.0]).unwrap();
        let column_major = read(&npy(&column_major.into_dyn())[..], 1 << 20).unwrap();
        for array in [row_major, column_major] {
            assert_eq!(array.shape, [2, 3]);
            assert!(matches!(array.numbers, Numbers::F32(v) if v == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
        }
    }

    #[test]
    fn every_type_is_read() {
        macro_rules! round_trip {
            ($($variant:ident $type:ty),*) => {$(
                let values: Vec<$type> = vec![1 as $type, 0 as $type, 100 as $type];
                let array = read(&npy(&ArrayD::from_shape_vec(vec![3], values.clone()).unwrap())[..], 64).unwrap();
                assert!(matches!(array.numbers, Numbers::$variant(v) if v == values));
            )*};
        }
        round_trip!(F32 f32, F64 f64, U8 u8, I8 i8, I16 i16, I32 i32, I64 i64);
        let array = read(&npy(&ArrayD::from_shape_vec(vec![2], vec![true, false]).unwrap())[..], 64).unwrap();
        assert!(matches!(array.numbers, Numbers::Bool(v) if v == [true, false]));
    }

    #[test]
    fn a_truncated_or_padded_array_is_refused_at_every_length() {
        let whole = example();
        for end in 0..whole.len() {
            assert!(matches!(fault(&whole[..end]), Fault::Malformed(_)), "{end}");
        }
        let mut longer = whole;
        longer.push(0);
        assert!(matches!(fault(&longer), Fault::Malformed(reason) if reason.contains("follow")));
    }

    /// Writes a header of its own making.
    fn with_header(dictionary: &str) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((dictionary.len() as u16 + 1).to_le_bytes());
        bytes.extend(dictionary.as_bytes());
        bytes.push(b'\n');
        bytes
    }

    #[test]
    fn promises_that_cannot_be_kept_cost_nothing() {
        let huge = with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 4)}");
        assert!(matches!(fault(&huge), Fault::TooLarge(_)));
        let overflow = with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 9)}");
        assert!(matches!(fault(&overflow), Fault::TooLarge(_)));
        let mut long = b"\x93NUMPY\x02\x00".to_vec();
        long.extend(u32::MAX.to_le_bytes());
        assert!(matches!(fault(&long), Fault::Malformed(_)));
        let nested = with_header(&"(".repeat(2000));
        assert!(matches!(fault(&nested), Fault::Malformed(reason) if reason.contains("nested")));
    }

    #[test]
    fn other_types_are_named() {
        for descriptor in [">f4", "|O", "<U3", "<c8", "<f2"] {
            let bytes = with_header(&format!("{{'descr': '{descriptor}', 'fortran_order': False, 'shape': (1,)}}"));
            assert!(matches!(fault(&bytes), Fault::Type(found) if found == descriptor));
        }
        let record = with_header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}");
        assert!(matches!(fault(&record), Fault::Type(_)));
    }
}
