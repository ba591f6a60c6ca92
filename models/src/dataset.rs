//! Examples to train, evaluate and calibrate with.

use std::fmt;

use crate::features::Features;
use crate::onnx::{Dim, Element};
use crate::tensor::Tensor;

/// Examples: what a model reads of each, and one label or target for each.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Features, first axis the examples.
    pub x: Features,
    /// Labels or targets, as many as `x` has rows.
    pub y: Targets,
}

/// What a model should answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Targets {
    /// Class indices from 0.
    Classes(Vec<i64>),
    /// Real targets `[n, ...]`.
    Values(Tensor),
}

impl Targets {
    /// Number of targets.
    pub fn len(&self) -> usize {
        match self {
            Self::Classes(labels) => labels.len(),
            Self::Values(values) => values.rows(),
        }
    }

    /// Whether there is no target.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The first fault of a data set; rows and columns count from 0, a column is the flat
/// index within one example.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DataFault {
    /// No example at all.
    #[error("the data has no example")]
    Empty,
    /// Features that are not 32-bit floats.
    #[error("the features are {found}, the model reads f32; convert them")]
    Element {
        /// Type found.
        found: String,
    },
    /// A tensor whose shape and number of values disagree.
    #[error("the {what} have shape {shape:?} but {values} values")]
    Inconsistent {
        /// "features" or "targets".
        what: &'static str,
        /// The declared shape.
        shape: Vec<usize>,
        /// Values that are there.
        values: usize,
    },
    /// Examples of a shape that the model does not read.
    #[error("examples have shape {found}, the model reads {expected}")]
    Shape {
        /// Shape of the model's input.
        expected: String,
        /// Shape of the features.
        found: String,
    },
    /// No tensor for an input of the model.
    #[error("the model reads {inputs}, and the data has {found}")]
    Missing {
        /// Every input without one.
        inputs: String,
        /// Names of the tensors that are there.
        found: String,
    },
    /// A fault of one of several tensors of features.
    #[error("`{name}`: {fault}")]
    Within {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        fault: Box<Self>,
    },
    /// Tensors of features with different numbers of examples.
    #[error("{rows} rows of features, the others have {others}")]
    FeatureRows {
        /// Rows of this tensor.
        rows: usize,
        /// Rows of the first one.
        others: usize,
    },
    /// As many labels as rows are needed.
    #[error("{rows} rows of features but {targets} labels or targets")]
    Rows {
        /// Rows of `x`.
        rows: usize,
        /// Rows of `y`.
        targets: usize,
    },
    /// NaN or infinity in the features.
    #[error("row {row}, column {column}: {value} is not a finite number")]
    NotFinite {
        /// Row of the example.
        row: usize,
        /// Flat index within the example.
        column: usize,
        /// The value, as printed.
        value: String,
    },
    /// A feature that the model's integer type does not have.
    #[error("row {row}, column {column}: {value} is no {element:?}, which the model reads")]
    NotOfType {
        /// Row of the example.
        row: usize,
        /// Flat index within the example.
        column: usize,
        /// The value, as printed.
        value: String,
        /// What the model reads.
        element: Element,
    },
    /// NaN or infinity in the targets.
    #[error("target of row {row}, column {column}: {value} is not a finite number")]
    TargetNotFinite {
        /// Row of the example.
        row: usize,
        /// Flat index within the target.
        column: usize,
        /// The value, as printed.
        value: String,
    },
    /// A label that is no class.
    #[error("row {row}: label {label} is not one of the {classes} classes 0..={}", classes.saturating_sub(1))]
    Label {
        /// Row of the example.
        row: usize,
        /// The label found.
        label: i64,
        /// Number of classes.
        classes: usize,
    },
    /// Classes where the loss needs values, or the other way round.
    #[error("the targets are {found}, the loss needs {needed}")]
    Targets {
        /// What the data has.
        found: &'static str,
        /// What the loss needs.
        needed: &'static str,
    },
}

/// Prints a shape with symbols, as `[batch, 1, 8, 8]`.
pub(crate) struct ShowDims<'a>(pub(crate) &'a [Dim]);

impl fmt::Display for ShowDims<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            match dim {
                Dim::Fixed(n) => write!(f, "{comma}{n}")?,
                Dim::Symbol(name) if name.is_empty() => write!(f, "{comma}?")?,
                Dim::Symbol(name) => write!(f, "{comma}{name}")?,
            }
        }
        f.write_str("]")
    }
}

impl Dataset {
    /// Number of examples.
    pub fn len(&self) -> usize {
        self.x.rows()
    }

    /// Whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The named rows, in that order; rows may repeat.
    ///
    /// # Panics
    /// If a row is not in the data set, as slice indexing does.
    pub fn subset(&self, rows: &[usize]) -> Self {
        let y = match &self.y {
            Targets::Classes(labels) => Targets::Classes(rows.iter().map(|&r| labels[r]).collect()),
            Targets::Values(values) => Targets::Values(values.take_rows(rows)),
        };
        Self { x: self.x.take_rows(rows), y }
    }

    /// Checks the data by itself: that there are examples, as many of each feature and target, 32-bit floats that are finite, and
    /// labels that are known. What a model reads of them is for [`Features::check_for`].
    ///
    /// # Errors
    /// The first fault in reading order.
    pub fn check(&self, labels: Option<Known>) -> Result<(), DataFault> {
        self.x.check()?;
        if self.y.len() != self.len() {
            return Err(DataFault::Rows { rows: self.len(), targets: self.y.len() });
        }
        match &self.y {
            Targets::Classes(found) => labels.map_or(Ok(()), |known| known.check(found)),
            Targets::Values(values) => {
                consistent("targets", values)?;
                let wrong = DataFault::Targets { found: "not f32", needed: "f32 values" };
                match first_not_finite(values.as_f32().ok_or(wrong)?, values.row_len()) {
                    Some((row, column, value)) => Err(DataFault::TargetNotFinite { row, column, value }),
                    None => Ok(()),
                }
            }
        }
    }
}

pub(crate) fn consistent(what: &'static str, tensor: &Tensor) -> Result<(), DataFault> {
    tensor.check().map_err(|_| DataFault::Inconsistent { what, shape: tensor.shape.clone(), values: tensor.numel() })
}

pub(crate) fn first_not_finite(values: &[f32], width: usize) -> Option<(usize, usize, String)> {
    let at = values.iter().position(|v| !v.is_finite())?;
    let width = width.max(1);
    Some((at / width, at % width, values[at].to_string()))
}

/// Which labels there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Labels from 0 to this, exclusive.
    pub classes: usize,
    /// A label of examples that do not count.
    pub ignore: Option<i64>,
}

impl Known {
    /// Labels of so many classes.
    pub fn classes(classes: usize) -> Self {
        Self { classes, ignore: None }
    }

    fn check(self, labels: &[i64]) -> Result<(), DataFault> {
        let known = |label: i64| usize::try_from(label).is_ok_and(|l| l < self.classes) || self.ignore == Some(label);
        match labels.iter().position(|label| !known(*label)) {
            Some(row) => Err(DataFault::Label { row, label: labels[row], classes: self.classes }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::ValueInfo;
    use crate::tensor::TensorData;

    fn input(width: usize, element: Element) -> ValueInfo {
        ValueInfo { name: "input".into(), element, shape: vec![Dim::Symbol("batch".into()), Dim::Fixed(width)] }
    }

    fn data() -> Dataset {
        Dataset { x: Tensor::f32([3, 2], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]).unwrap().into(), y: Targets::Classes(vec![0, 1, 2]) }
    }

    /// The features, to be spoilt.
    fn values(data: &mut Dataset) -> &mut Vec<f32> {
        let TensorData::F32(x) = &mut data.x.only_mut().unwrap().data else { unreachable!() };
        x
    }

    #[test]
    fn good_data_passes() {
        data().check(Some(Known::classes(3))).unwrap();
        data().check(None).unwrap();
        data().x.check_for(&[input(2, Element::F32)]).unwrap();
    }

    #[test]
    fn wrong_shape_is_named() {
        let fault = data().x.check_for(&[input(3, Element::F32)]).unwrap_err();
        assert_eq!(fault.to_string(), "examples have shape [3, 2], the model reads [batch, 3]");
    }

    #[test]
    fn nan_and_infinity_are_named_by_row_and_column() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut data = data();
            values(&mut data)[3] = bad;
            let fault = data.check(None).unwrap_err();
            assert!(matches!(fault, DataFault::NotFinite { row: 1, column: 1, .. }), "{fault}");
        }
    }

    #[test]
    fn what_is_no_token_is_named_by_row_and_column() {
        let mut data = data();
        data.x.check_for(&[input(2, Element::I64)]).unwrap();
        values(&mut data)[3] = 0.5;
        data.x.check_for(&[input(2, Element::F32)]).unwrap();
        let fault = data.x.check_for(&[input(2, Element::I64)]).unwrap_err();
        assert_eq!(fault.to_string(), "row 1, column 1: 0.5 is no I64, which the model reads");
    }

    #[test]
    fn labels_out_of_range_are_named_by_row() {
        for bad in [-1, 3, i64::MAX] {
            let mut data = data();
            data.y = Targets::Classes(vec![0, bad, 0]);
            let fault = data.check(Some(Known::classes(3))).unwrap_err();
            assert_eq!(fault, DataFault::Label { row: 1, label: bad, classes: 3 });
        }
    }

    #[test]
    fn missing_labels_and_targets_are_refused() {
        let mut short = data();
        short.y = Targets::Classes(vec![0]);
        assert_eq!(short.check(None).unwrap_err(), DataFault::Rows { rows: 3, targets: 1 });
        let mut endless = data();
        endless.y = Targets::Values(Tensor::f32([3, 1], vec![0.0, 1.0, f32::NAN]).unwrap());
        assert!(matches!(endless.check(None).unwrap_err(), DataFault::TargetNotFinite { row: 2, column: 0, .. }));
    }

    #[test]
    fn a_shape_that_lies_is_refused() {
        let mut liar = data();
        liar.x.only_mut().unwrap().shape = vec![4, 2];
        assert!(matches!(liar.check(None).unwrap_err(), DataFault::Inconsistent { what: "features", .. }));
        let empty = Dataset { x: Tensor::f32([0, 2], vec![]).unwrap().into(), y: Targets::Classes(vec![]) };
        assert_eq!(empty.check(None).unwrap_err(), DataFault::Empty);
    }

    #[test]
    fn a_subset_keeps_rows_and_labels_together() {
        let picked = data().subset(&[2, 0]);
        assert_eq!(picked.x.only().unwrap().as_f32().unwrap(), [4.0, 5.0, 0.0, 1.0]);
        assert_eq!(picked.y, Targets::Classes(vec![2, 0]));
    }
}
