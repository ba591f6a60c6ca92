//! The workshop with real models and real files.

use std::path::Path;

use sapwood_data::save_npy;
use sapwood_failpoint::Hook;
use sapwood_models::{Dataset, Model, Targets, Tensor, zoo};
use sapwood_protocol::{
    SessionId, Timestamp,
    round::{NoiseTerms, OptimizerTerms, TrainTerms, plan},
    spec::{LabelSpec, Loss, OptimizerKind, Spec, Weights},
};

use super::*;
use crate::testing::node;

const INPUTS: usize = 4;
const ROWS: usize = 40;

pub(crate) fn model() -> Model {
    zoo::mlp(INPUTS, &[8], 3, 1)
}

pub(crate) fn terms(model: &[u8], length: usize, lr: f64) -> Terms {
    Terms {
        run: "r1".parse().unwrap(),
        round: 1,
        attempt: 1,
        session: SessionId::new([1; 32]),
        cohort: vec![node()],
        size: 1,
        minimum: 1,
        model: Digest::of(model),
        preprocess: None,
        schema: None,
        params: Digest::of(b"parameters"),
        length: length as u64,
        secure: None,
        noise: None,
        encoding: EncodingTerms { clip: 10.0, bits: 32, nodes: 10, weights: Weights::Examples, example_cap: 1000 },
        train: TrainTerms {
            seed: 7,
            source: None,
            loss: Loss::default(),
            labels: LabelSpec::default(),
            freeze: Vec::new(),
            local_epochs: 2,
            batch: 8,
            optimizer: OptimizerTerms {
                kind: OptimizerKind::Sgd,
                momentum: 0.9,
                nesterov: false,
                weight_decay: 0.0,
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
            },
            lr,
        },
        opened: Timestamp::from_millis(0),
        deadline: Timestamp::from_millis(1),
    }
}

fn job(lr: f64) -> Job {
    let model = model();
    let (layout, params) = sapwood_models::parameters(&model, &[]).unwrap();
    let bytes = model.encode();
    let terms = terms(&bytes, layout.length(), lr);
    Job { terms, node: node(), params, objects: Objects { model: Some(bytes), ..Objects::default() }, cancel: Cancel::default() }
}

/// Three clusters; `spoil` may change the features first.
pub(crate) fn write_data(folder: &Path, spoil: impl FnOnce(&mut Vec<f32>)) {
    let mut x: Vec<f32> = (0..ROWS * INPUTS).map(|i| ((i / INPUTS % 3) as f32) - 1.0 + (i * 37 % 11) as f32 / 50.0).collect();
    spoil(&mut x);
    let y = (0..ROWS).map(|row| (row % 3) as i64).collect();
    save_npy(folder, &Dataset { x: Tensor::f32([ROWS, INPUTS], x).unwrap().into(), y: Targets::Classes(y) }).unwrap();
}

pub(crate) fn data(folder: &Path) -> DataSet {
    DataSet { name: None, source: sapwood_data::Source::Path(folder.to_owned()), schema: None }
}

fn workshop(folder: &Path, threads: usize) -> Workshop {
    Workshop::new(Budget { threads, memory: 1 << 30, nice: 0 }, Kind::Model, Some(data(folder))).unwrap()
}

async fn train(workshop: &Workshop, job: Job) -> Result<Trained, Failure> {
    workshop.bench().await.train(job).await
}

fn declined(result: Result<Trained, Failure>) -> Decline {
    match result {
        Err(Failure::Decline(reason)) => reason,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it trained"),
    }
}

/// The same task gives the same bytes on any number of threads, in a new process or in one that has trained before.
#[tokio::test]
async fn training_is_deterministic() {
    let dir = tempfile::tempdir().unwrap();
    write_data(dir.path(), |_| ());
    let (one, two) = (workshop(dir.path(), 1), workshop(dir.path(), 2));
    let first = train(&one, job(0.05)).await.unwrap();
    assert_eq!(first.contribution().examples, ROWS as u64);
    assert!(first.contribution().correct.unwrap() <= ROWS as u64 && first.contribution().loss > 0.0);
    assert!(matches!(&first.update, Update::Vector(update) if update.iter().any(|v| *v != 0.0)));
    for again in [&one, &two] {
        assert_eq!(train(again, job(0.05)).await.unwrap().digest(), first.digest());
    }
    let mut other = job(0.05);
    other.node = "store-018".parse().unwrap();
    assert_ne!(train(&one, other).await.unwrap().digest(), first.digest(), "each node has its own order of examples");
}

/// The learning rate of a round asks for no other model, and is that of the round.
#[tokio::test]
async fn a_learning_rate_moves_without_another_model() {
    let dir = tempfile::tempdir().unwrap();
    write_data(dir.path(), |_| ());
    let (kept, fresh) = (workshop(dir.path(), 1), workshop(dir.path(), 1));
    let first = train(&kept, job(0.05)).await.unwrap();
    let mut second = job(0.01);
    assert_eq!(kept.bench().await.missing(&second.terms), Missing::default());
    second.objects = Objects::default();
    let slower = train(&kept, second).await.unwrap();
    assert_ne!(slower.digest(), first.digest());
    assert_eq!(slower.digest(), train(&fresh, job(0.01)).await.unwrap().digest());
    for lr in [0.0, -0.1, f64::NAN, f64::INFINITY, 1e300] {
        let refused = declined(train(&kept, job(lr)).await);
        assert!(matches!(&refused, Decline::Model { why } if why.contains("lr")), "{lr}: {refused}");
    }
}

/// A loss graph comes by its digest, once, and is another way of training.
#[tokio::test]
async fn a_loss_graph_comes_with_the_task() {
    let dir = tempfile::tempdir().unwrap();
    write_data(dir.path(), |_| ());
    let workshop = workshop(dir.path(), 1);
    let graph = zoo::cross_entropy().encode();
    let with = |bytes: Option<&[u8]>| {
        let mut job = job(0.05);
        job.terms.train.loss = Digest::of(&graph).into();
        job.objects.loss = bytes.map(<[u8]>::to_vec);
        job
    };
    let missing = workshop.bench().await.missing(&with(None).terms);
    assert!(missing.loss && missing.model);
    let Decline::Model { why } = declined(train(&workshop, with(None)).await) else { panic!("another reason") };
    assert!(why.contains("loss graph did not come"), "{why}");
    let plain = train(&workshop, job(0.05)).await.unwrap();
    assert!(workshop.bench().await.missing(&with(None).terms).model, "another loss is another way of training");
    let own = train(&workshop, with(Some(&graph))).await.unwrap();
    assert_eq!(workshop.bench().await.missing(&with(None).terms), Missing::default());
    assert!((own.contribution().loss - plain.contribution().loss).abs() < 1e-5);
    assert_eq!(own.contribution().correct, plain.contribution().correct);
    let no_loss = zoo::scale(&[3], 1.0).encode();
    let mut bad = with(Some(&no_loss));
    bad.terms.train.loss = Digest::of(&no_loss).into();
    let Decline::Model { why } = declined(train(&workshop, bad).await) else { panic!("another reason") };
    assert!(why.contains("the loss graph cannot be used") && why.contains("reads `output` and `target`"), "{why}");
}

/// A model is compiled once, and asked for once.
#[tokio::test]
async fn the_model_is_kept_between_rounds() {
    let dir = tempfile::tempdir().unwrap();
    write_data(dir.path(), |_| ());
    let workshop = workshop(dir.path(), 1);
    let terms = job(0.05).terms;
    assert!(workshop.bench().await.missing(&terms).model);
    train(&workshop, job(0.05)).await.unwrap();
    assert_eq!(workshop.bench().await.missing(&terms), Missing::default());
    let mut second = job(0.05);
    second.objects = Objects::default();
    train(&workshop, second).await.unwrap();
    let mut other = job(0.05).terms;
    other.train.batch += 1;
    assert!(workshop.bench().await.missing(&other).model, "another batch is another way of training");
}

/// A bad file is named with row and column and costs the round; mended, it costs nothing more.
#[tokio::test]
async fn bad_data_is_named_and_good_data_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let workshop = workshop(dir.path(), 1);
    assert!(matches!(declined(train(&workshop, job(0.05)).await), Decline::NoData { .. }));
    for value in [f32::NAN, f32::INFINITY] {
        write_data(dir.path(), |x| x[5 * INPUTS + 2] = value);
        let reason = declined(train(&workshop, job(0.05)).await);
        let Decline::BadData { why } = &reason else { panic!("{reason}") };
        assert!(why.contains("row 5") && why.contains("column 2") && why.contains(&dir.path().display().to_string()), "{why}");
    }
    write_data(dir.path(), |_| ());
    assert!(train(&workshop, job(0.05)).await.is_ok());
    // It is noticed also when it breaks again between two rounds.
    write_data(dir.path(), |x| x[0] = f32::NAN);
    assert!(matches!(declined(train(&workshop, job(0.05)).await), Decline::BadData { .. }));
}

#[tokio::test]
async fn labels_and_shapes_that_do_not_fit_the_model_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let workshop = workshop(dir.path(), 1);
    let mut labels: Vec<i64> = vec![0; ROWS];
    labels[11] = 3;
    let x = Tensor::f32([ROWS, INPUTS], vec![0.5; ROWS * INPUTS]).unwrap();
    save_npy(dir.path(), &Dataset { x: x.into(), y: Targets::Classes(labels) }).unwrap();
    let reason = declined(train(&workshop, job(0.05)).await);
    assert!(matches!(&reason, Decline::BadData { why } if why.contains("11")), "{reason}");
    let x = Tensor::f32([ROWS, INPUTS + 1], vec![0.5; ROWS * (INPUTS + 1)]).unwrap();
    save_npy(dir.path(), &Dataset { x: x.into(), y: Targets::Classes(vec![0; ROWS]) }).unwrap();
    let reason = declined(train(&workshop, job(0.05)).await);
    assert!(matches!(&reason, Decline::BadData { why } if why.contains("shape")), "{reason}");
}

#[tokio::test]
async fn divergence_names_the_tensor_and_the_step() {
    let dir = tempfile::tempdir().unwrap();
    write_data(dir.path(), |_| ());
    let workshop = workshop(dir.path(), 1);
    let reason = declined(train(&workshop, job(1e30)).await);
    let Decline::Diverged { why } = &reason else { panic!("{reason}") };
    assert!(why.contains("epoch") && why.contains("step") && why.contains('`'), "{why}");
    assert!(train(&workshop, job(0.05)).await.is_ok(), "the workshop is none the worse for it");
}

#[tokio::test]
async fn a_job_beyond_the_budget_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    write_data(dir.path(), |_| ());
    let budget = Budget { threads: 1, memory: 2000, nice: 0 };
    let workshop = Workshop::new(budget, Kind::Model, Some(data(dir.path()))).unwrap();
    let reason = declined(train(&workshop, job(0.05)).await);
    assert!(matches!(&reason, Decline::Resources { why } if why.contains("train.memory")), "{reason}");
    // Terms that announce absurd lengths are refused before a byte is fetched.
    let mut absurd = job(0.05).terms;
    absurd.length = u64::MAX;
    assert!(matches!(workshop.bench().await.check(&absurd), Err(Decline::Resources { .. })));
}

#[tokio::test]
async fn what_this_node_does_not_have_is_declined() {
    let dir = tempfile::tempdir().unwrap();
    write_data(dir.path(), |_| ());
    let mut asks = job(0.05);
    asks.terms.train.source = Some("receipts".into());
    let reason = declined(train(&workshop(dir.path(), 1), asks).await);
    assert!(matches!(&reason, Decline::NoData { why } if why.contains("receipts")), "{reason}");
    let mut set = data(dir.path());
    set.name = Some("receipts".into());
    let mut asks = job(0.05);
    asks.terms.train.source = Some("receipts".into());
    let budget = Budget { threads: 1, memory: 1 << 30, nice: 0 };
    assert!(train(&Workshop::new(budget, Kind::Model, Some(set)).unwrap(), asks).await.is_ok());
    let serves_only = Workshop::new(budget, Kind::Model, None).unwrap();
    assert!(matches!(declined(train(&serves_only, job(0.05)).await), Decline::NoData { .. }));
}

#[tokio::test]
async fn a_model_that_is_none_or_another_is_declined() {
    let dir = tempfile::tempdir().unwrap();
    write_data(dir.path(), |_| ());
    let workshop = workshop(dir.path(), 1);
    let mut bad = job(0.05);
    bad.objects.model = Some(b"no model".to_vec());
    assert!(matches!(declined(train(&workshop, bad).await), Decline::Model { .. }));
    let mut short = job(0.05);
    short.terms.length -= 1;
    assert!(matches!(declined(train(&workshop, short).await), Decline::Model { .. }));
}

/// Preprocessing is applied once, and again when the data changes.
#[tokio::test]
async fn preprocessing_comes_before_the_model() {
    let dir = tempfile::tempdir().unwrap();
    write_data(dir.path(), |_| ());
    let workshop = workshop(dir.path(), 1);
    let plain = train(&workshop, job(0.05)).await.unwrap();
    let scaled = |factor: f32| {
        let graph = zoo::scale(&[INPUTS], factor).encode();
        let mut job = job(0.05);
        job.terms.preprocess = Some(Digest::of(&graph));
        job.objects.preprocess = Some(graph);
        job
    };
    assert_eq!(train(&workshop, scaled(1.0)).await.unwrap().digest(), plain.digest());
    let half = train(&workshop, scaled(0.5)).await.unwrap();
    assert_ne!(half.digest(), plain.digest());
    write_data(dir.path(), |x| x.iter_mut().for_each(|v| *v *= 0.5));
    assert_eq!(train(&workshop, scaled(1.0)).await.unwrap().digest(), half.digest());
}

#[tokio::test]
async fn a_cancelled_job_ends_and_frees_the_bench() {
    let dir = tempfile::tempdir().unwrap();
    write_data(dir.path(), |_| ());
    let workshop = workshop(dir.path(), 1);
    let cancelled = job(0.05);
    cancelled.cancel.cancel();
    assert!(matches!(train(&workshop, cancelled).await, Err(Failure::Cancelled)));
    assert!(train(&workshop, job(0.05)).await.is_ok());
}

#[tokio::test]
async fn a_kill_in_the_middle_of_training_is_not_a_decline() {
    let dir = tempfile::tempdir().unwrap();
    write_data(dir.path(), |_| ());
    let workshop = workshop(dir.path(), 1);
    let killed = Hook::kill_at(crate::points::TRAINING.name(), 3).scope(train(&workshop, job(0.05))).await;
    assert!(matches!(killed, Err(Failure::Killed(_))));
}

/// Bench only: right length, shorter than the clip norm, another for each node and round.
#[tokio::test]
async fn random_updates_are_distinct_and_need_no_data() {
    let workshop = Workshop::new(Budget { threads: 1, memory: 0, nice: 0 }, Kind::Random, None).unwrap();
    let random = |node: &str, round| {
        let mut job = job(0.05);
        (job.node, job.terms.round) = (node.parse().unwrap(), round);
        job.objects = Objects::default();
        job
    };
    let first = train(&workshop, random("a", 1)).await.unwrap();
    let Update::Vector(update) = &first.update else { panic!("a vector") };
    assert_eq!(update.len() as u64, job(0.05).terms.length);
    let norm = update.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    assert!((1.0..10.0).contains(&norm), "{norm}");
    for (node, round) in [("b", 1), ("a", 2)] {
        assert_ne!(train(&workshop, random(node, round)).await.unwrap().digest(), first.digest());
    }
}

/// Another attempt may have another grid; the update is the same.
#[tokio::test]
async fn an_update_is_encoded_again_only_for_other_terms() {
    let dir = tempfile::tempdir().unwrap();
    write_data(dir.path(), |_| ());
    let trained = train(&workshop(dir.path(), 1), job(0.05)).await.unwrap();
    let terms = job(0.05).terms;
    let first = trained.encoded(&terms).unwrap();
    assert_eq!(first.bytes.len(), terms.update_bytes().unwrap());
    assert_eq!(trained.encoded(&terms).unwrap().bytes.as_ptr(), first.bytes.as_ptr());
    let mut coarser = terms.clone();
    coarser.encoding.bits = 24;
    assert!(trained.encoded(&coarser).unwrap().bytes.len() < first.bytes.len());
    assert_eq!(trained.encoded(&terms).unwrap().digest, first.digest);
}

/// A task under a budget for entities that `customer` tells apart; `most` of them to a node.
fn keyed_job(unit: &str, most: u32) -> Job {
    let mut job = job(0.05);
    let key = if unit == "entity" { "entity_key = \"customer\"" } else { "" };
    let privacy = format!("[privacy]\nunit = {unit:?}\nunits_per_node = {most}\nexpected_units = 600\n{key}\n");
    let spec = Spec::parse(&format!("[model]\nfile = \"m\"\n[cohort]\nsize = 6\n{privacy}")).unwrap();
    job.terms.noise = Some(NoiseTerms::of(&spec, &plan(&spec, job.terms.length).unwrap()));
    (job.terms.size, job.terms.minimum) = (spec.cohort.size, spec.cohort.minimum);
    job
}

/// What a node would send, with noise that is always the same.
fn share(trained: &Trained, terms: &Terms) -> Vec<u8> {
    let (Update::Units(sum), Codec::Noised(mechanism)) = (&trained.update, terms.codec().unwrap()) else { panic!("no sum of units") };
    let seed = NoiseSeed::draw(|seed| {
        seed.fill(7);
        Ok::<_, ()>(())
    });
    mechanism.encode_units(sum, terms.rotation(), seed.unwrap()).unwrap().pack()
}

/// The rows of one customer are clipped together: with one row each, customers are examples; with more, there are fewer units, and the
/// bound on a node's units counts them.
#[tokio::test]
async fn rows_with_one_key_are_one_unit() {
    let dir = tempfile::tempdir().unwrap();
    write_data(dir.path(), |_| ());
    let shop = workshop(dir.path(), 1);
    let examples = keyed_job("example", 1000);
    let terms = examples.terms.clone();
    let examples = share(&train(&shop, examples).await.unwrap(), &terms);

    let refused = declined(train(&shop, keyed_job("entity", 1000)).await);
    assert!(matches!(&refused, Decline::NoData { why } if why.contains("`customer`")), "{refused:?}");
    let customers = |of: fn(usize) -> i64| {
        let y = Targets::Classes((0..ROWS).map(of).collect());
        let folder = dir.path().join("customers");
        save_npy(&folder, &Dataset { x: Tensor::f32([ROWS, 1], vec![0.0; ROWS]).unwrap().into(), y }).unwrap();
        std::fs::rename(folder.join("y.npy"), dir.path().join("customer.npy")).unwrap();
    };
    customers(|row| row as i64 * 3);
    let alone = train(&shop, keyed_job("entity", 1000)).await.unwrap();
    assert!(share(&alone, &terms) == examples, "one row each");
    customers(|row| row as i64 % 5);
    let shared = train(&shop, keyed_job("entity", 5)).await.unwrap();
    let Update::Units(sum) = &shared.update else { panic!("no sum of units") };
    assert_eq!(sum.units(), 5);
    assert!(share(&shared, &terms) != examples);
    let refused = declined(train(&shop, keyed_job("entity", 4)).await);
    assert!(matches!(&refused, Decline::NoData { why } if why.contains("more than the 4 units")), "{refused:?}");
}

/// Each time an update is encoded it carries a noise of its own, of the size that the terms say: what two encodings of one update differ
/// by is two draws. Half the noise, or the same noise twice, would be noticed.
#[tokio::test]
async fn noise_is_drawn_anew_for_each_encoding() {
    let dir = tempfile::tempdir().unwrap();
    write_data(dir.path(), |_| ());
    let job = keyed_job("example", 1000);
    let terms = job.terms.clone();
    let trained = train(&workshop(dir.path(), 1), job).await.unwrap();
    let noise = terms.noise.as_ref().unwrap();
    let (sigma, modulus) = (f64::from(noise.sigma), 1i64 << noise.bits);
    let (mut squares, mut count) = (0.0, 0.0);
    for _ in 0..50 {
        let (one, two) = (trained.lanes(&terms).unwrap(), trained.lanes(&terms).unwrap());
        assert!(*one != *two);
        for (a, b) in one.iter().zip(two.iter()) {
            let difference = (i64::from(*a) - i64::from(*b)).rem_euclid(modulus);
            let centred = if difference >= modulus / 2 { difference - modulus } else { difference } as f64;
            squares += centred * centred;
            count += 1.0;
        }
    }
    // A relative deviation of sqrt(2/count); rounding by a dither adds at most half a square unit.
    let (ratio, deviation) = (squares / count / (2.0 * sigma * sigma), (2.0f64 / count).sqrt());
    assert!((ratio - 1.0).abs() < 5.0 * deviation + 0.5 / (sigma * sigma), "{ratio} of the variance, {count} draws");
    assert_ne!(trained.encoded(&terms).unwrap().digest, trained.encoded(&terms).unwrap().digest);
}
