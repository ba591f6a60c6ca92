//! `model new` and `model inspect`.

use std::path::Path;

use sapwood_models::{Dim, ValueInfo, inspect as inspect_model, zoo};
use sapwood_protocol::Digest;
use serde_json::json;

use super::{Kind, NewArgs, read_model, write_model};
use crate::output::{Answer, Failure, OrFail as _, bytes, table};

pub(super) fn new(args: &NewArgs) -> Result<Answer, Failure> {
    let image = || {
        <[usize; 3]>::try_from(args.shape.as_slice())
            .map_err(|_| Failure::usage("--shape of an image model is channels,height,width, such as 1,8,8"))
    };
    if args.shape.contains(&0) || args.hidden.contains(&0) || args.classes == 0 {
        return Err(Failure::usage("--shape, --hidden and --classes are at least 1"));
    }
    let model = match args.kind {
        Kind::Mlp => zoo::mlp(args.shape.iter().product(), &args.hidden, args.classes, args.seed),
        Kind::Cnn => zoo::cnn(image()?, args.classes, args.seed),
        Kind::Lenet => zoo::lenet(args.classes, args.seed),
        Kind::Mobilenet => zoo::mobilenet(image()?, args.classes, args.seed),
        Kind::Lstm => match (args.shape.as_slice(), args.hidden.as_slice()) {
            (&[steps, features], &[hidden]) => {
                let build = if args.lengths { zoo::lstm_with_lengths } else { zoo::lstm };
                build([steps, features], hidden, args.classes, args.seed)
            }
            _ => return Err(Failure::usage("an lstm has --shape steps,features, such as 28,28, and one --hidden")),
        },
        Kind::Transformer => {
            let &[length] = args.shape.as_slice() else {
                return Err(Failure::usage("--shape of a transformer is the number of its tokens, such as 80"));
            };
            let &NewArgs { vocabulary, width, heads, layers, .. } = args;
            zoo::Transformer { length, vocabulary, width, heads, layers }.build(args.classes, args.seed).or_usage()?
        }
        Kind::Scale => zoo::scale(&args.shape, args.factor),
        Kind::Normalize => zoo::normalize(&args.shape, &args.mean, &args.std).or_usage()?,
        Kind::OneHot => match args.depth {
            Some(depth) => zoo::one_hot(&args.shape, depth).or_usage()?,
            None => return Err(Failure::usage("a one-hot graph has --depth, the number of categories")),
        },
        Kind::Resize => {
            let &[height, width] = args.to.as_slice() else {
                return Err(Failure::usage("a resize graph has --to height,width, such as 32,32"));
            };
            let interpolation = if args.nearest { zoo::Interpolation::Nearest } else { zoo::Interpolation::Linear };
            zoo::resize(image()?, [height, width], interpolation).or_usage()?
        }
    };
    let size = write_model(&args.out, &model)?;
    let digest = Digest::of(&model.encode());
    let found = inspect_model(&model);
    Ok(Answer::new(
        json!({"file": args.out, "bytes": size, "digest": digest, "parameters": found.parameters}),
        format!("{}: {} parameters, {}, {digest}", args.out.display(), found.parameters, bytes(size)),
    ))
}

pub(super) fn inspect(file: &Path) -> Result<Answer, Failure> {
    let model = read_model(file)?;
    let found = inspect_model(&model);
    let data = json!({
        "parameters": found.parameters,
        "trainable": found.trainable,
        "inputs": found.inputs.iter().map(value).collect::<Vec<_>>(),
        "outputs": found.outputs.iter().map(value).collect::<Vec<_>>(),
        "operators": found.operators,
        "untrainable": found.untrainable.iter().map(|u| json!({"node": u.node, "op": u.op, "reason": u.reason})).collect::<Vec<_>>(),
    });
    let mut rows = Vec::new();
    for (what, values) in [("input", &found.inputs), ("output", &found.outputs)] {
        rows.extend(values.iter().map(|v| vec![what.to_owned(), v.name.clone(), shape(v)]));
    }
    rows.extend(found.operators.iter().map(|(op, count)| vec!["operator".to_owned(), op.clone(), count.to_string()]));
    rows.extend(found.untrainable.iter().map(|u| vec!["untrainable".to_owned(), format!("{} ({})", u.node, u.op), u.reason.clone()]));
    let text = format!("{} parameters, {} trainable\n{}", found.parameters, found.trainable, table(&["what", "name", "value"], &rows));
    Ok(Answer::new(data, text))
}

fn value(v: &ValueInfo) -> serde_json::Value {
    json!({"name": v.name, "element": format!("{:?}", v.element), "shape": v.shape.iter().map(dim).collect::<Vec<_>>()})
}

fn shape(v: &ValueInfo) -> String {
    let dims: Vec<String> = v.shape.iter().map(|d| dim(d).to_string().replace('"', "")).collect();
    format!("{:?}[{}]", v.element, dims.join(", "))
}

fn dim(dim: &Dim) -> serde_json::Value {
    match dim {
        Dim::Fixed(n) => json!(n),
        Dim::Symbol(name) => json!(name),
    }
}
