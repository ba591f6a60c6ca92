//! A deployment on loopback: one coordinator and some nodes, as processes of the `sapwood` binary, over mutual TLS.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use sapwood_coordinator::pki::{Authority, Deployment, FoundOptions, TokenTerms, found};
use sapwood_protocol::Timestamp;
use serde_json::Value;

/// Nodes enrol and connect in no longer, or something is wrong.
const ENROLMENT: Duration = Duration::from_secs(60);

/// Running processes. Each stops when its standard input closes, so none outlives the bench.
pub struct Fleet {
    binary: PathBuf,
    deployment: Deployment,
    address: String,
    coordinator: Child,
    nodes: Vec<Child>,
}

impl Fleet {
    /// Founds a deployment in `folder` and starts a coordinator and `nodes` nodes whose trainer draws random updates, another
    /// for each node and round. Returns when all are connected.
    ///
    /// # Errors
    /// If a process does not come up; its log is in `folder`.
    pub fn start(folder: &Path, nodes: usize) -> Result<Self> {
        let binary = binary()?;
        let now = now();
        let deployment = found(&folder.join("farm"), &FoundOptions::local("bench".parse()?, "127.0.0.1:0".parse()?), now)?;
        let authority = Authority::open(&deployment.authority())?;
        let config = deployment.config();
        let budgets = fs::read_to_string(&config)? + "\n[budgets.node]\nepsilon = 10.0\ndelta = 1e-5\n";
        fs::write(&config, budgets)?;
        let (coordinator, address) =
            spawn(&binary, &["coordinator", "serve", "--config", text(&config)?], &folder.join("coordinator.log"), "listening")?;
        let mut fleet = Self { binary, deployment, address, coordinator, nodes: Vec::new() };
        for name in (1..=nodes).map(|n| format!("node-{n:02}")) {
            let home = folder.join(&name);
            fs::create_dir_all(&home)?;
            let terms = TokenTerms { labels: [].into(), node: Some(name.parse()?), lifetime: Duration::from_secs(600) };
            fs::write(home.join("token"), authority.mint(&terms, now)?.reveal().as_bytes())?;
            // A node without data is never asked to train; what it has is not looked at here.
            let config = format!(
                "name = {name:?}\ncoordinator = {:?}\ntrust = {:?}\nstate_dir = \"state\"\n\n[enrollment]\ntoken_file = \"token\"\n\n\
                 [data]\nsource = \"digits:1\"\n\n[train]\nthreads = 1\nkind = \"random\"\n\n[policy]\nallow_clear = true\nallow_no_noise = true\nmost_clip = 1000.0\n\n\
                 [policy.budgets.node]\nepsilon = 1000.0\ndelta = 1e-5\n",
                fleet.address,
                fleet.deployment.trust(),
            );
            let path = home.join("node.toml");
            fs::write(&path, config)?;
            let (node, _) = spawn(&fleet.binary, &["node", "run", "--config", text(&path)?], &home.join("log"), "serving")?;
            fleet.nodes.push(node);
        }
        fleet.gather()?;
        Ok(fleet)
    }

    fn gather(&self) -> Result<()> {
        let started = Instant::now();
        loop {
            let seen = self.operator(&["fleet", "list"])?;
            let here = seen["nodes"].as_array().map_or(0, |nodes| nodes.iter().filter(|n| n["connected"] == true).count());
            if here == self.nodes.len() {
                return Ok(());
            }
            ensure!(started.elapsed() < ENROLMENT, "{here} of {} nodes came", self.nodes.len());
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// `sapwood ARGS…` as the operator; the `data` of its answer.
    ///
    /// # Errors
    /// If the command fails: what it printed.
    pub fn operator(&self, args: &[&str]) -> Result<Value> {
        let credentials = self.deployment.root().join("operator");
        let output = Command::new(&self.binary)
            .args(args)
            .args(["--json", "--coordinator", &self.address, "--credentials", text(&credentials)?])
            .stdin(Stdio::null())
            .output()?;
        let printed = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "sapwood {}: {printed}{}", args.join(" "), String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_str(&printed).with_context(|| format!("sapwood {}: {printed}", args.join(" ")))?;
        Ok(answer["data"].clone())
    }

    /// The coordinator's process.
    pub fn coordinator(&self) -> u32 {
        self.coordinator.id()
    }

    /// The nodes' processes.
    pub fn nodes(&self) -> impl Iterator<Item = u32> + '_ {
        self.nodes.iter().map(Child::id)
    }

    /// Asks all to go, nodes first, and waits.
    ///
    /// # Errors
    /// If one ends with an error.
    pub fn stop(mut self) -> Result<()> {
        for node in &mut self.nodes {
            drop(node.stdin.take());
        }
        for child in self.nodes.iter_mut().chain([&mut self.coordinator]) {
            drop(child.stdin.take());
            let status = child.wait()?;
            ensure!(status.success(), "a process ended with {status}");
        }
        Ok(())
    }
}

/// Starts a daemon and waits for the line with which it says that it is up; the address under `key` in that line.
fn spawn(binary: &Path, args: &[&str], log: &Path, key: &str) -> Result<(Child, String)> {
    let mut child = Command::new(binary)
        .args(args)
        .args(["--json", "--until-stdin-closes"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(File::create(log)?)
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("standard output is piped")?).read_line(&mut line)?;
    let said: Value = serde_json::from_str(&line).unwrap_or_default();
    let Some(address) = said["data"][key].as_str() else {
        let _ = child.kill();
        bail!("sapwood {} said {line:?}\n{}", args.join(" "), fs::read_to_string(log).unwrap_or_default());
    };
    Ok((child, address.to_owned()))
}

/// The `sapwood` binary of the same build: Cargo puts it one folder above the benches.
fn binary() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let found = here.ancestors().skip(1).take(2).map(|folder| folder.join("sapwood")).find(|path| path.is_file());
    found.context("there is no sapwood binary beside this bench: build it with `cargo build --release` first")
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the temporary folder's name is not text")
}
