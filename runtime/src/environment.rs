//! The library, loaded once per process.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

use ort::{environment::Environment, logging::LogLevel};

use crate::{Found, RuntimeError, Search, Session, SessionOptions, telemetry_disabled};

/// An initialised ONNX Runtime. There is one per process, and it stays until the process ends.
#[derive(Debug)]
pub struct Runtime {
    environment: Environment,
    found: Found,
    version: String,
}

static RUNTIME: OnceLock<Runtime> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

impl Runtime {
    /// Finds the library without loading it: the file named, else `ORT_DYLIB_PATH`, else beside
    /// the program, in the cache or among the system's libraries. See [`Search`].
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] with every place and its reason.
    pub fn find(explicit: Option<&Path>) -> Result<Found, RuntimeError> {
        Search::of_process(explicit).find()
    }

    /// Loads the library that [`find`](Self::find) finds, once; later calls return the same.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; [`RuntimeError::BadLibrary`] for one that cannot be loaded or
    /// is too old; [`RuntimeError::TelemetryOn`] for one that would report to its vendor;
    /// [`RuntimeError::AlreadyLoaded`] if a file is named and another one is in use.
    pub fn load(explicit: Option<&Path>) -> Result<&'static Self, RuntimeError> {
        if explicit.is_none()
            && let Some(runtime) = RUNTIME.get()
        {
            return Ok(runtime);
        }
        Self::load_found(Self::find(explicit)?, explicit.is_some())
    }

    /// As [`load`](Self::load), for a search of one's own.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with(search: &Search) -> Result<&'static Self, RuntimeError> {
        Self::load_found(search.find()?, true)
    }

    fn load_found(found: Found, strict: bool) -> Result<&'static Self, RuntimeError> {
        // A panic while loading leaves nothing half done in a unit, so poison says nothing.
        let _one_at_a_time = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = RUNTIME.get() {
            if strict && runtime.found.path != found.path {
                let (loaded, asked) = (runtime.found.path.clone(), found.path);
                return Err(RuntimeError::AlreadyLoaded { loaded, asked });
            }
            return Ok(runtime);
        }
        let runtime = open(found)?;
        Ok(RUNTIME.get_or_init(|| runtime))
    }

    /// The library's version, such as `1.28.0`; `unknown` for a build that does not say.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The library's file, and which place it was found in.
    #[must_use]
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// A session that runs the model of these bytes. Its operators may not point to files: check
    /// a model from elsewhere with `sapwood_models::onnx::Model::decode` first.
    ///
    /// # Errors
    /// [`RuntimeError::BadModel`] if the library refuses it.
    pub fn session(&self, model: &[u8], options: SessionOptions) -> Result<Session, RuntimeError> {
        Session::new(&self.environment, model, options)
    }
}

fn open(found: Found) -> Result<Runtime, RuntimeError> {
    let path = &found.path;
    let bad = |reason: String| RuntimeError::BadLibrary { path: path.clone(), reason };
    // This opens the file and refuses versions below 1.24; nothing of the library runs yet.
    let builder = ort::init_from(path).map_err(|e| bad(e.to_string()))?;
    let version = version(path);
    if may_report(&version) && !telemetry_disabled() {
        return Err(RuntimeError::TelemetryOn { path: path.clone(), version });
    }
    let environment = builder.with_name("sapwood").with_telemetry(false).build();
    let environment = environment.map_err(|e| bad(e.to_string()))?;
    // The default is everything, formatted and then thrown away.
    environment.set_log_level(LogLevel::Warning);
    tracing::info!(version, path = %path.display(), place = found.place, "ONNX Runtime loaded");
    Ok(Runtime { environment, found, version })
}

/// From the library's own build information, else from its file name.
fn version(path: &Path) -> String {
    from_build_info(ort::info()).or_else(|| from_file_name(path)).unwrap_or_else(|| "unknown".to_owned())
}

fn from_build_info(info: &str) -> Option<String> {
    let branch = info.split("git-branch=").nth(1)?.split([',', ' ']).next()?;
    is_version(branch.strip_prefix("rel-")?)
}

fn from_file_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    is_version(name.strip_prefix("libonnxruntime.so.")?)
}

fn is_version(text: &str) -> Option<String> {
    let parts = text.split('.').collect::<Vec<_>>();
    let numeric = parts.iter().all(|p| p.parse::<u32>().is_ok());
    (parts.len() == 3 && numeric).then(|| text.to_owned())
}

/// Builds from 1.29 on hold telemetry code, and one that does not say its version may be one.
fn may_report(version: &str) -> bool {
    let mut parts = version.split('.').map(|p| p.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) >= (1, 29),
        _ => true,
    }
}

impl Runtime {
    /// Path of the loaded library, if one is loaded.
    #[must_use]
    pub fn loaded() -> Option<PathBuf> {
        RUNTIME.get().map(|runtime| runtime.found.path.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_build_info_or_file_name() {
        let info = "ORT Build Info: git-branch=rel-1.28.0, git-commit-id=26250ae, build type=Release";
        assert_eq!(from_build_info(info).as_deref(), Some("1.28.0"));
        assert_eq!(from_build_info("ORT Build Info: git-branch=HEAD, x"), None);
        let file = Path::new("lib/libonnxruntime.so.1.31.1");
        assert_eq!(from_file_name(file).as_deref(), Some("1.31.1"));
        assert_eq!(from_file_name(Path::new("libonnxruntime.so.1")), None);
    }

    #[test]
    fn libraries_with_telemetry_code_are_told_apart() {
        assert!(!may_report("1.28.0"));
        assert!(!may_report("1.24.3"));
        assert!(may_report("1.29.0"));
        assert!(may_report("2.0.0"));
        assert!(may_report("unknown"));
    }
}
