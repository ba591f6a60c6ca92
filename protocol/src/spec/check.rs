//! What no type says: ranges, and keys that contradict each other.

use std::{collections::BTreeSet, time::Duration};

use super::{LabelSpec, LossKind, NoiseMechanism, OptimizerKind, PrivacyUnit, Spec, Weights, parse::setting};
use crate::{
    fault::{Fault, Misuse},
    ids::{RingId, RunId},
    round::{EncodingTerms, SecureTerms, check_key},
};

/// A release is called after its run, with a date and a mark.
const LONGEST_NAME: usize = 40;
/// Longer waits are a mistake in the unit.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

impl Spec {
    /// Checks what no type says. [`Spec::parse`] does it; a spec that was built in code must.
    ///
    /// # Errors
    /// [`Misuse::Setting`] with the path of the first offending key.
    pub fn validate(&self) -> Result<(), Fault> {
        self.name.parse::<RunId>().map_err(|fault| setting("name", fault.to_string()))?;
        if self.name.len() > LONGEST_NAME {
            return Err(setting("name", format!("at most {LONGEST_NAME} characters: runs and releases add to it")));
        }
        self.check_train()?;
        self.check_cohort()?;
        self.check_deadlines()?;
        self.check_release()
    }

    fn check_labels(&self) -> Result<(), Fault> {
        let (labels, loss) = (&self.model.labels, &self.model.loss);
        if *labels != LabelSpec::default() && !loss.is_of_classes() {
            return Err(setting("model.labels", format!("{loss} has no labels of classes that could be weighed")));
        }
        if !(0.0..1.0).contains(&labels.smoothing) {
            return Err(setting("model.labels.smoothing", format!("{} is not a share from 0 to below 1", labels.smoothing)));
        }
        if labels.smoothing != 0.0 && loss.kind != LossKind::CrossEntropy {
            return Err(setting("model.labels.smoothing", "only cross_entropy has it"));
        }
        if let Some(weight) = labels.weights.iter().find(|w| !(w.is_finite() && **w > 0.0)) {
            return Err(setting("model.labels.weights", format!("{weight} is not above 0")));
        }
        let alone = matches!(self.privacy.unit, PrivacyUnit::Example | PrivacyUnit::Entity);
        if !labels.weights.is_empty() && alone {
            let why = format!("under the unit {} each unit counts the same; leave them out", self.privacy.unit);
            return Err(setting("model.labels.weights", why));
        }
        Ok(())
    }

    fn check_train(&self) -> Result<(), Fault> {
        self.check_labels()?;
        let train = &self.train;
        within("train.rounds", train.rounds, 1, 1_000_000)?;
        within("train.local_epochs", train.local_epochs, 1, 10_000)?;
        within("train.batch", train.batch, 1, 1 << 20)?;
        positive("train.lr", train.lr)?;
        self.check_rates()?;
        share("train.momentum", train.momentum)?;
        share("train.beta1", train.beta1)?;
        share("train.beta2", train.beta2)?;
        positive("train.epsilon", train.epsilon)?;
        if !(train.weight_decay.is_finite() && train.weight_decay >= 0.0) {
            return Err(setting("train.weight_decay", format!("{} is not a number from 0", train.weight_decay)));
        }
        if train.optimizer != OptimizerKind::Sgd && train.momentum != 0.0 {
            return Err(setting("train.momentum", format!("{} has no momentum; set beta1 instead", train.optimizer)));
        }
        if train.nesterov && train.momentum == 0.0 {
            return Err(setting("train.nesterov", "it needs train.momentum above 0"));
        }
        within("strategy.example_cap", self.strategy.example_cap, 1, u32::MAX)?;
        positive("strategy.server_lr", self.strategy.server_lr)
    }

    /// Nodes compute in f32, where the rate of no round may be nothing.
    fn check_rates(&self) -> Result<(), Fault> {
        let train = &self.train;
        within("train.warmup", train.warmup, 0, train.rounds)?;
        for round in [1, train.warmup.max(1), train.rounds] {
            let rate = train.lr_of(round) as f32;
            if !(rate.is_finite() && rate > 0.0) {
                return Err(setting("train.schedule", format!("the learning rate of round {round} would be {rate}; let it fall less")));
            }
        }
        Ok(())
    }

    fn check_cohort(&self) -> Result<(), Fault> {
        let cohort = &self.cohort;
        within("cohort.size", cohort.size, 1, 100_000)?;
        within("cohort.minimum", cohort.minimum, 1, cohort.size)?;
        if !(0.0..=10.0).contains(&cohort.over_selection) {
            return Err(setting("cohort.over_selection", format!("{} is not a share from 0 to 10", cohort.over_selection)));
        }
        positive("privacy.clip", self.privacy.clip)?;
        if self.is_private() {
            self.check_privacy()?;
        } else {
            EncodingTerms::of(self).encoding().map(|_| ())?;
        }
        self.check_aggregation()
    }

    fn check_aggregation(&self) -> Result<(), Fault> {
        let secure = &self.secure_aggregation;
        for (key, value) in [("secure_aggregation.dropout", secure.dropout), ("secure_aggregation.corruption", secure.corruption)] {
            if !(0.0..=0.9).contains(&value) {
                return Err(setting(key, format!("{value} is not a share from 0 to 0.9")));
            }
        }
        if !self.is_secure() {
            return Ok(());
        }
        let terms = SecureTerms::of(self);
        terms.plan(self.cohort.size, self.cohort.minimum).map(|_| ())
    }

    fn check_privacy(&self) -> Result<(), Fault> {
        let (privacy, train) = (&self.privacy, &self.train);
        positive("privacy.epsilon", privacy.epsilon)?;
        if !(privacy.delta > 0.0 && privacy.delta < 1.0) {
            return Err(setting("privacy.delta", format!("{} is not between 0 and 1", privacy.delta)));
        }
        within("privacy.units_per_node", privacy.units_per_node, 1, 1 << 20)?;
        if privacy.clip_quantile.is_some_and(|quantile| !(quantile > 0.0 && quantile < 1.0)) {
            return Err(setting("privacy.clip_quantile", "it is not between 0 and 1; 0.5 is a good choice"));
        }
        if privacy.mechanism == NoiseMechanism::Distributed && !self.is_secure() {
            let why = "without secure aggregation each node's share of the noise would have to protect it alone: write mode = \"on\", or \
                       privacy.mechanism = \"central\" to trust the coordinator with each update";
            return Err(setting("secure_aggregation.mode", why));
        }
        let least = self.survivors();
        if self.cohort.minimum != least {
            let why =
                format!("under a privacy budget it is {least}, by secure_aggregation.dropout: the noise is made for it; leave it out");
            return Err(setting("cohort.minimum", why));
        }
        check_key("privacy.entity_key", privacy.unit, privacy.entity_key.as_deref())?;
        if privacy.unit == PrivacyUnit::Node {
            return Ok(());
        }
        if privacy.expected_units.is_none_or(|units| !(1.0..=1e15).contains(&units)) {
            let why = format!(
                "say how many units ({unit}s) a cohort has together, about: a public number that sums are divided by; or write unit = \"none\" \
                 to say that there is no differential privacy",
                unit = privacy.unit
            );
            return Err(setting("privacy.expected_units", why));
        }
        // One step a round on all examples (DP-FedSGD): what else is set would be ignored.
        if train.optimizer != OptimizerKind::Sgd || train.momentum != 0.0 || train.weight_decay != 0.0 {
            let why =
                format!("under the unit {} a round is one step of plain SGD; leave optimizer, momentum and weight_decay out", privacy.unit);
            return Err(setting("train.optimizer", why));
        }
        if train.local_epochs != 1 {
            return Err(setting("train.local_epochs", format!("under the unit {} a round is one step; leave it out", privacy.unit)));
        }
        if self.strategy.weights != Weights::Uniform {
            let why = format!("under the unit {} each unit counts the same; leave it out", privacy.unit);
            return Err(setting("strategy.weights", why));
        }
        Ok(())
    }

    fn check_deadlines(&self) -> Result<(), Fault> {
        let deadlines = &self.deadlines;
        wait("deadlines.select", deadlines.select)?;
        wait("deadlines.round", deadlines.round)?;
        wait("deadlines.exchange", deadlines.exchange)?;
        within("deadlines.attempts", deadlines.attempts, 1, 1000)?;
        within("evaluate.every", self.evaluate.every, 1, u32::MAX)
    }

    fn check_release(&self) -> Result<(), Fault> {
        let (release, gates) = (&self.release, &self.release.gates);
        wait("release.health_timeout", release.health_timeout)?;
        if release.soak > LONGEST {
            return Err(setting("release.soak", "longer than 30 days"));
        }
        within("release.golden", release.golden, 1, 1000)?;
        release.postprocess.check(&self.model.loss)?;
        if release.use_case.trim().is_empty() {
            return Err(setting("release.use_case", "empty; say what the model is for"));
        }
        if release.rings.is_empty() {
            return Err(setting("release.rings", "empty; name at least one ring"));
        }
        let mut seen = BTreeSet::new();
        for ring in &release.rings {
            ring.parse::<RingId>().map_err(|fault| setting("release.rings", fault.to_string()))?;
            if !seen.insert(ring) {
                return Err(setting("release.rings", format!("{ring:?} occurs twice")));
            }
        }
        for (key, value) in [("release.gates.min_accuracy", gates.min_accuracy), ("release.gates.max_int8_drop", gates.max_int8_drop)] {
            let Some(value) = value else { continue };
            if !(0.0..=1.0).contains(&value) {
                return Err(setting(key, format!("{value} is not a share from 0 to 1")));
            }
            if self.evaluate.data.is_none() {
                return Err(setting(key, "it needs evaluate.data to measure on"));
            }
        }
        Ok(())
    }
}

impl Spec {
    /// A cohort of at most `nodes`: what a smaller fleet, or a simulation, can bring together.
    pub fn limit_cohort(&mut self, nodes: u32) {
        self.cohort.size = self.cohort.size.min(nodes);
        self.cohort.minimum = if self.is_private() { self.survivors() } else { self.cohort.minimum.min(nodes) };
    }

    /// ⌈(1 − dropout)·size⌉: as few of a cohort may be in a sum.
    pub(super) fn survivors(&self) -> u32 {
        // The last digits of 0.7·10 must not decide.
        let survivors = ((1.0 - self.secure_aggregation.dropout) * f64::from(self.cohort.size) - 1e-6).ceil();
        (survivors as u32).max(1)
    }
}

fn within(key: &str, value: u32, least: u32, most: u32) -> Result<(), Fault> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Misuse::Setting { key: key.into(), why: format!("{value} is not between {least} and {most}") }.into())
}

fn positive(key: &str, value: f64) -> Result<(), Fault> {
    if value.is_finite() && value > 0.0 { Ok(()) } else { Err(setting(key, format!("{value} is not a positive number"))) }
}

fn share(key: &str, value: f64) -> Result<(), Fault> {
    if (0.0..1.0).contains(&value) { Ok(()) } else { Err(setting(key, format!("{value} is not in [0, 1)"))) }
}

fn wait(key: &str, span: Duration) -> Result<(), Fault> {
    if span.is_zero() || span > LONGEST {
        return Err(setting(key, format!("{} is not between 1ms and 30 days", humantime::format_duration(span))));
    }
    Ok(())
}
