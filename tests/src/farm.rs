//! A deployment with a coordinator and nodes.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use sapwood_coordinator::pki::{Authority, Deployment, FoundOptions, TokenTerms, found};
use sapwood_models::zoo;
use sapwood_protocol::{
    Digest, Timestamp,
    release::view::{ReleaseView, RolloutView},
    run::RunState,
    view::RunView,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{Answer, Daemon, Operator, library, sapwood};

/// Nothing here takes so long unless something is wrong.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(40);
/// The rings of the first nodes; `region` stays empty, so that every rollout skips one.
const RINGS: [&str; 3] = ["lab", "canary", "global"];

/// A deployment, its daemons and its files; gone when dropped.
pub struct Farm {
    /// Everything lies here.
    pub folder: TempDir,
    /// Keys, trust file, configuration.
    pub deployment: Deployment,
    /// Where the coordinator listens, in all its lives.
    pub address: String,
    /// The coordinator.
    pub coordinator: Daemon,
    /// `node-1`, `node-2`, …
    pub nodes: Vec<Daemon>,
    /// Calls as its operator.
    pub operator: Operator,
}

/// A run that was released and rolled out.
#[derive(Debug)]
pub struct Finished {
    /// With all rounds.
    pub run: RunView,
    /// What came of it.
    pub release: ReleaseView,
    /// Where it went.
    pub rollout: RolloutView,
    /// By each node's own word, over HTTP.
    pub serving: Vec<Option<Digest>>,
}

impl Finished {
    /// The final parameters.
    pub fn params(&self) -> Digest {
        self.run.params
    }
}

impl Farm {
    /// A deployment with `nodes` nodes, of which nothing is started. Node `n` trains on form block `n`.
    ///
    /// # Panics
    /// If the folder cannot be written.
    pub fn found(nodes: usize) -> Self {
        let folder = tempfile::Builder::new().prefix("sapwood-test-").tempdir().expect("a temporary folder");
        let root = folder.path();
        let listen = free_address();
        let options = FoundOptions::local("farm".parse().expect("a name"), listen);
        let deployment = found(&root.join("farm"), &options, now()).expect("a deployment is founded");
        // Appended: the keys above it are as every deployment has them.
        let mut text = fs::read_to_string(deployment.config()).expect("the configuration is there");
        text.push_str(&format!("\n[release]\nruntime = {:?}\n", library()));
        fs::write(deployment.config(), text).expect("the configuration can be written");
        fs::write(root.join("cnn.onnx"), zoo::cnn([1, 8, 8], 10, 20).encode()).expect("a model is written");
        fs::write(root.join("preprocess.onnx"), zoo::scale(&[1, 8, 8], 1.0 / 16.0).encode()).expect("a model is written");

        let args = ["coordinator".into(), "serve".into(), "--config".into(), deployment.config().into_os_string()];
        let coordinator = Daemon::new("coordinator", args, "listening", root.join("coordinator.log"));
        let operator = Operator::new(&listen.to_string(), deployment.root().join("operator"));
        let mut farm = Self { deployment, address: listen.to_string(), coordinator, nodes: Vec::new(), operator, folder };
        for n in 1..=nodes {
            let token = farm.token(&format!("node-{n}"), RINGS[(n - 1).min(RINGS.len() - 1)], Duration::from_secs(600));
            let node = farm.node(&format!("node-{n}"), &token, &format!("digits:{n}"));
            farm.nodes.push(node);
        }
        farm
    }

    /// The farm's folder.
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    /// A one-time token for a node of this name.
    pub fn token(&self, name: &str, ring: &str, lifetime: Duration) -> String {
        let authority = Authority::open(&self.deployment.authority()).expect("the authority is there");
        let labels = [("ring".to_owned(), ring.to_owned())].into();
        let terms = TokenTerms { labels, node: Some(name.parse().expect("a name")), lifetime };
        authority.mint(&terms, now()).expect("a token is minted").reveal().to_string()
    }

    /// A node in a folder of its own, not started.
    pub fn node(&self, name: &str, token: &str, data: &str) -> Daemon {
        let folder = self.root().join(name);
        fs::create_dir_all(&folder).expect("a folder is made");
        let text = format!(
            "name = {name:?}\ncoordinator = {:?}\ntrust = {:?}\nstate_dir = \"state\"\n\n[enrollment]\ntoken = {token:?}\n\n\
             [data]\nsource = {data:?}\n\n[train]\nthreads = 1\n\n\
             [serve]\nprobe = \"100ms\"\ntrial = \"300ms\"\nrestarts = 50\nreserve = \"1 MiB\"\n\n[policy]\nallow_clear = true\nallow_no_noise = true\nmost_clip = 1000.0\n\n[runtime]\nlibrary = {:?}\n",
            self.address,
            self.deployment.trust(),
            library(),
        );
        fs::write(folder.join("node.toml"), text).expect("the configuration is written");
        self.node_in(name, &folder)
    }

    /// The node whose configuration lies in `folder`.
    pub fn node_in(&self, name: &str, folder: &Path) -> Daemon {
        let args = ["node".into(), "run".into(), "--config".into(), folder.join("node.toml").into_os_string()];
        Daemon::new(name, args, "serving", folder.join("node.log"))
    }

    /// A node's state folder.
    pub fn state_of(&self, node: &str) -> PathBuf {
        self.root().join(node).join("state")
    }

    /// Starts everything.
    pub async fn start(&mut self) {
        self.coordinator.start().await;
        for node in &mut self.nodes {
            node.start().await;
        }
    }

    /// Starts again whoever was killed by the script.
    pub async fn tend(&mut self) {
        self.coordinator.tend().await;
        for node in &mut self.nodes {
            node.tend().await;
        }
    }

    /// Submits a run by the command line.
    pub fn submit(&self, spec: &str, token: &str) -> Answer {
        let file = self.root().join("run.toml");
        fs::write(&file, spec).expect("run.toml is written");
        self.call(&["run", "submit", file.to_str().expect("a path of text"), "--token", token])
    }

    /// Calls the coordinator by the command line, as its operator.
    pub fn call(&self, args: &[&str]) -> Answer {
        self.call_as(args, &self.deployment.root().join("operator"))
    }

    /// Calls the coordinator by the command line, with the credentials in this folder.
    pub fn call_as(&self, args: &[&str], credentials: &Path) -> Answer {
        let credentials = credentials.to_str().expect("a path of text");
        sapwood(&[args, &["--coordinator", &self.address, "--credentials", credentials]].concat())
    }

    /// Submits a run as often as it takes, and follows it until every node serves what came of it.
    ///
    /// # Panics
    /// If that does not happen, or if a script is not played to its end.
    pub async fn finish(&mut self, spec: &str) -> Finished {
        self.finish_within(spec, DEADLINE).await
    }

    /// As [`Farm::finish`], for a run that trains longer.
    ///
    /// # Panics
    /// As [`Farm::finish`].
    pub async fn finish_within(&mut self, spec: &str, deadline: Duration) -> Finished {
        let begun = Instant::now();
        // Its own bytes are its word: sent again after a death, it runs once.
        let token = Digest::of(spec.as_bytes()).hex();
        let run = loop {
            let answer = self.submit(spec, &token);
            self.tend().await;
            if answer.code == 0 {
                break answer.json["data"]["run"].as_str().expect("a run has a name").to_owned();
            }
            assert!(begun.elapsed() < deadline, "the run is not taken: {}", answer.error());
        };
        let mut last = String::new();
        loop {
            self.tend().await;
            if let Some(finished) = self.look(&run, &mut last).await {
                for daemon in std::iter::once(&self.coordinator).chain(&self.nodes) {
                    assert!(daemon.left().is_empty(), "{} never came to {:?}", daemon.name, daemon.left());
                }
                return finished;
            }
            if begun.elapsed() > deadline {
                let left: Vec<_> = std::iter::once(&self.coordinator).chain(&self.nodes).map(|d| (&d.name, d.left())).collect();
                panic!("{run} is not finished: {last}\nstill to die: {left:?}\ncoordinator:\n{}", self.coordinator.log());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Where the run and its release are; `Some` when all is done.
    async fn look(&mut self, name: &str, last: &mut String) -> Option<Finished> {
        let run = self.operator.run(name).await?;
        *last = format!("{} in round {}, {:?}", run.state, run.round, run.attempt);
        let ended_badly = matches!(run.state, RunState::Failed | RunState::Refused | RunState::Stopped | RunState::Trained);
        assert!(!ended_badly, "{name} is {}: {:?}", run.state, run.detail);
        let id = run.release.as_ref()?.to_string();
        let release = self.operator.release(&id).await?;
        let rollout = self.operator.rollout(&id).await?;
        *last = format!("{} of {id}: {}", rollout.release, rollout.why);
        let outcome = rollout.outcome.as_ref()?;
        assert!(matches!(outcome, sapwood_protocol::rollout::Outcome::Completed { .. }), "{outcome:?}: {}", rollout.why);
        // NAME-VERSION; the names in these tests have no dash.
        let model = id.split_once('-').map_or(id.as_str(), |(model, _)| model);
        let mut answers = Vec::new();
        for node in &self.nodes {
            answers.push(serving(node.address?, model).await);
        }
        *last = format!("rolled out; the nodes serve {answers:?}");
        // Whoever was killed after it confirmed may have to load its model again.
        answers.iter().all(|d| *d == Some(release.digest)).then_some(Finished { run, release, rollout, serving: answers })
    }

    /// Bundle, manifest, both signatures and the public key as files in a new folder.
    ///
    /// # Panics
    /// If the coordinator does not hand them out.
    pub async fn save(&mut self, release: &ReleaseView) -> PathBuf {
        let folder = self.root().join("release");
        fs::create_dir_all(&folder).expect("a folder is made");
        let objects = [
            ("bundle.tar.gz", release.digest, &release.signatures.bundle),
            ("manifest.json", release.manifest, &release.signatures.manifest),
        ];
        for (name, digest, signatures) in objects {
            fs::write(folder.join(name), self.operator.get(digest).await.expect("the object is there")).expect("a file is written");
            fs::write(folder.join(format!("{name}.sig")), signatures[0].as_der()).expect("a file is written");
        }
        fs::copy(self.deployment.release_public(), folder.join("pub.pem")).expect("a file is copied");
        folder
    }
}

/// The digest that a node answers with, by its own word.
pub async fn serving(node: SocketAddr, model: &str) -> Option<Digest> {
    let mut stream = TcpStream::connect(node).await.ok()?;
    let request = format!("GET /v2/models/{model} HTTP/1.1\r\nHost: {node}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await.ok()?;
    let reply = String::from_utf8_lossy(&reply).into_owned();
    let body: Value = serde_json::from_str(reply.split_once("\r\n\r\n")?.1).ok()?;
    body["parameters"]["digest"].as_str()?.parse().ok()
}

/// Looks again and again until `look` has an answer.
///
/// # Panics
/// With `what` if it takes too long.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < DEADLINE, "waited in vain: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right");
    Timestamp::from_millis(u64::try_from(since.as_millis()).expect("the clock is right"))
}

/// An address that stays free while the coordinator is away: below the ports that outgoing connections get.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = u16::try_from(std::process::id() % 10_000).expect("below ten thousand");
    for _ in 0..1000 {
        let port = 20_000 + (base + NEXT.fetch_add(7, Ordering::Relaxed)) % 10_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port")
}
