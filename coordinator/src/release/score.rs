//! What ONNX Runtime makes of a model: the answers that a device will give.

use std::time::Instant;

use sapwood_models::{Dataset, Dim, Features, ModelError, Targets, Tensor, TensorData, metrics::argmax};
use sapwood_runtime::{Runtime, Session, SessionOptions};

use super::{ReleaseError, Timings};

/// Examples in one run, where the graph leaves that open.
const AT_ONCE: usize = 64;
/// Runs before the clock starts.
const WARM_UP: usize = 50;

/// Preprocessing and model, as a device runs them.
pub(super) struct Pipeline {
    preprocess: Option<Session>,
    model: Session,
}

/// Right answers among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Score {
    pub(super) correct: u64,
    pub(super) examples: u64,
}

impl Score {
    /// 0 to 1.
    pub(super) fn accuracy(self) -> f64 {
        self.correct as f64 / self.examples as f64
    }
}

impl Pipeline {
    pub(super) fn new(runtime: &Runtime, preprocess: Option<&[u8]>, model: &[u8]) -> Result<Self, ReleaseError> {
        // One thread: a batch of one gains nothing from more, and the results are the same on every machine.
        let options = SessionOptions { threads: 1 };
        let preprocess = preprocess.map(|bytes| runtime.session(bytes, options)).transpose()?;
        Ok(Self { preprocess, model: runtime.session(model, options)? })
    }

    /// The first output for raw features.
    pub(super) fn run(&mut self, x: &Features) -> Result<Tensor, ReleaseError> {
        match &mut self.preprocess {
            None => Ok(self.model.answer(x)?),
            Some(preprocess) => {
                let name = preprocess.inputs().first().map_or_else(String::new, |input| input.name.clone());
                let prepared = x.clone().replaced(&name, preprocess.answer(x)?).map_err(ModelError::from)?;
                Ok(self.model.answer(&prepared)?)
            }
        }
    }

    /// How many examples one run takes.
    fn batch(&self) -> usize {
        let session = self.preprocess.as_ref().unwrap_or(&self.model);
        match session.inputs().first().and_then(|input| input.shape.first()) {
            Some(Dim::Fixed(batch)) if *batch > 0 => *batch,
            _ => AT_ONCE,
        }
    }

    /// The first output for raw features, however many: `[rows, …]` floats.
    pub(super) fn answers(&mut self, x: &Features) -> Result<Tensor, ReleaseError> {
        let (rows, batch) = (x.rows(), self.batch());
        let (mut shape, mut values) = (Vec::new(), Vec::new());
        for start in (0..rows).step_by(batch) {
            // A graph with a fixed batch gets the last example again.
            let taken: Vec<usize> = (start..start + batch).map(|row| row.min(rows - 1)).collect();
            let wanted = batch.min(rows - start);
            let taken = if self.fixed() { &taken[..] } else { &taken[..wanted] };
            let answer = self.run(&x.take_rows(taken))?;
            let TensorData::F32(floats) = &answer.data else {
                return Err(ReleaseError::setting("model", "its first output is not of type float"));
            };
            values.extend_from_slice(&floats[..wanted * answer.row_len()]);
            shape = answer.shape;
        }
        match shape.first_mut() {
            Some(first) => *first = rows,
            None => return Err(ReleaseError::setting("model", "its first output has no axis for the examples")),
        }
        Ok(Tensor::f32(shape, values)?)
    }

    fn fixed(&self) -> bool {
        let session = self.preprocess.as_ref().unwrap_or(&self.model);
        matches!(session.inputs().first().and_then(|input| input.shape.first()), Some(Dim::Fixed(_)))
    }

    /// Right answers on labelled data; none where the targets are values.
    pub(super) fn score(&mut self, data: &Dataset) -> Result<Option<Score>, ReleaseError> {
        let Targets::Classes(labels) = &data.y else { return Ok(None) };
        let answers = self.answers(&data.x)?;
        let width = answers.row_len().max(1);
        let values = answers.as_f32().unwrap_or_default();
        let right = |(row, label): (&[f32], &i64)| argmax(row).is_some_and(|class| i64::try_from(class) == Ok(*label));
        let correct = values.chunks(width).zip(labels).filter(|pair| right(*pair)).count();
        Ok(Some(Score { correct: correct as u64, examples: labels.len() as u64 }))
    }

    /// Times `runs` warm inferences of one batch each, taking turns over the examples.
    pub(super) fn time(&mut self, x: &Features, runs: usize) -> Result<Timings, ReleaseError> {
        let batch = if self.fixed() { self.batch() } else { 1 };
        let inputs: Vec<Features> = (0..x.rows().min(32)).map(|row| x.take_rows(&vec![row; batch])).collect();
        if inputs.is_empty() {
            return Err(ReleaseError::setting("evaluate.data", "it holds no example"));
        }
        let mut micros = Vec::with_capacity(runs);
        for (turn, input) in inputs.iter().cycle().take(WARM_UP + runs).enumerate() {
            let start = Instant::now();
            self.run(input)?;
            let elapsed = start.elapsed();
            if turn >= WARM_UP {
                micros.push(elapsed.as_secs_f64() * 1e6);
            }
        }
        Ok(Timings::new(micros))
    }
}
