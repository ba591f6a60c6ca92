//! The slots' state, and how facts move it.

use std::time::Duration;

use super::{Event, Verdict};
use crate::{
    digest::Digest,
    release::ReleaseRef,
    rollout::{Health, NodeStatus, Refusal, Step},
    time::Timestamp,
};

/// What a node's operator sets.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Longest download.
    pub download: Duration,
    /// Longest other step, and the pause before an exchange that must succeed is tried again.
    pub step: Duration,
    /// How long a newcomer must be healthy before it is committed.
    pub window: Duration,
    /// Restarts during one newcomer's smoke test, exchange and trial that are forgiven.
    pub restarts: u32,
    /// Bytes that must stay free on the disk.
    pub reserve: u64,
}

impl Default for Policy {
    fn default() -> Self {
        let (hour, second) = (Duration::from_secs(3600), Duration::from_secs(1));
        Self { download: 24 * hour, step: 120 * second, window: 30 * second, restarts: 3, reserve: 64 << 20 }
    }
}

/// A node's slots. Starts empty; every event is kept by the node.
#[derive(Clone, Debug, PartialEq)]
pub struct Slots {
    pub(super) policy: Policy,
    /// The newest assignment's version.
    pub(super) seen: u64,
    /// What it asks for.
    pub(super) target: Option<ReleaseRef>,
    /// The version of the assignment that began the work under way.
    pub(super) job: u64,
    pub(super) committed: Option<ReleaseRef>,
    pub(super) previous: Option<ReleaseRef>,
    /// What answers, by the last completed exchange.
    pub(super) live: Option<Digest>,
    /// What was last seen wrong with it.
    pub(super) ailing: Option<String>,
    pub(super) phase: Phase,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Phase {
    /// The committed release answers, if there is one.
    Settled(Verdict),
    /// A newcomer is on its way; the committed release answers. During `Step::Exchange` either of them may.
    Installing { step: Step, deadline: Timestamp, restarts: u32 },
    /// The newcomer answers; the committed release is the last known good.
    Trial { until: Timestamp, probed: bool, restarts: u32 },
    /// The committed release is being let back. Without a verdict, the target is taken up next.
    Reverting { verdict: Option<Verdict>, deadline: Timestamp },
    /// Nothing shall answer.
    Withdrawing { deadline: Timestamp },
}

impl Slots {
    /// Nothing assigned, nothing served.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            seen: 0,
            target: None,
            job: 0,
            committed: None,
            previous: None,
            live: None,
            ailing: None,
            phase: Phase::Settled(Verdict::Accepted),
        }
    }
    /// The state after `events`.
    pub fn replay<'a>(policy: Policy, events: impl IntoIterator<Item = &'a Event>) -> Self {
        use crate::machine::Machine;
        events.into_iter().fold(Self::new(policy), Self::apply)
    }
    /// The committed release: what the node falls back to while a newcomer is tried.
    pub fn committed(&self) -> Option<&ReleaseRef> {
        self.committed.as_ref()
    }
    /// The release committed before: what the node falls back to if the committed one cannot be loaded any more.
    pub fn last_known_good(&self) -> Option<&ReleaseRef> {
        self.previous.as_ref()
    }
    /// The bundle that answers, by the last completed exchange.
    pub fn running(&self) -> Option<Digest> {
        self.live
    }
    /// What to tell the coordinator.
    pub fn status(&self) -> NodeStatus {
        let health = match &self.phase {
            Phase::Settled(Verdict::Accepted) => match &self.ailing {
                None => Health::Healthy,
                Some(why) => Health::Unhealthy { why: why.clone() },
            },
            Phase::Settled(Verdict::Refused { why }) => Health::Refused { why: why.clone() },
            Phase::Settled(Verdict::FellBack { why }) => Health::Unhealthy { why: why.clone() },
            Phase::Installing { step, .. } => Health::Working { step: *step },
            Phase::Trial { .. } => Health::Working { step: Step::Trial },
            Phase::Reverting { .. } => Health::Working { step: Step::Revert },
            Phase::Withdrawing { .. } => Health::Working { step: Step::Exchange },
        };
        NodeStatus { assignment: self.seen, running: self.live, health }
    }

    /// Bundles that must stay on the disk of a settled node: what answers, and what may have to.
    pub(super) fn keep(&self) -> Vec<Digest> {
        let mut keep: Vec<Digest> = [&self.committed, &self.previous].into_iter().flatten().map(|release| release.bundle).collect();
        keep.sort_unstable();
        keep.dedup();
        keep
    }

    pub(super) fn holds(&self, bundle: Digest) -> bool {
        [&self.committed, &self.previous].into_iter().flatten().any(|release| release.bundle == bundle)
    }

    /// Takes up the target from a state in which the committed release answers.
    fn begin(mut self, at: Timestamp) -> Self {
        let bundle = digest(self.target.as_ref());
        self.phase = if bundle == digest(self.committed.as_ref()) {
            Phase::Settled(Verdict::Accepted)
        } else if bundle.is_none() {
            self.job = self.seen;
            Phase::Withdrawing { deadline: at + self.policy.step }
        } else {
            self.job = self.seen;
            Phase::Installing { step: Step::Preflight, deadline: at + self.policy.step, restarts: 0 }
        };
        self
    }

    pub(super) fn moved(mut self, event: &Event) -> Self {
        match event {
            Event::Assigned { assignment, at } => {
                let same = digest(assignment.release.as_ref()) == digest(self.target.as_ref());
                self.seen = assignment.version;
                self.target.clone_from(&assignment.release);
                match &self.phase {
                    Phase::Installing { .. } | Phase::Trial { .. } | Phase::Withdrawing { .. } if same => self,
                    Phase::Settled(_) => self.begin(*at),
                    Phase::Installing { step, .. } if *step < Step::Exchange => self.begin(*at),
                    Phase::Reverting { deadline, .. } => {
                        self.phase = Phase::Reverting { verdict: None, deadline: *deadline };
                        self
                    }
                    // What answers is not, or may not be, the committed release: first back to it.
                    Phase::Installing { .. } | Phase::Trial { .. } | Phase::Withdrawing { .. } => {
                        self.job = self.seen;
                        self.phase = Phase::Reverting { verdict: None, deadline: *at + self.policy.step };
                        self
                    }
                }
            }
            Event::Passed { step, at } => {
                let next = match step {
                    Step::Preflight => Step::Download,
                    Step::Download => Step::Verify,
                    Step::Verify => Step::Stage,
                    Step::Stage => Step::Smoke,
                    _ => Step::Exchange,
                };
                if let Phase::Installing { step, deadline, .. } = &mut self.phase {
                    *step = next;
                    *deadline = *at + if next == Step::Download { self.policy.download } else { self.policy.step };
                }
                self
            }
            Event::Exchanged { at } => {
                let restarts = if let Phase::Installing { restarts, .. } = self.phase { restarts } else { 0 };
                self.live = digest(self.target.as_ref());
                self.ailing = None;
                self.phase = Phase::Trial { until: *at + self.policy.window, probed: false, restarts };
                self
            }
            Event::Probed => {
                if let Phase::Trial { probed, .. } = &mut self.phase {
                    *probed = true;
                }
                self
            }
            Event::Restarted { at } => {
                match &mut self.phase {
                    Phase::Installing { step, deadline, restarts } => {
                        *deadline = *at + if *step == Step::Download { self.policy.download } else { self.policy.step };
                        *restarts += u32::from(*step >= Step::Smoke);
                    }
                    Phase::Trial { until, probed, restarts } => {
                        *until = *at + self.policy.window;
                        *probed = false;
                        *restarts += 1;
                    }
                    Phase::Settled(_) | Phase::Reverting { .. } | Phase::Withdrawing { .. } => {}
                }
                self
            }
            Event::Committed => {
                self.previous = self.committed.take();
                self.committed.clone_from(&self.target);
                self.phase = Phase::Settled(Verdict::Accepted);
                self
            }
            Event::Refused { why } => {
                self.phase = Phase::Settled(Verdict::Refused { why: why.clone() });
                self
            }
            Event::Reverting { verdict, at } => {
                self.phase = Phase::Reverting { verdict: verdict.clone(), deadline: *at + self.policy.step };
                self
            }
            Event::Reverted { at } => {
                self.live = digest(self.committed.as_ref());
                self.ailing = None;
                match &self.phase {
                    Phase::Reverting { verdict: Some(verdict), .. } => {
                        self.phase = Phase::Settled(verdict.clone());
                        self
                    }
                    _ => self.begin(*at),
                }
            }
            Event::Withdrawn => {
                self.committed = None;
                self.previous = None;
                self.live = None;
                self.ailing = None;
                self.phase = Phase::Settled(Verdict::Accepted);
                self
            }
            Event::Ailing { why } => {
                self.ailing = Some(why.clone());
                self
            }
            Event::Recovered => {
                self.ailing = None;
                self
            }
            Event::Demoted { why, at } => {
                let verdict = match &self.phase {
                    Phase::Reverting { verdict, .. } => verdict.clone(),
                    _ => Some(Verdict::FellBack { why: why.clone() }),
                };
                self.committed = self.previous.take();
                self.phase = Phase::Reverting { verdict, deadline: *at + self.policy.step };
                self
            }
            Event::Retried { at } => {
                if let Phase::Reverting { deadline, .. } | Phase::Withdrawing { deadline } = &mut self.phase {
                    *deadline = *at + self.policy.step;
                }
                self
            }
        }
    }

    /// How an installation that cannot go on ends: before the exchange nothing has changed, from then on the committed
    /// release is let back.
    pub(super) fn give_up(step: Step, why: Refusal, at: Timestamp) -> Event {
        if step < Step::Exchange { Event::Refused { why } } else { Event::Reverting { verdict: Some(Verdict::Refused { why }), at } }
    }
}

pub(super) fn digest(release: Option<&ReleaseRef>) -> Option<Digest> {
    release.map(|release| release.bundle)
}
