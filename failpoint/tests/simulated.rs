//! Points under a hook: a simulated process dies where it is told to, and only it.

use std::{
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use sapwood_failpoint::{self as failpoint, Hook, Killed};

failpoint::points! {
    /// Two points.
    POINTS {
        COMMITTED = "run.after-commit",
        BEFORE_SEND = "run.before-send",
    }
}

fn work() -> Result<(), Killed> {
    COMMITTED.reached()?;
    BEFORE_SEND.reached()
}

#[test]
fn nothing_happens_without_a_hook() {
    assert_eq!(work(), Ok(()));
    assert_eq!(failpoint::reached("a name that nobody declared"), Ok(()));
}

#[test]
fn a_recorder_sees_every_point_in_order() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let hook = Hook::new(move |name| {
        log.lock().unwrap().push(name.to_owned());
        Ok(())
    });
    {
        let _guard = hook.install();
        work().unwrap();
    }
    work().unwrap();
    let names: Vec<_> = POINTS.iter().map(|p| p.name()).collect();
    assert_eq!(*seen.lock().unwrap(), names);
}

#[test]
fn death_comes_at_the_nth_visit_and_stays() {
    let hook = Hook::kill_at("run.before-send", 2);
    let _guard = hook.install();
    assert_eq!(work(), Ok(()));
    assert_eq!(COMMITTED.reached(), Ok(()));
    let killed = BEFORE_SEND.reached().unwrap_err();
    assert_eq!(&*killed.point, "run.before-send");
    assert!(COMMITTED.reached().is_err(), "the dead do not commit");
}

#[test]
fn the_innermost_hook_is_asked() {
    let dies = Hook::kill_at("run.after-commit", 1);
    let lives = Hook::new(|_| Ok(()));
    let _outer = dies.install();
    {
        let _inner = lives.install();
        assert_eq!(work(), Ok(()));
    }
    assert!(work().is_err());
}

/// Two simulated processes on one thread, polled in turn.
#[test]
fn a_scoped_future_carries_its_own_hook_and_its_children_inherit_it() {
    let dies = Hook::kill_at("run.after-commit", 1);
    let mut doomed = pin!(dies.scope(async {
        yield_once().await;
        // As if spawned: polled below, outside the parent's scope.
        Spawned(Box::pin(failpoint::inherit(async { work() })))
    }));
    let mut healthy = pin!(async {
        yield_once().await;
        work()
    });
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(doomed.as_mut().poll(cx).is_pending());
    assert!(healthy.as_mut().poll(cx).is_pending());
    let Poll::Ready(Spawned(mut child)) = doomed.as_mut().poll(cx) else { panic!("the parent is ready") };
    assert_eq!(healthy.as_mut().poll(cx), Poll::Ready(Ok(())));
    let Poll::Ready(result) = child.as_mut().poll(cx) else { panic!("the child is ready") };
    assert!(result.is_err(), "the child dies with its process");
}

/// A task that its parent left behind.
struct Spawned(Pin<Box<dyn Future<Output = Result<(), Killed>>>>);

async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
