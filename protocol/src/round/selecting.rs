//! Selecting: wait until enough eligible nodes are connected, then draw a cohort from them.

use std::collections::BTreeSet;

use super::{AbortReason, EncodingTerms, NoiseTerms, SecureTerms, Task, Terms, TrainTerms, attempts::Attempts, select};
use crate::{
    digest::Digest,
    fault::Fault,
    ids::{NodeId, SessionId},
    machine::{Cx, Decision},
    run::{Created, Effect, Event},
    time::Timestamp,
};

/// No attempt is open; the next one waits for its cohort.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Selecting {
    pub(crate) attempts: Attempts,
    /// Since when.
    pub(crate) since: Timestamp,
    /// After a restart of the coordinator: who had a part in the lost attempt. They have trained already, so the attempt
    /// is repeated with exactly these if they come back in time.
    pub(crate) pinned: BTreeSet<NodeId>,
}

/// What follows from a roster.
pub(crate) enum Selection {
    /// Wait on.
    Wait,
    /// Go.
    Open(Decision<Event, Effect>),
    /// It is late, and there are too few.
    Abort(AbortReason),
}

impl Selecting {
    pub(crate) fn new(attempts: Attempts, since: Timestamp) -> Self {
        Self { attempts, since, pinned: BTreeSet::new() }
    }

    pub(crate) fn deadline(&self, created: &Created) -> Timestamp {
        self.since + created.spec.deadlines.select
    }

    /// Looks at who is there.
    pub(crate) fn roster(
        &self,
        cx: &mut Cx<'_>,
        created: &Created,
        noise: Option<&NoiseTerms>,
        params: Digest,
        roster: Vec<NodeId>,
    ) -> Result<Selection, Fault> {
        let eligible: BTreeSet<NodeId> = roster.into_iter().collect();
        let spec = &created.spec.cohort;
        // Not every size between the minimum and all that are asked has a threshold that is both private and reliable.
        let feasible = |n: usize| {
            let secure = created.spec.is_secure().then(|| SecureTerms::of(&created.spec));
            secure.map_or(Ok(()), |secure| secure.plan(u32::try_from(n).unwrap_or(u32::MAX), created.spec.cohort.minimum).map(drop))
        };
        let overdue = cx.now >= self.deadline(created);
        let (target, minimum) = (spec.asked() as usize, spec.minimum as usize);

        if !self.pinned.is_empty() && self.pinned.is_subset(&eligible) && feasible(self.pinned.len()).is_ok() {
            let cohort = self.pinned.iter().cloned().collect();
            return Ok(Selection::Open(self.open(cx, created, noise, params, cohort)?));
        }
        // Those who have trained for the lost attempt get the time to come back.
        let full = self.pinned.is_empty() && eligible.len() >= target;
        if full || (overdue && eligible.len() >= minimum) {
            // Of the sizes that there are nodes for, the largest that will do.
            let sizes = (minimum..=target.min(eligible.len())).rev();
            let Some(target) = sizes.into_iter().find(|n| feasible(*n).is_ok()) else {
                let why = feasible(eligible.len().min(target)).err().map(|fault| fault.to_string()).unwrap_or_default();
                return Ok(Selection::Abort(AbortReason::SecureSum { stage: "selection".into(), why }));
            };
            let (seed, round) = (created.spec.seed, self.attempts.round);
            let cohort = select::choose(&eligible, seed, round, target, &self.pinned, &self.attempts.unreliable);
            return Ok(Selection::Open(self.open(cx, created, noise, params, cohort)?));
        }
        if overdue {
            let have = u32::try_from(eligible.len()).unwrap_or(u32::MAX);
            return Ok(Selection::Abort(AbortReason::TooFewNodes { have, need: spec.minimum }));
        }
        Ok(Selection::Wait)
    }

    fn open(
        &self,
        cx: &mut Cx<'_>,
        created: &Created,
        noise: Option<&NoiseTerms>,
        params: Digest,
        cohort: Vec<NodeId>,
    ) -> Result<Decision<Event, Effect>, Fault> {
        let mut session = [0; 32];
        cx.secrets.fill(&mut session);
        let terms = Terms {
            run: created.run.clone(),
            round: self.attempts.round,
            attempt: self.attempts.opened + 1,
            session: SessionId::new(session),
            cohort,
            size: created.spec.cohort.size,
            minimum: created.spec.cohort.minimum,
            model: created.model,
            preprocess: created.preprocess,
            schema: created.schema,
            params,
            length: created.length,
            encoding: EncodingTerms::of(&created.spec),
            secure: created.spec.is_secure().then(|| SecureTerms::of(&created.spec)),
            noise: noise.cloned(),
            train: TrainTerms::of(&created.spec, self.attempts.round),
            opened: cx.now,
            deadline: cx.now + created.spec.deadlines.round,
        };
        terms.aggregation()?;
        terms.codec()?;
        Ok(announce(&terms, |_| true).event(Event::AttemptOpened(Box::new(terms))))
    }
}

/// Opens the accumulator and hands out the tasks; asked for again after a restart that lost nothing.
pub(crate) fn announce(terms: &Terms, member: impl Fn(&NodeId) -> bool) -> Decision<Event, Effect> {
    let task = Box::new(Task { terms: terms.clone() });
    let assign = |node: &NodeId| Effect::Assign { node: node.clone(), task: task.clone() };
    let mut decision = Decision::nothing().effect(Effect::Open(Box::new(terms.clone())));
    decision.effects.extend(terms.cohort.iter().filter(|node| member(node)).map(assign));
    decision
}
