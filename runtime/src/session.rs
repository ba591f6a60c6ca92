//! One model, ready to run.

use ort::{
    environment::Environment,
    session::{Session as OrtSession, SessionInputValue, builder::SessionBuilder},
    value::{Outlet, TensorElementType},
};
use sapwood_models::{
    Features, Tensor,
    onnx::{Dim, Element},
    tensor::numel,
};

use crate::{Input, Output, RuntimeError, View};

/// How a session runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// Threads within one operator; 1 runs everything on the caller's thread.
    pub threads: usize,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { threads: 1 }
    }
}

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct IoInfo {
    /// Its name.
    pub name: String,
    /// Type of its values.
    pub element: Element,
    /// Its axes; a symbol is an extent that each run chooses.
    pub shape: Vec<Dim>,
}

/// A model that ONNX Runtime has read and optimised.
///
/// A run takes `&mut self`, because parts of ONNX Runtime are not safe to enter twice: concurrent
/// inference needs one session per worker.
#[derive(Debug)]
pub struct Session {
    session: OrtSession,
    inputs: Vec<IoInfo>,
    outputs: Vec<IoInfo>,
}

impl Session {
    pub(crate) fn new(env: &Environment, model: &[u8], options: SessionOptions) -> Result<Self, RuntimeError> {
        let mut builder =
            builder(env, options).map_err(|e| RuntimeError::Internal { action: "prepare a session", reason: e.to_string() })?;
        let session = builder.commit_from_memory(model);
        let session = session.map_err(|e| RuntimeError::BadModel { reason: e.to_string() })?;
        let inputs = session.inputs().iter().map(info).collect();
        let outputs = session.outputs().iter().map(info).collect();
        Ok(Self { session, inputs, outputs })
    }

    /// What the model reads, in graph order.
    #[must_use]
    pub fn inputs(&self) -> &[IoInfo] {
        &self.inputs
    }

    /// What the model answers with, in graph order.
    #[must_use]
    pub fn outputs(&self) -> &[IoInfo] {
        &self.outputs
    }

    /// Runs the model once and copies its outputs, in graph order.
    ///
    /// # Errors
    /// As [`run_view`](Self::run_view).
    pub fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        let inputs: Vec<_> = inputs.iter().map(|(name, tensor)| Input::new(name, tensor)).collect();
        self.run_view(&inputs, |outputs| outputs.iter().map(copy).collect())?
    }

    /// The first output for these features.
    ///
    /// # Errors
    /// [`RuntimeError::Data`] if there is no feature for an input, or it is not of its type; as [`run`](Self::run).
    pub fn answer(&mut self, x: &Features) -> Result<Tensor, RuntimeError> {
        let read: Vec<_> = self.inputs.iter().map(|input| (input.name.clone(), input.element)).collect();
        let inputs = x.feed(read.iter().map(|(name, element)| (name.as_str(), *element)))?;
        let inputs: Vec<_> = inputs.iter().map(|(name, tensor)| Input::new(name, tensor)).collect();
        let none = || RuntimeError::BadModel { reason: "it has no output".to_owned() };
        self.run_view(&inputs, |outputs| Ok(copy(outputs.first().ok_or_else(none)?)?.1))?
    }

    /// Runs the model once on borrowed inputs, in any order, and lends its outputs, in graph
    /// order, to `read`. Nothing is copied on the way in or out, except unaligned bytes.
    ///
    /// # Errors
    /// [`RuntimeError::BadInput`] if an input is missing, unknown, given twice, or of a type or
    /// shape that the model does not read; [`RuntimeError::BadOutput`] for an output type that
    /// [`View`] has not; [`RuntimeError::Run`] if the library fails.
    pub fn run_view<R>(&mut self, inputs: &[Input<'_>], read: impl FnOnce(&[Output<'_>]) -> R) -> Result<R, RuntimeError> {
        let values = self.arrange(inputs)?;
        let outputs = self.session.run(&values[..]);
        let outputs = outputs.map_err(|e| RuntimeError::Run { reason: e.to_string() })?;
        let views: Vec<_> = outputs.iter().collect();
        let lent = views.iter().map(|(name, value)| {
            let (shape, data) =
                View::of(value).ok_or_else(|| RuntimeError::BadOutput { name: (*name).to_owned(), found: value.dtype().to_string() })?;
            Ok(Output { name, shape, data })
        });
        let lent = lent.collect::<Result<Vec<_>, RuntimeError>>()?;
        Ok(read(&lent))
    }

    /// Checks the inputs and puts them into graph order.
    fn arrange<'a>(&self, inputs: &[Input<'a>]) -> Result<Vec<SessionInputValue<'a>>, RuntimeError> {
        let refuse = |name: &str, reason| RuntimeError::BadInput { name: name.to_owned(), reason };
        if let Some(unknown) = inputs.iter().find(|i| self.inputs.iter().all(|k| k.name != i.name)) {
            let known: Vec<_> = self.inputs.iter().map(|i| i.name.as_str()).collect();
            return Err(refuse(unknown.name, format!("the model has no such input, only {}", known.join(", "))));
        }
        let mut values = Vec::with_capacity(self.inputs.len());
        for expected in &self.inputs {
            let mut given = inputs.iter().filter(|i| i.name == expected.name);
            let (Some(input), None) = (given.next(), given.next()) else {
                return Err(refuse(&expected.name, "the model needs it exactly once".to_owned()));
            };
            let value = expected.check(input).and_then(|()| input.data.lend(input.shape));
            values.push(value.map_err(|reason| refuse(&expected.name, reason))?);
        }
        Ok(values)
    }
}

impl IoInfo {
    fn check(&self, input: &Input<'_>) -> Result<(), String> {
        let found = input.data.element();
        if found != self.element {
            return Err(format!("it is {found:?}, the model reads {:?}", self.element));
        }
        let fits = self.shape.len() == input.shape.len()
            && self.shape.iter().zip(input.shape).all(|(dim, have)| match dim {
                Dim::Fixed(n) => n == have,
                Dim::Symbol(_) => true,
            });
        if !fits {
            return Err(format!("its shape is {:?}, the model reads {}", input.shape, Axes(&self.shape)));
        }
        let bytes = numel(input.shape).and_then(|n| n.checked_mul(size(found)));
        let have = input.data.bytes().len();
        if bytes != Some(have) {
            return Err(format!("shape {:?} does not hold {have} bytes of {found:?}", input.shape));
        }
        Ok(())
    }
}

/// Bytes of one value of a type that [`View`] has; 0 for others, which hold no value here.
fn size(element: Element) -> usize {
    match element {
        Element::F32 | Element::I32 => 4,
        Element::I64 => 8,
        Element::U8 | Element::I8 | Element::Bool => 1,
        _ => 0,
    }
}

/// Prints axes as `[batch, 1, 8, 8]`.
struct Axes<'a>(&'a [Dim]);

impl std::fmt::Display for Axes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let axes = self.0.iter().map(|dim| match dim {
            Dim::Fixed(n) => n.to_string(),
            Dim::Symbol(name) if name.is_empty() => "?".to_owned(),
            Dim::Symbol(name) => name.clone(),
        });
        write!(f, "[{}]", axes.collect::<Vec<_>>().join(", "))
    }
}

fn builder(env: &Environment, options: SessionOptions) -> ort::Result<SessionBuilder> {
    let builder = OrtSession::builder(env)?
        .with_intra_threads(options.threads.max(1))?
        .with_inter_threads(1)?
        // An idle thread that spins takes the processor from training on the same device.
        .with_intra_op_spinning(false)?;
    Ok(builder)
}

fn copy(output: &Output<'_>) -> Result<(String, Tensor), RuntimeError> {
    let data = output.data.to_data().map_err(|found| RuntimeError::BadOutput { name: output.name.to_owned(), found })?;
    Ok((output.name.to_owned(), Tensor { shape: output.shape.clone(), data }))
}

fn info(outlet: &Outlet) -> IoInfo {
    let dtype = outlet.dtype();
    let symbols = match dtype {
        ort::value::ValueType::Tensor { dimension_symbols, .. } => dimension_symbols.to_vec(),
        _ => Vec::new(),
    };
    let dims = dtype.tensor_shape().map(|s| s.to_vec()).unwrap_or_default();
    let shape = dims.iter().enumerate().map(|(axis, dim)| match usize::try_from(*dim) {
        Ok(n) => Dim::Fixed(n),
        Err(_) => Dim::Symbol(symbols.get(axis).cloned().unwrap_or_default()),
    });
    IoInfo { name: outlet.name().to_owned(), element: dtype.tensor_type().map_or(Element::Other(0), element), shape: shape.collect() }
}

/// Numbers of other types are those of `TensorProto.DataType`; unknown ones are 0 (undefined).
fn element(found: TensorElementType) -> Element {
    match found {
        TensorElementType::Float32 => Element::F32,
        TensorElementType::Float64 => Element::F64,
        TensorElementType::Float16 => Element::F16,
        TensorElementType::Int8 => Element::I8,
        TensorElementType::Uint8 => Element::U8,
        TensorElementType::Int32 => Element::I32,
        TensorElementType::Int64 => Element::I64,
        TensorElementType::Bool => Element::Bool,
        TensorElementType::Uint16 => Element::Other(4),
        TensorElementType::Int16 => Element::Other(5),
        TensorElementType::String => Element::Other(8),
        TensorElementType::Uint32 => Element::Other(12),
        TensorElementType::Uint64 => Element::Other(13),
        TensorElementType::Bfloat16 => Element::Other(16),
        _ => Element::Other(0),
    }
}
