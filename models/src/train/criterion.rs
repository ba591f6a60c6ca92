//! What training minimizes, ready to measure.

use super::loss::{LossGraph, Measured};
use super::{Labels, Loss, TrainConfig, TrainError};
use crate::dataset::{Dataset, Known, Targets};
use crate::{ModelError, Tensor};

/// A loss by name, or one that its user wrote as a graph.
pub(super) enum Criterion {
    Named(Loss, Labels),
    Graph(Box<LossGraph>),
}

impl Criterion {
    /// # Errors
    /// [`ModelError::Setting`] for numbers outside their domain, [`ModelError::LossGraph`] for a graph that is no loss.
    pub(super) fn new(config: &TrainConfig) -> Result<Self, ModelError> {
        let Some(graph) = &config.loss_graph else {
            config.loss.check_settings(&config.labels)?;
            return Ok(Self::Named(config.loss, config.labels.clone()));
        };
        if config.labels != Labels::default() {
            let reason = "a loss graph weighs labels itself; leave class weights, smoothing and the ignored label out".to_owned();
            return Err(ModelError::Setting { name: "labels", value: format!("{:?}", config.labels), reason });
        }
        Ok(Self::Graph(Box::new(LossGraph::new(graph)?)))
    }

    /// Whether the targets are labels of classes.
    pub(super) fn is_of_classes(&self) -> bool {
        match self {
            Self::Named(loss, _) => loss.is_of_classes(),
            Self::Graph(graph) => graph.judge.is_of_classes(),
        }
    }

    /// Whether answers of this shape are right or wrong.
    pub(super) fn has_accuracy(&self, answer: &[usize]) -> bool {
        match self {
            Self::Named(loss, _) => loss.has_accuracy(),
            Self::Graph(graph) => graph.judge.has_accuracy(answer),
        }
    }

    /// The last operators that belong to the loss and not to the trained graph.
    pub(super) fn absorbs(&self, op_type: &str) -> bool {
        matches!(self, Self::Named(loss, _) if loss.absorbs(op_type))
    }

    /// Refuses answers `[examples, answer...]` that it cannot measure.
    pub(super) fn check_answer(&self, answer: &[usize]) -> Result<(), ModelError> {
        match self {
            Self::Named(loss, labels) => {
                let (weights, width) = (labels.weights.len(), answer.iter().product::<usize>());
                if loss.is_of_classes() && !matches!(answer, [(1..)]) {
                    return Err(super::trainer::output_shape(format!(
                        "each example gives {answer:?}; this loss needs [examples, classes]"
                    )));
                }
                if weights != 0 && weights != width {
                    let reason = format!("the model has {width} classes");
                    return Err(ModelError::Setting { name: "class weights", value: format!("{weights} of them"), reason });
                }
                Ok(())
            }
            Self::Graph(graph) => graph.check(answer),
        }
    }

    /// What labels of classes may be.
    pub(super) fn known(&self, width: usize) -> Known {
        match self {
            Self::Named(loss, labels) => Known { classes: loss.classes(width), ignore: labels.ignore },
            Self::Graph(_) => Known { classes: width, ignore: None },
        }
    }

    /// Refuses targets that are none for `width` answers.
    pub(super) fn check_targets(&self, targets: &Targets, width: usize) -> Result<(), TrainError> {
        match self {
            Self::Named(loss, _) => loss.check(targets, width),
            Self::Graph(graph) => graph.judge.check_targets(targets, width),
        }
    }

    /// Measures answers `[rows, answer...]` against the targets of these rows, which have passed [`Criterion::check`].
    pub(super) fn measure(&self, answers: &[f32], answer: &[usize], data: &Dataset, rows: &[usize]) -> Result<Measured, ModelError> {
        match self {
            Self::Named(loss, labels) => Ok(loss.measure(labels, answers, answer.iter().product(), data, rows)),
            Self::Graph(graph) => graph.measure(answers, answer, &data.y, rows),
        }
    }

    /// Targets for `n` examples.
    pub(super) fn some_targets(&self, n: usize, width: usize) -> Result<Targets, ModelError> {
        if self.is_of_classes() {
            return Ok(Targets::Classes(vec![0; n]));
        }
        let width = if let Self::Graph(graph) = self { graph.judge.values(width) } else { width };
        Ok(Targets::Values(Tensor::f32([n, width], vec![0.0; n * width])?))
    }
}
