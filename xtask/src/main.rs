//! House rules that no other tool checks: `cargo run --release -p xtask`.
//!
//! 1. The pure crates do no I/O: their dependency trees hold no runtime, no server, no database, and their sources name
//!    no clock, no file, no environment, no randomness of the operating system.
//! 2. Files stay short enough to be read in one sitting.
//! 3. Nothing in the tree names the machine that it was written on.

mod files;
mod purity;

use std::process::ExitCode;

use anyhow::Result;

fn main() -> ExitCode {
    match check() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(found) => {
            say(&format!("{found} house rules broken"));
            ExitCode::FAILURE
        }
        Err(e) => {
            say(&format!("the check itself failed: {e:#}"));
            ExitCode::FAILURE
        }
    }
}

fn check() -> Result<usize> {
    let root = files::root()?;
    let mut found = Vec::new();
    found.extend(purity::dependencies(&root)?);
    found.extend(purity::sources(&root)?);
    found.extend(files::lengths(&root)?);
    found.extend(files::machine_paths(&root)?);
    for line in &found {
        say(line);
    }
    Ok(found.len())
}

#[expect(clippy::print_stderr, reason = "a command-line tool speaks")]
fn say(line: &str) {
    eprintln!("xtask: {line}");
}
