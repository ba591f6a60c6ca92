//! The driver under a machine small enough to see through: it collects numbers, each once, and is over when it has them all.

use std::{
    collections::BTreeSet,
    sync::{Mutex, atomic::AtomicBool},
    time::Duration,
};

use bytes::Bytes;
use sapwood_failpoint::{Hook, Point};
use sapwood_protocol::{Cx, Decision, NodeId, Timestamp, fault::Misuse};
use serde::Deserialize;

use super::*;
use crate::{
    store::{
        LetterKind, MemoryStore, StoreError, StreamName,
        watched::{Fate, Watched},
    },
    testing,
};

#[derive(Clone, Debug, PartialEq)]
struct Toy {
    wanted: u32,
    got: BTreeSet<u32>,
    closed: bool,
    due: Option<Timestamp>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Fact {
    Created { wanted: u32 },
    Got { n: u32 },
    Closed,
    Late { at: Timestamp },
}

enum Ask {
    Get(u32),
    Tick,
    /// What an effect says at once.
    Again,
}

enum Deed {
    Tell(u32),
    Echo(u32),
}

const TOY: &[Pair] = &[
    pair("created", "toy.after-commit.created", "toy.before-send.created"),
    pair("got", "toy.after-commit.got", "toy.before-send.got"),
    pair("closed", "toy.after-commit.closed", "toy.before-send.closed"),
    pair("late", "toy.after-commit.late", "toy.before-send.late"),
];

const fn pair(kind: &'static str, after: &'static str, before: &'static str) -> Pair {
    Pair { kind, after_commit: Point::new(after), before_send: Point::new(before) }
}

impl Machine for Toy {
    type Input = Ask;
    type Event = Fact;
    type Effect = Deed;

    fn decide(&self, cx: &mut Cx<'_>, input: Ask) -> Result<Decision<Fact, Deed>, Fault> {
        match input {
            Ask::Get(n) if n >= self.wanted => Err(Misuse::State { what: "number".into(), why: "too large".into() }.into()),
            Ask::Get(n) if self.got.contains(&n) => Ok(Decision::nothing()),
            Ask::Get(n) => Ok(Decision::nothing().event(Fact::Got { n }).effect(Deed::Tell(n)).effect(Deed::Echo(n))),
            Ask::Tick => Ok(Decision::nothing().event(Fact::Late { at: cx.now })),
            // The first number is not enough to close, so the last one closes.
            Ask::Again if self.got.len() == self.wanted as usize && !self.closed => Ok(Decision::nothing().event(Fact::Closed)),
            Ask::Again => Ok(Decision::nothing()),
        }
    }
    fn apply(mut self, event: &Fact) -> Self {
        match event {
            Fact::Created { wanted } => self.wanted = *wanted,
            Fact::Got { n } => drop(self.got.insert(*n)),
            Fact::Closed => self.closed = true,
            Fact::Late { .. } => self.due = None,
        }
        self
    }
    fn recover(&self, _cx: &mut Cx<'_>) -> Decision<Fact, Deed> {
        let effects = self.got.iter().flat_map(|n| [Deed::Tell(*n), Deed::Echo(*n)]).collect();
        Decision { events: Vec::new(), effects }
    }
    fn deadline(&self) -> Option<Timestamp> {
        self.due
    }
}

impl Toy {
    fn new(wanted: u32) -> Self {
        Self { wanted, got: BTreeSet::new(), closed: false, due: None }
    }
}

impl Protocol for Toy {
    const POINTS: &'static [Pair] = TOY;
    fn kind(event: &Fact) -> &'static str {
        match event {
            Fact::Created { .. } => "created",
            Fact::Got { .. } => "got",
            Fact::Closed => "closed",
            Fact::Late { .. } => "late",
        }
    }
    fn restore(events: &[Fact]) -> Result<Self, Fault> {
        Ok(events.iter().fold(Self::new(0), Self::apply))
    }
    fn is_over(&self) -> bool {
        self.closed
    }
    fn tick() -> Ask {
        Ask::Tick
    }
}

#[derive(Clone, Default)]
struct ToyHands {
    done: Arc<Mutex<Vec<u32>>>,
    forgot: Arc<AtomicBool>,
}

impl Hands<Toy> for ToyHands {
    fn letters(&self, _machine: &Toy, effects: &[Deed]) -> Vec<Letter> {
        let told = effects.iter().filter_map(|deed| if let Deed::Tell(n) = deed { Some(*n) } else { None });
        told.map(|n| Letter { node: node(n), topic: "toy".into(), kind: LetterKind::Task, body: Bytes::from_static(b"1") }).collect()
    }
    fn index(&self, _machine: &Toy, _events: &[Fact]) -> Index {
        Index::default()
    }
    async fn perform(&mut self, _machine: &Toy, effect: Deed) -> Result<Vec<Ask>, Killed> {
        Ok(match effect {
            Deed::Tell(_) => Vec::new(),
            Deed::Echo(n) => {
                self.done.lock().unwrap().push(n);
                vec![Ask::Again]
            }
        })
    }
    fn adopted(&mut self, _machine: &Arc<Toy>) {}
    fn forget(&mut self) {
        self.forgot.store(true, std::sync::atomic::Ordering::Relaxed);
    }
    fn roster(&self, _machine: &Toy) -> Option<Ask> {
        None
    }
}

const WANTED: u32 = 4;

fn node(n: u32) -> NodeId {
    format!("n{n}").parse().unwrap()
}

fn name() -> StreamName {
    StreamName::new("toy", "t")
}

async fn start(
    cx: &Context,
    hands: ToyHands,
    mailbox: mpsc::Receiver<Mail<Ask>>,
) -> Result<Result<Actor<Toy, ToyHands>, StoreError>, Killed> {
    if cx.store.stream(&name()).await.unwrap().is_some() {
        return Ok(Actor::open(cx.clone(), name(), hands, mailbox).await);
    }
    let first = Fact::Created { wanted: WANTED };
    Actor::create(cx.clone(), name(), Toy::new(WANTED), first, hands, mailbox, None).await
}

/// One life of the process on `store`: asks for every number until the toy is over or the process is dead.
async fn life(store: Arc<dyn Store>) -> Result<(), Killed> {
    let cx = testing::context(store).await;
    let (address, mailbox) = Address::new();
    let actor = start(&cx, ToyHands::default(), mailbox).await?.unwrap();
    let (over, ended) = oneshot::channel();
    cx.life.spawn(async move {
        let end = actor.run(true).await?;
        let _ = over.send(end);
        Ok(())
    });
    let asking = async {
        // Whoever gets no answer asks again.
        for n in (0..WANTED).cycle() {
            if address.ask(Ask::Get(n)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    tokio::select! {
        biased;
        killed = cx.life.killed() => Err(killed),
        end = ended => { assert!(matches!(end, Ok(End::Over)), "{end:?}"); Ok(()) }
        () = asking => unreachable!("it asks for ever"),
    }
}

async fn state_of(store: &dyn Store) -> Toy {
    load::<Toy>(store, &name()).await.unwrap().0
}

#[tokio::test(start_paused = true)]
async fn killed_anywhere_it_goes_on_and_counts_once() {
    let mut kills = 0;
    for point in TOY.iter().flat_map(|pair| [pair.after_commit, pair.before_send]) {
        for nth in 1.. {
            let store = Arc::new(MemoryStore::default());
            let outcome = Hook::kill_at(point.name(), nth).scope(life(store.clone())).await;
            match outcome {
                Ok(()) => break,
                Err(killed) => assert_eq!(&*killed.point, point.name()),
            }
            kills += 1;
            life(store.clone()).await.expect("nothing kills the second life");
            let toy = state_of(&*store).await;
            assert_eq!(toy.got, (0..WANTED).collect(), "{point} {nth}");
            let events = store.events(&name(), 0).await.unwrap();
            assert_eq!(events.len(), WANTED as usize + 2, "each fact once: {point} {nth}");
            for n in 0..WANTED {
                assert_eq!(store.letters(&node(n)).await.unwrap().len(), 1, "what was decided was told");
            }
        }
    }
    assert_eq!(kills, 2 * (WANTED as usize + 2), "every visit of every point but the two of `late`, which no life comes by");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_read_back() {
    for spoiled in [Fate::Fail, Fate::FailAfter] {
        for at in 3..8 {
            let store = Arc::new(MemoryStore::default());
            let writes = std::sync::atomic::AtomicUsize::new(0);
            let fate = move || if writes.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == at { spoiled } else { Fate::Go };
            let watched = Arc::new(Watched::new(store.clone(), fate));
            life(watched).await.unwrap();
            assert_eq!(state_of(&*store).await.got, (0..WANTED).collect(), "{spoiled:?} at {at}");
            assert_eq!(store.events(&name(), 0).await.unwrap().len(), WANTED as usize + 2, "{spoiled:?} at {at}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_asked_into_a_failing_store_is_told_to_ask_again() {
    let failing = Arc::new(AtomicBool::new(false));
    let fails = Arc::clone(&failing);
    let fate = move || if fails.load(std::sync::atomic::Ordering::Relaxed) { Fate::Fail } else { Fate::Go };
    let cx = testing::context(Arc::new(Watched::new(Arc::new(MemoryStore::default()), fate))).await;
    let (address, mailbox) = Address::new();
    let hands = ToyHands::default();
    let actor = start(&cx, hands.clone(), mailbox).await.unwrap().unwrap();
    let driven = tokio::spawn(actor.run(false));
    address.ask(Ask::Get(0)).await.unwrap();
    assert!(matches!(address.ask(Ask::Get(99)).await, Err(Fault::Misuse(_))), "a refusal is an answer");

    failing.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(address.ask(Ask::Get(1)).await, Err(Fault::Unavailable(_))));
    let waiting = tokio::spawn({
        let address = address.clone();
        async move { address.ask(Ask::Get(1)).await }
    });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!waiting.is_finished(), "nothing goes on while nothing can be written");
    failing.store(false, std::sync::atomic::Ordering::Relaxed);
    waiting.await.unwrap().unwrap();
    assert!(hands.forgot.load(std::sync::atomic::Ordering::Relaxed), "what was in memory is not trusted");
    for n in 2..WANTED {
        address.ask(Ask::Get(n)).await.unwrap();
    }
    assert!(matches!(driven.await.unwrap(), Ok(End::Over)));
    assert!(address.ask(Ask::Get(0)).await.is_err(), "nobody is there any more");
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_lost_its_lease_stops() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let cx = testing::context(store.clone()).await;
    let (old, mailbox) = Address::new();
    let first = start(&cx, ToyHands::default(), mailbox).await.unwrap().unwrap();
    let first = tokio::spawn(first.run(false));
    old.ask(Ask::Get(0)).await.unwrap();
    let (new, mailbox) = Address::new();
    let second = start(&cx, ToyHands::default(), mailbox).await.unwrap().unwrap();
    let second = tokio::spawn(second.run(true));
    assert!(matches!(old.ask(Ask::Get(1)).await, Err(Fault::Unavailable(Lack::Lease { .. }))));
    assert!(matches!(first.await.unwrap(), Ok(End::Lost(StoreError::Fenced { .. }))));
    for n in 0..WANTED {
        new.ask(Ask::Get(n)).await.unwrap();
    }
    assert!(matches!(second.await.unwrap(), Ok(End::Over)));
    assert_eq!(state_of(&*store).await.got.len(), WANTED as usize);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_met_on_the_clock_and_once() {
    let cx = testing::context(Arc::new(MemoryStore::default())).await;
    let (address, mailbox) = Address::new();
    let due = testing::NOW + Duration::from_secs(7200);
    let toy = Toy { due: Some(due), ..Toy::new(WANTED) };
    let actor = Actor::create(cx.clone(), name(), toy, Fact::Created { wanted: WANTED }, ToyHands::default(), mailbox, None).await;
    let driven = tokio::spawn(actor.unwrap().unwrap().run(false));
    tokio::time::sleep(Duration::from_secs(7199)).await;
    assert_eq!(cx.store.events(&name(), 0).await.unwrap().len(), 1);
    tokio::time::sleep(Duration::from_secs(7200)).await;
    let events = cx.store.events(&name(), 1).await.unwrap();
    assert_eq!(events.len(), 1);
    let Fact::Late { at } = serde_json::from_slice(&events[0].payload).unwrap() else { panic!("{events:?}") };
    assert!(at >= due && at < due + Duration::from_secs(1), "{at}");
    drop(address);
    assert!(matches!(driven.await.unwrap(), Ok(End::Stopped)));
}
