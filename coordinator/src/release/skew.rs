//! Training-serving skew: nodes train on what the interpreter makes of raw features, and serve what ONNX Runtime makes of them. A release
//! is refused where these are not the same numbers.

use sapwood_models::{Dim, Element, Features, Model, ModelError, Tensor, forward::Forward};
use sapwood_runtime::{Runtime, SessionOptions};

use super::ReleaseError;

const KEY: &str = "model.preprocess";
/// Examples that are compared.
const EXAMPLES: usize = 64;
/// Largest difference, as a share of the largest value: sums of floats in another order differ by less.
const TOLERANCE: f64 = 1e-4;

/// Compares both on the first of these examples.
pub(super) fn check(graph: &Model, runtime: &Runtime, x: &Features) -> Result<(), ReleaseError> {
    let (input, batch) = graph.inputs().into_iter().next().map(|input| (input.name, input.shape.into_iter().next())).unwrap_or_default();
    let count = match batch {
        Some(Dim::Fixed(batch)) => batch,
        _ => x.rows().min(EXAMPLES),
    };
    // A graph with a fixed batch gets some examples again.
    let x = x.take_rows(&(0..count).map(|row| row % x.rows().max(1)).collect::<Vec<_>>());
    let trained = Forward::new(graph)?.features(&x, count)?;
    let trained = trained.for_input(&input).map_err(ModelError::from)?;
    let mut session = runtime.session(&graph.encode(), SessionOptions { threads: 1 })?;
    let served = session.answer(&x)?.read_as(Element::F32).map_err(|_| ReleaseError::setting(KEY, "its output is no number"))?;
    compare(trained, &served).map_err(|why| ReleaseError::setting(KEY, why))
}

fn compare(trained: &Tensor, served: &Tensor) -> Result<(), String> {
    const WHERE: &str = "in training and where it is served";
    if trained.shape != served.shape {
        return Err(format!("its output has shapes {:?} and {:?} {WHERE}", trained.shape, served.shape));
    }
    let (a, b) = (trained.as_f32().unwrap_or_default(), served.as_f32().unwrap_or_default());
    let largest = a.iter().fold(0.0_f64, |most, value| most.max(f64::from(value.abs())));
    // A difference that is no number is one, too.
    let same = |(a, b): (&f32, &f32)| a == b || (f64::from(*a) - f64::from(*b)).abs() <= TOLERANCE * largest;
    let Some(at) = a.iter().zip(b).position(|pair| !same(pair)) else { return Ok(()) };
    let width = trained.row_len().max(1);
    Err(format!("row {}, column {} is {} and {} {WHERE}; use operators that both compute alike", at / width, at % width, a[at], b[at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_numbers_are_found_and_roundings_are_not() {
        let tensor = |values: &[f32]| Tensor::f32([2, 2], values.to_vec()).unwrap();
        let trained = tensor(&[0.0, 1.0, -200.0, 3.0]);
        compare(&trained, &tensor(&[0.0, 1.000_1, -200.001, 3.0])).unwrap();
        let said = compare(&trained, &tensor(&[0.0, 1.0, -200.0, 3.5])).unwrap_err();
        assert!(said.starts_with("row 1, column 1 is 3 and 3.5 in training and where it is served"), "{said}");
        assert!(compare(&trained, &tensor(&[f32::NAN, 1.0, -200.0, 3.0])).is_err());
        assert!(compare(&trained, &Tensor::f32([4], vec![0.0, 1.0, -200.0, 3.0]).unwrap()).unwrap_err().contains("shapes [2, 2] and [4]"));
    }
}
