//! Slots and downloads on disk.
//!
//! ```text
//! slots/<bundle digest>/      one verified release, unpacked; never changed once it has its place
//! downloads/<digest>          bundles and manifests; `.part` while they arrive
//! current -> slots/<digest>   what answers; replaced in one rename
//! ```

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use sapwood_failpoint::Killed;
use sapwood_protocol::{Digest, release::bundle::Parts};

use super::{DRAFTED, EXCHANGED, LOADED, PRUNED, STAGED};
use crate::{error::NodeError, files};

/// The name of the manifest in a slot; no bundle has an entry of this name.
pub(super) const MANIFEST: &str = "manifest.json";

/// What went wrong on the disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The system's word, and where.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// In a simulation only.
    #[error(transparent)]
    Killed(#[from] Killed),
}

impl From<DiskError> for NodeError {
    fn from(error: DiskError) -> Self {
        match error {
            DiskError::Io { path, source } => Self::Disk { path, source },
            DiskError::Killed(killed) => killed.into(),
        }
    }
}

/// A node's folders for releases.
#[derive(Clone, Debug)]
pub struct Disk {
    root: PathBuf,
}

impl Disk {
    /// Makes the folders if they are not there and clears what a crash left half made.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn open(root: &Path) -> Result<Self, DiskError> {
        let disk = Self { root: root.to_owned() };
        for folder in [disk.slots(), disk.downloads()] {
            files::private_folder(&folder).map_err(at(&folder))?;
        }
        for entry in list(&disk.slots())? {
            if entry.extension().is_some_and(|e| e == "draft") {
                fs::remove_dir_all(&entry).map_err(at(&entry))?;
            }
        }
        Ok(disk)
    }

    /// The folder of a release.
    pub fn slot(&self, bundle: Digest) -> PathBuf {
        self.slots().join(bundle.hex())
    }

    /// Where a bundle or a manifest is downloaded to.
    pub fn download(&self, digest: Digest) -> PathBuf {
        self.downloads().join(digest.hex())
    }

    /// Where what answers now lies, for people and for tools on this machine.
    pub fn current(&self) -> PathBuf {
        self.root.join("current")
    }

    /// Free bytes for this user.
    ///
    /// # Errors
    /// If the file system does not say.
    pub fn free_bytes(&self) -> Result<u64, DiskError> {
        let stat = rustix::fs::statvfs(&self.root).map_err(|e| DiskError::Io { path: self.root.clone(), source: e.into() })?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Writes a slot, whole or not at all. A slot that is there already was whole when it got its name.
    ///
    /// # Errors
    /// If the disk refuses; a full disk leaves nothing behind.
    pub fn stage(&self, bundle: Digest, parts: &Parts, manifest: &[u8]) -> Result<(), DiskError> {
        let slot = self.slot(bundle);
        if slot.exists() {
            return Ok(());
        }
        let draft = slot.with_extension("draft");
        let written = self.fill(&draft, parts, manifest);
        if written.is_err() {
            let _ = fs::remove_dir_all(&draft);
        }
        written?;
        DRAFTED.reached()?;
        fs::rename(&draft, &slot).map_err(at(&slot))?;
        files::sync_folder_of(&slot).map_err(at(&slot))?;
        STAGED.reached()?;
        Ok(())
    }

    fn fill(&self, draft: &Path, parts: &Parts, manifest: &[u8]) -> Result<(), DiskError> {
        if draft.exists() {
            fs::remove_dir_all(draft).map_err(at(draft))?;
        }
        let golden = draft.join("golden");
        fs::create_dir_all(&golden).map_err(at(&golden))?;
        for (name, bytes) in parts.iter().chain([(MANIFEST, manifest)]) {
            let path = draft.join(name);
            let mut file = File::create_new(&path).map_err(at(&path))?;
            file.write_all(bytes).and_then(|()| file.sync_all()).map_err(at(&path))?;
        }
        for folder in [&golden, draft] {
            File::open(folder).and_then(|f| f.sync_all()).map_err(at(folder))?;
        }
        Ok(())
    }

    /// Makes `to` the current slot in one rename, or none.
    ///
    /// # Errors
    /// If the disk refuses; then the old one stays.
    pub fn exchange(&self, to: Option<Digest>) -> Result<(), DiskError> {
        let current = self.current();
        LOADED.reached()?;
        match to {
            Some(bundle) => {
                let draft = self.root.join(".current.draft");
                files::remove(&draft).map_err(at(&draft))?;
                symlink(Path::new("slots").join(bundle.hex()), &draft).map_err(at(&draft))?;
                fs::rename(&draft, &current).map_err(at(&current))?;
            }
            None => files::remove(&current).map_err(at(&current))?,
        }
        files::sync_folder_of(&current).map_err(at(&current))?;
        EXCHANGED.reached()?;
        Ok(())
    }

    /// Removes every slot but `bundles`, and all downloads: what stays is unpacked.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn prune(&self, bundles: &[Digest]) -> Result<(), DiskError> {
        let slots: BTreeSet<PathBuf> = bundles.iter().map(|b| self.slot(*b)).collect();
        for slot in list(&self.slots())?.into_iter().filter(|s| !slots.contains(s)) {
            remove_slot(&slot)?;
            PRUNED.reached()?;
        }
        for file in list(&self.downloads())? {
            files::remove(&file).map_err(at(&file))?;
        }
        Ok(())
    }

    /// Removes a slot whose content was changed.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn discard(&self, bundle: Digest) -> Result<(), DiskError> {
        remove_slot(&self.slot(bundle))
    }

    fn slots(&self) -> PathBuf {
        self.root.join("slots")
    }

    fn downloads(&self) -> PathBuf {
        self.root.join("downloads")
    }
}

/// Out of its place first: half a slot must never look like one.
fn remove_slot(slot: &Path) -> Result<(), DiskError> {
    let doomed = slot.with_extension("draft");
    fs::rename(slot, &doomed).map_err(at(slot))?;
    fs::remove_dir_all(&doomed).map_err(at(&doomed))
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, DiskError> {
    let entries = fs::read_dir(folder).and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>());
    entries.map_err(at(folder))
}

pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    let path = path.to_owned();
    move |source| DiskError::Io { path, source }
}
