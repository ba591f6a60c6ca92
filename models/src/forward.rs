//! Inference through the interpreter: the reference against which ONNX Runtime's answers
//! are compared, and the observer of the quantizer's calibration.

use burn_flex::Flex;

use crate::ModelError;
use crate::dataset::DataFault;
use crate::features::Features;
use crate::interpreter::plan::Plan;
use crate::interpreter::value::Value;
use crate::interpreter::{Mode, guard};
use crate::onnx::{Dim, Element, Model, ValueInfo};
use crate::tensor::Tensor;

/// A model compiled for inference.
pub struct Forward {
    plan: Plan<Flex>,
    inputs: Vec<ValueInfo>,
    outputs: Vec<String>,
}

impl Forward {
    /// Compiles the model.
    ///
    /// # Errors
    /// The first node that cannot be computed, with its operator and the reason.
    pub fn new(model: &Model) -> Result<Self, ModelError> {
        let outputs: Vec<String> = model.outputs().into_iter().map(|o| o.name).collect();
        let plan = guard("compiling", || Plan::compile(model, &[], &outputs))?;
        Ok(Self { plan, inputs: model.inputs(), outputs })
    }

    /// Runs the model; inputs in any order, outputs in the order of the graph.
    ///
    /// # Errors
    /// [`ModelError::Input`] for an input that is missing, unknown or of the wrong type or
    /// shape, [`ModelError::Shape`] if a node cannot take what reaches it.
    pub fn run(&self, inputs: &[(&str, Tensor)]) -> Result<Vec<(String, Tensor)>, ModelError> {
        self.observe(inputs, &mut |_, _| ())
    }

    /// The first output for these features.
    ///
    /// # Errors
    /// [`ModelError::Data`] if there is no feature for an input, or it is not of its type; as [`Forward::run`].
    pub fn answer(&self, x: &Features) -> Result<Tensor, ModelError> {
        Ok(self.first(&self.feed(x)?)?.1)
    }

    /// The features with what the graph makes of one of them in its place, `at_once` rows at a time: preprocessing.
    ///
    /// # Errors
    /// [`ModelError::Input`] unless the graph has one input and an output of numbers, a row for each example;
    /// [`ModelError::Data`] if nothing is there for it; as [`Forward::run`].
    pub fn features(&self, x: &Features, at_once: usize) -> Result<Features, ModelError> {
        let bad = |name: &str, reason: String| ModelError::Input { name: name.to_owned(), reason };
        let [input] = &self.inputs[..] else {
            return Err(bad("", format!("the graph reads {} inputs; preprocessing reads one", self.inputs.len())));
        };
        let raw = x.for_input(&input.name)?;
        let rows: Vec<usize> = (0..raw.rows()).collect();
        let mut all: Option<Tensor> = None;
        for rows in rows.chunks(at_once.max(1)) {
            let part = Features::from(raw.take_rows(rows));
            let (name, output) = self.first(&self.feed(&part)?)?;
            let output = output.read_as(Element::F32).map_err(|at| bad(&name, format!("value {at} of this output is no F32")))?;
            if output.shape.first() != Some(&rows.len()) {
                return Err(bad(&name, format!("{} examples gave shape {:?}; each must give one row", rows.len(), output.shape)));
            }
            match &mut all {
                None => all = Some(output),
                Some(all) => {
                    if !all.append(&output) {
                        return Err(bad(&name, "its rows have different shapes".to_owned()));
                    }
                }
            }
        }
        Ok(x.clone().replaced(&input.name, all.ok_or(DataFault::Empty)?)?)
    }

    /// The tensors that this graph reads of them.
    ///
    /// # Errors
    /// [`ModelError::Data`] if there is none for an input, or it is not of its type.
    pub fn feed(&self, x: &Features) -> Result<Vec<(&str, Tensor)>, ModelError> {
        Ok(x.feed(self.inputs.iter().map(|input| (input.name.as_str(), computed(input.element))))?)
    }

    fn first(&self, inputs: &[(&str, Tensor)]) -> Result<(String, Tensor), ModelError> {
        let outputs = self.run(inputs)?;
        let none = || ModelError::Input { name: String::new(), reason: "the graph has no output".to_owned() };
        outputs.into_iter().next().ok_or_else(none)
    }

    /// Runs the model and shows every f32 value that a node computes to `see`, by name and
    /// in graph order. Constants and graph inputs are not shown.
    ///
    /// # Errors
    /// As [`Forward::run`].
    pub fn observe(&self, inputs: &[(&str, Tensor)], see: &mut dyn FnMut(&str, &Tensor)) -> Result<Vec<(String, Tensor)>, ModelError> {
        let values = self.bind(inputs)?;
        guard("inference", || {
            let mut observe = |name: &str, value: &Value<Flex>| {
                if let Value::Float(_) = value
                    && let Ok(tensor) = value.clone().into_tensor()
                {
                    see(name, &tensor);
                }
            };
            let outcome = self.plan.run(values, &[], Mode::Inference, &mut observe)?;
            let named = self.outputs.iter().zip(outcome.outputs);
            named.map(|(name, value)| Ok((name.clone(), value.into_tensor().map_err(|f| f.at(name, "output"))?))).collect()
        })
    }

    fn bind(&self, inputs: &[(&str, Tensor)]) -> Result<Vec<Value<Flex>>, ModelError> {
        let bad = |name: &str, reason: String| ModelError::Input { name: name.to_owned(), reason };
        if let Some((name, _)) = inputs.iter().find(|(name, _)| !self.inputs.iter().any(|i| i.name == *name)) {
            return Err(bad(name, "the model has no such input".to_owned()));
        }
        let mut values = Vec::with_capacity(self.inputs.len());
        for info in &self.inputs {
            let mut given = inputs.iter().filter(|(name, _)| *name == info.name);
            let (Some((_, tensor)), None) = (given.next(), given.next()) else {
                return Err(bad(&info.name, "it must be given once".to_owned()));
            };
            if !fits(info, tensor) {
                let expected = (info.element, &info.shape);
                return Err(bad(&info.name, format!("{:?} {:?} is given, {expected:?} is read", tensor.element(), tensor.shape)));
            }
            values.push(Value::from_tensor(tensor.clone()).map_err(|fault| fault.at(&info.name, "input"))?);
        }
        Ok(values)
    }
}

/// Type and rank must agree, and every declared extent but the batch's.
fn fits(info: &ValueInfo, tensor: &Tensor) -> bool {
    let extent = |(i, (dim, have)): (usize, (&Dim, &usize))| i == 0 || !matches!(dim, Dim::Fixed(n) if n != have);
    let shaped =
        info.shape.is_empty() || info.shape.len() == tensor.shape.len() && info.shape.iter().zip(&tensor.shape).enumerate().all(extent);
    computed(info.element) == tensor.element() && shaped
}

/// Doubles are computed in f32.
fn computed(element: Element) -> Element {
    if element == Element::F64 { Element::F32 } else { element }
}
