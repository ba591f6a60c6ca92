//! A figure of merit that its user wrote as two graphs: one gives counters for each example, the other makes figures of their sums.

use super::TrainError;
use super::judge::Judge;
use crate::dataset::{DataFault, Dataset, Known, Targets};
use crate::interpreter::value::Value;
use crate::interpreter::{Mode, guard};
use crate::onnx::Model;
use crate::{Forward, ModelError, Tensor};

/// What the second graph reads.
const SUMS: &str = "sums";
const EXAMPLES: &str = "examples";
/// Largest magnitude of a counter, so that no example counts more than another, and noise could be made for the sums.
const MOST: f32 = 1.0;

/// A compiled metric.
///
/// The first graph reads `output` (the model's first, f32 `[batch, ...]`) and `target` (int64 `[batch]` or f32 `[batch, ...]`) and gives
/// f32 `[batch, counters]`, each counter from -1 to 1. The second reads `sums` (f32 `[counters]`) and `examples` (f32, one number) and
/// gives f32 figures; without it the figures are the means.
pub struct Metric {
    judge: Judge,
    last: Option<Forward>,
}

impl Metric {
    /// Checks and compiles both graphs.
    ///
    /// # Errors
    /// [`ModelError::Input`] for other inputs or outputs; a node that cannot be computed.
    pub fn new(counters: &Model, last: Option<&Model>) -> Result<Self, ModelError> {
        let last = last.map(|model| {
            let names: Vec<String> = model.inputs().into_iter().map(|input| input.name).collect();
            if names.len() != 2 || [SUMS, EXAMPLES].iter().any(|name| !names.iter().any(|n| n == name)) {
                let reason = format!("the finalizing graph reads `{SUMS}` and `{EXAMPLES}`, and nothing else");
                return Err(ModelError::Input { name: names.join("`, `"), reason });
            }
            Forward::new(model)
        });
        Ok(Self { judge: Judge::new(counters, 2)?, last: last.transpose()? })
    }

    /// The figures of answers `[n, ...]` that any runtime gave.
    ///
    /// # Errors
    /// [`TrainError::Data`] or [`TrainError::Targets`] for targets that the graph does not read; [`TrainError::Model`] if it mixes
    /// examples ([`ModelError::Mixes`]), counts beyond -1 to 1, or cannot be run on them.
    pub fn measure(&self, answers: &Tensor, targets: &Targets) -> Result<Vec<f32>, TrainError> {
        let (width, answer) = (answers.row_len(), answers.shape.get(1..).unwrap_or_default());
        let data = Dataset { x: Tensor::f32([answers.rows(), 1], vec![0.0; answers.rows()])?.into(), y: targets.clone() };
        data.check(Some(Known { classes: width, ignore: None }))?;
        self.judge.check_targets(targets, width)?;
        self.judge.check(answer)?;
        if answers.as_f32().is_none() {
            return Err(DataFault::Targets { found: "answers that are not f32", needed: "f32 answers" }.into());
        }
        let rows: Vec<usize> = (0..data.len()).collect();
        let mut sums: Vec<f64> = Vec::new();
        for rows in rows.chunks(super::EVALUATED_AT_ONCE) {
            let counters = guard("the metric graph", || self.counters(answers, targets, rows, width))?;
            let count = counters.len() / rows.len();
            sums.resize(sums.len().max(count), 0.0);
            for (i, row) in counters.chunks(count.max(1)).enumerate() {
                for (k, (sum, value)) in sums.iter_mut().zip(row).enumerate() {
                    if !(-MOST..=MOST).contains(value) {
                        let reason = format!("counter {k} of example {} is {value}, not from -1 to 1; scale it", rows[i]);
                        return Err(
                            ModelError::Shape { node: "the metric graph's output".to_owned(), op: "output".to_owned(), reason }.into()
                        );
                    }
                    *sum += f64::from(*value);
                }
            }
        }
        let examples = rows.len() as f64;
        let Some(last) = &self.last else { return Ok(sums.iter().map(|sum| (sum / examples) as f32).collect()) };
        let sums = Tensor::f32([sums.len()], sums.iter().map(|sum| *sum as f32).collect())?;
        let figures = last.run(&[(SUMS, sums), (EXAMPLES, Tensor::scalar(examples as f32))])?;
        let figures = figures.first().and_then(|(_, figures)| figures.as_f32().map(<[f32]>::to_vec));
        let none = || ModelError::Input { name: "the finalizing graph".to_owned(), reason: "its first output is not F32".to_owned() };
        Ok(figures.ok_or_else(none)?)
    }

    fn counters(&self, answers: &Tensor, targets: &Targets, rows: &[usize], width: usize) -> Result<Vec<f32>, ModelError> {
        let output = Value::from_tensor(answers.take_rows(rows)).map_err(|fault| fault.at("output", "input"))?;
        let inputs = self.judge.ordered(output, self.judge.target(targets, rows, width)?);
        let found = self.judge.plan.run(inputs, &[], Mode::Inference, &mut |_, _| ())?.outputs.into_iter().next();
        let tensor = found.map(|value| value.into_tensor().map_err(|fault| fault.at("the metric graph's output", "output"))).transpose()?;
        match tensor {
            Some(Tensor { shape, data: crate::TensorData::F32(values) }) if shape.len() == 2 && shape[0] == rows.len() => Ok(values),
            _ => {
                let reason = "it must be F32 [batch, counters]".to_owned();
                Err(ModelError::Shape { node: "the metric graph's output".to_owned(), op: "output".to_owned(), reason })
            }
        }
    }
}
