//! A loss as a file says it: `"cross_entropy"`, `"huber"`, `"huber:0.5"`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::LossKind;

/// What training makes small. Its text names the same loss in `sapwood_models::train`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Loss {
    /// Which one.
    pub kind: LossKind,
    /// The number behind the colon: the gamma of the focal loss, the distance of Huber's, the quantile of the pinball loss.
    pub number: Option<f64>,
}

impl Loss {
    /// Whether the targets are labels of classes.
    pub fn is_of_classes(self) -> bool {
        matches!(self.kind, LossKind::CrossEntropy | LossKind::Focal)
    }

    /// Whether answers are right or wrong.
    pub fn has_accuracy(self) -> bool {
        self.is_of_classes() || self.kind == LossKind::Bce
    }
}

impl From<LossKind> for Loss {
    fn from(kind: LossKind) -> Self {
        Self { kind, number: None }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            None => write!(f, "{}", self.kind),
            Some(number) => write!(f, "{}:{number}", self.kind),
        }
    }
}

impl From<Loss> for String {
    fn from(loss: Loss) -> Self {
        loss.to_string()
    }
}

impl TryFrom<String> for Loss {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Loss {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (word, number) = text.split_once(':').map_or((text, None), |(word, number)| (word, Some(number)));
        let kind = LossKind::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(word))
            .map_err(|_| format!("{word:?} is no loss; use {}", LossKind::WORDS.join(", ")))?;
        let Some(number) = number else { return Ok(kind.into()) };
        let number: f64 = number.parse().map_err(|_| format!("{number:?} behind the colon is no number"))?;
        let fits = match kind {
            LossKind::Focal => number.is_finite() && number >= 0.0,
            LossKind::Huber => number.is_finite() && number > 0.0,
            LossKind::Pinball => number > 0.0 && number < 1.0,
            _ => return Err(format!("{kind} takes no number")),
        };
        if fits { Ok(Self { kind, number: Some(number) }) } else { Err(format!("{number} is nothing for {kind}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_a_word_and_perhaps_a_number() {
        for (text, kind, number) in [
            ("cross_entropy", LossKind::CrossEntropy, None),
            ("huber:0.5", LossKind::Huber, Some(0.5)),
            ("focal:0", LossKind::Focal, Some(0.0)),
        ] {
            let loss: Loss = text.parse().unwrap();
            assert_eq!((loss, loss.to_string().as_str()), (Loss { kind, number }, text));
        }
    }

    #[test]
    fn other_words_and_numbers_are_refused_by_what_they_are() {
        for (text, word) in [
            ("hinge", "pinball"),
            ("mse:1", "no number"),
            ("pinball:1", "nothing for pinball"),
            ("huber:0", "nothing for huber"),
            ("focal:nan", "nothing for focal"),
            ("huber:", "no number"),
        ] {
            let refused = text.parse::<Loss>().unwrap_err();
            assert!(refused.contains(word), "{text}: {refused}");
        }
    }
}
