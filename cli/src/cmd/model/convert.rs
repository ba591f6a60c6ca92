//! `model convert`.

use sapwood_models::{
    Model, head, inspect,
    lora::{Lora, attach, merge},
    norm::{Normalized, group_norm},
};
use sapwood_protocol::Digest;
use serde_json::{Value, json};

use super::{ConvertArgs, Norm, read_model, write_model};
use crate::output::{Answer, Failure, OrFail, bytes};

pub(super) fn convert(args: &ConvertArgs) -> Result<Answer, Failure> {
    let model = read_model(&args.file)?;
    let (converted, changed, said) = match (args.lora, args.norm, args.head) {
        (Some(rank), ..) => {
            let alpha = args.alpha.unwrap_or(rank as f32);
            let adapted = attach(&model, &Lora { rank, alpha, targets: args.targets.clone() }, args.seed).or_usage()?;
            (adapted, json!({}), "\ntrain with --freeze '*,!*.lora_b'".to_owned())
        }
        (_, Some(Norm::Group), _) => grouped(&model, args.groups)?,
        (.., Some(classes)) => headed(&model, classes, args.seed)?,
        _ => (merge(&model).or_usage()?, json!({}), String::new()),
    };
    let size = write_model(&args.out, &converted)?;
    let digest = Digest::of(&converted.encode());
    let parameters = inspect(&converted).parameters;
    let mut data = json!({"file": args.out, "bytes": size, "digest": digest, "parameters": parameters});
    if let (Value::Object(data), Value::Object(changed)) = (&mut data, changed) {
        data.extend(changed);
    }
    Ok(Answer::new(data, format!("{}: {parameters} parameters, {}, {digest}{said}", args.out.display(), bytes(size))))
}

type Converted = (Model, Value, String);

fn grouped(model: &Model, groups: Option<usize>) -> Result<Converted, Failure> {
    let (converted, found) = group_norm(model, groups).or_usage()?;
    let line = |Normalized { node, channels, groups }: &Normalized| format!("\n  {node}: {channels} channels in {groups} groups");
    let lines: String = found.iter().map(line).collect();
    let said = format!(
        "\n{} batch normalizations became group normalizations; their running statistics are gone, so train before you use it{lines}",
        found.len()
    );
    let object = |n: &Normalized| json!({"node": n.node, "channels": n.channels, "groups": n.groups});
    Ok((converted, json!({"normalized": found.iter().map(object).collect::<Vec<_>>()}), said))
}

fn headed(model: &Model, classes: usize, seed: u64) -> Result<Converted, Failure> {
    let (converted, new) = head::replace(model, classes, seed).or_usage()?;
    let freeze = new.freeze();
    let head::Head { node, weight, bias, inputs, was } = new;
    let said =
        format!("\n{node}: {inputs} features, {was} answers became {classes}; train the head alone with --freeze '{}'", freeze.join(","));
    let head = json!({"node": node, "weight": weight, "bias": bias, "inputs": inputs, "was": was, "classes": classes, "freeze": freeze});
    Ok((converted, json!({"head": head}), said))
}
