//! `sapwood runtime install|show`

use std::path::PathBuf;

use clap::Subcommand;
use sapwood_runtime::{InstallOptions, Runtime};
use serde_json::json;

use crate::{
    output::{Answer, Exit, Failure, OrFail},
    progress,
};

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Fetch the pinned ONNX Runtime, check its digest and put it where every role finds it.
    #[command(
        after_help = "Examples:\n  sapwood runtime install\n  sapwood runtime install --wheel onnxruntime-1.28.0-….whl   (fetched by hand, for machines without a network)"
    )]
    Install {
        /// Where to put it; the default is the user's cache.
        #[arg(long)]
        cache: Option<PathBuf>,
        /// A wheel that was fetched by hand.
        #[arg(long)]
        wheel: Option<PathBuf>,
    },
    /// Which ONNX Runtime would be used, and from where.
    Show {
        /// Look here only.
        #[arg(long)]
        ort_lib: Option<PathBuf>,
    },
}

pub(crate) fn run(verb: Verb, json: bool) -> (&'static str, Result<Answer, Failure>) {
    match verb {
        Verb::Install { cache, wheel } => ("runtime install", install(cache, wheel, json)),
        Verb::Show { ort_lib } => ("runtime show", show(ort_lib)),
    }
}

fn install(cache: Option<PathBuf>, wheel: Option<PathBuf>, json: bool) -> Result<Answer, Failure> {
    let spinner = progress::spinner("ONNX Runtime", json);
    let options = InstallOptions { cache, wheel, ..InstallOptions::default() };
    let installed = sapwood_runtime::install(options, &mut |step| spinner.set_message(step.to_string())).or_fail(Exit::Internal);
    spinner.finish_and_clear();
    let installed = installed?;
    let path = installed.path.display().to_string();
    let what = if installed.already { "was here already" } else { "installed" };
    Ok(Answer::new(
        json!({"version": installed.version, "path": path, "already": installed.already}),
        format!("ONNX Runtime {} {what}: {path}", installed.version),
    ))
}

fn show(explicit: Option<PathBuf>) -> Result<Answer, Failure> {
    let hint = "sapwood runtime install";
    let found = Runtime::find(explicit.as_deref()).or_fail(Exit::NotFound).map_err(|f| f.hint(hint))?;
    let runtime = Runtime::load(explicit.as_deref()).or_fail(Exit::Internal)?;
    let path = found.path.display().to_string();
    Ok(Answer::new(json!({"version": runtime.version(), "path": path}), format!("ONNX Runtime {}: {path}", runtime.version())))
}
