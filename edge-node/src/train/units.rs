//! One step on clipped units (DP-FedSGD): the gradient of each example at the global parameters, clipped by itself, and their exact sum.

use std::ops::ControlFlow;

use sapwood_models::{Dataset, train::Trainer};
use sapwood_privacy::Contribution;
use sapwood_protocol::round::{Codec, Decline, NoiseTerms};

use super::{Failure, Job, Update, chain, job::failure};
use crate::points::TRAINING;

/// The sum of the clipped steps of all units. All of them take part: no amplification by sampling is claimed.
pub(super) fn step(
    trainer: &mut Trainer,
    data: &Dataset,
    units: &[Vec<usize>],
    noise: &NoiseTerms,
    job: &Job,
    source: &str,
) -> Result<(Update, Contribution), Failure> {
    let terms = &job.terms;
    trainer.check_units().map_err(|e| Decline::Model { why: chain(&e) })?;
    let codec = terms.codec().map_err(|fault| Decline::Model { why: fault.to_string() })?;
    let Codec::Noised(mechanism) = codec else { return Err(Decline::Model { why: "the terms have no noise".into() }.into()) };
    let mut sum = mechanism.unit_sum();
    let mut step = Vec::new();
    let (mut examples, mut correct, mut loss) = (0, 0, 0.0);
    let (mut killed, mut refused) = (None, None);
    let started = std::time::Instant::now();
    let done = trainer.unit_gradients(data, units.iter().map(Vec::as_slice), terms.training_seed(&job.node), &mut |unit| {
        if let Err(death) = TRAINING.reached() {
            killed = Some(death);
            return ControlFlow::Break(());
        }
        // Down the slope. How far is decided when the sum is read.
        step.clear();
        step.extend(unit.gradient.iter().map(|g| -g));
        let right = f64::from(unit.correct.unwrap_or(0)) / unit.rows as f64;
        if let Err(fault) = mechanism.add_unit(&mut sum, &step, &noise.reported(unit.loss, right)) {
            refused = Some(fault.to_string());
            return ControlFlow::Break(());
        }
        examples += unit.rows as u64;
        correct += u64::from(unit.correct.unwrap_or(0));
        loss += unit.loss * unit.rows as f64;
        if job.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    if let Some(death) = killed {
        return Err(death.into());
    }
    if let Some(why) = refused {
        return Err(Decline::Model { why }.into());
    }
    done.map_err(|error| failure(error, source))?;
    // What a budget protects is in no log.
    tracing::info!(run = %terms.run, round = terms.round, took = ?started.elapsed(), "trained");
    let contribution = Contribution { examples, correct: Some(correct), loss: loss / examples.max(1) as f64 };
    Ok((Update::Units(sum), contribution))
}
