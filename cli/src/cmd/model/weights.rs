//! `model weights`.

use std::path::Path;

use sapwood_data::save_npz;
use sapwood_models::torch::state_dict;
use serde_json::json;

use super::read_model;
use crate::output::{Answer, Failure, OrFail as _, table};

/// A network's tensors under their PyTorch names, into an `.npz`.
pub(super) fn weights(file: &Path, out: &Path) -> Result<Answer, Failure> {
    let found = state_dict(&read_model(file)?).or_usage()?;
    save_npz(out, found.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))).or_usage()?;
    let told = |(name, tensor): (&String, &sapwood_models::Tensor)| json!({"name": name, "element": format!("{:?}", tensor.element()), "shape": tensor.shape});
    let renamed = |(from, to): &(String, String)| json!({"from": from, "to": to});
    let data = json!({
        "file": out,
        "tensors": found.tensors.iter().map(told).collect::<Vec<_>>(),
        "renamed": found.renamed.iter().map(renamed).collect::<Vec<_>>(),
        "unnamed": found.unnamed,
        "left_out": found.left_out,
        "warnings": found.warnings,
    });
    let rows: Vec<_> =
        found.tensors.iter().map(|(name, tensor)| vec![name.clone(), format!("{:?}{:?}", tensor.element(), tensor.shape)]).collect();
    let mut text = vec![table(&["tensor", "shape"], &rows)];
    text.extend(found.unnamed.iter().map(|name| format!("warning: what PyTorch calls `{name}` is not known")));
    text.extend(found.warnings.iter().map(|warning| format!("warning: {warning}")));
    text.push(format!("{}: {} tensors, {} of them renamed", out.display(), found.tensors.len(), found.renamed.len()));
    Ok(Answer::new(data, text.join("\n")))
}
