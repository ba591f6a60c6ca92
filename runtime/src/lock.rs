//! The pinned library: one wheel and one file in it for each target.

use std::{fmt, sync::LazyLock};

use serde::Deserialize;

use crate::RuntimeError;

const TEXT: &str = include_str!("../onnxruntime.lock.toml");

static LOCK: LazyLock<Lock> = LazyLock::new(|| toml::from_str(TEXT).expect("the lock file is part of the program and parsed by its tests"));

/// `onnxruntime.lock.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Name of the package.
    pub package: String,
    /// Its version, which is the library's.
    pub version: String,
    /// Version of Python that the wheels are built for; the library itself needs none.
    pub python: String,
    /// Python implementation tag.
    pub implementation: String,
    /// ABI tag.
    pub abi: String,
    /// One entry for each target.
    pub target: Vec<Target>,
}

/// What to fetch for one target, and what must come out of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The Rust target triple.
    pub triple: String,
    /// Platform tag to ask for.
    pub platform: String,
    /// File name of the wheel.
    pub wheel: String,
    /// SHA-256 of the wheel, hex.
    pub wheel_sha256: String,
    /// Path of the library in the wheel.
    pub member: String,
    /// Size of the library in bytes.
    pub library_bytes: u64,
    /// SHA-256 of the library, hex.
    pub library_sha256: String,
}

impl Target {
    /// File name of the library.
    #[must_use]
    pub fn library(&self) -> &str {
        self.member.rsplit('/').next().unwrap_or(&self.member)
    }
}

/// The lock file of this build.
#[must_use]
pub fn lock() -> &'static Lock {
    &LOCK
}

/// A target that the lock file pins a library for.
#[derive(Clone, Copy)]
pub struct Triple(&'static Target);

impl Triple {
    /// The target of this name, such as `aarch64-unknown-linux-gnu`.
    ///
    /// # Errors
    /// [`RuntimeError::UnknownTarget`] if nothing is pinned for it.
    pub fn new(name: &str) -> Result<Self, RuntimeError> {
        let lock = lock();
        let target = lock.target.iter().find(|t| t.triple == name);
        target.map(Self).ok_or_else(|| RuntimeError::UnknownTarget {
            triple: name.to_owned(),
            known: lock.target.iter().map(|t| t.triple.clone()).collect(),
        })
    }

    /// The target of this process.
    ///
    /// # Errors
    /// As [`Triple::new`].
    pub fn host() -> Result<Self, RuntimeError> {
        Self::new(&host_name())
    }

    /// Whether the library runs in this process.
    #[must_use]
    pub fn is_host(self) -> bool {
        self.0.triple == host_name()
    }

    /// Its entry in the lock file.
    #[must_use]
    pub fn target(self) -> &'static Target {
        self.0
    }
}

/// The pinned builds are for glibc, which is also what a `linux` target means by default.
fn host_name() -> String {
    let env = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    match std::env::consts::OS {
        "linux" => format!("{}-unknown-linux-{env}", std::env::consts::ARCH),
        os => format!("{}-{os}", std::env::consts::ARCH),
    }
}

impl fmt::Display for Triple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.triple)
    }
}

impl fmt::Debug for Triple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Triple({self})")
    }
}

impl PartialEq for Triple {
    fn eq(&self, other: &Self) -> bool {
        self.0.triple == other.0.triple
    }
}

impl Eq for Triple {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_pinned_by_whole_digests() {
        let lock = lock();
        for target in &lock.target {
            for digest in [&target.wheel_sha256, &target.library_sha256] {
                assert_eq!(digest.len(), 64);
                assert!(digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
            }
            assert!(target.wheel.starts_with(&format!("{}-{}-", lock.package, lock.version)));
            assert!(target.library().ends_with(&lock.version));
        }
    }

    /// 1.29 and newer report to their vendor by default.
    #[test]
    fn the_pinned_version_has_no_telemetry_code() {
        let minor: u32 = lock().version.split('.').nth(1).unwrap().parse().unwrap();
        assert!((24..=28).contains(&minor));
    }

    #[test]
    fn an_unknown_target_is_refused_with_the_known_ones() {
        let refused = Triple::new("riscv64gc-unknown-linux-gnu").unwrap_err().to_string();
        assert!(refused.contains("aarch64-unknown-linux-gnu"), "{refused}");
        assert!(Triple::new("x86_64-unknown-linux-gnu").is_ok());
    }
}
