//! Places where a test may kill a process, real or simulated.
//!
//! A crash matters where state has just changed or is about to be told: after every commit, and
//! between a commit and the send that follows it. A shell marks such a place with one line,
//!
//! ```
//! # use sapwood_failpoint as failpoint;
//! failpoint::points! {
//!     /// Where a test may kill the coordinator.
//!     pub POINTS {
//!         /// The update is in the store; its sender has not been told.
//!         UPDATE_COMMITTED = "run.after-commit.update-accepted",
//!         /// The outbox is committed; nothing has been sent.
//!         BEFORE_SEND = "run.before-send",
//!     }
//! }
//!
//! fn accept() -> Result<(), failpoint::Killed> {
//!     // ... commit ...
//!     UPDATE_COMMITTED.reached()?;
//!     // ... send ...
//!     Ok(())
//! }
//! # assert!(accept().is_ok());
//! # assert_eq!(POINTS.len(), 2);
//! ```
//!
//! and nothing happens there, at the price of one relaxed load, unless a test asks:
//!
//! 1. **A real process** is started with `SAPWOOD_FAILPOINT=run.before-send`, or `…@3` for the
//!    third time that the process comes by. It gets SIGKILL there and then: no destructor, no
//!    flush, no exit handler. The restart must leave the variable out.
//! 2. **A simulated process** runs under a [`Hook`], which makes [`reached`] return
//!    `Err(`[`Killed`]`)`. The caller hands it up with `?`, everything in memory is dropped and the
//!    simulation starts the process again from its store. `Killed` is not a fault to handle: no
//!    retry and no answer to a peer may come from it.
//!
//! Each table lists its points, so a test can visit every one and print how many there are.

mod hook;
mod process;

use std::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
};

pub use hook::{Guard, Hook, Scoped, current, inherit};
pub use process::{BadSetting, VARIABLE, check};

/// What [`reached`] says: go on, or be dead.
pub type Outcome = Result<(), Killed>;

/// The simulated process died here; hand this up with `?` and do nothing else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("killed by a test at failpoint {point}")]
pub struct Killed {
    /// The name of the point.
    pub point: Box<str>,
}

/// A place where a test may kill; made by [`points!`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Point(&'static str);

impl Point {
    /// A point of this name.
    ///
    /// # Panics
    /// Unless the name is made of lower-case letters, digits, `.` and `-`. In a constant, as in
    /// [`points!`], that is an error of compilation.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        let bytes = name.as_bytes();
        assert!(!bytes.is_empty(), "a failpoint needs a name");
        let mut i = 0;
        while i < bytes.len() {
            assert!(matches!(bytes[i], b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'), "a failpoint's name is made of a-z, 0-9, '.' and '-'");
            i += 1;
        }
        Self(name)
    }

    /// Its name, as `SAPWOOD_FAILPOINT` takes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.0
    }

    /// Dies here if a test asked for it; see [`reached`].
    ///
    /// # Errors
    /// [`Killed`], in a simulation only.
    #[inline]
    pub fn reached(self) -> Outcome {
        reached(self.0)
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// How many reasons there are to look closer at a point: the variable, and every live hook.
/// `UNREAD` until the first point reads the environment.
static WATCHERS: AtomicUsize = AtomicUsize::new(UNREAD);
const UNREAD: usize = usize::MAX;

/// Says that execution has come to the point of this name.
///
/// Kills the process if `SAPWOOD_FAILPOINT` names it; otherwise does nothing, unless a [`Hook`] is
/// installed on this thread.
///
/// # Errors
/// [`Killed`] if the installed hook says so.
#[inline]
pub fn reached(name: &str) -> Outcome {
    if WATCHERS.load(Ordering::Relaxed) == 0 {
        return Ok(());
    }
    look(name)
}

#[cold]
fn look(name: &str) -> Outcome {
    read_environment();
    process::reached(name);
    hook::reached(name)
}

/// Turns `UNREAD` into the number of watchers that the environment brings.
fn read_environment() {
    let armed = usize::from(process::armed());
    // Whoever loses this race finds that the winner has written the same number.
    let _ = WATCHERS.compare_exchange(UNREAD, armed, Ordering::Relaxed, Ordering::Relaxed);
}

/// Declares points as constants, and a table of all of them under the given name.
///
/// A malformed name, or one given twice, does not compile. See the [crate] for an example.
#[macro_export]
macro_rules! points {
    (
        $(#[$table_doc:meta])*
        $vis:vis $table:ident {
            $( $(#[$doc:meta])* $point:ident = $name:literal ),* $(,)?
        }
    ) => {
        $( $(#[$doc])* $vis const $point: $crate::Point = $crate::Point::new($name); )*
        $(#[$table_doc])*
        $vis const $table: &[$crate::Point] = &[$($point),*];
        const _: () = $crate::assert_distinct($table);
    };
}

/// Refuses, while compiling, a table that gives one name twice.
#[doc(hidden)]
pub const fn assert_distinct(table: &[Point]) {
    let mut i = 0;
    while i < table.len() {
        let mut j = i + 1;
        while j < table.len() {
            assert!(!equal(table[i].0, table[j].0), "two failpoints have one name");
            j += 1;
        }
        i += 1;
    }
}

const fn equal(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}
