//! Activations: functions of one tensor, element by element, with the parameters that
//! some of them have.
//!
//! <https://onnx.ai/onnx/operators/>: Relu, LeakyRelu, PRelu, Sigmoid, Tanh, Elu, Selu,
//! Softplus, Softsign, HardSigmoid, HardSwish, Gelu, Erf, Clip, Mish.
//!
//! - Clip has its bounds as attributes before opset 11 and as inputs from then on; they must
//!   be constants (they are never trained).
//! - PRelu broadcasts its slope to the input from the right.
//! - Gelu (opset 20) with `approximate = none` is exact, though the backend's own backward
//!   pass would use the tanh approximation.
//! - At a kink the gradient is that of the branch that the forward pass took.

use burn_backend::{Scalar, TensorMetadata, get_device_settings, tensor::FloatTensor};

use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Value, broadcast, dims, padded, read, reshape};
use crate::kernel::pointwise::Pointwise;

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "Relu" | "LeakyRelu" | "Sigmoid" | "Tanh" | "Elu" | "Selu" | "Softplus" | "Softsign" | "HardSigmoid" | "HardSwish" | "Gelu"
        | "Erf" | "Mish" => function,
        "Clip" => clip,
        "PRelu" => prelu,
        _ => return None,
    })
}

#[derive(Debug, Clone, Copy)]
enum Function {
    Relu,
    LeakyRelu {
        alpha: f32,
    },
    Sigmoid,
    Tanh,
    /// `gamma * (x if x > 0 else alpha * (exp(x) - 1))`; Elu has gamma 1.
    Selu {
        alpha: f32,
        gamma: f32,
    },
    Softplus,
    Softsign,
    HardSigmoid {
        alpha: f32,
        beta: f32,
    },
    HardSwish,
    Gelu,
    GeluTanh,
    Erf,
    Mish,
}

fn function<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, 1)?;
    let float = |name, default| spec.float(name).unwrap_or(default);
    Ok(Box::new(match spec.op() {
        "Relu" => Function::Relu,
        "LeakyRelu" => Function::LeakyRelu { alpha: float("alpha", 0.01) },
        "Sigmoid" => Function::Sigmoid,
        "Tanh" => Function::Tanh,
        "Elu" => Function::Selu { alpha: float("alpha", 1.0), gamma: 1.0 },
        "Selu" => Function::Selu { alpha: float("alpha", 1.673_263_2), gamma: float("gamma", 1.050_701) },
        "Softplus" => Function::Softplus,
        "Softsign" => Function::Softsign,
        "HardSigmoid" => Function::HardSigmoid { alpha: float("alpha", 0.2), beta: float("beta", 0.5) },
        "HardSwish" => Function::HardSwish,
        "Erf" => Function::Erf,
        "Mish" => Function::Mish,
        _ => match spec.text("approximate").as_deref() {
            None | Some("none") => Function::Gelu,
            Some("tanh") => Function::GeluTanh,
            Some(other) => return Err(Fault::broken(format!("approximate = {other}"))),
        },
    }))
}

/// Bounds: attributes before opset 11, operands from then on.
struct Clip {
    min: Option<f32>,
    max: Option<f32>,
}

fn clip<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, 3)?;
    let (min, max) = if spec.opset < 11 { (spec.float("min"), spec.float("max")) } else { (None, None) };
    Ok(Box::new(Clip { min, max }))
}

impl<B: Engine> Operator<B> for Clip {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let scalar = || Fault::broken("a bound is one number");
        match inputs.any(0)? {
            Value::Float(x) => {
                let mut bound = |i| match inputs.optional_float(i)? {
                    Some(bound) => match read::<B::Plain>(B::lower(bound))?[..] {
                        [bound] => Ok(Some(bound)),
                        _ => Err(scalar()),
                    },
                    None => Ok(None),
                };
                let (min, max) = (bound(1)?.or(self.min), bound(2)?.or(self.max));
                Ok(vec![Value::Float(clamp::<B>(x, min, max))])
            }
            Value::Host(mut host) => {
                let mut bound = |i| match inputs.optional_host(i)?.as_ref().map(|bound| bound.data.as_slice()) {
                    Some([bound]) => Ok(Some(*bound)),
                    Some(_) => Err(scalar()),
                    None => Ok(None),
                };
                let (min, max) = (bound(1)?.unwrap_or(i64::MIN), bound(2)?.unwrap_or(i64::MAX));
                host.data.iter_mut().for_each(|v| *v = (*v).max(min).min(max));
                Ok(vec![Value::Host(host)])
            }
        }
    }
}

impl<B: Engine> Operator<B> for Function {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.float(0)?;
        Ok(vec![Value::Float(match *self {
            Self::Relu => B::apply(Pointwise::Relu, [x]),
            Self::LeakyRelu { alpha } => B::apply(Pointwise::LeakyRelu { alpha }, [x]),
            Self::Sigmoid => B::sigmoid(x),
            Self::Tanh => B::float_tanh(x),
            Self::Selu { alpha, gamma } => selu::<B>(x, alpha, gamma),
            Self::Softplus => softplus::<B>(x),
            Self::Softsign => {
                let below = B::float_add_scalar(B::float_abs(x.clone()), Scalar::from(1.0f32));
                B::float_div(x, below)
            }
            Self::HardSigmoid { alpha, beta } => B::apply(Pointwise::HardSigmoid { alpha, beta }, [x]),
            Self::HardSwish => B::apply(Pointwise::HardSwish, [x]),
            Self::Gelu => B::apply(Pointwise::Gelu, [x]),
            Self::GeluTanh => gelu_tanh::<B>(x),
            Self::Erf => B::apply(Pointwise::Erf, [x]),
            Self::Mish => {
                let gate = B::float_tanh(softplus::<B>(x.clone()));
                B::float_mul(x, gate)
            }
        })])
    }
}

/// Sets the elements below `min` to it, then those above `max`.
pub(super) fn clamp<B: Engine>(x: FloatTensor<B>, min: Option<f32>, max: Option<f32>) -> FloatTensor<B> {
    B::apply(Pointwise::Clip { min: min.unwrap_or(f32::NEG_INFINITY), max: max.unwrap_or(f32::INFINITY) }, [x])
}

fn selu<B: Engine>(x: FloatTensor<B>, alpha: f32, gamma: f32) -> FloatTensor<B> {
    let bools = get_device_settings::<B>(&x.device()).bool_dtype;
    let positive = B::float_greater_elem(x.clone(), Scalar::from(0.0f32), bools);
    // exp sees no positive value: it would overflow there, and infinity times the zero
    // gradient of an unused branch is NaN.
    let low = clamp::<B>(x.clone(), None, Some(0.0));
    let low = B::float_sub_scalar(B::float_exp(low), Scalar::from(1.0f32));
    let low = B::float_mul_scalar(low, Scalar::from(alpha));
    let y = B::float_mask_where(low, positive, x);
    if gamma == 1.0 { y } else { B::float_mul_scalar(y, Scalar::from(gamma)) }
}

/// `ln(1 + exp(x)) = -ln(sigmoid(-x))`, which overflows for no x and has the slope 1/2 at 0.
fn softplus<B: Engine>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_neg(B::log_sigmoid(B::float_neg(x)))
}

/// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`
fn gelu_tanh<B: Engine>(x: FloatTensor<B>) -> FloatTensor<B> {
    let cube = B::float_mul(B::float_mul(x.clone(), x.clone()), x.clone());
    let inner = B::float_add(x.clone(), B::float_mul_scalar(cube, Scalar::from(0.044_715f32)));
    let factor = (2.0 / std::f32::consts::PI).sqrt();
    let tanh = B::float_tanh(B::float_mul_scalar(inner, Scalar::from(factor)));
    let gate = B::float_mul_scalar(B::float_add_scalar(tanh, Scalar::from(1.0f32)), Scalar::from(0.5f32));
    B::float_mul(x, gate)
}

struct PRelu;

fn prelu<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(2, 2)?;
    Ok(Box::new(PRelu))
}

impl<B: Engine> Operator<B> for PRelu {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let (x, slope) = (inputs.float(0)?, inputs.float(1)?);
        let (dx, ds) = (dims::<B>(&x), dims::<B>(&slope));
        if broadcast(&dx, &ds)? != dx || dx.is_empty() {
            return Err(Fault::shape(format!("a slope of {ds:?} does not broadcast to {dx:?}")));
        }
        // relu(x) - slope * relu(-x)
        let low = B::relu(B::float_neg(x.clone()));
        let low = B::float_mul(low, reshape::<B>(slope, &padded(&ds, dx.len())));
        Ok(vec![Value::Float(B::float_sub(B::relu(x), low))])
    }
}
