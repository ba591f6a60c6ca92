//! Death of a real process, asked for by `SAPWOOD_FAILPOINT`.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use crate::Point;

/// The variable that arms one point: `name`, or `name@N` for the Nth time.
pub const VARIABLE: &str = "SAPWOOD_FAILPOINT";

/// `SAPWOOD_FAILPOINT` cannot be obeyed; a test that set it would wait for a death in vain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSetting {
    /// The count after `@` is not a number from 1.
    #[error("{VARIABLE}={setting}: expected NAME or NAME@N with N from 1")]
    Count {
        /// The variable's value.
        setting: String,
    },
    /// This process has no such point.
    #[error("{VARIABLE}={setting}: no such failpoint here; the names are {}", known.join(", "))]
    Unknown {
        /// The variable's value.
        setting: String,
        /// Every name in the tables.
        known: Vec<&'static str>,
    },
}

struct Armed {
    name: String,
    nth: u64,
    seen: AtomicU64,
}

/// Read once: a process that changes its own environment later changes nothing here.
fn setting() -> &'static Result<Option<Armed>, BadSetting> {
    static SETTING: OnceLock<Result<Option<Armed>, BadSetting>> = OnceLock::new();
    SETTING.get_or_init(|| std::env::var_os(VARIABLE).map(|v| parse(&v.to_string_lossy())).transpose())
}

fn parse(setting: &str) -> Result<Armed, BadSetting> {
    let (name, nth) = match setting.split_once('@') {
        None => (setting, Some(1)),
        Some((name, count)) => (name, count.parse().ok().filter(|n| *n > 0)),
    };
    let nth = nth.ok_or_else(|| BadSetting::Count { setting: setting.to_owned() })?;
    Ok(Armed { name: name.to_owned(), nth, seen: AtomicU64::new(0) })
}

pub(crate) fn armed() -> bool {
    matches!(setting(), Ok(Some(_)))
}

pub(crate) fn reached(name: &str) {
    let Ok(Some(armed)) = setting() else { return };
    if armed.name == name && armed.seen.fetch_add(1, Ordering::Relaxed) + 1 == armed.nth {
        die();
    }
}

/// SIGKILL, which nothing can catch and no destructor outlives.
fn die() -> ! {
    use rustix::process::{Signal, getpid, kill_process};
    if kill_process(getpid(), Signal::KILL).is_err() {
        // A process may always signal itself; if a sandbox disagrees, this is the nearest thing.
        std::process::abort();
    }
    // The signal is on its way to this thread.
    loop {
        std::thread::park();
    }
}

/// Refuses a `SAPWOOD_FAILPOINT` that none of these tables can obey. Call it when the process
/// starts, so that a misspelt point fails the test that asked for it.
///
/// Returns the setting, for the log, if there is one.
///
/// # Errors
/// [`BadSetting`] if the count is malformed or the name unknown.
pub fn check(tables: &[&[Point]]) -> Result<Option<String>, BadSetting> {
    match setting() {
        Err(bad) => Err(bad.clone()),
        Ok(None) => Ok(None),
        Ok(Some(armed)) => find(armed, tables).map(Some),
    }
}

fn find(armed: &Armed, tables: &[&[Point]]) -> Result<String, BadSetting> {
    let setting = format!("{}@{}", armed.name, armed.nth);
    let known: Vec<_> = tables.iter().flat_map(|t| t.iter()).map(|p| p.name()).collect();
    if known.contains(&armed.name.as_str()) { Ok(setting) } else { Err(BadSetting::Unknown { setting, known }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_a_name_and_perhaps_a_count() {
        let plain = parse("run.before-send").unwrap();
        assert_eq!((plain.name.as_str(), plain.nth), ("run.before-send", 1));
        let third = parse("run.before-send@3").unwrap();
        assert_eq!((third.name.as_str(), third.nth), ("run.before-send", 3));
        for bad in ["a@", "a@0", "a@x", "a@-1", "a@1@2"] {
            assert!(matches!(parse(bad), Err(BadSetting::Count { .. })), "{bad}");
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        const TABLE: &[Point] = &[Point::new("a.b"), Point::new("a.c")];
        assert_eq!(find(&parse("a.c@2").unwrap(), &[TABLE]), Ok("a.c@2".into()));
        let refused = find(&parse("a.d").unwrap(), &[TABLE]).err().unwrap();
        assert!(refused.to_string().contains("a.b, a.c"), "{refused}");
    }
}
