//! A library that is there and cannot be used stops the search. This file has one test, because a
//! process holds one library.

use std::{fs, path::PathBuf};

use sapwood_runtime::{InstallOptions, Runtime, RuntimeError, Search, default_cache, install};

#[test]
fn a_bad_library_is_an_error_and_not_skipped() {
    let bundle = tempfile::tempdir().unwrap();
    let bad = bundle.path().join("runtime/libonnxruntime.so");
    fs::create_dir(bundle.path().join("runtime")).unwrap();
    fs::write(&bad, "not a library").unwrap();
    // The cache, which comes later, may well have a good one.
    let search = Search { bundle: Some(bundle.path().into()), cache: default_cache().ok(), ..Search::default() };

    let refused = Runtime::load_with(&search).unwrap_err();
    assert!(matches!(&refused, RuntimeError::BadLibrary { path, .. } if path.ends_with("runtime/libonnxruntime.so")), "{refused}");

    fs::copy(another_library(), &bad).unwrap();
    let refused = Runtime::load_with(&search).unwrap_err().to_string();
    assert!(refused.contains("OrtGetApiBase"), "{refused}");
    assert_eq!(Runtime::loaded(), None);

    // The refusals leave room for a good one.
    let installed = install(InstallOptions::default(), &mut |_| {}).unwrap();
    assert_eq!(installed.version, "1.28.0");
    let refused = Runtime::load_with(&search).unwrap_err();
    assert!(matches!(refused, RuntimeError::AlreadyLoaded { .. }), "{refused}");
}

/// The compiler's runtime library, which this process has loaded.
fn another_library() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.contains("/libgcc_s.so"));
    line.and_then(|line| line.split_whitespace().last()).expect("a glibc process has it").into()
}
