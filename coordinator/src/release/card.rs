//! `card.md`: what the model is, in plain words. It lies in the bundle, so it says nothing that a clock measured.

use std::fmt::Write;

use super::{BuildJob, export::Exported, score::Score};

/// The first explain the rest.
const SHIFTS_SHOWN: usize = 5;

/// What the text is about.
pub(super) struct Card<'a> {
    pub(super) job: &'a BuildJob<'a>,
    pub(super) exported: &'a Exported,
    pub(super) title: &'a str,
    pub(super) fp32: Option<Score>,
    pub(super) int8: Option<Score>,
    pub(super) bundle_name: &'a str,
}

impl Card<'_> {
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let (job, spec) = (self.job, self.job.spec);
        let source = spec.data.source.as_deref().unwrap_or("each node's own data");
        writeln!(out, "# {}\n", self.title)?;
        writeln!(out, "{}\n", spec.release.use_case)?;
        writeln!(out, "## Where it comes from\n")?;
        writeln!(out, "Federated run `{}`: {} rounds, {} nodes took part.", job.run, job.rounds, job.nodes.len())?;
        writeln!(out, "Training data: {source}. It never left the nodes.")?;
        if let Some(features) = &self.exported.features {
            writeln!(out, "Feature schema: version {}, {}.", features.id.version, features.id.digest)?;
        }
        if let Some(data) = &spec.evaluate.data {
            writeln!(out, "Evaluation data: {data}.")?;
        }
        if let Some(data) = &spec.release.calibration {
            writeln!(out, "Public data for calibration and golden examples: {data}, {} examples.", self.exported.calibration.len())?;
        }
        if !self.exported.shifts.is_empty() {
            writeln!(out, "\nWarning: the evaluation data are not distributed as the calibration data:\n")?;
            for shift in self.exported.shifts.iter().take(SHIFTS_SHOWN) {
                writeln!(out, "- {shift}")?;
            }
        }
        writeln!(out, "\n## Privacy\n\n{}.", capitalized(&spec.privacy_line()))?;
        if let Some(statement) = job.statement {
            writeln!(out, "\nWhat was spent of the budget, and what that promises:\n")?;
            for line in statement.to_string().lines() {
                writeln!(out, "- {line}")?;
            }
        }
        writeln!(out, "\n## How it does\n")?;
        writeln!(out, "| | right answers | bytes |\n|---|---|---|")?;
        let (float, integer) = if self.exported.keeps_float { (", which is shipped", "") } else { ("", ", which is shipped") };
        writeln!(out, "| float{float} | {} | {} |", answers(self.fp32), self.exported.fp32.len())?;
        writeln!(out, "| INT8{integer} | {} | {} |", answers(self.int8), self.exported.int8.len())?;
        match self.exported.quantizer() {
            None => writeln!(out, "\nINT8 gains neither size nor speed here, so the float model is shipped.")?,
            Some(q) => writeln!(
                out,
                "\nQuantized for `{}`: {} operators in integers (activations {}, weights {}, {} ranges), {} in float.",
                q.target,
                q.quantized_nodes,
                q.activations,
                q.weights,
                q.calibration,
                q.float_nodes.len()
            )?,
        }
        writeln!(out, "\n## Gates\n")?;
        let gates = &spec.release.gates;
        if let Some(least) = gates.min_accuracy {
            writeln!(out, "- accuracy at least {least}")?;
        }
        if let Some(most) = gates.max_int8_drop {
            writeln!(out, "- quantization costs at most {most} of accuracy")?;
        }
        if let Some(most) = gates.max_bytes {
            writeln!(out, "- model file at most {most} bytes")?;
        }
        if let Some(most) = gates.max_p99 {
            writeln!(out, "- 99 % of inferences within {}", humantime::format_duration(most))?;
        }
        if let Some(most) = gates.max_cold_start {
            writeln!(out, "- first inference of a fresh process within {}", humantime::format_duration(most))?;
        }
        if *gates == Default::default() {
            writeln!(out, "- none was asked for")?;
        }
        writeln!(out, "\nThe manifest has the numbers. Nothing is signed unless all gates pass.")?;
        writeln!(out, "\n## How to verify\n")?;
        writeln!(out, "With the release's public key, taken from somebody you trust and not from here:\n")?;
        writeln!(out, "```sh")?;
        writeln!(out, "openssl dgst -sha256 -verify pub.pem -signature manifest.json.sig manifest.json")?;
        writeln!(out, "openssl dgst -sha256 -verify pub.pem -signature {0}.sig {0}", self.bundle_name)?;
        writeln!(out, "sha256sum {}   # is `checksum` in the manifest", self.bundle_name)?;
        writeln!(out, "```")
    }
}

fn answers(score: Option<Score>) -> String {
    score.map_or_else(|| "not scored".to_owned(), |s| format!("{} of {} ({:.4})", s.correct, s.examples, s.accuracy()))
}

fn capitalized(line: &str) -> String {
    let mut letters = line.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
