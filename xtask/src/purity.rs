//! Pure crates decide and do no I/O.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::files;

const PURE: [&str; 3] = ["privacy", "protocol", "models"];

/// Crates that bring a runtime, a network or a database.
const IMPURE: [&str; 9] = ["tokio", "tonic", "sqlx", "axum", "hyper", "reqwest", "mio", "ort", "tempfile"];

/// What a pure source never names: clocks, files, sockets, processes, the environment, the system's randomness.
const FORBIDDEN: [&str; 14] = [
    "SystemTime::now",
    "Instant::now",
    "std::fs",
    "fs::read",
    "fs::write",
    "File::open",
    "File::create",
    "std::net",
    "std::env",
    "env::var",
    "process::Command",
    "thread::sleep",
    "SystemRandom",
    "OsRng",
];

/// The dependency tree of each pure crate, build scripts and tests left out.
pub(crate) fn dependencies(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for pure in PURE {
        let out = Command::new(env!("CARGO"))
            .args(["tree", "--edges", "normal", "--prefix", "none", "--format", "{p}", "-p", &format!("sapwood-{pure}")])
            .current_dir(root)
            .output()
            .context("cargo tree does not start")?;
        ensure!(out.status.success(), "cargo tree: {}", String::from_utf8_lossy(&out.stderr));
        for line in String::from_utf8_lossy(&out.stdout).lines() {
            let name = line.split_whitespace().next().unwrap_or_default();
            if IMPURE.contains(&name) {
                found.push(format!("{pure} depends on {name}: a pure crate decides and does no I/O"));
            }
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// The sources of each pure crate, up to the tests of each file.
pub(crate) fn sources(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for pure in PURE {
        for file in files::rust(&root.join(pure).join("src"))? {
            if file.file_name().is_some_and(|n| n == "tests.rs") || file.components().any(|c| c.as_os_str() == "tests") {
                continue;
            }
            let text = fs::read_to_string(&file)?;
            for (number, line) in text.lines().enumerate() {
                if line.trim_start().starts_with("#[cfg(test)]") {
                    break;
                }
                let code = line.split("//").next().unwrap_or_default();
                for word in FORBIDDEN.iter().filter(|w| code.contains(**w)) {
                    let file = file.strip_prefix(root).unwrap_or(&file).display();
                    found.push(format!("{file}:{}: {word} in a pure crate: take it as an argument", number + 1));
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule must be able to fail: this file names what it forbids.
    #[test]
    fn a_clock_in_a_pure_crate_is_found() {
        let dir = std::env::temp_dir().join(format!("sapwood-xtask-{}", std::process::id()));
        for pure in PURE {
            fs::create_dir_all(dir.join(pure).join("src")).unwrap();
        }
        fs::write(dir.join("privacy/src/lib.rs"), "fn f() {\n    let _ = std::time::Instant::now();\n}\n").unwrap();
        let found = sources(&dir).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("privacy/src/lib.rs:2: Instant::now"), "{}", found[0]);
    }
}
