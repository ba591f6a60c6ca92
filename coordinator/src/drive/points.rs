//! Where a test may kill the coordinator in a protocol: after the commit of each kind of event, and before what follows
//! from it is sent.

use sapwood_failpoint::Point;

/// The two points of one kind of event.
#[derive(Debug)]
pub struct Pair {
    /// The event's kind.
    pub kind: &'static str,
    /// Committed; nothing in memory has changed.
    pub after_commit: Point,
    /// Memory has changed; nobody was told.
    pub before_send: Point,
}

macro_rules! pairs {
    ($(#[$doc:meta])* $table:ident, $protocol:literal: $($kind:literal $words:literal,)*) => {
        $(#[$doc])*
        pub(super) const $table: &[Pair] = &[$(Pair {
            kind: $kind,
            after_commit: Point::new(concat!($protocol, ".after-commit.", $words)),
            before_send: Point::new(concat!($protocol, ".before-send.", $words)),
        }),*];
    };
}

pairs! {
    /// Of a run.
    RUN, "run":
    "created" "created",
    "started" "started",
    "attempt_opened" "attempt-opened",
    "update_accepted" "update-accepted",
    "node_dropped" "node-dropped",
    "collection_closed" "collection-closed",
    "stage_closed" "stage-closed",
    "charged" "charged",
    "attempt_aborted" "attempt-aborted",
    "round_committed" "round-committed",
    "evaluated" "evaluated",
    "training_finished" "training-finished",
    "candidate_released" "candidate-released",
    "candidate_refused" "candidate-refused",
    "stopped" "stopped",
    "failed" "failed",
}

pairs! {
    /// Of a rollout.
    ROLLOUT, "rollout":
    "created" "created",
    "started" "started",
    "ring_skipped" "ring-skipped",
    "ring_opened" "ring-opened",
    "node_confirmed" "node-confirmed",
    "node_failed" "node-failed",
    "ring_passed" "ring-passed",
    "ring_halted" "ring-halted",
    "node_reverted" "node-reverted",
    "reordered" "reordered",
    "caught_up" "caught-up",
    "completed" "completed",
    "rolled_back" "rolled-back",
    "halted_not_converged" "halted-not-converged",
    "aborted" "aborted",
    "superseded" "superseded",
}

pairs! {
    /// Of a privacy ledger.
    LEDGER, "ledger":
    "budgeted" "budgeted",
    "reserved" "reserved",
    "charged" "charged",
    "settled" "settled",
    "restored" "restored",
}

/// The points of `kind`.
pub(super) fn of(table: &'static [Pair], kind: &str) -> &'static Pair {
    table.iter().find(|pair| pair.kind == kind).expect("a test compares the tables with the protocols' kinds of events")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_event_has_its_points() {
        let kinds = [
            (RUN, sapwood_protocol::run::Event::KINDS),
            (ROLLOUT, sapwood_protocol::rollout::Event::KINDS),
            (LEDGER, sapwood_protocol::ledger::Event::KINDS),
        ];
        for (table, kinds) in kinds {
            let named: Vec<_> = table.iter().map(|pair| pair.kind).collect();
            assert_eq!(named, kinds);
            for pair in table {
                let words = pair.kind.replace('_', "-");
                assert!(pair.after_commit.name().ends_with(&words) && pair.before_send.name().ends_with(&words));
            }
        }
    }
}
