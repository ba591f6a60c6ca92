//! The gradient of one step: that of a batch, or the mean of several batches'.

use burn_flex::FlexTensor;

/// A sum of gradients of mean losses, each times what its mean was taken over.
#[derive(Default)]
pub(super) struct Gradients {
    /// For each parameter in layout order; `None` where no gradient flows.
    tensors: Vec<Option<FlexTensor>>,
    batches: usize,
    weight: f64,
}

impl Gradients {
    /// Adds the gradients of one batch's mean loss, which was taken over `weight`.
    pub(super) fn add(&mut self, gradients: Vec<Option<FlexTensor>>, weight: f64) {
        let gradients = gradients.into_iter().map(|g| g.map(|g| g.to_contiguous()));
        match self.batches {
            // Most steps have one batch: its mean is the step's.
            0 => self.tensors = gradients.collect(),
            1 => {
                let first = self.weight as f32;
                self.tensors.iter_mut().flatten().for_each(|sum| scale(sum, first));
                self.join(gradients, weight);
            }
            _ => self.join(gradients, weight),
        }
        self.batches += 1;
        self.weight += weight;
    }

    fn join(&mut self, gradients: impl Iterator<Item = Option<FlexTensor>>, weight: f64) {
        for (sum, gradient) in self.tensors.iter_mut().zip(gradients) {
            match (sum, gradient) {
                (Some(sum), Some(gradient)) => {
                    sum.storage_mut::<f32>().iter_mut().zip(values(&gradient)).for_each(|(s, g)| *s += weight as f32 * g);
                }
                (sum @ None, Some(mut gradient)) => {
                    scale(&mut gradient, weight as f32);
                    *sum = Some(gradient);
                }
                (_, None) => {}
            }
        }
    }

    /// The mean over all batches, at most `clip` long: all parameters together, L2. `None` if nothing counted.
    pub(super) fn mean(mut self, clip: Option<f32>) -> Option<Vec<Option<FlexTensor>>> {
        if self.weight <= 0.0 {
            return None;
        }
        let mut factor = if self.batches == 1 { 1.0 } else { 1.0 / self.weight };
        if let Some(clip) = clip {
            let squares = self.tensors.iter().flatten().flat_map(values).map(|g| f64::from(*g) * f64::from(*g));
            let norm = squares.sum::<f64>().sqrt() * factor;
            if norm > f64::from(clip) {
                factor *= f64::from(clip) / norm;
            }
        }
        if factor != 1.0 {
            self.tensors.iter_mut().flatten().for_each(|gradient| scale(gradient, factor as f32));
        }
        Some(self.tensors)
    }
}

/// The values of a gradient that was made contiguous.
pub(super) fn values(gradient: &FlexTensor) -> &[f32] {
    gradient.as_slice::<f32>().expect("gradients are made contiguous, and all floats are f32")
}

fn scale(gradient: &mut FlexTensor, factor: f32) {
    gradient.storage_mut::<f32>().iter_mut().for_each(|g| *g *= factor);
}
