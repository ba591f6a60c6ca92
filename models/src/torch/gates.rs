//! Weights of recurrent layers as PyTorch keeps them.
//!
//! ONNX stores `W` `[directions, gates * hidden, inputs]`, `R` `[directions, gates * hidden, hidden]` and `B` `[directions, 2 * gates *
//! hidden]`, biases of the input before those of the state. PyTorch has a tensor of each for each direction, and its gates in another
//! order: <https://pytorch.org/docs/stable/generated/torch.nn.LSTM.html>, <https://onnx.ai/onnx/operators/onnx__LSTM.html>.

use crate::tensor::Tensor;

/// For each of PyTorch's gates, in its order, the place of ONNX's; `None` if there is no such layer.
fn gates(op: &str) -> Option<&'static [usize]> {
    Some(match op {
        // input, forget, cell, output from input, output, forget, cell.
        "LSTM" => &[0, 2, 3, 1],
        // reset, update, new from update, reset, hidden.
        "GRU" => &[1, 0, 2],
        "RNN" => &[0],
        _ => return None,
    })
}

/// The tensors of one layer by PyTorch's names without the module: `weight_ih_l0`, `bias_hh_l0_reverse` and so on. `None` if shapes
/// contradict each other.
pub(super) fn unpack(op: &str, layer: usize, w: &Tensor, r: &Tensor, b: Option<&Tensor>) -> Option<Vec<(String, Tensor)>> {
    let order = gates(op)?;
    let (&[directions, rows, _], &[other, same, hidden]) = (w.shape.as_slice(), r.shape.as_slice()) else { return None };
    let fits = directions == other && rows == same && rows == order.len() * hidden && (1..=2).contains(&directions);
    if !fits || b.is_some_and(|b| b.shape != [directions, 2 * rows]) {
        return None;
    }
    let mut found = Vec::new();
    for direction in 0..directions {
        let suffix = if direction == 0 { "" } else { "_reverse" };
        let mut give = |name: &str, part: Tensor| found.push((format!("{name}_l{layer}{suffix}"), part));
        give("weight_ih", reordered(&part(w, direction, 0, rows)?, order)?);
        give("weight_hh", reordered(&part(r, direction, 0, rows)?, order)?);
        if let Some(b) = b {
            give("bias_ih", reordered(&part(b, direction, 0, rows)?, order)?);
            give("bias_hh", reordered(&part(b, direction, rows, rows)?, order)?);
        }
    }
    Some(found)
}

/// `count` rows of one direction from row `first` on.
fn part(tensor: &Tensor, direction: usize, first: usize, count: usize) -> Option<Tensor> {
    let values = tensor.as_f32()?;
    let [_, rows, rest @ ..] = tensor.shape.as_slice() else { return None };
    let width: usize = rest.iter().product();
    let start = (direction * rows + first) * width;
    let shape = std::iter::once(count).chain(rest.iter().copied()).collect::<Vec<_>>();
    Tensor::f32(shape, values.get(start..start + count * width)?.to_vec()).ok()
}

/// The same rows, block `order[i]` at place `i`.
fn reordered(tensor: &Tensor, order: &[usize]) -> Option<Tensor> {
    let block = tensor.rows() / order.len();
    let rows: Vec<usize> = order.iter().flat_map(|at| at * block..(at + 1) * block).collect();
    (rows.len() == tensor.rows()).then(|| tensor.take_rows(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row of gate `g` of direction `d` holds 10 d + g.
    fn packed(directions: usize, gates: usize, hidden: usize, width: Option<usize>) -> Tensor {
        let rows = (0..directions).flat_map(|d| (0..gates).flat_map(move |g| vec![(10 * d + g) as f32; hidden * width.unwrap_or(1)]));
        let shape = [&[directions, gates * hidden][..], width.as_slice()].concat();
        Tensor::f32(shape, rows.collect()).unwrap()
    }

    /// The values of each gate, one for each.
    fn by_gate(tensor: &Tensor, gates: usize) -> Vec<f32> {
        let values = tensor.as_f32().unwrap();
        values.iter().step_by(values.len() / gates).copied().collect()
    }

    #[test]
    fn gates_come_in_pytorchs_order_for_each_direction() {
        for (op, gates, forward) in [("LSTM", 4, &[0.0, 2.0, 3.0, 1.0][..]), ("GRU", 3, &[1.0, 0.0, 2.0]), ("RNN", 1, &[0.0])] {
            let (w, r) = (packed(2, gates, 5, Some(3)), packed(2, gates, 5, Some(5)));
            // The state's biases are a hundred above the input's.
            let half = packed(2, gates, 5, None);
            let rows = half.as_f32().unwrap().chunks(gates * 5);
            let values = rows.flat_map(|row| [row.to_vec(), row.iter().map(|v| v + 100.0).collect()].concat()).collect();
            let b = Tensor::f32([2, 2 * gates * 5], values).unwrap();
            let found = unpack(op, 1, &w, &r, Some(&b)).unwrap();
            let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
            let once = ["weight_ih_l1", "weight_hh_l1", "bias_ih_l1", "bias_hh_l1"];
            let reverse = once.map(|name| format!("{name}_reverse"));
            assert_eq!(names, [&once[..], &reverse.each_ref().map(String::as_str)].concat());
            for (name, tensor) in &found {
                let shift = if name.ends_with("_reverse") { 10.0 } else { 0.0 } + if name.starts_with("bias_hh") { 100.0 } else { 0.0 };
                let expected: Vec<f32> = forward.iter().map(|gate| gate + shift).collect();
                assert_eq!(by_gate(tensor, gates), expected, "{op} {name}");
            }
            assert_eq!((found[0].1.shape.clone(), found[1].1.shape.clone()), (vec![gates * 5, 3], vec![gates * 5, 5]));
            assert_eq!(unpack(op, 0, &w, &r, None).unwrap().len(), 4);
        }
    }

    /// Each way is a permutation, and the way back is its inverse.
    #[test]
    fn no_value_is_lost() {
        for op in ["LSTM", "GRU", "RNN"] {
            let order = gates(op).unwrap();
            let rows = order.len() * 4;
            let tensor = Tensor::f32([rows, 3], (0..rows * 3).map(|v| v as f32).collect()).unwrap();
            let mut back = vec![0; order.len()];
            order.iter().enumerate().for_each(|(to, from)| back[*from] = to);
            assert_eq!(reordered(&reordered(&tensor, order).unwrap(), &back).unwrap(), tensor, "{op}");
        }
    }

    #[test]
    fn shapes_that_contradict_each_other_are_refused() {
        let (w, r) = (packed(1, 4, 5, Some(3)), packed(1, 4, 5, Some(5)));
        assert!(unpack("LSTM", 0, &w, &r, None).is_some());
        assert!(unpack("GRU", 0, &w, &r, None).is_none());
        assert!(unpack("LSTM", 0, &w, &packed(1, 4, 4, Some(4)), None).is_none());
        assert!(unpack("LSTM", 0, &w, &packed(2, 4, 5, Some(5)), None).is_none());
        assert!(unpack("LSTM", 0, &w, &r, Some(&packed(1, 4, 5, None))).is_none());
    }
}
