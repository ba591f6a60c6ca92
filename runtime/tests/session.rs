//! Sessions on tiny models, with the pinned library provisioned as a user would.

use prost::Message as _;
use sapwood_models::{
    Dim, Element, Tensor, TensorData,
    onnx::pb::{
        GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
        tensor_shape_proto::{Dimension, dimension::Value as DimValue},
        type_proto::{Tensor as TensorType, Value as TypeValue},
    },
};
use sapwood_runtime::{Input, InstallOptions, Runtime, RuntimeError, Session, SessionOptions, View, install};

fn runtime() -> &'static Runtime {
    let installed = install(InstallOptions::default(), &mut |_| {}).expect("the pinned library can be provisioned");
    Runtime::load(Some(&installed.path)).expect("and loaded")
}

fn value(name: &str, element: Element, shape: &[Dim]) -> ValueInfoProto {
    let dim = |d: &Dim| {
        let value = match d {
            Dim::Fixed(n) => DimValue::DimValue(*n as i64),
            Dim::Symbol(name) => DimValue::DimParam(name.clone()),
        };
        Dimension { value: Some(value), ..Dimension::default() }
    };
    let shape = TensorShapeProto { dim: shape.iter().map(dim).collect() };
    let tensor = TensorType { elem_type: Some(element.to_onnx()), shape: Some(shape) };
    let kind = TypeProto { value: Some(TypeValue::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(kind), ..ValueInfoProto::default() }
}

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(op.to_owned()),
        input: inputs.iter().map(|&s| s.to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

fn model(graph: GraphProto) -> Vec<u8> {
    let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(17) };
    ModelProto { ir_version: Some(8), opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() }.encode_to_vec()
}

/// `y[b, 3] = x[b, 2] · w[2, 3]`.
fn product() -> Vec<u8> {
    let batch = Dim::Symbol("batch".to_owned());
    let weights = TensorProto {
        name: Some("w".to_owned()),
        dims: vec![2, 3],
        data_type: Some(Element::F32.to_onnx()),
        float_data: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        ..TensorProto::default()
    };
    model(GraphProto {
        name: Some("product".to_owned()),
        node: vec![node("MatMul", &["x", "w"], "y")],
        initializer: vec![weights],
        input: vec![value("x", Element::F32, &[batch.clone(), Dim::Fixed(2)])],
        output: vec![value("y", Element::F32, &[batch, Dim::Fixed(3)])],
        ..GraphProto::default()
    })
}

const ELEMENTS: [Element; 6] = [Element::F32, Element::I64, Element::I32, Element::U8, Element::I8, Element::Bool];

/// Hands each of the six element types through.
fn echo() -> Vec<u8> {
    let n = [Dim::Symbol("n".to_owned())];
    let names = |e: &Element| (format!("{e:?}-in"), format!("{e:?}-out"));
    let pairs: Vec<_> = ELEMENTS.iter().map(|e| (*e, names(e))).collect();
    model(GraphProto {
        name: Some("echo".to_owned()),
        node: pairs.iter().map(|(_, (i, o))| node("Identity", &[i], o)).collect(),
        input: pairs.iter().map(|(e, (i, _))| value(i, *e, &n)).collect(),
        output: pairs.iter().map(|(e, (_, o))| value(o, *e, &n)).collect(),
        ..GraphProto::default()
    })
}

fn session(model: &[u8]) -> Session {
    runtime().session(model, SessionOptions::default()).unwrap()
}

#[test]
fn the_pinned_version_is_loaded_once() {
    let runtime = runtime();
    assert_eq!(runtime.version(), "1.28.0");
    assert!(std::ptr::eq(runtime, Runtime::load(None).unwrap()));
    assert_eq!(Runtime::loaded().as_ref(), Some(&runtime.found().path));
}

#[test]
fn a_session_computes_and_describes_itself() {
    let mut session = session(&product());
    assert_eq!(session.inputs()[0].shape, [Dim::Symbol("batch".into()), Dim::Fixed(2)]);
    assert_eq!((session.outputs()[0].name.as_str(), session.outputs()[0].element), ("y", Element::F32));
    let x = Tensor::f32([2, 2], vec![1.0, 0.0, 2.0, -1.0]).unwrap();
    let y = session.run(&[("x", &x)]).unwrap();
    assert_eq!(y, [("y".to_owned(), Tensor::f32([2, 3], vec![1.0, 2.0, 3.0, -2.0, -1.0, 0.0]).unwrap())]);
    // Another batch size, down to none.
    let none = Tensor::f32([0, 2], vec![]).unwrap();
    assert_eq!(session.run(&[("x", &none)]).unwrap()[0].1.shape, [0, 3]);
}

#[test]
fn every_element_type_goes_in_and_out_in_any_order() {
    let mut session = session(&echo());
    let given = [
        TensorData::F32(vec![1.5, -0.0]),
        TensorData::I64(vec![i64::MIN, 7]),
        TensorData::I32(vec![-1, i32::MAX]),
        TensorData::U8(vec![0, 255]),
        TensorData::I8(vec![-128, 127]),
        TensorData::Bool(vec![true, false]),
    ]
    .map(|data| Tensor::new([2], data).unwrap());
    let names = ELEMENTS.map(|e| format!("{e:?}-in"));
    let mut inputs: Vec<_> = names.iter().map(String::as_str).zip(&given).collect();
    inputs.reverse();
    let out = session.run(&inputs).unwrap();
    for ((name, tensor), (element, expected)) in out.iter().zip(ELEMENTS.iter().zip(&given)) {
        assert_eq!((name, tensor), (&format!("{element:?}-out"), expected));
    }
}

#[test]
fn raw_bytes_are_read_whether_aligned_or_not() {
    let mut session = session(&product());
    let values: Vec<u8> = [1.0f32, 0.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    for offset in 0..4 {
        let mut body = vec![0u8; offset];
        body.extend(&values);
        let x = Input { name: "x", shape: &[1, 2], data: View::Raw(Element::F32, &body[offset..]) };
        let bytes = session.run_view(&[x], |out| (out[0].shape.clone(), out[0].data.bytes().to_vec())).unwrap();
        let expected: Vec<u8> = [1.0f32, 2.0, 3.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(bytes, (vec![1, 3], expected), "offset {offset}");
    }
}

#[test]
fn inputs_that_do_not_fit_are_refused_by_name() {
    let mut session = session(&product());
    let good = Tensor::f32([1, 2], vec![0.0; 2]).unwrap();
    let wide = Tensor::f32([1, 3], vec![0.0; 3]).unwrap();
    let flat = Tensor::f32([2], vec![0.0; 2]).unwrap();
    let ints = Tensor::i64([1, 2], vec![0; 2]).unwrap();
    let liar = Tensor { shape: vec![usize::MAX, 2], data: TensorData::F32(vec![0.0; 2]) };
    let cases: [(&[(&str, &Tensor)], &str); 7] = [
        (&[("x", &wide)], "its shape is [1, 3], the model reads [batch, 2]"),
        (&[("x", &flat)], "its shape is [2], the model reads [batch, 2]"),
        (&[("x", &ints)], "it is I64, the model reads F32"),
        (&[("x", &liar)], "does not hold 8 bytes"),
        (&[], "exactly once"),
        (&[("x", &good), ("x", &good)], "exactly once"),
        (&[("x", &good), ("z", &good)], "no such input, only x"),
    ];
    for (inputs, reason) in cases {
        let refused = session.run(inputs).unwrap_err();
        assert!(matches!(refused, RuntimeError::BadInput { .. }), "{refused}");
        assert!(refused.to_string().contains(reason), "{refused}");
    }
    assert!(session.run(&[("x", &good)]).is_ok());
}

#[test]
fn bytes_that_are_no_model_are_refused() {
    let whole = product();
    for bad in [&b""[..], b"not a model", &whole[..whole.len() - 7]] {
        let refused = runtime().session(bad, SessionOptions::default()).err().unwrap();
        assert!(matches!(refused, RuntimeError::BadModel { .. }), "{refused}");
    }
}
