//! The command line's contract: one JSON object with `--json`, tables and sentences without; exit codes that scripts can trust.

use std::{fmt, io::Write, process::ExitCode};

use serde::Serialize;
use serde_json::{Value, json};

/// How a command ended. The numbers are a contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// A fault of Sapwood's own.
    Internal = 1,
    /// Usage or bad input.
    Usage = 2,
    /// Refused by a gate or a policy.
    Refused = 3,
    /// Not found.
    NotFound = 4,
    /// Not authorized.
    NotAuthorized = 5,
    /// Conflicts with what is.
    Conflict = 6,
    /// Timed out or did not converge.
    TimedOut = 7,
}

impl Exit {
    fn name(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Usage => "usage",
            Self::Refused => "refused",
            Self::NotFound => "not-found",
            Self::NotAuthorized => "not-authorized",
            Self::Conflict => "conflict",
            Self::TimedOut => "timed-out",
        }
    }
}

/// Why a command did not do what was asked: what is wrong, and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// What was found before it failed, for `--json`.
    pub(crate) data: Option<Value>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string(), hint: None, data: None }
    }
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }
    pub(crate) fn internal(message: impl fmt::Display) -> Self {
        Self::new(Exit::Internal, message)
    }
    /// What the caller can do about it.
    pub(crate) fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }
    pub(crate) fn data(mut self, data: Value) -> Self {
        self.data = Some(data);
        self
    }
}

/// Errors whose message says all: the chain of sources is joined, and the exit code is the caller's choice.
pub(crate) trait OrFail<T> {
    /// Fails with `exit` and the error's whole chain.
    fn or_fail(self, exit: Exit) -> Result<T, Failure>;
    /// Fails as bad input.
    fn or_usage(self) -> Result<T, Failure>
    where
        Self: Sized,
    {
        self.or_fail(Exit::Usage)
    }
}

impl<T, E: std::error::Error> OrFail<T> for Result<T, E> {
    fn or_fail(self, exit: Exit) -> Result<T, Failure> {
        self.map_err(|e| Failure::new(exit, chain(&e)))
    }
}

/// An error and its sources in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

impl From<sapwood_protocol::Fault> for Failure {
    fn from(fault: sapwood_protocol::Fault) -> Self {
        use sapwood_protocol::Blame;
        let exit = match fault.blame() {
            Blame::Peer | Blame::Version => Exit::Refused,
            Blame::Caller => Exit::Usage,
            Blame::Clock => Exit::Conflict,
            Blame::Environment => Exit::TimedOut,
        };
        Self::new(exit, fault)
    }
}

/// What a command found: data for machines, text for people.
pub(crate) struct Answer {
    pub(crate) data: Value,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn new(data: impl Serialize, text: impl Into<String>) -> Self {
        Self { data: serde_json::to_value(data).expect("answers have string keys"), text: text.into() }
    }
}

/// Prints the answer or the failure and gives the process its exit code.
pub(crate) fn finish(command: &str, as_json: bool, outcome: Result<Answer, Failure>) -> ExitCode {
    match outcome {
        Ok(answer) => {
            if as_json {
                out(&json!({"schema": "sapwood/v1", "command": command, "data": answer.data}).to_string());
            } else if !answer.text.is_empty() {
                out(answer.text.trim_end());
            }
            ExitCode::SUCCESS
        }
        Err(failure) => {
            if as_json {
                let mut error = json!({"code": failure.exit.name(), "message": failure.message, "hint": failure.hint});
                if let Some(data) = failure.data {
                    error["data"] = data;
                }
                out(&json!({"schema": "sapwood/v1", "command": command, "error": error}).to_string());
            } else {
                err(&format!("error: {}", failure.message));
                if let Some(hint) = failure.hint {
                    err(&format!("  try: {hint}"));
                }
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// A line on standard output; a closed pipe is no error.
pub(crate) fn out(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// A line on standard error.
pub(crate) fn err(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Rows in aligned columns under a header.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut text = line(&mut header.iter().copied());
    for row in rows {
        text.push('\n');
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// Bytes for people.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let mut value = n as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_bytes_read_well() {
        let text = table(&["node", "state"], &[vec!["lab-1".into(), "healthy".into()], vec!["a".into(), String::new()]]);
        assert_eq!(text, "node   state\nlab-1  healthy\na");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_500), "1.5 kB");
        assert_eq!(bytes(999_999), "1.0 MB");
    }

    #[test]
    fn a_chain_of_errors_is_one_line_without_repeats() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read a.toml")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("no space"));
        assert_eq!(chain(&error), "cannot read a.toml: no space");
    }
}
