//! Where the library may be, in order.
//!
//! The first place that *has* a library decides. A library that is there and cannot be loaded is
//! an error, never a reason to look further: otherwise a node would quietly serve with a library
//! that nobody chose.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Place, RuntimeError, Triple,
    lock::{self, lock},
};

/// A library, and the place that it was found in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Absolute path of the file.
    pub path: PathBuf,
    /// Which place it is.
    pub place: &'static str,
}

/// What the search depends on.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// The file that the user named on the command line or in a configuration.
    pub explicit: Option<PathBuf>,
    /// `ORT_DYLIB_PATH`.
    pub variable: Option<PathBuf>,
    /// Folder of an installed bundle, which may bring its own `runtime/`.
    pub bundle: Option<PathBuf>,
    /// Folder of this program.
    pub program: Option<PathBuf>,
    /// The cache that [`install`](crate::install) writes to.
    pub cache: Option<PathBuf>,
    /// Folders of the system's libraries.
    pub system: Vec<PathBuf>,
}

impl Search {
    /// The search of this process.
    #[must_use]
    pub fn of_process(explicit: Option<&Path>) -> Self {
        let not_empty = |v: &OsString| !v.is_empty();
        let program = std::env::current_exe().ok();
        Self {
            explicit: explicit.map(Path::to_path_buf),
            variable: std::env::var_os("ORT_DYLIB_PATH").filter(not_empty).map(PathBuf::from),
            bundle: None,
            program: program.and_then(|exe| exe.parent().map(Path::to_path_buf)),
            cache: default_cache().ok(),
            system: system_folders(std::env::var_os("LD_LIBRARY_PATH").as_deref()),
        }
    }

    /// Finds the library.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] with every place and its reason.
    pub fn find(&self) -> Result<Found, RuntimeError> {
        let mut places = Vec::new();
        for (what, file) in [("the file named", &self.explicit), ("ORT_DYLIB_PATH", &self.variable)] {
            match file {
                None => places.push(absent(what, "not given")),
                Some(path) if path.is_file() => return found(path, what),
                Some(path) => {
                    // Someone asked for this very file: nothing else will do.
                    places.push(missing(what, path, "no such file"));
                    return Err(RuntimeError::NotFound { places });
                }
            }
        }
        for (what, folder) in self.folders() {
            match folder {
                None => places.push(absent(what, "unknown")),
                Some(folder) => match library_in(&folder) {
                    Some(path) => return found(&path, what),
                    None => places.push(missing(what, &folder, "no libonnxruntime.so here")),
                },
            }
        }
        Err(RuntimeError::NotFound { places })
    }

    fn folders(&self) -> Vec<(&'static str, Option<PathBuf>)> {
        let cached = Triple::host().ok().zip(self.cache.as_deref());
        let mut folders = Vec::new();
        if let Some(bundle) = &self.bundle {
            folders.push(("the bundle", Some(bundle.join("runtime"))));
        }
        folders.push(("beside the program", self.program.clone()));
        let library = self.program.as_deref().map(|p| p.join("../lib"));
        folders.push(("the program's lib folder", library));
        folders.push(("the cache", cached.map(|(triple, cache)| cache_folder(cache, triple))));
        folders.extend(self.system.iter().map(|dir| ("the system", Some(dir.clone()))));
        folders
    }
}

/// `${XDG_CACHE_HOME:-~/.cache}/sapwood`.
///
/// # Errors
/// [`RuntimeError::NoCache`] if neither variable is set.
pub fn default_cache() -> Result<PathBuf, RuntimeError> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    folder("XDG_CACHE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("sapwood"))
        .ok_or(RuntimeError::NoCache)
}

/// Where the pinned library of a target lies in a cache.
pub(crate) fn cache_folder(cache: &Path, triple: Triple) -> PathBuf {
    let lock::Lock { package, version, .. } = lock();
    cache.join(package).join(version).join(triple.to_string())
}

/// The dynamic linker's usual folders, as absolute paths, so that what is found can be named.
fn system_folders(library_path: Option<&OsStr>) -> Vec<PathBuf> {
    let listed = library_path.into_iter().flat_map(std::env::split_paths);
    let multiarch = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let usual = ["/usr/local/lib", &multiarch, "/usr/lib64", "/usr/lib"].map(PathBuf::from);
    listed.filter(|p| p.is_absolute()).chain(usual).collect()
}

/// `libonnxruntime.so` in a folder, or the highest-sorting `libonnxruntime.so.*`.
fn library_in(folder: &Path) -> Option<PathBuf> {
    let plain = folder.join("libonnxruntime.so");
    if plain.is_file() {
        return Some(plain);
    }
    let versioned = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    versioned
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            name.starts_with(b"libonnxruntime.so.") && path.is_file()
        })
        .max()
}

fn found(path: &Path, place: &'static str) -> Result<Found, RuntimeError> {
    let path = fs::canonicalize(path).map_err(RuntimeError::io("resolve", path))?;
    Ok(Found { path, place })
}

fn absent(what: &'static str, reason: &str) -> Place {
    Place { what, path: None, reason: reason.to_owned() }
}

fn missing(what: &'static str, path: &Path, reason: &str) -> Place {
    Place { what, path: Some(path.to_path_buf()), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(folder: &Path, name: &str) -> PathBuf {
        fs::create_dir_all(folder).unwrap();
        let path = folder.join(name);
        fs::write(&path, "not a library").unwrap();
        fs::canonicalize(path).unwrap()
    }

    /// Each place is emptied in turn, and the next one is taken.
    #[test]
    fn places_are_tried_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let cached = cache_folder(&at("cache"), Triple::host().unwrap());
        let mut expected = vec![
            ("the file named", put(&at("named"), "any-name.so")),
            ("ORT_DYLIB_PATH", put(&at("variable"), "ort.so")),
            ("the bundle", put(&at("bundle/runtime"), "libonnxruntime.so")),
            ("beside the program", put(&at("bin"), "libonnxruntime.so.1.28.0")),
            ("the program's lib folder", put(&at("lib"), "libonnxruntime.so.1")),
            ("the cache", put(&cached, "libonnxruntime.so.1.28.0")),
            ("the system", put(&at("system"), "libonnxruntime.so")),
        ];
        let mut search = Search {
            explicit: Some(at("named/any-name.so")),
            variable: Some(at("variable/ort.so")),
            bundle: Some(at("bundle")),
            program: Some(at("bin")),
            cache: Some(at("cache")),
            system: vec![at("system")],
        };
        while !expected.is_empty() {
            let (place, path) = expected.remove(0);
            assert_eq!(search.find().unwrap(), Found { path: path.clone(), place });
            match place {
                "the file named" => search.explicit = None,
                "ORT_DYLIB_PATH" => search.variable = None,
                _ => fs::remove_file(path).unwrap(),
            }
        }
        let RuntimeError::NotFound { places } = search.find().unwrap_err() else { panic!("nothing is left") };
        assert_eq!(places.len(), 7);
    }

    #[test]
    fn a_named_file_that_is_missing_is_not_replaced_by_another() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "libonnxruntime.so");
        let search = Search { explicit: Some(dir.path().join("typo.so")), system: vec![dir.path().to_path_buf()], ..Search::default() };
        let refused = search.find().unwrap_err().to_string();
        assert!(refused.contains("typo.so"), "{refused}");
        assert!(refused.contains("sapwood runtime install"), "{refused}");
    }
}
