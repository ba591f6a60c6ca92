//! What an operator is: compiled once from its node, then run many times.

use burn_backend::tensor::FloatTensor;
use rand_chacha::ChaCha8Rng;

use super::engine::Engine;
use super::fault::Fault;
use super::spec::Spec;
use super::value::{Host, Value};

/// Makes an operator from a node; refuses what it cannot compute.
pub(crate) type Compile<B> = fn(&Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault>;

/// A compiled node.
pub(crate) trait Operator<B: Engine>: Send + Sync {
    /// Computes the outputs. Shapes are checked before the backend sees them, because
    /// its primitives panic.
    fn run(&self, inputs: Inputs<B>, cx: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault>;

    /// Whether this operator would rather have the matrix at `input` kept transposed in
    /// memory. If all its readers agree, [`Operator::take_transposed`] tells them so.
    fn wants_transposed(&self, _input: usize) -> bool {
        false
    }

    /// From now on the matrix at `input` arrives transposed.
    fn take_transposed(&mut self, _input: usize) {}

    /// Whether equal inputs give equal outputs in every mode, so that a node with
    /// constant inputs may be computed once.
    fn is_pure(&self) -> bool {
        true
    }

    /// The inputs that a training run updates without a gradient ([`Context::update`]), if all
    /// of them are parameters. Such an operator mixes the rows of a batch.
    fn statistics(&self) -> &'static [usize] {
        &[]
    }
}

/// How a graph is run.
pub(crate) enum Mode<'a> {
    Inference,
    /// Batch statistics are used and updated, and dropout draws its masks from here.
    Training(&'a mut ChaCha8Rng),
}

/// What an operator may use besides its operands.
pub(crate) struct Context<'a, B: Engine> {
    pub(crate) mode: Mode<'a>,
    /// Whether input `i` of the running node is a parameter that training updates.
    pub(super) updatable: Vec<bool>,
    /// New values for inputs of the running node that training updates without a gradient.
    pub(super) updates: Vec<(usize, FloatTensor<B::Plain>)>,
}

impl<B: Engine> Context<'_, B> {
    /// Whether the running node may update its operand `input` by [`Context::update`].
    pub(crate) fn is_updatable(&self, input: usize) -> bool {
        self.updatable.get(input).copied().unwrap_or(false)
    }

    /// Replaces operand `input` (a parameter, such as a running mean) after this step.
    pub(crate) fn update(&mut self, input: usize, value: FloatTensor<B::Plain>) {
        self.updates.push((input, value));
    }
}

/// The operands of one run; each can be taken once, so that the backend may reuse the
/// buffer of a value that nobody reads later.
pub(crate) struct Inputs<B: Engine>(Vec<Option<Value<B>>>);

impl<B: Engine> Inputs<B> {
    pub(crate) fn new(values: Vec<Option<Value<B>>>) -> Self {
        Self(values)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn take(&mut self, i: usize) -> Option<Value<B>> {
        self.0.get_mut(i).and_then(Option::take)
    }

    pub(crate) fn any(&mut self, i: usize) -> Result<Value<B>, Fault> {
        self.take(i).ok_or_else(|| Fault::broken(format!("input {i} is missing")))
    }

    pub(crate) fn float(&mut self, i: usize) -> Result<FloatTensor<B>, Fault> {
        self.optional_float(i)?.ok_or_else(|| Fault::broken(format!("input {i} is missing")))
    }

    pub(crate) fn optional_float(&mut self, i: usize) -> Result<Option<FloatTensor<B>>, Fault> {
        match self.take(i) {
            Some(Value::Float(tensor)) => Ok(Some(tensor)),
            Some(Value::Host(host)) => Err(Fault::unsupported(format!("input {i} is {:?}, only f32 is computed", host.element))),
            None => Ok(None),
        }
    }

    pub(crate) fn host(&mut self, i: usize) -> Result<Host, Fault> {
        self.optional_host(i)?.ok_or_else(|| Fault::broken(format!("input {i} is missing")))
    }

    pub(crate) fn optional_host(&mut self, i: usize) -> Result<Option<Host>, Fault> {
        match self.take(i) {
            Some(Value::Host(host)) => Ok(Some(host)),
            Some(Value::Float(_)) => Err(Fault::broken(format!("input {i} is f32 where integers are needed"))),
            None => Ok(None),
        }
    }
}
