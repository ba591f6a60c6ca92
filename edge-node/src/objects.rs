//! Graphs that come again each round, kept on disk by digest.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use sapwood_protocol::Digest;

use crate::{
    files,
    link::{CallError, Link, Size},
};

/// More files than this are not kept.
const MOST_FILES: usize = 32;

/// A folder of objects.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    folder: PathBuf,
}

impl Objects {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The object's bytes, at most `most`: from disk if they are there and whole, from the coordinator otherwise.
    pub(crate) async fn get(&self, link: &Link, digest: Digest, most: u64) -> Result<Vec<u8>, CallError> {
        let path = self.folder.join(digest.hex());
        let disk = |source| CallError::Disk { path: path.clone(), source };
        if let Some(bytes) = files::read(&path).map_err(disk)? {
            if Digest::of(&bytes) == digest {
                return Ok(bytes);
            }
            tracing::warn!(object = ?digest, "a kept object is damaged; fetching it again");
            files::remove(&path).map_err(disk)?;
        }
        files::private_folder(&self.folder).map_err(disk)?;
        link.fetch_file(digest, Size::AtMost(most), &path, None).await?;
        prune(&self.folder);
        files::read(&path).map_err(disk)?.ok_or_else(|| disk(std::io::ErrorKind::NotFound.into()))
    }
}

/// Removes the oldest files. What cannot be removed only takes room.
fn prune(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut files: Vec<(SystemTime, PathBuf)> =
        entries.flatten().filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
    files.sort();
    let surplus = files.len().saturating_sub(MOST_FILES);
    for (_, path) in files.drain(..surplus) {
        let _ = fs::remove_file(path);
    }
}
