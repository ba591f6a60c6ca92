//! Whole numbers that depend on how many examples there are: what graphs make shapes of.

use super::rules::Node;
use super::{Axis, Fact, Held, Reason, SIZES, unknown};
use crate::onnx::Element;

/// `fixed + each * examples`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) fixed: i64,
    pub(super) each: i64,
}

impl Fact {
    /// The numbers of a value that depends on no example's content.
    pub(super) fn lines(&self) -> Result<Vec<Line>, Reason> {
        let (Held::Fixed | Held::Count, Some([two, three])) = (self.held, &self.ints) else {
            return Err(unknown("a shape or an index depends on what the examples are"));
        };
        let [few, more] = SIZES.map(|n| n as i64);
        let line = |(a, b): (&i64, &i64)| {
            let each = b.checked_sub(*a)? / (more - few);
            Some(Line { fixed: a.checked_sub(each.checked_mul(few)?)?, each })
        };
        two.iter().zip(three).map(line).collect::<Option<_>>().ok_or_else(|| unknown("its numbers overflow"))
    }

    /// The numbers of a value that depends on nothing.
    pub(super) fn numbers(&self) -> Result<Vec<i64>, Reason> {
        let lines = self.lines()?;
        if lines.iter().any(|line| line.each != 0) {
            return Err(unknown("an index or an axis depends on how many examples there are"));
        }
        Ok(lines.into_iter().map(|line| line.fixed).collect())
    }

    /// Refuses extents of which more than one depends on the number of examples, or one that is not proportional to it.
    pub(super) fn check_extents(&self) -> Result<(), Reason> {
        let moving: Vec<Line> = self.lines()?.into_iter().filter(|line| line.each != 0).collect();
        match moving[..] {
            [] | [Line { fixed: 0, each: 1.. }] => Ok(()),
            _ => Err(unknown("a shape depends on how many examples there are, and is not proportional to it")),
        }
    }
}

/// Nodes that read no example, and numbers that depend on how many there are.
pub(super) fn follow(node: &Node<'_>) -> Result<Vec<Held>, Reason> {
    let is_count = |i: usize| node.inputs.get(i).copied().flatten().is_some_and(|fact| fact.held == Held::Count);
    let counts: Vec<usize> = (0..node.inputs.len()).filter(|i| is_count(*i)).collect();
    let all = |held| Ok(vec![held; node.made.len()]);
    match node.proto.op_type() {
        // What is picked, moved, added or negated stays linear.
        "Concat" | "Add" | "Sub" | "Sum" => all(Held::Count),
        "Neg" | "Identity" | "Squeeze" | "Unsqueeze" | "Gather" | "Slice" | "Split" | "Flatten" | "ReduceSum" | "GatherElements"
            if counts == [0] =>
        {
            all(Held::Count)
        }
        // Narrower types wrap around, and a boolean tells zero from all others.
        "Cast" if matches!(Element::from_onnx(node.int("to", 0) as i32), Element::I64 | Element::I32) => all(Held::Count),
        "Reshape" | "Expand" if counts == [0] => all(Held::Count),
        "Mul" if counts.len() == 1 => all(Held::Count),
        "Div" if counts == [0] => divided(node).map(|()| vec![Held::Count]),
        "ReduceProd" if counts == [0] => {
            let moving = node.input(0)?.lines()?.iter().filter(|line| line.each != 0).count();
            if moving > 1 {
                Err(unknown("it multiplies several numbers that depend on how many examples there are"))
            } else {
                all(Held::Count)
            }
        }
        "Where" if !is_count(0) => all(Held::Count),
        "Equal" => equal(node).map(|()| vec![Held::Fixed]),
        "Shape" | "Size" => all(Held::Fixed),
        "ConstantOfShape" => spread(node, 0, None),
        "Expand" | "Tile" if counts == [1] => spread(node, 1, Some(0)),
        "Range" => Err(unknown("it numbers the examples, so that what follows depends on an example's place")),
        _ => Err(unknown("it computes with the number of examples")),
    }
}

/// A division that leaves no rest, however many examples there are.
fn divided(node: &Node<'_>) -> Result<(), Reason> {
    let by = node.input(1)?.numbers()?;
    let exact = |line: &Line| by.iter().all(|by| *by != 0 && line.fixed % by == 0 && line.each % by == 0);
    if node.input(0)?.lines()?.iter().all(exact) { Ok(()) } else { Err(unknown("it divides the number of examples, and leaves a rest")) }
}

/// A comparison that comes out alike, however many examples there are.
fn equal(node: &Node<'_>) -> Result<(), Reason> {
    let (a, b) = (node.input(0)?.lines()?, node.input(1)?.lines()?);
    let length = a.len().max(b.len());
    let at = |lines: &[Line], i: usize| lines.get(if lines.len() == 1 { 0 } else { i }).copied();
    let settled = |i: usize| {
        let (Some(a), Some(b)) = (at(&a, i), at(&b, i)) else { return false };
        let (slope, gap) = (a.each - b.each, b.fixed - a.fixed);
        // Equal at one number of examples: at none that there can be.
        slope == 0 || gap % slope != 0 || gap / slope < 1
    };
    if (0..length).all(settled) { Ok(()) } else { Err(unknown("it asks how many examples there are")) }
}

/// Something fixed, repeated for each example: the extents are in input `extents`, what is repeated in input `from`.
fn spread(node: &Node<'_>, extents: usize, from: Option<usize>) -> Result<Vec<Held>, Reason> {
    node.input(extents)?.check_extents()?;
    let Some(Some(made)) = node.made.first() else { return Ok(Vec::new()) };
    let [two, three] = &made.shape;
    let Some(at) = (0..two.len()).find(|i| three.get(*i) != two.get(*i)) else { return Ok(vec![Held::Fixed]) };
    let after = two[at] / SIZES[0];
    let own = match from {
        Some(from) => {
            let own = &node.input(from)?.shape[0];
            (at + own.len()).checked_sub(two.len()).map_or(1, |i| own[i])
        }
        None => after,
    };
    // Tile repeats all that stands there for each example; Expand only ever repeats one.
    if own != after {
        return Err(unknown("it repeats something more than once for each example"));
    }
    Ok(vec![Held::Each(Axis { at, before: 1, after })])
}
