//! How a round protects what its nodes send: the parts of [`super::Terms`] that name masks and noise.

use std::{borrow::Cow, time::Duration};

use sapwood_privacy::{
    Bits, Weighting,
    dp::{AdaptiveClip, Coordinate, Mechanism, Parameters, Plan, Request, Statistic, Trust, Unit},
    secagg,
};
use serde::{Deserialize, Serialize};

use super::Decline;

use crate::{
    canonical::Canonical,
    fault::{Fault, Misuse},
    spec::{AggregationProfile, MaskSuite, NoiseMechanism, PrivacyUnit, Spec, Weights},
    time::span,
};

/// What a statistic may add to the norm of a unit's vector: 0.1 costs half a percent of noise.
const SHARE: f64 = 0.1;
/// Bytes of one participant in the roll, of one neighbour's keys with its membership, and of the largest message made of them.
const ROLL_ENTRY: u64 = 64;
const NEIGHBOUR: u64 = 1024;
const MOST_MESSAGE: u64 = 1_000_000;
/// How fast the clip norm follows, as in the paper, and how far from the first one.
const CLIP_RATE: f64 = 0.2;
const CLIP_RANGE: f64 = 100.0;
/// Losses above this count as this.
const MOST_LOSS: f64 = 4.0;

/// How single updates are hidden.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecureTerms {
    /// What the coordinator may do.
    pub profile: AggregationProfile,
    /// δ in millionths.
    pub dropout_ppm: u32,
    /// γ in millionths.
    pub corruption_ppm: u32,
    /// Which cipher draws the masks.
    pub suite: MaskSuite,
    /// For each step behind key advertisement.
    #[serde(with = "span")]
    pub exchange: Duration,
}

impl SecureTerms {
    /// Those of a run.
    pub fn of(spec: &Spec) -> Self {
        let secure = &spec.secure_aggregation;
        let ppm = |share: f64| (share * 1e6).round() as u32;
        Self {
            profile: secure.profile,
            dropout_ppm: ppm(secure.dropout),
            corruption_ppm: ppm(secure.corruption),
            suite: secure.suite,
            exchange: spec.deadlines.exchange,
        }
    }

    /// Degree and threshold for `n` participants, never fewer than `minimum` in the sum.
    ///
    /// # Errors
    /// [`Misuse::Setting`] with what would be feasible.
    pub fn plan(&self, n: u32, minimum: u32) -> Result<secagg::Plan, Fault> {
        let dropout = self.rate("secure_aggregation.dropout", self.dropout_ppm)?;
        let corruption = self.rate("secure_aggregation.corruption", self.corruption_ppm)?;
        let plan = secagg::Plan::new(n, dropout, corruption, self.profile(), minimum).map_err(|fault| {
            setting("secure_aggregation", &format!("{fault}; or write mode = \"off\" and let the coordinator see each update"))
        })?;
        // Each node is told the whole roll, and its neighbours' keys with their memberships.
        let message = u64::from(n) * ROLL_ENTRY + u64::from(plan.degree()) * NEIGHBOUR;
        if message > MOST_MESSAGE {
            let why = format!("{n} nodes with {} neighbours each do not fit a message; ask fewer nodes in a round", plan.degree());
            return Err(setting("cohort.size", &why));
        }
        Ok(plan)
    }

    pub(super) fn rate(&self, key: &str, ppm: u32) -> Result<secagg::Rate, Fault> {
        secagg::Rate::from_ppm(ppm).ok_or_else(|| setting(key, "it is not a share below 1"))
    }

    pub(super) fn profile(&self) -> secagg::Profile {
        match self.profile {
            AggregationProfile::SemiMalicious => secagg::Profile::SemiMalicious,
            AggregationProfile::HonestButCurious => secagg::Profile::Curious,
        }
    }

    pub(super) fn suite(&self) -> secagg::Suite {
        match self.suite {
            MaskSuite::Aes256 => secagg::Suite::Aes256,
            MaskSuite::ChaCha20 => secagg::Suite::ChaCha20,
        }
    }

    pub(super) fn write(&self, to: Canonical) -> Canonical {
        to.str(self.profile.word())
            .u64(u64::from(self.dropout_ppm))
            .u64(u64::from(self.corruption_ppm))
            .str(self.suite.word())
            .u64(u64::try_from(self.exchange.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The noise of a round: [`Parameters`] as they travel. Both ends make the mechanism from them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoiseTerms {
    /// Whom it protects.
    pub unit: PrivacyUnit,
    /// Who adds it.
    pub mechanism: NoiseMechanism,
    /// c: largest L2 norm of one unit's contribution.
    pub clip: f64,
    /// Floats of an update.
    pub dimension: u64,
    /// Whether the loss travels behind the update, and whether the share of right answers does.
    pub reports: Vec<Report>,
    /// The clip norm follows this quantile; none: it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_quantile: Option<f64>,
    /// Weighted by examples up to so many; none: not weighted.
    pub example_cap: Option<u32>,
    /// b.
    pub bits: u8,
    /// Most nodes in a sum.
    pub nodes: u32,
    /// Fewest nodes in a sum.
    pub minimum: u32,
    /// Nodes that may tell the coordinator their noise.
    pub colluders: u32,
    /// Most units of a node.
    pub units_per_node: u32,
    /// What sums over units are divided by.
    pub divisor: f64,
    /// Fine units in a grid unit.
    pub step: u64,
    /// σ of a share, in grid units.
    pub sigma: u32,
    /// The column that tells entities apart.
    pub entity_key: Option<String>,
}

/// What a unit reports beside its update, clipped, noised and charged with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// Its mean loss, at most 4.
    Loss,
    /// The share of its examples that the model got right.
    Accuracy,
}

impl Report {
    fn statistic(self) -> Statistic {
        match self {
            Self::Loss => Statistic::Reported { name: "loss".into(), bound: MOST_LOSS },
            Self::Accuracy => Statistic::Reported { name: "accuracy".into(), bound: 1.0 },
        }
    }
    fn word(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Accuracy => "accuracy",
        }
    }
}

/// What a run's budget asks for, to be solved or shown.
///
/// # Errors
/// [`Misuse::Setting`].
pub fn request(spec: &Spec, dimension: u64) -> Result<Request, Fault> {
    let privacy = &spec.privacy;
    let unit = unit(privacy.unit).ok_or_else(|| setting("privacy.unit", "it is none: there is nothing to plan"))?;
    let per_unit = unit != Unit::Node;
    let mut coordinates: Vec<Coordinate> =
        reports(spec).into_iter().map(|report| Coordinate { statistic: report.statistic(), share: SHARE }).collect();
    coordinates.extend(spec.privacy.clip_quantile.map(within_clip));
    let weighting = weighting(spec);
    if weighting != Weighting::Uniform {
        coordinates.push(Coordinate { statistic: Statistic::Weight, share: 1.0 });
    }
    let bits =
        spec.secure_aggregation.bits.map(Bits::new).transpose().map_err(|fault| setting("secure_aggregation.bits", &fault.to_string()))?;
    Ok(Request {
        unit,
        trust: trust(privacy.mechanism),
        epsilon: privacy.epsilon,
        delta: privacy.delta,
        rounds: spec.train.rounds.saturating_add(spare_rounds(spec)),
        cohort: spec.cohort.size,
        dropout: spec.secure_aggregation.dropout,
        corruption: spec.secure_aggregation.corruption,
        dimension: usize::try_from(dimension).unwrap_or(usize::MAX),
        clip: privacy.clip,
        bits,
        coordinates,
        weighting,
        units_per_node: if per_unit { privacy.units_per_node } else { 1 },
        divisor: privacy.expected_units.unwrap_or(1.0),
    })
}

/// Rounds that may fail after they were charged.
pub fn spare_rounds(spec: &Spec) -> u32 {
    spec.privacy.spare_rounds.unwrap_or_else(|| spec.train.rounds.div_ceil(20).max(1))
}

/// Solves a run's budget.
///
/// # Errors
/// [`Misuse::Setting`] with what would make it feasible.
pub fn plan(spec: &Spec, dimension: u64) -> Result<Plan, Fault> {
    Plan::solve(&request(spec, dimension)?).map_err(|fault| setting("privacy", &fault.to_string()))
}

fn within_clip(quantile: f64) -> Coordinate {
    Coordinate { statistic: Statistic::WithinClip { quantile }, share: SHARE }
}

/// How a run's clip norm follows the norms that its units have; none if it stays.
///
/// # Errors
/// [`Misuse::Setting`].
pub(crate) fn adaptive(spec: &Spec) -> Result<Option<AdaptiveClip>, Fault> {
    let Some(quantile) = spec.privacy.clip_quantile.filter(|_| spec.is_private()) else { return Ok(None) };
    let first = spec.privacy.clip;
    let adaptive = AdaptiveClip::new(quantile, CLIP_RATE, first / CLIP_RANGE, first * CLIP_RANGE);
    adaptive.map(Some).map_err(|fault| setting("privacy.clip_quantile", &fault.to_string()))
}

fn reports(spec: &Spec) -> Vec<Report> {
    match (spec.privacy.unit, &spec.model.loss) {
        // At node level each statistic costs noise where there is none to spare.
        (PrivacyUnit::Node | PrivacyUnit::None, _) => Vec::new(),
        (_, loss) if loss.has_accuracy() => vec![Report::Loss, Report::Accuracy],
        (_, _) => vec![Report::Loss],
    }
}

fn weighting(spec: &Spec) -> Weighting {
    match spec.strategy.weights {
        Weights::Uniform => Weighting::Uniform,
        Weights::Examples => Weighting::Examples { cap: spec.strategy.example_cap },
    }
}

/// As the accounting knows it.
pub fn unit(unit: PrivacyUnit) -> Option<Unit> {
    match unit {
        PrivacyUnit::None => None,
        PrivacyUnit::Node => Some(Unit::Node),
        PrivacyUnit::Entity => Some(Unit::Entity),
        PrivacyUnit::Example => Some(Unit::Example),
    }
}

fn trust(mechanism: NoiseMechanism) -> Trust {
    match mechanism {
        NoiseMechanism::Distributed => Trust::Distributed,
        NoiseMechanism::Central => Trust::Central,
    }
}

impl NoiseTerms {
    /// Those of a run by its plan.
    pub fn of(spec: &Spec, plan: &Plan) -> Self {
        let p = &plan.parameters;
        Self {
            unit: spec.privacy.unit,
            mechanism: spec.privacy.mechanism,
            clip: plan.clip,
            dimension: p.dimension as u64,
            reports: reports(spec),
            clip_quantile: spec.privacy.clip_quantile,
            example_cap: match p.weighting {
                Weighting::Uniform => None,
                Weighting::Examples { cap } => Some(cap),
            },
            bits: p.bits.get(),
            nodes: p.nodes,
            minimum: p.minimum,
            colluders: p.colluders,
            units_per_node: p.units_per_node,
            divisor: p.divisor,
            step: p.step,
            sigma: p.sigma,
            entity_key: spec.privacy.entity_key.clone(),
        }
    }

    /// The mechanism, checked.
    ///
    /// # Errors
    /// [`Misuse::Setting`] for terms that contradict each other.
    pub fn mechanism(&self) -> Result<Mechanism, Fault> {
        let refuse = |why: String| setting("privacy", &why);
        check_key("privacy.entity_key", self.unit, self.entity_key.as_deref())?;
        let mut coordinates: Vec<Coordinate> =
            self.reports.iter().map(|report| Coordinate { statistic: report.statistic(), share: SHARE }).collect();
        coordinates.extend(self.clip_quantile.map(within_clip));
        let weighting = match self.example_cap {
            None => Weighting::Uniform,
            Some(cap) => {
                coordinates.push(Coordinate { statistic: Statistic::Weight, share: 1.0 });
                Weighting::Examples { cap }
            }
        };
        let parameters = Parameters {
            unit: unit(self.unit).ok_or_else(|| refuse("noise that protects nobody".into()))?,
            trust: trust(self.mechanism),
            dimension: usize::try_from(self.dimension).unwrap_or(usize::MAX),
            coordinates,
            weighting,
            bits: Bits::new(self.bits).map_err(|fault| refuse(fault.to_string()))?,
            nodes: self.nodes,
            minimum: self.minimum,
            colluders: self.colluders,
            units_per_node: self.units_per_node,
            divisor: self.divisor,
            step: self.step,
            sigma: self.sigma,
        };
        Mechanism::new(parameters, self.clip).map_err(|fault| refuse(fault.to_string()))
    }

    /// What a run with this noise costs and promises.
    ///
    /// # Errors
    /// As [`NoiseTerms::mechanism`].
    pub fn plan(&self, spec: &Spec) -> Result<Plan, Fault> {
        let rounds = spec.train.rounds.saturating_add(spare_rounds(spec));
        Plan::of(&self.mechanism()?, rounds, spec.privacy.delta).map_err(|fault| setting("privacy", &fault.to_string()))
    }

    /// What a unit reports, in order: its mean loss, and the share of its examples that the model got right.
    pub fn reported(&self, loss: f64, right: f64) -> Vec<f64> {
        let value = |report: &Report| match report {
            Report::Loss => loss,
            Report::Accuracy => right,
        };
        self.reports.iter().map(value).collect()
    }

    /// The rows of each unit of a node, of `rows` in all; `entities` are those of each entity.
    ///
    /// # Errors
    /// [`Decline::NoData`] if nothing tells entities apart, or there are more units than the noise was made for. To leave some out would let
    /// one unit decide about another.
    pub fn units<'a>(&self, rows: usize, entities: Option<&'a [Vec<usize>]>) -> Result<Cow<'a, [Vec<usize>]>, Decline> {
        let units = match (self.unit, entities) {
            (PrivacyUnit::Entity, None) => return Err(Decline::NoData { why: "nothing tells the entities of this node apart".into() }),
            (PrivacyUnit::Entity, Some(entities)) => Cow::Borrowed(entities),
            _ => Cow::Owned((0..rows).map(|row| vec![row]).collect()),
        };
        let most = self.units_per_node;
        if units.len() > most as usize {
            let why = format!("this node holds more than the {most} units that the run allows for a node; raise privacy.units_per_node");
            return Err(Decline::NoData { why });
        }
        Ok(units)
    }

    /// Whether a node clips each unit by itself and takes one step a round.
    pub fn is_per_unit(&self) -> bool {
        matches!(self.unit, PrivacyUnit::Entity | PrivacyUnit::Example)
    }

    pub(super) fn write(&self, to: Canonical) -> Canonical {
        to.str(self.unit.word())
            .str(self.mechanism.word())
            .f64(self.clip)
            .u64(self.dimension)
            .list(self.reports.iter(), |to, report| to.str(report.word()))
            .option(self.clip_quantile, Canonical::f64)
            .option(self.example_cap, |to, cap| to.u64(u64::from(cap)))
            .u64(u64::from(self.bits))
            .u64(u64::from(self.nodes))
            .u64(u64::from(self.minimum))
            .u64(u64::from(self.colluders))
            .u64(u64::from(self.units_per_node))
            .f64(self.divisor)
            .u64(self.step)
            .u64(u64::from(self.sigma))
            .option(self.entity_key.as_deref(), Canonical::str)
    }
}

/// Whether the unit entity has a column that tells entities apart, and no other unit has one. A name may be that of a file, so it leads
/// nowhere else.
///
/// # Errors
/// [`Misuse::Setting`].
pub(crate) fn check_key(setting_name: &str, unit: PrivacyUnit, key: Option<&str>) -> Result<(), Fault> {
    let setting = |why: &str| setting(setting_name, why);
    let plain =
        |name: &str| !name.is_empty() && name.len() <= 128 && !name.contains(|c: char| c.is_control() || matches!(c, '/' | '\\' | ':'));
    match (key, unit == PrivacyUnit::Entity) {
        (None, true) => Err(setting("name the column of each node's data whose values tell entities apart: \"customer\", say")),
        (Some(_), false) => Err(setting("it is for the unit entity only; leave it out")),
        (Some(name), true) if !plain(name) => {
            Err(setting(&format!("{name:?} is no name of a column: 1 to 128 bytes without slash, colon or control character")))
        }
        _ => Ok(()),
    }
}

pub(super) fn setting(key: &str, why: &str) -> Fault {
    Misuse::Setting { key: key.into(), why: why.into() }.into()
}
