//! `sapwood model …`: work on .onnx files without any server.

mod answers;
mod convert;
mod diff;
mod files;
mod inspect;
mod measure;
mod new;
mod plot;
mod quantize;
mod report;
mod run;
mod train;
mod weights;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

pub(crate) use files::{read_model, write_model};

use crate::output::{Answer, Failure};

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// A new model from the zoo.
    #[command(
        after_help = "Examples:\n  sapwood model new cnn --shape 1,8,8 --classes 10 --out cnn.onnx\n  sapwood model new mlp --shape 64 --hidden 32,32 --classes 10 --out mlp.onnx\n  sapwood model new lstm --shape 28,28 --hidden 64 --out lstm.onnx\n  sapwood model new transformer --shape 80 --vocabulary 90 --classes 90 --out text.onnx\n  sapwood model new scale --shape 1,8,8 --factor 0.0625 --out preprocess.onnx\n  sapwood model new normalize --shape 3,32,32 --mean 0.49,0.48,0.45 --std 0.25,0.24,0.26 --out preprocess.onnx\n  sapwood model new one-hot --shape 5 --depth 12 --out preprocess.onnx\n  sapwood model new resize --shape 3,64,64 --to 32,32 --out preprocess.onnx"
    )]
    New(NewArgs),
    /// What a model is made of, what it costs, what can be trained, and what quantizes.
    #[command(
        after_help = "Examples:\n  sapwood model inspect cnn.onnx --json\n  sapwood model inspect text.onnx --axis sequence=128 --nodes"
    )]
    Inspect(InspectArgs),
    /// What differs between two models: nodes, parameters, and on data their answers.
    #[command(
        after_help = "Examples:\n  sapwood model diff cnn.onnx trained.onnx\n  sapwood model diff trained.onnx int8.onnx --data digits:11 --preprocess scale.onnx --json\nThe exit code is 0 whether they are the same or not; `same` in the JSON says which."
    )]
    Diff(DiffArgs),
    /// Train on this machine.
    #[command(
        after_help = "Examples:\n  sapwood model train cnn.onnx --data digits:1-11 --preprocess scale.onnx --epochs 20 --out trained.onnx\n  sapwood model train mlp.onnx --data folder/ --loss mse --optimizer adam --lr 0.001 --out trained.onnx\n  sapwood model train cnn.onnx --data train.npz --validation test.npz --patience 3 --schedule cosine --freeze '*,!fc2.*' --out head.onnx\n  sapwood model train cnn.onnx --data photos/ --schema schema.toml --preprocess scale.onnx --report plots/ --out trained.onnx\n  sapwood model train cnn.onnx --data train.npz --loss my_loss.onnx --out trained.onnx"
    )]
    Train(Box<TrainArgs>),
    /// Loss, accuracy and other figures of merit on a data set.
    #[command(
        after_help = "Example:\n  sapwood model eval trained.onnx --data digits:12-14 --preprocess scale.onnx --runtime ort --report plots/"
    )]
    Eval(EvalArgs),
    /// A smaller model: static INT8 in Q/DQ form, dynamic INT8, or weights in 16-bit floats.
    #[command(
        after_help = "Examples:\n  sapwood model quantize trained.onnx --calibration digits:11 --preprocess scale.onnx --out int8.onnx\n  sapwood model quantize trained.onnx --calibration data.npz --calibrator percentile:99.9 --sensitivity --out int8.onnx\n  sapwood model quantize trained.onnx --calibration data.npz --evaluation test.npz --out int8.onnx   # warns where these differ\n  sapwood model quantize trained.onnx --calibration train.npz --max-drop 0.005 --evaluation test.npz --out mixed.onnx\n  sapwood model quantize trained.onnx --calibration data.npz --target jetson-tensorrt --out jetson.onnx\n  sapwood model quantize text.onnx --mode dynamic --out int8.onnx"
    )]
    Quantize(QuantizeArgs),
    /// The answers of a model: inputs from an .npz, by name, and all outputs into another.
    #[command(
        after_help = "Examples:\n  sapwood model run trained.onnx --input x.npz --out y.npz --runtime ort\n  sapwood model run trained.onnx --input x.npz --out y.npz --config config.json"
    )]
    Run {
        /// The .onnx file.
        file: PathBuf,
        /// Arrays named as the model's inputs; `x` if it has one.
        #[arg(long)]
        input: PathBuf,
        /// Where the outputs go.
        #[arg(long)]
        out: PathBuf,
        #[arg(long, value_enum, default_value_t = Engine::Burn)]
        runtime: Engine,
        /// A bundle's config.json: label, score and whether it is accepted, for each example.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Another form of the same model: with low-rank adapters, with group normalization, or with another last layer.
    #[command(
        after_help = "Examples:\n  sapwood model convert text.onnx --lora 8 --targets '*.weight' --out adapted.onnx\n  sapwood model train adapted.onnx --data train.npz --freeze '*,!*.lora_b' --out trained.onnx\n  sapwood model convert trained.onnx --merge-lora --out merged.onnx\n  sapwood model convert mobilenet.onnx --norm group --out grouped.onnx\n  sapwood model convert imagenet.onnx --head 5 --out head.onnx\nA run that trains adapters has freeze = [\"*\", \"!*.lora_b\"]; its release is merged. Batch normalization brings the examples of a\nbatch together, so that a run with unit = \"example\" refuses it; --norm group puts groups of channels in its place."
    )]
    Convert(ConvertArgs),
    /// The weights under the names that they have in PyTorch, for `load_state_dict`.
    #[command(
        after_help = "Example:\n  sapwood model weights trained.onnx --out weights.npz\nand in Python, with the network that was exported:\n  model.load_state_dict({name: torch.from_numpy(array) for name, array in numpy.load(\"weights.npz\").items()})"
    )]
    Weights {
        /// The .onnx file.
        file: PathBuf,
        /// Where the arrays go.
        #[arg(long)]
        out: PathBuf,
    },
    /// Whether Burn and ONNX Runtime give the same numbers.
    #[command(after_help = "Example:\n  sapwood model verify trained.onnx --data digits:11 --preprocess scale.onnx")]
    Verify {
        /// The .onnx file.
        file: PathBuf,
        #[command(flatten)]
        data: DataArgs,
        /// The largest difference allowed.
        #[arg(long, default_value_t = 1e-4)]
        tolerance: f64,
    },
}

#[derive(Args)]
pub(crate) struct InspectArgs {
    /// The .onnx file.
    file: PathBuf,
    /// Extent of a dynamic axis other than the examples': its name in the file, or INPUT:INDEX where it has none.
    #[arg(long = "axis", value_name = "NAME=N", value_parser = axis)]
    axes: Vec<(String, usize)>,
    /// Show every node.
    #[arg(long)]
    nodes: bool,
}

fn axis(text: &str) -> Result<(String, usize), String> {
    let parsed = text.rsplit_once('=').and_then(|(name, extent)| Some((name.to_owned(), extent.parse().ok()?)));
    parsed.ok_or_else(|| "it is a name and a whole number, such as sequence=128".to_owned())
}

#[derive(Args)]
pub(crate) struct DiffArgs {
    first: PathBuf,
    second: PathBuf,
    /// Examples that both models answer.
    #[arg(long)]
    data: Option<String>,
    /// Schema of the data, TOML or JSON.
    #[arg(long, requires = "data")]
    schema: Option<PathBuf>,
    /// An .onnx graph that is applied to x first.
    #[arg(long, requires = "data")]
    preprocess: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = Engine::Burn)]
    runtime: Engine,
}

#[derive(Args)]
pub(crate) struct NewArgs {
    kind: Kind,
    /// One example, such as 1,8,8 or 64; steps and features of an lstm, tokens of a transformer.
    #[arg(long, value_delimiter = ',', required = true)]
    shape: Vec<usize>,
    /// Hidden layers of an mlp, state of an lstm.
    #[arg(long, value_delimiter = ',', default_value = "32")]
    hidden: Vec<usize>,
    /// An lstm reads how many steps each sequence has, as a second input `lengths`.
    #[arg(long)]
    lengths: bool,
    /// Distinct tokens that a transformer reads, with 0 as padding.
    #[arg(long, default_value_t = 256)]
    vocabulary: usize,
    /// Floats for each token of a transformer.
    #[arg(long, default_value_t = 64)]
    width: usize,
    /// Attention heads of a transformer.
    #[arg(long, default_value_t = 4)]
    heads: usize,
    /// Layers of a transformer.
    #[arg(long, default_value_t = 2)]
    layers: usize,
    #[arg(long, default_value_t = 10)]
    classes: usize,
    /// What a `scale` graph multiplies by.
    #[arg(long, default_value_t = 1.0)]
    factor: f32,
    /// What a `normalize` graph subtracts: one number, or one for each channel or feature.
    #[arg(long, value_delimiter = ',', default_value = "0", allow_hyphen_values = true)]
    mean: Vec<f32>,
    /// What a `normalize` graph then divides by.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    std: Vec<f32>,
    /// Categories of a `one-hot` graph.
    #[arg(long)]
    depth: Option<usize>,
    /// Height and width that a `resize` graph makes.
    #[arg(long, value_delimiter = ',')]
    to: Vec<usize>,
    /// A `resize` graph takes the nearest pixel; left out, it is bilinear.
    #[arg(long)]
    nearest: bool,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long)]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Mlp,
    Cnn,
    /// For 1x28x28.
    Lenet,
    /// For images of 16x16 and more; with batch normalization, so not under a privacy budget.
    Mobilenet,
    /// For sequences of float features.
    Lstm,
    /// For sequences of tokens.
    Transformer,
    /// A preprocessing graph: x times a factor.
    Scale,
    /// A preprocessing graph: x less a mean, divided by a standard deviation.
    Normalize,
    /// A preprocessing graph: category indices to one-hot codes.
    OneHot,
    /// A preprocessing graph: images of another height and width.
    Resize,
}

/// How a learning rate falls.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Decay {
    Constant,
    Linear,
    Cosine,
}

/// Where examples come from.
#[derive(Args)]
pub(crate) struct DataArgs {
    /// `digits`, `digits:1-10`, a .npz, a folder with x.npy and y.npy, a folder of images with a folder for each class (PNG, JPEG, BMP;
    /// values 0 to 255), or a .csv with --schema. A model of several inputs reads an array of each input's name.
    #[arg(long)]
    data: String,
    /// Schema of the data, TOML or JSON.
    #[arg(long)]
    schema: Option<PathBuf>,
    /// An .onnx graph that is applied to x first.
    #[arg(long)]
    preprocess: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct TrainArgs {
    file: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    loss: LossArgs,
    #[arg(long, default_value_t = 10)]
    epochs: usize,
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// sgd, adam or adamw.
    #[arg(long, default_value = "sgd")]
    optimizer: String,
    #[arg(long, default_value_t = 0.05)]
    lr: f32,
    #[arg(long, default_value_t = 0.9)]
    momentum: f32,
    #[arg(long, default_value_t = 0.0)]
    weight_decay: f32,
    /// How the learning rate falls over all steps.
    #[arg(long, value_enum, default_value_t = Decay::Constant)]
    schedule: Decay,
    /// Share of all steps over which the learning rate rises first.
    #[arg(long, default_value_t = 0.0)]
    warmup: f32,
    /// Longest gradient, all parameters together.
    #[arg(long)]
    gradient_clip: Option<f32>,
    /// Batches whose mean gradient makes one step.
    #[arg(long, default_value_t = 1)]
    accumulate: usize,
    /// Names of parameters that stay as they are; `*` stands for anything, and a leading `!` takes names out again:
    /// `--freeze '*,!fc.*'` trains the head only.
    #[arg(long, value_delimiter = ',')]
    freeze: Vec<String>,
    /// Data that each epoch is measured on; the best epoch's model is written.
    #[arg(long)]
    validation: Option<String>,
    /// Stop after so many epochs that were no better on the validation data.
    #[arg(long, requires = "validation")]
    patience: Option<usize>,
    /// Where the model is written after every epoch.
    #[arg(long)]
    checkpoint: Option<PathBuf>,
    /// Folder for history.csv and loss.svg.
    #[arg(long, value_name = "FOLDER")]
    report: Option<PathBuf>,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long)]
    out: PathBuf,
}

#[derive(Args)]
pub(crate) struct EvalArgs {
    file: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    #[arg(long, value_enum, default_value_t = Engine::Burn)]
    runtime: Engine,
    #[command(flatten)]
    loss: LossArgs,
    /// Folder for metrics.json and confusion.svg, or residuals.svg.
    #[arg(long, value_name = "FOLDER")]
    report: Option<PathBuf>,
    /// An .onnx graph from `output` and `target` to counters, k float32 for each example, each from -1 to 1; their means are shown.
    #[arg(long)]
    metric: Option<PathBuf>,
    /// An .onnx graph from the counters' k `sums` and `examples`, all float32, to the figures that are shown instead.
    #[arg(long, requires = "metric")]
    metric_final: Option<PathBuf>,
}

/// What is minimized, and measured.
#[derive(Args)]
pub(crate) struct LossArgs {
    /// cross-entropy, focal:GAMMA, bce, mse, mae, huber:DELTA, pinball:QUANTILE, or an .onnx graph from `output` (the model's first) and
    /// `target` (for each example one int64, or k float32) to one float32 for each example.
    #[arg(long, default_value = "cross-entropy")]
    loss: String,
    /// Weight of each class, such as 1,1,5.
    #[arg(long, value_delimiter = ',')]
    class_weights: Vec<f32>,
    /// Share of each label that is spread over all classes.
    #[arg(long, default_value_t = 0.0)]
    label_smoothing: f32,
    /// Examples with this label count nowhere.
    #[arg(long, allow_negative_numbers = true)]
    ignore_label: Option<i64>,
}

#[derive(Args)]
#[command(group(clap::ArgGroup::new("how").required(true).args(["lora", "merge_lora", "norm", "head"])))]
pub(crate) struct ConvertArgs {
    file: PathBuf,
    /// Adds adapters of this rank.
    #[arg(long, value_name = "RANK")]
    lora: Option<usize>,
    /// Scale of the adapters' start times the rank; left out, the rank.
    #[arg(long, requires = "lora")]
    alpha: Option<f32>,
    /// Names of the matrices that get adapters; `*` stands for anything.
    #[arg(long, value_delimiter = ',', default_value = "*")]
    targets: Vec<String>,
    /// Adds the adapters to their matrices and takes them out.
    #[arg(long)]
    merge_lora: bool,
    /// Puts group normalization in the place of each batch normalization. Scale and bias stay, running statistics go.
    #[arg(long, value_enum)]
    norm: Option<Norm>,
    /// Groups of channels; left out, at most 32, with at least two channels in each.
    #[arg(long, requires = "norm")]
    groups: Option<usize>,
    /// Puts a new last layer of so many classes in the place of the old one.
    #[arg(long, value_name = "CLASSES")]
    head: Option<usize>,
    /// Draws adapters and the last layer.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long)]
    out: PathBuf,
}

/// What normalizes.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Norm {
    Group,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Engine {
    Burn,
    Ort,
}

#[derive(Args)]
pub(crate) struct QuantizeArgs {
    file: PathBuf,
    #[arg(long, value_enum, default_value_t = Mode::Static)]
    mode: Mode,
    /// Public data for the ranges of the activations, which --mode static needs; at most --samples examples are used.
    #[arg(long)]
    calibration: Option<String>,
    #[arg(long)]
    schema: Option<PathBuf>,
    #[arg(long)]
    preprocess: Option<PathBuf>,
    #[arg(long, default_value_t = 256)]
    samples: usize,
    /// How a range is drawn from values: minmax, percentile (99.999) or such as percentile:99.9.
    #[arg(long, default_value = "minmax")]
    calibrator: String,
    /// x86-64, x86-64-vnni, aarch64 or jetson-tensorrt.
    #[arg(long, default_value = "x86-64-vnni")]
    target: String,
    /// Report which operators and values lose most; the first 32 samples are run once for each operator.
    #[arg(long)]
    sensitivity: bool,
    /// Leave the most sensitive operators in float until accuracy on --evaluation falls by no more than this, such as 0.005.
    #[arg(long)]
    max_drop: Option<f64>,
    /// Data as the model will see it: tensors that it spreads otherwise than --calibration did are warned of by name, and
    /// --max-drop is judged on its classes.
    #[arg(long)]
    evaluation: Option<String>,
    #[arg(long)]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Mode {
    /// Weights and activations in INT8, with calibrated ranges.
    Static,
    /// Weights of matrix products, LSTMs and embeddings in INT8; activations follow at run time. For ONNX Runtime alone.
    Dynamic,
    /// Weights in 16-bit floats; computing stays in 32.
    Fp16,
}

pub(crate) fn run(verb: Verb, json: bool) -> (&'static str, Result<Answer, Failure>) {
    match verb {
        Verb::New(args) => ("model new", new::new(&args)),
        Verb::Inspect(args) => ("model inspect", inspect::inspect(&args)),
        Verb::Diff(args) => ("model diff", diff::diff(&args)),
        Verb::Train(args) => ("model train", train::train(&args, json)),
        Verb::Eval(args) => ("model eval", measure::eval(&args)),
        Verb::Quantize(args) => ("model quantize", quantize::quantize(&args)),
        Verb::Convert(args) => ("model convert", convert::convert(&args)),
        Verb::Run { file, input, out, runtime, config } => ("model run", run::run(&file, &input, &out, runtime, config.as_deref())),
        Verb::Weights { file, out } => ("model weights", weights::weights(&file, &out)),
        Verb::Verify { file, data, tolerance } => ("model verify", measure::verify(&file, &data, tolerance)),
    }
}
