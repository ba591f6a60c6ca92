//! What flows along the edges of a graph while it runs.

use burn_backend::{Shape, TensorData as BurnData, TensorMetadata, read_sync, tensor::FloatTensor};
use burn_flex::FlexDevice;

use super::engine::Engine;
use super::fault::Fault;
use crate::onnx::Element;
use crate::tensor::{Tensor, TensorData, numel};

/// Most elements that one intermediate tensor may have (1 GiB of f32), so that a broken
/// or hostile graph is refused before it asks for the memory.
const MAX_ELEMENTS: usize = 1 << 28;

/// Most elements of a tensor on the host, where each has 8 bytes, and another 16 while two are brought to one shape.
const MAX_ON_HOST: usize = 1 << 27;

/// Most axes, as many as a tensor in a file may have.
const MAX_RANK: usize = 32;

/// Most multiplications or comparisons of one node in one run, some minutes' worth.
const MAX_WORK: u64 = 1 << 42;

/// Integers and booleans, kept on the host: in the graphs that we train they are shapes,
/// axes, indices and masks, and the next operator wants to look at them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Host {
    pub(crate) element: Element,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<i64>,
}

impl Host {
    pub(crate) fn new(element: Element, shape: Vec<usize>, data: Vec<i64>) -> Self {
        Self { element, shape, data }
    }

    /// A list of 64-bit integers.
    pub(crate) fn list(data: Vec<i64>) -> Self {
        Self { element: Element::I64, shape: vec![data.len()], data }
    }
}

/// How much memory the values of a graph take together, in floats, and a refusal above 4 GiB.
#[derive(Debug, Default)]
pub(crate) struct Held(usize);

impl Held {
    const MOST: usize = 1 << 30;

    pub(crate) fn add(&mut self, weight: usize) -> Result<(), Fault> {
        self.0 = self.0.saturating_add(weight);
        if self.0 > Self::MOST {
            return Err(Fault::shape(format!(
                "with this the values of the graph take {} GiB, more than {}",
                self.0 >> 28,
                Self::MOST >> 28
            )));
        }
        Ok(())
    }

    pub(crate) fn free(&mut self, weight: usize) {
        self.0 = self.0.saturating_sub(weight);
    }
}

/// A value: floats with a tape (if the engine has one), or host integers.
#[derive(Debug, Clone)]
pub(crate) enum Value<B: Engine> {
    Float(FloatTensor<B>),
    Host(Host),
}

impl<B: Engine> Value<B> {
    pub(crate) fn shape(&self) -> Vec<usize> {
        match self {
            Self::Float(tensor) => dims::<B>(tensor),
            Self::Host(host) => host.shape.clone(),
        }
    }

    /// How much memory it takes, in floats.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Float(tensor) => tensor.shape().num_elements(),
            Self::Host(host) => host.data.len().saturating_mul(2),
        }
    }

    /// The same values without a tape.
    pub(crate) fn lower(self) -> Value<B::Plain> {
        match self {
            Self::Float(tensor) => Value::Float(B::lower(tensor)),
            Self::Host(host) => Value::Host(host),
        }
    }

    /// The same values on an engine with a tape, into which no gradient flows.
    pub(crate) fn lift(plain: Value<B::Plain>) -> Self {
        match plain {
            Value::Float(tensor) => Self::Float(B::lift(tensor)),
            Value::Host(host) => Self::Host(host),
        }
    }

    /// Takes a host tensor in. Every integer type widens to i64; its name is kept.
    pub(crate) fn from_tensor(tensor: Tensor) -> Result<Self, Fault> {
        tensor.check().map_err(|e| Fault::broken(e.to_string()))?;
        let element = tensor.element();
        let Tensor { shape, data } = tensor;
        let data = match data {
            TensorData::F32(values) => return Ok(Self::Float(floats::<B>(values, &shape))),
            TensorData::I64(values) => values,
            TensorData::I32(values) => values.into_iter().map(i64::from).collect(),
            TensorData::U8(values) => values.into_iter().map(i64::from).collect(),
            TensorData::I8(values) => values.into_iter().map(i64::from).collect(),
            TensorData::Bool(values) => values.into_iter().map(i64::from).collect(),
        };
        Ok(Self::Host(Host { element, shape, data }))
    }

    /// Gives a host tensor out, of the element type that the value carries.
    pub(crate) fn into_tensor(self) -> Result<Tensor, Fault> {
        let host = match self {
            Self::Float(tensor) => {
                let shape = dims::<B>(&tensor);
                return Ok(Tensor { shape, data: TensorData::F32(read::<B>(tensor)?) });
            }
            Self::Host(host) => host,
        };
        fn narrow<T: TryFrom<i64>>(values: Vec<i64>) -> Result<Vec<T>, Fault> {
            let narrow = |v| T::try_from(v).map_err(|_| Fault::shape(format!("{v} overflows its integer type")));
            values.into_iter().map(narrow).collect()
        }
        let data = match host.element {
            Element::I32 => TensorData::I32(narrow(host.data)?),
            Element::U8 => TensorData::U8(narrow(host.data)?),
            Element::I8 => TensorData::I8(narrow(host.data)?),
            Element::Bool => TensorData::Bool(host.data.into_iter().map(|v| v != 0).collect()),
            _ => TensorData::I64(host.data),
        };
        Ok(Tensor { shape: host.shape, data })
    }
}

/// Extents of a float tensor.
pub(crate) fn dims<B: Engine>(tensor: &FloatTensor<B>) -> Vec<usize> {
    tensor.shape().to_vec()
}

/// A float tensor from row-major values; the caller has checked that they fit the shape.
pub(crate) fn floats<B: Engine>(values: Vec<f32>, shape: &[usize]) -> FloatTensor<B> {
    B::float_from_data(BurnData::new(values, shape.to_vec()), &FlexDevice)
}

/// The row-major values of a float tensor.
pub(crate) fn read<B: Engine>(tensor: FloatTensor<B>) -> Result<Vec<f32>, Fault> {
    let data = read_sync(B::float_into_data(tensor)).map_err(|e| Fault::shape(e.to_string()))?;
    data.try_into_vec::<f32>().map_err(|e| Fault::unsupported(format!("only f32 is computed: {e:?}")))
}

/// Reshapes to a shape whose size the caller has checked; free if it is the same.
pub(crate) fn reshape<B: Engine>(tensor: FloatTensor<B>, shape: &[usize]) -> FloatTensor<B> {
    if tensor.shape().as_slice() == shape {
        return tensor;
    }
    B::float_reshape(tensor, Shape::from(shape.to_vec()))
}

/// Number of elements of a shape about to be made, or a refusal if it is absurd.
pub(crate) fn bounded(shape: &[usize]) -> Result<usize, Fault> {
    if shape.len() > MAX_RANK {
        return Err(Fault::shape(format!("a tensor of {} axes; at most {MAX_RANK} are computed", shape.len())));
    }
    numel(shape).filter(|n| *n <= MAX_ELEMENTS).ok_or_else(|| Fault::shape(format!("a tensor of shape {shape:?} is too large")))
}

/// The same for integers and booleans.
pub(crate) fn bounded_on_host(shape: &[usize]) -> Result<usize, Fault> {
    let too_large = || Fault::shape(format!("integers of shape {shape:?} are too many"));
    bounded(shape).ok().filter(|n| *n <= MAX_ON_HOST).ok_or_else(too_large)
}

/// Refuses a node that would need more steps than this product.
pub(crate) fn affordable(steps: &[usize]) -> Result<(), Fault> {
    let product = steps.iter().try_fold(1u64, |n, d| n.checked_mul(*d as u64));
    if product.is_none_or(|n| n > MAX_WORK) {
        return Err(Fault::shape(format!("{steps:?} multiplications are too many")));
    }
    Ok(())
}

/// The axis that `axis` names in a tensor of that rank; negative ones count from the end.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, Fault> {
    let signed = i64::try_from(rank).map_err(|_| Fault::shape("rank overflows"))?;
    let wrapped = if axis < 0 { axis.saturating_add(signed) } else { axis };
    usize::try_from(wrapped).ok().filter(|a| *a < rank).ok_or_else(|| Fault::shape(format!("axis {axis} of a tensor of rank {rank}")))
}

/// A set of distinct axes, ascending.
pub(crate) fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>, Fault> {
    let mut found = list.iter().map(|a| axis(*a, rank)).collect::<Result<Vec<_>, _>>()?;
    found.sort_unstable();
    if found.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Fault::broken(format!("axes {list:?} repeat")));
    }
    Ok(found)
}

/// A list of extents from the host integers of a shape operand.
pub(crate) fn extents(list: &[i64]) -> Result<Vec<usize>, Fault> {
    let extent = |d: &i64| usize::try_from(*d).map_err(|_| Fault::shape(format!("extent {d}")));
    list.iter().map(extent).collect()
}

/// The shape that two operands broadcast to (NumPy rules, as ONNX has them).
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, Fault> {
    let rank = a.len().max(b.len());
    let at = |shape: &[usize], i: usize| (i + shape.len()).checked_sub(rank).map_or(1, |k| shape[k]);
    let mut out = Vec::with_capacity(rank);
    for i in 0..rank {
        out.push(match (at(a, i), at(b, i)) {
            (x, y) if x == y => x,
            (1, y) => y,
            (x, 1) => x,
            _ => return Err(Fault::shape(format!("{a:?} and {b:?} do not broadcast"))),
        });
    }
    bounded(&out)?;
    Ok(out)
}

/// A shape with ones put before it, up to a rank.
pub(crate) fn padded(shape: &[usize], rank: usize) -> Vec<usize> {
    let mut out = vec![1; rank.saturating_sub(shape.len())];
    out.extend_from_slice(shape);
    out
}
