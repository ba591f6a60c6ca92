//! The demo's folder: a deployment, the data of each node, the model and the run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sapwood_coordinator::pki::{Authority, Deployment, FoundOptions, TokenTerms, found};
use sapwood_data::{digits, save_npy};
use sapwood_models::{Dataset, Model, zoo};
use sapwood_protocol::spec::{PrivacyUnit, Spec};
use sapwood_simulator::{Options, pooled as train_pooled, preprocess, simulate};

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
/// What an image of a digit is.
const SCHEMA: &str = "[input]\nshape = [1, 8, 8]\nrange = [0, 16]\nunit = \"grey level\"\n\n[targets]\nclasses = 10\n";

/// Everything that the processes read.
pub(super) struct Stage {
    pub(super) folder: PathBuf,
    pub(super) deployment: Deployment,
    /// Names of the nodes, in order.
    pub(super) nodes: Vec<String>,
    /// The text of run.toml.
    pub(super) run: String,
    pub(super) setting: Setting,
    library: PathBuf,
}

impl Stage {
    /// Writes the folder.
    pub(super) fn set(folder: &Path, setting: Setting, library: &Path) -> Result<Self, Failure> {
        let listen = "127.0.0.1:0".parse().or_fail(Exit::Internal)?;
        let options = FoundOptions::local("demo".parse()?, listen);
        let deployment = found(&folder.join("farm"), &options, clock::now()).or_fail(Exit::Internal)?;
        // Room for the one run of the demo, whatever epsilon it is asked for.
        let config = fs::read_to_string(deployment.config()).or_fail(Exit::Internal)?;
        let (founded, _) = config.split_once("[budgets.").unwrap_or((&config, ""));
        let budgeted = format!("{founded}{}", setting.budgets("budgets"));
        write(&deployment.config(), budgeted.as_bytes())?;
        let stage = Self {
            folder: folder.to_owned(),
            deployment,
            nodes: (1..=setting.nodes).map(|n| format!("shop-{n:02}")).collect(),
            run: setting.spec(),
            setting,
            library: library.to_owned(),
        };
        write(&folder.join("model.onnx"), &setting.model().encode())?;
        write(&folder.join("preprocess.onnx"), &setting.preprocess().encode())?;
        write(&folder.join("digits.toml"), SCHEMA.as_bytes())?;
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
             [serve]\nprobe = \"200ms\"\ntrial = \"1s\"\nreserve = \"1 MiB\"\n\n[runtime]\nlibrary = {:?}\n\n\
             [policy]\nallow_clear = {clear}\nallow_no_noise = {no_noise}\nallow_central = {clear}\n\n{budgets}",
            self.deployment.trust(),
            self.library,
            clear = !self.setting.secure,
            budgets = self.setting.budgets("policy.budgets"),
            no_noise = self.setting.unit == PrivacyUnit::None,
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

/// What the demo protects, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Setting {
    pub(super) nodes: u32,
    pub(super) rounds: u32,
    pub(super) unit: PrivacyUnit,
    /// Of the whole run; none where nobody is protected.
    pub(super) epsilon: f64,
    pub(super) secure: bool,
}

impl Setting {
    /// Rounds that the demo takes unless it is told otherwise.
    pub(super) fn default_rounds(unit: PrivacyUnit) -> u32 {
        match unit {
            PrivacyUnit::None => 40,
            PrivacyUnit::Node => 10,
            PrivacyUnit::Example | PrivacyUnit::Entity => 60,
        }
    }

    /// The least accuracy that the demo asserts. Ten nodes cannot hide one of themselves and learn much.
    pub(super) fn least_accuracy(&self) -> f64 {
        match self.unit {
            PrivacyUnit::None => 0.88,
            PrivacyUnit::Node => 0.0,
            PrivacyUnit::Example | PrivacyUnit::Entity => 0.75,
        }
    }

    /// A budget for one run, as a section of a configuration.
    fn budgets(&self, section: &str) -> String {
        if self.unit == PrivacyUnit::None {
            return String::new();
        }
        format!("[{section}.{}]\nepsilon = {:?}\ndelta = 1e-4\n", self.unit, 1.25 * self.epsilon)
    }

    fn model(&self) -> Model {
        match self.unit {
            PrivacyUnit::None => zoo::cnn([1, 8, 8], 10, SEED),
            // Noise grows with the number of parameters: a smaller model learns more under a budget.
            _ => zoo::mlp(64, &[32], 10, SEED),
        }
    }

    fn preprocess(&self) -> Model {
        match self.unit {
            PrivacyUnit::None => zoo::scale(&[1, 8, 8], 1.0 / 16.0),
            _ => zoo::rows(&[1, 8, 8], 4.0, 1.0 / 8.0),
        }
    }

    /// The text of run.toml.
    fn spec(&self) -> String {
        let Self { nodes, rounds, epsilon, .. } = *self;
        let (mode, seen) =
            if self.secure { ("on", "the coordinator sees sums only") } else { ("off", "the coordinator sees each update in clear") };
        let (about, train, privacy) = match self.unit {
            PrivacyUnit::None => (
                "pixels 0..16 to 0..1",
                "local_epochs = 5\nbatch = 16\noptimizer = \"sgd\"\nlr = 0.01\nmomentum = 0.9".to_owned(),
                "unit = \"none\"                      # no noise is added, nobody is promised anything\n\
                 clip = 100.0                       # L2; bounds what one node can do"
                    .to_owned(),
            ),
            PrivacyUnit::Node => (
                "pixels 0..16 to rows of -0.5..1.5",
                "local_epochs = 5\nbatch = 16\nlr = 0.05".to_owned(),
                format!(
                    "unit = \"node\"                      # all that a node contributes\nepsilon = {epsilon:?}                      # of the whole run\n\
                     delta = 1e-4\nclip = 0.5                         # L2 norm of a node's update"
                ),
            ),
            unit => (
                "pixels 0..16 to rows of -0.5..1.5",
                "lr = 5.0                           # one step a round, on all examples".to_owned(),
                format!(
                    "unit = \"{unit}\"                   # one image\nepsilon = {epsilon:?}                      # of the whole run\n\
                     delta = 1e-4\nclip = 1.0                         # L2 norm of one image's gradient\n\
                     expected_units = {}              # public: about 130 images in a shop",
                    130 * nodes
                ),
            ),
        };
        let central = if self.secure || self.unit == PrivacyUnit::None {
            ""
        } else {
            "\nmechanism = \"central\"              # the coordinator adds the noise, and is trusted"
        };
        format!(
            r#"name = "digits"
seed = {SEED}

[model]
file = "model.onnx"
preprocess = "preprocess.onnx"     # {about}

[data]
schema = "digits.toml"             # each node's data, and what is asked of the release

[train]
rounds = {rounds}
{train}

[cohort]
size = {nodes}

[secure_aggregation]
mode = "{mode}"{pad}# {seen}

[privacy]
{privacy}{central}

[evaluate]
data = "{EVALUATION}"              # central; no node trains on it

[release]
use_case = "reading digits on forms"
calibration = "{PUBLIC}"           # declared public: ranges for INT8, golden inputs
rings = ["lab", "canary", "region", "global"]
soak = "500ms"

[release.gates]
min_accuracy = {least:?}
max_int8_drop = 0.02
max_bytes = 1000000
max_p99 = "50ms"
max_cold_start = "1s"
"#,
            pad = " ".repeat(26 - mode.len()),
            least = self.least_accuracy(),
        )
    }

    fn prepared(&self) -> Result<(Vec<Dataset>, Dataset), Failure> {
        let prefix = self.preprocess();
        let prepare = |data| preprocess(&prefix, data).or_fail(Exit::Internal);
        let parts = (1..=self.nodes as usize).map(|n| prepare(digits::block(n))).collect::<Result<Vec<_>, _>>()?;
        Ok((parts, prepare(digits::blocks(12..=14))?))
    }

    /// The same model trained on all nodes' data in one place, visiting every image equally often; under a budget at a rate that
    /// plain training takes.
    pub(super) fn pooled(&self, json: bool) -> Result<f64, Failure> {
        let spinner = progress::spinner("pooled twin", json);
        spinner.set_message("for comparison; not counted in the time");
        let mut spec = Spec::parse(&self.spec())?;
        if matches!(self.unit, PrivacyUnit::Example | PrivacyUnit::Entity) {
            spec.train.lr = 0.05;
        }
        let (parts, evaluation) = self.prepared()?;
        let trained = train_pooled(&spec, &self.model(), &parts, Some(&evaluation)).or_fail(Exit::Internal)?;
        spinner.finish_and_clear();
        let accuracy = trained.evaluation.and_then(|e| e.accuracy);
        accuracy.ok_or_else(|| Failure::internal("the pooled twin was not scored"))
    }

    /// The same run, clipped alike, with so large a budget that the noise is nothing. None if it had none anyway.
    pub(super) fn noiseless(&self, json: bool) -> Result<Option<f64>, Failure> {
        if self.unit == PrivacyUnit::None {
            return Ok(None);
        }
        let spinner = progress::spinner("the same without noise", json);
        spinner.set_message("for comparison; not counted in the time");
        let mut spec = Spec::parse(&Self { epsilon: 1e5, ..*self }.spec())?;
        spec.evaluate.every = spec.train.rounds;
        let (parts, evaluation) = self.prepared()?;
        let run = simulate(&spec, &self.model(), parts, Some(evaluation), &Options::default(), &mut |_| ()).or_fail(Exit::Internal)?;
        spinner.finish_and_clear();
        Ok(run.view.evaluation.and_then(|evaluation| evaluation.accuracy))
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes).map_err(|e| Failure::internal(format!("{}: {e}", path.display())))
}
