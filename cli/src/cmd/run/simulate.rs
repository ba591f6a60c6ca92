//! `run simulate`: the daemons' round code in one process, without a network.

use std::{fs, path::Path};

use sapwood_data::{DataError, Partition, Schema, Source, load_columns, partition};
use sapwood_models::{Dataset, compose};
use sapwood_protocol::spec::Spec;
use sapwood_simulator::{NodeData, Options, preprocess, simulate as run};
use serde_json::json;

use super::{SimulateArgs, remote::rounds_table};
use crate::{
    cmd::model::{read_model, write_model},
    output::{Answer, Exit, Failure, OrFail},
    progress,
};

pub(super) fn simulate(args: &SimulateArgs, json: bool) -> Result<Answer, Failure> {
    let text = fs::read_to_string(&args.file).map_err(|e| Failure::new(Exit::NotFound, format!("{}: {e}", args.file.display())))?;
    let folder = args.file.parent().unwrap_or(Path::new("."));
    let mut spec = Spec::parse(&text)?;
    let model = read_model(&folder.join(&spec.model.file))?;
    let prefix = spec.model.preprocess.as_ref().map(|name| read_model(&folder.join(name))).transpose()?;

    let name = args.data.clone().or_else(|| spec.data.source.clone());
    let name = name.ok_or_else(|| Failure::usage("which data?").hint("name it with --data, or as data.source in the file"))?;
    let schema = spec.data.schema.as_ref().map(|name| Schema::read(&folder.join(name))).transpose().or_usage()?;
    if let Some(schema) = &schema {
        let joined = prefix.as_ref().map(|graph| compose(graph, &model)).transpose().or_usage()?;
        schema.fits(&joined.as_ref().unwrap_or(&model).inputs()).or_usage()?;
    }
    // What the file names lies beside the file.
    let named = |name: &str| source(name).map(|source| source.relative_to(folder));
    let from = if args.data.is_some() { source(&name)? } else { named(&name)? };
    let how: Partition = args.partition.parse().or_usage()?;
    let key = spec.privacy.entity_key.clone();
    // The classes are no column.
    let dealt_by = match &how {
        Partition::Column(name) if name != "label" => Some(name.as_str()),
        _ => None,
    };
    let asked: Vec<&str> = key.as_deref().into_iter().chain(dealt_by).collect();
    let (data, columns) = load_columns(&from, schema.as_ref(), &asked).or_usage()?;
    let parts = partition(&data, &columns, args.nodes, &how, spec.seed).or_usage()?;
    let prepare = |data: Dataset| match &prefix {
        Some(graph) => preprocess(graph, data).or_usage(),
        None => Ok(data),
    };
    let of = |rows: &Vec<usize>| {
        let entities = key.as_deref().and_then(|key| columns.subset(rows).groups(key));
        Ok::<_, Failure>(NodeData { data: prepare(data.subset(rows))?, entities })
    };
    let nodes = parts.iter().map(of).collect::<Result<Vec<_>, _>>()?;
    let scored = |source: &Source| match load_columns(source, schema.as_ref(), &asked) {
        // Whoever is scored need not be told apart.
        Err(DataError::NoColumn { .. }) => sapwood_data::load(source, schema.as_ref()),
        read => read.map(|(data, _)| data),
    };
    let evaluation = spec.evaluate.data.as_deref().map(|name| prepare(scored(&named(name)?).or_usage()?));
    let evaluation = evaluation.transpose()?;
    // A cohort that is larger than the fleet would never come together.
    let fleet = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    spec.limit_cohort(fleet);

    let loss = spec.model.loss.graph.as_ref().map(|name| read_model(&folder.join(name))).transpose()?;
    let options = Options { drop: args.drop, loss, ..Options::default() };
    let bar = progress::bar(u64::from(spec.train.rounds), "rounds", json);
    let outcome = run(&spec, &model, nodes, evaluation, &options, &mut |round| {
        bar.inc(1);
        let said = round.accuracy.map(|a| format!("accuracy {a:.4}")).or(round.train_loss.map(|loss| format!("train loss {loss:.4}")));
        bar.set_message(said.unwrap_or_default());
    });
    bar.finish_and_clear();
    let outcome = outcome.or_usage()?;
    if let Some(out) = &args.out {
        write_model(out, &outcome.model)?;
    }
    let text = format!("{}\nprivacy: {}", rounds_table(&outcome.view.rounds), outcome.view.privacy);
    Ok(Answer::new(json!(outcome.view), text))
}

fn source(name: &str) -> Result<Source, Failure> {
    name.parse().or_usage()
}
