//! Where in the network a node comes from, as its exporter says.

use crate::onnx::pb;

/// The property in which the newer exporter keeps it, as Python prints a list of texts.
const SCOPES: &str = "pkg.torch.onnx.name_scopes";

/// The module of the network that a node was in, such as `encoder.linear1`; empty for the network itself. `None` if the file does not say.
pub(super) fn module(node: &pb::NodeProto) -> Option<String> {
    if let Some(scopes) = node.metadata_props.iter().find(|entry| entry.key() == SCOPES) {
        // ['', 'encoder', 'encoder.linear1', 'linear']: from the network inwards, and the operation.
        let quoted: Vec<&str> = scopes.value().split('\'').skip(1).step_by(2).collect();
        return quoted.len().checked_sub(2).map(|inner| quoted[inner].to_owned());
    }
    // /encoder/layers/layers.0/MatMul: what lies in a list repeats the name of the list.
    let mut parts: Vec<&str> = node.name().strip_prefix('/')?.split('/').collect();
    parts.pop();
    let mut found: Vec<&str> = Vec::new();
    for part in parts {
        let inner = |outer: &&str| part.strip_prefix(*outer).is_some_and(|rest| rest.starts_with('.'));
        if found.last().is_some_and(inner) {
            found.pop();
        }
        found.push(part);
    }
    Some(found.join("."))
}

/// Whether an exporter made the name up.
pub(super) fn is_anonymous(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    name.starts_with("onnx::") || name.contains('/') || number(name) || name.strip_prefix("val_").is_some_and(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::make;

    fn of(name: &str, scopes: Option<&str>) -> Option<String> {
        let mut node = make::node("MatMul", name, &[], &["y"], vec![]);
        let entry = |value: &str| pb::StringStringEntryProto { key: Some(SCOPES.into()), value: Some(value.into()) };
        node.metadata_props.extend(scopes.map(entry));
        module(&node)
    }

    #[test]
    fn both_exporters_say_where_a_node_was() {
        for (name, module) in [
            ("/encoder/linear1/MatMul", "encoder.linear1"),
            ("/0/0.0/Conv", "0.0"),
            ("/1/body/body.0/body.0.1/BatchNormalization", "1.body.0.1"),
            ("/layers/layers.0/linear1/MatMul_1", "layers.0.linear1"),
            ("/Add", ""),
        ] {
            assert_eq!(of(name, None).as_deref(), Some(module), "{name}");
        }
        assert_eq!(of("node_linear", None), None);
        assert_eq!(of("node_linear", Some("['', 'encoder', 'encoder.linear1', 'linear']")).as_deref(), Some("encoder.linear1"));
        assert_eq!(of("node_add", Some("['', 'add']")).as_deref(), Some(""));
        assert_eq!(of("node_add", Some("[]")), None);
    }

    #[test]
    fn made_up_names_are_told_from_real_ones() {
        for name in ["onnx::MatMul_289", "val_12", "/encoder/Transpose_output_0", "117"] {
            assert!(is_anonymous(name), "{name}");
        }
        for name in ["encoder.linear1.weight", "places", "val_", "val_a", "0.weight"] {
            assert!(!is_anonymous(name), "{name}");
        }
    }
}
