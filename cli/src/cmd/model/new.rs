//! `model new`.

use sapwood_models::{inspect, zoo};
use sapwood_protocol::Digest;
use serde_json::json;

use super::{Kind, NewArgs, write_model};
use crate::output::{Answer, Failure, OrFail as _, bytes};

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
    let found = inspect(&model);
    Ok(Answer::new(
        json!({"file": args.out, "bytes": size, "digest": digest, "parameters": found.parameters}),
        format!("{}: {} parameters, {}, {digest}", args.out.display(), found.parameters, bytes(size)),
    ))
}
