//! A loss as a file says it: `"cross_entropy"`, `"huber"`, `"huber:0.5"`, or a graph: `"my_loss.onnx"`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::LossKind;
use crate::digest::Digest;

/// What training makes small. Its text names the same loss in `sapwood_models::train`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Loss {
    /// Which one.
    pub kind: LossKind,
    /// The number behind the colon: the gamma of the focal loss, the distance of Huber's, the quantile of the pinball loss.
    pub number: Option<f64>,
    /// An ONNX graph in the place of both: a file's name, or its digest once it was submitted.
    pub graph: Option<String>,
}

impl From<Digest> for Loss {
    fn from(graph: Digest) -> Self {
        Self { graph: Some(graph.to_string()), ..Self::default() }
    }
}

impl Loss {
    /// The graph's digest; none for a loss that is named, or whose file was not submitted.
    pub fn digest(&self) -> Option<Digest> {
        self.graph.as_ref().and_then(|graph| graph.parse().ok())
    }

    /// Whether the targets are labels of classes. Of a graph that is not known here.
    pub fn is_of_classes(&self) -> bool {
        self.graph.is_none() && matches!(self.kind, LossKind::CrossEntropy | LossKind::Focal)
    }

    /// Whether answers are right or wrong.
    pub fn has_accuracy(&self) -> bool {
        self.is_of_classes() || self.graph.is_none() && self.kind == LossKind::Bce
    }
}

impl From<LossKind> for Loss {
    fn from(kind: LossKind) -> Self {
        Self { kind, ..Self::default() }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.graph, self.number) {
            (Some(graph), _) => f.write_str(graph),
            (None, None) => write!(f, "{}", self.kind),
            (None, Some(number)) => write!(f, "{}:{number}", self.kind),
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
        if text.ends_with(".onnx") || text.parse::<Digest>().is_ok() {
            return Ok(Self { graph: Some(text.to_owned()), ..Self::default() });
        }
        let (word, number) = text.split_once(':').map_or((text, None), |(word, number)| (word, Some(number)));
        let kind = LossKind::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(word))
            .map_err(|_| format!("{word:?} is no loss; use {} or an .onnx file", LossKind::WORDS.join(", ")))?;
        let Some(number) = number else { return Ok(kind.into()) };
        let number: f64 = number.parse().map_err(|_| format!("{number:?} behind the colon is no number"))?;
        let fits = match kind {
            LossKind::Focal => number.is_finite() && number >= 0.0,
            LossKind::Huber => number.is_finite() && number > 0.0,
            LossKind::Pinball => number > 0.0 && number < 1.0,
            _ => return Err(format!("{kind} takes no number")),
        };
        if fits { Ok(Self { kind, number: Some(number), graph: None }) } else { Err(format!("{number} is nothing for {kind}")) }
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
            assert_eq!(loss.to_string(), text);
            assert_eq!(loss, Loss { kind, number, graph: None });
        }
    }

    /// A file before it is submitted, and its digest from then on.
    #[test]
    fn a_graph_is_named_by_its_file_and_then_by_its_digest() {
        let file: Loss = "losses/mine.onnx".parse().unwrap();
        assert_eq!((file.to_string().as_str(), file.digest()), ("losses/mine.onnx", None));
        assert!(!file.is_of_classes() && !file.has_accuracy());
        let digest = Digest::of(b"graph");
        let sent = Loss::from(digest);
        assert_eq!(sent.digest(), Some(digest));
        assert_eq!(sent.to_string().parse::<Loss>().unwrap(), sent);
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
