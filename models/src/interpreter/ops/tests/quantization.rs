use super::{Case, case};
use crate::{Tensor, TensorData};

impl Case {
    fn bytes(self, values: &[u8]) -> Self {
        let shape = if values.len() == 1 { vec![] } else { vec![values.len()] };
        self.operand(Tensor { shape, data: TensorData::U8(values.to_vec()) }, true)
    }

    fn signed(self, shape: &[usize], values: &[i8]) -> Self {
        self.operand(Tensor { shape: shape.to_vec(), data: TensorData::I8(values.to_vec()) }, true)
    }
}

#[test]
fn quantizing_rounds_halves_to_even_and_saturates() {
    let q = case("QuantizeLinear").x(&[6], &[0.0, 0.25, 0.75, 1.25, -100.0, 1000.0]).constant(&[], &[0.5]).bytes(&[10]).run();
    assert_eq!(q.data, TensorData::U8(vec![10, 10, 12, 12, 0, 255]));
    let q = case("QuantizeLinear").x(&[2], &[-100.0, 100.0]).constant(&[], &[0.5]).signed(&[], &[0]).run();
    assert_eq!(q.data, TensorData::I8(vec![-128, 127]));
    // Without a zero point the type is u8.
    assert_eq!(case("QuantizeLinear").x(&[1], &[3.0]).constant(&[], &[1.0]).run().data, TensorData::U8(vec![3]));
}

#[test]
fn dequantizing_undoes_it_per_tensor_and_per_channel() {
    case("DequantizeLinear").bytes(&[8, 12]).constant(&[], &[0.5]).bytes(&[10]).gives(&[2], &[-1.0, 1.0]);
    let weight = case("DequantizeLinear").int("axis", 0).signed(&[2, 2], &[1, 2, 3, 4]).constant(&[2], &[0.5, 10.0]);
    weight.signed(&[2], &[0, 1]).gives(&[2, 2], &[0.5, 1.0, 20.0, 30.0]);
    case("DequantizeLinear").int("axis", 1).signed(&[1, 2], &[1, 1]).constant(&[2], &[0.5, 2.0]).gives(&[1, 2], &[0.5, 2.0]);
}

#[test]
fn grids_that_do_not_fit_are_refused() {
    case("QuantizeLinear").some(&[2, 3]).constant(&[2], &[1.0, 1.0]).refused();
    case("QuantizeLinear").some(&[2]).constant(&[], &[0.0]).refused();
    case("QuantizeLinear").opset(21).int("block_size", 2).some(&[4]).constant(&[2], &[1.0, 1.0]).refused();
    case("DequantizeLinear").list(&[1]).constant(&[], &[1.0]).refused();
}
