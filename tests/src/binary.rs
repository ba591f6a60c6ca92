//! The `sapwood` binary of this build, and one-shot calls of it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use serde_json::Value;

/// The binary beside the running test. If it is not there it is built once, with the cargo that runs the test.
///
/// # Panics
/// If it cannot be built.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = std::env::current_exe().expect("a test has a path");
        // target/PROFILE/deps/NAME-HASH
        let folder = test.ancestors().nth(2).expect("a test lies in target/PROFILE/deps");
        let path = folder.join("sapwood");
        if !path.exists() {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let built = Command::new(cargo).args(["build", "--release"]).status().expect("cargo runs");
            assert!(built.success() && path.exists(), "sapwood was not built at {}", path.display());
        }
        path
    })
}

/// ONNX Runtime's library, installed if it is not there.
///
/// # Panics
/// If it can neither be found nor installed.
pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let installed = sapwood_runtime::install(sapwood_runtime::InstallOptions::default(), &mut |_| {});
        installed.expect("ONNX Runtime is provisioned: sapwood runtime install").path
    })
}

/// What a call of the command line said.
#[derive(Debug)]
pub struct Answer {
    /// The exit code.
    pub code: i32,
    /// The one JSON object.
    pub json: Value,
    /// Standard error.
    pub stderr: String,
}

impl Answer {
    /// The error's message and hint, or an empty text.
    pub fn error(&self) -> String {
        let text = |key: &str| self.json["error"][key].as_str().unwrap_or_default().to_owned();
        format!("{} {}", text("message"), text("hint")).trim().to_owned()
    }
}

/// Runs `sapwood ARGS… --json` to its end.
///
/// # Panics
/// If it does not start, or does not say one JSON object.
pub fn sapwood<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Answer {
    let output = Command::new(binary()).args(args).arg("--json").env_remove("SAPWOOD_FAILPOINT").output().expect("the binary starts");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let json = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout:?}\n{stderr}"));
    Answer { code: output.status.code().unwrap_or(-1), json, stderr }
}
