//! Files that must be whole after a crash and private always.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use zeroize::Zeroizing;

use super::PkiError;

/// Readable and writable by the owner alone.
const PRIVATE: u32 = 0o600;
/// Readable by everyone: certificates and public keys.
const PUBLIC: u32 = 0o644;
/// A folder that only the owner enters.
const FOLDER: u32 = 0o700;

fn failed(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> PkiError {
    let path = path.to_path_buf();
    move |source| PkiError::File { path, doing, source }
}

/// Makes a folder that only the owner enters, and those above it.
pub(crate) fn folder(path: &Path) -> Result<(), PkiError> {
    DirBuilder::new().recursive(true).mode(FOLDER).create(path).map_err(failed(path, "created"))
}

/// A new file; one that exists is not touched. On the disk when this returns, except for its name (see [`sync`]).
pub(crate) fn create(path: &Path, bytes: &[u8], secret: bool) -> Result<(), PkiError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(if secret { PRIVATE } else { PUBLIC }).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(failed(path, "written"))
}

/// Makes the names in a folder durable.
pub(crate) fn sync(folder: &Path) -> Result<(), PkiError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(failed(folder, "synchronized"))
}

/// A new secret file that appears whole or not at all. False, and nothing happens, if there is one already.
pub(crate) fn publish(folder: &Path, name: &str, bytes: &[u8]) -> Result<bool, PkiError> {
    let (path, draft) = (folder.join(name), folder.join(format!(".{name}.{}.draft", std::process::id())));
    // A draft of an attempt that crashed.
    remove(&draft)?;
    create(&draft, bytes, true)?;
    // A hard link, unlike a rename, never replaces.
    let linked = match fs::hard_link(&draft, &path) {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
        Err(e) => return Err(failed(&path, "created")(e)),
    };
    remove(&draft)?;
    sync(folder)?;
    Ok(linked)
}

pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), PkiError> {
    fs::rename(from, to).map_err(failed(to, "put in place"))
}

/// The whole of a small file; none if there is no such file.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, PkiError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(path, "read")(e)),
    }
}

/// The whole of a small file.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, PkiError> {
    fs::read(path).map(Zeroizing::new).map_err(failed(path, "read"))
}

/// The whole of a small text file.
pub(crate) fn read_text(path: &Path) -> Result<Zeroizing<String>, PkiError> {
    fs::read_to_string(path).map(Zeroizing::new).map_err(failed(path, "read"))
}

/// The names in a folder; none if there is no such folder.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>, PkiError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(folder, "listed")(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed(folder, "listed"))?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// A secret file that is replaced whole or not at all.
pub(crate) fn replace(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), PkiError> {
    let (path, draft) = (folder.join(name), folder.join(format!(".{name}.draft")));
    remove(&draft)?;
    create(&draft, bytes, true)?;
    rename(&draft, &path)?;
    sync(folder)
}

/// No such file afterwards.
pub(crate) fn remove(path: &Path) -> Result<(), PkiError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(path, "removed")(e)),
        _ => Ok(()),
    }
}
