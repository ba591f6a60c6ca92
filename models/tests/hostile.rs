//! Models that nobody meant well: whatever the bytes, to decode, inspect, compile, run and train them by a first step neither
//! panics nor hangs, nor takes more memory than a bound.
//!
//! The program starts itself again under `ulimit`: address space and processor time are then bounded by the system, and whatever
//! ends that process (a panic, an overflowing stack, a failed allocation, a loop without end) fails the test. The cases are
//! [`named`] ones, each an attack, and models of the zoo (and of the ONNX project, where `SAPWOOD_ONNX_CASES` names them) that are
//! changed at random, in their bytes and in their structure. The seed is fixed, so a case that fails fails again; it is printed
//! before it runs where `SAPWOOD_HOSTILE_TRACE` is set.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what was tried is told")]

#[path = "hostile/mutation.rs"]
mod mutation;
#[path = "hostile/named.rs"]
mod named;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, panic};

use prost::Message as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use sapwood_models::interpreter::unsupported;
use sapwood_models::onnx::{Dim, Element, Limits, Model, ValueInfo, pb};
use sapwood_models::train::{TrainConfig, Trainer};
use sapwood_models::{Forward, ModelError, Tensor, TensorData, inspect, quantize, zoo};

/// Set in the process that runs the cases.
const CHILD: &str = "SAPWOOD_HOSTILE_CHILD";
/// KiB of address space, stacks and the program itself included.
const MEMORY: usize = 12 << 20;
/// Seconds of processor time; all cases take a tenth of it.
const TIME: usize = 1200;
/// Cases of each kind.
const CASES: u64 = 3000;
/// Most values of one input that is fed.
const FED: usize = 1 << 16;

fn main() {
    if env::var_os(CHILD).is_some() {
        return run_all();
    }
    let program = env::current_exe().unwrap();
    let limits = format!("ulimit -v {MEMORY} && ulimit -t {TIME} && exec \"$0\"");
    let status = Command::new("sh").arg("-c").arg(limits).arg(program).env(CHILD, "1").status().unwrap();
    assert!(status.success(), "hostile models: {status}; set SAPWOOD_HOSTILE_TRACE to see which");
}

thread_local! {
    /// Where the last panic was.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn run_all() {
    println!("\nrunning hostile models within {} GiB", MEMORY >> 20);
    panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(String::new, |at| format!("{}:{}", at.file(), at.line()));
        PANIC.with(|last| *last.borrow_mut() = Some(format!("{place}: {info}")));
    }));
    let mut report = Report::default();
    for (name, proto) in named::cases() {
        report.case(&format!("named: {name}"), &proto.encode_to_vec());
    }
    let seeds = seeds();
    for case in 0..CASES {
        let mut random = ChaCha8Rng::seed_from_u64(case);
        let (name, seed) = &seeds[random.random_range(0..seeds.len())];
        let proto = pb::ModelProto::decode(seed.as_slice()).unwrap();
        report.case(&format!("structure {case} of {name}"), &mutation::structure(proto, &mut random).encode_to_vec());
        report.case(&format!("bytes {case} of {name}"), &mutation::bytes(seed.clone(), &mut random));
    }
    report.end();
}

#[derive(Default)]
struct Report {
    tried: usize,
    decoded: usize,
    compiled: usize,
    answered: usize,
    trained: usize,
    /// By where it was, the first case that panicked there.
    panicked: BTreeMap<String, String>,
}

impl Report {
    fn case(&mut self, name: &str, bytes: &[u8]) {
        if env::var_os("SAPWOOD_HOSTILE_TRACE").is_some() {
            eprintln!("{name}");
        }
        self.tried += 1;
        // The interpreter catches panics of the numeric backend; here they are faults, too.
        PANIC.with(|last| last.borrow_mut().take());
        let _ = panic::catch_unwind(panic::AssertUnwindSafe(|| self.stages(bytes)));
        if let Some(place) = PANIC.with(|last| last.borrow_mut().take()) {
            self.panicked.entry(place).or_insert_with(|| name.to_owned());
        }
    }

    fn stages(&mut self, bytes: &[u8]) {
        // Small enough to be held many times over.
        let limits = Limits { bytes: 1 << 22, ..Limits::default() };
        let Ok(model) = Model::decode_within(bytes, &limits) else { return };
        self.decoded += 1;
        let _ = (inspect(&model), unsupported(&model), quantize::passes::prepare(&model));
        let Ok(forward) = Forward::new(&model) else { return };
        self.compiled += 1;
        let Some(inputs) = inputs(&model) else { return };
        let fed: Vec<(&str, Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
        let answer: Result<_, ModelError> = forward.run(&fed);
        self.answered += usize::from(answer.is_ok());
        self.trained += usize::from(Trainer::new(&model, TrainConfig::default()).is_ok());
    }

    fn end(self) {
        let Self { tried, decoded, compiled, answered, trained, panicked } = self;
        print!("hostile models: {tried} tried, {decoded} decoded, {compiled} compiled, {answered} answered, {trained} trainable, ");
        println!("{} panicked", panicked.len());
        let lines: Vec<String> = panicked.iter().map(|(place, name)| format!("{name}: {place}")).collect();
        assert!(lines.is_empty(), "{}", lines.join("\n"));
        // Else the cases would show nothing of what comes behind.
        assert!(decoded > tried / 10 && compiled > tried / 20 && answered > tried / 50, "too few cases come far enough");
    }
}

/// Small inputs of the declared types; none if they are large or of a type that is not computed.
fn inputs(model: &Model) -> Option<Vec<(String, Tensor)>> {
    let one = |info: ValueInfo| {
        let extent = |dim: &Dim| if let Dim::Fixed(n) = dim { *n } else { 2 };
        let shape: Vec<usize> = info.shape.iter().map(extent).collect();
        let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= FED)?;
        let data = match info.element {
            Element::F32 | Element::F64 => TensorData::F32((0..count).map(|i| (i as f32 * 0.37).sin()).collect()),
            Element::I64 => TensorData::I64((0..count as i64).map(|i| i % 3).collect()),
            Element::I32 => TensorData::I32((0..count as i32).map(|i| i % 3).collect()),
            Element::Bool => TensorData::Bool((0..count).map(|i| i % 2 == 0).collect()),
            Element::U8 => TensorData::U8(vec![1; count]),
            Element::I8 => TensorData::I8(vec![1; count]),
            _ => return None,
        };
        Some((info.name, Tensor { shape, data }))
    };
    model.inputs().into_iter().map(one).collect()
}

/// Name and bytes of models that are well.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let text = zoo::Transformer { length: 5, vocabulary: 11, width: 8, heads: 2, layers: 1 };
    let mut seeds: Vec<(String, Vec<u8>)> = [
        ("mlp", zoo::mlp(8, &[4], 3, 1)),
        ("cnn", zoo::cnn([1, 8, 8], 3, 1)),
        ("mobilenet", zoo::mobilenet([3, 16, 16], 3, 1)),
        ("lstm", zoo::lstm([4, 3], 5, 2, 1)),
        ("transformer", text.build(3, 1).unwrap()),
    ]
    .into_iter()
    .map(|(name, model)| (name.to_owned(), model.encode()))
    .collect();
    match env::var_os("SAPWOOD_ONNX_CASES") {
        Some(folders) => env::split_paths(&folders).for_each(|folder| cases(&folder, &mut seeds)),
        None => assert!(env::var_os("CI").is_none(), "CI must provide SAPWOOD_ONNX_CASES"),
    }
    seeds
}

/// The ONNX project's small models, which have every operator.
fn cases(folder: &Path, seeds: &mut Vec<(String, Vec<u8>)>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            cases(&path, seeds);
        } else if path.ends_with("model.onnx") && path.metadata().unwrap().len() < 20_000 {
            let bytes = fs::read(&path).unwrap();
            if Model::decode(&bytes).is_ok_and(|model| Forward::new(&model).is_ok()) {
                seeds.push((folder.file_name().unwrap().to_string_lossy().into_owned(), bytes));
            }
        }
    }
}
