//! Attacks, each by its name.

use sapwood_models::onnx::{pb, write_tensor};
use sapwood_models::{Tensor, TensorData};

use pb::attribute_proto::AttributeType;

/// More than any machine has, and more than a size can be.
const HUGE: i64 = 1 << 40;

/// A graph of `x` `[2, 3]`, whose output is `y`.
#[derive(Default)]
struct Graph {
    nodes: Vec<pb::NodeProto>,
    initializers: Vec<pb::TensorProto>,
}

impl Graph {
    fn node(mut self, op: &str, inputs: &[&str], output: &str, attributes: Vec<pb::AttributeProto>) -> Self {
        self.nodes.push(pb::NodeProto {
            op_type: Some(op.into()),
            input: inputs.iter().map(|name| (*name).into()).collect(),
            output: vec![output.into()],
            attribute: attributes,
            ..Default::default()
        });
        self
    }

    fn list(self, name: &str, values: &[i64]) -> Self {
        self.tensor(name, &[values.len()], TensorData::I64(values.to_vec()))
    }

    fn number(self, name: &str, value: i64) -> Self {
        self.tensor(name, &[], TensorData::I64(vec![value]))
    }

    fn floats(self, name: &str, shape: &[usize], value: f32) -> Self {
        self.tensor(name, shape, TensorData::F32(vec![value; shape.iter().product()]))
    }

    fn tensor(mut self, name: &str, shape: &[usize], data: TensorData) -> Self {
        self.initializers.push(write_tensor(name, &Tensor::new(shape, data).unwrap()));
        self
    }

    fn model(self) -> pb::ModelProto {
        let dims = [2, 3].map(|n| pb::tensor_shape_proto::Dimension {
            value: Some(pb::tensor_shape_proto::dimension::Value::DimValue(n)),
            ..Default::default()
        });
        let tensor = pb::type_proto::Tensor { elem_type: Some(1), shape: Some(pb::TensorShapeProto { dim: dims.into() }) };
        let declared = pb::TypeProto { value: Some(pb::type_proto::Value::TensorType(tensor)), ..Default::default() };
        let graph = pb::GraphProto {
            name: Some("hostile".into()),
            node: self.nodes,
            initializer: self.initializers,
            input: vec![pb::ValueInfoProto { name: Some("x".into()), r#type: Some(declared), ..Default::default() }],
            output: vec![pb::ValueInfoProto { name: Some("y".into()), ..Default::default() }],
            ..Default::default()
        };
        let opset_import = vec![pb::OperatorSetIdProto { domain: None, version: Some(18) }];
        pb::ModelProto { ir_version: Some(8), graph: Some(graph), opset_import, ..Default::default() }
    }
}

fn attribute(name: &str, kind: AttributeType) -> pb::AttributeProto {
    pb::AttributeProto { name: Some(name.into()), r#type: Some(kind as i32), ..Default::default() }
}

fn int(name: &str, value: i64) -> pb::AttributeProto {
    pb::AttributeProto { i: Some(value), ..attribute(name, AttributeType::Int) }
}

fn ints(name: &str, values: &[i64]) -> pb::AttributeProto {
    pb::AttributeProto { ints: values.to_vec(), ..attribute(name, AttributeType::Ints) }
}

fn text(name: &str, value: &str) -> pb::AttributeProto {
    pb::AttributeProto { s: Some(value.into()), ..attribute(name, AttributeType::String) }
}

pub(super) fn cases() -> Vec<(&'static str, pb::ModelProto)> {
    let mut cases: Vec<(&'static str, Graph)> = vec![
        ("a constant of terabytes", Graph::default().list("s", &[HUGE]).node("ConstantOfShape", &["s"], "y", vec![])),
        ("a size that overflows", Graph::default().list("s", &[1 << 32, 1 << 32]).node("ConstantOfShape", &["s"], "y", vec![])),
        ("a negative size", Graph::default().list("s", &[-1]).node("ConstantOfShape", &["s"], "y", vec![])),
        ("expanded to terabytes", Graph::default().list("s", &[HUGE, 2, 3]).node("Expand", &["x", "s"], "y", vec![])),
        ("tiled to terabytes", Graph::default().list("s", &[HUGE, 1]).node("Tile", &["x", "s"], "y", vec![])),
        ("padded to terabytes", Graph::default().list("s", &[HUGE, 0, 0, HUGE]).node("Pad", &["x", "s"], "y", vec![])),
        ("padded beyond any size", Graph::default().list("s", &[i64::MAX; 4]).node("Pad", &["x", "s"], "y", vec![])),
        ("resized to terabytes", Graph::default().list("s", &[HUGE, HUGE]).node("Resize", &["x", "", "", "s"], "y", vec![])),
        ("scaled without end", Graph::default().floats("s", &[2], f32::INFINITY).node("Resize", &["x", "", "s"], "y", vec![])),
        (
            "each element made of millions",
            Graph::default().list("s", &[1, 1 << 24]).node("Resize", &["x", "", "", "s"], "y", vec![text("mode", "cubic")]),
        ),
        (
            "positions without end",
            Graph::default().number("d", HUGE).list("i", &[0]).list("v", &[0, 1]).node("OneHot", &["i", "d", "v"], "y", vec![]),
        ),
        (
            "numbers without end",
            Graph::default().number("a", i64::MIN).number("b", i64::MAX).number("c", 1).node("Range", &["a", "b", "c"], "y", vec![]),
        ),
        (
            "numbers that overflow",
            Graph::default().number("a", i64::MAX - 1).number("b", i64::MAX).number("c", i64::MAX).node(
                "Range",
                &["a", "b", "c"],
                "y",
                vec![],
            ),
        ),
        (
            "slices by extremes",
            Graph::default().list("a", &[i64::MIN]).list("b", &[i64::MAX]).list("c", &[1]).list("d", &[i64::MIN]).node(
                "Slice",
                &["x", "a", "b", "c", "d"],
                "y",
                vec![],
            ),
        ),
        ("parts that are more than the whole", Graph::default().list("s", &[i64::MAX, 3]).node("Split", &["x", "s"], "y", vec![])),
        (
            "a window as wide as its pads",
            Graph::default().list("s", &[1, 1, 2, 3]).node("Reshape", &["x", "s"], "r", vec![]).node(
                "MaxPool",
                &["r"],
                "y",
                vec![ints("kernel_shape", &[60_000, 60_000]), ints("pads", &[59_999, 59_999, 59_999, 59_999])],
            ),
        ),
        (
            "a mean as wide as its pads",
            Graph::default().list("s", &[1, 1, 2, 3, 1]).node("Reshape", &["x", "s"], "r", vec![]).node(
                "AveragePool",
                &["r"],
                "y",
                vec![ints("kernel_shape", &[60_000, 60_000, 1]), ints("pads", &[59_999, 59_999, 0, 59_999, 59_999, 0])],
            ),
        ),
        (
            "a window wider than any size",
            Graph::default().list("s", &[1, 1, 2, 3]).node("Reshape", &["x", "s"], "r", vec![]).node(
                "MaxPool",
                &["r"],
                "y",
                vec![ints("kernel_shape", &[i64::MAX, i64::MAX])],
            ),
        ),
        (
            "a transposed convolution of terabytes",
            Graph::default().floats("w", &[1, 1, 2, 2], 1.0).list("s", &[1, 1, 2, 3]).node("Reshape", &["x", "s"], "r", vec![]).node(
                "ConvTranspose",
                &["r", "w"],
                "y",
                vec![ints("strides", &[65_535, 65_535]), ints("dilations", &[65_535, 65_535])],
            ),
        ),
        (
            "all channels around each",
            Graph::default().list("s", &[1, 1 << 20]).node("ConstantOfShape", &["s"], "c", vec![]).node(
                "LRN",
                &["c"],
                "y",
                vec![int("size", i64::MAX)],
            ),
        ),
        (
            "more axes than any tensor",
            Graph::default().list("s", &(0..100_000).collect::<Vec<_>>()).node("Unsqueeze", &["x", "s"], "y", vec![]),
        ),
        ("a shape of many ones", Graph::default().list("s", &[&[1; 100_000][..], &[6]].concat()).node("Reshape", &["x", "s"], "y", vec![])),
    ];
    // Doubling: 2^60 times as much.
    let mut doubled = Graph::default().node("Identity", &["x"], "v0", vec![]);
    for i in 0..60 {
        let (from, to) = (format!("v{i}"), if i == 59 { "y".to_owned() } else { format!("v{}", i + 1) });
        doubled = doubled.node("Concat", &[&from, &from], &to, vec![int("axis", 0)]);
    }
    cases.push(("doubled sixty times", doubled));
    // None of them is too large by itself. Folded, and at run time.
    for (name, reads) in [("many large constants at once", "s"), ("many large values at once", "t")] {
        let mut many = Graph::default().list("s", &[1 << 27]).node("Shape", &["x"], "shape", vec![]);
        many = many.list("one", &[1]).node("Gather", &["shape", "one"], "three", vec![]).node("Div", &["three", "three"], "unit", vec![]);
        many = many.node("Mul", &["unit", "s"], "t", vec![]);
        let names: Vec<String> = (0..64).map(|i| format!("v{i}")).collect();
        for name in &names {
            many = many.node("ConstantOfShape", &[reads], name, vec![]);
        }
        many = many.node("Sum", &names.iter().map(String::as_str).collect::<Vec<_>>(), "y", vec![]);
        cases.push((name, many));
    }
    // Every number with every other.
    let square = Graph::default().number("a", 0).number("b", 1 << 14).number("c", 1).list("d", &[1]);
    let square = square.node("Range", &["a", "b", "c"], "r", vec![]).node("Unsqueeze", &["r", "d"], "q", vec![]);
    cases.push(("a mask of gigabytes", square.node("Equal", &["r", "q"], "y", vec![])));
    // A chain that is as long as chains may be.
    let mut chain = Graph::default().node("Identity", &["x"], "v0", vec![]);
    for i in 0..20_000 {
        chain = chain.node(["Identity", "Dropout"][i % 2], &[&format!("v{i}")], &format!("v{}", i + 1), vec![]);
    }
    cases.push(("twenty thousand that do nothing", chain.node("Neg", &["v20000"], "y", vec![])));
    let mut weights = Graph::default().node("Identity", &["x"], "v0", vec![]);
    for i in 0..20_000 {
        weights =
            weights.floats(&format!("w{i}"), &[3], 0.5).node("Add", &[&format!("v{i}"), &format!("w{i}")], &format!("v{}", i + 1), vec![]);
    }
    cases.push(("twenty thousand weights", weights.node("Neg", &["v20000"], "y", vec![])));
    let mut cases: Vec<(&'static str, pb::ModelProto)> = cases.into_iter().map(|(name, graph)| (name, graph.model())).collect();
    cases.push(("branches in branches", branches(7, true)));
    cases.push(("branches deeper than any", branches(40, true)));
    cases.push(("a branch that reads what comes later", branches(1, false)));
    cases
}

/// An If in the branch of an If, so many deep; the innermost negates.
fn branches(depth: usize, ordered: bool) -> pb::ModelProto {
    let graph = |nodes: Vec<pb::NodeProto>, output: &str| pb::GraphProto {
        name: Some("branch".into()),
        node: nodes,
        output: vec![pb::ValueInfoProto { name: Some(output.into()), ..Default::default() }],
        ..Default::default()
    };
    let mut outer = Graph::default().node("ReduceMax", &["x"], "most", vec![int("keepdims", 0)]).node("IsNaN", &["most"], "nan", vec![]);
    let mut inner = Graph::default().node("Neg", &[if ordered { "x" } else { "later" }], "o0", vec![]).nodes;
    for level in 0..depth {
        let branch = |name: &str| pb::AttributeProto {
            g: Some(graph(inner.clone(), &format!("o{level}"))),
            ..attribute(name, AttributeType::Graph)
        };
        // The other branch hands on: twice the same would be exponential in the file, too.
        let other = pb::AttributeProto { g: Some(graph(Vec::new(), "x")), ..attribute("else_branch", AttributeType::Graph) };
        inner = Graph::default().node("If", &["nan"], &format!("o{}", level + 1), vec![branch("then_branch"), other]).nodes;
    }
    outer.nodes.extend(inner);
    outer.node("Identity", &[&format!("o{depth}")], "y", vec![]).node("Neg", &["x"], "later", vec![]).model()
}
