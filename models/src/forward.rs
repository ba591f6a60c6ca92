//! Inference through the interpreter: the reference against which ONNX Runtime's answers
//! are compared, and the observer of the quantizer's calibration.

use burn_flex::Flex;

use crate::ModelError;
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

    /// The first output for features, as features again: what a preprocessing graph makes of them.
    ///
    /// # Errors
    /// [`ModelError::Input`] unless the graph has one input, and the features are numbers of its type;
    /// [`ModelError::Shape`] if a node cannot take what reaches it.
    pub fn features(&self, x: Tensor) -> Result<Tensor, ModelError> {
        let [input] = &self.inputs[..] else {
            let reason = format!("the graph reads {} inputs; features are one", self.inputs.len());
            return Err(ModelError::Input { name: String::new(), reason });
        };
        let bad = |name: &str, reason: String| ModelError::Input { name: name.to_owned(), reason };
        let x = x.read_as(computed(input.element)).map_err(|at| bad(&input.name, format!("value {at} is no {:?}", input.element)))?;
        let outputs = self.run(&[(&input.name, x)])?;
        let (name, output) = outputs.into_iter().next().ok_or_else(|| bad("", "the graph has no output".to_owned()))?;
        output.read_as(Element::F32).map_err(|at| bad(&name, format!("value {at} of this output is no F32")))
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
