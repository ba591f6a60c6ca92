//! `run submit`: the file and what it names.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sapwood_data::{DataError, Schema, Source};
use sapwood_proto::v1;
use sapwood_protocol::{spec::Spec, view::RunView};
use serde_json::json;

use super::{One, SubmitArgs, remote};
use crate::{
    output::{Answer, Exit, Failure},
    remote::{Remote, refused, view},
};

pub(super) async fn submit(args: SubmitArgs, json: bool) -> Result<Answer, Failure> {
    let text = read(&args.file)?;
    let folder = args.file.parent().unwrap_or(Path::new(".")).to_owned();
    let mut remote = args.operator.connect().await?;
    let run = submit_spec(&mut remote, &text, &folder, args.token.as_deref()).await?;
    if args.watch {
        return remote::watch(One { run: run.run.to_string(), operator: args.operator }, json).await;
    }
    let text = format!("{} submitted: {} rounds\n{}\nfollow it with: sapwood run watch {}", run.run, run.of_rounds, privacy(&run), run.run);
    Ok(Answer::new(json!(run), text))
}

/// Who can see what; and under a budget what the noise does to learning, before anybody trains.
pub(crate) fn privacy(run: &RunView) -> String {
    let Some(spent) = &run.spent else { return format!("privacy: {}", run.privacy) };
    let verdict = if spent.noise_to_clip > 1.0 { ", so a round's update is mostly noise" } else { "" };
    format!(
        "privacy: {}\nforecast: the noise is {:.3} times as long as the clip norm{verdict}; signal to noise of the whole run at best {:.2}",
        run.privacy, spent.noise_to_clip, spent.signal_to_noise
    )
}

/// Checks the file here, so that a mistake costs no upload; stores what it names; submits.
pub(crate) async fn submit_spec(remote: &mut Remote, text: &str, folder: &Path, token: Option<&str>) -> Result<RunView, Failure> {
    let spec = Spec::parse(text)?;
    match spec.data.schema.as_ref().map(|name| Schema::read(&folder.join(name))) {
        // Whether it is there is told when it is sent.
        None | Some(Ok(_) | Err(DataError::Io { .. })) => {}
        Some(Err(error)) => return Err(Failure::usage(format!("data.schema: {error}"))),
    }
    let objects = remote.put_all(&named_files(&spec, folder)?).await?;
    // Without a word of the caller's, the submission's own bytes are the word: sent twice by accident, it runs once.
    let token =
        token.map_or_else(|| sapwood_protocol::Digest::of(format!("{text}{}", crate::clock::now()).as_bytes()).hex(), str::to_owned);
    let request = v1::SubmitRunRequest { spec: text.to_owned(), objects, token };
    view(&remote.client.submit_run(request).await.map_err(|s| refused(&s))?.into_inner())
}

/// Files that the spec names and the coordinator needs: models, loss, schema, and data sets that are files.
fn named_files(spec: &Spec, folder: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
    let models = [Some(&spec.model.file), spec.model.loss.graph.as_ref(), spec.model.preprocess.as_ref(), spec.data.schema.as_ref()];
    let mut files: Vec<(String, PathBuf)> = models.into_iter().flatten().map(|name| (name.clone(), folder.join(name))).collect();
    for name in [spec.evaluate.data.as_ref(), spec.release.calibration.as_ref()].into_iter().flatten() {
        if name.starts_with("sha256:") {
            continue;
        }
        let source: Source = name.parse().map_err(|e| Failure::usage(format!("{name}: {e}")))?;
        if let Source::Path(path) = source {
            if path.extension().is_none_or(|e| e != "npz") {
                return Err(
                    Failure::usage(format!("{name}: only an .npz travels to the coordinator")).hint("numpy.savez(\"test.npz\", x=x, y=y)")
                );
            }
            files.push((name.clone(), folder.join(name)));
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|e| Failure::new(Exit::NotFound, format!("{}: {e}", path.display())))
}
