//! Death of a simulated process: a hook that the simulation installs around its code.

use std::{
    cell::RefCell,
    marker::PhantomData,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use crate::{Killed, Outcome, WATCHERS, read_environment};

type Decide = dyn Fn(&str) -> Outcome + Send + Sync;

/// What one simulated process does at its points. Clones are the same hook.
#[derive(Clone)]
pub struct Hook(Arc<Watched>);

struct Watched(Box<Decide>);

impl Hook {
    /// A hook that is asked at every point: `Ok` to go on, `Err` to die. It must not reach points.
    pub fn new(decide: impl Fn(&str) -> Outcome + Send + Sync + 'static) -> Self {
        read_environment();
        WATCHERS.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(Watched(Box::new(decide))))
    }

    /// Dies at the `nth` visit (from 1) of the point of this name, and, being dead, at every
    /// point after it.
    #[must_use]
    pub fn kill_at(name: &str, nth: u64) -> Self {
        let (name, seen, dead) = (name.to_owned(), AtomicU64::new(0), AtomicBool::new(false));
        Self::new(move |point| {
            if point == name && seen.fetch_add(1, Ordering::Relaxed) + 1 == nth {
                dead.store(true, Ordering::Relaxed);
            }
            if dead.load(Ordering::Relaxed) {
                return Err(Killed { point: point.into() });
            }
            Ok(())
        })
    }

    /// Installs the hook on this thread until the guard is dropped. Hooks nest; the innermost is
    /// asked.
    #[must_use = "the hook is gone when the guard is dropped"]
    pub fn install(&self) -> Guard {
        INSTALLED.with_borrow_mut(|stack| stack.push(self.clone()));
        Guard(PhantomData)
    }

    /// The future, with this hook installed whenever it is polled, on whatever thread. So several
    /// simulated processes share one runtime. A task that it spawns takes the hook along with
    /// [`inherit`].
    pub fn scope<F: Future>(&self, future: F) -> Scoped<F> {
        Scoped { hook: Some(self.clone()), future: Box::pin(future) }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        WATCHERS.fetch_sub(1, Ordering::Relaxed);
    }
}

thread_local! {
    static INSTALLED: RefCell<Vec<Hook>> = const { RefCell::new(Vec::new()) };
}

/// The hook of this thread, if it has one.
#[must_use]
pub fn current() -> Option<Hook> {
    INSTALLED.with_borrow(|stack| stack.last().cloned())
}

/// The future under the hook that is installed now; for a task about to be spawned.
pub fn inherit<F: Future>(future: F) -> Scoped<F> {
    Scoped { hook: current(), future: Box::pin(future) }
}

pub(crate) fn reached(name: &str) -> Outcome {
    // Asked outside the borrow, so that a hook may install another one.
    current().map_or(Ok(()), |hook| (hook.0.0)(name))
}

/// Takes the hook off this thread when dropped.
#[must_use = "the hook is gone when the guard is dropped"]
pub struct Guard(
    // A guard belongs to its thread.
    PhantomData<*const ()>,
);

impl Drop for Guard {
    fn drop(&mut self) {
        INSTALLED.with_borrow_mut(Vec::pop);
    }
}

/// A future under a hook; made by [`Hook::scope`] and [`inherit`].
#[must_use = "a future does nothing unless polled"]
pub struct Scoped<F> {
    hook: Option<Hook>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _guard = self.hook.as_ref().map(Hook::install);
        self.future.as_mut().poll(cx)
    }
}
