//! How the learning rate moves.

use crate::ModelError;

/// What the learning rate is multiplied by, from the first step to the last.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Schedule {
    /// How it falls after the warmup.
    pub shape: Shape,
    /// Share of all steps over which it rises from nothing first, from 0 to 1.
    pub warmup: f32,
}

/// How a learning rate falls.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Shape {
    /// Not at all.
    #[default]
    Constant,
    /// Along a line that would reach 0 one step after the last.
    Linear,
    /// Along half a cosine (Loshchilov and Hutter 2017, without restarts).
    Cosine,
    /// By `factor` each time that this share of all steps is done.
    Step {
        /// From above 0 to 1.
        every: f32,
        /// From above 0 to 1.
        factor: f32,
    },
}

impl Schedule {
    /// The factor at `step`, from 0, of `steps`.
    pub fn factor(&self, step: usize, steps: usize) -> f32 {
        let warmup = f64::from(self.warmup) * steps as f64;
        let at = step as f64;
        if at < warmup {
            return ((at + 1.0) / (warmup + 1.0)) as f32;
        }
        let rest = (steps as f64 - warmup).max(1.0);
        let done = ((at - warmup) / rest).clamp(0.0, 1.0);
        (match self.shape {
            Shape::Constant => 1.0,
            Shape::Linear => 1.0 - done,
            Shape::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
            Shape::Step { every, factor } => f64::from(factor).powf((done / f64::from(every)).floor()),
        }) as f32
    }

    /// Refuses shares outside 0..=1.
    pub(super) fn check(&self) -> Result<(), ModelError> {
        let bad = |name, value: f32| {
            let reason = "it must be a share from 0 to 1, and above 0 for a step".to_owned();
            Err(ModelError::Setting { name, value: value.to_string(), reason })
        };
        if !(0.0..=1.0).contains(&self.warmup) {
            return bad("warmup", self.warmup);
        }
        let Shape::Step { every, factor } = self.shape else { return Ok(()) };
        match [("step", every), ("factor", factor)].into_iter().find(|(_, v)| !(*v > 0.0 && *v <= 1.0)) {
            Some((name, value)) => bad(name, value),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(shape: Shape, warmup: f32, steps: usize) -> Vec<f32> {
        (0..steps).map(|step| Schedule { shape, warmup }.factor(step, steps)).collect()
    }

    #[test]
    fn shapes_by_hand() {
        assert_eq!(factors(Shape::Constant, 0.0, 3), [1.0, 1.0, 1.0]);
        assert_eq!(factors(Shape::Linear, 0.0, 4), [1.0, 0.75, 0.5, 0.25]);
        assert_eq!(factors(Shape::Cosine, 0.0, 2), [1.0, 0.5]);
        assert_eq!(factors(Shape::Step { every: 0.5, factor: 0.1 }, 0.0, 4), [1.0, 1.0, 0.1, 0.1]);
        // Half of four steps rise, in thirds of the way, and the others fall from the top.
        assert_eq!(factors(Shape::Linear, 0.5, 4), [1.0 / 3.0, 2.0 / 3.0, 1.0, 0.5]);
    }

    #[test]
    fn no_step_has_no_rate_and_none_is_above_the_top() {
        for shape in [Shape::Constant, Shape::Linear, Shape::Cosine, Shape::Step { every: 0.3, factor: 0.5 }] {
            for warmup in [0.0, 0.1, 1.0] {
                for steps in [1, 2, 7, 1000] {
                    let all = factors(shape, warmup, steps);
                    assert!(all.iter().all(|f| *f > 0.0 && *f <= 1.0), "{shape:?} {warmup} {steps}: {all:?}");
                }
            }
        }
    }

    #[test]
    fn shares_outside_their_range_are_refused() {
        let check = |shape, warmup| Schedule { shape, warmup }.check().is_ok();
        assert!(check(Shape::Constant, 0.0) && check(Shape::Step { every: 1.0, factor: 1.0 }, 1.0));
        assert!(!check(Shape::Constant, 1.1) && !check(Shape::Linear, f32::NAN));
        assert!(!check(Shape::Step { every: 0.0, factor: 0.5 }, 0.0) && !check(Shape::Step { every: 0.5, factor: 0.0 }, 0.0));
    }
}
