//! Gradients per unit as differentially private training uses them.

use super::*;

/// What one unit gave.
#[derive(Debug, Clone, PartialEq)]
struct Got {
    gradient: Vec<f32>,
    loss: f64,
    correct: Option<u32>,
    rows: usize,
}

fn gradients(trainer: &Trainer, data: &Dataset, units: &[Vec<usize>], seed: u64) -> Result<Vec<Got>, TrainError> {
    let mut got = Vec::new();
    let mut each = |unit: UnitGradient<'_>| {
        got.push(Got { gradient: unit.gradient.to_vec(), loss: unit.loss, correct: unit.correct, rows: unit.rows });
        ControlFlow::Continue(())
    };
    trainer.unit_gradients(data, units.iter().map(Vec::as_slice), seed, &mut each)?;
    Ok(got)
}

fn singles(n: usize) -> Vec<Vec<usize>> {
    (0..n).map(|row| vec![row]).collect()
}

fn mean(got: &[Got]) -> Vec<f64> {
    let n = got.len() as f64;
    (0..got[0].gradient.len()).map(|k| got.iter().map(|g| f64::from(g.gradient[k])).sum::<f64>() / n).collect()
}

fn assert_near(what: &str, found: &[f64], wanted: &[f64], tolerance: f64) {
    assert_eq!(found.len(), wanted.len());
    for (k, (f, w)) in found.iter().zip(wanted).enumerate() {
        assert!((f - w).abs() <= tolerance, "{what}: place {k} has {f}, not {w}");
    }
    // Zeros would agree with zeros.
    assert!(wanted.iter().any(|w| w.abs() > 100.0 * tolerance), "{what}: the gradient is too small to compare");
}

fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// Two layers, the first stored `[out, in]` and the second `[in, out]`.
fn two_layers() -> Model {
    graph(
        2,
        vec![
            node("Gemm", "a", &["x", "w1", "b1"], &["h"], vec![int("transB", 1)]),
            node("Tanh", "t", &["h"], &["t"], vec![]),
            node("Gemm", "b", &["t", "w2"], &["y"], vec![]),
        ],
        &[
            ("w1", &[3, 2], &[0.5, -0.3, 0.2, 0.8, -0.6, 0.1]),
            ("b1", &[3], &[0.1, -0.1, 0.2]),
            ("w2", &[3, 4], &[0.3, -0.2, 0.5, 0.1, -0.4, 0.6, 0.2, -0.1, 0.7, -0.5, 0.3, 0.2]),
        ],
        4,
    )
}

/// A step of plain descent over all rows moves by the mean of the rows' gradients, and no
/// parameter has moved before it.
#[test]
fn the_mean_over_units_is_the_gradient_of_a_step() {
    let cases = [
        ("mlp", zoo::mlp(2, &[16, 8], 4, 1), corners(24, 2)),
        ("two layers", two_layers(), corners(24, 2)),
        ("cnn", zoo::cnn([1, 8, 8], 2, 1), bars(24, 2)),
    ];
    for (what, model, data) in cases {
        let mut trainer = Trainer::new(&model, plain(0.5, data.len())).unwrap();
        trainer.check_units().unwrap();
        let before = trainer.parameters();
        let got = gradients(&trainer, &data, &singles(data.len()), 7).unwrap();
        let bits = |flat: &[f32]| flat.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&trainer.parameters()), bits(&before), "{what}: the parameters stay");

        let measured = trainer.evaluate(&data).unwrap();
        assert!((got.iter().map(|g| g.loss).sum::<f64>() / 24.0 - measured.loss).abs() < 1e-6, "{what}");
        assert_eq!(got.iter().map(|g| g.correct.unwrap() as usize).sum::<usize>(), measured.correct.unwrap(), "{what}");

        trainer.train(&data, 1, 3, &mut go).unwrap();
        let step: Vec<f64> = before.iter().zip(trainer.parameters()).map(|(a, b)| (f64::from(*a) - f64::from(b)) / 0.5).collect();
        assert_near(what, &mean(&got), &step, 1e-5);
    }
}

/// Two of the losses and both layouts of a matrix, against central differences.
#[test]
fn the_gradient_of_one_row_matches_differences() {
    let values = Targets::Values(Tensor::f32([3, 4], (0..12).map(|i| i as f32 * 0.3 - 1.0).collect()).unwrap());
    for (loss, y) in [(Loss::CrossEntropy, Targets::Classes(vec![1, 3, 0])), (Loss::Mse, values)] {
        let data = Dataset { y, ..corners(3, 1) };
        let row = data.subset(&[1]);
        let mut trainer = Trainer::new(&two_layers(), config(loss, Optimizer::sgd(), 0.1, 4)).unwrap();
        let got = gradients(&trainer, &data, &[vec![1]], 0).unwrap().remove(0);
        let before = trainer.parameters();
        let slopes: Vec<f64> = (0..before.len())
            .map(|k| {
                let mut at = |d: f32| {
                    let mut moved = before.clone();
                    moved[k] += d;
                    trainer.set_parameters(&moved).unwrap();
                    trainer.evaluate(&row).unwrap().loss
                };
                (at(5e-3) - at(-5e-3)) / 1e-2
            })
            .collect();
        assert_near("row 1", &widened(&got.gradient), &slopes, 3e-4);
        assert_eq!(got.correct.is_none(), loss == Loss::Mse);
    }
}

/// A unit of several rows has the mean of their gradients, also where it runs in parts.
#[test]
fn an_entity_has_the_mean_of_its_rows() {
    let data = corners(300, 5);
    let trainer = Trainer::new(&two_layers(), plain(0.1, 4)).unwrap();
    let rows = gradients(&trainer, &data, &singles(300), 0).unwrap();
    for entity in [vec![2, 17, 9], (0..300).collect()] {
        let of: Vec<Got> = entity.iter().map(|row: &usize| rows[*row].clone()).collect();
        let got = gradients(&trainer, &data, std::slice::from_ref(&entity), 0).unwrap().remove(0);
        assert_near("entity", &widened(&got.gradient), &mean(&of), 1e-6);
        assert!((got.loss - of.iter().map(|g| g.loss).sum::<f64>() / entity.len() as f64).abs() < 1e-6);
        assert_eq!(got.correct, Some(of.iter().map(|g| g.correct.unwrap()).sum()));
        assert_eq!(got.rows, entity.len());
    }
}

#[test]
fn batch_normalization_is_refused_by_name_unless_its_statistics_are_frozen() {
    let refused = |freeze: &[&str]| {
        let freeze = freeze.iter().map(|p| (*p).to_owned()).collect();
        let trainer = Trainer::new(&normalized(), TrainConfig { freeze, ..plain(0.1, 4) }).unwrap();
        let refused = trainer.check_units().err();
        assert_eq!(gradients(&trainer, &corners(4, 1), &singles(4), 0).err(), refused.clone().map(TrainError::Model));
        refused
    };
    for freeze in [&[][..], &["scale"], &["w"]] {
        let Some(ModelError::Mixes { node, op, reason }) = refused(freeze) else { panic!("{freeze:?}") };
        assert!(op == "BatchNormalization" && node.contains("bn") && reason.contains("freeze `mean` and `var`"), "{node} {op} {reason}");
    }
    assert_eq!(refused(&["mean", "var"]), None);
}

/// Running statistics that stay in the vector have zeros; frozen tensors are not in it, and
/// the others' gradients are the same without them.
#[test]
fn what_is_not_trained_has_no_gradient() {
    let run = |freeze: &[&str]| {
        let freeze = freeze.iter().map(|p| (*p).to_owned()).collect();
        let trainer = Trainer::new(&normalized(), TrainConfig { freeze, ..plain(0.1, 4) }).unwrap();
        let got = gradients(&trainer, &corners(4, 1), &[vec![0], vec![1, 2]], 0).unwrap();
        (trainer.layout().clone(), got)
    };
    let (all, whole) = run(&["mean"]);
    let (few, rest) = run(&["mean", "scale", "w"]);
    assert_eq!((all.length(), few.length()), (14, 4));
    for (whole, rest) in whole.iter().zip(&rest) {
        assert_eq!(whole.gradient[all.get("var").unwrap().range()], [0.0, 0.0]);
        assert!(whole.gradient[all.get("w").unwrap().range()].iter().all(|v| *v != 0.0));
        let bias = &rest.gradient[few.get("bias").unwrap().range()];
        assert!(bias.iter().all(|v| *v != 0.0));
        assert_eq!(whole.gradient[all.get("bias").unwrap().range()], *bias);
        assert_eq!(rest.gradient[few.get("var").unwrap().range()], [0.0, 0.0]);
    }
}

/// A row that overflows counts as zeros, alone or within an entity, and changes no other unit.
#[test]
fn a_unit_that_is_not_finite_stops_no_other() {
    let clean = corners(6, 3);
    let mut broken = clean.clone();
    let crate::TensorData::F32(x) = &mut broken.x.only_mut().unwrap().data else { unreachable!() };
    x[4..6].copy_from_slice(&[3e38, -3e38]);
    let trainer = Trainer::new(&zoo::mlp(2, &[8], 4, 1), plain(0.1, 4)).unwrap();
    let units = [vec![0], vec![1], vec![2], vec![3], vec![4, 2], vec![5, 0]];
    let (want, got) = (gradients(&trainer, &clean, &units, 0).unwrap(), gradients(&trainer, &broken, &units, 0).unwrap());
    assert_eq!(got.len(), units.len());
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        if units[i].contains(&2) {
            assert!(got.loss.is_nan() && got.gradient.iter().all(|v| v.to_bits() == 0), "unit {i}: {got:?}");
            assert_eq!((got.correct, got.rows), (Some(0), units[i].len()));
        } else {
            assert_eq!(got, want, "unit {i}");
        }
    }
}

/// A finite loss does not save a unit whose gradient overflows.
#[test]
fn a_gradient_that_is_not_finite_is_zeros() {
    let mut trainer = Trainer::new(&zoo::mlp(2, &[], 1, 1), config(Loss::Mse, Optimizer::sgd(), 0.1, 4)).unwrap();
    trainer.set_parameters(&[0.0, 1e-20, 0.0]).unwrap();
    let x = Tensor::f32([2, 2], vec![1e30, 1e30, 1.0, 1.0]).unwrap();
    let data = Dataset { x: x.into(), y: Targets::Values(Tensor::f32([2, 1], vec![0.0, 1.0]).unwrap()) };
    let got = gradients(&trainer, &data, &singles(2), 0).unwrap();
    assert!(trainer.evaluate(&data.subset(&[0])).unwrap().loss.is_finite());
    assert!(got[0].loss.is_nan() && got[0].gradient == [0.0; 3] && got[0].correct.is_none(), "{got:?}");
    assert!(got[1].loss.is_finite() && got[1].gradient.iter().all(|v| *v != 0.0), "{got:?}");
}

/// A row that the graph refuses (here an index past its table) is treated alike.
#[test]
fn a_row_that_the_graph_refuses_stops_no_other() {
    let model = graph(
        1,
        vec![
            node("Cast", "to", &["x"], &["i"], vec![int("to", 7)]),
            node("Gather", "embed", &["table", "i"], &["e"], vec![]),
            node("Flatten", "flat", &["e"], &["y"], vec![]),
        ],
        &[("table", &[3, 2], &[0.1, 0.2, 0.3, 0.4, 0.5, 0.7])],
        2,
    );
    let trainer = Trainer::new(&model, plain(0.1, 4)).unwrap();
    let data = Dataset { x: Tensor::f32([3, 1], vec![1.0, 3.0, 2.0]).unwrap().into(), y: Targets::Classes(vec![0, 1, 1]) };
    let got = gradients(&trainer, &data, &singles(3), 0).unwrap();
    assert!(got[1].loss.is_nan() && got[1].gradient == [0.0; 6] && got[1].correct == Some(0), "{got:?}");
    for (unit, row) in [(0, 1), (2, 2)] {
        let touched: Vec<bool> = got[unit].gradient.iter().map(|v| *v != 0.0).collect();
        assert_eq!(touched, (0..6).map(|k| k / 2 == row).collect::<Vec<_>>());
    }
}

/// Found by review: masks came from the number of the row, so one row less changed the gradients of all behind it, by far more than the
/// sensitivity. They come from the seed alone.
#[test]
fn dropout_depends_on_the_seed_alone() {
    let drop = vec![node("Dropout", "d", &["z", "ratio"], &["y"], vec![])];
    let trainer = Trainer::new(&linear(drop, "z"), plain(0.1, 4)).unwrap();
    let data = corners(12, 1);
    let all = gradients(&trainer, &data, &singles(12), 5).unwrap();
    assert_eq!(all, gradients(&trainer, &data, &singles(12), 5).unwrap());
    assert_ne!(all, gradients(&trainer, &data, &singles(12), 6).unwrap());
    let without_the_first = data.subset(&(1..12).collect::<Vec<_>>());
    assert_eq!(all[1..], gradients(&trainer, &without_the_first, &singles(11), 5).unwrap());
    // A dropped answer passes no gradient to its bias; another seed drops others.
    let bias = trainer.layout().get("b").unwrap().range();
    let dropped = |seed| -> Vec<bool> {
        let got = gradients(&trainer, &data, &singles(1), seed).unwrap();
        got[0].gradient[bias.clone()].iter().map(|v| *v != 0.0).collect()
    };
    let masks: std::collections::BTreeSet<Vec<bool>> = (0..20).map(dropped).collect();
    assert!(masks.len() > 3, "{masks:?}");
}

#[test]
fn the_receiver_can_stop() {
    let trainer = Trainer::new(&two_layers(), plain(0.1, 4)).unwrap();
    let units = singles(5);
    let mut seen = 0;
    let mut each = |_: UnitGradient<'_>| {
        seen += 1;
        if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let stopped = trainer.unit_gradients(&corners(5, 1), units.iter().map(Vec::as_slice), 0, &mut each);
    assert_eq!((stopped, seen), (Err(TrainError::Stopped), 2));
}

#[test]
fn data_that_does_not_fit_is_refused_before_any_unit() {
    let trainer = Trainer::new(&two_layers(), plain(0.1, 4)).unwrap();
    let refuse = |data: &Dataset| {
        let row = [0];
        let mut each = |_: UnitGradient<'_>| panic!("a unit was handed out");
        trainer.unit_gradients(data, [&row[..]], 0, &mut each).unwrap_err()
    };
    // The fault is in a row of no unit: the data set is what is checked.
    let label = Dataset { y: Targets::Classes(vec![0, 4]), ..corners(2, 1) };
    assert!(matches!(refuse(&label), TrainError::Data(DataFault::Label { row: 1, .. })));
    let mut nan = corners(2, 1);
    let crate::TensorData::F32(x) = &mut nan.x.only_mut().unwrap().data else { unreachable!() };
    x[3] = f32::NAN;
    assert!(matches!(refuse(&nan), TrainError::Data(DataFault::NotFinite { row: 1, column: 1, .. })));
    let wide = Dataset { x: Tensor::f32([1, 3], vec![0.0; 3]).unwrap().into(), y: Targets::Classes(vec![0]) };
    assert!(matches!(refuse(&wide), TrainError::Data(DataFault::Shape { .. })));
}

#[test]
#[should_panic(expected = "a unit names rows of the data set")]
fn an_empty_unit_is_a_fault_of_the_caller() {
    let trainer = Trainer::new(&two_layers(), plain(0.1, 4)).unwrap();
    let _ = gradients(&trainer, &corners(2, 1), &[vec![]], 0);
}
