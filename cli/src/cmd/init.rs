//! `sapwood init`: a deployment folder.

use std::{net::SocketAddr, path::PathBuf};

use sapwood_coordinator::pki::{CONTENTS, FoundOptions, found};
use sapwood_protocol::PopulationId;
use serde_json::json;

use crate::{
    clock,
    output::{Answer, Failure, OrFail, table},
};

#[derive(clap::Args)]
#[command(after_help = "Example:\n  sapwood init farm --name coordinator.example --listen 0.0.0.0:7443")]
pub(crate) struct Args {
    /// The folder; made if it is not there, left as it is if it is a deployment already.
    folder: PathBuf,
    /// The fleet's name.
    #[arg(long, default_value = "fleet")]
    population: PopulationId,
    /// Where the coordinator will listen.
    #[arg(long, default_value = "127.0.0.1:7443")]
    listen: SocketAddr,
    /// DNS names or addresses under which nodes and operators reach it, beside this machine's own.
    #[arg(long)]
    name: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<Answer, Failure> {
    let mut options = FoundOptions::local(args.population.clone(), args.listen);
    options.names.extend(args.name.iter().cloned());
    let deployment = found(&args.folder, &options, clock::now()).or_usage()?;
    let rows: Vec<_> = CONTENTS
        .iter()
        .map(|(path, secret, what)| vec![(*path).to_owned(), if *secret { "SECRET" } else { "" }.to_owned(), (*what).to_owned()])
        .collect();
    let state = if deployment.fresh { "made" } else { "was here already; nothing was changed" };
    let text = format!(
        "{} {state}\n{}\n\nAll keys lie in this one folder: fine for a trial. For a real fleet move authority/ to a machine of its own.\nNext: sapwood coordinator serve --config {}",
        args.folder.display(),
        table(&["file", "", "what for"], &rows),
        deployment.config().display(),
    );
    Ok(Answer::new(json!({"folder": args.folder, "fresh": deployment.fresh, "population": args.population}), text))
}
