//! Runs at a coordinator.

use std::path::PathBuf;

use sapwood_models::{Model, parameters, write_back};
use sapwood_proto::v1;
use sapwood_protocol::{
    Digest,
    run::RunState,
    view::{RoundView, RunView},
};
use serde_json::json;

use super::One;
use crate::{
    cmd::model::write_model,
    output::{Answer, Exit, Failure, OrFail, bytes, table},
    progress,
    remote::{Operator, Remote, refused, view},
};

pub(super) async fn list(operator: Operator) -> Result<Answer, Failure> {
    let mut remote = operator.connect().await?;
    let reply = remote.client.list_runs(v1::ListRequest {}).await.map_err(|s| refused(&s))?.into_inner();
    let runs: Vec<RunView> = view(&reply)?;
    let rows: Vec<_> = runs
        .iter()
        .map(|r| {
            let accuracy = r.evaluation.and_then(|e| e.accuracy).map_or_else(String::new, |a| format!("{a:.4}"));
            vec![r.run.to_string(), r.state.to_string(), format!("{}/{}", r.round, r.of_rounds), accuracy, r.created.to_string()]
        })
        .collect();
    Ok(Answer::new(json!({"runs": runs}), table(&["run", "state", "round", "accuracy", "created"], &rows)))
}

async fn fetch(remote: &mut Remote, run: &str) -> Result<RunView, Failure> {
    let name = v1::ByName { name: run.to_owned() };
    view(&remote.client.show_run(name).await.map_err(|s| refused(&s))?.into_inner())
}

pub(super) async fn show(one: One) -> Result<Answer, Failure> {
    let mut remote = one.operator.connect().await?;
    let run = fetch(&mut remote, &one.run).await?;
    Ok(Answer::new(&run, describe(&run)))
}

/// Follows a run to its end. It fails if the run does.
pub(super) async fn watch(one: One, json: bool) -> Result<Answer, Failure> {
    let mut remote = one.operator.connect().await?;
    let run = follow(&mut remote, &one.run, json).await?;
    let text = describe(&run);
    match run.state {
        RunState::Trained | RunState::Released | RunState::Stopped => Ok(Answer::new(&run, text)),
        RunState::Failed => Err(Failure::new(Exit::TimedOut, format!("the run failed\n{text}")).data(json!(run))),
        RunState::Refused => Err(Failure::new(Exit::Refused, format!("the gates refused the candidate\n{text}")).data(json!(run))),
        other => {
            let again = format!("the coordinator went away while the run is {other}; `sapwood run watch {}` goes on", run.run);
            Err(Failure::new(Exit::TimedOut, again).data(json!(run)))
        }
    }
}

/// The last view of a run, with a bar on the way.
pub(super) async fn follow(remote: &mut Remote, run: &str, json: bool) -> Result<RunView, Failure> {
    let mut views = remote.client.watch_run(v1::ByName { name: run.to_owned() }).await.map_err(|s| refused(&s))?.into_inner();
    let bar = progress::bar(0, "rounds", json);
    let mut last = None;
    while let Some(document) = views.message().await.map_err(|s| refused(&s))? {
        let now: RunView = view(&document)?;
        bar.set_length(u64::from(now.of_rounds));
        bar.set_position(now.rounds.len() as u64);
        bar.set_message(
            now.evaluation.and_then(|e| e.accuracy).map_or_else(|| now.state.to_string(), |a| format!("{} accuracy {a:.4}", now.state)),
        );
        last = Some(now);
    }
    bar.finish_and_clear();
    last.ok_or_else(|| Failure::internal("the coordinator ended the line before it said anything"))
}

pub(super) async fn stop(one: One) -> Result<Answer, Failure> {
    let mut remote = one.operator.connect().await?;
    let request = v1::StopRequest { name: one.run, why: "sapwood run stop".to_owned() };
    let run: RunView = view(&remote.client.stop_run(request).await.map_err(|s| refused(&s))?.into_inner())?;
    Ok(Answer::new(&run, describe(&run)))
}

pub(super) async fn result(one: One, out: PathBuf) -> Result<Answer, Failure> {
    let mut remote = one.operator.connect().await?;
    let run = fetch(&mut remote, &one.run).await?;
    let model = Model::decode(&remote.get(run.model).await?).or_fail(Exit::Internal)?;
    let raw = remote.get(run.params).await?;
    let flat: Vec<f32> = raw.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let (layout, _) = parameters(&model, &run.freeze).or_fail(Exit::Internal)?;
    let trained = write_back(&model, &layout, &flat).or_fail(Exit::Internal)?;
    let size = write_model(&out, &trained)?;
    let digest = Digest::of(&trained.encode());
    let text = format!("{}: {} after {} rounds, {digest}\nprivacy: {}", out.display(), bytes(size), run.rounds.len(), run.privacy);
    Ok(Answer::new(json!({"file": out, "bytes": size, "digest": digest, "rounds": run.rounds.len(), "privacy": run.privacy}), text))
}

fn describe(run: &RunView) -> String {
    let mut text = format!("{}: {}, round {} of {}, {} parameters", run.run, run.state, run.round, run.of_rounds, run.parameters);
    if let Some(detail) = &run.detail {
        text.push_str(&format!("\n{detail}"));
    }
    text.push_str(&format!("\nprivacy: {}", run.privacy));
    if let Some(release) = &run.release {
        text.push_str(&format!("\nrelease: {release}"));
    }
    if !run.rounds.is_empty() {
        text.push('\n');
        text.push_str(&rounds_table(&run.rounds));
    }
    text
}

/// One line a round.
pub(crate) fn rounds_table(rounds: &[RoundView]) -> String {
    let number = |v: Option<f64>| v.map_or_else(String::new, |v| format!("{v:.4}"));
    let rows: Vec<_> = rounds
        .iter()
        .map(|r| {
            vec![
                r.round.to_string(),
                format!("{}/{}", r.updates, r.asked),
                number(r.accuracy),
                number(r.loss),
                number(r.train_loss),
                bytes(r.bytes),
                format!("{:.2}s", r.seconds),
            ]
        })
        .collect();
    table(&["round", "nodes", "accuracy", "loss", "train loss", "bytes", "time"], &rows)
}
