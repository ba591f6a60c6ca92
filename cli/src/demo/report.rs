//! The judgement and the summary.

use std::path::PathBuf;

use serde_json::json;

use super::{
    stage::{EVALUATION, Setting},
    story::{Answered, Told},
};
use crate::output::{Answer, Exit, Failure, bytes, table};

/// The demo's own bar for the quantizer.
const MOST_IMAGES_LOST: u64 = 4;

/// Everything that is printed.
pub(super) struct Figures {
    pub(super) told: Told,
    pub(super) setting: Setting,
    pub(super) pooled: Option<f64>,
    /// Of the same run without noise.
    pub(super) noiseless: Option<f64>,
    pub(super) seconds: f64,
    pub(super) dir: Option<PathBuf>,
}

pub(super) fn report(figures: &Figures) -> Result<Answer, Failure> {
    let told = &figures.told;
    let data = data(figures);
    let text = text(figures);
    let faults = faults(told, figures.setting.least_accuracy());
    if faults.is_empty() {
        return Ok(Answer::new(data, text));
    }
    Err(Failure::new(Exit::Refused, format!("the demo did not hold:\n  {}\n\n{text}", faults.join("\n  "))).data(data))
}

/// What the demo asserts, and nothing else.
fn faults(told: &Told, least: f64) -> Vec<String> {
    let mut faults = Vec::new();
    let measured = &told.manifest.measured;
    let fp32 = measured.fp32_accuracy.unwrap_or_default();
    if fp32 < least {
        faults.push(format!("fp32 accuracy {fp32:.4} is below {least}"));
    }
    let int8 = measured.correct.unwrap_or_default();
    let lost = measured.fp32_correct.unwrap_or(u64::MAX).saturating_sub(int8);
    if lost > MOST_IMAGES_LOST {
        faults.push(format!("INT8 reads {lost} images fewer than fp32, more than {MOST_IMAGES_LOST}"));
    }
    for Answered { name, serving, healthy, right } in &told.nodes {
        if *serving != Some(told.release.digest) || !healthy {
            faults.push(format!("{name} does not serve the released digest in good health"));
        }
        if *right as u64 != int8 {
            faults.push(format!("{name} read {right} images over HTTP; the release was measured with {int8}"));
        }
    }
    faults
}

fn percentile(sorted: &[u64], p: f64) -> u64 {
    let index = ((sorted.len() as f64 - 1.0) * p).round();
    sorted.get(index as usize).copied().unwrap_or_default()
}

fn data(figures: &Figures) -> serde_json::Value {
    let Figures { told, setting, pooled, noiseless, seconds, dir } = figures;
    let (measured, privacy) = (&told.manifest.measured, &told.manifest.privacy);
    let budget = privacy.budget.as_ref();
    let mut data = json!({
        "seconds": seconds,
        "rounds": setting.rounds,
        "accuracy": {"federated_fp32": measured.fp32_accuracy, "federated_int8": measured.accuracy, "pooled_fp32": pooled,
            "noiseless_fp32": if budget.is_some() { *noiseless } else { measured.fp32_accuracy }},
        "size": {"fp32_bytes": measured.fp32_bytes, "int8_bytes": measured.bytes},
        "latency_us": {"p50": percentile(&told.latency_us, 0.5), "p99": percentile(&told.latency_us, 0.99)},
        "privacy": {"unit": privacy.unit, "secure_aggregation": privacy.secure_aggregation, "statement": told.run.privacy,
            "epsilon_coordinator": budget.and_then(|b| b.epsilon_coordinator), "epsilon_outsider": budget.map(|b| b.epsilon_outsider),
            "delta": budget.map(|b| b.delta), "adjacency": budget.map(|b| &b.adjacency),
            "noise_to_clip": told.run.spent.as_ref().map(|spent| spent.noise_to_clip)},
        "release": {"id": told.release.release, "digest": told.release.digest},
        "gates": told.release.gates,
        "images": told.images,
        "nodes": told.nodes.iter().map(|n| json!({"name": n.name, "serving_digest": n.serving, "healthy": n.healthy, "right": n.right})).collect::<Vec<_>>(),
        "rollout": told.rollout.outcome,
        "rounds_detail": told.run.rounds,
    });
    if let Some(dir) = dir {
        data["dir"] = json!(dir);
        data["release"]["manifest"] = json!(told.files.manifest);
        data["release"]["bundle"] = json!(told.files.bundle);
        data["release"]["public_key"] = json!(told.files.public_key);
    }
    data
}

fn text(figures: &Figures) -> String {
    let Figures { told, setting, pooled, noiseless, seconds, dir } = figures;
    let measured = &told.manifest.measured;
    let percent = |accuracy: Option<f64>| accuracy.map_or_else(|| "not measured".to_owned(), |a| format!("{a:.4}"));
    let size = |size: Option<u64>| size.map_or_else(|| "not measured".to_owned(), bytes);
    let images = told.images;
    // Where INT8 gains nothing, the float model is shipped.
    let shipped = if measured.left_out_int8_bytes.is_some() { "shipped float" } else { "INT8" };
    let mut lines = vec![
        String::new(),
        format!("{} rounds, release and rollout in {seconds:.1} s; {images} images of {EVALUATION}, none seen in training", setting.rounds),
        format!("accuracy   federated fp32 {}   federated {shipped} {}", percent(measured.fp32_accuracy), percent(measured.accuracy)),
    ];
    if let Some(noiseless) = noiseless {
        lines.push(format!("           without noise  {noiseless:.4}   (the same run, clipped alike)"));
    }
    if let Some(pooled) = pooled {
        lines.push(format!("           pooled fp32    {pooled:.4}   (the same model on all nodes' data in one place)"));
    }
    lines.push(format!("size       fp32 {}   {shipped} {}", size(measured.fp32_bytes), size(measured.bytes)));
    lines.push(format!(
        "latency    p50 {} µs   p99 {} µs   over HTTP, {} requests",
        percentile(&told.latency_us, 0.5),
        percentile(&told.latency_us, 0.99),
        told.latency_us.len(),
    ));
    lines.push(format!("privacy    {}", told.manifest.privacy.to_string().replace('\n', "\n           ")));
    if let Some(spent) = &told.run.spent {
        let what = if spent.noise_to_clip > 1.0 { ": an update is mostly noise" } else { "" };
        lines.push(format!("           a round's noise is {:.2} times as long as the clip norm{what}", spent.noise_to_clip));
    }
    lines.push(format!("release    {} {}", told.release.release, told.release.digest));
    let rows: Vec<_> = told
        .nodes
        .iter()
        .map(|n| {
            let serving = n.serving.map_or_else(|| "nothing".to_owned(), |d| d.short());
            vec![n.name.clone(), serving, if n.healthy { "healthy" } else { "NOT HEALTHY" }.to_owned(), format!("{}/{images}", n.right)]
        })
        .collect();
    lines.push(String::new());
    lines.push(table(&["node", "serving", "health", "right over HTTP"], &rows));
    lines.push(String::new());
    lines.push(go_on(told, dir.as_deref()));
    lines.join("\n")
}

/// How to verify with openssl, and how to go on with `--keep`.
fn go_on(told: &Told, dir: Option<&std::path::Path>) -> String {
    let Some(dir) = dir else {
        let bundle = told.files.bundle.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return format!(
            "nothing was left behind. With --keep the release stays, and openssl verifies it:\n  openssl dgst -sha256 -verify pub.pem -signature {bundle}.sig {bundle}"
        );
    };
    let files = &told.files;
    let verify = |path: &std::path::Path| {
        format!("  openssl dgst -sha256 -verify {} -signature {}.sig {}", files.public_key.display(), path.display(), path.display())
    };
    format!(
        "kept in {}; all keys lie there, so it is a trial, not a deployment. The coordinator was at {}.\nverify with openssl:\n{}\n{}\nverify with sapwood:\n  sapwood release verify {} --key {}\ngo on:\n  sapwood coordinator serve --config {}\n  sapwood run simulate {} --data digits:1-10 --partition column:block",
        dir.display(),
        files.coordinator,
        verify(&files.bundle),
        verify(&files.manifest),
        files.bundle.display(),
        files.public_key.display(),
        dir.join("farm/coordinator.toml").display(),
        dir.join("run.toml").display(),
    )
}
