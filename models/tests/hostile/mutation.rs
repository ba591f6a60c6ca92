//! Changes at random.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use sapwood_models::onnx::pb;

/// Numbers that break arithmetic on sizes.
const NUMBERS: [i64; 24] = [
    0,
    1,
    -1,
    2,
    3,
    -2,
    7,
    -7,
    64,
    255,
    -128,
    65_535,
    65_536,
    1 << 20,
    (1 << 28) + 1,
    (1 << 31) - 1,
    1 << 31,
    -(1 << 31),
    (1 << 32) + 1,
    1 << 40,
    1 << 62,
    i64::MAX,
    i64::MAX - 1,
    i64::MIN,
];

const FLOATS: [f32; 10] = [0.0, -0.0, 1.0, -1.0, 1e-30, 1e30, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];

fn number(random: &mut ChaCha8Rng) -> i64 {
    NUMBERS[random.random_range(0..NUMBERS.len())]
}

fn any<'t, T>(list: &'t mut [T], random: &mut ChaCha8Rng) -> Option<&'t mut T> {
    let len = list.len();
    (len > 0).then(|| &mut list[random.random_range(0..len)])
}

/// Up to four bits, bytes, pieces or tails are changed.
pub(super) fn bytes(mut bytes: Vec<u8>, random: &mut ChaCha8Rng) -> Vec<u8> {
    for _ in 0..random.random_range(1..5) {
        let at = random.random_range(0..bytes.len().max(1));
        match random.random_range(0..6) {
            0 => bytes.truncate(at),
            1 => bytes.splice(at.min(bytes.len())..at.min(bytes.len()), [0xff; 9]).for_each(drop),
            2 => {
                let end = (at + random.random_range(0..40)).min(bytes.len());
                let piece = bytes.get(at..end).unwrap_or_default().to_vec();
                bytes.extend(piece);
            }
            3 => {
                let end = (at + random.random_range(0..8)).min(bytes.len());
                bytes.drain(at.min(end)..end);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = if random.random() { random.random() } else { *byte ^ (1 << random.random_range(0..8)) };
                }
            }
        }
    }
    bytes
}

/// Up to four nodes, attributes, tensors or names are changed; the message stays one.
pub(super) fn structure(mut proto: pb::ModelProto, random: &mut ChaCha8Rng) -> pb::ModelProto {
    for _ in 0..random.random_range(1..5) {
        let Some(graph) = proto.graph.as_mut() else { break };
        match random.random_range(0..9) {
            0..=2 => {
                if let Some(node) = any(&mut graph.node, random) {
                    attribute(node, random);
                }
            }
            3 | 4 => {
                if let Some(tensor) = any(&mut graph.initializer, random) {
                    values(tensor, random);
                }
            }
            5 => dims(graph, random),
            6 => names(graph, random),
            7 => {
                let ops: Vec<Option<String>> = graph.node.iter().map(|n| n.op_type.clone()).collect();
                if let Some(node) = any(&mut graph.node, random) {
                    let op = OPERATORS[random.random_range(0..OPERATORS.len())];
                    node.op_type = if random.random() { Some(op.to_owned()) } else { ops[random.random_range(0..ops.len())].clone() };
                }
            }
            _ => {
                if let Some(set) = any(&mut proto.opset_import, random) {
                    set.version = Some(random.random_range(6..26));
                }
            }
        }
    }
    proto
}

/// Those whose results may be larger than what they read, or whose attributes are sizes.
const OPERATORS: [&str; 28] = [
    "ConstantOfShape",
    "Expand",
    "Tile",
    "Range",
    "Pad",
    "Resize",
    "OneHot",
    "Concat",
    "Reshape",
    "Slice",
    "Split",
    "Gather",
    "GatherND",
    "GatherElements",
    "Conv",
    "ConvTranspose",
    "MaxPool",
    "AveragePool",
    "MatMul",
    "Gemm",
    "Where",
    "Add",
    "TopK",
    "CumSum",
    "LRN",
    "Upsample",
    "Trilu",
    "Squeeze",
];

fn attribute(node: &mut pb::NodeProto, random: &mut ChaCha8Rng) {
    let Some(attribute) = any(&mut node.attribute, random) else { return };
    match random.random_range(0..6) {
        0 => attribute.r#type = Some(random.random_range(0..12)),
        1 => attribute.ints.push(number(random)),
        2 => {
            attribute.ints.pop();
        }
        _ => {
            let value = number(random);
            if let Some(i) = &mut attribute.i {
                *i = value;
            }
            if let Some(i) = any(&mut attribute.ints, random) {
                *i = value;
            }
            if let Some(f) = &mut attribute.f {
                *f = FLOATS[random.random_range(0..FLOATS.len())];
            }
            if let Some(tensor) = &mut attribute.t {
                values(tensor, random);
            }
        }
    }
}

/// Values, or dims that the values do not fill.
fn values(tensor: &mut pb::TensorProto, random: &mut ChaCha8Rng) {
    if random.random_range(0..5) == 0 {
        let value = number(random);
        if let Some(dim) = any(&mut tensor.dims, random) {
            *dim = value;
        }
        return;
    }
    let value = number(random);
    if let Some(v) = any(&mut tensor.int64_data, random) {
        *v = value;
    }
    if let Some(v) = any(&mut tensor.float_data, random) {
        *v = FLOATS[random.random_range(0..FLOATS.len())];
    }
    let float = FLOATS[random.random_range(0..FLOATS.len())];
    if let Some(raw) = &mut tensor.raw_data {
        let wide = tensor.data_type == Some(pb::tensor_proto::DataType::Int64 as i32);
        let new = if wide { value.to_le_bytes().to_vec() } else { float.to_le_bytes().to_vec() };
        let at = random.random_range(0..(raw.len() / new.len()).max(1)) * new.len();
        if let Some(place) = raw.get_mut(at..at + new.len()) {
            place.copy_from_slice(&new);
        }
    }
}

/// The extents of an input.
fn dims(graph: &mut pb::GraphProto, random: &mut ChaCha8Rng) {
    use pb::tensor_shape_proto::dimension::Value;
    let Some(input) = any(&mut graph.input, random) else { return };
    let Some(pb::type_proto::Value::TensorType(tensor)) = input.r#type.as_mut().and_then(|t| t.value.as_mut()) else { return };
    let Some(shape) = &mut tensor.shape else { return };
    if random.random_range(0..4) == 0 {
        shape.dim.pop();
    } else if let Some(dim) = any(&mut shape.dim, random) {
        dim.value = Some(Value::DimValue(number(random)));
    }
}

/// What a node reads or makes is called otherwise.
fn names(graph: &mut pb::GraphProto, random: &mut ChaCha8Rng) {
    let known: Vec<String> = graph.node.iter().flat_map(|n| n.input.iter().chain(&n.output)).cloned().collect();
    if known.is_empty() {
        return;
    }
    let name = known[random.random_range(0..known.len())].clone();
    let Some(node) = any(&mut graph.node, random) else { return };
    match random.random_range(0..5) {
        0 => {
            if let Some(output) = any(&mut node.output, random) {
                *output = name;
            }
        }
        1 => node.input.push(name),
        2 => {
            node.input.pop();
        }
        3 => {
            if let Some(input) = any(&mut node.input, random) {
                input.clear();
            }
        }
        _ => {
            if let Some(input) = any(&mut node.input, random) {
                *input = name;
            }
        }
    }
}
