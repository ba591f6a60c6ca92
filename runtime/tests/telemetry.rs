//! Telemetry is off before the library can start: this test starts itself again as a process of
//! one thread of its own.

use std::process::Command;

use sapwood_runtime::{disable_telemetry, telemetry_disabled};

const CHILD: &str = "SAPWOOD_TELEMETRY_TEST_CHILD";

/// Not a test by itself: what the child runs.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_some() {
        assert!(!telemetry_disabled());
        disable_telemetry();
        assert!(telemetry_disabled());
        // What a library in this process, or a child of it, would read.
        let seen = Command::new("sh").args(["-c", "printf %s \"$ORT_DISABLE_TELEMETRY\""]).output().unwrap();
        assert_eq!(seen.stdout, b"1");
    }
}

#[test]
fn the_variable_is_set_for_this_process_and_its_children() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--test-threads=1"])
        .env(CHILD, "1")
        .env_remove("ORT_DISABLE_TELEMETRY")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
