//! The agent with real releases, a real runtime and a real disk, killed at every point that it comes by.
//!
//! Each [`Scenario`] is played once to see which points it passes; then again for every passing of every point, with the
//! agent killed there and started again from its folder. Every time it must come to the same end, with the same files.
#![allow(clippy::print_stdout, reason = "a test tells how many points it has killed at")]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::Path,
    sync::Mutex,
    time::Duration,
};

use ring::rand::SystemRandom;
use sapwood_failpoint::Hook;
use sapwood_models::zoo;
use sapwood_proto::v1::node_client::NodeClient;
use sapwood_protocol::{
    Timestamp,
    release::{
        Measured, ReleaseRef, Signatures, SigningKey,
        bundle::{self, MODEL},
        documents::{self, Field, Postprocess},
        gates::GateReport,
        golden::{self, Array},
        manifest::{GoldenTerms, Manifest, PrivacyStatement, Provenance, Retention, RolloutPolicy, RuntimeNeeds, SCHEMA, Strategy},
        verify::ReleaseTrust,
    },
    rollout::{Assignment, Health, NodeStatus},
};
use sapwood_runtime::{Input, InstallOptions, View};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
};

use super::*;
use crate::{
    link::{Client, channel},
    testing::{World, node},
};

const X: [f32; 4] = [1.0, 2.0, 3.0, 4.0];
const RUNTIME_NEEDED: &str = "1.20.0";

/// A coordinator's objects, whom to trust, and releases by name.
struct Shop {
    world: Arc<World>,
    client: Client,
    trust: Arc<TrustFile>,
    library: PathBuf,
    key: SigningKey,
    releases: BTreeMap<&'static str, ReleaseRef>,
}

impl Shop {
    async fn open() -> Self {
        let world = World::new();
        let address = format!("localhost:{}", world.listen(false).await.port());
        let channel = channel(&address, world.ca.pem().as_bytes(), Some(world.ca.client())).await.unwrap();
        let random = SystemRandom::new();
        let key = SigningKey::from_pkcs8(&SigningKey::generate(&random).unwrap(), &random).unwrap();
        let trust = TrustFile { release: ReleaseTrust { threshold: 1, keys: vec![key.verifying_key()] }, ..world.trust() };
        let library = sapwood_runtime::install(InstallOptions::default(), &mut |_| ()).unwrap().path;
        let mut shop = Self { world, client: NodeClient::new(channel), trust: Arc::new(trust), library, key, releases: BTreeMap::new() };
        for (seed, name) in (1..).zip(["first", "second", "third"]) {
            shop.add(name, seed, 0.0);
        }
        shop.add("wrong", 4, 1.0);
        shop
    }

    /// Signs a release whose golden outputs are off by `off`, and keeps it.
    fn add(&mut self, name: &'static str, seed: u64, off: f32) {
        let model = zoo::mlp(4, &[3], 2, seed).encode();
        let outputs = self.answers(&model).into_iter().map(|y| y + off).collect();
        let field = |name: &str, length| Field { name: name.into(), datatype: "FP32".into(), shape: vec![-1, length] };
        let schema = documents::Schema {
            schema: "sapwood/schema/v1".into(),
            inputs: vec![field("input", 4)],
            outputs: vec![field("output", 2)],
            features: None,
        };
        let config = documents::Config {
            schema: "sapwood/config/v1".into(),
            postprocess: Postprocess::Argmax { classes: 2 },
            thresholds: BTreeMap::new(),
            golden_tolerance: 1e-4,
        };
        let settings = documents::Runtime {
            schema: "sapwood/runtime/v1".into(),
            min_onnxruntime: RUNTIME_NEEDED.parse().unwrap(),
            measured_onnxruntime: RUNTIME_NEEDED.into(),
            opset: 17,
            execution_providers: vec!["cpu".into()],
            threads: 1,
            exporter: "a test".into(),
            quantizer: None,
        };
        let mut parts = BundleParts::new();
        parts.insert(MODEL, model).unwrap();
        parts.insert(documents::SCHEMA, documents::to_bytes(&schema)).unwrap();
        parts.insert(documents::CONFIG, documents::to_bytes(&config)).unwrap();
        parts.insert(documents::RUNTIME, documents::to_bytes(&settings)).unwrap();
        parts.insert(documents::CARD, name.as_bytes().to_vec()).unwrap();
        parts.insert(golden::INPUTS, Array::new(vec![1, 4], X.to_vec()).unwrap().to_npy()).unwrap();
        parts.insert(golden::OUTPUTS, Array::new(vec![1, 2], outputs).unwrap().to_npy()).unwrap();
        let packed = bundle::write(&parts).unwrap();
        let manifest = manifest(name, &parts, packed.digest);
        let (bytes, random) = (manifest.to_bytes().unwrap(), SystemRandom::new());
        let signatures = Signatures {
            bundle: vec![self.key.sign(&packed.bytes, &random).unwrap()],
            manifest: vec![self.key.sign(&bytes, &random).unwrap()],
        };
        let release = ReleaseRef {
            release: manifest.release().unwrap(),
            bundle_bytes: packed.bytes.len() as u64,
            bundle: self.world.put(packed.bytes),
            unpacked_bytes: manifest.unpacked_bytes(),
            manifest_bytes: bytes.len() as u64,
            manifest: self.world.put(bytes),
            signatures,
            class: sapwood_runtime::host_class().parse().unwrap(),
            min_runtime: RUNTIME_NEEDED.parse().unwrap(),
        };
        self.releases.insert(name, release);
    }

    fn answers(&self, model: &[u8]) -> Vec<f32> {
        let runtime = Runtime::load(Some(&self.library)).unwrap();
        let model = serve::Model {
            name: "m".into(),
            version: "1".into(),
            digest: Digest::of(model),
            onnx: model.to_vec(),
            threads: 1,
            sessions: 1,
        };
        let served = serve::Served::load(runtime, model).unwrap();
        let name = served.inputs()[0].name.clone();
        let answer = served.run(&[Input { name: &name, shape: &[1, 4], data: View::F32(&X) }], |outputs| match outputs[0].data {
            View::F32(values) => values.to_vec(),
            _ => panic!("the model answers in floats"),
        });
        answer.unwrap()
    }

    fn bundle(&self, name: &str) -> Digest {
        self.releases[name].bundle
    }
}

fn manifest(name: &str, parts: &BundleParts, checksum: Digest) -> Manifest {
    Manifest {
        schema: SCHEMA.into(),
        model_name: "toy".parse().unwrap(),
        version: name.parse().unwrap(),
        checksum,
        target_devices: vec![sapwood_runtime::host_class().parse().unwrap()],
        components: parts.components(),
        feature_schema: None,
        use_case: "being killed".into(),
        golden: Some(GoldenTerms { examples: 1, tolerance: 1e-4 }),
        rollout: RolloutPolicy {
            strategy: Strategy::Rings,
            rings: vec!["lab".parse().unwrap()],
            soak: Duration::from_secs(1),
            health_timeout: Duration::from_secs(30),
        },
        provenance: Provenance {
            run: "toy-1".parse().unwrap(),
            rounds: 1,
            nodes: vec![node()],
            data_sources: vec!["none".into()],
            source_model: Digest::of(b"source"),
            preprocess: None,
            params: Digest::of(b"parameters"),
            builder: "a test".into(),
        },
        measured: Measured { accuracy: Some(0.9), ..Measured::default() },
        gates: GateReport { gates: Vec::new() },
        privacy: PrivacyStatement { secure_aggregation: "off".into(), unit: "none".into(), statement: "a test".into(), budget: None },
        runtime: RuntimeNeeds { min_onnxruntime: RUNTIME_NEEDED.parse().unwrap(), opset: 17 },
        created: Timestamp::from_millis(1_795_000_000_000),
        retention: Retention { telemetry: Duration::from_secs(86_400) },
    }
}

/// One thing that happens to an agent.
#[derive(Clone, Copy)]
enum Do {
    /// The coordinator wants this release, or nothing, to answer.
    Assign(Option<&'static str>),
    /// It has taken in the last order, this release answers, and it says so.
    Until(Option<&'static str>, Says),
    /// It is asked to stop; the next `Until` starts it again.
    Stop,
    /// Its model's first byte changes on the disk; a second time, it changes back.
    Flip(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Says {
    Healthy,
    Unhealthy,
    Refused,
}

/// What happens to an agent that has committed the releases `before`.
struct Scenario {
    before: &'static [&'static str],
    /// How often it may start again with a newcomer.
    restarts: u32,
    /// Where its first lives end.
    deaths: &'static [&'static str],
    steps: &'static [Do],
}

use Do::{Assign, Flip, Stop, Until};
use Says::{Healthy, Refused, Unhealthy};

const SCENARIOS: &[Scenario] = &[
    // A newcomer takes over, what is older than its predecessor goes; then everything is withdrawn.
    Scenario {
        before: &["first", "second"],
        restarts: 100,
        deaths: &[],
        steps: &[Assign(Some("third")), Until(Some("third"), Healthy), Assign(None), Until(None, Healthy)],
    },
    // It dies while it brings a newcomer, and goes on.
    Scenario {
        before: &["first"],
        restarts: 100,
        deaths: &["agent.after-commit.passed"],
        steps: &[Assign(Some("second")), Until(Some("second"), Healthy)],
    },
    // A newcomer that gives other answers than it should never takes over.
    Scenario {
        before: &["first"],
        restarts: 100,
        deaths: &[],
        steps: &[Assign(Some("wrong")), Until(Some("first"), Refused), Assign(Some("second")), Until(Some("second"), Healthy)],
    },
    // A newcomer that brings the node down is taken back.
    Scenario {
        before: &["first"],
        restarts: 0,
        deaths: &["agent.after-commit.exchanged"],
        steps: &[Assign(Some("second")), Until(Some("first"), Unhealthy)],
    },
    // And while it is taken back the node goes down again.
    Scenario {
        before: &["first"],
        restarts: 0,
        deaths: &["agent.after-commit.exchanged", "agent.after-commit.reverting"],
        steps: &[Assign(Some("second")), Until(Some("first"), Unhealthy)],
    },
    // The committed release is damaged on the disk: the one before answers again.
    Scenario { before: &["first", "second"], restarts: 100, deaths: &[], steps: &[Flip("second"), Until(Some("first"), Unhealthy)] },
    // The only release is damaged, and mended by hand.
    Scenario {
        before: &["first"],
        restarts: 100,
        deaths: &[],
        steps: &[Flip("first"), Until(Some("first"), Unhealthy), Stop, Flip("first"), Until(Some("first"), Healthy)],
    },
];

/// Where the agent's lives end; the last one is only watched.
#[derive(Clone)]
struct Fates {
    deaths: VecDeque<(String, u64)>,
    passed: Arc<Mutex<Vec<String>>>,
}

impl Fates {
    fn new(deaths: impl IntoIterator<Item = (String, u64)>) -> Self {
        Self { deaths: deaths.into_iter().collect(), passed: Arc::default() }
    }
    fn next(&mut self) -> Hook {
        match self.deaths.pop_front() {
            Some((point, nth)) => Hook::kill_at(&point, nth),
            None => {
                let passed = self.passed.clone();
                Hook::new(move |point| {
                    passed.lock().unwrap().push(point.to_owned());
                    Ok(())
                })
            }
        }
    }
}

/// An agent's folder, and the agent while it lives.
struct Site {
    shop: Arc<Shop>,
    _folder: tempfile::TempDir,
    config: Config,
    fates: Fates,
    assignment: Assignment,
    alive: Option<Alive>,
}

struct Alive {
    running: Running,
    store: Store,
    status: watch::Receiver<NodeStatus>,
    orders: watch::Sender<Option<Assignment>>,
    _line: watch::Sender<Option<Client>>,
}

impl Site {
    fn new(shop: Arc<Shop>, restarts: u32, fates: Fates) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "name = \"{}\"\ncoordinator = \"localhost:1\"\ntrust = \"trust.toml\"\nstate_dir = \"state\"\n[serve]\nprobe = \"20ms\"\n\
             trial = \"1s\"\nreserve = \"1 MiB\"\nrestarts = {restarts}\n[runtime]\nlibrary = {:?}\n",
            node(),
            shop.library
        );
        let config = Config::parse(&text, folder.path()).unwrap();
        Self { shop, _folder: folder, config, fates, assignment: Assignment { version: 0, release: None }, alive: None }
    }

    async fn follow(&mut self, steps: &[Do]) {
        for step in steps {
            match *step {
                Assign(name) => {
                    let release = name.map(|name| self.shop.releases[name].clone());
                    self.assignment = Assignment { version: self.assignment.version + 1, release };
                    if let Some(alive) = &self.alive {
                        alive.orders.send_replace(Some(self.assignment.clone()));
                    }
                }
                Until(name, says) => self.until(name, says).await,
                Stop => self.stop().await.unwrap_or_default(),
                Flip(name) => {
                    let path = self.config.state_dir.join("slots").join(self.shop.bundle(name).hex()).join(MODEL);
                    let mut bytes = fs::read(&path).unwrap();
                    bytes[0] ^= 1;
                    fs::write(&path, bytes).unwrap();
                }
            }
        }
    }

    /// Follows the scenario to its end, in which nothing is under way and nobody dies any more.
    async fn play(mut self, scenario: &Scenario) -> Finish {
        self.follow(scenario.steps).await;
        let Some(last @ Until(name, _)) = scenario.steps.last().copied() else { panic!("a scenario ends with what it comes to") };
        while self.stop().await.is_err() {
            self.follow(&[last]).await;
        }
        assert!(self.fates.deaths.is_empty(), "it never came to {:?}", self.fates.deaths);
        // A life more: what it has come to is what it starts with.
        self.follow(&[last]).await;
        let answers = serving(self.alive.as_ref().unwrap().running.serving).await;
        self.stop().await.unwrap();
        let list = |folder: &str| -> BTreeSet<_> {
            fs::read_dir(self.config.state_dir.join(folder)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
        };
        let current = fs::read_link(self.config.state_dir.join("current")).ok();
        let wanted = name.map(|name| self.shop.bundle(name));
        Finish { wanted, answers, current, slots: list("slots"), downloads: list("downloads") }
    }

    /// Through as many deaths as it takes.
    async fn until(&mut self, name: Option<&str>, says: Says) {
        let running = name.map(|name| self.shop.bundle(name));
        let version = self.assignment.version;
        let said = |health: &Health| match health {
            Health::Healthy => Some(Healthy),
            Health::Unhealthy { .. } => Some(Unhealthy),
            Health::Refused { .. } => Some(Refused),
            Health::Working { .. } => None,
        };
        loop {
            if self.alive.is_none() && !self.start().await {
                continue;
            }
            let alive = self.alive.as_mut().unwrap();
            let wanted = |s: &NodeStatus| s.assignment == version && s.running == running && said(&s.health) == Some(says);
            // It fails when the agent, which holds the other end, is gone.
            if alive.status.wait_for(wanted).await.is_ok() {
                return;
            }
            self.stop().await.unwrap_err();
        }
    }

    /// One start: false if it died before it was up.
    async fn start(&mut self) -> bool {
        let store = Store::open(&self.config.state_dir).await.unwrap();
        let (line, link) = Link::new();
        line.send_replace(Some(self.shop.client.clone()));
        let (report, status) = watch::channel(NodeStatus { assignment: 0, running: None, health: Health::Healthy });
        // The coordinator says again what it wants, as after each connection.
        let (orders, assignments) = watch::channel(None);
        let parts = Parts {
            state_dir: self.config.state_dir.clone(),
            store: store.clone(),
            link,
            trust: self.shop.trust.clone(),
            config: &self.config,
            report,
            assignments,
        };
        let started = self.fates.next().scope(start(parts)).await;
        match started {
            Ok(running) => {
                if self.assignment.version > 0 {
                    orders.send_replace(Some(self.assignment.clone()));
                }
                self.alive = Some(Alive { running, store, status, orders, _line: line });
                true
            }
            Err(NodeError::Killed(_)) => {
                store.close().await;
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Ends its life, if it has one; an error if it was dead already.
    async fn stop(&mut self) -> Result<(), failpoint::Killed> {
        let Some(Alive { mut running, store, .. }) = self.alive.take() else { return Ok(()) };
        drop(running.stop.take());
        let ended = (&mut running.task).await;
        running.stop().await;
        store.close().await;
        match ended.unwrap() {
            Ok(()) => Ok(()),
            Err(NodeError::Killed(killed)) => Err(killed),
            Err(error) => panic!("{error}"),
        }
    }
}

/// How a scenario ended.
#[derive(Debug, PartialEq)]
struct Finish {
    wanted: Option<Digest>,
    answers: Option<Digest>,
    current: Option<PathBuf>,
    slots: BTreeSet<String>,
    downloads: BTreeSet<String>,
}

/// The digest that a node answers with, over HTTP.
async fn serving(address: SocketAddr) -> Option<Digest> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /v2/models/toy HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    let body: serde_json::Value = serde_json::from_str(reply.split_once("\r\n\r\n")?.1).ok()?;
    body["parameters"]["digest"].as_str()?.parse().ok()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = entry.map(|e| (e.path(), to.join(e.file_name()))).unwrap();
        match fs::symlink_metadata(&path).unwrap() {
            file if file.is_dir() => copy(&path, &to),
            file if file.is_symlink() => std::os::unix::fs::symlink(fs::read_link(&path).unwrap(), to).unwrap(),
            _ => drop(fs::copy(&path, to).unwrap()),
        }
    }
}

/// Agents that have committed these releases, to be copied.
async fn prepared(shop: &Arc<Shop>, releases: &[&'static str]) -> Site {
    let mut site = Site::new(shop.clone(), 100, Fates::new([]));
    for name in releases {
        site.follow(&[Assign(Some(name)), Until(Some(name), Healthy)]).await;
    }
    site.stop().await.unwrap();
    site
}

/// Agents at once: they mostly wait for the end of their newcomers' trials.
const AT_ONCE: usize = 8;

/// "Failpoints sit after every commit … enumerated from the code, their number printed; all of them are killed." Here: those
/// of the agent.
#[tokio::test]
async fn killed_at_every_point_the_agent_comes_to_the_same_end() {
    let shop = Arc::new(Shop::open().await);
    let mut bases: BTreeMap<&[&str], Site> = BTreeMap::new();
    let known: BTreeSet<String> = failpoints().into_iter().collect();
    let (mut visited, mut deaths) = (BTreeSet::new(), 0);
    for (number, scenario) in SCENARIOS.iter().enumerate() {
        if !bases.contains_key(scenario.before) {
            bases.insert(scenario.before, prepared(&shop, scenario.before).await);
        }
        let base = &bases[scenario.before];
        let site = |fates: Fates| {
            let mut site = Site::new(shop.clone(), scenario.restarts, fates);
            copy(&base.config.state_dir, &site.config.state_dir);
            site.assignment = base.assignment.clone();
            site
        };
        let planned: Vec<_> = scenario.deaths.iter().map(|point| ((*point).to_owned(), 1)).collect();
        let fates = Fates::new(planned.clone());
        let passed = fates.passed.clone();
        let undisturbed = site(fates).play(scenario).await;
        assert_eq!(undisturbed.answers, undisturbed.wanted, "scenario {number}");

        let mut times: BTreeMap<String, u64> = BTreeMap::new();
        for point in std::mem::take(&mut *passed.lock().unwrap()) {
            *times.entry(point).or_default() += 1;
        }
        let mut tried = JoinSet::new();
        for (point, times) in times.into_iter().filter(|(point, _)| known.contains(point)) {
            for nth in BTreeSet::from([1, times]) {
                if tried.len() >= AT_ONCE {
                    let (point, finish): (String, Finish) = tried.join_next().await.unwrap().unwrap();
                    assert_eq!(finish, undisturbed, "scenario {number}, killed at {point}");
                }
                let site = site(Fates::new(planned.iter().cloned().chain([(point.clone(), nth)])));
                let name = format!("{point}@{nth}");
                tried.spawn(async move { (name, site.play(scenario).await) });
                deaths += 1;
            }
            visited.insert(point);
        }
        for (point, finish) in tried.join_all().await {
            assert_eq!(finish, undisturbed, "scenario {number}, killed at {point}");
        }
    }
    println!("{} failpoints of the agent, {deaths} deaths in {} scenarios", known.len(), SCENARIOS.len());
    assert_eq!(visited, known, "points that no scenario comes by");
}
