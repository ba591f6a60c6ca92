//! Provisioning: the pinned library, checked, into the cache.
//!
//! The folder of a target appears by one rename, so whoever finds it finds it whole; a lock file
//! lets one process work while another that wants the same waits and then finds it done.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::{
    Runtime, RuntimeError, Triple,
    fetch::{check, download, sha256},
    find::{cache_folder, default_cache},
    lock::{Target, lock},
};

/// What to install, and where.
#[derive(Clone, Debug, Default)]
pub struct InstallOptions {
    /// The cache folder; [`default_cache`] if none.
    pub cache: Option<PathBuf>,
    /// The target; this machine if none. Another one provisions a device that has no index.
    pub target: Option<Triple>,
    /// A wheel that was fetched by hand; otherwise it is downloaded.
    pub wheel: Option<PathBuf>,
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Waiting for another process that installs the same.
    Waiting,
    /// Fetching the wheel.
    Fetching,
    /// Checking the wheel against the lock file.
    Checking,
    /// Taking the library out of it.
    Unpacking,
    /// Loading the library, to see that it works here.
    Loading,
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting for another installation",
            Self::Fetching => "fetching",
            Self::Checking => "checking",
            Self::Unpacking => "unpacking",
            Self::Loading => "loading",
        })
    }
}

/// A library that is in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The file.
    pub path: PathBuf,
    /// Its version: as the library says it if it was loaded, otherwise as pinned.
    pub version: String,
    /// For which target.
    pub target: Triple,
    /// Whether it was there before, whole and unchanged.
    pub already: bool,
}

/// Puts the pinned library into the cache, unless it is there, and loads it if it is for this
/// machine. A damaged copy is replaced.
///
/// # Errors
/// [`RuntimeError::Fetch`], [`RuntimeError::WrongDigest`] or [`RuntimeError::BadWheel`] for the
/// wheel, [`RuntimeError::Io`] for the cache, [`RuntimeError::BadLibrary`] if it does not load.
pub fn install(options: InstallOptions, progress: &mut dyn FnMut(Progress)) -> Result<Installed, RuntimeError> {
    let triple = options.target.map_or_else(Triple::host, Ok)?;
    let cache = options.cache.map_or_else(default_cache, Ok)?;
    let folder = cache_folder(&cache, triple);
    let parent = folder.parent().unwrap_or(&cache);
    fs::create_dir_all(parent).map_err(RuntimeError::io("create", parent))?;
    let path = folder.join(triple.target().library());

    let guard = wait_for_turn(parent, triple, progress)?;
    let already = is_whole(&path, triple.target());
    if !already {
        put(options.wheel.as_deref(), triple, &folder, progress)?;
    }
    drop(guard);

    let version = if triple.is_host() { try_load(&path, progress)? } else { lock().version.clone() };
    Ok(Installed { path, version, target: triple, already })
}

/// An exclusive lock that the system takes back when this process ends, however it ends.
fn wait_for_turn(parent: &Path, triple: Triple, progress: &mut dyn FnMut(Progress)) -> Result<File, RuntimeError> {
    let path = parent.join(format!("{triple}.lock"));
    let file = File::options().create(true).append(true).open(&path);
    let file = file.map_err(RuntimeError::io("create", &path))?;
    if file.try_lock().is_err() {
        progress(Progress::Waiting);
        file.lock().map_err(RuntimeError::io("lock", &path))?;
    }
    Ok(file)
}

fn is_whole(path: &Path, target: &Target) -> bool {
    sha256(path).is_ok_and(|found| found == target.library_sha256)
}

/// Fetches, checks and unpacks into a temporary folder, then renames it into place.
fn put(wheel: Option<&Path>, triple: Triple, folder: &Path, progress: &mut dyn FnMut(Progress)) -> Result<(), RuntimeError> {
    let target = triple.target();
    let parent = folder.parent().unwrap_or(folder);
    let work = tempfile::Builder::new().prefix(".install-").tempdir_in(parent);
    let work = work.map_err(RuntimeError::io("create a folder in", parent))?;
    let wheel = match wheel {
        Some(path) => {
            progress(Progress::Checking);
            check(path, &target.wheel_sha256)?;
            path.to_path_buf()
        }
        None => {
            progress(Progress::Fetching);
            download(triple, work.path())?
        }
    };

    progress(Progress::Unpacking);
    let fresh = work.path().join("fresh");
    fs::create_dir(&fresh).map_err(RuntimeError::io("create", &fresh))?;
    unpack(&wheel, target, &fresh.join(target.library()))?;

    if folder.exists() {
        // A damaged copy: move it aside first, because a rename replaces only an empty folder.
        let old = work.path().join("old");
        fs::rename(folder, &old).map_err(RuntimeError::io("move aside", folder))?;
    }
    fs::rename(&fresh, folder).map_err(RuntimeError::io("put in place", folder))?;
    sync(parent)
}

/// Copies the one library out of the wheel, never more bytes than the lock file says.
fn unpack(wheel: &Path, target: &Target, to: &Path) -> Result<(), RuntimeError> {
    let bad = |reason: String| RuntimeError::BadWheel { path: wheel.to_path_buf(), reason };
    let file = File::open(wheel).map_err(RuntimeError::io("open", wheel))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|e| bad(e.to_string()))?;
    let member = archive.by_name(&target.member);
    let member = member.map_err(|e| bad(format!("{}: {e}", target.member)))?;
    let mut out = File::create_new(to).map_err(RuntimeError::io("create", to))?;
    io::copy(&mut member.take(target.library_bytes + 1), &mut out).map_err(RuntimeError::io("write", to))?;
    out.sync_all().map_err(RuntimeError::io("write", to))?;
    check(to, &target.library_sha256)
}

fn sync(folder: &Path) -> Result<(), RuntimeError> {
    let opened = File::open(folder).and_then(|dir| dir.sync_all());
    opened.map_err(RuntimeError::io("write", folder))
}

fn try_load(path: &Path, progress: &mut dyn FnMut(Progress)) -> Result<String, RuntimeError> {
    progress(Progress::Loading);
    match Runtime::load(Some(path)) {
        Ok(runtime) => Ok(runtime.version().to_owned()),
        // A process that already runs another copy cannot try this one; its digest must do.
        Err(RuntimeError::AlreadyLoaded { .. }) => Ok(lock().version.clone()),
        Err(error) => Err(error),
    }
}
