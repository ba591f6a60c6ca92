//! Recurrent layers: `LSTM`, `GRU`, `RNN`.
//!
//! <https://onnx.ai/onnx/operators/onnx__LSTM.html>,
//! <https://onnx.ai/onnx/operators/onnx__GRU.html>,
//! <https://onnx.ai/onnx/operators/onnx__RNN.html>
//!
//! All directions, `sequence_lens`, initial states, and both layouts (opset 14). Behind the end of
//! a sequence the outputs are zero and the state stands still, so that padding changes nothing.
//! The usual activations only; no clipping, no coupled gates.
//!
//! The products with the input are one large matrix product for all steps; only those with
//! the state come one after the other.

use burn_backend::{Slice, tensor::FloatTensor};

use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Value, bounded, dims, floats, reshape};

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "LSTM" | "GRU" | "RNN" => recurrent,
        _ => return None,
    })
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Cell {
    /// Gates in the order input, output, forget, cell.
    Lstm,
    /// Gates in the order update, reset, hidden. `reset_after`: the reset gate is applied behind the product with the state, as
    /// PyTorch and cuDNN have it (`linear_before_reset`).
    Gru {
        reset_after: bool,
    },
    Rnn {
        relu: bool,
    },
}

impl Cell {
    fn gates(self) -> usize {
        match self {
            Self::Lstm => 4,
            Self::Gru { .. } => 3,
            Self::Rnn { .. } => 1,
        }
    }
}

struct Recurrent {
    cell: Cell,
    /// Whether each direction runs backwards in time.
    directions: Vec<bool>,
    hidden: Option<i64>,
    batch_first: bool,
    /// Whether the outputs of all steps are asked for.
    every_step: bool,
}

fn recurrent<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    let (inputs, usual): (usize, &[&str]) = match spec.op() {
        "LSTM" => (8, &["Sigmoid", "Tanh", "Tanh"]),
        "GRU" => (6, &["Sigmoid", "Tanh"]),
        _ => (6, &["Tanh"]),
    };
    spec.arity(3, inputs)?;
    let directions = match spec.text("direction").as_deref() {
        None | Some("forward") => vec![false],
        Some("reverse") => vec![true],
        Some("bidirectional") => vec![false, true],
        Some(other) => return Err(Fault::broken(format!("direction = {other}"))),
    };
    let mut relu = false;
    if let Some(given) = spec.texts("activations") {
        let are = |names: &[&str]| given == names.repeat(directions.len());
        relu = spec.op() == "RNN" && are(&["Relu"]);
        if !relu && !are(usual) {
            return Err(Fault::unsupported(format!("activations {given:?}; only {usual:?} are computed")));
        }
    }
    if spec.float("clip").is_some() {
        return Err(Fault::unsupported("clipped gates are not computed"));
    }
    if spec.op() == "LSTM" && spec.flag("input_forget", false) {
        return Err(Fault::unsupported("coupled input and forget gates are not computed"));
    }
    let cell = match spec.op() {
        "LSTM" => Cell::Lstm,
        "GRU" => Cell::Gru { reset_after: spec.flag("linear_before_reset", false) },
        _ => Cell::Rnn { relu },
    };
    let batch_first = match spec.int("layout").unwrap_or(0) {
        0 => false,
        1 => true,
        other => return Err(Fault::broken(format!("layout = {other}"))),
    };
    Ok(Box::new(Recurrent { cell, directions, hidden: spec.int("hidden_size"), batch_first, every_step: spec.gives(0) }))
}

/// Extents of a layer on one batch.
#[derive(Clone, Copy)]
struct Size {
    steps: usize,
    batch: usize,
    input: usize,
    hidden: usize,
}

impl<B: Engine> Operator<B> for Recurrent {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let (x, w, r, bias) = (inputs.float(0)?, inputs.float(1)?, inputs.float(2)?, inputs.optional_float(3)?);
        let x = self.time_first::<B>(x)?;
        let size = self.size::<B>(&x, &w, &r, bias.as_ref())?;
        let lengths = inputs.optional_host(4)?.map(|host| host.data);
        let ends = lengths.map(|lengths| ends::<B>(&lengths, size)).transpose()?.flatten();
        let peepholes = self.peepholes(&mut inputs, size)?;
        let (hidden, memory) = (self.initial(&mut inputs, 5, size)?, self.initial(&mut inputs, 6, size)?);
        let x = reshape::<B>(x, &[size.steps * size.batch, size.input]);

        let (mut every, mut last) = (Vec::new(), [Vec::new(), Vec::new()]);
        for (d, backwards) in self.directions.iter().enumerate() {
            let rows = |tensor: &FloatTensor<B>| {
                let shape = dims::<B>(tensor);
                reshape::<B>(narrow::<B>(tensor.clone(), 0, d, 1), &shape[1..])
            };
            let weights =
                Weights::<B>::new(self.cell, rows(&w), rows(&r), bias.as_ref().map(rows), size).looking(peepholes.as_ref().map(rows));
            let state = |given: &Option<FloatTensor<B>>| match given {
                Some(given) => rows(given),
                None => zeros::<B>(size),
            };
            let mut state = [state(&hidden), state(&memory)];
            let gates = weights.of_input(x.clone(), size);
            let mut outputs = Vec::with_capacity(size.steps);
            let mut order: Vec<(usize, FloatTensor<B>)> = unstack::<B>(gates, size).into_iter().enumerate().collect();
            if *backwards {
                order.reverse();
            }
            for (step, gates) in order {
                let [h, c] = state.clone();
                let mut next = weights.step(gates, h.clone(), c.clone());
                let mut output = next[0].clone();
                if let Some(ends) = &ends {
                    let (runs, stands) = &ends[step];
                    output = B::float_mul(output, runs.clone());
                    let keep = |new: FloatTensor<B>, old| B::float_add(B::float_mul(new, runs.clone()), B::float_mul(old, stands.clone()));
                    let [new_h, new_c] = next;
                    next = [keep(new_h, h), keep(new_c, c)];
                }
                state = next;
                outputs.push(output);
            }
            if *backwards {
                outputs.reverse();
            }
            if self.every_step {
                let whole = B::float_cat(outputs, 0);
                every.push(reshape::<B>(whole, &[size.steps, 1, size.batch, size.hidden]));
            }
            let [h, c] = state;
            last[0].push(reshape::<B>(h, &[1, size.batch, size.hidden]));
            last[1].push(reshape::<B>(c, &[1, size.batch, size.hidden]));
        }
        Ok(self.answer(every, last))
    }
}

impl Recurrent {
    /// \[steps, batch, input\], whatever the layout.
    fn time_first<B: Engine>(&self, x: FloatTensor<B>) -> Result<FloatTensor<B>, Fault> {
        let shape = dims::<B>(&x);
        if shape.len() != 3 || shape.contains(&0) {
            return Err(Fault::shape(format!("input {shape:?} is no batch of sequences")));
        }
        Ok(if self.batch_first { B::float_permute(x, &[1, 0, 2]) } else { x })
    }

    fn size<B: Engine>(
        &self,
        x: &FloatTensor<B>,
        w: &FloatTensor<B>,
        r: &FloatTensor<B>,
        bias: Option<&FloatTensor<B>>,
    ) -> Result<Size, Fault> {
        let (x, w, r) = (dims::<B>(x), dims::<B>(w), dims::<B>(r));
        let hidden = *r.get(2).ok_or_else(|| Fault::shape(format!("R is {r:?}, of rank 3 is needed")))?;
        let rows = self.cell.gates() * hidden;
        let directions = self.directions.len();
        let declared = self.hidden.is_none_or(|declared| usize::try_from(declared) == Ok(hidden));
        let bias = bias.map(dims::<B>);
        let fits = bias.as_ref().is_none_or(|bias| *bias == [directions, 2 * rows]);
        if w != [directions, rows, x[2]] || r != [directions, rows, hidden] || !declared || !fits || hidden == 0 {
            return Err(Fault::shape(format!("input {x:?}, W {w:?}, R {r:?}, B {bias:?}, hidden_size {:?}", self.hidden)));
        }
        bounded(&[x[0], directions, x[1], rows])?;
        Ok(Size { steps: x[0], batch: x[1], input: x[2], hidden })
    }

    /// The state to begin with, as \[directions, batch, hidden\].
    fn initial<B: Engine>(&self, inputs: &mut Inputs<B>, i: usize, size: Size) -> Result<Option<FloatTensor<B>>, Fault> {
        let Some(state) = inputs.optional_float(i)? else { return Ok(None) };
        let shape = dims::<B>(&state);
        let state = if self.batch_first && shape.len() == 3 { B::float_permute(state, &[1, 0, 2]) } else { state };
        if dims::<B>(&state) != [self.directions.len(), size.batch, size.hidden] {
            return Err(Fault::shape(format!("the initial state is {shape:?} for {} of {}", size.batch, size.hidden)));
        }
        Ok(Some(state))
    }

    /// What the gates see of the memory, as \[directions, 3·hidden\]: input, output, forget gate.
    fn peepholes<B: Engine>(&self, inputs: &mut Inputs<B>, size: Size) -> Result<Option<FloatTensor<B>>, Fault> {
        let Some(weights) = inputs.optional_float(7)? else { return Ok(None) };
        match dims::<B>(&weights) {
            shape if shape == [self.directions.len(), 3 * size.hidden] => Ok(Some(weights)),
            shape => Err(Fault::shape(format!("peepholes are {shape:?} for {}", size.hidden))),
        }
    }

    fn answer<B: Engine>(&self, every: Vec<FloatTensor<B>>, last: [Vec<FloatTensor<B>>; 2]) -> Vec<Value<B>> {
        let mut last = last.map(|parts| {
            let state = B::float_cat(parts, 0);
            Value::Float(if self.batch_first { B::float_permute(state, &[1, 0, 2]) } else { state })
        });
        // What nobody asks for is not put together; its place is held by the state.
        let y = if every.is_empty() {
            last[0].clone()
        } else {
            let whole = B::float_cat(every, 1);
            Value::Float(if self.batch_first { B::float_permute(whole, &[2, 0, 1, 3]) } else { whole })
        };
        let mut answer = vec![y];
        let states = if self.cell == Cell::Lstm { 2 } else { 1 };
        answer.extend(last.iter_mut().take(states).map(|state| state.clone()));
        answer
    }
}

/// One direction's weights, ready to be multiplied with rows.
struct Weights<B: Engine> {
    cell: Cell,
    hidden: usize,
    /// \[input, gates·hidden\].
    w: FloatTensor<B>,
    /// \[hidden, gates·hidden\].
    r: FloatTensor<B>,
    /// On the side of the input; with all of that of the state that can be added there.
    of_input: Option<FloatTensor<B>>,
    /// On the side of the state, where the GRU's reset gate comes behind it.
    of_state: Option<FloatTensor<B>>,
    /// Of the LSTM: \[1, 3·hidden\].
    peepholes: Option<FloatTensor<B>>,
}

impl<B: Engine> Weights<B> {
    fn new(cell: Cell, w: FloatTensor<B>, r: FloatTensor<B>, bias: Option<FloatTensor<B>>, size: Size) -> Self {
        let (hidden, rows) = (size.hidden, cell.gates() * size.hidden);
        let (mut of_input, mut of_state) = (None, None);
        if let Some(bias) = bias {
            let part = |first, count| reshape::<B>(narrow::<B>(bias.clone(), 0, first, count), &[1, count]);
            if cell == (Cell::Gru { reset_after: true }) {
                let gates = B::float_add(part(0, 2 * hidden), part(rows, 2 * hidden));
                of_input = Some(B::float_cat(vec![gates, part(2 * hidden, hidden)], 1));
                of_state = Some(part(rows + 2 * hidden, hidden));
            } else {
                of_input = Some(B::float_add(part(0, rows), part(rows, rows)));
            }
        }
        Self { cell, hidden, w: B::float_swap_dims(w, 0, 1), r: B::float_swap_dims(r, 0, 1), of_input, of_state, peepholes: None }
    }

    fn looking(self, peepholes: Option<FloatTensor<B>>) -> Self {
        Self { peepholes: peepholes.map(|weights| reshape::<B>(weights, &[1, 3 * self.hidden])), ..self }
    }

    /// The gates' share of the input, of all steps at once.
    fn of_input(&self, x: FloatTensor<B>, size: Size) -> FloatTensor<B> {
        let product = B::float_matmul(x, self.w.clone());
        let product = match &self.of_input {
            Some(bias) => B::float_add(product, bias.clone()),
            None => product,
        };
        reshape::<B>(product, &[size.steps, size.batch, self.cell.gates() * size.hidden])
    }

    /// The state, and for the LSTM its memory, behind one step; `gates` is the input's share.
    fn step(&self, gates: FloatTensor<B>, h: FloatTensor<B>, c: FloatTensor<B>) -> [FloatTensor<B>; 2] {
        let n = self.hidden;
        let part = |from: &FloatTensor<B>, first, count| narrow::<B>(from.clone(), 1, first * n, count * n);
        match self.cell {
            Cell::Rnn { relu } => {
                let sum = B::float_add(gates, B::float_matmul(h, self.r.clone()));
                [if relu { B::relu(sum) } else { B::float_tanh(sum) }, c]
            }
            Cell::Lstm if self.peepholes.is_some() => {
                let sum = B::float_add(gates, B::float_matmul(h, self.r.clone()));
                let gate = |i: usize, memory: &FloatTensor<B>| {
                    let seen = self.peepholes.as_ref().map(|weights| B::float_mul(memory.clone(), part(weights, i, 1)));
                    let sum = part(&sum, i, 1);
                    B::sigmoid(seen.map_or(sum.clone(), |seen| B::float_add(sum, seen)))
                };
                let new = B::float_mul(gate(0, &c), B::float_tanh(part(&sum, 3, 1)));
                let c = B::float_add(B::float_mul(gate(2, &c), c), new);
                [B::float_mul(gate(1, &c), B::float_tanh(c.clone())), c]
            }
            Cell::Lstm => {
                let sum = B::float_add(gates, B::float_matmul(h, self.r.clone()));
                // Input, output and forget gate at once.
                let open = B::sigmoid(part(&sum, 0, 3));
                let new = B::float_mul(part(&open, 0, 1), B::float_tanh(part(&sum, 3, 1)));
                let c = B::float_add(B::float_mul(part(&open, 2, 1), c), new);
                [B::float_mul(part(&open, 1, 1), B::float_tanh(c.clone())), c]
            }
            Cell::Gru { reset_after } => {
                let (open, proposed) = if reset_after {
                    let product = B::float_matmul(h.clone(), self.r.clone());
                    let open = B::sigmoid(B::float_add(part(&gates, 0, 2), part(&product, 0, 2)));
                    let mut own = part(&product, 2, 1);
                    if let Some(bias) = &self.of_state {
                        own = B::float_add(own, bias.clone());
                    }
                    let sum = B::float_add(part(&gates, 2, 1), B::float_mul(part(&open, 1, 1), own));
                    (open, B::float_tanh(sum))
                } else {
                    let product = B::float_matmul(h.clone(), part(&self.r, 0, 2));
                    let open = B::sigmoid(B::float_add(part(&gates, 0, 2), product));
                    let reset = B::float_mul(part(&open, 1, 1), h.clone());
                    let sum = B::float_add(part(&gates, 2, 1), B::float_matmul(reset, part(&self.r, 2, 1)));
                    (open, B::float_tanh(sum))
                };
                // (1 - z)·proposed + z·h
                let update = part(&open, 0, 1);
                let moved = B::float_mul(update, B::float_sub(h, proposed.clone()));
                [B::float_add(proposed, moved), c]
            }
        }
    }
}

fn zeros<B: Engine>(size: Size) -> FloatTensor<B> {
    floats::<B>(vec![0.0; size.batch * size.hidden], &[size.batch, size.hidden])
}

fn narrow<B: Engine>(x: FloatTensor<B>, axis: usize, first: usize, count: usize) -> FloatTensor<B> {
    let mut ranges: Vec<Slice> = dims::<B>(&x).iter().map(|d| Slice::from(0..*d)).collect();
    ranges[axis] = Slice::from(first..first + count);
    B::float_slice(x, &ranges)
}

/// The steps of \[steps, batch, width\], each as \[batch, width\]. By halves: the gradient of a slice is as large as what it was cut
/// from, which would make the backward pass quadratic in the number of steps.
fn unstack<B: Engine>(x: FloatTensor<B>, size: Size) -> Vec<FloatTensor<B>> {
    fn split<B: Engine>(x: FloatTensor<B>, into: &mut Vec<FloatTensor<B>>) {
        let shape = dims::<B>(&x);
        match shape[0] {
            1 => into.push(reshape::<B>(x, &shape[1..])),
            steps => {
                split::<B>(narrow::<B>(x.clone(), 0, 0, steps / 2), into);
                split::<B>(narrow::<B>(x, 0, steps / 2, steps - steps / 2), into);
            }
        }
    }
    let mut steps = Vec::with_capacity(size.steps);
    split::<B>(x, &mut steps);
    steps
}

/// For each step, a one for each sequence that still runs, and for each that has ended.
type Ends<B> = Vec<(FloatTensor<B>, FloatTensor<B>)>;

/// None if all sequences are whole.
fn ends<B: Engine>(lengths: &[i64], size: Size) -> Result<Option<Ends<B>>, Fault> {
    let known = |length: &i64| usize::try_from(*length).is_ok_and(|length| length <= size.steps);
    if lengths.len() != size.batch || !lengths.iter().all(known) {
        return Err(Fault::shape(format!("sequence_lens {lengths:?} for {} sequences of {} steps", size.batch, size.steps)));
    }
    if lengths.iter().all(|length| *length == size.steps as i64) {
        return Ok(None);
    }
    let at = |step: usize| {
        let column = |runs: bool| {
            let ones = lengths.iter().map(|length| f32::from(u8::from(((step as i64) < *length) == runs))).collect();
            floats::<B>(ones, &[size.batch, 1])
        };
        (column(true), column(false))
    };
    Ok(Some((0..size.steps).map(at).collect()))
}
