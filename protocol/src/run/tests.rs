//! What should happen: rounds follow one another, the cohort closes early, stragglers are dropped, restarts cost nothing.
//! What should not happen: an update counted twice, a late or foreign one counted at all, a round below its minimum.
//! Random interleavings of all this are in `tests/round/main.rs`.

use std::time::Duration;

use super::*;
use crate::{
    Blame, NodeId, Secrets, SessionId,
    fault::Misbehaviour,
    round::{Decline, Totals},
};

struct Counter(u8);
impl Secrets for Counter {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0 += 1;
        bytes.fill(self.0);
    }
}

struct Shell {
    run: Run,
    now: Timestamp,
    secrets: Counter,
    events: Vec<Event>,
}

fn spec(more: &str) -> crate::spec::Spec {
    let text = format!("[model]\nfile = \"m\"\n[secure_aggregation]\nmode = \"off\"\n[privacy]\nunit = \"none\"\n{more}");
    crate::spec::Spec::parse(&text).unwrap()
}

fn created(more: &str) -> Created {
    Created {
        run: "r".parse().unwrap(),
        spec: spec(more),
        model: Digest::of(b"m"),
        preprocess: None,
        schema: None,
        params: Digest::of(b"0"),
        length: 4,
        noise: None,
        operators: vec![],
        at: Timestamp::from_millis(0),
    }
}

/// Three wanted, two are enough, four are asked.
const FEW: &str = "[train]\nrounds = 2\n[cohort]\nsize = 3\nminimum = 2\nover_selection = 0.3\n[deadlines]\nselect = \"10s\"\nround = \"60s\"\nattempts = 2\n";

impl Shell {
    fn new(more: &str) -> Self {
        let mut shell =
            Self { run: Run::create(created(more)).unwrap(), now: Timestamp::from_millis(5000), secrets: Counter(0), events: vec![] };
        shell.tell(Input::Start);
        shell
    }
    fn try_tell(&mut self, input: Input) -> Result<Vec<Effect>, Fault> {
        let decision = self.run.decide(&mut Cx { now: self.now, secrets: &mut self.secrets }, input)?;
        Ok(self.commit(decision))
    }
    fn commit(&mut self, decision: Decision<Event, Effect>) -> Vec<Effect> {
        self.run = decision.events.iter().fold(self.run.clone(), Machine::apply);
        self.events.extend(decision.events);
        decision.effects
    }
    fn tell(&mut self, input: Input) -> Vec<Effect> {
        self.try_tell(input).unwrap()
    }
    fn restart(&mut self) -> Vec<Effect> {
        let decision = self.run.recover(&mut Cx { now: self.now, secrets: &mut self.secrets });
        self.commit(decision)
    }
    fn roster(&mut self, n: usize) -> Vec<Effect> {
        self.tell(Input::Roster((0..n).map(node).collect()))
    }
    fn session(&self) -> SessionId {
        self.run.terms().unwrap().session
    }
    fn update(&mut self, i: usize) -> Result<Vec<Effect>, Fault> {
        let bytes = self.run.terms().unwrap().update_bytes().unwrap();
        self.try_tell(Input::Update { node: node(i), session: self.session(), digest: Digest::of(&[i as u8]), bytes })
    }
    fn decline(&mut self, i: usize) -> Vec<Effect> {
        let reason = Decline::NoData { why: "no folder".into() };
        self.tell(Input::Declined { node: node(i), session: self.session(), reason })
    }
    fn aggregated(&mut self, nodes: u32) -> Result<Vec<Effect>, Fault> {
        let totals = Totals {
            nodes,
            weight: f64::from(nodes),
            examples: Some(10),
            loss: Some(0.5),
            accuracy: None,
            within_clip: None,
            clipped: Some(0),
        };
        self.try_tell(Input::Aggregated { session: self.session(), params: Digest::of(&self.now.millis().to_le_bytes()), totals })
    }
    fn pass(&mut self, seconds: u64) -> Vec<Effect> {
        self.now = self.now + Duration::from_secs(seconds);
        self.tell(Input::Tick)
    }
}

fn node(i: usize) -> NodeId {
    format!("n{i}").parse().unwrap()
}
fn withdrawn(effects: &[Effect], keep: bool) -> Vec<NodeId> {
    let who = |effect: &Effect| match effect {
        Effect::Withdraw { node, keep: k, .. } if *k == keep => Some(node.clone()),
        _ => None,
    };
    effects.iter().filter_map(who).collect()
}
fn assigned(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Assign { .. })).count()
}

#[test]
fn rounds_follow_one_another_to_the_release() {
    let mut shell = Shell::new(FEW);
    for round in 1..=2 {
        assert_eq!(assigned(&shell.roster(6)), 4, "3 wanted, 4 asked");
        let cohort = shell.run.terms().unwrap().cohort.clone();
        let mut effects = Vec::new();
        for member in &cohort[..3] {
            let i = member.as_str()[1..].parse().unwrap();
            effects = shell.update(i).unwrap();
        }
        assert!(matches!(effects.last(), Some(Effect::Aggregate { survivors, .. }) if *survivors == cohort[..3]));
        assert_eq!(withdrawn(&effects, false), cohort[3..], "the slowest is told");
        assert_eq!(shell.run.state(), RunState::Committing);
        let effects = shell.aggregated(3).unwrap();
        assert_eq!(withdrawn(&effects, false), cohort[..3], "updates are forgotten with the round");
        assert_eq!(shell.run.rounds().len(), round);
    }
    assert_eq!(shell.run.state(), RunState::Releasing);
    assert!(matches!(shell.restart()[..], [Effect::BuildCandidate { .. }]), "asked for again after a crash");
    let outcome = CandidateOutcome::Refused(Refused { gates: vec!["accuracy 0.5 < 0.9".into()] });
    shell.tell(Input::Candidate(outcome));
    assert_eq!(shell.run.state(), RunState::Refused);
    assert!(shell.run.is_over() && shell.restart().is_empty());
    let replayed = Run::replay([Event::Created(Box::new(created(FEW)))].iter().chain(&shell.events)).unwrap();
    assert_eq!(replayed, shell.run);
}

#[test]
fn selection_waits_then_makes_do_with_the_minimum() {
    let mut shell = Shell::new(FEW);
    assert!(shell.roster(3).is_empty(), "4 are asked, there is time");
    assert_eq!(shell.run.deadline(), Some(Timestamp::from_millis(15_000)));
    assert_eq!(shell.pass(10), [Effect::AskRoster]);
    assert_eq!(assigned(&shell.roster(2)), 2);
}

#[test]
fn too_few_nodes_end_the_run_with_a_reason() {
    let mut shell = Shell::new(FEW);
    for _ in 0..2 {
        shell.pass(10);
        shell.roster(1);
    }
    assert_eq!(shell.run.state(), RunState::Failed);
    let detail = shell.run.detail().unwrap();
    assert!(detail.contains("round 1 failed 2 times") && detail.contains("1 of at least 2"), "{detail}");
}

/// Found by review: a coordinator that was down past the deadline came back to an empty roster, and that counted.
#[test]
fn a_restart_while_selecting_gives_the_nodes_their_time_again() {
    let mut shell = Shell::new(FEW);
    for _ in 0..5 {
        shell.now = shell.now + Duration::from_secs(100);
        assert!(shell.restart().contains(&Effect::AskRoster));
        assert!(shell.roster(0).is_empty(), "there is time");
    }
    assert_eq!(assigned(&shell.roster(6)), 4);
}

/// Found by review: a run whose start could not be committed was told to start never again.
#[test]
fn a_run_that_was_never_started_starts_when_it_recovers() {
    let run = Run::create(created(FEW)).unwrap();
    let mut shell = Shell { run, now: Timestamp::from_millis(5000), secrets: Counter(0), events: vec![] };
    assert_eq!(shell.restart(), [Effect::AskRoster]);
    assert_eq!(shell.run.state(), RunState::Selecting);
    assert!(shell.tell(Input::Start).is_empty(), "the start that comes late is no news");
    assert_eq!(assigned(&shell.roster(6)), 4);
}

#[test]
fn stragglers_are_dropped_at_the_deadline() {
    let mut shell = Shell::new(FEW);
    shell.roster(4);
    shell.update(0).unwrap();
    shell.update(2).unwrap();
    assert!(shell.pass(59).is_empty());
    let effects = shell.pass(1);
    assert!(matches!(effects.last(), Some(Effect::Aggregate { survivors, .. }) if *survivors == [node(0), node(2)]));
    assert_eq!(withdrawn(&effects, false), [node(1), node(3)]);
    assert!(matches!(shell.update(1), Err(Fault::Expired(Expiry::Dropped { .. }))));
    shell.aggregated(2).unwrap();
    let dropped = &shell.run.rounds()[0].dropped;
    assert!(dropped.iter().all(|(_, why)| *why == DropReason::Straggler) && dropped.len() == 2);
}

#[test]
fn below_the_minimum_the_attempt_is_given_up_and_repeated_with_others() {
    let mut shell = Shell::new(FEW);
    shell.roster(4);
    shell.update(0).unwrap();
    let effects = shell.pass(60);
    assert_eq!(withdrawn(&effects, true).len(), 4, "who still trains may answer the next attempt");
    assert!(effects.contains(&Effect::AskRoster));
    assert_eq!(shell.run.state(), RunState::Selecting);
    // Three new nodes are there: the three that were late are asked last.
    shell.roster(7);
    let cohort = shell.run.terms().unwrap().cohort.clone();
    assert_eq!(cohort, [node(0), node(4), node(5), node(6)]);
    assert_eq!(shell.run.terms().unwrap().attempt, 2);
}

#[test]
fn declines_close_or_give_up_at_once() {
    let mut shell = Shell::new(FEW);
    shell.roster(4);
    shell.decline(0);
    assert!(shell.decline(0).is_empty(), "said twice");
    shell.update(1).unwrap();
    shell.update(2).unwrap();
    assert!(matches!(shell.update(0), Err(Fault::Expired(Expiry::Dropped { .. }))));
    let effects = shell.decline(3);
    assert!(matches!(effects.last(), Some(Effect::Aggregate { survivors, .. }) if survivors.len() == 2), "everyone has answered");

    let mut shell = Shell::new(FEW);
    shell.roster(4);
    for i in 0..2 {
        shell.decline(i);
    }
    let effects = shell.decline(2);
    assert!(effects.contains(&Effect::AskRoster), "one of two needed can still answer: no need to wait for the deadline");
    let declined = shell.events.iter().filter(|e| matches!(e, Event::NodeDropped { reason: DropReason::Declined { .. }, .. })).count();
    assert_eq!(declined, 3);
}

#[test]
fn each_fault_of_a_peer_is_named() {
    let mut shell = Shell::new(FEW);
    shell.roster(4);
    let (session, bytes) = (shell.session(), shell.run.terms().unwrap().update_bytes().unwrap());
    let digest = Digest::of(b"x");
    let mut send = |node: NodeId, session, digest, bytes| shell.try_tell(Input::Update { node, session, digest, bytes });
    assert!(send(node(0), session, digest, bytes).is_ok());
    assert_eq!(send(node(0), session, digest, bytes), Ok(vec![]), "again: accepted, not added");
    let second = send(node(0), session, Digest::of(b"y"), bytes).unwrap_err();
    assert!(matches!(second, Fault::PeerMisbehaved(Misbehaviour::SecondUpdate { .. })));
    let length = send(node(1), session, digest, bytes - 1).unwrap_err();
    assert!(matches!(length, Fault::PeerMisbehaved(Misbehaviour::UpdateLength { .. })));
    let stranger = send(node(9), session, digest, bytes).unwrap_err();
    assert!(matches!(stranger, Fault::PeerMisbehaved(Misbehaviour::NotInCohort { .. })));
    let late = send(node(1), SessionId::new([9; 32]), digest, bytes).unwrap_err();
    assert_eq!(late, Expiry::Session.into());
    let declined = Input::Declined { node: node(0), session, reason: Decline::Policy { why: "no".into() } };
    assert!(shell.tell(declined).is_empty(), "it restarted and cannot train now: its update stands");
    assert_eq!([second.blame(), stranger.blame(), late.blame()], [Blame::Peer, Blame::Peer, Blame::Clock]);
    // At the deadline it is too late even if nobody has looked at the clock yet.
    shell.now = shell.now + Duration::from_secs(60);
    assert_eq!(shell.update(1).unwrap_err(), Expiry::Session.into());
}

#[test]
fn a_restart_repeats_the_attempt_with_the_same_nodes() {
    let mut shell = Shell::new(FEW);
    shell.roster(6);
    let first = shell.run.terms().unwrap().clone();
    let effects = shell.restart();
    assert!(matches!(&effects[0], Effect::Open(terms) if **terms == first), "nothing had arrived: it goes on");
    assert_eq!(assigned(&effects), 4);

    let members: Vec<usize> = first.cohort.iter().map(|name| name.as_str()[1..].parse().unwrap()).collect();
    shell.update(members[0]).unwrap();
    for _ in 0..5 {
        let effects = shell.restart();
        assert_eq!(shell.run.state(), RunState::Selecting, "restarts do not count as failures");
        assert!(effects.contains(&Effect::AskRoster));
    }
    let three: Vec<NodeId> = first.cohort[1..].to_vec();
    assert!(shell.tell(Input::Roster(three)).is_empty(), "the missing one gets time to come back");
    shell.roster(6);
    let second = shell.run.terms().unwrap();
    assert_eq!(second.cohort, first.cohort);
    assert_ne!(second.session, first.session);
    assert_eq!(second.work(), first.work(), "no node trains again");
}

/// In Committing the survivors are fixed: the repeated attempt has exactly them, so the model is the same.
#[test]
fn a_restart_while_committing_repeats_with_the_survivors() {
    let mut shell = Shell::new(FEW);
    shell.roster(4);
    for i in [0, 1, 3] {
        shell.update(i).unwrap();
    }
    let effects = shell.restart();
    assert_eq!(withdrawn(&effects, true), [node(0), node(1), node(3)]);
    shell.roster(6);
    assert_eq!(shell.run.terms().unwrap().cohort, [node(0), node(1), node(3)]);
}

#[test]
fn an_unusable_sum_costs_the_attempt_not_the_run() {
    let mut shell = Shell::new(FEW);
    shell.roster(4);
    for i in 0..3 {
        shell.update(i).unwrap();
    }
    assert!(matches!(shell.aggregated(2), Err(Fault::Misuse(_))), "it must count the updates that were accepted");
    let session = shell.session();
    shell.tell(Input::AggregateFailed { session, why: "not finite".into() });
    assert_eq!(shell.run.state(), RunState::Selecting);
    assert!(shell.run.detail().unwrap().contains("not finite"));
    let again = shell.try_tell(Input::AggregateFailed { session, why: String::new() });
    assert_eq!(again, Err(Expiry::Session.into()));
}

#[test]
fn scores_do_not_hold_up_rounds_but_the_candidate_waits_for_them() {
    let mut shell = Shell::new(&format!("{FEW}[evaluate]\ndata = \"d\"\nevery = 2\n"));
    let round = |shell: &mut Shell| {
        shell.roster(4);
        for i in 0..3 {
            let _ = shell.update(i);
        }
        let _ = shell.update(3);
        shell.aggregated(3).unwrap()
    };
    assert!(!round(&mut shell).iter().any(|effect| matches!(effect, Effect::Evaluate { .. })), "every second round");
    let effects = round(&mut shell);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Evaluate { round: 2, .. })));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::BuildCandidate { .. })));
    assert_eq!(shell.run.state(), RunState::Evaluating);
    assert!(matches!(shell.restart()[..], [Effect::Evaluate { round: 2, .. }]));
    let evaluation = EvaluationRecord { loss: Some(0.1), accuracy: Some(0.9), examples: 5 };
    assert!(matches!(shell.tell(Input::Evaluated { round: 2, evaluation })[..], [Effect::BuildCandidate { .. }]));
    assert!(shell.tell(Input::Evaluated { round: 2, evaluation }).is_empty());
    assert!(shell.try_tell(Input::Evaluated { round: 1, evaluation }).is_err());
}

#[test]
fn a_run_can_be_stopped_until_it_is_over() {
    let mut shell = Shell::new(FEW);
    shell.roster(4);
    let effects = shell.tell(Input::Stop { by: "ada".into() });
    assert_eq!(withdrawn(&effects, false).len(), 4);
    assert!(matches!(effects[0], Effect::Discard { .. }));
    assert!(shell.tell(Input::Stop { by: "bob".into() }).is_empty());
    assert_eq!(shell.run.detail().unwrap(), "stopped by ada");
    assert!(shell.tell(Input::Broken { why: "disk".into() }).is_empty());

    let mut shell = Shell::new(FEW);
    shell.tell(Input::Broken { why: "disk".into() });
    assert_eq!(shell.run.state(), RunState::Failed);
    assert_eq!(shell.try_tell(Input::Stop { by: "ada".into() }).unwrap_err().blame(), Blame::Caller);
}

#[test]
fn a_run_of_nothing_is_refused() {
    let mut nothing = created(FEW);
    nothing.length = 0;
    assert!(Run::create(nothing).unwrap_err().to_string().starts_with("model.freeze"));
    assert!(Run::replay([&Event::Started { at: Timestamp::from_millis(0) }]).is_err());
    assert!(Run::replay([]).is_err());
}

/// Found by review: where the coordinator adds the noise, the ledger was not charged. In clear, too, it is charged before the sum is read,
/// and a ledger that is away costs the attempt, not the run.
#[test]
fn central_noise_is_charged_before_the_sum_is_read() {
    let text = "[model]\nfile = \"m\"\n[secure_aggregation]\nmode = \"off\"\n[privacy]\nunit = \"node\"\nmechanism = \"central\"\n[cohort]\nsize = 3\n";
    let begun = Created { spec: crate::spec::Spec::parse(text).unwrap(), ..created("") };
    let mut shell = Shell { run: Run::create(begun).unwrap(), now: Timestamp::from_millis(5000), secrets: Counter(0), events: vec![] };
    shell.tell(Input::Start);
    let collect = |shell: &mut Shell| {
        shell.roster(3);
        shell.update(0).unwrap();
        shell.update(1).unwrap();
        let effects = shell.update(2).unwrap();
        assert!(matches!(effects.last(), Some(Effect::Charge { members, .. }) if members.len() == 3), "{effects:?}");
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Aggregate { .. })), "the ledger comes first");
        shell.session()
    };
    let session = collect(&mut shell);
    shell.tell(Input::StageFailed { session, why: "the store is away".into() });
    assert_eq!(shell.run.state(), RunState::Selecting);
    let session = collect(&mut shell);
    let effects = shell.tell(Input::Charged { session, members: (0..3).map(node).collect() });
    assert!(matches!(effects.last(), Some(Effect::Aggregate { survivors, .. }) if survivors.len() == 3), "{effects:?}");
    let (cost, sums) = shell.run.spent();
    assert!(cost.coordinator > 0 && sums == 1);
    shell.aggregated(3).unwrap();
    assert!(shell.run.statement().unwrap().epsilon_outsider > 0.0);
}
