//! A coordinator and its nodes in one process, which may die at any point that it comes by.
//!
//! With minimum = cohort, the final parameters must be the same bits however often the coordinator died.

mod peer;
mod rollout;
mod serve;
mod sweep;
mod work;

use std::{collections::BTreeMap, sync::atomic::AtomicU32, time::Duration};

use sapwood_failpoint::Hook;
use sapwood_models::zoo;
use sapwood_protocol::{
    Digest, NodeId, SessionId,
    fault::{Expiry, Misbehaviour},
    round::{Decline, Receipt, Task, Terms},
    run::EvaluationRecord,
    spec::Spec,
    view::RunView,
};
use tokio::task::JoinSet;

use self::{
    peer::{Peer, Training, hello, peer, submit, update},
    work::Means,
};
use super::*;
use crate::{clock::TokioClock, store::MemoryStore, testing};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const ROUNDS: u32 = 2;

const RUN: &str = r#"
    name = "toy"
    seed = 7
    [model]
    file = "mlp.onnx"
    [train]
    rounds = 2
    [cohort]
    size = 3
    minimum = 3
    over_selection = 0.0
    [secure_aggregation]
    mode = "off"
    [privacy]
    unit = "none"
    clip = 5.0
    [deadlines]
    select = "10m"
    round = "1h"
    [evaluate]
    data = "digits:12-14"
    [release]
    auto = false
"#;

/// What outlives a coordinator.
struct World {
    folder: tempfile::TempDir,
    store: MemoryStore,
    clock: TokioClock,
    model: Digest,
    /// The text of run.toml.
    spec: String,
    /// How often scoring lacks room before it has some.
    cramped: u32,
    budgets: Budgets,
    restored: bool,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = Objects::open(folder.path()).unwrap().put(&zoo::mlp(4, &[3], 2, 1).encode()).unwrap();
        Self {
            folder,
            store: MemoryStore::default(),
            clock: TokioClock::showing(testing::NOW),
            model,
            spec: RUN.into(),
            cramped: 0,
            budgets: Budgets::default(),
            restored: false,
        }
    }

    async fn start(&self) -> Result<State, CoordinatorError> {
        State::start(Parts {
            store: Arc::new(self.store.clone()),
            objects: Objects::open(self.folder.path())?,
            clock: Arc::new(self.clock),
            work: Arc::new(Means(AtomicU32::new(self.cramped))),
            secrets: testing::secrets,
            limits: Limits::default(),
            budgets: self.budgets.clone(),
            restored: self.restored,
        })
        .await
    }

    fn submission(&self) -> Submission {
        let mut objects = BTreeMap::from([("mlp.onnx".into(), self.model)]);
        if self.spec.contains("mine.onnx") {
            let loss = Objects::open(self.folder.path()).unwrap().put(&zoo::cross_entropy().encode()).unwrap();
            objects.insert("mine.onnx".into(), loss);
        }
        Submission { spec: self.spec.clone(), objects, token: "mine".into() }
    }

    /// Begins the run, which the word makes the same one however often it is said, and watches it until that is enough, or
    /// it is over.
    async fn follow(&self, state: &State, enough: impl Fn(&RunView) -> bool) -> RunView {
        // A coordinator that dies over it is asked again in its next life.
        let Ok(view) = state.submit_run(self.submission()).await else { return std::future::pending().await };
        let mut watching = state.watch_run(&view.run).await.unwrap();
        let mut last = view;
        while let Some(view) = watching.next().await {
            last = view;
            if enough(&last) {
                break;
            }
        }
        last
    }

    /// One life of the coordinator: ends when there is nothing more to do, or with its death.
    async fn live<T>(&self, coordinator: &watch::Sender<Option<State>>, operate: &impl AsyncFn(&State) -> T) -> Result<T, Killed> {
        let state = match self.start().await {
            Ok(state) => state,
            Err(CoordinatorError::Killed(killed)) => return Err(killed),
            Err(error) => panic!("{error:?}"),
        };
        coordinator.send_replace(Some(state.clone()));
        let outcome = tokio::select! {
            biased;
            killed = state.killed() => Err(killed),
            done = operate(&state) => Ok(done),
        };
        coordinator.send_replace(None);
        if outcome.is_ok() {
            state.shutdown().await;
        }
        outcome
    }

    /// Lives as often as it takes until `operate` has come to its end; how many deaths that took. The first life is under
    /// the hook.
    async fn lives<T>(&self, mut hook: Option<Hook>, peers: Vec<Peer>, operate: impl AsyncFn(&State) -> T) -> (T, usize) {
        let (coordinator, known) = watch::channel(None);
        let mut nodes: JoinSet<()> = peers.into_iter().map(|peer| peer.live(known.clone())).collect();
        let living = async {
            for deaths in 0.. {
                let lived = match hook.take() {
                    Some(hook) => hook.scope(self.live(&coordinator, &operate)).await,
                    None => self.live(&coordinator, &operate).await,
                };
                if let Ok(done) = lived {
                    return (done, deaths);
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            unreachable!("it lives until there is nothing more to do")
        };
        tokio::select! {
            lived = living => lived,
            Some(ended) = nodes.join_next() => panic!("a node does not end by itself: {ended:?}"),
        }
    }

    /// Lives until the run is over.
    async fn finish(&self) -> RunView {
        let peers = NODES.map(|name| peer(name, "lab")).to_vec();
        self.lives(None, peers, async |state: &State| self.follow(state, |_| false).await).await.0
    }
}

/// Found by review: the stage that a node named was said to be complete, not the one at hand, and everybody waited for the deadline.
#[tokio::test(start_paused = true)]
async fn a_stage_ends_whatever_its_last_message_is_called() {
    let world = World { spec: sweep::masked(), ..World::new() };
    let peers = ["n1", "n2", "n3", "n4"].map(|name| Peer { training: Training::Mislabels, ..peer(name, "lab") }).to_vec();
    let (view, _) = world.lives(None, peers, async |state: &State| world.follow(state, |_| false).await).await;
    assert_eq!((view.rounds.len(), view.state), (2, run::RunState::Trained));
    assert!(view.rounds.iter().all(|round| round.seconds < 10.0), "{:?}", view.rounds);
}

#[tokio::test(start_paused = true)]
async fn a_run_goes_through_its_rounds() {
    let world = World::new();
    let view = world.finish().await;
    assert_eq!((view.state, view.rounds.len()), (run::RunState::Trained, ROUNDS as usize), "{view:?}");
    for round in &view.rounds {
        assert_eq!((round.updates, round.attempts), (3, 1));
        assert!(round.loss.is_some(), "each round was scored");
    }
    // The mean update really went in: by hand, from the same encoding.
    let objects = Objects::open(world.folder.path()).unwrap();
    let after = objects.read(view.params).unwrap();
    assert_eq!(after.len() as u64, view.parameters * 4);
    // First and last stay, the round between them is gone.
    assert!(!objects.has(view.rounds[0].params));

    // Said again, the same word gives the same run; another word for it, another run; the same word for another run, a no.
    let state = world.start().await.unwrap();
    assert_eq!(state.submit_run(world.submission()).await.unwrap().run, view.run);
    let other = Submission { spec: RUN.replace("seed = 7", "seed = 8"), ..world.submission() };
    assert!(state.submit_run(other).await.unwrap_err().to_string().contains("token"));
    assert_eq!(state.runs().await.unwrap().len(), 1);
    state.shutdown().await;
}

/// "Disk full at the coordinator": what was trained is not lost because it could not be scored at once.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_scored_for_want_of_room_is_scored_later() {
    let undisturbed = World::new().finish().await;
    let view = World { cramped: 3, ..World::new() }.finish().await;
    assert_eq!((view.state, view.params), (run::RunState::Trained, undisturbed.params));
    let losses = |view: &RunView| view.rounds.iter().map(|round| round.loss).collect::<Vec<_>>();
    assert_eq!(losses(&view), losses(&undisturbed));
}

/// A run that collects, with all of its nodes connected, and what one of them was told.
async fn collecting(world: &World) -> (State, Vec<Orders>, Terms) {
    let state = world.start().await.unwrap();
    let mut lines = Vec::new();
    for name in NODES {
        lines.push(state.connect(hello(&name.parse().unwrap(), None)).await.unwrap().1);
    }
    state.submit_run(world.submission()).await.unwrap();
    let Some(Order::Task(task)) = lines[0].next().await else { panic!("a task") };
    let task: Task = serde_json::from_slice(&task).unwrap();
    (state, lines, task.terms)
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

/// "Update of the wrong length, twice, late, from a node outside the cohort."
#[tokio::test(start_paused = true)]
async fn what_an_honest_node_never_sends_is_refused() {
    let world = World::new();
    let (state, _lines, terms) = collecting(&world).await;
    let (n1, n2, stranger) = (node("n1"), node("n2"), node("n9"));
    let good = update(&n1, &terms);
    let begin = |who: &NodeId, session: SessionId, bytes: &[u8]| {
        let header = UploadHeader { run: terms.run.clone(), session, digest: Digest::of(bytes), total: bytes.len() as u64, offset: 0 };
        let (state, who) = (state.clone(), who.clone());
        async move { state.upload(&who, header).await.map(drop) }
    };
    let fault = begin(&n1, terms.session, &good[1..]).await.unwrap_err();
    assert!(matches!(fault, Fault::PeerMisbehaved(Misbehaviour::UpdateLength { .. })), "{fault}");
    let fault = begin(&stranger, terms.session, &good).await.unwrap_err();
    assert!(matches!(fault, Fault::PeerMisbehaved(Misbehaviour::NotInCohort { .. })), "{fault}");
    let fault = begin(&n1, SessionId::new([9; 32]), &good).await.unwrap_err();
    assert!(matches!(fault, Fault::Expired(Expiry::Session)), "{fault}");

    assert_eq!(submit(&n1, &state, &terms, &good).await.unwrap(), Receipt::Accepted);
    assert_eq!(submit(&n1, &state, &terms, &good).await.unwrap(), Receipt::Accepted, "the receipt may have been lost");
    assert_eq!(submit(&n1, &state, &terms, &update(&n2, &terms)).await.unwrap(), Receipt::Refused, "another one");
    let late = state.decline(&n1, &terms.run, terms.session, Decline::NoData { why: "gone".into() }).await.unwrap();
    assert_eq!(late, Receipt::Accepted, "it was trained again after a restart, in vain");
    assert_eq!(state.run(&terms.run).await.unwrap().attempt.unwrap().updates, 1, "the update stands");
    let unknown = state.decline(&n1, &"other-1".parse().unwrap(), terms.session, Decline::NoData { why: "gone".into() }).await.unwrap();
    assert_eq!(unknown, Receipt::Expired);
    state.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_declining_node_costs_an_attempt_and_a_stop_ends_the_run() {
    let world = World::new();
    let (state, mut lines, terms) = collecting(&world).await;
    let declined = state.decline(&node("n1"), &terms.run, terms.session, Decline::NoData { why: "gone".into() }).await.unwrap();
    assert_eq!(declined, Receipt::Accepted);
    // The minimum is everybody: the attempt is called off, and the next one begins.
    let next = loop {
        match lines[1].next().await.unwrap() {
            Order::Task(task) => {
                let task: Task = serde_json::from_slice(&task).unwrap();
                if task.terms.session != terms.session {
                    break task.terms;
                }
            }
            Order::Withdraw(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((next.round, next.attempt), (1, 2));
    let stopped = state.stop_run(&terms.run, "operator".into()).await.unwrap();
    assert_eq!(stopped.state, run::RunState::Stopped);
    assert_eq!(state.stop_run(&terms.run, "operator".into()).await.unwrap(), stopped, "twice does no harm");
    let n2 = node("n2");
    assert_eq!(submit(&n2, &state, &next, &update(&n2, &next)).await.unwrap(), Receipt::Expired);
    assert!(matches!(lines[1].next().await, Some(Order::Withdraw(_))));
    state.shutdown().await;
    assert!(matches!(lines[1].next().await, Some(Order::Goodbye(_))));
}

/// "Model with an untrainable operator", "unknown key in run.toml": nobody is asked, nothing is stored.
#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_work_is_refused_at_once() {
    let world = World::new();
    let state = world.start().await.unwrap();
    let refuse = async |spec: String, objects: BTreeMap<String, Digest>| {
        state.submit_run(Submission { spec, objects, token: String::new() }).await.unwrap_err().to_string()
    };
    let objects = world.submission().objects;
    assert!(refuse(RUN.replace("rounds", "roundz"), objects.clone()).await.contains("roundz"));
    assert!(refuse(RUN.into(), BTreeMap::new()).await.contains("mlp.onnx"));
    let garbage = state.objects().put(b"not a model").unwrap();
    assert!(refuse(RUN.into(), BTreeMap::from([("mlp.onnx".into(), garbage)])).await.contains("model.file"));
    let missing = BTreeMap::from([("mlp.onnx".into(), Digest::of(b"never stored"))]);
    assert!(refuse(RUN.into(), missing).await.contains("store it first"));
    // Under a budget for each example, what mixes a batch is; what is trained on whole nodes may.
    let mixing = state.objects().put(&zoo::mobilenet([1, 16, 16], 3, 1).encode()).unwrap();
    let mixing = BTreeMap::from([("mlp.onnx".into(), mixing)]);
    let budget = "unit = \"example\"\nepsilon = 8.0\ndelta = 1e-4\nexpected_units = 300\nmechanism = \"central\"";
    let told = refuse(RUN.replace("unit = \"none\"", budget), mixing).await;
    assert!(told.contains("model.file") && told.contains("BatchNormalization") && told.contains("--norm group"), "{told}");
    // A loss graph is looked at as the model is.
    let own = RUN.replace("file = \"mlp.onnx\"", "file = \"mlp.onnx\"\nloss = \"mine.onnx\"");
    assert!(refuse(own.clone(), objects.clone()).await.contains("mine.onnx"));
    let no_loss = state.objects().put(&zoo::scale(&[2], 1.0).encode()).unwrap();
    let told = refuse(own, objects.into_iter().chain([("mine.onnx".to_owned(), no_loss)]).collect()).await;
    assert!(told.contains("model.loss") && told.contains("reads `output` and `target`"), "{told}");
    assert!(Spec::parse(RUN).is_ok());
    assert_eq!(state.runs().await.unwrap(), []);
    state.shutdown().await;
}

/// A graph in the place of the loss goes to the nodes by its digest.
#[tokio::test(start_paused = true)]
async fn a_loss_graph_is_named_in_the_run_by_its_digest() {
    let mut world = World::new();
    world.spec = RUN.replace("file = \"mlp.onnx\"", "file = \"mlp.onnx\"\nloss = \"mine.onnx\"");
    let (state, _lines, terms) = collecting(&world).await;
    let loss = Digest::of(&zoo::cross_entropy().encode());
    assert_eq!(terms.train.loss.digest(), Some(loss));
    assert_eq!(state.objects().read(loss).unwrap(), zoo::cross_entropy().encode());
    state.shutdown().await;
}

/// "A restored old backup of either side": the coordinator forgets what came after its backup, and its nodes do it again.
#[tokio::test(start_paused = true)]
async fn a_restored_backup_of_the_coordinator_goes_on() {
    let world = World::new();
    let (state, lines, terms) = collecting(&world).await;
    let backup = world.store.copy();
    let n1 = node("n1");
    assert_eq!(submit(&n1, &state, &terms, &update(&n1, &terms)).await.unwrap(), Receipt::Accepted);
    state.shutdown().await;
    drop(lines);
    let undisturbed = World::new().finish().await;
    let restored = World { store: backup, ..world };
    let view = restored.finish().await;
    assert_eq!(view.params, undisturbed.params);
}

#[tokio::test(start_paused = true)]
async fn enrolments_are_relayed_and_answered_once() {
    let state = World::new().start().await.unwrap();
    let request = |word: &str| Enrollment {
        id: Digest::of(word.as_bytes()),
        token: "t1".parse().unwrap(),
        node: node("n1"),
        request: word.into(),
        reply: None,
        at: testing::NOW,
    };
    let mut changed = state.enrollments_changed();
    assert_eq!(state.enroll(request("one")).await.unwrap().reply, None);
    assert!(changed.has_changed().unwrap());
    changed.mark_unchanged();
    assert_eq!(state.enroll(request("one")).await.unwrap(), request("one"), "asked again");
    assert!(!changed.has_changed().unwrap());
    let fault = state.enroll(request("other")).await.unwrap_err();
    assert!(matches!(fault, Fault::PeerMisbehaved(Misbehaviour::TokenReused { .. })), "{fault}");
    assert_eq!(state.pending_enrollments().await.unwrap(), [request("one")]);
    assert_eq!(state.answer_enrollment(request("one").id, b"yes".to_vec()).await.unwrap().reply.unwrap(), b"yes");
    assert_eq!(state.answer_enrollment(request("one").id, b"no".to_vec()).await.unwrap().reply.unwrap(), b"yes");
    assert!(state.answer_enrollment(Digest::of(b"?"), b"no".to_vec()).await.is_err());
    assert_eq!(state.enroll(request("one")).await.unwrap().reply.unwrap(), b"yes");
    state.shutdown().await;
}
