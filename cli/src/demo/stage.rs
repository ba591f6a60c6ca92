//! The demo's folder: a deployment, the data of each node, the model and the run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sapwood_coordinator::pki::{Authority, Deployment, FoundOptions, TokenTerms, found};
use sapwood_data::{digits, save_npy};
use sapwood_models::{Model, zoo};
use sapwood_protocol::spec::Spec;
use sapwood_simulator::{pooled as train_pooled, preprocess};

use crate::{
    clock,
    output::{Exit, Failure, OrFail},
    progress,
};

/// Form blocks of the evaluation, which no node and no calibration sees.
pub(super) const EVALUATION: &str = "digits:12-14";
/// The declared public block: it calibrates the quantizer and gives the golden inputs.
const PUBLIC: &str = "digits:11";
/// Everything in the demo is drawn from this.
const SEED: u64 = 20;
/// How many of the ten nodes are in each ring, in order.
const RINGS: [(&str, usize); 4] = [("lab", 1), ("canary", 2), ("region", 3), ("global", usize::MAX)];

/// Everything that the processes read.
pub(super) struct Stage {
    pub(super) folder: PathBuf,
    pub(super) deployment: Deployment,
    /// Names of the nodes, in order.
    pub(super) nodes: Vec<String>,
    /// The text of run.toml.
    pub(super) run: String,
    library: PathBuf,
}

impl Stage {
    /// Writes the folder.
    pub(super) fn set(folder: &Path, nodes: u32, rounds: u32, library: &Path) -> Result<Self, Failure> {
        let listen = "127.0.0.1:0".parse().or_fail(Exit::Internal)?;
        let options = FoundOptions::local("demo".parse()?, listen);
        let deployment = found(&folder.join("farm"), &options, clock::now()).or_fail(Exit::Internal)?;
        let stage = Self {
            folder: folder.to_owned(),
            deployment,
            nodes: (1..=nodes).map(|n| format!("shop-{n:02}")).collect(),
            run: spec(nodes, rounds),
            library: library.to_owned(),
        };
        write(&folder.join("cnn.onnx"), &model().encode())?;
        write(&folder.join("preprocess.onnx"), &scale().encode())?;
        write(&folder.join("run.toml"), stage.run.as_bytes())?;
        Ok(stage)
    }

    /// Writes what the node `index` starts with: its form block, a one-time token, its configuration.
    pub(super) fn node(&self, index: usize, coordinator: &str) -> Result<PathBuf, Failure> {
        let name = &self.nodes[index];
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).map_err(|e| Failure::internal(format!("{}: {e}", folder.display())))?;
        save_npy(&folder.join("data"), &digits::block(index + 1)).or_fail(Exit::Internal)?;
        let authority = Authority::open(&self.deployment.authority()).or_fail(Exit::Internal)?;
        let ring = ring(index);
        let terms = TokenTerms {
            labels: [("ring".to_owned(), ring.to_owned())].into(),
            node: Some(name.parse()?),
            lifetime: std::time::Duration::from_secs(600),
        };
        let token = authority.mint(&terms, clock::now()).or_fail(Exit::Internal)?;
        write(&folder.join("token"), token.reveal().as_bytes())?;
        let text = format!(
            "name = {name:?}\ncoordinator = \"{coordinator}\"\ntrust = {:?}\nstate_dir = \"state\"\n\n\
             [enrollment]\ntoken_file = \"token\"\n\n[data]\nsource = \"data\"\n\n[train]\nthreads = 1\n\n\
             [serve]\nprobe = \"200ms\"\ntrial = \"1s\"\nreserve = \"1 MiB\"\n\n[runtime]\nlibrary = {:?}\n",
            self.deployment.trust(),
            self.library,
        );
        let config = folder.join("node.toml");
        write(&config, text.as_bytes())?;
        Ok(config)
    }
}

fn ring(index: usize) -> &'static str {
    let mut first = 0_usize;
    for (ring, size) in RINGS {
        first = first.saturating_add(size);
        if index < first {
            return ring;
        }
    }
    "global"
}

fn model() -> Model {
    zoo::cnn([1, 8, 8], 10, SEED)
}

fn scale() -> Model {
    zoo::scale(&[1, 8, 8], 1.0 / 16.0)
}

fn spec(nodes: u32, rounds: u32) -> String {
    format!(
        r#"name = "digits"
seed = {SEED}

[model]
file = "cnn.onnx"
preprocess = "preprocess.onnx"     # pixels 0..16 to 0..1

[train]
rounds = {rounds}
local_epochs = 5
batch = 16
optimizer = "sgd"
lr = 0.01
momentum = 0.9

[cohort]
size = {nodes}

[secure_aggregation]
mode = "off"                       # the coordinator sees each update in clear

[privacy]
unit = "none"                      # no noise is added, nobody is promised anything
clip = 100.0                       # L2; bounds what one node can do

[evaluate]
data = "{EVALUATION}"              # central; no node trains on it

[release]
use_case = "reading digits on forms"
calibration = "{PUBLIC}"           # declared public: ranges for INT8, golden inputs
rings = ["lab", "canary", "region", "global"]
soak = "500ms"

[release.gates]
min_accuracy = 0.88
max_int8_drop = 0.01
max_bytes = 1000000
max_p99 = "50ms"
max_cold_start = "1s"
"#
    )
}

/// The same model trained on all nodes' data in one place, visiting every image equally often.
pub(super) fn pooled(nodes: u32, rounds: u32, json: bool) -> Result<f64, Failure> {
    let spinner = progress::spinner("pooled twin", json);
    spinner.set_message("for comparison; not counted in the time");
    let spec = Spec::parse(&spec(nodes, rounds))?;
    let prefix = scale();
    let prepare = |data| preprocess(&prefix, data).or_fail(Exit::Internal);
    let parts = (1..=nodes as usize).map(|n| prepare(digits::block(n))).collect::<Result<Vec<_>, _>>()?;
    let evaluation = prepare(digits::blocks(12..=14))?;
    let trained = train_pooled(&spec, &model(), &parts, Some(&evaluation)).or_fail(Exit::Internal)?;
    spinner.finish_and_clear();
    let accuracy = trained.evaluation.and_then(|e| e.accuracy);
    accuracy.ok_or_else(|| Failure::internal("the pooled twin was not scored"))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes).map_err(|e| Failure::internal(format!("{}: {e}", path.display())))
}
