//! Points in a real process: this test starts itself again with `SAPWOOD_FAILPOINT` set.

use std::{
    os::unix::process::ExitStatusExt,
    process::{Command, Output},
};

use sapwood_failpoint as failpoint;

failpoint::points! {
    /// The child's only point.
    POINTS { STEP = "child.step" }
}

const CHILD: &str = "SAPWOOD_FAILPOINT_TEST_CHILD";

/// Not a test by itself: what the children run.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    match failpoint::check(&[POINTS]) {
        Ok(_) => {}
        Err(bad) => panic!("{bad}"),
    }
    for step in 1..=5 {
        STEP.reached().unwrap();
        std::fs::write(std::env::var_os(CHILD).unwrap(), step.to_string()).unwrap();
    }
}

fn run(setting: Option<&str>) -> (Output, String) {
    let log = std::env::temp_dir().join(format!("sapwood-failpoint-{}-{}", std::process::id(), setting.unwrap_or("none")));
    std::fs::write(&log, "0").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child"]).env(CHILD, &log);
    match setting {
        Some(setting) => command.env(failpoint::VARIABLE, setting),
        None => command.env_remove(failpoint::VARIABLE),
    };
    let output = command.output().unwrap();
    let steps = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_file(log).unwrap();
    (output, steps)
}

#[test]
fn unset_it_lives() {
    let (output, steps) = run(None);
    assert!(output.status.success());
    assert_eq!(steps, "5");
}

#[test]
fn it_dies_of_sigkill_at_the_first_visit() {
    let (output, steps) = run(Some("child.step"));
    assert_eq!(output.status.signal(), Some(9));
    assert_eq!(steps, "0");
}

#[test]
fn it_dies_at_the_third_visit() {
    let (output, steps) = run(Some("child.step@3"));
    assert_eq!(output.status.signal(), Some(9));
    assert_eq!(steps, "2");
}

#[test]
fn a_misspelt_point_is_an_error_and_not_a_long_wait() {
    for setting in ["child.stpe", "child.step@0"] {
        let (output, steps) = run(Some(setting));
        assert_eq!(output.status.signal(), None);
        assert!(!output.status.success(), "{setting}");
        assert_eq!(steps, "0");
    }
}
