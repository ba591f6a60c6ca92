//! What happens: the run, its rounds, the release, the rollout, and real questions to every node.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use sapwood_data::digits;
use sapwood_models::{Targets, Tensor, metrics::argmax};
use sapwood_proto::v1;
use sapwood_protocol::{
    Digest,
    release::{
        Manifest,
        view::{NodeInfo, ReleaseView, RolloutView},
    },
    rollout::Health,
    run::RunState,
    view::{RoundView, RunView},
};
use serde_json::json;
use tonic::Code;

use super::{failed, fleet::Fleet, http::Client, stage::Stage};
use crate::{
    cmd::run::{privacy, submit_spec},
    output::{Exit, Failure, err},
    progress,
    remote::{Operator, Remote, refused, view},
};

/// All nodes must be here before the run is submitted.
const ENROLMENT: Duration = Duration::from_secs(30);
/// A rollout over the demo's four rings takes no longer, or something is wrong.
const ROLLOUT: Duration = Duration::from_secs(60);

/// What came of it.
pub(super) struct Told {
    pub(super) run: RunView,
    pub(super) release: ReleaseView,
    pub(super) manifest: Manifest,
    pub(super) rollout: RolloutView,
    pub(super) nodes: Vec<Answered>,
    /// Of single requests over HTTP, in microseconds.
    pub(super) latency_us: Vec<u64>,
    /// Images of the evaluation set.
    pub(super) images: usize,
    pub(super) files: Files,
}

/// Where the release lies, for `--keep` and for openssl.
pub(super) struct Files {
    pub(super) bundle: PathBuf,
    pub(super) manifest: PathBuf,
    pub(super) public_key: PathBuf,
    pub(super) coordinator: String,
}

/// One node's answers to the whole evaluation set.
pub(super) struct Answered {
    pub(super) name: String,
    pub(super) serving: Option<Digest>,
    pub(super) healthy: bool,
    pub(super) right: usize,
}

pub(super) async fn tell(stage: &Stage, fleet: &Fleet, json: bool) -> Result<Told, Failure> {
    let operator = Operator { coordinator: fleet.coordinator.to_string(), credentials: stage.deployment.root().join("operator") };
    let mut remote = operator.connect().await?;
    gather(&mut remote, stage.nodes.len()).await?;
    let submitted = submit_spec(&mut remote, &stage.run, &stage.folder, Some("demo")).await?;
    if !json {
        err(&format!("{} nodes enrolled over TLS 1.3; {} submitted\n{}", stage.nodes.len(), submitted.run, privacy(&submitted)));
    }
    let run = rounds(&mut remote, &submitted, json).await?;
    let name = run.release.clone().ok_or_else(|| Failure::internal("the run ended without a release").data(json!(run)))?;
    let by_name = || v1::ByName { name: name.to_string() };
    let release: ReleaseView = view(&remote.client.show_release(by_name()).await.map_err(|s| refused(&s))?.into_inner())?;
    if !json {
        err(&format!("released {} ({})\n{}", release.release, release.digest, gates(&release)));
    }
    let rollout = rings(&mut remote, by_name(), json).await?;
    let files = files(&mut remote, stage, &release, &operator).await?;
    let manifest = Manifest::parse(&std::fs::read(&files.manifest).map_err(Failure::internal)?)?;
    let seen: Vec<NodeInfo> = view(&remote.client.list_nodes(v1::ListRequest {}).await.map_err(|s| refused(&s))?.into_inner())?;
    let mut told = Told { run, release, manifest, rollout, nodes: Vec::new(), latency_us: Vec::new(), images: 0, files };
    ask(&mut told, fleet, &seen).await?;
    Ok(told)
}

/// Waits until every node is connected.
async fn gather(remote: &mut Remote, nodes: usize) -> Result<(), Failure> {
    let started = Instant::now();
    loop {
        let seen: Vec<NodeInfo> = view(&remote.client.list_nodes(v1::ListRequest {}).await.map_err(|s| refused(&s))?.into_inner())?;
        let here = seen.iter().filter(|n| n.connected).count();
        if here >= nodes {
            return Ok(());
        }
        if started.elapsed() > ENROLMENT {
            return Err(Failure::new(Exit::TimedOut, format!("{here} of {nodes} nodes came")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Prints each round as it is committed and scored.
async fn rounds(remote: &mut Remote, submitted: &RunView, json: bool) -> Result<RunView, Failure> {
    let bar = progress::bar(u64::from(submitted.of_rounds), "rounds", json);
    let mut printed = 0;
    let mut last = submitted.clone();
    let mut views = remote.client.watch_run(v1::ByName { name: submitted.run.to_string() }).await.map_err(|s| refused(&s))?.into_inner();
    while let Some(document) = views.message().await.map_err(|s| refused(&s))? {
        last = view(&document)?;
        for round in last.rounds.iter().skip(printed).take_while(|r| r.accuracy.is_some()) {
            printed += 1;
            if !json {
                bar.suspend(|| err(&line(round)));
            }
        }
        bar.set_position(last.rounds.len() as u64);
        bar.set_message(last.state.to_string());
    }
    bar.finish_and_clear();
    match last.state {
        RunState::Released => Ok(last),
        RunState::Refused => {
            let why = last.detail.clone().unwrap_or_default();
            Err(Failure::new(Exit::Refused, format!("the gates refused the model: {why}")).data(json!(last)))
        }
        state => {
            let why = last.detail.clone().unwrap_or_default();
            Err(Failure::internal(format!("the run is {state}: {why}")).data(json!(last)))
        }
    }
}

fn line(round: &RoundView) -> String {
    let accuracy = round.accuracy.unwrap_or_default();
    let loss = round.loss.unwrap_or_default();
    let size = crate::output::bytes(round.bytes);
    format!(
        "round {:>3}  accuracy {accuracy:.4}  loss {loss:.4}  {}/{} nodes  {size:>8}  {:.2} s",
        round.round, round.updates, round.asked, round.seconds
    )
}

fn gates(release: &ReleaseView) -> String {
    release.gates.gates.iter().map(|line| format!("  gate  {line}")).collect::<Vec<_>>().join("\n")
}

/// Prints each ring as it opens and passes.
async fn rings(remote: &mut Remote, name: v1::ByName, json: bool) -> Result<RolloutView, Failure> {
    let spinner = progress::spinner("rollout", json);
    let mut states: BTreeMap<String, String> = BTreeMap::new();
    let started = Instant::now();
    loop {
        match remote.client.watch_rollout(name.clone()).await {
            Ok(views) => {
                let mut views = views.into_inner();
                while let Some(document) = views.message().await.map_err(|s| refused(&s))? {
                    let now: RolloutView = view(&document)?;
                    if !json {
                        spinner.suspend(|| announce(&now, &mut states));
                    }
                    spinner.set_message(now.why.clone());
                    if now.outcome.is_some() {
                        spinner.finish_and_clear();
                        return Ok(now);
                    }
                }
            }
            // The release is committed first; its rollout follows.
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => return Err(refused(&status)),
        }
        if started.elapsed() > ROLLOUT {
            return Err(Failure::new(Exit::TimedOut, "the rollout did not end"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A line for each ring that has moved.
fn announce(rollout: &RolloutView, states: &mut BTreeMap<String, String>) {
    for ring in &rollout.rings {
        let state = format!("{} ({} nodes)", ring.state, ring.nodes.len());
        if ring.state != "waiting" && states.insert(ring.ring.to_string(), state.clone()).as_ref() != Some(&state) {
            err(&format!("ring {:<8} {state}", ring.ring.to_string()));
        }
    }
}

/// Bundle, manifest and signatures as files, as an operator would fetch them.
async fn files(remote: &mut Remote, stage: &Stage, release: &ReleaseView, operator: &Operator) -> Result<Files, Failure> {
    let folder = stage.folder.join("release");
    std::fs::create_dir_all(&folder).map_err(Failure::internal)?;
    let bundle = folder.join(format!("{}-{}.tar.gz", release.release, release.class));
    let manifest = folder.join("manifest.json");
    for (path, digest, signatures) in
        [(&bundle, release.digest, &release.signatures.bundle), (&manifest, release.manifest, &release.signatures.manifest)]
    {
        std::fs::write(path, remote.get(digest).await?).map_err(Failure::internal)?;
        let signature = signatures.first().ok_or_else(|| Failure::internal("the release is not signed"))?;
        let mut name = path.clone().into_os_string();
        name.push(".sig");
        std::fs::write(name, signature.as_der()).map_err(Failure::internal)?;
    }
    Ok(Files { bundle, manifest, public_key: stage.deployment.release_public(), coordinator: operator.coordinator.clone() })
}

/// Sends every evaluation image to every node over HTTP, one request an image, and checks the answers.
async fn ask(told: &mut Told, fleet: &Fleet, seen: &[NodeInfo]) -> Result<(), Failure> {
    let questions = digits::blocks(12..=14);
    let pixels = questions.x.only().and_then(Tensor::as_f32).ok_or_else(|| Failure::internal("digits are float32"))?;
    let Targets::Classes(labels) = &questions.y else { return Err(Failure::internal("digits have classes")) };
    let (model, width) = (told.manifest.model_name.to_string(), questions.x.row_len());
    let answered = fleet.nodes.iter().map(|(name, address)| {
        let model = model.as_str();
        async move {
            let mut client = Client::connect(*address).await?;
            let metadata = client.get(&format!("/v2/models/{model}")).await?;
            let input = metadata["inputs"][0]["name"].as_str().unwrap_or("input").to_owned();
            let mut right = 0;
            let mut latency = Vec::with_capacity(labels.len());
            for (x, label) in pixels.chunks_exact(width).zip(labels) {
                let started = Instant::now();
                let y = client.infer(model, &input, &[1, 1, 8, 8], x).await?;
                latency.push(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX));
                right += usize::from(argmax(&y).is_some_and(|class| i64::try_from(class) == Ok(*label)));
            }
            let info = seen.iter().find(|n| n.node.as_str() == name);
            let healthy = info.is_some_and(|n| n.health == Some(Health::Healthy));
            // What the node itself says it answers with, not what it was told to.
            let serving = metadata["parameters"]["digest"].as_str().and_then(|d| d.parse().ok());
            Ok::<_, anyhow::Error>((Answered { name: name.clone(), serving, healthy, right }, latency))
        }
    });
    let mut answers = Vec::new();
    for one in answered {
        // One node after the other: latencies of a node, not of eleven processes on two cores.
        answers.push(one.await.map_err(|e| failed(&e))?);
    }
    for (node, latency) in answers {
        told.nodes.push(node);
        told.latency_us.extend(latency);
    }
    told.latency_us.sort_unstable();
    told.images = labels.len();
    Ok(())
}
