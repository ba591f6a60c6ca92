//! `model convert`.

use sapwood_models::{
    inspect,
    lora::{Lora, attach, merge},
};
use sapwood_protocol::Digest;
use serde_json::json;

use super::{ConvertArgs, read_model, write_model};
use crate::output::{Answer, Failure, OrFail, bytes};

pub(super) fn convert(args: &ConvertArgs) -> Result<Answer, Failure> {
    let model = read_model(&args.file)?;
    let converted = match args.lora {
        Some(rank) => {
            let alpha = args.alpha.unwrap_or(rank as f32);
            attach(&model, &Lora { rank, alpha, targets: args.targets.clone() }, args.seed).or_usage()?
        }
        None => merge(&model).or_usage()?,
    };
    let size = write_model(&args.out, &converted)?;
    let digest = Digest::of(&converted.encode());
    let parameters = inspect(&converted).parameters;
    let hint = if args.lora.is_some() { "\ntrain with --freeze '*,!*.lora_b'" } else { "" };
    Ok(Answer::new(
        json!({"file": args.out, "bytes": size, "digest": digest, "parameters": parameters}),
        format!("{}: {parameters} parameters, {}, {digest}{hint}", args.out.display(), bytes(size)),
    ))
}
