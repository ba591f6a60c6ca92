//! Figures of merit, and the folders that `--report` fills.

use std::{fs, path::Path};

use sapwood_models::{
    Targets, Tensor,
    metrics::{self, ConfusionMatrix},
    train::{Epoch, Evaluation},
};
use serde_json::{Value, json};

use super::plot;
use crate::output::{Failure, table};

/// Figures beside loss and accuracy: of each class, or of the errors.
pub(super) struct Merit {
    pub(super) json: Value,
    pub(super) text: String,
    picture: Picture,
}

enum Picture {
    Confusion(ConfusionMatrix, Vec<String>),
    Residuals {
        truth: Vec<f32>,
        answers: Vec<f32>,
    },
    /// Several answers for each value have no residual.
    None,
}

impl Merit {
    /// `names` of the classes, by their numbers, where they are known.
    pub(super) fn of(answers: &Tensor, targets: &Targets, names: &[String]) -> Result<Self, Failure> {
        let values = answers.as_f32().ok_or_else(|| Failure::usage("the model's first output is not float32"))?;
        match targets {
            // One logit answers a question of yes or no.
            Targets::Classes(labels) if answers.row_len() == 1 => {
                let positive: Vec<bool> = labels.iter().map(|label| *label == 1).collect();
                let area = metrics::auroc(values, &positive);
                let mut confusion = ConfusionMatrix::new(2);
                let labels = labels.iter().map(|label| usize::try_from(*label).unwrap_or(usize::MAX));
                labels.zip(values).for_each(|(label, logit)| confusion.add(label, usize::from(*logit > 0.0)));
                let text = area.map_or_else(String::new, |area| format!("AUROC {area:.4}"));
                let json = json!({"auroc": area, "confusion": counts(&confusion)});
                Ok(Self { json, text, picture: Picture::Confusion(confusion, names.to_vec()) })
            }
            Targets::Classes(labels) => Ok(Self::classes(&metrics::classes(values, answers.row_len(), labels), names)),
            Targets::Values(truth) => {
                let truth = truth.as_f32().unwrap_or_default();
                let mae = metrics::mean_absolute_error(values, truth);
                let rmse = metrics::mean_squared_error(values, truth).map(f64::sqrt);
                let text = mae.zip(rmse).map_or_else(String::new, |(mae, rmse)| format!("MAE {mae:.4}, RMSE {rmse:.4}"));
                let paired = truth.len() == values.len();
                let residuals = || Picture::Residuals { truth: truth.to_vec(), answers: values.to_vec() };
                Ok(Self { json: json!({"mae": mae, "rmse": rmse}), text, picture: if paired { residuals() } else { Picture::None } })
            }
        }
    }

    fn classes(found: &metrics::ClassReport, names: &[String]) -> Self {
        let (confusion, f1) = (&found.confusion, found.confusion.macro_f1());
        let of = |class: usize| (confusion.precision(class), confusion.recall(class));
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
        let named = |class: usize| names.get(class).cloned().unwrap_or_else(|| class.to_string());
        let classes = 0..confusion.classes();
        let rows: Vec<_> = classes.clone().map(|class| vec![named(class), number(of(class).0), number(of(class).1)]).collect();
        let each: Vec<_> = classes.map(|class| json!({"class": named(class), "precision": of(class).0, "recall": of(class).1})).collect();
        let area = found.auroc.map_or_else(String::new, |area| format!(", AUROC {area:.4}"));
        Self {
            json: json!({"macro_f1": f1, "auroc": found.auroc, "classes": each, "confusion": counts(confusion)}),
            text: format!("{}\nmacro F1 {f1:.4}{area}", table(&["class", "precision", "recall"], &rows)),
            picture: Picture::Confusion(confusion.clone(), names.to_vec()),
        }
    }

    /// Writes `metrics.json` and a picture: `confusion.svg` of classes, `residuals.svg` of values.
    pub(super) fn write(&self, folder: &Path, metrics: &Value) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(metrics).map_err(Failure::internal)?;
        write(folder, "metrics.json", &format!("{text}\n"))?;
        match &self.picture {
            Picture::Confusion(matrix, names) => write(folder, "confusion.svg", &plot::confusion(matrix, names)?),
            Picture::Residuals { truth, answers } => write(folder, "residuals.svg", &plot::residuals(truth, answers)?),
            Picture::None => Ok(()),
        }
    }
}

/// Rows are true classes.
fn counts(confusion: &ConfusionMatrix) -> Vec<Vec<u64>> {
    let classes = 0..confusion.classes();
    classes.clone().map(|truth| classes.clone().map(|answer| confusion.count(truth, answer)).collect()).collect()
}

/// Writes `history.csv` and `loss.svg` of a training.
pub(super) fn history(folder: &Path, epochs: &[Epoch], validation: &[Evaluation]) -> Result<(), Failure> {
    let mut lines = vec!["epoch,loss,accuracy,validation_loss,validation_accuracy".to_owned()];
    let cell = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    for (at, epoch) in epochs.iter().enumerate() {
        let score = validation.get(at);
        let cells = [Some(epoch.loss), epoch.accuracy, score.map(|s| s.loss), score.and_then(|s| s.accuracy)].map(cell);
        lines.push(format!("{},{}", at + 1, cells.join(",")));
    }
    lines.push(String::new());
    write(folder, "history.csv", &lines.join("\n"))?;
    let losses: Vec<f64> = epochs.iter().map(|epoch| epoch.loss).collect();
    let validation: Vec<f64> = validation.iter().map(|score| score.loss).collect();
    write(folder, "loss.svg", &plot::losses(&losses, &validation)?)
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), Failure> {
    let path = folder.join(name);
    let failed = |e: std::io::Error| Failure::usage(format!("{} cannot be written: {e}", path.display()));
    fs::create_dir_all(folder).and_then(|()| fs::write(&path, text)).map_err(failed)
}
