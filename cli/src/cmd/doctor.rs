//! `sapwood doctor`: what is missing on this machine, and how to get it.

use std::{path::PathBuf, process::Command, thread};

use sapwood_runtime::Runtime;
use serde_json::json;

use crate::output::{Answer, Exit, Failure, chain, table};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Look for ONNX Runtime here only.
    #[arg(long)]
    ort_lib: Option<PathBuf>,
}

/// One thing that was looked at.
struct Check {
    what: &'static str,
    found: Result<String, (String, &'static str)>,
    /// Without it Sapwood does not work.
    needed: bool,
}

pub(crate) fn run(args: &Args) -> Result<Answer, Failure> {
    let checks = [
        Check { what: "ONNX Runtime", found: runtime(args), needed: true },
        Check {
            what: "cores",
            found: thread::available_parallelism().map(|n| n.to_string()).map_err(|e| (e.to_string(), "")),
            needed: true,
        },
        Check { what: "temporary folder", found: temporary(), needed: true },
        Check {
            what: "python3 with pip",
            found: program("python3", &["-m", "pip", "--version"], "needed only by `sapwood runtime install`"),
            needed: false,
        },
        Check { what: "openssl", found: program("openssl", &["version"], "needed only to verify releases without Sapwood"), needed: false },
    ];
    let rows: Vec<_> = checks
        .iter()
        .map(|c| match &c.found {
            Ok(found) => vec![c.what.to_owned(), "ok".into(), found.clone()],
            Err((why, hint)) => vec![c.what.to_owned(), if c.needed { "MISSING" } else { "absent" }.into(), format!("{why}; {hint}")],
        })
        .collect();
    let data = json!({"checks": checks.iter().map(|c| json!({"what": c.what, "ok": c.found.is_ok(), "needed": c.needed,
        "found": c.found.as_ref().ok(), "why": c.found.as_ref().err().map(|(why, _)| why)})).collect::<Vec<_>>()});
    let text = table(&["what", "state", "detail"], &rows);
    if checks.iter().any(|c| c.needed && c.found.is_err()) {
        return Err(Failure::new(Exit::NotFound, format!("this machine is not ready\n{text}")).data(data));
    }
    Ok(Answer::new(data, text))
}

fn runtime(args: &Args) -> Result<String, (String, &'static str)> {
    let hint = "run `sapwood runtime install`";
    let found = Runtime::find(args.ort_lib.as_deref()).map_err(|e| (chain(&e), hint))?;
    let runtime = Runtime::load(args.ort_lib.as_deref()).map_err(|e| (chain(&e), hint))?;
    Ok(format!("{} at {}", runtime.version(), found.path.display()))
}

fn temporary() -> Result<String, (String, &'static str)> {
    let made = tempfile::tempdir().map_err(|e| (e.to_string(), "set TMPDIR to a folder that can be written"))?;
    Ok(made.path().parent().unwrap_or(made.path()).display().to_string())
}

fn program(name: &str, args: &[&str], hint: &'static str) -> Result<String, (String, &'static str)> {
    match Command::new(name).args(args).output() {
        Ok(out) if out.status.success() => Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned()),
        Ok(out) => Err((String::from_utf8_lossy(&out.stderr).trim().to_owned(), hint)),
        Err(e) => Err((e.to_string(), hint)),
    }
}
