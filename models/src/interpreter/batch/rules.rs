//! How each operator treats the axis of the examples. An operator that is not named here is refused.

use super::{Axis, Fact, Held, Reason, SIZES, count, mixes, unknown};
use crate::interpreter::value::{axes, axis};
use crate::onnx::{Attributes, pb};

/// A node, and what is known of its operands.
pub(super) struct Node<'a> {
    pub(super) proto: &'a pb::NodeProto,
    pub(super) opset: i64,
    pub(super) inputs: Vec<Option<&'a Fact>>,
    /// The outputs that are read, with their shapes.
    pub(super) made: &'a [Option<Fact>],
    /// It normalizes with statistics of the batch when it trains.
    pub(super) moves_statistics: bool,
}

/// Where the examples lie in each output.
pub(super) fn follow(node: &Node<'_>) -> Result<Vec<Held>, Reason> {
    let is = |held: fn(&Held) -> bool| node.inputs.iter().flatten().any(|fact| held(&fact.held));
    // Of its second operand the type is read alone.
    if node.proto.op_type() == "CastLike" && matches!(node.input(0)?.held, Held::Fixed | Held::Each(_)) {
        return Ok(vec![node.input(0)?.held]);
    }
    if !is(|held| matches!(held, Held::Each(_))) {
        return if is(|held| *held == Held::Count) { count::follow(node) } else { Ok(vec![Held::Fixed; node.made.len()]) };
    }
    let axis = match node.proto.op_type() {
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Pow" | "Min" | "Max" | "Sum" | "Mean" | "Equal" | "Less" | "LessOrEqual" | "Greater"
        | "GreaterOrEqual" | "And" | "Or" | "Xor" | "Where" | "PRelu" | "Clip" => together(node)?,
        "Neg" | "Abs" | "Sqrt" | "Exp" | "Log" | "Reciprocal" | "Sin" | "Cos" | "Floor" | "Ceil" | "Round" | "Sign" | "Relu"
        | "LeakyRelu" | "Sigmoid" | "Tanh" | "Elu" | "Selu" | "Softplus" | "Softsign" | "HardSigmoid" | "HardSwish" | "Gelu" | "Erf"
        | "Mish" | "Not" | "IsNaN" | "Cast" | "Dropout" => node.alone()?,
        "QuantizeLinear" | "DequantizeLinear" => quantized(node)?,
        "Shape" | "Size" => return Ok(vec![Held::Count]),
        "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Identity" => viewed(node)?,
        "Transpose" => transposed(node)?,
        "Expand" => expanded(node)?,
        "Tile" => tiled(node)?,
        "MatMul" => product(node)?,
        "Gemm" => affine(node)?,
        "Conv" => in_front(node, "slides over", "[batch, channels, ...]")?,
        "MaxPool" | "AveragePool" | "GlobalAveragePool" | "GlobalMaxPool" => pooled(node)?,
        "BatchNormalization" => batch_normalized(node)?,
        "InstanceNormalization" | "GroupNormalization" => in_front(node, "normalizes over", "[batch, channels, ...]")?,
        "LayerNormalization" | "RMSNormalization" => behind(node, node.int("axis", -1), "normalizes over")?,
        "Softmax" | "LogSoftmax" if node.opset < 13 => behind(node, node.int("axis", 1), "takes a softmax over")?,
        "Softmax" | "LogSoftmax" => beside(node, node.int("axis", -1), "takes a softmax over")?,
        "CumSum" => beside(node, node.one(1)?, "adds up along")?,
        "TopK" => beside(node, node.int("axis", -1), "takes the largest of")?,
        "ArgMax" | "ArgMin" => reduced(node, vec![node.int("axis", 0)])?,
        "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceProd" | "ReduceL1" | "ReduceL2" | "ReduceSumSquare"
        | "ReduceLogSum" | "ReduceLogSumExp" => reduction(node)?,
        "Concat" => joined(node)?,
        "Split" => beside(node, node.int("axis", 0), "cuts")?,
        "Slice" => sliced(node)?,
        "Pad" => padded(node)?,
        "Gather" => gathered(node)?,
        "GatherElements" => gathered_elements(node)?,
        "OneHot" => one_hot(node)?,
        "Trilu" => behind(node, -2, "cuts a triangle out of")?,
        "LSTM" | "GRU" | "RNN" => return recurrent(node),
        _ => return Err(unknown("there is no rule for this operator")),
    };
    Ok(vec![Held::Each(axis); node.made.len()])
}

impl<'a> Node<'a> {
    pub(super) fn input(&self, i: usize) -> Result<&'a Fact, Reason> {
        self.inputs.get(i).copied().flatten().ok_or_else(|| unknown(&format!("input {i} is missing")))
    }

    fn has(&self, i: usize) -> bool {
        self.inputs.get(i).copied().flatten().is_some()
    }

    /// Where the examples lie in operand `i`, which must hold them.
    fn each(&self, i: usize) -> Result<Axis, Reason> {
        match self.input(i)?.held {
            Held::Each(axis) => Ok(axis),
            _ => Err(unknown(&format!("the examples come in by another operand than {i}"))),
        }
    }

    /// Where they lie in operand 0, if all others hold none.
    fn alone(&self) -> Result<Axis, Reason> {
        self.fixed(1..self.inputs.len())?;
        self.each(0)
    }

    /// Refuses operands that depend on examples.
    fn fixed(&self, which: impl IntoIterator<Item = usize>) -> Result<(), Reason> {
        for i in which {
            match self.inputs.get(i).copied().flatten().map(|fact| fact.held) {
                None | Some(Held::Fixed) => {}
                Some(Held::Count) => return Err(unknown(&format!("operand {i} depends on how many examples there are"))),
                Some(Held::Each(_)) => return Err(unknown(&format!("operand {i} depends on the examples"))),
            }
        }
        Ok(())
    }

    /// An attribute; the operator was compiled, so that its type is right.
    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        Attributes::of(self.proto).int(name, default).unwrap_or(default)
    }

    fn ints(&self, name: &str) -> Option<Vec<i64>> {
        Attributes::of(self.proto).ints(name).ok().flatten().map(<[i64]>::to_vec)
    }

    /// The one number of operand `i`.
    fn one(&self, i: usize) -> Result<i64, Reason> {
        match self.input(i)?.numbers()?[..] {
            [one] => Ok(one),
            _ => Err(unknown(&format!("operand {i} is not one number"))),
        }
    }

    /// Operand `i`, or the attribute that older opsets have in its place.
    fn list(&self, i: usize, name: &str) -> Result<Option<Vec<i64>>, Reason> {
        if self.has(i) { self.input(i)?.numbers().map(Some) } else { Ok(self.ints(name)) }
    }

    /// The axis that `at` names in operand 0.
    fn axis(&self, at: i64) -> Result<usize, Reason> {
        axis(at, self.input(0)?.rank()).map_err(|_| unknown(&format!("there is no axis {at}")))
    }
}

/// Element by element, with broadcasting.
fn together(node: &Node<'_>) -> Result<Axis, Reason> {
    let rank = node.inputs.iter().flatten().map(|fact| fact.rank()).max().unwrap_or(0);
    let mut found: Option<Axis> = None;
    for fact in node.inputs.iter().flatten() {
        match fact.held {
            Held::Fixed => {}
            Held::Count => return Err(unknown("it computes with the number of examples")),
            Held::Each(axis) => {
                let axis = axis.moved(axis.at + rank - fact.rank());
                if *found.get_or_insert(axis) != axis {
                    return Err(mixes("it brings different examples together, because its operands have them on different axes"));
                }
            }
        }
    }
    let axis = found.ok_or_else(|| unknown("no operand holds the examples"))?;
    let differs = |fact: &&Fact| {
        let own = (axis.at + fact.rank()).checked_sub(rank).map_or(1, |i| fact.shape[0][i]);
        fact.held == Held::Fixed && own != 1
    };
    if node.inputs.iter().flatten().copied().any(|fact| differs(&fact)) {
        return Err(mixes("a constant has a value of its own for each place in the batch"));
    }
    Ok(axis)
}

fn quantized(node: &Node<'_>) -> Result<Axis, Reason> {
    let axis = node.alone()?;
    let single = node.input(1)?.shape[0].iter().product::<usize>() == 1;
    if single || node.axis(node.int("axis", 1))? != axis.at { Ok(axis) } else { Err(mixes("it has a scale for each place in the batch")) }
}

/// Other extents for the same values in the same order.
fn viewed(node: &Node<'_>) -> Result<Axis, Reason> {
    let axis = node.each(0)?;
    match node.proto.op_type() {
        "Reshape" if node.has(1) => node.input(1)?.check_extents()?,
        _ => drop(node.list(1, "axes")?),
    }
    if node.proto.op_type() == "Squeeze" && node.list(1, "axes")?.is_none() {
        return Err(mixes("it takes out all axes of extent 1, and with one example also the batch's; give it the axes"));
    }
    let from = &node.input(0)?.shape;
    let Some(Some(made)) = node.made.first() else { return Ok(axis) };
    let [two, three] = &made.shape;
    let split =
        || mixes(format!("it cuts examples apart or joins parts of several: {:?} becomes {two:?}; keep the batch's extent", from[0]));
    if two.len() != three.len() {
        return Err(split());
    }
    let mut changed = (0..two.len()).filter(|i| two[*i] != three[*i]);
    let (Some(at), None) = (changed.next(), changed.next()) else { return Err(split()) };
    // Steps of the outer axes before the examples count one up.
    let outer = from[0][..axis.at].iter().product::<usize>() * axis.before;
    let ahead: usize = two[..at].iter().product();
    let each = two[at] / SIZES[0];
    if ahead == 0 || !outer.is_multiple_of(ahead) || [two[at], three[at]] != SIZES.map(|n| n * each) {
        return Err(split());
    }
    let before = outer / ahead;
    if before == 0 || !each.is_multiple_of(before) {
        return Err(split());
    }
    Ok(Axis { at, before, after: each / before })
}

fn transposed(node: &Node<'_>) -> Result<Axis, Reason> {
    let (axis, rank) = (node.each(0)?, node.input(0)?.rank());
    let order = node.ints("perm").unwrap_or_else(|| (0..rank as i64).rev().collect());
    let at = order.iter().position(|from| *from == axis.at as i64 || *from + rank as i64 == axis.at as i64);
    at.map(|at| axis.moved(at)).ok_or_else(|| unknown("its order leaves the batch out"))
}

fn expanded(node: &Node<'_>) -> Result<Axis, Reason> {
    let axis = node.each(0)?;
    node.input(1)?.check_extents()?;
    let Some(Some(made)) = node.made.first() else { return Ok(axis) };
    Ok(axis.moved(axis.at + made.rank() - node.input(0)?.rank()))
}

fn tiled(node: &Node<'_>) -> Result<Axis, Reason> {
    let axis = node.alone()?;
    let times = node.input(1)?.numbers()?.get(axis.at).copied().and_then(|n| usize::try_from(n).ok());
    let times = times.filter(|times| *times > 0).ok_or_else(|| unknown("its repeats are no counts"))?;
    Ok(Axis { before: axis.before * times, ..axis })
}

/// NumPy's product of matrices.
fn product(node: &Node<'_>) -> Result<Axis, Reason> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    let (ra, rb) = (a.rank(), b.rank());
    let rank = ra.max(rb);
    let sums = || mixes("it sums over the examples of a batch; transpose so that the batch is not the axis that both sides share");
    // Where the examples lie in the answer; `None` behind the axes that are the batch of the product itself.
    let left = match a.held {
        Held::Each(axis) if axis.at + 1 == ra => return Err(sums()),
        Held::Each(axis) if axis.at + 2 == ra => Some((axis.moved(rank.max(2) - 2), false)),
        Held::Each(axis) => Some((axis.moved(axis.at + rank - ra), true)),
        _ => None,
    };
    let last = if ra == 1 { rank.max(2) - 2 } else { rank.max(2) - 1 };
    let right = match b.held {
        Held::Each(axis) if rb == 1 || axis.at + 2 == rb => return Err(sums()),
        Held::Each(axis) if axis.at + 1 == rb => Some((axis.moved(last), false)),
        Held::Each(axis) => Some((axis.moved(axis.at + rank - rb), true)),
        _ => None,
    };
    if [a, b].iter().any(|fact| fact.held == Held::Count) {
        return Err(unknown("it computes with the number of examples"));
    }
    match (left, right) {
        (Some((a, true)), Some((b, true))) if a == b => Ok(a),
        (Some((axis, _)), None) | (None, Some((axis, _))) => Ok(axis),
        _ => Err(mixes("it multiplies examples with one another")),
    }
}

fn affine(node: &Node<'_>) -> Result<Axis, Reason> {
    node.fixed([1])?;
    let axis = node.each(0)?;
    let inner = if node.int("transA", 0) == 0 { 1 } else { 0 };
    if axis.at == inner {
        return Err(mixes("it sums over the examples of a batch; the batch must be the axis that the product keeps"));
    }
    let axis = axis.moved(0);
    if let Some(c) = node.inputs.get(2).copied().flatten() {
        let own = (c.rank() == 2).then(|| c.shape[0][0]);
        match c.held {
            Held::Each(other) if other == axis && c.rank() == 2 => {}
            Held::Fixed if own.is_none_or(|own| own == 1) => {}
            _ => return Err(mixes("what it adds has other examples, or a value for each place in the batch")),
        }
    }
    Ok(axis)
}

/// The examples must be the first axis.
fn in_front(node: &Node<'_>, does: &str, layout: &str) -> Result<Axis, Reason> {
    let axis = node.alone()?;
    if axis.at == 0 { Ok(axis) } else { Err(mixes(format!("it {does} the examples of a batch; it must be given {layout}"))) }
}

/// The examples may be channels too: these never meet in a pool.
fn pooled(node: &Node<'_>) -> Result<Axis, Reason> {
    let axis = node.alone()?;
    if axis.at < 2 { Ok(axis) } else { Err(mixes("it pools over the examples of a batch; it must be given [batch, channels, ...]")) }
}

fn batch_normalized(node: &Node<'_>) -> Result<Axis, Reason> {
    if node.moves_statistics {
        return Err(mixes("in training it normalizes with the statistics of the batch; freeze its running mean and variance"));
    }
    let axis = node.alone()?;
    if axis.at == 1 { Err(mixes("its channels are the examples of a batch")) } else { Ok(axis) }
}

/// All axes from `from` on are taken together.
fn behind(node: &Node<'_>, from: i64, does: &str) -> Result<Axis, Reason> {
    let axis = node.alone()?;
    if axis.at < node.axis(from)? {
        Ok(axis)
    } else {
        Err(mixes(format!("it {does} the examples of a batch; choose axes behind the batch")))
    }
}

/// Something happens along axis `along`.
fn beside(node: &Node<'_>, along: i64, does: &str) -> Result<Axis, Reason> {
    let axis = node.alone()?;
    if axis.at != node.axis(along)? { Ok(axis) } else { Err(mixes(format!("it {does} the examples of a batch; choose another axis"))) }
}

fn reduction(node: &Node<'_>) -> Result<Axis, Reason> {
    let along = node.list(1, "axes")?.unwrap_or_default();
    if along.is_empty() && node.int("noop_with_empty_axes", 0) != 0 {
        return node.alone();
    }
    let all = 0..node.input(0)?.rank() as i64;
    reduced(node, if along.is_empty() { all.collect() } else { along })
}

fn reduced(node: &Node<'_>, along: Vec<i64>) -> Result<Axis, Reason> {
    let axis = node.alone()?;
    let along = axes(&along, node.input(0)?.rank()).map_err(|_| unknown("it has no such axes"))?;
    if along.contains(&axis.at) {
        return Err(mixes("it reduces over the examples of a batch; reduce over other axes, and leave the mean over examples to the loss"));
    }
    let gone = if node.int("keepdims", 1) == 0 { along.iter().filter(|a| **a < axis.at).count() } else { 0 };
    Ok(axis.moved(axis.at - gone))
}

fn joined(node: &Node<'_>) -> Result<Axis, Reason> {
    let along = node.axis(node.int("axis", 0))?;
    let mut found = None;
    for fact in node.inputs.iter().flatten() {
        let Held::Each(axis) = fact.held else { return Err(unknown("it joins examples with what is none")) };
        if *found.get_or_insert(axis) != axis {
            return Err(mixes("it joins operands that have the examples on different axes"));
        }
    }
    match found {
        Some(axis) if axis.at == along => Err(mixes("it lines up examples behind one another; join along another axis")),
        Some(axis) => Ok(axis),
        None => Err(unknown("no operand holds the examples")),
    }
}

fn sliced(node: &Node<'_>) -> Result<Axis, Reason> {
    let axis = node.each(0)?;
    let bounds = |i: usize, name: &str| match (node.has(i), node.ints(name)) {
        (true, _) => node.input(i)?.lines(),
        (false, Some(list)) => Ok(list.into_iter().map(|fixed| count::Line { fixed, each: 0 }).collect()),
        (false, None) => Err(unknown("its bounds are missing")),
    };
    let (starts, ends) = (bounds(1, "starts")?, bounds(2, "ends")?);
    let along = node.list(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = node.list(4, "")?.unwrap_or_else(|| vec![1; starts.len()]);
    let whole = count::Line { fixed: 0, each: (axis.before * axis.after) as i64 };
    for (((start, end), along), step) in starts.iter().zip(&ends).zip(&along).zip(&steps) {
        if node.axis(*along)? != axis.at {
            if start.each != 0 || end.each != 0 {
                return Err(unknown("its bounds depend on how many examples there are"));
            }
            continue;
        }
        // Exporters write all of an axis as 0 to the largest number.
        let all = *end == whole || end.each == 0 && end.fixed >= i64::from(i32::MAX);
        if !(*start == count::Line { fixed: 0, each: 0 } && *step == 1 && all) {
            return Err(mixes("it takes some of the examples of a batch and leaves others; slice other axes"));
        }
    }
    Ok(axis)
}

fn padded(node: &Node<'_>) -> Result<Axis, Reason> {
    let axis = node.alone()?;
    let pads = node.list(1, "pads")?.ok_or_else(|| unknown("its pads are missing"))?;
    let along = match node.list(3, "")? {
        Some(list) => list,
        None => (0..node.input(0)?.rank() as i64).collect(),
    };
    for (i, at) in along.iter().enumerate() {
        let pads = [i, i + along.len()].map(|k| pads.get(k).copied());
        if node.axis(*at)? == axis.at && pads != [Some(0), Some(0)] {
            return Err(mixes("it adds places to the batch; pad other axes"));
        }
    }
    Ok(axis)
}

fn gathered(node: &Node<'_>) -> Result<Axis, Reason> {
    let along = node.axis(node.int("axis", 0))?;
    let (data, indices) = (node.input(0)?, node.input(1)?);
    match (data.held, indices.held) {
        // Rows of a table.
        (Held::Fixed, Held::Each(axis)) => Ok(axis.moved(along + axis.at)),
        (Held::Each(axis), Held::Fixed) if axis.at == along => {
            Err(mixes("it picks examples of a batch by their place; gather along another axis"))
        }
        (Held::Each(axis), Held::Fixed) if axis.at < along => Ok(axis),
        (Held::Each(axis), Held::Fixed) => Ok(axis.moved(axis.at + indices.rank() - 1)),
        _ => Err(unknown("it picks examples by what they or others hold")),
    }
}

fn gathered_elements(node: &Node<'_>) -> Result<Axis, Reason> {
    let (axis, along) = (node.each(0)?, node.axis(node.int("axis", 0))?);
    if axis.at == along {
        return Err(mixes("it picks elements of other examples; gather along another axis"));
    }
    if node.each(1)? != axis {
        return Err(mixes("its indices have the examples on another axis"));
    }
    Ok(axis)
}

fn one_hot(node: &Node<'_>) -> Result<Axis, Reason> {
    let axis = node.alone()?;
    let rank = node.input(0)?.rank() as i64 + 1;
    let at = node.int("axis", -1);
    let at = if at < 0 { at + rank } else { at };
    Ok(if at <= axis.at as i64 { axis.moved(axis.at + 1) } else { axis })
}

/// The batch is the second axis in layout 0, and the first in layout 1.
fn recurrent(node: &Node<'_>) -> Result<Vec<Held>, Reason> {
    let first = node.int("layout", 0) != 0;
    let (of_x, of_state, of_y) = if first { (0, 0, 0) } else { (1, 1, 2) };
    node.fixed([1, 2, 3, 7])?;
    let axis = node.each(0)?;
    if axis.at != of_x {
        let layout = if first { "[batch, steps, ...]" } else { "[steps, batch, ...]" };
        return Err(mixes(format!("it runs through the examples of a batch as through a sequence; it must be given {layout}")));
    }
    for (i, at) in [(4, 0), (5, of_state), (6, of_state)] {
        if node.has(i) && node.each(i)? != axis.moved(at) {
            return Err(mixes(format!("operand {i} has the examples on another axis than the sequences")));
        }
    }
    Ok(vec![Held::Each(axis.moved(of_y)), Held::Each(axis.moved(of_state)), Held::Each(axis.moved(of_state))])
}
