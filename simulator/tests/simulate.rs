//! The simulator trains, repeats itself to the bit, and survives stragglers.

use std::num::NonZeroUsize;

use sapwood_data::digits;
use sapwood_models::{Dataset, onnx::Model, zoo};
use sapwood_protocol::spec::Spec;
use sapwood_simulator::{NodeData, Options, Outcome, SimulationError, concat, pooled, preprocess, simulate};

fn spec(rounds: u32, cohort: &str) -> Spec {
    let text = format!(
        "name = \"digits\"\nseed = 11\n[model]\nfile = \"mlp.onnx\"\n[train]\nrounds = {rounds}\nlocal_epochs = 2\nbatch = 16\nlr = 0.1\n\
         momentum = 0.9\n[secure_aggregation]\nmode = \"off\"\n[privacy]\nunit = \"none\"\n[cohort]\n{cohort}\n"
    );
    Spec::parse(&text).unwrap()
}

/// Form blocks `from` to `to`, each flat and scaled to 0..1 by the preprocessing graph.
fn blocks(from: usize, to: usize) -> Vec<Dataset> {
    let scale = zoo::scale(&[64], 1.0 / 16.0);
    let flat = |block: usize| {
        let mut data = digits::block(block);
        let x = data.x.only_mut().unwrap();
        x.shape = vec![x.shape[0], 64];
        preprocess(&scale, data).unwrap()
    };
    (from..=to).map(flat).collect()
}

fn model() -> Model {
    zoo::mlp(64, &[32], 10, 5)
}

fn go(spec: &Spec, nodes: Vec<Dataset>, threads: usize, drop: f64) -> Result<Outcome, SimulationError> {
    let evaluation = concat(&blocks(12, 14)).unwrap();
    let options = Options { threads: NonZeroUsize::new(threads).unwrap(), drop, loss: None };
    simulate(spec, &model(), nodes, Some(evaluation), &options, &mut |_| ())
}

/// Ten nodes with a form block each learn digits of other people, about as well as one place with all of them.
#[test]
fn a_federation_learns_digits() {
    let spec = spec(15, "size = 10");
    let nodes = blocks(1, 10);
    let twin = pooled(&spec, &model(), &nodes, Some(&concat(&blocks(12, 14)).unwrap())).unwrap();
    let mut seen = Vec::new();
    let evaluation = concat(&blocks(12, 14)).unwrap();
    let outcome = simulate(&spec, &model(), nodes, Some(evaluation), &Options::default(), &mut |round| seen.push(round.clone())).unwrap();

    assert_eq!((outcome.rounds.len(), seen.len()), (15, 15));
    let scores: Vec<f64> = outcome.rounds.iter().map(|round| round.evaluation.unwrap().accuracy.unwrap()).collect();
    assert!(scores[14] > 0.85 && scores[14] > scores[0], "{scores:?}");
    assert!(twin.evaluation.unwrap().accuracy.unwrap() > 0.85);
    assert_eq!(twin.epochs.len(), 30);
    assert!(seen.iter().all(|round| round.accuracy.is_some() && round.updates == 10 && round.bytes > 0 && round.seconds > 0.0));
    assert!(outcome.view.privacy.contains("in clear"));

    // The exported model is the one that was scored.
    let (_, exported) = sapwood_models::parameters(&outcome.model, &[]).unwrap();
    assert_eq!(exported, outcome.params);
}

/// Bit for bit, on any number of threads.
#[test]
fn the_outcome_does_not_depend_on_threads() {
    let spec = spec(3, "size = 3\nminimum = 2\nover_selection = 0.5");
    let one = go(&spec, blocks(1, 6), 1, 0.2).unwrap();
    for threads in [2, 5] {
        let more = go(&spec, blocks(1, 6), threads, 0.2).unwrap();
        assert_eq!(more.rounds, one.rounds);
        assert!(more.params.iter().zip(&one.params).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
    let other = Spec { seed: spec.seed + 1, ..spec };
    assert_ne!(go(&other, blocks(1, 6), 2, 0.2).unwrap().params, one.params);
}

/// Stragglers are dropped, rounds go on with who is left; if nobody ever answers the run says so.
#[test]
fn stragglers_are_seen() {
    let spec = spec(4, "size = 6\nminimum = 2");
    let outcome = go(&spec, blocks(1, 6), 2, 0.3).unwrap();
    assert!(outcome.rounds.iter().any(|round| !round.dropped.is_empty()));
    assert!(outcome.rounds.iter().all(|round| round.totals.nodes as usize + round.dropped.len() == 6));
    let Err(error) = go(&spec, blocks(1, 6), 2, 1.0) else { panic!("nobody answered") };
    assert!(error.to_string().contains("round 1 failed 5 times"), "{error}");
}

/// A node whose data is bad declines; it costs the node the round, not the run.
#[test]
fn bad_data_costs_the_node_the_round() {
    let mut nodes = blocks(1, 3);
    let sapwood_models::TensorData::F32(values) = &mut nodes[1].x.only_mut().unwrap().data else { unreachable!() };
    values[5] = f32::NAN;
    let outcome = go(&spec(2, "size = 3\nminimum = 2"), nodes, 2, 0.0).unwrap();
    for round in &outcome.rounds {
        assert_eq!(round.totals.nodes, 2);
        assert!(round.dropped[0].1.to_string().contains("row 0, column 5"), "{:?}", round.dropped);
    }
}

#[test]
fn what_cannot_be_simulated_is_refused() {
    let refused = |spec: &Spec, nodes, drop| go(spec, nodes, 1, drop).err().expect("refused");
    assert!(matches!(refused(&spec(1, "size = 3"), blocks(1, 2), 0.0), SimulationError::TooFewNodes { have: 2, need: 3 }));
    assert!(matches!(refused(&spec(1, "size = 1"), blocks(1, 1), f64::NAN), SimulationError::Drop { .. }));
    let raw = vec![digits::block(1)];
    let shape = refused(&spec(1, "size = 1"), raw, 0.0).to_string();
    assert!(shape.contains("round 1 failed"), "{shape}");
    assert!(matches!(concat(&[]), Err(SimulationError::NoData)));
    let mixed = [blocks(1, 1).remove(0), digits::block(2)];
    assert!(matches!(concat(&mixed), Err(SimulationError::Shapes { index: 1 })));
}

/// Rows with one key count as one unit: with a key for each row that is the run whose unit is the example, bit for bit.
/// A round's rate moves what its nodes send, and a rate that is the same all along moves nothing.
#[test]
fn the_learning_rate_follows_its_schedule() {
    let with = |lines: &str| {
        let text = format!(
            "name = \"digits\"\nseed = 11\n[model]\nfile = \"mlp.onnx\"\n[train]\nrounds = 3\nlr = 0.1\n{lines}\n[secure_aggregation]\n\
             mode = \"off\"\n[privacy]\nunit = \"none\"\n[cohort]\nsize = 2\n"
        );
        go(&Spec::parse(&text).unwrap(), blocks(1, 2), 2, 0.0).unwrap().rounds
    };
    let (plain, constant, falling) = (with(""), with("schedule = \"constant\""), with("schedule = \"step:1:0.1\""));
    let loss = |rounds: &[sapwood_protocol::run::RoundRecord], i: usize| rounds[i].evaluation.unwrap().loss.unwrap();
    assert_eq!(plain, constant);
    assert_eq!(loss(&plain, 0), loss(&falling, 0), "the first round has the whole rate");
    let moved = |rounds: &[sapwood_protocol::run::RoundRecord]| loss(rounds, 1) - loss(rounds, 2);
    assert!(moved(&falling).abs() < 0.2 * moved(&plain).abs(), "{} of {}", moved(&falling), moved(&plain));
    assert_ne!(loss(&plain, 0), loss(&with("warmup = 2"), 0));
}

/// A loss that is spelled out trains as the one that has a name, in clear and by example.
#[test]
fn a_loss_graph_is_as_good_as_a_name() {
    let with = |loss: &str, graph: Option<Model>| {
        let text = format!(
            "name = \"digits\"\nseed = 11\n[model]\nfile = \"mlp.onnx\"\nloss = \"{loss}\"\n[train]\nrounds = 3\nlr = 0.1\n\
             [secure_aggregation]\nmode = \"off\"\n[privacy]\nunit = \"none\"\n[cohort]\nsize = 2\n"
        );
        let options = Options { loss: graph, ..Options::default() };
        let evaluation = concat(&blocks(12, 14)).unwrap();
        simulate(&Spec::parse(&text).unwrap(), &model(), blocks(1, 2), Some(evaluation), &options, &mut |_| ())
    };
    let named = with("cross_entropy", None).unwrap();
    let own = with("mine.onnx", Some(zoo::cross_entropy())).unwrap();
    for (a, b) in own.rounds.iter().zip(&named.rounds) {
        let (a, b) = (a.evaluation.unwrap(), b.evaluation.unwrap());
        assert!((a.loss.unwrap() - b.loss.unwrap()).abs() < 1e-4 && a.accuracy == b.accuracy, "{a:?} {b:?}");
    }
    assert!(matches!(with("mine.onnx", None), Err(SimulationError::Model(_))));
}

#[test]
fn entities_are_units() {
    type Grouped = fn(usize) -> Vec<Vec<usize>>;
    let run = |unit: &str, entities: Option<Grouped>| {
        let text = format!(
            "name = \"digits\"\nseed = 11\n[model]\nfile = \"mlp.onnx\"\n[train]\nrounds = 2\nlr = 5.0\n[cohort]\nsize = 6\n\
             [privacy]\nexpected_units = 780\n{unit}\n"
        );
        let node = |data: Dataset| NodeData { entities: entities.map(|of| of(data.len())), data };
        let nodes: Vec<NodeData> = blocks(1, 6).into_iter().map(node).collect();
        simulate(&Spec::parse(&text).unwrap(), &model(), nodes, None, &Options::default(), &mut |_| ())
    };
    let entity = "unit = \"entity\"\nentity_key = \"customer\"";
    let examples = run("", None).unwrap().params;
    assert!(run(entity, Some(|rows| (0..rows).map(|row| vec![row]).collect())).unwrap().params == examples);
    let pairs = run(entity, Some(|rows| (0..rows).collect::<Vec<_>>().chunks(2).map(<[usize]>::to_vec).collect())).unwrap();
    assert!(pairs.params != examples && pairs.view.privacy.contains("for each entity"), "{}", pairs.view.privacy);
    let Err(nobody) = run(entity, None) else { panic!("nothing tells them apart") };
    assert!(nobody.to_string().contains("apart"), "{nobody}");
}
