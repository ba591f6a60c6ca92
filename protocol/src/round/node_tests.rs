//! What should happen: train once, submit, survive lost answers, a restart of either side, a new attempt.
//! What should not happen: train twice for one round, submit for a dead attempt, keep an update for ever.

use std::time::Duration;

use super::*;
use crate::{NodeId, Secrets, round::Terms, spec::Spec};

struct None_;
impl Secrets for None_ {
    fn fill(&mut self, _: &mut [u8]) {
        unreachable!("a node's round draws no secrets yet");
    }
}

fn terms(round: u32, attempt: u32) -> Terms {
    let text = "[model]\nfile = \"m\"\n[secure_aggregation]\nmode = \"off\"\n[privacy]\nunit = \"none\"\n[cohort]\nsize = 1\n";
    let spec = Spec::parse(text).unwrap();
    let opened = Timestamp::from_millis(u64::from(round) * 100_000 + u64::from(attempt) * 10_000);
    Terms {
        run: "r".parse().unwrap(),
        round,
        attempt,
        session: SessionId::new([(round * 16 + attempt) as u8; 32]),
        cohort: vec!["a".parse::<NodeId>().unwrap()],
        size: 1,
        minimum: 1,
        model: Digest::of(b"m"),
        preprocess: None,
        schema: None,
        params: Digest::of(&round.to_le_bytes()),
        length: 2,
        encoding: super::super::EncodingTerms::of(&spec),
        secure: None,
        noise: None,
        train: super::super::TrainTerms::of(&spec, round),
        opened,
        deadline: opened + Duration::from_secs(600),
    }
}
fn task(round: u32, attempt: u32) -> Box<Task> {
    Box::new(Task { terms: terms(round, attempt) })
}

struct Shell(NodeRound, Timestamp);
impl Shell {
    fn new() -> Self {
        Self(NodeRound::default(), Timestamp::from_millis(0))
    }
    fn try_tell(&mut self, input: NodeInput) -> Result<Vec<NodeEffect>, Fault> {
        let decision = self.0.decide(&mut Cx { now: self.1, secrets: &mut None_ }, input)?;
        for event in &decision.events {
            let json = serde_json::to_string(event).unwrap();
            assert_eq!(serde_json::from_str::<NodeEvent>(&json).unwrap(), *event);
            self.0 = self.0.clone().apply(event);
        }
        Ok(decision.effects)
    }
    fn tell(&mut self, input: NodeInput) -> Vec<NodeEffect> {
        self.try_tell(input).unwrap()
    }
    fn restart(&mut self) -> Vec<NodeEffect> {
        let decision = self.0.recover(&mut Cx { now: self.1, secrets: &mut None_ });
        self.0 = decision.events.iter().fold(self.0.clone(), Machine::apply);
        decision.effects
    }
    fn trained(&mut self, round: u32) -> Vec<NodeEffect> {
        self.tell(NodeInput::Trained { work: terms(round, 1).work(), update: Digest::of(b"update") })
    }
}
fn kinds(effects: &[NodeEffect]) -> Vec<&'static str> {
    let kind = |effect: &NodeEffect| match effect {
        NodeEffect::Train { .. } => "train",
        NodeEffect::Submit { .. } => "submit",
        NodeEffect::Decline { .. } => "decline",
        NodeEffect::Forget { .. } => "forget",
    };
    effects.iter().map(kind).collect()
}
fn receipt(round: u32, attempt: u32, outcome: Receipt) -> NodeInput {
    NodeInput::Receipt { session: terms(round, attempt).session, outcome }
}
fn withdrawn(round: u32, attempt: u32, keep: bool) -> NodeInput {
    NodeInput::Withdrawn { session: terms(round, attempt).session, keep }
}

#[test]
fn a_round_is_trained_submitted_and_forgotten() {
    let mut node = Shell::new();
    assert_eq!(kinds(&node.tell(NodeInput::Task(task(1, 1)))), ["train"]);
    assert_eq!(kinds(&node.tell(NodeInput::Task(task(1, 1)))), [""; 0], "the outbox may deliver twice");
    assert_eq!(kinds(&node.trained(1)), ["submit"]);
    assert_eq!(kinds(&node.tell(NodeInput::Reconnected)), ["submit"], "until it is answered");
    assert_eq!(kinds(&node.tell(receipt(1, 1, Receipt::Accepted))), [""; 0]);
    assert_eq!(kinds(&node.tell(NodeInput::Reconnected)), [""; 0]);
    assert_eq!(kinds(&node.tell(withdrawn(1, 1, false))), ["forget"]);
    assert!(node.0.is_idle());
}

/// A restart of the coordinator costs an upload, no training.
#[test]
fn a_new_attempt_submits_what_was_trained() {
    for lost in [true, false] {
        let mut node = Shell::new();
        node.tell(NodeInput::Task(task(1, 1)));
        node.trained(1);
        node.tell(receipt(1, 1, Receipt::Accepted));
        if !lost {
            assert_eq!(kinds(&node.tell(withdrawn(1, 1, true))), [""; 0]);
        }
        let effects = node.tell(NodeInput::Task(task(1, 2)));
        assert_eq!(kinds(&effects), ["submit"]);
        assert!(matches!(&effects[0], NodeEffect::Submit { task, .. } if task.terms.attempt == 2));
    }
}

/// The attempt ends while the node still trains: it goes on training, and submits to the next attempt.
#[test]
fn training_outlives_its_attempt() {
    let mut node = Shell::new();
    node.tell(NodeInput::Task(task(1, 1)));
    node.tell(withdrawn(1, 1, true));
    assert_eq!(kinds(&node.trained(1)), [""; 0], "nobody waits for it now");
    assert_eq!(kinds(&node.tell(NodeInput::Task(task(1, 2)))), ["submit"]);

    let mut node = Shell::new();
    node.tell(NodeInput::Task(task(1, 1)));
    node.tell(withdrawn(1, 1, true));
    assert_eq!(kinds(&node.tell(NodeInput::Task(task(1, 2)))), [""; 0], "still training");
    assert_eq!(kinds(&node.trained(1)), ["submit"]);
}

#[test]
fn the_next_round_replaces_the_last() {
    let mut node = Shell::new();
    node.tell(NodeInput::Task(task(1, 1)));
    node.trained(1);
    assert_eq!(kinds(&node.tell(NodeInput::Task(task(2, 1)))), ["forget", "train"]);
    assert_eq!(kinds(&node.trained(1)), [""; 0], "a result of older work is ignored");
    let late = node.try_tell(NodeInput::Task(task(1, 2)));
    assert!(matches!(late, Err(Fault::Expired(Expiry::Session))), "an old task comes late");
    assert_eq!(kinds(&node.trained(2)), ["submit"]);
}

/// A coordinator that was restored from an old backup counts an older round, at a later time.
#[test]
fn a_restored_coordinator_is_followed() {
    let mut node = Shell::new();
    node.tell(NodeInput::Task(task(3, 1)));
    let mut again = task(2, 1);
    again.terms.opened = terms(3, 1).opened + Duration::from_secs(60);
    assert_eq!(kinds(&node.tell(NodeInput::Task(again))), ["forget", "train"]);
}

#[test]
fn what_cannot_be_trained_is_declined_once_per_attempt() {
    let mut node = Shell::new();
    node.tell(NodeInput::Task(task(1, 1)));
    let reason = Decline::BadData { why: "x.csv, row 3".into() };
    let work = terms(1, 1).work();
    assert_eq!(kinds(&node.tell(NodeInput::TrainingFailed { work, reason })), ["decline"]);
    assert_eq!(kinds(&node.tell(NodeInput::Reconnected)), ["decline"]);
    node.tell(receipt(1, 1, Receipt::Accepted));
    assert_eq!(kinds(&node.tell(NodeInput::Reconnected)), [""; 0]);
    assert_eq!(kinds(&node.tell(NodeInput::Task(task(1, 2)))), ["decline"], "the same work fails the same way");
    assert_eq!(kinds(&node.tell(NodeInput::Task(task(2, 1)))), ["forget", "train"], "it costs the round, not the life");
}

/// Found with real processes: a node that died behind a charge declined the session, as it must, and then every other attempt at the round.
#[test]
fn what_a_policy_declines_is_looked_at_again_in_the_next_attempt() {
    let mut node = Shell::new();
    node.tell(NodeInput::Task(task(1, 1)));
    let reason = Decline::Policy { why: "this node was charged for the session before it restarted".into() };
    let work = terms(1, 1).work();
    assert_eq!(kinds(&node.tell(NodeInput::TrainingFailed { work, reason })), ["decline"]);
    node.tell(receipt(1, 1, Receipt::Accepted));
    assert_eq!(kinds(&node.tell(NodeInput::Task(task(1, 2)))), ["train"]);
    assert_eq!(kinds(&node.trained(1)), ["submit"]);
}

#[test]
fn a_refused_update_is_not_sent_again() {
    let mut node = Shell::new();
    node.tell(NodeInput::Task(task(1, 1)));
    node.trained(1);
    assert_eq!(kinds(&node.tell(receipt(1, 1, Receipt::Refused))), ["forget"]);
    assert!(node.0.is_idle());

    let mut node = Shell::new();
    node.tell(NodeInput::Task(task(1, 1)));
    node.trained(1);
    node.tell(receipt(1, 1, Receipt::Expired));
    assert_eq!(kinds(&node.tell(NodeInput::Reconnected)), [""; 0], "kept, not sent");
    node.tell(receipt(1, 1, Receipt::Accepted));
    assert_eq!(kinds(&node.tell(NodeInput::Task(task(1, 2)))), ["submit"]);
}

/// Nothing of an update outlives its round for long, even if the coordinator is never heard of again.
#[test]
fn an_update_is_forgotten_in_the_end() {
    let mut node = Shell::new();
    node.tell(NodeInput::Task(task(1, 1)));
    node.trained(1);
    let until = node.0.deadline().unwrap();
    assert_eq!(until, Timestamp::from_millis(0) + Duration::from_secs(1200), "by the node's own clock, which is decades behind");
    assert_eq!(kinds(&node.tell(NodeInput::Tick)), [""; 0]);
    node.1 = until;
    assert_eq!(kinds(&node.tell(NodeInput::Tick)), ["forget"]);
    assert_eq!(node.0.deadline(), None);
}

/// The update was in memory: training starts again if its result is still wanted.
#[test]
fn a_restart_of_the_node_trains_again() {
    let mut node = Shell::new();
    assert_eq!(kinds(&node.restart()), [""; 0]);
    node.tell(NodeInput::Task(task(1, 1)));
    assert_eq!(kinds(&node.restart()), ["train"]);
    node.trained(1);
    assert_eq!(kinds(&node.restart()), ["train"]);
    assert_eq!(kinds(&node.trained(1)), ["submit"]);
    node.tell(receipt(1, 1, Receipt::Accepted));
    assert_eq!(kinds(&node.restart()), ["forget"], "the coordinator has it");
    assert_eq!(kinds(&node.tell(NodeInput::Task(task(1, 2)))), ["train"], "unless it lost it");
}

/// The work leaves out what differs between attempts, and nothing else.
#[test]
fn work_names_what_is_computed() {
    let a = terms(1, 1);
    assert_eq!(a.work(), terms(1, 2).work());
    assert_ne!(a.hash(), terms(1, 2).hash());
    let mut b = a.clone();
    b.train.lr *= 2.0;
    assert_ne!(a.work(), b.work());
    assert_ne!(a.work(), terms(2, 1).work());
    let mut c = a.clone();
    c.minimum = 2;
    assert_eq!(a.work(), c.work());
    assert_ne!(a.hash(), c.hash());
    let (x, y) = ("a".parse().unwrap(), "b".parse().unwrap());
    assert_ne!(a.training_seed(&x), a.training_seed(&y));
    assert_eq!(a.training_seed(&x), terms(1, 2).training_seed(&x));
    assert_ne!(a.training_seed(&x), terms(2, 1).training_seed(&x));
}
