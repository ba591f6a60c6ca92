//! A transfer that can be interrupted.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

use sapwood_protocol::{Digest, Hasher};

use super::{ObjectError, Objects};

/// A transfer under way. Dropped unfinished, it keeps what has arrived.
pub struct Partial {
    objects: Objects,
    digest: Digest,
    total: u64,
    received: u64,
    /// None: the object was here already, and bytes are only counted.
    sink: Option<(File, Hasher, PathBuf)>,
}

impl Partial {
    pub(super) fn open(objects: &Objects, digest: Digest, total: u64, offset: u64) -> Result<Self, ObjectError> {
        let fits = |have: u64, total: u64| {
            let fits = offset == have || offset == 0;
            if fits { Ok(()) } else { Err(ObjectError::Offset { digest, offset, have, total }) }
        };
        if objects.has(digest) {
            let length = objects.length(digest)?;
            fits(length, length)?;
            if total != length {
                return Err(ObjectError::Offset { digest, offset, have: length, total });
            }
            return Ok(Self { objects: objects.clone(), digest, total, received: offset, sink: None });
        }
        let path = objects.partial(digest);
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        // One sender at a time; and not one that has waited for a file which has got its name for good by now.
        let alone =
            file.try_lock().is_ok() && fs::metadata(&path).is_ok_and(|named| file.metadata().is_ok_and(|ours| named.ino() == ours.ino()));
        if !alone {
            return Err(ObjectError::Busy { digest });
        }
        if offset == 0 {
            file.set_len(0)?;
        }
        let have = file.metadata()?.len();
        fits(have, total)?;
        if have > total {
            return Err(ObjectError::Offset { digest, offset, have, total });
        }
        // What came earlier is hashed again once: it may come from another life of this process.
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => hasher.update(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self { objects: objects.clone(), digest, total, received: have, sink: Some((file, hasher, path)) })
    }

    /// The next bytes.
    ///
    /// # Errors
    /// [`ObjectError::Offset`] if there are more than announced; [`ObjectError::DiskFull`], after which the transfer may go on
    /// from what is here.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ObjectError> {
        let received = self.received + bytes.len() as u64;
        if received > self.total {
            return Err(ObjectError::Offset { digest: self.digest, offset: received, have: self.received, total: self.total });
        }
        if let Some((file, hasher, _)) = &mut self.sink {
            file.write_all(bytes)?;
            hasher.update(bytes);
        }
        self.received = received;
        Ok(())
    }

    /// Keeps the object, which must be whole and right. A wrong one is thrown away, so that it can be sent anew.
    pub fn finish(self) -> Result<(), ObjectError> {
        let Self { objects, digest, total, received, sink } = self;
        let Some((file, hasher, path)) = sink else { return Ok(()) };
        if received != total {
            return Err(ObjectError::Offset { digest, offset: received, have: received, total });
        }
        let actual = hasher.finish();
        if actual != digest {
            fs::remove_file(&path)?;
            return Err(ObjectError::Digest { digest, actual });
        }
        file.sync_all()?;
        objects.keep(&path, digest)
    }
}
