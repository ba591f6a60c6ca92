//! What follows from an order, a result, a probe or the clock.

use super::{
    Device, Effect, Event, Input, Slots, Verdict,
    state::{Phase, digest},
};
use crate::{
    fault::{Expiry, Fault, Misbehaviour},
    machine::{Cx, Decision, Machine},
    release::ReleaseRef,
    rollout::{Assignment, Refusal, Step},
    time::Timestamp,
};

type Next = Decision<Event, Effect>;

impl Machine for Slots {
    type Input = Input;
    type Event = Event;
    type Effect = Effect;

    fn decide(&self, cx: &mut Cx<'_>, input: Input) -> Result<Next, Fault> {
        let now = cx.now;
        Ok(match input {
            Input::Assigned(assignment) => return self.assigned(assignment, now),
            Input::Inspected { job, device } if self.awaits(job, Step::Preflight) => match self.preflight(&device) {
                Ok(()) => self.then(Event::Passed { step: Step::Preflight, at: now }),
                Err(why) => self.then(Event::Refused { why }),
            },
            Input::Passed { job, step } if step < Step::Exchange && step != Step::Preflight && self.awaits(job, step) => {
                self.then(Event::Passed { step, at: now })
            }
            Input::Failed { job, step, why } if job == self.job => self.failed(step, why, now),
            Input::Exchanged { job, to } if job == self.job => match &self.phase {
                Phase::Installing { step: Step::Exchange, .. } if to == digest(self.target.as_ref()) => {
                    self.then(Event::Exchanged { at: now })
                }
                Phase::Reverting { .. } if to == digest(self.committed.as_ref()) => self.then(Event::Reverted { at: now }),
                Phase::Withdrawing { .. } if to.is_none() => self.then(Event::Withdrawn),
                _ => Next::nothing(),
            },
            Input::Healthy { running } if Some(running) == self.live => match &self.phase {
                Phase::Trial { until, .. } if now >= *until => self.then(Event::Committed),
                Phase::Trial { probed: false, .. } => Next::nothing().event(Event::Probed),
                Phase::Trial { .. } => Next::nothing(),
                _ if self.ailing.is_some() => self.told(Event::Recovered),
                _ => Next::nothing(),
            },
            Input::Unhealthy { running, why } if Some(running) == self.live => match &self.phase {
                Phase::Trial { .. } => self.fall_back(why, now),
                _ if self.ailing.is_none() => self.told(Event::Ailing { why }),
                _ => Next::nothing(),
            },
            Input::Restarted if matches!(self.phase, Phase::Trial { .. }) => self.restarted(now),
            Input::Reconnected => Next::nothing().effect(Effect::Report(self.status())),
            Input::Tick => self.tick(now),
            // The answer of an abandoned job, or said twice.
            Input::Inspected { .. }
            | Input::Passed { .. }
            | Input::Failed { .. }
            | Input::Exchanged { .. }
            | Input::Healthy { .. }
            | Input::Unhealthy { .. }
            | Input::Restarted => Next::nothing(),
        })
    }

    fn apply(self, event: &Event) -> Self {
        self.moved(event)
    }

    /// Asks for the step under way again and lets the right release answer. Where the newcomer itself may have brought the
    /// process down, the restart is counted.
    fn recover(&self, cx: &mut Cx<'_>) -> Next {
        let next = match &self.phase {
            Phase::Installing { .. } | Phase::Trial { .. } => self.restarted(cx.now),
            Phase::Reverting { .. } | Phase::Withdrawing { .. } => self.then(Event::Retried { at: cx.now }),
            Phase::Settled(_) => Next::nothing().effect(Effect::Report(self.status())).effect(Effect::Prune { keep: self.keep() }),
        };
        let serving = match &self.phase {
            Phase::Settled(_) => self.committed.as_ref(),
            Phase::Installing { step, .. } if *step < Step::Exchange => self.committed.as_ref(),
            Phase::Trial { .. } if !next.events.iter().any(|event| matches!(event, Event::Reverting { .. })) => self.target.as_ref(),
            // The step itself is an exchange.
            _ => return next,
        };
        let serve = Effect::Exchange { job: self.job, to: serving.cloned() };
        Next { events: next.events, effects: std::iter::once(serve).chain(next.effects).collect() }
    }

    fn deadline(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Settled(_) => None,
            Phase::Installing { deadline, .. } | Phase::Reverting { deadline, .. } | Phase::Withdrawing { deadline } => Some(deadline),
            Phase::Trial { until, .. } => Some(until),
        }
    }
}

impl Slots {
    fn assigned(&self, assignment: Assignment, at: Timestamp) -> Result<Next, Fault> {
        if assignment.version < self.seen {
            return Err(Expiry::Assignment { version: assignment.version, seen: self.seen }.into());
        }
        if assignment.version == self.seen {
            if assignment.release != self.target {
                let why = format!("version {} was given to another release before", assignment.version);
                return Err(Misbehaviour::Malformed { what: "the assignment", why }.into());
            }
            return Ok(Next::nothing().effect(Effect::Report(self.status())));
        }
        Ok(self.then(Event::Assigned { assignment, at }))
    }

    /// R63, R46, R111: before any byte is fetched.
    fn preflight(&self, device: &Device) -> Result<(), Refusal> {
        let Some(release) = &self.target else { return Ok(()) };
        if release.class != device.class {
            return Err(Refusal::DeviceClass { release: release.class.clone(), device: device.class.clone() });
        }
        if device.runtime.is_none_or(|has| has < release.min_runtime) {
            return Err(Refusal::Runtime { needs: release.min_runtime, has: device.runtime });
        }
        let sizes = [release.bundle_bytes, release.unpacked_bytes, release.manifest_bytes, self.policy.reserve];
        let needs = sizes.into_iter().fold(0, u64::saturating_add);
        if !self.holds(release.bundle) && device.free_bytes < needs {
            return Err(Refusal::Space { needs, has: device.free_bytes });
        }
        Ok(())
    }

    fn failed(&self, step: Step, why: String, at: Timestamp) -> Next {
        match &self.phase {
            Phase::Installing { step: current, .. } if *current == step => {
                self.then(Self::give_up(step, Refusal::Failed { step, why }, at))
            }
            // The newcomer was to answer again after a restart, and cannot.
            Phase::Trial { .. } if step == Step::Exchange => self.fall_back(why, at),
            // R36: the committed release itself cannot be loaded. Its predecessor was committed once, too.
            Phase::Settled(_) | Phase::Reverting { .. } if step == Step::Exchange && self.previous.is_some() => {
                self.then(Event::Demoted { why, at })
            }
            Phase::Settled(_) | Phase::Installing { .. } if step == Step::Exchange && self.ailing.is_none() => {
                self.told(Event::Ailing { why })
            }
            // An exchange that must succeed is tried again at the deadline.
            _ => Next::nothing(),
        }
    }

    fn fall_back(&self, why: String, at: Timestamp) -> Next {
        self.then(Event::Reverting { verdict: Some(Verdict::FellBack { why }), at })
    }

    fn restarted(&self, at: Timestamp) -> Next {
        let forgiven = self.policy.restarts;
        match &self.phase {
            Phase::Installing { step, restarts, .. } if *step >= Step::Smoke && *restarts >= forgiven => {
                self.then(Self::give_up(*step, Refusal::Restarts { step: *step, restarts: restarts.saturating_add(1) }, at))
            }
            Phase::Trial { restarts, .. } if *restarts >= forgiven => {
                self.fall_back(format!("the node restarted {} times while it was on trial", restarts.saturating_add(1)), at)
            }
            _ => self.then(Event::Restarted { at }),
        }
    }

    fn tick(&self, now: Timestamp) -> Next {
        match &self.phase {
            Phase::Installing { step, deadline, .. } if now >= *deadline => {
                self.then(Self::give_up(*step, Refusal::Timeout { step: *step }, now))
            }
            Phase::Trial { until, probed: true, .. } if now >= *until => self.then(Event::Committed),
            Phase::Trial { until, .. } if now >= *until => self.fall_back("it gave no healthy answer during its trial".into(), now),
            Phase::Reverting { deadline, .. } | Phase::Withdrawing { deadline } if now >= *deadline => {
                self.then(Event::Retried { at: now })
            }
            _ => Next::nothing(),
        }
    }

    fn awaits(&self, job: u64, step: Step) -> bool {
        job == self.job && matches!(&self.phase, Phase::Installing { step: current, .. } if *current == step)
    }

    /// A fact that changes only what the coordinator is told.
    fn told(&self, event: Event) -> Next {
        let after = self.clone().apply(&event);
        Next::nothing().event(event).effect(Effect::Report(after.status()))
    }

    /// A fact, what the coordinator is told, and what is done next.
    fn then(&self, event: Event) -> Next {
        let after = self.clone().apply(&event);
        let next = Next::nothing().event(event).effect(Effect::Report(after.status()));
        match after.ask() {
            Some(effect) => next.effect(effect),
            None => next.effect(Effect::Prune { keep: after.keep() }),
        }
    }

    /// What the state waits for.
    fn ask(&self) -> Option<Effect> {
        let job = self.job;
        match &self.phase {
            Phase::Settled(_) => None,
            Phase::Installing { step, .. } => {
                let release: ReleaseRef = self.target.clone()?;
                Some(match step {
                    Step::Preflight => Effect::Preflight { job },
                    Step::Download => Effect::Download { job, release },
                    Step::Verify => Effect::Verify { job, release },
                    Step::Stage => Effect::Stage { job, release },
                    Step::Smoke => Effect::SmokeTest { job, release },
                    Step::Exchange | Step::Trial | Step::Revert => Effect::Exchange { job, to: Some(release) },
                })
            }
            Phase::Trial { until, .. } => Some(Effect::Watch { until: *until }),
            Phase::Reverting { .. } => Some(Effect::Exchange { job, to: self.committed.clone() }),
            Phase::Withdrawing { .. } => Some(Effect::Exchange { job, to: None }),
        }
    }
}
