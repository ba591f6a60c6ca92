//! Provisioning from the real package index into temporary caches.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use sapwood_runtime::{InstallOptions, Installed, Progress, RuntimeError, Triple, download, install};
use tempfile::TempDir;

/// The wheel of this machine, fetched once for all tests.
fn wheel() -> &'static Path {
    static WHEEL: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = WHEEL.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = download(Triple::host().unwrap(), dir.path()).unwrap();
        (dir, path)
    });
    path
}

fn install_into(cache: &Path, wheel: &Path) -> (Result<Installed, RuntimeError>, Vec<Progress>) {
    let mut steps = Vec::new();
    let options = InstallOptions { cache: Some(cache.into()), target: None, wheel: Some(wheel.into()) };
    let result = install(options, &mut |step| steps.push(step));
    (result, steps)
}

/// Names in the folder that holds the targets: nothing temporary may stay there.
fn left_in(cache: &Path) -> Vec<String> {
    let folder = cache.join("onnxruntime/1.28.0");
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_pinned_library_is_fetched_checked_unpacked_and_loaded() {
    let cache = tempfile::tempdir().unwrap();
    let mut steps = Vec::new();
    let options = || InstallOptions { cache: Some(cache.path().into()), ..InstallOptions::default() };
    let first = install(options(), &mut |step| steps.push(step)).unwrap();
    assert_eq!(first.version, "1.28.0");
    assert!(!first.already && first.path.is_file());
    assert_eq!(steps, [Progress::Fetching, Progress::Unpacking, Progress::Loading]);

    let second = install(options(), &mut |_| {}).unwrap();
    assert_eq!(second, Installed { already: true, ..first });
    let host = Triple::host().unwrap().to_string();
    assert_eq!(left_in(cache.path()), [host.clone(), format!("{host}.lock")]);
}

/// A gateway provisions devices of another architecture.
#[test]
fn another_target_is_provisioned_without_being_loaded() {
    let cache = tempfile::tempdir().unwrap();
    let other =
        ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"].map(|t| Triple::new(t).unwrap()).into_iter().find(|t| !t.is_host());
    let options = InstallOptions { cache: Some(cache.path().into()), target: other, wheel: None };
    let mut steps = Vec::new();
    let installed = install(options, &mut |step| steps.push(step)).unwrap();
    assert_eq!(Some(installed.target), other);
    assert_eq!(steps, [Progress::Fetching, Progress::Unpacking]);
}

#[test]
fn a_tampered_wheel_is_refused_and_leaves_nothing() {
    let cache = tempfile::tempdir().unwrap();
    let mut bytes = fs::read(wheel()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let tampered = cache.path().join("tampered.whl");
    fs::write(&tampered, bytes).unwrap();
    let refused = install_into(cache.path(), &tampered).0.unwrap_err();
    assert!(matches!(refused, RuntimeError::WrongDigest { .. }), "{refused}");
    assert_eq!(left_in(cache.path()), [format!("{}.lock", Triple::host().unwrap())]);
}

#[test]
fn a_damaged_copy_is_replaced() {
    let cache = tempfile::tempdir().unwrap();
    let installed = install_into(cache.path(), wheel()).0.unwrap();
    // A new file, so that the copy which this process has loaded stays as it is.
    fs::remove_file(&installed.path).unwrap();
    fs::write(&installed.path, "half a library").unwrap();
    let again = install_into(cache.path(), wheel()).0.unwrap();
    assert_eq!(again, installed);
    assert!(fs::metadata(&again.path).unwrap().len() > 1_000_000);
}

/// However they interleave, one of them unpacks and the others find it done.
#[test]
fn concurrent_installs_do_the_work_once() {
    let cache = tempfile::tempdir().unwrap();
    let wheel = wheel();
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| install_into(cache.path(), wheel))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let unpacked = results.iter().filter(|(_, steps)| steps.contains(&Progress::Unpacking)).count();
    assert_eq!(unpacked, 1);
    assert_eq!(results.iter().filter(|(r, _)| r.as_ref().unwrap().already).count(), 3);
}
