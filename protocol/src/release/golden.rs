//! Golden examples: inputs and the outputs that the release gave for them, tried on the device before it goes live.
//!
//! `golden/inputs.npy` and `golden/outputs.npy` in NumPy's format 1.0 (NEP 1): little-endian float32, C order, the first axis
//! counts examples. `numpy.load` reads what is written here. A graph that reads several tensors has `golden/inputs-0.npy` and so on
//! instead, in the order of its inputs in `schema.json`.

use super::fault::ReleaseFault;
use crate::fault::Fault;

/// Name of the entry of the only input.
pub const INPUTS: &str = "golden/inputs.npy";
/// Name of the outputs' entry.
pub const OUTPUTS: &str = "golden/outputs.npy";

/// Name of the entry of input `index` among `count`.
pub fn input(index: usize, count: usize) -> String {
    if count == 1 { INPUTS.to_owned() } else { format!("golden/inputs-{index}.npy") }
}

const MAGIC: &[u8; 8] = b"\x93NUMPY\x01\x00";
const MAX_AXES: usize = 8;

/// A dense float32 array, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Array {
    /// Refuses a shape whose axes do not multiply to the number of values.
    pub fn new(shape: Vec<usize>, values: Vec<f32>) -> Result<Self, Fault> {
        if shape.len() > MAX_AXES || product(&shape) != Some(values.len()) {
            return Err(fault("array", format!("shape {shape:?} does not hold {} values", values.len())));
        }
        Ok(Self { shape, values })
    }
    /// Axes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
    /// As many as the axes multiply to.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// As `.npy` bytes.
    pub fn to_npy(&self) -> Vec<u8> {
        let axes: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        // Python writes a tuple of one with a comma.
        let shape = if axes.len() == 1 { format!("({},)", axes[0]) } else { format!("({})", axes.join(", ")) };
        let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
        // Data starts at a multiple of 64; the header ends in a newline.
        let length = (MAGIC.len() + 2 + header.len() + 1).next_multiple_of(64) - MAGIC.len() - 2;
        while header.len() + 1 < length {
            header.push(' ');
        }
        header.push('\n');
        let mut bytes = MAGIC.to_vec();
        bytes.extend(u16::try_from(header.len()).expect("eight axes fit in a short header").to_le_bytes());
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend(self.values.iter().flat_map(|value| value.to_le_bytes()));
        bytes
    }

    /// From `.npy` bytes; `name` appears in refusals.
    pub fn from_npy(name: &str, bytes: &[u8]) -> Result<Self, Fault> {
        let fault = |why: &str| fault(name, why.to_owned());
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| fault("not an .npy file of format 1.0"))?;
        let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(|| fault("the header is cut off"))?;
        let (header, data) =
            rest.split_at_checked(usize::from(u16::from_le_bytes(*length))).ok_or_else(|| fault("the header is cut off"))?;
        let header = std::str::from_utf8(header).map_err(|_| fault("the header is not text"))?;
        let shape = shape(header).ok_or_else(|| fault("the header is not that of a C-ordered little-endian float32 array"))?;
        let count = product(&shape).and_then(|count| count.checked_mul(4)).ok_or_else(|| fault("the shape is too large"))?;
        if data.len() != count {
            return Err(fault(&format!("shape {shape:?} needs {count} bytes of data, {} are there", data.len())));
        }
        let values = data.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect();
        Ok(Self { shape, values })
    }

    /// The largest absolute difference of two arrays of one shape. Refuses other shapes, and numbers that are none.
    pub fn distance(&self, other: &Self) -> Result<f64, Fault> {
        if self.shape != other.shape {
            return Err(fault("outputs", format!("shapes {:?} and {:?} differ", self.shape, other.shape)));
        }
        let mut largest = 0.0_f64;
        for (index, (a, b)) in self.values.iter().zip(&other.values).enumerate() {
            let distance = (f64::from(*a) - f64::from(*b)).abs();
            if !distance.is_finite() {
                return Err(fault("outputs", format!("value {index} is {a} against {b}")));
            }
            largest = largest.max(distance);
        }
        Ok(largest)
    }
}

fn product(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |product, axis| product.checked_mul(*axis))
}

/// The axes of a header that says float32, little-endian, C order, with the keys in NumPy's order.
fn shape(header: &str) -> Option<Vec<usize>> {
    let axes = header.trim_end().strip_prefix("{'descr': '<f4', 'fortran_order': False, 'shape': (")?.strip_suffix("), }")?;
    let axes = axes.strip_suffix(',').unwrap_or(axes);
    if axes.is_empty() {
        return Some(Vec::new());
    }
    let axes: Option<Vec<usize>> =
        axes.split(", ").map(|axis| axis.bytes().all(|b| b.is_ascii_digit()).then(|| axis.parse().ok()).flatten()).collect();
    axes.filter(|axes| axes.len() <= MAX_AXES)
}

fn fault(name: &str, why: String) -> Fault {
    ReleaseFault::Golden { name: name.to_owned(), why }.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The bytes that NumPy 2 writes for `np.arange(6, dtype="<f4").reshape(2, 3)`.
    #[test]
    fn numpy_would_write_the_same() {
        let array = Array::new(vec![2, 3], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let bytes = array.to_npy();
        let header = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
        assert_eq!(&bytes[..header.len()], header);
        assert_eq!((bytes.len(), bytes[127]), (128 + 24, b'\n'));
        assert_eq!(Array::from_npy("x", &bytes).unwrap(), array);
    }

    proptest! {
        #[test]
        fn arrays_survive(shape in prop::collection::vec(0_usize..4, 0..5), seed: u32) {
            let count = shape.iter().product();
            let values = (0..count).map(|i| f32::from_bits(seed.wrapping_mul(i as u32 + 1) & 0x7f7f_ffff)).collect();
            let array = Array::new(shape, values).unwrap();
            prop_assert_eq!(Array::from_npy("x", &array.to_npy()).unwrap(), array);
        }

        #[test]
        fn rubbish_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut file = MAGIC.to_vec();
            file.extend(&bytes);
            prop_assert!(Array::from_npy("x", &bytes).is_err() && Array::from_npy("x", &file).is_err());
        }
    }

    #[test]
    fn other_arrays_are_refused() {
        let good = Array::new(vec![2], vec![1.0, 2.0]).unwrap().to_npy();
        let text = |from: &str, to: &str| {
            assert_eq!(from.len(), to.len());
            let at = good.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
            [&good[..at], to.as_bytes(), &good[at + from.len()..]].concat()
        };
        let huge = text("(2,), }             ", "(18446744073709551615, 9), }".get(..20).unwrap());
        for bad in [
            &good[..good.len() - 1],
            &[good.as_slice(), &[0]].concat(),
            &text("<f4", ">f4"),
            &text("(2,)", "(3,)"),
            &text("(2,)", "(-,)"),
            &huge,
        ] {
            assert!(Array::from_npy("golden/x.npy", bad).unwrap_err().to_string().contains("golden/x.npy"));
        }
    }

    #[test]
    fn distance_refuses_what_is_no_number() {
        let array = |values: &[f32]| Array::new(vec![values.len()], values.to_vec()).unwrap();
        assert_eq!(array(&[1.0, 2.0]).distance(&array(&[1.0, 2.5])).unwrap(), 0.5);
        assert!(array(&[1.0]).distance(&array(&[f32::NAN])).is_err());
        assert!(array(&[f32::INFINITY]).distance(&array(&[f32::INFINITY])).is_err());
        assert!(array(&[1.0]).distance(&array(&[1.0, 1.0])).is_err());
    }
}
