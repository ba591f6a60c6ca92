//! From the outputs of a model to an answer: a label, how sure it is, and whether that is sure enough.
//!
//! The numbers lie in `config.json`, a part of their own, so that a threshold changes with the model's file as it was (R45).

use serde::{Deserialize, Serialize};

use crate::{
    fault::{Fault, Misuse},
    spec::{Loss, LossKind, PostprocessKind, PostprocessSpec},
};

/// Most labels of one model.
const MOST_LABELS: usize = 1 << 16;
/// Longest label, in bytes.
const LONGEST_LABEL: usize = 200;

/// What becomes of the outputs for one example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Postprocess {
    /// The index of the largest output is the class.
    Argmax {
        /// How many classes.
        classes: usize,
    },
    /// Outputs are made to sum to 1, and the most probable class is the answer.
    Softmax {
        /// Of each class, in order; left out, their numbers.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        labels: Vec<String>,
        /// Least probability of an answer that is accepted, 0 to 1.
        threshold: f64,
        /// What is said in the place of a label that is not; left out, the label.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        below: Option<String>,
    },
    /// The only output tells how probable a yes is.
    Sigmoid {
        /// Of no and of yes; left out, 0 and 1.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        labels: Vec<String>,
        /// Least probability of a yes, 0 to 1.
        threshold: f64,
    },
    /// The outputs are the answer.
    None {},
}

/// The answer to one example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The class, from 0; none if an output is no number.
    pub class: Option<usize>,
    /// What to say.
    pub label: String,
    /// Probability of the class, or under [`Postprocess::Argmax`] its output; none if an output is no number.
    pub score: Option<f64>,
    /// Whether the score reaches the threshold. Of a yes or no the threshold decides which it is, and either is accepted.
    pub accepted: bool,
}

impl Postprocess {
    /// What a run's file asks for, for a model with so many outputs.
    ///
    /// # Errors
    /// [`Misuse::Setting`] if that many outputs cannot have it.
    pub fn of(spec: &PostprocessSpec, loss: &Loss, outputs: usize) -> Result<Self, Fault> {
        let (labels, below) = (spec.labels.clone(), spec.below.clone());
        let made = match spec.kind(loss) {
            PostprocessKind::None => Self::None {},
            PostprocessKind::Argmax => Self::Argmax { classes: outputs },
            PostprocessKind::Softmax => Self::Softmax { labels, threshold: spec.threshold.unwrap_or(0.0), below },
            PostprocessKind::Sigmoid => Self::Sigmoid { labels, threshold: spec.threshold.unwrap_or(0.5) },
        };
        made.check("release.postprocess")?;
        made.fits("release.postprocess", outputs)?;
        Ok(made)
    }

    /// Refuses what means nothing; `key` is where it is written.
    ///
    /// # Errors
    /// [`Misuse::Setting`] with the path of the key.
    pub fn check(&self, key: &str) -> Result<(), Fault> {
        let (labels, threshold, below) = match self {
            Self::Softmax { labels, threshold, below } => (labels, *threshold, below.as_ref()),
            Self::Sigmoid { labels, threshold } => (labels, *threshold, None),
            Self::Argmax { .. } | Self::None {} => return Ok(()),
        };
        if !(0.0..=1.0).contains(&threshold) {
            return Err(setting(key, "threshold", format!("{threshold} is not a probability from 0 to 1")));
        }
        if labels.len() > MOST_LABELS {
            return Err(setting(key, "labels", format!("{} of them; at most {MOST_LABELS}", labels.len())));
        }
        for (at, text) in labels.iter().enumerate() {
            plain(text).map_err(|why| setting(key, "labels", why))?;
            if labels[..at].contains(text) {
                return Err(setting(key, "labels", format!("{text:?} is there twice")));
            }
        }
        let Some(below) = below else { return Ok(()) };
        plain(below).map_err(|why| setting(key, "below", why))?;
        if labels.contains(below) {
            return Err(setting(key, "below", format!("{below:?} is the label of a class, too")));
        }
        Ok(())
    }

    /// Whether a model with so many outputs for an example can have it.
    ///
    /// # Errors
    /// [`Misuse::Setting`] with the path of the key.
    pub fn fits(&self, key: &str, outputs: usize) -> Result<(), Fault> {
        let wrong = |key_: &str, why: String| Err(setting(key, key_, why));
        match self {
            Self::Softmax { labels, .. } if !labels.is_empty() && labels.len() != outputs => {
                wrong("labels", format!("{} of them, and the model has {outputs} classes", labels.len()))
            }
            Self::Sigmoid { .. } if outputs != 1 => wrong("kind", format!("sigmoid reads one output, the model has {outputs}")),
            Self::Sigmoid { labels, .. } if !labels.is_empty() && labels.len() != 2 => {
                wrong("labels", format!("{} of them; sigmoid has two, of no and of yes", labels.len()))
            }
            Self::Argmax { classes } if *classes != outputs => wrong("classes", format!("{classes}, and the model has {outputs}")),
            _ => Ok(()),
        }
    }

    /// The answer that these outputs for one example mean; none where the outputs are the answer.
    pub fn answer(&self, outputs: &[f32]) -> Option<Answer> {
        let name = |labels: &[String], class: usize| labels.get(class).cloned().unwrap_or_else(|| class.to_string());
        // A model that answers with no number has not answered.
        let lost = |label: Option<&String>| {
            let label = label.cloned().unwrap_or_else(|| "none".to_owned());
            Some(Answer { class: None, label, score: None, accepted: false })
        };
        let largest = largest(outputs);
        match self {
            Self::None {} => None,
            Self::Argmax { .. } => match largest {
                None => lost(None),
                Some(class) => {
                    let score = f64::from(outputs[class]);
                    Some(Answer { class: Some(class), label: class.to_string(), score: Some(score), accepted: true })
                }
            },
            Self::Softmax { labels, threshold, below } => {
                let Some(class) = largest else { return lost(below.as_ref()) };
                let total: f64 = outputs.iter().map(|output| (f64::from(*output) - f64::from(outputs[class])).exp()).sum();
                let score = total.recip();
                let accepted = score >= *threshold;
                let label = below.as_ref().filter(|_| !accepted).cloned().unwrap_or_else(|| name(labels, class));
                Some(Answer { class: Some(class), label, score: Some(score), accepted })
            }
            Self::Sigmoid { labels, threshold } => {
                let (Some(_), Some(logit)) = (largest, outputs.first()) else { return lost(None) };
                let yes = (1.0 + (-f64::from(*logit)).exp()).recip();
                let class = usize::from(yes >= *threshold);
                let score = if class == 1 { yes } else { 1.0 - yes };
                Some(Answer { class: Some(class), label: name(labels, class), score: Some(score), accepted: true })
            }
        }
    }
}

/// Of equal ones the first; none if there is none, or one is no finite number.
fn largest(outputs: &[f32]) -> Option<usize> {
    if outputs.is_empty() || outputs.iter().any(|output| !output.is_finite()) {
        return None;
    }
    let first = |best: usize, at: usize| if outputs[at] > outputs[best] { at } else { best };
    Some((0..outputs.len()).fold(0, first))
}

fn plain(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > LONGEST_LABEL || text.chars().any(char::is_control) {
        return Err(format!(
            "{:?} is no label: it is empty, longer than {LONGEST_LABEL} bytes, or not plain text",
            text.chars().take(40).collect::<String>()
        ));
    }
    Ok(())
}

fn setting(section: &str, key: &str, why: String) -> Fault {
    Misuse::Setting { key: format!("{section}.{key}"), why }.into()
}

impl PostprocessSpec {
    /// What is written, or what the loss trains for.
    pub fn kind(&self, loss: &Loss) -> PostprocessKind {
        let said = self.threshold.is_some() || self.below.is_some() || !self.labels.is_empty();
        self.kind.unwrap_or(match loss.kind {
            LossKind::Bce if said => PostprocessKind::Sigmoid,
            _ if !loss.is_of_classes() => PostprocessKind::None,
            _ if said => PostprocessKind::Softmax,
            _ => PostprocessKind::Argmax,
        })
    }

    /// Refuses what means nothing, before there is a model.
    ///
    /// # Errors
    /// [`Misuse::Setting`] with the path of the key.
    pub fn check(&self, loss: &Loss) -> Result<(), Fault> {
        const KEY: &str = "release.postprocess";
        let kind = self.kind(loss);
        let suits = match kind {
            PostprocessKind::None => true,
            // What a graph is a loss of, its author knows.
            PostprocessKind::Argmax | PostprocessKind::Softmax => loss.graph.is_some() || loss.is_of_classes(),
            PostprocessKind::Sigmoid => loss.graph.is_some() || loss.kind == LossKind::Bce,
        };
        if !suits {
            return Err(setting(KEY, "kind", format!("{kind} is not for a model that was trained with {loss}")));
        }
        let plain = matches!(kind, PostprocessKind::None | PostprocessKind::Argmax);
        for (key, said) in [("labels", !self.labels.is_empty()), ("threshold", self.threshold.is_some()), ("below", self.below.is_some())] {
            if said && (plain || key == "below" && kind == PostprocessKind::Sigmoid) {
                return Err(setting(KEY, key, format!("the kind {kind} has none; leave it out")));
            }
        }
        if self.below.is_some() && self.threshold.is_none() {
            return Err(setting(KEY, "below", "it needs release.postprocess.threshold".to_owned()));
        }
        let outputs = if kind == PostprocessKind::Sigmoid { 1 } else { self.labels.len() };
        Postprocess::of(self, loss, outputs).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Spec;

    fn softmax(threshold: f64, below: Option<&str>) -> Postprocess {
        Postprocess::Softmax { labels: ["cat", "dog", "fox"].map(String::from).into(), threshold, below: below.map(String::from) }
    }

    /// R45: the threshold alone decides whether the same outputs are accepted.
    #[test]
    fn the_threshold_decides() {
        // e² / (e² + 1 + e) = 0.6652.
        let outputs = [2.0, 0.0, 1.0];
        let answer = softmax(0.6, Some("unknown")).answer(&outputs).unwrap();
        assert_eq!((answer.class, answer.label.as_str(), answer.accepted), (Some(0), "cat", true));
        assert!((answer.score.unwrap() - 0.665_240_955_774_821_8).abs() < 1e-12);
        let unsure = softmax(0.7, Some("unknown")).answer(&outputs).unwrap();
        assert_eq!((unsure.class, unsure.label.as_str(), unsure.accepted, unsure.score), (Some(0), "unknown", false, answer.score));
        assert_eq!(softmax(0.7, None).answer(&outputs).unwrap().label, "cat");
        // Exactly the threshold is enough, and large outputs do not overflow.
        assert!(softmax(1.0, None).answer(&[1e30, -1e30, 0.0]).unwrap().accepted);
        let third = softmax(1.0 / 3.0, None).answer(&[5.0, 5.0, 5.0]).unwrap();
        assert_eq!((third.class, third.accepted), (Some(0), true));
    }

    #[test]
    fn a_yes_is_what_reaches_the_threshold() {
        let sigmoid = |threshold| Postprocess::Sigmoid { labels: ["no", "yes"].map(String::from).into(), threshold };
        for (logit, threshold, label, score) in
            [(0.0, 0.5, "yes", 0.5), (0.0, 0.51, "no", 0.5), (-90.0, 0.5, "no", 1.0), (1e30, 1.0, "yes", 1.0)]
        {
            let answer = sigmoid(threshold).answer(&[logit]).unwrap();
            assert_eq!((answer.label.as_str(), answer.accepted), (label, true), "{logit}");
            assert!((answer.score.unwrap() - score).abs() < 1e-12, "{logit}: {answer:?}");
        }
    }

    #[test]
    fn outputs_that_are_no_numbers_are_never_accepted() {
        for bad in [&[f32::NAN, 1.0, 2.0][..], &[f32::INFINITY, 0.0, 0.0], &[]] {
            for postprocess in
                [softmax(0.0, Some("unknown")), Postprocess::Argmax { classes: 3 }, Postprocess::Sigmoid { labels: vec![], threshold: 0.0 }]
            {
                let answer = postprocess.answer(bad).unwrap();
                assert_eq!((answer.class, answer.score, answer.accepted), (None, None, false), "{postprocess:?} {bad:?}");
            }
        }
        assert_eq!(softmax(0.0, Some("unknown")).answer(&[f32::NAN]).unwrap().label, "unknown");
        assert_eq!(Postprocess::None {}.answer(&[1.0]), None);
        let plain = Postprocess::Argmax { classes: 3 }.answer(&[-1.0, 4.0, 2.0]).unwrap();
        assert_eq!((plain.class, plain.label.as_str(), plain.score, plain.accepted), (Some(1), "1", Some(4.0), true));
    }

    fn spec(loss: &str, keys: &str) -> Result<Spec, Fault> {
        let file = format!("[model]\nfile = \"m\"\nloss = \"{loss}\"\n[secure_aggregation]\nmode = \"off\"\n[privacy]\nunit = \"none\"\n");
        Spec::parse(&format!("{file}[release.postprocess]\n{keys}\n"))
    }

    #[test]
    fn a_run_says_what_becomes_of_its_outputs() {
        let of = |loss: &str, keys: &str, outputs| {
            let spec = spec(loss, keys).unwrap();
            Postprocess::of(&spec.release.postprocess, &spec.model.loss, outputs)
        };
        assert_eq!(of("cross_entropy", "", 10).unwrap(), Postprocess::Argmax { classes: 10 });
        assert_eq!(of("mse", "", 1).unwrap(), Postprocess::None {});
        assert_eq!(of("bce", "", 1).unwrap(), Postprocess::None {});
        let keys = "labels = [\"cat\", \"dog\", \"fox\"]\nthreshold = 0.6\nbelow = \"unknown\"";
        assert_eq!(of("cross_entropy", keys, 3).unwrap(), softmax(0.6, Some("unknown")));
        assert!(
            of("cross_entropy", keys, 4)
                .unwrap_err()
                .to_string()
                .contains("release.postprocess.labels: 3 of them, and the model has 4 classes")
        );
        let yes = Postprocess::Sigmoid { labels: vec![], threshold: 0.9 };
        assert_eq!(of("bce", "threshold = 0.9", 1).unwrap(), yes);
        assert!(of("bce", "threshold = 0.9", 2).unwrap_err().to_string().contains("sigmoid reads one output, the model has 2"));
        let text = serde_json::to_string(&softmax(0.6, Some("unknown"))).unwrap();
        assert_eq!(text, r#"{"kind":"softmax","labels":["cat","dog","fox"],"threshold":0.6,"below":"unknown"}"#);
        assert_eq!(serde_json::from_str::<Postprocess>(&text).unwrap(), softmax(0.6, Some("unknown")));
        assert!(serde_json::from_str::<Postprocess>(&text.replace("below", "belov")).unwrap_err().to_string().contains("belov"));
    }

    #[test]
    fn what_means_nothing_is_refused_with_its_key() {
        for (loss, keys, said) in [
            ("cross_entropy", "threshold = 1.5", "release.postprocess.threshold: 1.5 is not a probability"),
            ("cross_entropy", "threshold = nan", "release.postprocess.threshold"),
            ("cross_entropy", "treshold = 0.5", "release.postprocess.treshold: no such key; did you mean `threshold`?"),
            ("cross_entropy", "kind = \"softmac\"", "release.postprocess.kind"),
            ("cross_entropy", "labels = [\"a\", \"a\"]", "release.postprocess.labels: \"a\" is there twice"),
            ("cross_entropy", "labels = [\"a\", \"\"]", "release.postprocess.labels: \"\" is no label"),
            (
                "cross_entropy",
                "threshold = 0.5\nbelow = \"a\"\nlabels = [\"a\", \"b\"]",
                "release.postprocess.below: \"a\" is the label of a class",
            ),
            ("cross_entropy", "below = \"a\"", "release.postprocess.below: it needs release.postprocess.threshold"),
            ("cross_entropy", "kind = \"argmax\"\nthreshold = 0.5", "release.postprocess.threshold: the kind argmax has none"),
            (
                "cross_entropy",
                "kind = \"sigmoid\"",
                "release.postprocess.kind: sigmoid is not for a model that was trained with cross_entropy",
            ),
            ("mse", "threshold = 0.5", "release.postprocess.threshold: the kind none has none"),
            ("bce", "threshold = 0.5\nbelow = \"a\"", "release.postprocess.below: the kind sigmoid has none"),
            ("bce", "labels = [\"a\"]", "release.postprocess.labels: 1 of them; sigmoid has two"),
        ] {
            let refused = spec(loss, keys).unwrap_err().to_string();
            assert!(refused.starts_with(said), "{keys}: {refused}");
        }
    }
}
