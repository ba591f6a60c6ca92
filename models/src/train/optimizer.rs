//! Optimizers, with PyTorch's formulas and defaults.
//!
//! They work on plain slices: one pass over a parameter, its gradient and its state.

use crate::ModelError;

/// How parameters follow their gradients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Optimizer {
    /// `p -= lr * v`, where `v = momentum * v + g` and `g` includes `weight_decay * p`.
    Sgd {
        /// Share of the last step that is kept, in 0..1; 0 is plain gradient descent.
        momentum: f32,
        /// L2 penalty, at least 0.
        weight_decay: f32,
        /// Looks ahead along the momentum (Sutskever et al. 2013).
        nesterov: bool,
    },
    /// Adam (Kingma and Ba 2015); the penalty is added to the gradient.
    Adam {
        /// Decay of the mean of gradients, in 0..1.
        beta1: f32,
        /// Decay of the mean of squared gradients, in 0..1.
        beta2: f32,
        /// Added to the root, above 0.
        epsilon: f32,
        /// L2 penalty, at least 0.
        weight_decay: f32,
    },
    /// Adam with the penalty applied to the parameter itself (Loshchilov and Hutter 2019).
    AdamW {
        /// Decay of the mean of gradients, in 0..1.
        beta1: f32,
        /// Decay of the mean of squared gradients, in 0..1.
        beta2: f32,
        /// Added to the root, above 0.
        epsilon: f32,
        /// Share of the parameter, times the learning rate, that is taken off each step.
        weight_decay: f32,
    },
}

impl Optimizer {
    /// Plain gradient descent.
    pub fn sgd() -> Self {
        Self::Sgd { momentum: 0.0, weight_decay: 0.0, nesterov: false }
    }

    /// Adam with its usual constants.
    pub fn adam() -> Self {
        Self::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 }
    }

    /// AdamW with its usual constants.
    pub fn adamw() -> Self {
        Self::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 }
    }

    /// Refuses constants outside their domain.
    pub(super) fn check(&self) -> Result<(), ModelError> {
        let bad = |name, value: f32, reason: &str| Err(ModelError::Setting { name, value: value.to_string(), reason: reason.to_owned() });
        let share = |v: f32| (0.0..1.0).contains(&v);
        let (decay, shares) = match *self {
            Self::Sgd { momentum, weight_decay, nesterov } => {
                if nesterov && momentum == 0.0 {
                    return bad("momentum", momentum, "nesterov needs a momentum above 0");
                }
                (weight_decay, [("momentum", momentum), ("momentum", momentum)])
            }
            Self::Adam { beta1, beta2, epsilon, weight_decay } | Self::AdamW { beta1, beta2, epsilon, weight_decay } => {
                if !(epsilon.is_finite() && epsilon > 0.0) {
                    return bad("epsilon", epsilon, "it must be above 0");
                }
                (weight_decay, [("beta1", beta1), ("beta2", beta2)])
            }
        };
        if let Some((name, value)) = shares.into_iter().find(|(_, v)| !share(*v)) {
            return bad(name, value, "it must be at least 0 and below 1");
        }
        if !(decay.is_finite() && decay >= 0.0) {
            return bad("weight_decay", decay, "it must be at least 0");
        }
        Ok(())
    }
}

/// The state of an optimizer over one run of training.
pub(super) struct Descent {
    optimizer: Optimizer,
    lr: f32,
    /// The learning rate of this step.
    rate: f32,
    /// Steps begun.
    step: i32,
    states: Vec<State>,
}

/// Running means of one parameter; empty where the optimizer keeps none.
#[derive(Clone, Default)]
struct State {
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Descent {
    /// A fresh state for `tensors` parameters.
    pub(super) fn new(optimizer: Optimizer, lr: f32, tensors: usize) -> Self {
        Self { optimizer, lr, rate: lr, step: 0, states: vec![State::default(); tensors] }
    }

    /// Begins a step at this share of the learning rate; every parameter is then moved once.
    pub(super) fn begin(&mut self, share: f32) {
        self.rate = self.lr * share;
        self.step = self.step.saturating_add(1);
    }

    /// Moves parameter `index` along its gradient; both have the same length.
    pub(super) fn update(&mut self, index: usize, parameter: &mut [f32], gradient: &[f32]) {
        let (lr, step, state) = (self.rate, self.step, &mut self.states[index]);
        match self.optimizer {
            Optimizer::Sgd { momentum: 0.0, weight_decay, .. } => {
                for (p, g) in parameter.iter_mut().zip(gradient) {
                    *p -= lr * (g + weight_decay * *p);
                }
            }
            Optimizer::Sgd { momentum, weight_decay, nesterov } => {
                state.first.resize(parameter.len(), 0.0);
                for ((p, g), v) in parameter.iter_mut().zip(gradient).zip(&mut state.first) {
                    let g = g + weight_decay * *p;
                    *v = momentum * *v + g;
                    *p -= lr * if nesterov { g + momentum * *v } else { *v };
                }
            }
            Optimizer::Adam { beta1, beta2, epsilon, weight_decay } => {
                adam(parameter, gradient, state, &Moments { beta1, beta2, epsilon, lr, step, penalty: weight_decay, shrink: 1.0 });
            }
            Optimizer::AdamW { beta1, beta2, epsilon, weight_decay } => {
                let shrink = 1.0 - lr * weight_decay;
                adam(parameter, gradient, state, &Moments { beta1, beta2, epsilon, lr, step, penalty: 0.0, shrink });
            }
        }
    }
}

struct Moments {
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    lr: f32,
    step: i32,
    /// Times the parameter, added to the gradient.
    penalty: f32,
    /// The parameter is multiplied by this first.
    shrink: f32,
}

fn adam(parameter: &mut [f32], gradient: &[f32], state: &mut State, m: &Moments) {
    state.first.resize(parameter.len(), 0.0);
    state.second.resize(parameter.len(), 0.0);
    let correction = |beta: f32| (1.0 - f64::from(beta).powi(m.step)) as f32;
    let rate = m.lr / correction(m.beta1);
    let root = correction(m.beta2).sqrt();
    let states = state.first.iter_mut().zip(&mut state.second);
    for ((p, g), (first, second)) in parameter.iter_mut().zip(gradient).zip(states) {
        let g = g + m.penalty * *p;
        *first = m.beta1 * *first + (1.0 - m.beta1) * g;
        *second = m.beta2 * *second + (1.0 - m.beta2) * g * g;
        *p = *p * m.shrink - rate * *first / (second.sqrt() / root + m.epsilon);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gradients of three steps of a two-element parameter that starts at (1, -2).
    const GRADIENTS: [[f32; 2]; 3] = [[0.5, -1.0], [0.25, 2.0], [-0.75, 0.1]];

    fn run(optimizer: Optimizer) -> [f32; 2] {
        let mut descent = Descent::new(optimizer, 0.1, 1);
        let mut p = [1.0, -2.0];
        for g in &GRADIENTS {
            descent.begin(1.0);
            descent.update(0, &mut p, g);
        }
        p
    }

    fn near(got: [f32; 2], expected: [f64; 2]) {
        for (g, e) in got.iter().zip(expected) {
            assert!((f64::from(*g) - e).abs() < 1e-6, "{got:?} is not {expected:?}");
        }
    }

    /// The textbook recursions in f64, written apart from the code above.
    fn sgd_reference(momentum: f64, decay: f64, nesterov: bool) -> [f64; 2] {
        let mut result = [1.0, -2.0];
        for (i, p) in result.iter_mut().enumerate() {
            let mut buffer: Option<f64> = None;
            for g in &GRADIENTS {
                let g = f64::from(g[i]) + decay * *p;
                let b = buffer.map_or(g, |b| momentum * b + g);
                buffer = Some(b);
                *p -= 0.1 * if nesterov { g + momentum * b } else { b };
            }
        }
        result
    }

    fn adam_reference(decay: f64, decoupled: bool) -> [f64; 2] {
        let mut result = [1.0, -2.0];
        for (i, p) in result.iter_mut().enumerate() {
            let (mut m, mut v) = (0.0f64, 0.0f64);
            for (t, g) in GRADIENTS.iter().enumerate() {
                let mut g = f64::from(g[i]);
                if decoupled {
                    *p -= 0.1 * decay * *p;
                } else {
                    g += decay * *p;
                }
                m = 0.9 * m + 0.1 * g;
                v = 0.999 * v + 0.001 * g * g;
                let (mh, vh) = (m / (1.0 - 0.9f64.powi(t as i32 + 1)), v / (1.0 - 0.999f64.powi(t as i32 + 1)));
                *p -= 0.1 * mh / (vh.sqrt() + 1e-8);
            }
        }
        result
    }

    #[test]
    fn plain_descent_by_hand() {
        // 1 - 0.1 * (0.5 + 0.25 - 0.75) and -2 - 0.1 * (-1 + 2 + 0.1)
        near(run(Optimizer::sgd()), [1.0, -2.11]);
    }

    #[test]
    fn sgd_follows_its_recursion() {
        for (momentum, weight_decay, nesterov) in [(0.9, 0.0, false), (0.9, 0.01, false), (0.9, 0.01, true), (0.0, 0.1, false)] {
            let got = run(Optimizer::Sgd { momentum, weight_decay, nesterov });
            near(got, sgd_reference(f64::from(momentum), f64::from(weight_decay), nesterov));
        }
    }

    #[test]
    fn adam_follows_its_recursion() {
        near(run(Optimizer::adam()), adam_reference(0.0, false));
        near(run(Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.1 }), adam_reference(0.1, false));
        near(run(Optimizer::adamw()), adam_reference(0.01, true));
    }

    #[test]
    fn constants_outside_their_domain_are_refused() {
        let sgd = |momentum, weight_decay, nesterov| Optimizer::Sgd { momentum, weight_decay, nesterov }.check();
        assert!(sgd(0.9, 0.0, true).is_ok());
        assert!(sgd(1.0, 0.0, false).is_err());
        assert!(sgd(0.0, 0.0, true).is_err());
        assert!(sgd(0.0, f32::NAN, false).is_err());
        assert!(Optimizer::Adam { beta1: 0.9, beta2: 1.0, epsilon: 1e-8, weight_decay: 0.0 }.check().is_err());
        assert!(Optimizer::AdamW { beta1: 0.9, beta2: 0.9, epsilon: 0.0, weight_decay: 0.0 }.check().is_err());
    }
}
