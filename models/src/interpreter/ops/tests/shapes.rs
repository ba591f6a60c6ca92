use super::{Case, case};
use crate::TensorData;

fn six() -> [f32; 6] {
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
}

fn on_six(op: &'static str) -> Case {
    case(op).x(&[2, 3], &six())
}

#[test]
fn views() {
    on_six("Reshape").list(&[3, -1]).gives(&[3, 2], &six()).differentiable();
    on_six("Reshape").list(&[0, 3, 1]).gives(&[2, 3, 1], &six());
    on_six("Reshape").list(&[4, -1]).refused();
    on_six("Reshape").list(&[-1, -1]).refused();
    on_six("Reshape").list(&[7]).refused();
    on_six("Reshape").list(&[i64::MAX, i64::MAX]).refused();
    on_six("Reshape").int("allowzero", 1).list(&[0, 3]).refused();
    case("Flatten").some(&[2, 3, 4]).differentiable();
    case("Flatten").x(&[1, 2, 3], &six()).gives(&[1, 6], &six());
    case("Flatten").int("axis", 0).x(&[2, 3], &six()).gives(&[1, 6], &six());
    case("Flatten").int("axis", 2).x(&[2, 3], &six()).gives(&[6, 1], &six());
    case("Squeeze").x(&[1, 2, 1, 3], &six()).gives(&[2, 3], &six());
    case("Squeeze").x(&[1, 2, 1, 3], &six()).list(&[-2]).gives(&[1, 2, 3], &six());
    case("Squeeze").opset(11).ints("axes", &[0]).x(&[1, 2, 3], &six()).gives(&[2, 3], &six());
    on_six("Squeeze").list(&[0]).refused();
    on_six("Unsqueeze").list(&[0, -1]).gives(&[1, 2, 3, 1], &six()).differentiable();
    on_six("Unsqueeze").list(&[1, 1]).refused();
    on_six("Identity").gives(&[2, 3], &six()).differentiable();
}

#[test]
fn transpose_and_expand() {
    on_six("Transpose").gives(&[3, 2], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]).differentiable();
    case("Transpose").ints("perm", &[1, 0, 2]).x(&[3, 1, 2], &six()).gives(&[1, 3, 2], &six());
    let cube = || case("Transpose").table(&[2, 1, 3], &[0, 1, 2, 3, 4, 5]);
    cube().gives_ints(&[3, 1, 2], &[0, 3, 1, 4, 2, 5]);
    cube().ints("perm", &[1, 0, 2]).gives_ints(&[1, 2, 3], &[0, 1, 2, 3, 4, 5]);
    on_six("Transpose").ints("perm", &[0, 0]).refused();
    on_six("Transpose").ints("perm", &[0]).refused();
    case("Expand").x(&[2, 1], &[1.0, 2.0]).list(&[2, 2]).gives(&[2, 2], &[1.0, 1.0, 2.0, 2.0]).differentiable();
    case("Expand").x(&[2], &[1.0, 2.0]).list(&[2, 1]).gives(&[2, 2], &[1.0, 2.0, 1.0, 2.0]).differentiable();
    case("Expand").some(&[2]).list(&[1 << 40]).refused();
    case("Expand").some(&[1]).list(&[1 << 40]).refused();
}

#[test]
fn slices() {
    on_six("Slice").list(&[1]).list(&[i64::MAX]).list(&[1]).gives(&[2, 2], &[1.0, 2.0, 4.0, 5.0]).differentiable();
    on_six("Slice").list(&[-1, 0]).list(&[2, -1]).gives(&[1, 2], &[3.0, 4.0]).differentiable();
    on_six("Slice").list(&[0]).list(&[3]).list(&[1]).list(&[2]).gives(&[2, 2], &[0.0, 2.0, 3.0, 5.0]).differentiable();
    on_six("Slice").list(&[-1]).list(&[i64::MIN]).list(&[1]).list(&[-1]).gives(&[2, 3], &[2.0, 1.0, 0.0, 5.0, 4.0, 3.0]).differentiable();
    case("Slice").opset(9).ints("starts", &[1]).ints("ends", &[2]).x(&[2, 3], &six()).gives(&[1, 3], &[3.0, 4.0, 5.0]);
    case("Slice").list(&[4, 5, 6]).list(&[0]).list(&[2]).gives_ints(&[2], &[4, 5]);
    case("Slice").list(&[4, 5, 6]).list(&[9]).list(&[10]).gives_ints(&[0], &[]);
    on_six("Slice").list(&[0]).list(&[1]).list(&[0]).list(&[0]).refused();
    on_six("Slice").list(&[0]).list(&[1]).list(&[5]).refused();
}

#[test]
fn splits() {
    let halves = on_six("Split").int("axis", 1).list(&[1, 2]).outputs(2);
    let parts = halves.try_run().unwrap();
    assert_eq!((parts[0].as_f32().unwrap(), parts[1].as_f32().unwrap()), (&[0.0, 3.0][..], &[1.0, 2.0, 4.0, 5.0][..]));
    halves.differentiable();
    // Opset 18: the last part may be smaller.
    let uneven = case("Split").opset(18).int("num_outputs", 2).x(&[3], &[1.0, 2.0, 3.0]).outputs(2).try_run().unwrap();
    assert_eq!((uneven[0].shape[0], uneven[1].shape[0]), (2, 1));
    case("Split").opset(11).ints("split", &[1, 1]).int("axis", 0).x(&[2, 3], &six()).outputs(2).gives(&[1, 3], &[0.0, 1.0, 2.0]);
    on_six("Split").list(&[1, 2]).outputs(2).refused();
}

#[test]
fn joins() {
    on_six("Concat").int("axis", 1).x(&[2, 1], &[9.0, 8.0]).gives(&[2, 4], &[0.0, 1.0, 2.0, 9.0, 3.0, 4.0, 5.0, 8.0]).differentiable();
    case("Concat").int("axis", 0).list(&[1]).list(&[2, 3]).gives_ints(&[3], &[1, 2, 3]);
    on_six("Concat").int("axis", 0).some(&[1, 2]).refused();
    on_six("Concat").int("axis", 0).list(&[1]).refused();
}

#[test]
fn gathers() {
    on_six("Gather").list(&[1, 0, 1]).gives(&[3, 3], &[3.0, 4.0, 5.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]).differentiable();
    on_six("Gather").int("axis", 1).integer(-1).gives(&[2], &[2.0, 5.0]).differentiable();
    case("Gather").list(&[4, 5, 6]).integer(1).gives_ints(&[], &[5]);
    on_six("Gather").list(&[2]).refused();
}

#[test]
fn pads() {
    let pad = |mode| case("Pad").text("mode", mode).x(&[3], &[1.0, 2.0, 3.0]).list(&[2, 1]);
    pad("constant").gives(&[6], &[0.0, 0.0, 1.0, 2.0, 3.0, 0.0]).differentiable();
    pad("constant").constant(&[], &[7.0]).gives(&[6], &[7.0, 7.0, 1.0, 2.0, 3.0, 7.0]);
    pad("reflect").gives(&[6], &[3.0, 2.0, 1.0, 2.0, 3.0, 2.0]).differentiable();
    pad("edge").gives(&[6], &[1.0, 1.0, 1.0, 2.0, 3.0, 3.0]).differentiable();
    case("Pad").opset(18).x(&[1, 2], &[1.0, 2.0]).list(&[1, 0]).left_out().list(&[1]).gives(&[1, 3], &[0.0, 1.0, 2.0]);
    pad("wrap").gives(&[6], &[2.0, 3.0, 1.0, 2.0, 3.0, 1.0]).differentiable();
    pad("mirror").refused();
    case("Pad").some(&[3]).list(&[-1, 0]).refused();
    case("Pad").text("mode", "reflect").some(&[3]).list(&[3, 0]).refused();
    case("Pad").some(&[3]).list(&[1 << 60, 0]).refused();
}

#[test]
fn constants_and_shapes() {
    case("Shape").some(&[2, 3, 4]).gives_ints(&[3], &[2, 3, 4]);
    case("Shape").int("start", 1).int("end", -1).some(&[2, 3, 4]).gives_ints(&[1], &[3]);
    case("Size").some(&[2, 3, 4]).gives_ints(&[], &[24]);
    case("Range").integer(1).integer(8).integer(3).gives_ints(&[3], &[1, 4, 7]);
    case("Range").integer(3).integer(0).integer(-2).gives_ints(&[2], &[3, 1]);
    case("Range").integer(0).integer(i64::MAX).integer(1).refused();
    case("Range").integer(0).integer(1).integer(0).refused();
    case("ConstantOfShape").list(&[2, 1]).gives(&[2, 1], &[0.0, 0.0]);
    case("ConstantOfShape").list(&[1 << 40]).refused();
    case("Constant").ints("value_ints", &[4, 5]).gives_ints(&[2], &[4, 5]);
    case("Constant").float("value_float", 1.5).gives(&[], &[1.5]);
    case("Constant").refused();
}

#[test]
fn casts() {
    use crate::onnx::Element;
    let to = |element: Element| i64::from(element.to_onnx());
    case("Cast").int("to", to(Element::I64)).x(&[2], &[1.9, -1.9]).gives_ints(&[2], &[1, -1]);
    case("Cast").int("to", to(Element::F32)).list(&[3]).gives(&[1], &[3.0]);
    let truth = case("Cast").int("to", to(Element::Bool)).x(&[2], &[0.5, 0.0]).run();
    assert_eq!(truth.data, TensorData::Bool(vec![true, false]));
    let wrapped = case("Cast").int("to", to(Element::U8)).list(&[300, -1]).run();
    assert_eq!(wrapped.data, TensorData::U8(vec![44, 255]));
    case("CastLike").list(&[3]).x(&[1], &[0.0]).gives(&[1], &[3.0]);
    case("Cast").int("to", to(Element::F16)).some(&[1]).refused();
}

#[test]
fn logic() {
    let bools = |values: &[bool]| TensorData::Bool(values.to_vec());
    assert_eq!(case("Equal").list(&[1, 2]).list(&[2]).run().data, bools(&[false, true]));
    assert_eq!(case("Less").list(&[1, 2]).list(&[2]).run().data, bools(&[true, false]));
    assert_eq!(case("Not").list(&[0, 5]).run().data, bools(&[true, false]));
    case("Where").list(&[1, 0]).list(&[5, 6]).list(&[7]).gives_ints(&[2], &[5, 7]);
    case("Where").list(&[1, 0]).x(&[2, 1], &[5.0, 6.0]).x(&[2], &[8.0, 9.0]).gives(&[2, 2], &[5.0, 9.0, 6.0, 9.0]).differentiable();
    case("Where").list(&[1]).list(&[1]).some(&[1]).refused();
}
