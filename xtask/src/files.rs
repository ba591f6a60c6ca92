//! Rules on the files of the tree.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// A file above this is split.
const LONGEST: usize = 800;

/// What only the author's machine knows.
const MACHINE: [&str; 3] = ["/work/", "/root/", "/home/"];

pub(crate) fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.parent().context("xtask lies in the workspace")?.to_owned())
}

/// All Rust files below `dir`, sorted.
pub(crate) fn rust(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("{} cannot be listed", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(rust(&path)?);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn tracked(root: &Path) -> Result<Vec<String>> {
    let out = Command::new("git").args(["ls-files", "-z"]).current_dir(root).output().context("git does not start")?;
    ensure!(out.status.success(), "git ls-files: {}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8_lossy(&out.stdout).split('\0').filter(|p| !p.is_empty()).map(str::to_owned).collect())
}

/// Files that are too long to be read in one sitting.
pub(crate) fn lengths(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for path in tracked(root)?.iter().filter(|p| p.ends_with(".rs")) {
        let Ok(text) = fs::read_to_string(root.join(path)) else { continue };
        let lines = text.lines().count();
        if lines > LONGEST {
            found.push(format!("{path} has {lines} lines: split it (limit {LONGEST})"));
        }
    }
    Ok(found)
}

/// Paths of one machine, in any text file but this one.
pub(crate) fn machine_paths(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for path in tracked(root)?.iter().filter(|p| *p != "xtask/src/files.rs") {
        let Ok(text) = fs::read_to_string(root.join(path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = MACHINE.iter().find(|w| is_path(line, w)) {
                found.push(format!("{path}:{}: {word} is a path of one machine", number + 1));
            }
        }
    }
    Ok(found)
}

/// Whether a path begins there; `sapwood/work/v1` is none.
fn is_path(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_told_from_a_label() {
        assert!(is_path("cd /root/x", "/root/") && is_path("\"/root/x\"", "/root/"));
        assert!(!is_path("b\"sapwood/work/v1\"", "/work/"));
    }
}
