//! Which old elements each new element of an axis is made of, when it is resized.

use crate::kernel::resample::Line;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mode {
    Nearest(Nearest),
    Linear {
        antialias: Antialias,
    },
    Cubic {
        a: f32,
        /// Elements beyond the ends do not count, instead of being those at the ends.
        within: bool,
        antialias: Antialias,
    },
}

/// Whether an axis that shrinks is smoothed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Antialias {
    On,
    Off,
}

/// Which element a position between two is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Nearest {
    RoundPreferFloor,
    RoundPreferCeil,
    Floor,
    Ceil,
    /// Opset 10 and before: down, or up if the axis shrinks.
    Early,
}

/// Where a new element lies among the old ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Transformation {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    TfHalfPixelForNn,
    /// A part of the axis, as shares of it; what lies outside the axis is `outside`.
    Crop {
        region: (f32, f32),
        outside: f32,
    },
}

impl Mode {
    /// Most elements that a new one reads.
    pub(super) fn taps(self, scale: f32) -> usize {
        reach(self, scale).saturating_mul(2)
    }
}

/// How an axis of `read` elements becomes one of `written`.
pub(super) fn line(mode: Mode, transformation: Transformation, read: usize, written: usize, scale: f32) -> Line {
    let fill = if let Transformation::Crop { outside, .. } = transformation { outside } else { 0.0 };
    let last = (read - 1) as f32;
    let taps = (0..written).map(|i| {
        let at = transformation.position(i as f32, read as f32, written as f32, scale);
        let crops = matches!(transformation, Transformation::Crop { .. });
        if !at.is_finite() || crops && !(0.0..=last).contains(&at) {
            return Vec::new();
        }
        match mode {
            Mode::Nearest(nearest) => vec![(nearest.choose(at, scale).clamp(0.0, last) as u32, 1.0)],
            Mode::Linear { .. } | Mode::Cubic { .. } => mode.weights(at, read, scale),
        }
    });
    Line { read, taps: taps.collect(), fill }
}

impl Transformation {
    fn position(self, i: f32, read: f32, written: f32, scale: f32) -> f32 {
        match self {
            Self::HalfPixel => (i + 0.5) / scale - 0.5,
            Self::HalfPixelSymmetric => {
                let center = read / 2.0;
                center * (1.0 - written / (scale * read)) + (i + 0.5) / scale - 0.5
            }
            Self::PytorchHalfPixel if written > 1.0 => (i + 0.5) / scale - 0.5,
            Self::AlignCorners if written > 1.0 => i * (read - 1.0) / (written - 1.0),
            Self::PytorchHalfPixel | Self::AlignCorners => 0.0,
            Self::Asymmetric => i / scale,
            Self::TfHalfPixelForNn => (i + 0.5) / scale,
            Self::Crop { region: (start, end), .. } if written > 1.0 => {
                start * (read - 1.0) + i * (end - start) * (read - 1.0) / (written - 1.0)
            }
            Self::Crop { region: (start, end), .. } => 0.5 * (start + end) * (read - 1.0),
        }
    }
}

impl Nearest {
    fn choose(self, at: f32, scale: f32) -> f32 {
        match self {
            Self::RoundPreferFloor => (at - 0.5).ceil(),
            Self::RoundPreferCeil => (at + 0.5).floor(),
            Self::Floor => at.floor(),
            Self::Ceil => at.ceil(),
            Self::Early if scale < 1.0 => at.ceil(),
            Self::Early => at.floor(),
        }
    }
}

/// By how much a filter is widened.
fn widened(antialias: Antialias, scale: f32) -> f32 {
    if antialias == Antialias::On { scale.min(1.0) } else { 1.0 }
}

/// How many elements on each side of a position count.
fn reach(mode: Mode, scale: f32) -> usize {
    match mode {
        Mode::Nearest(_) => 1,
        Mode::Linear { antialias } => (1.0 / widened(antialias, scale)).ceil() as usize,
        Mode::Cubic { antialias, .. } => (2.0 / widened(antialias, scale)).ceil() as usize,
    }
}

impl Mode {
    /// The weights of linear and cubic interpolation at a position, which sum to one. Where the axis ends, its last element goes on.
    fn weights(self, at: f32, read: usize, scale: f32) -> Vec<(u32, f32)> {
        let reach = reach(self, scale) as i64;
        let (base, last) = (at.floor() as i64, read as i64 - 1);
        let mut found: Vec<(u32, f32)> = Vec::new();
        let mut sum = 0.0;
        for k in base.saturating_sub(reach - 1)..=base.saturating_add(reach) {
            let weight = self.filter(k as f32 - at, scale);
            if weight == 0.0 || matches!(self, Self::Cubic { within: true, .. }) && !(0..=last).contains(&k) {
                continue;
            }
            sum += weight;
            let from = k.clamp(0, last) as u32;
            match found.last_mut() {
                Some((same, weights)) if *same == from => *weights += weight,
                _ => found.push((from, weight)),
            }
        }
        found.iter_mut().for_each(|(_, weight)| *weight /= sum);
        found
    }

    fn filter(self, distance: f32, scale: f32) -> f32 {
        match self {
            Self::Nearest(_) => 0.0,
            Self::Linear { antialias } => (1.0 - (distance * widened(antialias, scale)).abs()).max(0.0),
            Self::Cubic { a, antialias, .. } => {
                let x = (distance * widened(antialias, scale)).abs();
                match x {
                    _ if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
                    _ if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
                    _ => 0.0,
                }
            }
        }
    }
}
