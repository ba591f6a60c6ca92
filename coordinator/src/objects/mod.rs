//! Bytes by digest, in a folder: models, parameters, bundles.
//!
//! An object is either there, whole and durable under its digest, or it is not there: it is written beside, synchronised,
//! renamed, and the folder is synchronised. What arrives from outside is checked while it arrives, and an interrupted
//! transfer goes on where it stopped. Paths are made from digests only, so that no name from outside reaches the disk.
//!
//! ```text
//! objects/ab/abcdef…   whole objects        partials/abcdef…   transfers under way        tmp/…   being written here
//! ```

mod partial;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use sapwood_failpoint as failpoint;
use sapwood_protocol::{Digest, Fault, Hasher, fault::Lack};
use thiserror::Error;

pub use partial::Partial;

failpoint::points! {
    /// Where a test may kill the coordinator while it keeps an object.
    pub POINTS {
        /// The bytes are on the disk under another name.
        OBJECT_SYNCED = "object.synced",
        /// The name is there; the folder may not be on the disk.
        OBJECT_RENAMED = "object.renamed",
    }
}

/// A folder of objects. Its methods block; call them where that is allowed.
#[derive(Clone)]
pub struct Objects(Arc<Inner>);

struct Inner {
    root: PathBuf,
}

/// Names files being written. One for the whole process, which may hold several handles on one folder in a simulation.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Why an object could not be kept or read.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// There is none.
    #[error("there is no object {digest}; store it first")]
    Missing {
        /// Which.
        digest: Digest,
    },
    /// Bytes and digest do not match: damaged on the disk or on the way.
    #[error("the bytes of object {digest} are {actual}; they were damaged on the way or on the disk, send them again")]
    Digest {
        /// What they should be.
        digest: Digest,
        /// What they are.
        actual: Digest,
    },
    /// A transfer that does not fit what is there.
    #[error("a transfer of {digest} begins at {offset}, but {have} of {total} bytes are here")]
    Offset {
        /// Of what.
        digest: Digest,
        /// Where it begins.
        offset: u64,
        /// Where it should begin.
        have: u64,
        /// Where it should end.
        total: u64,
    },
    /// Somebody else sends the same object now.
    #[error("object {digest} is being received from somebody else; try again soon")]
    Busy {
        /// Which.
        digest: Digest,
    },
    /// No room left.
    #[error("the disk of the coordinator's objects is full; make room and try again")]
    DiskFull,
    /// The disk, the folder or its rights.
    #[error("an object's file could not be used; look at the disk and at the rights of the data folder")]
    Io(#[source] io::Error),
    /// The simulated process died.
    #[error(transparent)]
    Killed(#[from] failpoint::Killed),
}

impl From<io::Error> for ObjectError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Self::DiskFull,
            _ => Self::Io(error),
        }
    }
}

impl From<&ObjectError> for Fault {
    fn from(error: &ObjectError) -> Self {
        use sapwood_protocol::fault::{Misbehaviour, Misuse};
        match error {
            ObjectError::Missing { digest } => {
                Misuse::State { what: format!("object {digest}"), why: "it is not here; store it first".into() }.into()
            }
            ObjectError::Digest { digest, actual } => Misbehaviour::Digest { what: "object", expected: *digest, actual: *actual }.into(),
            ObjectError::Offset { .. } => Misbehaviour::Malformed { what: "transfer", why: error.to_string() }.into(),
            other => Lack::Resource { what: "the coordinator's objects", why: other.to_string() }.into(),
        }
    }
}

impl From<ObjectError> for Fault {
    fn from(error: ObjectError) -> Self {
        Self::from(&error)
    }
}

impl Objects {
    /// Opens the folder, makes it if it is not there, and clears away what a crash left half-written.
    pub fn open(root: &Path) -> Result<Self, ObjectError> {
        let inner = Inner { root: root.to_owned() };
        for folder in ["objects", "partials", "tmp"] {
            fs::create_dir_all(root.join(folder))?;
        }
        for entry in fs::read_dir(root.join("tmp"))? {
            remove(&entry?.path())?;
        }
        sync_folder(root)?;
        Ok(Self(Arc::new(inner)))
    }

    /// Keeps `bytes`; their digest.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, ObjectError> {
        let mut writer = self.writer()?;
        writer.write_all(bytes)?;
        writer.finish()
    }

    /// Begins an object whose digest its bytes will tell.
    pub fn writer(&self) -> Result<ObjectWriter, ObjectError> {
        let temporary = self.0.root.join("tmp").join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        let file = File::create_new(&temporary)?;
        Ok(ObjectWriter { objects: self.clone(), file, hasher: Hasher::default(), temporary: Temporary(temporary) })
    }

    /// Goes on with, or begins, a transfer of `total` bytes that should be `digest`, at `offset`.
    ///
    /// # Errors
    /// [`ObjectError::Offset`] unless `offset` is what [`Objects::received`] says, or 0, which begins anew.
    pub fn receive(&self, digest: Digest, total: u64, offset: u64) -> Result<Partial, ObjectError> {
        Partial::open(self, digest, total, offset)
    }

    /// How many bytes of `digest` are here already, of a whole object or of a transfer.
    pub fn received(&self, digest: Digest) -> u64 {
        let length = |path: PathBuf| fs::metadata(path).map(|file| file.len()).ok();
        length(self.path(digest)).or_else(|| length(self.partial(digest))).unwrap_or(0)
    }

    /// Whether the whole object is here.
    pub fn has(&self, digest: Digest) -> bool {
        self.path(digest).exists()
    }

    /// Its length in bytes.
    pub fn length(&self, digest: Digest) -> Result<u64, ObjectError> {
        self.open_at(digest, 0).map(|(_, length)| length)
    }

    /// The object from `offset` on, and its whole length. The bytes are not checked again: whoever gets them does.
    pub fn open_at(&self, digest: Digest, offset: u64) -> Result<(File, u64), ObjectError> {
        let mut file = match File::open(self.path(digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ObjectError::Missing { digest }),
            file => file?,
        };
        let length = file.metadata()?.len();
        if offset > length {
            return Err(ObjectError::Offset { digest, offset, have: length, total: length });
        }
        if offset > 0 {
            file.seek(SeekFrom::Start(offset))?;
        }
        Ok((file, length))
    }

    /// The whole object in memory, checked.
    pub fn read(&self, digest: Digest) -> Result<Vec<u8>, ObjectError> {
        let (mut file, length) = self.open_at(digest, 0)?;
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        file.read_to_end(&mut bytes)?;
        let actual = Digest::of(&bytes);
        if actual == digest { Ok(bytes) } else { Err(ObjectError::Digest { digest, actual }) }
    }

    /// Forgets an object. Nothing happens if it is not there.
    pub fn remove(&self, digest: Digest) -> Result<(), ObjectError> {
        Ok(remove(&self.path(digest))?)
    }

    fn path(&self, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        self.0.root.join("objects").join(&hex[..2]).join(hex)
    }

    fn partial(&self, digest: Digest) -> PathBuf {
        self.0.root.join("partials").join(digest.hex())
    }

    /// Gives a synchronised file its name for good.
    fn keep(&self, from: &Path, digest: Digest) -> Result<(), ObjectError> {
        OBJECT_SYNCED.reached()?;
        let path = self.path(digest);
        let folder = path.parent().expect("an object's path has a folder");
        if !folder.exists() {
            fs::create_dir_all(folder)?;
            sync_folder(&self.0.root.join("objects"))?;
        }
        fs::rename(from, &path)?;
        OBJECT_RENAMED.reached()?;
        Ok(sync_folder(folder)?)
    }
}

/// Removes a file if it is there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A rename is durable once its folder is.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// An object in the making. Dropped unfinished, it leaves nothing.
pub struct ObjectWriter {
    objects: Objects,
    file: File,
    hasher: Hasher,
    temporary: Temporary,
}

impl Write for ObjectWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl ObjectWriter {
    /// Keeps what was written; its digest.
    pub fn finish(self) -> Result<Digest, ObjectError> {
        let digest = self.hasher.finish();
        self.file.sync_all()?;
        self.objects.keep(&self.temporary.0, digest)?;
        Ok(digest)
    }
}

/// A file that goes away with its owner, unless it got another name.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // After the rename there is nothing to remove; else the next start clears it away.
        let _ = fs::remove_file(&self.0);
    }
}
