//! Preprocessing graphs for [`crate::compose()`]: what is applied to raw features, in training by the interpreter and on devices by
//! ONNX Runtime, from one file.

use crate::ModelError;
use crate::onnx::{Element, Model, ValueInfo, make, pb, write_tensor};
use crate::tensor::Tensor;

/// More categories are no one-hot code; an embedding takes them as they are.
const MOST_CATEGORIES: usize = 1 << 20;

/// `normalized = (input - mean) / std`, both `[batch, ...shape]`. Mean and standard deviation are one number each, or one for each
/// entry of the first axis: a channel of an image, a feature of a row. Training changes neither.
///
/// # Errors
/// [`ModelError::Setting`] for as many numbers as neither, one that is not finite, or a deviation that is not above 0.
pub fn normalize(shape: &[usize], mean: &[f32], std: &[f32]) -> Result<Model, ModelError> {
    let tensor = |name, values: &[f32]| -> Result<Tensor, ModelError> {
        let bad = |value: String, reason: String| ModelError::Setting { name, value, reason };
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(bad(value.to_string(), "every number is finite".into()));
        }
        match values {
            [only] => Ok(Tensor::scalar(*only)),
            values if Some(&values.len()) == shape.first() => {
                let behind = std::iter::repeat_n(1, shape.len() - 1);
                Tensor::f32(std::iter::once(values.len()).chain(behind).collect::<Vec<_>>(), values.to_vec())
            }
            values => {
                let first = shape.first().copied().unwrap_or(1);
                Err(bad(
                    format!("{} numbers", values.len()),
                    format!("for shape {shape:?} it is 1, or {first}: one for each channel or feature"),
                ))
            }
        }
    };
    let (mean, deviation) = (tensor("mean", mean)?, tensor("std", std)?);
    if let Some(value) = std.iter().find(|value| **value <= 0.0) {
        return Err(ModelError::Setting { name: "std", value: value.to_string(), reason: "a deviation is above 0".into() });
    }
    Ok(super::finish(pb::GraphProto {
        name: Some("normalize".into()),
        node: vec![
            make::node("Sub", "centre", &["input", "mean"], &["centred"], vec![]),
            make::node("Div", "normalize", &["centred", "std"], &["normalized"], vec![]),
        ],
        initializer: vec![write_tensor("mean", &mean), write_tensor("std", &deviation)],
        input: vec![make::value(&make::batched("input", shape))],
        output: vec![make::value(&make::batched("normalized", shape))],
        ..Default::default()
    }))
}

/// One-hot codes of category indices: int64 `[batch, ...shape]` to float `[batch, ...shape, depth]`. An index from -depth to -1 counts
/// from the end, and any other that is not below the depth has no 1 at all, as ONNX says; a schema refuses both.
///
/// # Errors
/// [`ModelError::Setting`] for a depth below 2 or beyond 2^20.
pub fn one_hot(shape: &[usize], depth: usize) -> Result<Model, ModelError> {
    if !(2..=MOST_CATEGORIES).contains(&depth) {
        let reason = format!("there are 2 to {MOST_CATEGORIES} categories");
        return Err(ModelError::Setting { name: "depth", value: depth.to_string(), reason });
    }
    let values = Tensor::f32([2], vec![0.0, 1.0])?;
    let raw = ValueInfo { element: Element::I64, ..make::batched("input", shape) };
    Ok(super::finish(pb::GraphProto {
        name: Some("one-hot".into()),
        node: vec![make::node("OneHot", "one_hot", &["input", "depth", "values"], &["code"], vec![make::int("axis", -1)])],
        initializer: vec![write_tensor("depth", &Tensor::i64([1], vec![depth as i64])?), write_tensor("values", &values)],
        input: vec![make::value(&raw)],
        output: vec![make::value(&make::batched("code", &[shape, &[depth]].concat()))],
        ..Default::default()
    }))
}

/// How [`resize`] fills in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
    /// Between the two nearest pixels on each axis; what shrinks far is better averaged first.
    Linear,
    /// The nearest pixel; ties go down.
    Nearest,
}

/// Images `[batch, channels, height, width]` at another height and width. Pixels are areas, of which positions are the centres
/// (`half_pixel`), as PyTorch has it with `align_corners=False`.
///
/// # Errors
/// [`ModelError::Setting`] for an extent of 0.
pub fn resize([channels, height, width]: [usize; 3], to: [usize; 2], interpolation: Interpolation) -> Result<Model, ModelError> {
    if [channels, height, width, to[0], to[1]].contains(&0) {
        let value = format!("{},{} from {channels},{height},{width}", to[0], to[1]);
        return Err(ModelError::Setting { name: "to", value, reason: "every extent is 1 at least".into() });
    }
    let scales = Tensor::f32([4], vec![1.0, 1.0, scale(height, to[0]), scale(width, to[1])])?;
    let mode = match interpolation {
        Interpolation::Linear => "linear",
        Interpolation::Nearest => "nearest",
    };
    let attributes = vec![make::text("coordinate_transformation_mode", "half_pixel"), make::text("mode", mode)];
    Ok(super::finish(pb::GraphProto {
        name: Some("resize".into()),
        // No region of interest. Sizes would name the batch, too, which no request knows.
        node: vec![make::node("Resize", "resize", &["input", "", "scales"], &["resized"], attributes)],
        initializer: vec![write_tensor("scales", &scales)],
        input: vec![make::value(&make::batched("input", &[channels, height, width]))],
        output: vec![make::value(&make::batched("resized", &[channels, to[0], to[1]]))],
        ..Default::default()
    }))
}

/// The least scale that, times the one extent and rounded down, gives the other.
fn scale(from: usize, to: usize) -> f32 {
    let scale = to as f32 / from as f32;
    if f64::from(scale) * from as f64 >= to as f64 { scale } else { scale.next_up() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Forward, compose, layout, zoo};

    fn setting(result: Result<Model, ModelError>) -> String {
        match result {
            Err(error @ ModelError::Setting { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn run(prefix: &Model, x: Tensor) -> Tensor {
        Forward::new(prefix).unwrap().features(&x.into(), 2).unwrap().only().unwrap().clone()
    }

    #[test]
    fn channels_and_features_have_a_mean_and_a_deviation_each() {
        let image = Tensor::f32([1, 2, 1, 2], vec![1.0, 3.0, 10.0, 30.0]).unwrap();
        let found = run(&normalize(&[2, 1, 2], &[1.0, 10.0], &[2.0, 20.0]).unwrap(), image);
        assert_eq!(found, Tensor::f32([1, 2, 1, 2], vec![0.0, 1.0, 0.0, 1.0]).unwrap());
        let row = Tensor::f32([2, 2], vec![1.0, 3.0, 5.0, 7.0]).unwrap();
        let found = run(&normalize(&[2], &[1.0], &[2.0, 4.0]).unwrap(), row);
        assert_eq!(found.as_f32().unwrap(), [0.0, 0.5, 2.0, 1.5]);
    }

    #[test]
    fn an_index_becomes_its_code() {
        let found = run(&one_hot(&[2], 3).unwrap(), Tensor::f32([2, 2], vec![0.0, 2.0, 1.0, 1.0]).unwrap());
        let codes = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0];
        assert_eq!(found, Tensor::f32([2, 2, 3], codes.to_vec()).unwrap());
    }

    #[test]
    fn what_cannot_be_built_is_refused_by_name() {
        assert!(
            setting(normalize(&[3, 8, 8], &[0.5, 0.5], &[1.0]))
                .starts_with("mean = 2 numbers is not allowed: for shape [3, 8, 8] it is 1, or 3")
        );
        assert!(setting(normalize(&[3], &[0.5], &[1.0, 0.0, 1.0])).starts_with("std = 0 "));
        assert!(setting(normalize(&[3], &[f32::NAN], &[1.0])).starts_with("mean = NaN "));
        assert!(setting(one_hot(&[3], 1)).starts_with("depth = 1 "));
        assert!(setting(resize([1, 8, 8], [0, 8], Interpolation::Linear)).starts_with("to = 0,8 "));
    }

    /// Nothing of a prefix is trained, and it fits models of later opsets.
    #[test]
    fn prefixes_fit_models_and_leave_their_parameters_alone() {
        let cnn = zoo::cnn([3, 8, 8], 10, 0);
        let mut later = cnn.clone().into_proto();
        later.opset_import[0].version = Some(20);
        let later = Model::new(later).unwrap();
        for prefix in
            [normalize(&[3, 8, 8], &[0.1, 0.2, 0.3], &[0.5]).unwrap(), resize([3, 32, 28], [8, 8], Interpolation::Linear).unwrap()]
        {
            assert_eq!(Model::decode(&prefix.encode()).unwrap(), prefix);
            for model in [&cnn, &later] {
                let joined = compose(&prefix, model).unwrap();
                assert_eq!(layout::parameters(&joined, &[]).unwrap(), layout::parameters(model, &[]).unwrap());
            }
        }
        let rows = compose(&zoo::rows(&[4, 3], 0.0, 1.0), &zoo::mlp(12, &[], 2, 0)).unwrap();
        let coded = compose(&one_hot(&[4], 3).unwrap(), &rows).unwrap();
        assert_eq!(coded.inputs()[0].element, Element::I64);
        assert_eq!(layout::parameters(&coded, &[]).unwrap().0.length(), 12 * 2 + 2);
    }

    #[test]
    fn scales_give_every_extent() {
        for from in 1..300 {
            for to in 1..300 {
                let scale = scale(from, to);
                assert_eq!((scale * from as f32).floor() as usize, to, "{from} to {to}");
                assert_eq!((f64::from(scale) * from as f64).floor() as usize, to, "{from} to {to}");
            }
        }
    }
}
