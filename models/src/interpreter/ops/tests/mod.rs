//! Every operator against values worked out by hand, and its gradient against differences.

mod branches;
mod convolution;
mod elementwise;
mod indexing;
mod matrices;
mod normalization;
mod quantization;
mod recurrent;
mod resize;
mod shapes;

use burn_autodiff::Autodiff;
use burn_backend::ops::FloatTensorOps as _;
use burn_backend::{AutodiffBackend as _, tensor::FloatTensor};
use burn_flex::Flex;

use crate::interpreter::plan::Plan;
use crate::interpreter::value::{Value, dims, floats, read, reshape};
use crate::interpreter::{Mode, guard};
use crate::onnx::make::{int, ints, node, value};
use crate::onnx::{Dim, Element, Model, ValueInfo, pb, write_tensor};
use crate::{Forward, ModelError, Tensor, TensorData};

type Tape = Autodiff<Flex>;

/// A graph of one node.
struct Case {
    op: &'static str,
    attributes: Vec<pb::AttributeProto>,
    /// Name, value, and whether it is a constant; `None` for an operand left out.
    operands: Vec<Option<(String, Tensor, bool)>>,
    outputs: usize,
    opset: i64,
}

fn case(op: &'static str) -> Case {
    Case { op, attributes: Vec::new(), operands: Vec::new(), outputs: 1, opset: 17 }
}

impl Case {
    fn opset(mut self, opset: i64) -> Self {
        self.opset = opset;
        self
    }

    fn outputs(mut self, outputs: usize) -> Self {
        self.outputs = outputs;
        self
    }

    fn int(mut self, name: &str, value: i64) -> Self {
        self.attributes.push(int(name, value));
        self
    }

    fn ints(mut self, name: &str, values: &[i64]) -> Self {
        self.attributes.push(ints(name, values));
        self
    }

    fn float(mut self, name: &str, value: f32) -> Self {
        self.attributes.push(pb::AttributeProto {
            name: Some(name.to_owned()),
            r#type: Some(pb::attribute_proto::AttributeType::Float as i32),
            f: Some(value),
            ..Default::default()
        });
        self
    }

    fn text(mut self, name: &str, value: &str) -> Self {
        self.attributes.push(pb::AttributeProto {
            name: Some(name.to_owned()),
            r#type: Some(pb::attribute_proto::AttributeType::String as i32),
            s: Some(value.as_bytes().to_vec()),
            ..Default::default()
        });
        self
    }

    fn texts(mut self, name: &str, values: &[&str]) -> Self {
        self.attributes.push(pb::AttributeProto {
            name: Some(name.to_owned()),
            r#type: Some(pb::attribute_proto::AttributeType::Strings as i32),
            strings: values.iter().map(|value| value.as_bytes().to_vec()).collect(),
            ..Default::default()
        });
        self
    }

    fn operand(mut self, tensor: Tensor, constant: bool) -> Self {
        let name = format!("x{}", self.operands.len());
        self.operands.push(Some((name, tensor, constant)));
        self
    }

    /// A float operand through which gradients are checked.
    fn x(self, shape: &[usize], values: &[f32]) -> Self {
        self.operand(Tensor::f32(shape, values.to_vec()).unwrap(), false)
    }

    /// A float operand with unremarkable values.
    fn some(self, shape: &[usize]) -> Self {
        let seed = self.operands.len() as f32 + 1.0;
        let n = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..n).map(|i| ((i as f32 + 0.7) * 1.7 * seed).sin() * 1.3).collect();
        self.x(shape, &values)
    }

    fn constant(self, shape: &[usize], values: &[f32]) -> Self {
        self.operand(Tensor::f32(shape, values.to_vec()).unwrap(), true)
    }

    fn list(self, values: &[i64]) -> Self {
        self.operand(Tensor::i64([values.len()], values.to_vec()).unwrap(), true)
    }

    fn integer(self, value: i64) -> Self {
        self.operand(Tensor { shape: vec![], data: TensorData::I64(vec![value]) }, true)
    }

    /// A constant table of integers.
    fn table(self, shape: &[usize], values: &[i64]) -> Self {
        self.operand(Tensor::i64(shape.to_vec(), values.to_vec()).unwrap(), true)
    }

    /// How long each sequence is.
    fn lengths(self, values: &[i64]) -> Self {
        let values = values.iter().map(|value| *value as i32).collect::<Vec<_>>();
        self.operand(Tensor { shape: vec![values.len()], data: TensorData::I32(values) }, true)
    }

    fn left_out(mut self) -> Self {
        self.operands.push(None);
        self
    }

    fn model(&self) -> Model {
        let name = |operand: &Option<(String, Tensor, bool)>| operand.as_ref().map_or(String::new(), |(n, ..)| n.clone());
        let inputs: Vec<String> = self.operands.iter().map(name).collect();
        let outputs: Vec<String> = (0..self.outputs).map(|i| format!("y{i}")).collect();
        let refer = |names: &[String]| -> Vec<&'static str> { names.iter().map(|n| &*n.clone().leak()).collect() };
        let (ins, outs) = (refer(&inputs), refer(&outputs));
        let given = || self.operands.iter().flatten();
        let declare = |name: &str, element, rank: usize| {
            value(&ValueInfo { name: name.to_owned(), element, shape: vec![Dim::Symbol(String::new()); rank] })
        };
        let graph = pb::GraphProto {
            name: Some("case".into()),
            node: vec![node(self.op, "it", &ins, &outs, self.attributes.clone())],
            input: given().filter(|(.., c)| !c).map(|(n, t, _)| declare(n, t.element(), t.shape.len())).collect(),
            initializer: given().filter(|(.., c)| *c).map(|(n, t, _)| write_tensor(n, t)).collect(),
            output: outputs.iter().map(|n| declare(n, Element::F32, 0)).collect(),
            ..Default::default()
        };
        Model::new(pb::ModelProto {
            ir_version: Some(8),
            graph: Some(graph),
            opset_import: vec![pb::OperatorSetIdProto { domain: None, version: Some(self.opset) }],
            ..Default::default()
        })
        .unwrap()
    }

    fn fed(&self) -> Vec<(&str, Tensor)> {
        self.operands.iter().flatten().filter(|(.., c)| !c).map(|(n, t, _)| (n.as_str(), t.clone())).collect()
    }

    fn try_run(&self) -> Result<Vec<Tensor>, ModelError> {
        let results = Forward::new(&self.model())?.run(&self.fed())?;
        Ok(results.into_iter().map(|(_, tensor)| tensor).collect())
    }

    fn run(&self) -> Tensor {
        self.try_run().unwrap().remove(0)
    }

    /// Shape and values of the first output.
    fn gives(&self, shape: &[usize], values: &[f32]) -> &Self {
        let got = self.run();
        assert_eq!(got.shape, shape, "{}", self.op);
        near(self.op, got.as_f32().unwrap(), values, 1e-5);
        self
    }

    fn gives_ints(&self, shape: &[usize], values: &[i64]) -> &Self {
        let got = self.run();
        assert_eq!((got.shape.as_slice(), got.as_i64().unwrap()), (shape, values), "{}", self.op);
        self
    }

    fn refused(&self) -> ModelError {
        self.try_run().expect_err(self.op)
    }

    /// The gradient of a weighted sum of the outputs, by the tape and by central differences,
    /// for every float operand that is no constant.
    fn differentiable(&self) -> &Self {
        let model = self.model();
        let outputs: Vec<String> = (0..self.outputs).map(|i| format!("y{i}")).collect();
        let plan = Plan::<Tape>::compile(&model, &[], &outputs).unwrap();
        let fed = self.fed();
        let leaves: Vec<FloatTensor<Tape>> =
            fed.iter().map(|(_, t)| Tape::float_set_require_grad(floats::<Tape>(t.as_f32().unwrap().to_vec(), &t.shape), true)).collect();
        let outcome =
            guard("forward", || plan.run(leaves.iter().cloned().map(Value::Float).collect(), &[], Mode::Inference, &mut |_, _| ()))
                .unwrap();
        let mut total: Option<FloatTensor<Tape>> = None;
        for output in outcome.outputs {
            let Value::Float(y) = output else { panic!("{} gives integers", self.op) };
            // Burn's sum has no gradient for a tensor of rank 0.
            let w = weights(&dims::<Tape>(&y));
            let flat = reshape::<Tape>(y, &[w.len()]);
            let count = [w.len()];
            let weighed = Tape::float_mul(flat, floats::<Tape>(w, &count));
            let sum = Tape::float_sum(weighed);
            total = Some(match total {
                Some(t) => Tape::float_add(t, sum),
                None => sum,
            });
        }
        let mut gradients = Tape::backward(total.unwrap());
        let forward = Forward::new(&model).unwrap();
        let objective = |fed: &[(&str, Tensor)]| -> f64 {
            let results = forward.run(fed).unwrap();
            let sum = |(_, y): &(String, Tensor)| -> f64 {
                y.as_f32().unwrap().iter().zip(weights(&y.shape)).map(|(y, w)| f64::from(*y) * f64::from(w)).sum()
            };
            results.iter().map(sum).sum()
        };
        for (i, leaf) in leaves.iter().enumerate() {
            let gradient = Tape::grad_remove(leaf, &mut gradients).expect("no gradient");
            let gradient = read::<Flex>(gradient).unwrap();
            let h = 4e-3f32;
            let slopes: Vec<f32> = (0..gradient.len())
                .map(|k| {
                    let at = |d: f32| {
                        let mut fed = fed.clone();
                        let TensorData::F32(values) = &mut fed[i].1.data else { unreachable!() };
                        values[k] += d;
                        objective(&fed)
                    };
                    ((at(h) - at(-h)) / f64::from(2.0 * h)) as f32
                })
                .collect();
            near(&format!("gradient {i} of {}", self.op), &gradient, &slopes, 1e-2);
        }
        self
    }
}

/// Weights of a sum, all different, so that no two elements can be confused.
fn weights(shape: &[usize]) -> Vec<f32> {
    (0..shape.iter().product::<usize>()).map(|i| 0.4 + ((i as f32) * 0.9).cos() * 0.5).collect()
}

fn near(what: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((g - e).abs() <= tolerance * (1.0 + e.abs()), "{what}: element {i} is {g}, not {e}");
    }
}

#[test]
fn an_unknown_operator_is_named_before_anything_runs() {
    let refused = Forward::new(&case("Einsum").some(&[2]).model()).err().unwrap();
    assert!(matches!(&refused, ModelError::Unsupported { op, .. } if op == "Einsum"), "{refused}");
    assert!(refused.to_string().contains("`it`"), "{refused}");
    let listed = crate::interpreter::unsupported(&case("Einsum").some(&[2]).model());
    assert_eq!((listed.len(), listed[0].op.as_str()), (1, "Einsum"));
    assert!(crate::interpreter::supports("Conv", "") && crate::interpreter::supports("Conv", "ai.onnx"));
    assert!(!crate::interpreter::supports("Conv", "com.example") && !crate::interpreter::supports("Einsum", ""));
}

#[test]
fn attributes_are_never_ignored() {
    let unknown = case("Relu").int("surprise", 1).some(&[2]).refused();
    assert!(matches!(&unknown, ModelError::Unsupported { reason, .. } if reason.contains("surprise")), "{unknown}");
    let mistyped = case("Gemm").float("transB", 1.0).some(&[2, 2]).some(&[2, 2]).refused();
    assert!(matches!(&mistyped, ModelError::BadNode { reason, .. } if reason.contains("transB")), "{mistyped}");
}
