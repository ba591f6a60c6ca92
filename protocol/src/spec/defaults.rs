//! Defaults that run.

use std::time::Duration;

use super::*;

impl Default for Spec {
    fn default() -> Self {
        Self {
            name: "run".into(),
            seed: 0,
            model: ModelSpec::default(),
            data: DataSpec::default(),
            train: TrainSpec::default(),
            strategy: StrategySpec::default(),
            cohort: CohortSpec::default(),
            secure_aggregation: SecureAggregationSpec::default(),
            privacy: PrivacySpec::default(),
            deadlines: DeadlineSpec::default(),
            evaluate: EvaluateSpec::default(),
            release: ReleaseSpec::default(),
        }
    }
}

impl Default for TrainSpec {
    fn default() -> Self {
        Self {
            rounds: 10,
            local_epochs: 1,
            batch: 32,
            optimizer: OptimizerKind::Sgd,
            lr: 0.05,
            schedule: Schedule::Constant,
            warmup: 0,
            momentum: 0.0,
            nesterov: false,
            weight_decay: 0.0,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
        }
    }
}

impl Default for StrategySpec {
    fn default() -> Self {
        Self { kind: StrategyKind::FedAvg, weights: Weights::Examples, example_cap: 10_000, server_lr: 1.0 }
    }
}

impl Default for CohortSpec {
    fn default() -> Self {
        Self { size: 10, minimum: 10, over_selection: 0.0, sampling: Sampling::Uniform }
    }
}

impl Default for SecureAggregationSpec {
    fn default() -> Self {
        Self {
            mode: SecureAggregationMode::On,
            profile: AggregationProfile::SemiMalicious,
            dropout: 0.1,
            corruption: 0.05,
            suite: MaskSuite::Aes256,
            bits: None,
        }
    }
}

impl Default for PrivacySpec {
    fn default() -> Self {
        Self {
            unit: PrivacyUnit::Example,
            epsilon: 8.0,
            delta: 1e-5,
            clip: 1.0,
            clip_quantile: None,
            mechanism: NoiseMechanism::Distributed,
            expected_units: None,
            units_per_node: 1024,
            entity_key: None,
            spare_rounds: None,
        }
    }
}

impl Default for DeadlineSpec {
    fn default() -> Self {
        Self { select: Duration::from_secs(60), round: Duration::from_secs(600), exchange: Duration::from_secs(60), attempts: 5 }
    }
}

impl Default for EvaluateSpec {
    fn default() -> Self {
        Self { data: None, every: 1 }
    }
}

impl Default for ReleaseSpec {
    fn default() -> Self {
        Self {
            auto: true,
            use_case: "unspecified".into(),
            calibration: None,
            postprocess: PostprocessSpec::default(),
            golden: 8,
            rings: ["lab", "canary", "region", "global"].map(String::from).into(),
            soak: Duration::from_secs(60),
            health_timeout: Duration::from_secs(300),
            gates: Gates::default(),
        }
    }
}
