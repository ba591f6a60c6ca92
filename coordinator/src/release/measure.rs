//! Times: of warm inferences in this process, and of first inferences in fresh ones.

use std::{
    ffi::OsString,
    path::Path,
    process::{Command, Stdio},
};

use sapwood_protocol::release::Parts;
use serde_json::Value;

use super::ReleaseError;

/// Measured times in microseconds, ascending.
#[derive(Clone, Debug, PartialEq)]
pub struct Timings(Vec<f64>);

impl Timings {
    /// Takes them in any order.
    pub fn new(mut micros: Vec<f64>) -> Self {
        micros.sort_by(f64::total_cmp);
        Self(micros)
    }
    /// The smallest value that so many percent of all do not exceed (nearest rank); none of nothing.
    pub fn percentile(&self, percent: f64) -> Option<f64> {
        let rank = (percent / 100.0 * self.0.len() as f64).ceil().max(1.0) as usize;
        self.0.get(rank - 1).or(self.0.last()).copied()
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A command that loads an unpacked bundle in a fresh process, answers once, and prints how long that took.
///
/// The last line of its output that is a JSON object holds `total_ms`, at the top or in `data`: milliseconds from the start
/// of the process to the first answer, as `sapwood node probe --json` prints them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    command: Vec<OsString>,
}

/// Stands for the bundle's folder in a probe's command.
const FOLDER: &str = "{folder}";

impl Probe {
    /// A command and its arguments; the folder takes the place of `{folder}`, or comes last.
    pub fn new<T: Into<OsString>>(command: impl IntoIterator<Item = T>) -> Result<Self, ReleaseError> {
        let mut command: Vec<OsString> = command.into_iter().map(Into::into).collect();
        if command.is_empty() {
            return Err(ReleaseError::Probe { why: "its command is empty; name a program".to_owned() });
        }
        if !command.iter().any(|word| word == FOLDER) {
            command.push(FOLDER.into());
        }
        Ok(Self { command })
    }

    /// The program that runs here: `sapwood node probe FOLDER --json`.
    pub fn of_this_program() -> Result<Self, ReleaseError> {
        let program = std::env::current_exe().map_err(|e| ReleaseError::Probe { why: e.to_string() })?;
        Self::new([program.into_os_string(), "--json".into(), "node".into(), "probe".into()])
    }

    /// Cold starts of so many fresh processes, one after the other, with this library of ONNX Runtime.
    pub fn run(&self, parts: &Parts, times: usize, library: &Path) -> Result<Timings, ReleaseError> {
        let folder = tempfile::tempdir().map_err(ReleaseError::Temporary)?;
        for (name, bytes) in parts.iter() {
            let path = folder.path().join(name);
            let parent = path.parent().expect("it lies in the folder");
            std::fs::create_dir_all(parent).and_then(|()| std::fs::write(&path, bytes)).map_err(ReleaseError::Temporary)?;
        }
        (0..times).map(|_| self.once(folder.path(), library)).collect::<Result<Vec<f64>, _>>().map(Timings::new)
    }

    fn once(&self, folder: &Path, library: &Path) -> Result<f64, ReleaseError> {
        let fault = |why: String| ReleaseError::Probe { why };
        let mut words = self.command.iter().map(|word| if word == FOLDER { folder.as_os_str() } else { word.as_os_str() });
        let program = words.next().expect("a probe has a program");
        let output = Command::new(program)
            .args(words)
            .stdin(Stdio::null())
            .env("ORT_DYLIB_PATH", library)
            // A failpoint is meant for the coordinator alone.
            .env_remove("SAPWOOD_FAILPOINT")
            .output()
            .map_err(|e| fault(format!("{} could not be started: {e}", program.to_string_lossy())))?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            let last = errors.lines().chain(text.lines()).rfind(|line| !line.is_empty()).unwrap_or("it said nothing");
            return Err(fault(format!("{}: {last}", output.status)));
        }
        let report = text.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok().filter(Value::is_object));
        let millis = report.as_ref().and_then(|report| report.get("data").unwrap_or(report).get("total_ms"));
        millis.and_then(Value::as_f64).map(|millis| millis * 1e3).ok_or_else(|| fault("it printed no total_ms".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let timings = Timings::new((1..=20).rev().map(f64::from).collect());
        assert_eq!(timings.percentile(50.0), Some(10.0));
        assert_eq!(timings.percentile(95.0), Some(19.0));
        assert_eq!(timings.percentile(99.0), Some(20.0));
        assert_eq!(timings.percentile(0.0), Some(1.0));
        assert_eq!(Timings::new(vec![]).percentile(99.0), None);
    }

    #[test]
    fn a_probe_that_fails_or_says_nothing_is_no_measurement() {
        let run = |script: &str| Probe::new(["sh", "-c", script]).unwrap().run(&Parts::default(), 2, Path::new("lib"));
        assert_eq!(run("echo noise; echo '{\"data\":{\"total_ms\":1.5}}'").unwrap(), Timings::new(vec![1500.0; 2]));
        assert_eq!(run("echo '{\"total_ms\":2}'").unwrap(), Timings::new(vec![2000.0; 2]));
        assert!(run("echo '{}'").unwrap_err().to_string().contains("total_ms"));
        assert!(run("echo broken >&2; exit 3").unwrap_err().to_string().contains("broken"));
        assert!(Probe::new(["/nonexistent/program"]).unwrap().run(&Parts::default(), 1, Path::new("lib")).is_err());
        assert!(Probe::new::<&str>([]).is_err());
    }
}
