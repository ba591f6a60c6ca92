//! Data of another distribution than the calibration's.

use super::*;

fn shifted(calibration: &Tensor, other: &Tensor) -> Vec<Shift> {
    let model = zoo::mlp(8, &[16], 3, 1);
    let ranges = ranges(&model, &calibration.clone().into(), Calibrator::MinMax).unwrap();
    shifts(&model, &calibration.clone().into(), &ranges, &other.clone().into()).unwrap()
}

fn changed(x: &Tensor, change: impl Fn(f32) -> f32) -> Tensor {
    Tensor::f32(x.shape.clone(), x.as_f32().unwrap().iter().map(|v| change(*v)).collect()).unwrap()
}

#[test]
fn data_of_the_same_distribution_is_not_told_apart() {
    assert_eq!(shifted(&noise(&[200, 8], 3), &noise(&[150, 8], 4)), []);
}

#[test]
fn other_data_is_told_by_tensor_the_input_first() {
    let (x, y) = (noise(&[200, 8], 3), noise(&[150, 8], 4));
    // As where one set was scaled to 0..1 and the other was not: nearly all lies outside.
    let wider = shifted(&x, &changed(&y, |v| v * 255.0));
    assert_eq!(wider[0].tensor, "input");
    assert!(wider[0].outside > 0.99 && wider[0].found.1 > 200.0 && wider[0].calibrated.1 <= 1.0, "{wider:?}");
    assert!(wider.len() > 1, "what follows is shifted, too: {wider:?}");
    // The other way round nothing lies outside, and yet almost all steps are wasted.
    let narrower = shifted(&x, &changed(&y, |v| v / 255.0));
    assert_eq!((narrower[0].tensor.as_str(), narrower[0].outside), ("input", 0.0));
    assert!(narrower[0].distance > 0.4, "{narrower:?}");
    // Values that are none lie outside.
    let none = shifted(&x, &changed(&y, |v| if v > 0.9 { f32::NAN } else { v }));
    assert!(none[0].tensor == "input" && none[0].outside > 0.02, "{none:?}");
}

#[test]
fn a_constant_tensor_is_like_itself_alone() {
    let constant = |value: f32| Tensor::f32([40, 8], vec![value; 320]).unwrap();
    assert_eq!(shifted(&constant(0.5), &constant(0.5)), []);
    assert_eq!(shifted(&constant(0.5), &constant(0.25))[0].tensor, "input");
}
