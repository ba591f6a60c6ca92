use super::*;
use crate::Tensor;

fn plain() -> Labels {
    Labels::default()
}

fn data(y: Targets, rows: usize) -> Dataset {
    Dataset { x: Tensor::f32([rows, 1], vec![0.0; rows]).unwrap().into(), y }
}

/// The gradient of every loss agrees with central differences of its value.
#[test]
fn gradients_match_differences() {
    let values = Targets::Values(Tensor::f32([2, 3], vec![0.1, 0.9, 0.4, 1.0, 0.0, 0.5]).unwrap());
    let classes = Targets::Classes(vec![2, 0]);
    let answers = [0.3f32, -1.2, 2.0, 0.7, 0.02, -3.0];
    let weighted = Labels { weights: vec![0.5, 1.0, 3.0], ..plain() };
    let smoothed = Labels { smoothing: 0.2, ..weighted.clone() };
    let ignored = Labels { ignore: Some(0), ..smoothed.clone() };
    let cases = [
        (Loss::CrossEntropy, plain(), &classes),
        (Loss::CrossEntropy, weighted.clone(), &classes),
        (Loss::CrossEntropy, smoothed, &classes),
        (Loss::CrossEntropy, ignored, &classes),
        (Loss::Focal { gamma: 2.0 }, weighted, &classes),
        (Loss::Focal { gamma: 0.5 }, plain(), &classes),
        (Loss::Mse, plain(), &values),
        (Loss::Bce, plain(), &values),
        (Loss::Mae, plain(), &values),
        (Loss::Huber { delta: 0.5 }, plain(), &values),
        (Loss::Pinball { quantile: 0.9 }, plain(), &values),
    ];
    for (loss, labels, y) in cases {
        let data = data(y.clone(), 2);
        let exact = loss.measure(&labels, &answers, 3, &data, &[1, 0]).gradient;
        for i in 0..answers.len() {
            let h = 1e-3f32;
            let at = |d: f32| {
                let mut moved = answers;
                moved[i] += d;
                loss.measure(&labels, &moved, 3, &data, &[1, 0]).loss
            };
            let slope = (at(h) - at(-h)) / f64::from(2.0 * h);
            assert!((slope - f64::from(exact[i])).abs() < 1e-4, "{loss:?} {labels:?} {i}: {slope} {}", exact[i]);
        }
    }
}

#[test]
fn values_by_hand() {
    // ln(e^0 + e^0) = ln 2
    let half = Loss::CrossEntropy.measure(&plain(), &[0.0, 0.0], 2, &data(Targets::Classes(vec![1]), 1), &[0]);
    assert!((half.loss - 2f64.ln()).abs() < 1e-9);
    assert_eq!(half.gradient, [0.5, -0.5]);
    // ((1 - 0)^2 + (3 - 1)^2) / 2
    let y = Targets::Values(Tensor::f32([2, 1], vec![0.0, 1.0]).unwrap());
    let mse = Loss::Mse.measure(&plain(), &[1.0, 3.0], 1, &data(y, 2), &[0, 1]);
    assert_eq!((mse.loss, mse.gradient, mse.correct), (2.5, vec![1.0, 2.0], None));
    let bce = Loss::Bce.measure(&plain(), &[0.0], 1, &data(Targets::Classes(vec![1]), 1), &[0]);
    assert!((bce.loss - 2f64.ln()).abs() < 1e-9);
    assert_eq!(bce.gradient, [-0.5]);
}

#[test]
fn huge_logits_do_not_overflow() {
    let ce = Loss::CrossEntropy.measure(&plain(), &[1e30, -1e30], 2, &data(Targets::Classes(vec![0]), 1), &[0]);
    assert_eq!((ce.loss, ce.correct), (0.0, Some(1)));
    for z in [1e30f32, -1e30] {
        let bce = Loss::Bce.measure(&plain(), &[z], 1, &data(Targets::Classes(vec![i64::from(z > 0.0)]), 1), &[0]);
        assert_eq!((bce.loss, bce.correct), (0.0, Some(1)), "{z}");
    }
}

#[test]
fn targets_of_the_wrong_kind_are_refused() {
    let classes = Targets::Classes(vec![0]);
    let two = Targets::Values(Tensor::f32([1, 2], vec![0.0, 2.0]).unwrap());
    assert!(matches!(Loss::Mse.check(&classes, 1), Err(TrainError::Data(DataFault::Targets { .. }))));
    assert!(matches!(Loss::Bce.check(&classes, 2), Err(TrainError::Data(DataFault::Targets { .. }))));
    assert!(matches!(Loss::CrossEntropy.check(&two, 2), Err(TrainError::Data(DataFault::Targets { .. }))));
    assert!(matches!(Loss::Bce.check(&two, 2), Err(TrainError::Data(DataFault::Targets { .. }))));
    assert_eq!(Loss::Mse.check(&two, 3), Err(TrainError::Targets { expected: 3, found: 2 }));
    assert_eq!(Loss::Mse.check(&two, 2), Ok(()));
}

/// What PyTorch 2.15 gives: `CrossEntropyLoss(weight, ignore_index=1, label_smoothing=0.1)`, `HuberLoss(delta=0.7)`, `L1Loss`, and
/// the focal loss as `mean(-(1 - p)^2 ln p)`.
#[test]
fn values_are_those_of_pytorch() {
    let logits = [0.3f32, -1.2, 2.0, 0.7, 0.0, -3.0, 1.5, 0.2, 0.1];
    let classes = data(Targets::Classes(vec![2, 1, 0]), 3);
    let labels = Labels { weights: vec![0.5, 1.0, 3.0], smoothing: 0.1, ignore: Some(1) };
    let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    near(Loss::CrossEntropy.measure(&labels, &logits, 3, &classes, &[0, 1, 2]).loss, 0.326_851_020_583);
    near(Loss::Focal { gamma: 2.0 }.measure(&plain(), &logits, 3, &classes, &[0, 1, 2]).loss, 0.187_839_023_391);
    let values = data(Targets::Values(Tensor::f32([3, 3], vec![0.1, 0.9, 0.4, 1.0, 0.0, 0.5, 1.5, -2.0, 3.0]).unwrap()), 3);
    near(Loss::Huber { delta: 0.7 }.measure(&plain(), &logits, 3, &values, &[0, 1, 2]).loss, 0.827_777_777_777);
    near(Loss::Mae.measure(&plain(), &logits, 3, &values, &[0, 1, 2]).loss, 1.422_222_222_222);
}

#[test]
fn an_ignored_label_counts_nowhere() {
    let labels = Labels { ignore: Some(-1), ..plain() };
    let with = data(Targets::Classes(vec![1, -1]), 2);
    let both = Loss::CrossEntropy.measure(&labels, &[0.0, 0.0, 9.0, 1.0], 2, &with, &[0, 1]);
    assert_eq!((both.examples, both.weight, both.correct), (1, 1.0, Some(0)));
    assert_eq!(both.gradient, [0.5, -0.5, 0.0, 0.0]);
    let none = Loss::CrossEntropy.measure(&labels, &[9.0, 1.0], 2, &with, &[1]);
    assert_eq!((none.loss, none.weight, none.gradient), (0.0, 0.0, vec![0.0, 0.0]));
}

#[test]
fn an_answer_that_is_sure_costs_the_focal_loss_nothing() {
    for gamma in [0.0, 0.5, 2.0] {
        let sure = Loss::Focal { gamma }.measure(&plain(), &[1e30, -1e30], 2, &data(Targets::Classes(vec![0]), 1), &[0]);
        assert_eq!((sure.loss, sure.gradient), (0.0, vec![0.0, 0.0]), "{gamma}");
    }
}

#[test]
fn settings_outside_their_domain_are_refused() {
    let ok = |loss: Loss, labels: &Labels| loss.check_settings(labels).is_ok();
    let smoothed = Labels { smoothing: 0.1, ..plain() };
    let ignoring = Labels { ignore: Some(3), ..plain() };
    assert!(ok(Loss::CrossEntropy, &smoothed) && ok(Loss::Focal { gamma: 0.0 }, &ignoring) && ok(Loss::Huber { delta: 0.1 }, &plain()));
    for loss in [Loss::Focal { gamma: -1.0 }, Loss::Huber { delta: 0.0 }, Loss::Pinball { quantile: 1.0 }, Loss::Huber { delta: f32::NAN }]
    {
        assert!(!ok(loss, &plain()), "{loss:?}");
    }
    assert!(!ok(Loss::Focal { gamma: 2.0 }, &smoothed) && !ok(Loss::Mse, &ignoring));
    for labels in [Labels { smoothing: 1.0, ..plain() }, Labels { weights: vec![1.0, 0.0], ..plain() }] {
        assert!(!ok(Loss::CrossEntropy, &labels), "{labels:?}");
    }
}

#[test]
fn losses_go_by_name() {
    assert_eq!("cross-entropy".parse(), Ok(Loss::CrossEntropy));
    assert_eq!("pinball:0.9".parse(), Ok(Loss::Pinball { quantile: 0.9 }));
    assert_eq!("huber".parse(), Ok(Loss::Huber { delta: 1.0 }));
    for bad in ["hinge", "mse:1", "huber:x"] {
        assert!(bad.parse::<Loss>().unwrap_err().to_string().contains(bad));
    }
}
