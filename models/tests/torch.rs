//! The same graph, data, optimizer and start as in PyTorch give the same losses, step by step. What PyTorch found lies in
//! `tests/interop/torch`, beside the script that wrote it, and so do the graphs as both of its exporters write them.

use std::{fs, ops::ControlFlow, path::PathBuf};

use sapwood_models::{
    Dataset, Model, Role, Targets, Tensor, parameters,
    train::{Optimizer, TrainConfig, Trainer},
};

const EXAMPLES: usize = 48;
const CLASSES: i64 = 5;

/// As the script has them.
fn examples(shape: &[usize], tokens: bool) -> Dataset {
    let row: usize = shape.iter().product();
    let number = |k: usize| k * 7919 % 1000;
    let token = |k: usize| if k % row < 3 + k / row % 6 { 1 + number(k) % 11 } else { 0 };
    let value = |k: usize| if tokens { token(k) as f32 } else { ((number(k) as f64 - 500.0) / 250.0) as f32 };
    let labels = (0..EXAMPLES as i64).map(|i| (7 * i + i / 3) % CLASSES).collect();
    let x = (0..EXAMPLES * row).map(value).collect();
    Dataset { x: Tensor::f32([&[EXAMPLES], shape].concat(), x).unwrap().into(), y: Targets::Classes(labels) }
}

fn follows(name: &str, optimizer: Optimizer, lr: f32) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/torch");
    let curves: serde_json::Value = serde_json::from_str(&fs::read_to_string(folder.join("curves.json")).unwrap()).unwrap();
    let numbers = |key: &str| -> Vec<f64> { curves[name][key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect() };
    let shape: Vec<usize> = numbers("shape").iter().map(|extent| *extent as usize).collect();
    let (data, losses) = (examples(&shape, curves[name]["tokens"].as_bool().unwrap()), numbers("losses"));
    assert!(losses.len() >= 20 && losses[losses.len() - 1] < 0.8 * losses[0], "{name} learned nothing in PyTorch: {losses:?}");
    for exporter in ["legacy", "dynamo"] {
        let bytes = fs::read(folder.join(format!("{name}-{exporter}.onnx"))).unwrap();
        let model = Model::decode(&bytes).unwrap();
        // All examples in one step: their order does not count.
        let config = TrainConfig { optimizer, lr, batch: EXAMPLES, ..TrainConfig::default() };
        let mut trainer = Trainer::new(&model, config).unwrap_or_else(|error| panic!("{name}-{exporter}: {error}"));
        let trained = trainer.layout().parameters().iter().filter(|parameter| parameter.role.is_trained());
        let trained: usize = trained.map(|parameter| parameter.shape.iter().product::<usize>()).sum();
        assert_eq!(Some(trained as u64), curves[name]["parameters"].as_u64(), "{name}-{exporter}: trained parameters");
        let history = trainer.train(&data, losses.len(), 1, &mut |_| ControlFlow::Continue(())).unwrap();
        for (step, (ours, theirs)) in history.iter().zip(&losses).enumerate() {
            assert!(
                (ours.loss - theirs).abs() < 2e-3 * theirs.abs().max(0.1),
                "{name}-{exporter}, step {step}: {} for {theirs}",
                ours.loss
            );
        }
        let (ours, theirs) = (trainer.evaluate(&data).unwrap().loss, curves[name]["evaluated"].as_f64().unwrap());
        assert!((ours - theirs).abs() < 5e-3 * theirs.abs().max(0.1), "{name}-{exporter}, evaluated: {ours} for {theirs}");
    }
}

fn sgd() -> Optimizer {
    Optimizer::Sgd { momentum: 0.9, weight_decay: 0.0, nesterov: false }
}

#[test]
fn an_mlp_follows_pytorch() {
    follows("mlp", sgd(), 0.05);
}

/// Batch statistics, grouped convolutions, and running statistics in the evaluation.
#[test]
fn a_cnn_with_batch_normalization_follows_pytorch() {
    follows("cnn", sgd(), 0.05);
}

#[test]
fn an_lstm_follows_pytorch() {
    follows("lstm", Optimizer::adam(), 0.01);
}

#[test]
fn a_gru_of_both_directions_follows_pytorch() {
    follows("gru", Optimizer::adam(), 0.01);
}

#[test]
fn a_transformer_follows_pytorch() {
    follows("transformer", Optimizer::adam(), 0.003);
}

/// Tokens as integers, an embedding, and a mask of what is padding.
#[test]
fn a_transformer_that_reads_tokens_follows_pytorch() {
    follows("text", Optimizer::adam(), 0.003);
}

/// Every export can be trained by example once its running statistics stay, and one with batch normalization only then.
#[test]
fn exports_keep_the_examples_of_a_batch_apart() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/torch");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ext| ext == "onnx"));
    assert!(files.len() >= 12, "{files:?}");
    for file in files {
        let model = Model::decode(&fs::read(&file).unwrap()).unwrap();
        let all = parameters(&model, &[]).unwrap().0;
        let moving = all.parameters().iter().filter(|parameter| parameter.role == Role::Statistic);
        let freeze: Vec<String> = moving.map(|parameter| parameter.name.clone()).collect();
        let check = |freeze: &[String]| {
            let config = TrainConfig { freeze: freeze.to_vec(), ..TrainConfig::default() };
            Trainer::new(&model, config).unwrap().check_units()
        };
        check(&freeze).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(check(&[]).is_ok(), freeze.is_empty(), "{}", file.display());
    }
}
