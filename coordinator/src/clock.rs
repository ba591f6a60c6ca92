//! Wall time for what is stored, monotonic time for what is waited for.

use std::time::{Duration, SystemTime};

use sapwood_protocol::Timestamp;
use tokio::time::Instant;

/// Where the coordinator reads the time.
pub trait Clock: Send + Sync + 'static {
    /// Wall time now.
    fn now(&self) -> Timestamp;

    /// When the monotonic clock will show that wall time `at` has come, as far as can be told now.
    ///
    /// Whoever waits for it should look at [`Clock::now`] again afterwards: the wall clock may have been set.
    fn instant(&self, at: Timestamp) -> Instant {
        Instant::now() + at.since(self.now()).min(LONGEST)
    }
}

/// Nobody waits longer without looking at the wall clock again.
const LONGEST: Duration = Duration::from_secs(3600);

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A clock that shows a given time now and runs with tokio's, which a test may pause and turn.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    shown: Timestamp,
    at: Instant,
}

impl TokioClock {
    /// Shows `now` at this moment.
    pub fn showing(now: Timestamp) -> Self {
        Self { shown: now, at: Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.shown + self.at.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_turned_clock_reaches_its_deadlines() {
        let clock = TokioClock::showing(Timestamp::from_millis(1_000));
        let deadline = Timestamp::from_millis(6_000);
        tokio::time::sleep_until(clock.instant(deadline)).await;
        assert_eq!(clock.now(), deadline);
        assert_eq!(clock.instant(Timestamp::from_millis(5)), Instant::now(), "what is past is now");
    }
}
