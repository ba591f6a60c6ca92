use super::{Case, case, near};

/// A layer of two directions over three steps of two sequences, with four inputs and three units.
fn layer(op: &'static str, directions: usize) -> Case {
    let gates = match op {
        "LSTM" => 4,
        "GRU" => 3,
        _ => 1,
    };
    let w = case(op).int("hidden_size", 3).some(&[3, 2, 4]).some(&[directions, gates * 3, 4]);
    w.some(&[directions, gates * 3, 3]).some(&[directions, 2 * gates * 3])
}

/// Values of every output.
fn all(case: &Case) -> Vec<Vec<f32>> {
    case.try_run().unwrap().iter().map(|tensor| tensor.as_f32().unwrap().to_vec()).collect()
}

#[test]
fn every_cell_has_the_gradient_of_differences() {
    layer("RNN", 1).outputs(2).differentiable();
    layer("RNN", 1).texts("activations", &["Relu"]).differentiable();
    layer("LSTM", 1).outputs(3).differentiable();
    layer("LSTM", 2).text("direction", "bidirectional").outputs(3).differentiable();
    for after in [0, 1] {
        layer("GRU", 1).int("linear_before_reset", after).outputs(2).differentiable();
    }
    layer("GRU", 2).text("direction", "bidirectional").differentiable();
    // Lengths, initial states, and what the gates see of the memory.
    let lengths = || layer("LSTM", 1).lengths(&[1, 3]).some(&[1, 2, 3]).some(&[1, 2, 3]);
    lengths().outputs(3).differentiable();
    lengths().some(&[1, 9]).outputs(3).differentiable();
    layer("GRU", 1).text("direction", "reverse").lengths(&[2, 3]).some(&[1, 2, 3]).outputs(2).differentiable();
}

/// One step of one unit, by hand: gates of 1/2 and a proposal of tanh(1).
#[test]
fn one_step_by_hand() {
    let t = 1f32.tanh();
    let step = |op, w: &[f32]| case(op).x(&[1, 1, 1], &[1.0]).x(&[1, w.len(), 1], w).x(&[1, w.len(), 1], &vec![0.0; w.len()]);
    step("RNN", &[1.0]).gives(&[1, 1, 1, 1], &[t]);
    // Input, output, forget, cell.
    let c = 0.5 * t;
    step("LSTM", &[0.0, 0.0, 0.0, 1.0]).gives(&[1, 1, 1, 1], &[0.5 * c.tanh()]);
    // Update, reset, hidden.
    step("GRU", &[0.0, 0.0, 1.0]).gives(&[1, 1, 1, 1], &[0.5 * t]);
}

#[test]
fn what_lies_behind_the_end_of_a_sequence_changes_nothing() {
    for (op, outputs) in [("RNN", 2), ("GRU", 2), ("LSTM", 3)] {
        for direction in ["forward", "reverse"] {
            let one = |steps: usize, padding: f32, lengths: &[i64]| {
                let values: Vec<f32> = (0..steps * 4).map(|i| if i < 8 { (i as f32).sin() } else { padding }).collect();
                let gates = [("RNN", 1), ("GRU", 3), ("LSTM", 4)].iter().find(|(name, _)| *name == op).unwrap().1;
                let layer = case(op).text("direction", direction).x(&[steps, 1, 4], &values);
                let layer = layer.some(&[1, gates * 3, 4]).some(&[1, gates * 3, 3]).some(&[1, 2 * gates * 3]);
                all(&layer.lengths(lengths).outputs(outputs))
            };
            let (short, long) = (one(2, 0.0, &[2]), one(5, 1e6, &[2]));
            assert_eq!(long[0][..6], short[0], "{op} {direction}");
            assert_eq!(long[0][6..], [0.0; 9], "{op} {direction}: zeros behind the end");
            assert_eq!(long[1..], short[1..], "{op} {direction}: the last state");
        }
    }
}

#[test]
fn the_batch_may_come_first() {
    let x: Vec<f32> = (0..24).map(|i| (i as f32 * 0.9).sin()).collect();
    let turned: Vec<f32> = (0..24).map(|i| x[(i / 4 % 3 * 2 + i / 12) * 4 + i % 4]).collect();
    let layer = |layout, shape: &[usize], x: &[f32]| {
        let layer = case("GRU").int("layout", layout).x(shape, x).some(&[1, 9, 4]).some(&[1, 9, 3]);
        layer.outputs(2).try_run().unwrap()
    };
    let (time, batch) = (layer(0, &[3, 2, 4], &x), layer(1, &[2, 3, 4], &turned));
    assert_eq!((time[0].shape.as_slice(), batch[0].shape.as_slice()), (&[3, 1, 2, 3][..], &[2, 3, 1, 3][..]));
    assert_eq!((time[1].shape.as_slice(), batch[1].shape.as_slice()), (&[1, 2, 3][..], &[2, 1, 3][..]));
    near("states", batch[1].as_f32().unwrap(), time[1].as_f32().unwrap(), 1e-6);
    let y = time[0].as_f32().unwrap();
    let expected: Vec<f32> = (0..18).map(|i| y[(i / 3 % 3 * 2 + i / 9) * 3 + i % 3]).collect();
    near("steps", batch[0].as_f32().unwrap(), &expected, 1e-6);
}

#[test]
fn what_is_not_computed_is_refused() {
    layer("LSTM", 1).text("direction", "sideways").refused();
    layer("LSTM", 1).texts("activations", &["Sigmoid", "Relu", "Tanh"]).refused();
    layer("LSTM", 1).int("input_forget", 1).refused();
    layer("GRU", 1).float("clip", 1.0).refused();
    layer("GRU", 1).int("layout", 2).refused();
    layer("GRU", 2).refused();
    layer("GRU", 1).lengths(&[1]).refused();
    layer("GRU", 1).lengths(&[1, 4]).refused();
    layer("GRU", 1).lengths(&[1, -1]).refused();
    layer("GRU", 1).left_out().some(&[1, 2, 4]).refused();
    layer("LSTM", 1).left_out().left_out().left_out().some(&[1, 8]).refused();
    case("RNN").int("hidden_size", 4).some(&[3, 2, 4]).some(&[1, 3, 4]).some(&[1, 3, 3]).refused();
    case("RNN").some(&[3, 2]).some(&[1, 3, 4]).some(&[1, 3, 3]).refused();
}
