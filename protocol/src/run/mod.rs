//! A run: rounds one after the other, their evaluation beside them, and what becomes of the result.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Created: submitted
//!     Created --> Selecting: Start
//!     state "one round, see `round`" as round {
//!         Selecting --> Collecting: AttemptOpened, in clear
//!         Selecting --> Exchanging: AttemptOpened, keys
//!         Exchanging --> Exchanging: StageClosed, shares
//!         Exchanging --> Collecting: StageClosed
//!         Collecting --> Exchanging: StageClosed, consistency and unmasking
//!         Exchanging --> Committing: StageClosed
//!         Collecting --> Committing: CollectionClosed, in clear
//!         Exchanging --> Selecting: AttemptAborted
//!         Collecting --> Selecting: AttemptAborted
//!         Committing --> Selecting: AttemptAborted
//!     }
//!     Committing --> Selecting: RoundCommitted, rounds left
//!     Committing --> Finished: RoundCommitted, TrainingFinished
//!     Finished --> Released: CandidateReleased
//!     Finished --> Refused: CandidateRefused
//!     round --> Failed: too many attempts
//!     Finished --> Failed: the candidate cannot be built
//! ```
//!
//! The global model is scored while the next round already runs; the candidate waits for the last score. Anything that is
//! not over can be stopped. With `release.auto = false` a run ends in Finished.
//!
//! A [`Run`] is a fold of its [`Event`]s. It is created with the first of them, [`Event::Created`].

mod event;
mod history;
mod look;
mod message;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use event::{Created, Event};
pub use history::RoundRecord;
pub use look::RunState;
pub use message::{CandidateOutcome, Cost, Effect, EvaluationRecord, Failure, Input, Refused, Released};

use sapwood_privacy::dp::Plan;

use crate::{
    digest::Digest,
    fault::{Expiry, Fault, Misuse},
    machine::{Cx, Decision, Machine},
    round::{
        self, AbortReason, DropReason, EncodingTerms, NoiseTerms, Stage, Terms, Totals,
        attempts::Attempts,
        collecting::{Collecting, Course},
        committing::Committing,
        exchanging::{Exchanging, Next, left_behind},
        selecting::{Selecting, Selection, announce},
    },
    time::Timestamp,
};

type Verdict = Decision<Event, Effect>;

/// A federated run as a state machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    created: Box<Created>,
    /// What its budget comes to; none without one.
    plan: Option<Box<Plan>>,
    /// What its sums were charged, and how many those were.
    spent: Cost,
    sums: u32,
    /// The clip norm of the next round.
    clip: f64,
    phase: Phase,
    /// The global parameters.
    params: Digest,
    /// Committed rounds, in order.
    rounds: Vec<RoundRecord>,
    /// Scores that are due: round and parameters.
    unscored: BTreeMap<u32, Digest>,
}

/// Where a run is.
#[derive(Clone, Debug, PartialEq)]
enum Phase {
    Created,
    Selecting(Selecting),
    /// A stage of the secure sum.
    Exchanging(Exchanging),
    Collecting(Collecting),
    Committing(Committing),
    /// All rounds are done; scores or the candidate may be missing.
    Finished,
    Released(Released),
    Refused(Refused),
    Stopped {
        by: String,
    },
    Failed {
        why: Failure,
    },
}

impl Run {
    /// The run that begins so. [`Event::Created`] with the content of [`Run::created`] is the first event of its stream.
    ///
    /// # Errors
    /// If the model has nothing to train, or its updates cannot be laid on the grid.
    pub fn create(mut created: Created) -> Result<Self, Fault> {
        if created.length == 0 {
            let why = "no initializer of the model is left to train".to_owned();
            return Err(Misuse::Setting { key: "model.freeze".into(), why }.into());
        }
        let plan = if created.spec.is_private() {
            round::adaptive(&created.spec)?;
            let noise = match &created.noise {
                Some(noise) => noise,
                None => created.noise.insert(NoiseTerms::of(&created.spec, &round::plan(&created.spec, created.length)?)),
            };
            Some(Box::new(noise.plan(&created.spec)?))
        } else {
            EncodingTerms::of(&created.spec).encoding()?;
            None
        };
        let (params, clip) = (created.params, created.spec.privacy.clip);
        let (rounds, unscored) = (Vec::new(), BTreeMap::new());
        Ok(Self {
            created: Box::new(created),
            plan,
            spent: Cost::default(),
            sums: 0,
            clip,
            phase: Phase::Created,
            params,
            rounds,
            unscored,
        })
    }

    /// The run that these events tell of.
    ///
    /// # Errors
    /// If the first one is not [`Event::Created`], or as [`Run::create`].
    pub fn replay<'a>(events: impl IntoIterator<Item = &'a Event>) -> Result<Self, Fault> {
        let mut events = events.into_iter();
        let Some(Event::Created(created)) = events.next() else {
            return Err(Misuse::State { what: "a run's events".into(), why: "the first one is not `created`".into() }.into());
        };
        Ok(events.fold(Self::create((**created).clone())?, Machine::apply))
    }

    /// How it began.
    pub fn created(&self) -> &Created {
        &self.created
    }

    /// The global parameters: of the last committed round, or the initial ones.
    pub fn params(&self) -> Digest {
        self.params
    }

    /// Committed rounds, in order.
    pub fn rounds(&self) -> &[RoundRecord] {
        &self.rounds
    }

    /// What its privacy budget comes to; none without one.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_deref()
    }

    /// What its sums were charged so far, and how many those were.
    pub fn spent(&self) -> (Cost, u32) {
        (self.spent, self.sums)
    }

    /// The terms of the open attempt.
    pub fn terms(&self) -> Option<&Terms> {
        self.attempt_at_hand().map(|(_, terms, _)| terms)
    }

    /// The stage of the secure sum that nodes are waited for in.
    pub fn stage(&self) -> Option<Stage> {
        match &self.phase {
            Phase::Exchanging(exchanging) => Some(exchanging.stage),
            Phase::Collecting(collecting) => collecting.terms.secure.map(|_| Stage::Inputs),
            _ => None,
        }
    }

    fn attempt_at_hand(&self) -> Option<(&Attempts, &Terms, &BTreeMap<crate::NodeId, DropReason>)> {
        match &self.phase {
            Phase::Exchanging(Exchanging { attempts, terms, dropped, .. })
            | Phase::Collecting(Collecting { attempts, terms, dropped, .. })
            | Phase::Committing(Committing { attempts, terms, dropped, .. }) => Some((attempts, terms, dropped)),
            _ => None,
        }
    }

    /// Whether nothing will happen any more.
    pub fn is_over(&self) -> bool {
        match &self.phase {
            Phase::Finished => !self.created.spec.release.auto && self.unscored.is_empty(),
            Phase::Released(_) | Phase::Refused(_) | Phase::Stopped { .. } | Phase::Failed { .. } => true,
            Phase::Created | Phase::Selecting(_) | Phase::Exchanging(_) | Phase::Collecting(_) | Phase::Committing(_) => false,
        }
    }

    /// Parameters that the shell must keep: the current ones, and those that wait to be scored.
    pub fn needed(&self) -> impl Iterator<Item = Digest> + '_ {
        [self.created.params, self.params].into_iter().chain(self.unscored.values().copied())
    }

    /// Ends an attempt that came to nothing; the run fails if the round has no attempts left.
    fn abort(&self, cx: &Cx<'_>, mut verdict: Verdict, reason: AbortReason) -> Verdict {
        let attempts = match (&self.phase, self.attempt_at_hand()) {
            (Phase::Selecting(selecting), _) => &selecting.attempts,
            (_, Some((attempts, ..))) => attempts,
            _ => return verdict,
        };
        let failed = attempts.failed + u32::from(reason.counts());
        let last = failed >= self.created.spec.deadlines.attempts && reason.counts();
        verdict.events.push(Event::AttemptAborted { reason: reason.clone(), at: cx.now });
        verdict.effects.extend(self.withdraw(!last));
        if last {
            let why = Failure::Attempts { round: attempts.round, attempts: failed, last: reason };
            verdict.event(Event::Failed { why, at: cx.now })
        } else {
            verdict.effect(Effect::AskRoster)
        }
    }

    /// Calls the open attempt off.
    fn withdraw(&self, keep: bool) -> Vec<Effect> {
        let Some((_, terms, dropped)) = self.attempt_at_hand() else { return Vec::new() };
        let session = terms.session;
        let involved = terms.cohort.iter().filter(|node| !dropped.contains_key(*node));
        let mut effects = vec![Effect::Discard { session }];
        effects.extend(involved.map(|node| Effect::Withdraw { node: node.clone(), session, keep }));
        effects
    }

    /// Goes on after something happened to the open attempt.
    fn follow(&self, cx: &Cx<'_>, collecting: &Collecting, verdict: Verdict, course: Course) -> Result<Verdict, Fault> {
        let overdue = cx.now >= collecting.deadline;
        Ok(match course {
            Course::Wait => verdict,
            Course::Close => return collecting.close(verdict, self.created.spec.strategy.server_lr, overdue),
            Course::Abort(reason) => {
                let mut verdict = verdict;
                if overdue {
                    let late = collecting.involved().filter(|node| !collecting.updates.contains_key(*node));
                    verdict.events.extend(late.map(|node| Event::NodeDropped { node: node.clone(), reason: DropReason::Straggler }));
                }
                self.abort(cx, verdict, reason)
            }
        })
    }

    fn roster(&self, cx: &mut Cx<'_>, roster: Vec<crate::NodeId>) -> Result<Verdict, Fault> {
        let Phase::Selecting(selecting) = &self.phase else { return Ok(Decision::nothing()) };
        let noise = self.created.noise.as_ref().map(|noise| NoiseTerms { clip: self.clip, ..noise.clone() });
        Ok(match selecting.roster(cx, &self.created, noise.as_ref(), self.params, roster)? {
            Selection::Wait => Decision::nothing(),
            Selection::Open(verdict) => verdict,
            Selection::Abort(reason) => self.abort(cx, Decision::nothing(), reason),
        })
    }

    /// A stage of the secure sum is closed, here with these.
    fn stage_closed(&self, cx: &Cx<'_>, session: crate::SessionId, stage: Stage, members: Vec<crate::NodeId>) -> Result<Verdict, Fault> {
        if self.stage() != Some(stage) || self.terms().is_none_or(|terms| terms.session != session) {
            return Err(Expiry::Session.into());
        }
        let Some((_, terms, dropped)) = self.attempt_at_hand() else { return Err(Expiry::Session.into()) };
        let closed = |members| Event::StageClosed { stage, members, at: cx.now };
        Ok(match stage {
            Stage::Keys | Stage::Shares | Stage::Inputs => {
                let late = self.deadline().is_some_and(|deadline| cx.now >= deadline);
                let reason = if late || stage != Stage::Keys { DropReason::Straggler } else { DropReason::Surplus };
                left_behind(terms, dropped, &members, &reason).event(closed(members))
            }
            // The ledger first: what follows reveals the sum.
            Stage::Consistency => match self.sum_cost(terms)? {
                Some(cost) => Decision::nothing().effect(Effect::Charge { session, cost, members }),
                None => Decision::nothing().event(closed(members)),
            },
            Stage::Unmasking => {
                let Phase::Exchanging(exchanging) = &self.phase else { return Err(Expiry::Session.into()) };
                Decision::nothing().event(closed(members)).effect(Effect::Aggregate {
                    terms: exchanging.terms.clone(),
                    server_lr: self.created.spec.strategy.server_lr,
                    survivors: exchanging.updates.keys().cloned().collect(),
                })
            }
        })
    }

    fn sum_cost(&self, terms: &Terms) -> Result<Option<Cost>, Fault> {
        match &self.phase {
            Phase::Exchanging(exchanging) => terms.cost(exchanging.updates.len()),
            _ => Ok(None),
        }
    }

    /// The session is paid for.
    fn charged(&self, cx: &Cx<'_>, session: crate::SessionId, members: Vec<crate::NodeId>) -> Result<Verdict, Fault> {
        let Some((_, terms, _)) = self.attempt_at_hand().filter(|(_, terms, _)| terms.session == session) else {
            return Err(Expiry::Session.into());
        };
        Ok(match &self.phase {
            Phase::Exchanging(Exchanging { stage: Stage::Consistency, updates, .. }) => match terms.cost(updates.len())? {
                Some(cost) => {
                    let closed = Event::StageClosed { stage: Stage::Consistency, members, at: cx.now };
                    Decision::nothing().event(Event::Charged { session, cost }).event(closed)
                }
                None => return Err(Expiry::Session.into()),
            },
            Phase::Committing(Committing { terms, updates, .. }) => match terms.cost(updates.len())? {
                Some(cost) => Decision::nothing().event(Event::Charged { session, cost }).effect(Effect::Aggregate {
                    terms: terms.clone(),
                    server_lr: self.created.spec.strategy.server_lr,
                    survivors: members,
                }),
                None => return Err(Expiry::Session.into()),
            },
            _ => return Err(Expiry::Session.into()),
        })
    }

    fn aggregated(&self, cx: &Cx<'_>, session: crate::SessionId, params: Digest, totals: Totals) -> Result<Verdict, Fault> {
        let Phase::Committing(committing) = &self.phase else { return Err(Expiry::Session.into()) };
        committing.aggregated(session, &totals)?;
        let round = committing.terms.round;
        let (at, rounds) = (cx.now, self.created.spec.train.rounds);
        let mut verdict = Decision::nothing().event(Event::RoundCommitted { round, session, params, totals, at });
        // The round is decided: nothing of its updates is needed any more, here or there.
        verdict.effects = self.withdraw(false);
        if self.is_scored(round) {
            verdict = verdict.effect(Effect::Evaluate { round, params });
        }
        if round < rounds {
            return Ok(verdict.effect(Effect::AskRoster));
        }
        let verdict = verdict.event(Event::TrainingFinished { params, at });
        let waits = !self.unscored.is_empty() || self.is_scored(round);
        Ok(if waits || !self.created.spec.release.auto { verdict } else { verdict.effect(Effect::BuildCandidate { params }) })
    }

    fn is_scored(&self, round: u32) -> bool {
        let evaluate = &self.created.spec.evaluate;
        evaluate.data.is_some() && (round.is_multiple_of(evaluate.every.max(1)) || round >= self.created.spec.train.rounds)
    }

    fn evaluated(&self, round: u32, evaluation: EvaluationRecord) -> Result<Verdict, Fault> {
        if !self.unscored.contains_key(&round) {
            let known = self.rounds.iter().any(|record| record.round == round && record.evaluation.is_some());
            // Scoring twice gives the same score: the second answer is not news.
            return if known || self.is_over() { Ok(Decision::nothing()) } else { Err(refuse("an evaluation", "it was not asked for")) };
        }
        let verdict = Decision::nothing().event(Event::Evaluated { round, evaluation });
        let last = matches!(self.phase, Phase::Finished) && self.unscored.len() == 1;
        let auto = self.created.spec.release.auto;
        Ok(if last && auto { verdict.effect(Effect::BuildCandidate { params: self.params }) } else { verdict })
    }

    fn candidate(&self, cx: &Cx<'_>, outcome: CandidateOutcome) -> Result<Verdict, Fault> {
        match (&self.phase, outcome) {
            (Phase::Finished, CandidateOutcome::Released(released)) => Ok(Decision::nothing().event(Event::CandidateReleased(released))),
            (Phase::Finished, CandidateOutcome::Refused(refused)) => Ok(Decision::nothing().event(Event::CandidateRefused(refused))),
            (Phase::Finished, CandidateOutcome::Failed { why }) => Ok(self.fail(cx, Failure::Candidate { why })),
            // Built twice after a crash; building is reproducible.
            (Phase::Released(known), CandidateOutcome::Released(again)) if *known == again => Ok(Decision::nothing()),
            (Phase::Refused(_), CandidateOutcome::Refused(_)) => Ok(Decision::nothing()),
            _ => Err(refuse("a candidate", "the run does not wait for one")),
        }
    }

    fn stop(&self, cx: &Cx<'_>, by: String) -> Result<Verdict, Fault> {
        if matches!(self.phase, Phase::Stopped { .. }) {
            return Ok(Decision::nothing());
        }
        if self.is_over() {
            return Err(refuse("the run", "it is over, there is nothing to stop"));
        }
        let mut verdict = Decision::nothing().event(Event::Stopped { by, at: cx.now });
        verdict.effects = self.withdraw(false);
        Ok(verdict)
    }

    fn fail(&self, cx: &Cx<'_>, why: Failure) -> Verdict {
        if self.is_over() {
            return Decision::nothing();
        }
        let mut verdict = Decision::nothing().event(Event::Failed { why, at: cx.now });
        verdict.effects = self.withdraw(false);
        verdict
    }
}

fn refuse(what: &str, why: &str) -> Fault {
    Misuse::State { what: what.into(), why: why.into() }.into()
}

impl Machine for Run {
    type Input = Input;
    type Event = Event;
    type Effect = Effect;

    fn decide(&self, cx: &mut Cx<'_>, input: Input) -> Result<Verdict, Fault> {
        match input {
            Input::Start => Ok(match self.phase {
                Phase::Created => Decision::nothing().event(Event::Started { at: cx.now }).effect(Effect::AskRoster),
                _ => Decision::nothing(),
            }),
            Input::Tick => Ok(match &self.phase {
                Phase::Selecting(selecting) if cx.now >= selecting.deadline(&self.created) => Decision::nothing().effect(Effect::AskRoster),
                Phase::Exchanging(exchanging) => exchanging.tick(cx),
                Phase::Collecting(collecting) => self.follow(cx, collecting, Decision::nothing(), collecting.tick(cx))?,
                _ => Decision::nothing(),
            }),
            Input::Roster(roster) => self.roster(cx, roster),
            Input::Update { node, session, digest, bytes } => match &self.phase {
                Phase::Collecting(collecting) => {
                    let (verdict, course) = collecting.update(cx, node, session, digest, bytes)?;
                    self.follow(cx, collecting, verdict, course)
                }
                Phase::Committing(committing) => committing.update(node, session, digest),
                _ => Err(Expiry::Session.into()),
            },
            Input::Declined { node, session, reason } => match &self.phase {
                Phase::Collecting(collecting) => {
                    let (verdict, course) = collecting.declined(node, session, reason)?;
                    self.follow(cx, collecting, verdict, course)
                }
                Phase::Exchanging(exchanging) => exchanging.declined(node, session, reason),
                _ => Err(Expiry::Session.into()),
            },
            Input::StageComplete { session, stage } => match &self.phase {
                Phase::Exchanging(exchanging) if exchanging.stage == stage && exchanging.terms.session == session => Ok(exchanging.end()),
                _ => Ok(Decision::nothing()),
            },
            Input::StageClosed { session, stage, members } => self.stage_closed(cx, session, stage, members),
            Input::StageFailed { session, why } => match self.terms() {
                Some(terms) if terms.session == session => {
                    // In clear only the charge can fail.
                    let stage = self.stage().map_or("the privacy ledger's charge", Stage::word).into();
                    Ok(self.abort(cx, Decision::nothing(), AbortReason::SecureSum { stage, why }))
                }
                _ => Err(Expiry::Session.into()),
            },
            Input::Charged { session, members } => self.charged(cx, session, members),
            Input::ChargeRefused { session, why } => match self.terms() {
                Some(terms) if terms.session == session => Ok(self.fail(cx, Failure::Budget { why })),
                _ => Err(Expiry::Session.into()),
            },
            Input::Aggregated { session, params, totals } => self.aggregated(cx, session, params, totals),
            Input::AggregateFailed { session, why } => match &self.phase {
                Phase::Committing(committing) if committing.terms.session == session => {
                    Ok(self.abort(cx, Decision::nothing(), AbortReason::BadSum { why }))
                }
                _ => Err(Expiry::Session.into()),
            },
            Input::Evaluated { round, evaluation } => self.evaluated(round, evaluation),
            Input::Candidate(outcome) => self.candidate(cx, outcome),
            Input::Stop { by } => self.stop(cx, by),
            Input::Broken { why } => Ok(self.fail(cx, Failure::Broken { why })),
        }
    }

    fn apply(mut self, event: &Event) -> Self {
        self.phase = match (self.phase, event) {
            (Phase::Created, Event::Started { at }) => Phase::Selecting(Selecting::new(Attempts::new(1, *at), *at)),
            (Phase::Selecting(Selecting { attempts, .. }), Event::AttemptOpened(terms)) => match terms.secure {
                Some(_) => Phase::Exchanging(Exchanging::open(attempts, terms.clone())),
                None => Phase::Collecting(Collecting::new(attempts, terms.clone())),
            },
            (Phase::Exchanging(exchanging), Event::NodeDropped { node, reason }) => Phase::Exchanging(exchanging.drop(node, reason)),
            (Phase::Exchanging(exchanging), Event::StageClosed { members, at, .. }) => exchanging.next(members, *at).into(),
            (Phase::Collecting(collecting), Event::StageClosed { members, at, .. }) => {
                Phase::Exchanging(Exchanging::check(collecting, members, *at))
            }
            (Phase::Collecting(collecting), Event::UpdateAccepted { node, digest, bytes }) => {
                Phase::Collecting(collecting.accepted(node, *digest, *bytes))
            }
            (Phase::Collecting(collecting), Event::NodeDropped { node, reason }) => Phase::Collecting(collecting.drop(node, reason)),
            (Phase::Collecting(collecting), Event::CollectionClosed { .. }) => Phase::Committing(collecting.into()),
            (phase, Event::AttemptAborted { reason, at }) => aborted(phase, reason, *at),
            (Phase::Committing(committing), Event::RoundCommitted { round, params, totals, at, .. }) => {
                self.params = *params;
                if let (Ok(Some(adaptive)), Some(mean)) = (round::adaptive(&self.created.spec), totals.within_clip) {
                    self.clip = adaptive.next(self.clip, mean);
                }
                self.rounds.push(RoundRecord::new(committing, *params, totals.clone(), *at));
                Phase::Selecting(Selecting::new(Attempts::new(round + 1, *at), *at))
            }
            (_, Event::TrainingFinished { .. }) => Phase::Finished,
            (_, Event::CandidateReleased(released)) => Phase::Released(released.clone()),
            (_, Event::CandidateRefused(refused)) => Phase::Refused(refused.clone()),
            (_, Event::Stopped { by, .. }) => Phase::Stopped { by: by.clone() },
            (_, Event::Failed { why, .. }) => Phase::Failed { why: why.clone() },
            (phase, _) => phase,
        };
        match event {
            Event::RoundCommitted { round, params, .. } if self.is_scored(*round) => {
                self.unscored.insert(*round, *params);
            }
            Event::Evaluated { round, evaluation } => {
                self.unscored.remove(round);
                if let Some(record) = self.rounds.iter_mut().find(|record| record.round == *round) {
                    record.evaluation = Some(*evaluation);
                }
            }
            Event::Charged { cost, .. } => {
                self.spent = self.spent.plus(*cost);
                self.sums += 1;
            }
            Event::Stopped { .. } | Event::Failed { .. } => self.unscored.clear(),
            _ => {}
        }
        self
    }

    fn recover(&self, cx: &mut Cx<'_>) -> Verdict {
        let mut verdict = match &self.phase {
            Phase::Created => Decision::nothing().event(Event::Started { at: cx.now }).effect(Effect::AskRoster),
            // The time to come together begins anew: nobody could connect while the coordinator was away.
            Phase::Selecting(_) => self.abort(cx, Decision::nothing(), AbortReason::CoordinatorRestarted),
            // Nothing had arrived, so nothing is lost: the attempt goes on under the same terms.
            Phase::Collecting(collecting)
                if collecting.terms.secure.is_none() && collecting.updates.is_empty() && cx.now < collecting.deadline =>
            {
                announce(&collecting.terms, |node| !collecting.dropped.contains_key(node))
            }
            Phase::Exchanging(_) | Phase::Collecting(_) | Phase::Committing(_) => {
                self.abort(cx, Decision::nothing(), AbortReason::CoordinatorRestarted)
            }
            Phase::Finished if self.unscored.is_empty() && self.created.spec.release.auto => {
                Decision::nothing().effect(Effect::BuildCandidate { params: self.params })
            }
            _ => Decision::nothing(),
        };
        verdict.effects.extend(self.unscored.iter().map(|(round, params)| Effect::Evaluate { round: *round, params: *params }));
        verdict
    }

    fn deadline(&self) -> Option<Timestamp> {
        match &self.phase {
            Phase::Selecting(selecting) => Some(selecting.deadline(&self.created)),
            Phase::Exchanging(exchanging) => Some(exchanging.deadline),
            Phase::Collecting(collecting) => Some(collecting.deadline),
            _ => None,
        }
    }
}

impl From<Next> for Phase {
    fn from(next: Next) -> Self {
        match next {
            Next::Exchanging(exchanging) => Self::Exchanging(exchanging),
            Next::Collecting(collecting) => Self::Collecting(collecting),
            Next::Committing(exchanging) => Self::Committing(exchanging.into()),
        }
    }
}

/// Back to selecting. After a restart those who had a part are waited for: they keep what they trained.
fn aborted(phase: Phase, reason: &AbortReason, at: Timestamp) -> Phase {
    let mut least = 0;
    let (attempts, pinned) = match phase {
        Phase::Selecting(selecting) => (selecting.attempts, selecting.pinned),
        Phase::Exchanging(exchanging) => {
            // Fewer could not be summed securely.
            least = exchanging.terms.minimum as usize;
            let Exchanging { attempts, terms, dropped, .. } = exchanging;
            let involved = terms.cohort.iter().filter(|node| !dropped.contains_key(*node)).cloned().collect();
            (attempts, involved)
        }
        Phase::Collecting(collecting) => {
            least = if collecting.terms.secure.is_some() { collecting.terms.minimum as usize } else { 0 };
            let involved = collecting.involved().cloned().collect();
            (collecting.attempts, involved)
        }
        Phase::Committing(committing) => (committing.attempts, committing.updates.into_keys().collect()),
        other => return other,
    };
    let mut selecting = Selecting::new(attempts.aborted(reason), at);
    if *reason == AbortReason::CoordinatorRestarted && pinned.len() >= least {
        selecting.pinned = pinned;
    }
    Phase::Selecting(selecting)
}
