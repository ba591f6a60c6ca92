//! Each refusal of [`Model::decode`], and the round trips.

use prost::Message as _;

use super::make::{batched, int, node, value};
use super::pb::tensor_proto::{DataLocation, DataType};
use super::pb::{AttributeProto, GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto, TensorProto};
use super::*;
use crate::tensor::{Tensor, TensorData};

type Edit = Box<dyn Fn(&mut TensorProto)>;

/// y = x + b.
fn proto() -> ModelProto {
    let graph = GraphProto {
        name: Some("g".into()),
        node: vec![node("Add", "add", &["x", "b"], &["y"], vec![])],
        initializer: vec![write_tensor("b", &Tensor::f32([2], vec![1.0, 2.0]).unwrap())],
        input: vec![value(&batched("x", &[2]))],
        output: vec![value(&batched("y", &[2]))],
        ..Default::default()
    };
    ModelProto { ir_version: Some(8), graph: Some(graph), opset_import: vec![opset("", 17)], ..Default::default() }
}

fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) }
}

fn graph(edit: impl FnOnce(&mut GraphProto)) -> Result<Model, ModelError> {
    let mut proto = proto();
    edit(proto.graph.as_mut().unwrap());
    Model::decode(&proto.encode_to_vec())
}

fn tensor(edit: impl FnOnce(&mut TensorProto)) -> Result<Model, ModelError> {
    graph(|g| edit(&mut g.initializer[0]))
}

fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) }
}

#[test]
fn a_good_file_comes_back_byte_for_byte() {
    let bytes = proto().encode_to_vec();
    let model = Model::decode(&bytes).unwrap();
    assert_eq!(model.encode(), bytes);
    assert_eq!(model.opset(), 17);
    assert_eq!(model.inputs(), [batched("x", &[2])]);
    assert_eq!(model.outputs(), [batched("y", &[2])]);
}

#[test]
fn an_initialized_input_need_not_be_given() {
    let model = graph(|g| g.input.push(value(&batched("b", &[2])))).unwrap();
    assert_eq!(model.inputs().len(), 1);
}

#[test]
fn every_truncation_is_refused_or_checked_but_never_panics() {
    let bytes = proto().encode_to_vec();
    for end in 0..bytes.len() {
        assert!(Model::decode(&bytes[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn trailing_bytes_are_refused() {
    let mut bytes = proto().encode_to_vec();
    for garbage in [&b"\x00"[..], b"\xff\xff", b"garbage", b"\x5a\x01x", b"\x08\x09"] {
        let length = bytes.len();
        bytes.extend_from_slice(garbage);
        let refused = Model::decode(&bytes).unwrap_err();
        assert!(matches!(refused, ModelError::Malformed { .. }), "{garbage:?}: {refused}");
        bytes.truncate(length);
    }
    // A second graph would be merged into the first one by protobuf's rules.
    let twice = [proto().encode_to_vec(), ModelProto { opset_import: vec![], ..proto() }.encode_to_vec()];
    assert!(matches!(Model::decode(&twice.concat()), Err(ModelError::Malformed { .. })));
}

#[test]
fn limits_bound_bytes_messages_nodes_and_initializers() {
    let bytes = proto().encode_to_vec();
    let limits = Limits::default();
    let check = |limits: Limits| Model::decode_within(&bytes, &limits).unwrap_err();
    assert!(matches!(check(Limits { bytes: bytes.len() - 1, ..limits }), ModelError::TooLarge { .. }));
    for (what, limits) in [
        ("messages", Limits { messages: 4, ..limits }),
        ("nodes", Limits { nodes: 0, ..limits }),
        ("initializers", Limits { initializers: 0, ..limits }),
    ] {
        let refused = check(limits);
        assert!(matches!(&refused, ModelError::TooMany { what: w, .. } if *w == what), "{refused}");
    }
    let many = graph(|g| {
        g.node[0].attribute = (0..300).map(|i| int(&format!("a{i}"), i)).collect();
    });
    assert!(matches!(many, Err(ModelError::TooMany { what: "attributes in one node", .. })));
}

#[test]
fn deep_nesting_is_refused_before_it_is_built() {
    fn nested(depth: usize) -> GraphProto {
        let mut graph = proto().graph.unwrap();
        if depth > 0 {
            let attribute = AttributeProto {
                name: Some("body".into()),
                r#type: Some(pb::attribute_proto::AttributeType::Graph as i32),
                g: Some(nested(depth - 1)),
                ..Default::default()
            };
            graph.node[0].attribute.push(attribute);
        }
        graph
    }
    let encode = |depth| ModelProto { graph: Some(nested(depth)), ..proto() }.encode_to_vec();
    assert_eq!(Model::decode(&encode(8)), Err(ModelError::TooDeep { limit: 8 }));
    assert_eq!(Model::decode(&encode(90)), Err(ModelError::TooDeep { limit: 8 }));
    // Names may not be defined anew inside, so the shallow nest fails on those, not on depth.
    assert!(!matches!(Model::decode(&encode(2)), Err(ModelError::TooDeep { .. })));
}

#[test]
fn a_missing_graph_is_refused() {
    let none = ModelProto { graph: None, ..proto() };
    assert_eq!(Model::decode(&none.encode_to_vec()), Err(ModelError::MissingGraph));
    assert_eq!(graph(|g| g.output.clear()), Err(ModelError::MissingGraph));
}

#[test]
fn opsets_outside_the_range_are_refused() {
    let with = |opsets| Model::decode(&ModelProto { opset_import: opsets, ..proto() }.encode_to_vec());
    assert!(matches!(with(vec![]), Err(ModelError::MissingOpset { .. })));
    assert!(matches!(with(vec![opset("ai.onnx.ml", 3)]), Err(ModelError::MissingOpset { .. })));
    for bad in [-1, 0, 6, 25, i64::MAX] {
        let refused = with(vec![opset("", bad)]).unwrap_err();
        assert!(matches!(refused, ModelError::Opset { found, .. } if found == bad), "{refused}");
    }
    for good in [7, 13, 24] {
        assert!(with(vec![opset("ai.onnx", good)]).is_ok());
    }
}

#[test]
fn operators_of_domains_that_are_not_imported_are_refused() {
    let refused = graph(|g| g.node[0].domain = Some("com.example".into())).unwrap_err();
    assert!(matches!(&refused, ModelError::UnknownDomain { domain, .. } if domain == "com.example"));
    assert!(refused.to_string().contains("node `add`"), "{refused}");
    let function = pb::FunctionProto { name: Some("f".into()), domain: Some("com.example".into()), ..Default::default() };
    let proto = ModelProto { functions: vec![function], ..proto() };
    let refused = Model::decode(&proto.encode_to_vec()).unwrap_err();
    assert!(refused.to_string().contains("function `f`"), "{refused}");
}

#[test]
fn external_data_is_refused_with_its_location() {
    for (location, climbs) in [
        ("weights.bin", false),
        ("a..b/c", false),
        ("../../etc/passwd", true),
        ("/etc/passwd", true),
        ("a\\..\\b", true),
        ("C:\\x", true),
        ("a/../../b", true),
    ] {
        let refused = tensor(|t| {
            t.raw_data = None;
            t.data_location = Some(DataLocation::External as i32);
            t.external_data = vec![entry("location", location)];
        })
        .unwrap_err();
        let ModelError::ExternalData { tensor, location: found, traversal } = &refused else { panic!("{refused}") };
        assert_eq!((tensor.as_str(), found.as_str(), *traversal), ("b", location, climbs));
        assert_eq!(refused.to_string().contains("outside its folder"), climbs, "{refused}");
    }
    // Also without the location flag, and inside attributes.
    let quiet = tensor(|t| t.external_data = vec![entry("location", "x")]);
    assert!(matches!(quiet, Err(ModelError::ExternalData { .. })));
    let inside = graph(|g| {
        let t = TensorProto { data_location: Some(DataLocation::External as i32), ..g.initializer[0].clone() };
        g.node[0].attribute.push(AttributeProto { t: Some(t), ..int("value", 0) });
    });
    assert!(matches!(inside, Err(ModelError::ExternalData { .. })));
}

#[test]
fn tensors_whose_dims_and_payload_disagree_are_refused() {
    let edits: [(&str, Edit); 10] = [
        ("7 bytes", Box::new(|t| t.raw_data = Some(vec![0; 7]))),
        ("no bytes", Box::new(|t| t.raw_data = None)),
        ("negative dim", Box::new(|t| t.dims = vec![-2])),
        ("overflow", Box::new(|t| t.dims = vec![i64::MAX, i64::MAX])),
        ("wraps to 2", Box::new(|t| t.dims = vec![1 << 33, 1 << 31, 2])),
        ("too many dims", Box::new(|t| t.dims = vec![1; 33])),
        ("both fields", Box::new(|t| t.float_data = vec![1.0, 2.0])),
        ("no type", Box::new(|t| t.data_type = None)),
        ("unknown type", Box::new(|t| t.data_type = Some(99))),
        ("raw strings", Box::new(|t| t.data_type = Some(DataType::String as i32))),
    ];
    for (what, edit) in edits {
        let refused = tensor(|t| edit(t)).expect_err(what);
        assert!(matches!(refused, ModelError::BadTensor { .. }), "{what}: {refused}");
    }
}

#[test]
fn values_must_be_defined_once_and_before_use() {
    let add = |name: &str, inputs: &[&str], output: &str| node("Add", name, inputs, &[output], vec![]);
    let duplicate = graph(|g| g.node.push(add("again", &["x", "b"], "y"))).unwrap_err();
    assert!(matches!(&duplicate, ModelError::DuplicateValue { value, .. } if value == "y"));
    assert!(duplicate.to_string().contains("node `again`"), "{duplicate}");

    let overwrite = graph(|g| g.node[0].output[0] = "x".into());
    assert!(matches!(overwrite, Err(ModelError::DuplicateValue { .. })));
    let twice = graph(|g| g.initializer.push(g.initializer[0].clone()));
    assert!(matches!(twice, Err(ModelError::DuplicateValue { .. })));

    let undefined = graph(|g| g.node[0].input[1] = "nothing".into()).unwrap_err();
    assert!(matches!(&undefined, ModelError::UndefinedValue { value, .. } if value == "nothing"));
    let output = graph(|g| g.output[0].name = Some("nothing".into()));
    assert!(matches!(output, Err(ModelError::UndefinedValue { .. })));

    let later = graph(|g| {
        g.node[0].input[1] = "z".into();
        g.node.push(add("late", &["x", "b"], "z"));
    })
    .unwrap_err();
    assert_eq!(later, ModelError::Unordered { node: "node `add`".into(), value: "z".into() });
    let cycle = graph(|g| g.node[0].input[1] = "y".into());
    assert!(matches!(cycle, Err(ModelError::Unordered { .. })));
}

#[test]
fn repeated_attributes_are_refused() {
    let refused = graph(|g| g.node[0].attribute = vec![int("axis", 0), int("axis", 1)]);
    assert!(matches!(refused, Err(ModelError::BadNode { .. })));
}

#[test]
fn attributes_are_typed() {
    let n = node("Softmax", "s", &["x"], &["y"], vec![int("axis", -1)]);
    let attributes = Attributes::of(&n);
    assert_eq!(attributes.int("axis", 7).unwrap(), -1);
    assert_eq!(attributes.int("other", 7).unwrap(), 7);
    let wrong = attributes.float("axis", 0.0).unwrap_err();
    assert_eq!(wrong.to_string(), "node `s`: attribute `axis` is INT, it must be FLOAT");
}

#[test]
fn constants_take_every_numeric_form() {
    let attribute = |edit: &dyn Fn(&mut AttributeProto), name: &str, kind| {
        let mut a = AttributeProto { name: Some(name.into()), ..Default::default() };
        a.set_type(kind);
        edit(&mut a);
        constant(&node("Constant", "c", &[], &["c"], vec![a]))
    };
    use pb::attribute_proto::AttributeType::{Float, Floats, Int, Ints, String, Tensor as T};
    let value = TensorProto { name: None, ..write_tensor("", &Tensor::scalar(3.0)) };
    let read = attribute(&|a| a.t = Some(value.clone()), "value", T).unwrap().unwrap();
    assert_eq!(read, Tensor::scalar(3.0));
    let read = attribute(&|a| a.f = Some(0.5), "value_float", Float).unwrap().unwrap();
    assert_eq!(read, Tensor::scalar(0.5));
    let read = attribute(&|a| a.i = Some(4), "value_int", Int).unwrap().unwrap();
    assert_eq!((read.shape.len(), read.data), (0, TensorData::I64(vec![4])));
    let read = attribute(&|a| a.floats = vec![1.0, 2.0], "value_floats", Floats).unwrap().unwrap();
    assert_eq!(read, Tensor::f32([2], vec![1.0, 2.0]).unwrap());
    let read = attribute(&|a| a.ints = vec![1, 2], "value_ints", Ints).unwrap().unwrap();
    assert_eq!(read, Tensor::i64([2], vec![1, 2]).unwrap());
    assert!(attribute(&|a| a.s = Some(b"x".to_vec()), "value_string", String).is_err());
}

#[test]
fn tensors_are_read_from_raw_and_typed_fields() {
    let typed = |kind: DataType, dims: i64, edit: &dyn Fn(&mut TensorProto)| {
        let mut t = TensorProto { dims: vec![dims], data_type: Some(kind as i32), name: Some("t".into()), ..Default::default() };
        edit(&mut t);
        read_tensor(&t).map(|t| t.data)
    };
    use DataType::*;
    use TensorData as D;
    let cases: Vec<(DataType, Vec<u8>, Edit, D)> = vec![
        (
            Float,
            [1.5f32, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect(),
            Box::new(|t| t.float_data = vec![1.5, -2.0]),
            D::F32(vec![1.5, -2.0]),
        ),
        (
            Double,
            [1.5f64, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect(),
            Box::new(|t| t.double_data = vec![1.5, -2.0]),
            D::F32(vec![1.5, -2.0]),
        ),
        (
            Float16,
            [0x3e00u16, 0xc000].iter().flat_map(|v| v.to_le_bytes()).collect(),
            Box::new(|t| t.int32_data = vec![0x3e00, 0xc000]),
            D::F32(vec![1.5, -2.0]),
        ),
        (
            Bfloat16,
            [0x3fc0u16, 0xc000].iter().flat_map(|v| v.to_le_bytes()).collect(),
            Box::new(|t| t.int32_data = vec![0x3fc0, 0xc000]),
            D::F32(vec![1.5, -2.0]),
        ),
        (Int64, [7i64, -9].iter().flat_map(|v| v.to_le_bytes()).collect(), Box::new(|t| t.int64_data = vec![7, -9]), D::I64(vec![7, -9])),
        (Int32, [7i32, -9].iter().flat_map(|v| v.to_le_bytes()).collect(), Box::new(|t| t.int32_data = vec![7, -9]), D::I32(vec![7, -9])),
        (Uint8, vec![7, 255], Box::new(|t| t.int32_data = vec![7, 255]), D::U8(vec![7, 255])),
        (Int8, vec![7, 0xf7], Box::new(|t| t.int32_data = vec![7, -9]), D::I8(vec![7, -9])),
        (Bool, vec![1, 0], Box::new(|t| t.int32_data = vec![1, 0]), D::Bool(vec![true, false])),
    ];
    for (kind, raw, edit, want) in cases {
        assert_eq!(typed(kind, 2, &*edit).unwrap(), want, "{kind:?} typed");
        let raw = |t: &mut TensorProto| t.raw_data = Some(raw.clone());
        assert_eq!(typed(kind, 2, &raw).unwrap(), want, "{kind:?} raw");
        assert!(typed(kind, 3, &*edit).is_err(), "{kind:?} short");
    }
    assert!(typed(Int8, 1, &|t| t.int32_data = vec![200]).is_err());
    assert!(typed(Uint8, 1, &|t| t.int32_data = vec![-1]).is_err());
    assert!(typed(Complex64, 1, &|t| t.raw_data = Some(vec![0; 8])).is_err());
    assert_eq!(typed(Float16, 1, &|t| t.int32_data = vec![1]).unwrap(), D::F32(vec![2f32.powi(-24)]));
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Model::decode(&bytes);
        }

        #[test]
        fn a_flipped_bit_never_panics(at in 0usize..1000, bit in 0u8..8) {
            let mut bytes = proto().encode_to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(model) = Model::decode(&bytes) {
                // What passes the checks is readable.
                for t in &model.graph().initializer {
                    let _ = read_tensor(t);
                }
            }
        }

        #[test]
        fn tensors_round_trip(values in proptest::collection::vec(any::<f32>(), 0..50)) {
            let t = Tensor::f32([values.len()], values).unwrap();
            let back = read_tensor(&write_tensor("t", &t)).unwrap();
            prop_assert_eq!(back.shape, t.shape);
            let bits = |d: &TensorData| match d {
                TensorData::F32(v) => v.iter().map(|v| v.to_bits()).collect::<Vec<_>>(),
                _ => unreachable!(),
            };
            prop_assert_eq!(bits(&back.data), bits(&t.data));
        }
    }
}
