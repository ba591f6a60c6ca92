//! A release spreads over nodes that do what they are told, while the coordinator dies at every point on the way.

use std::{collections::BTreeSet, time::Duration};

use sapwood_failpoint::Hook;
use sapwood_protocol::{
    NodeId, ReleaseId, Timestamp,
    release::{
        GateReport, ReleaseRef, Signatures,
        manifest::{PrivacyStatement, RolloutPolicy, Strategy},
        view::{ReleaseView, RolloutView},
    },
    rollout::{Assignment, Health, NodeStatus, Outcome},
};

use super::*;
use crate::store::{Append, NewEvent, ReleaseRow};

const FLEET: [(&str, &str); 3] = [("n1", "lab"), ("n2", "canary"), ("n3", "global")];

fn document(release: &str) -> ReleaseDocument {
    let release: ReleaseId = release.parse().unwrap();
    let (bundle, manifest) = (Digest::of(release.as_str().as_bytes()), Digest::of(b"manifest"));
    let class: sapwood_protocol::DeviceClass = "x86_64".parse().unwrap();
    let reference = ReleaseRef {
        release: release.clone(),
        bundle,
        bundle_bytes: 10,
        unpacked_bytes: 20,
        manifest,
        manifest_bytes: 5,
        signatures: Signatures::default(),
        class: class.clone(),
        min_runtime: "1.24.0".parse().unwrap(),
    };
    let privacy = PrivacyStatement { secure_aggregation: "off".into(), unit: "none".into(), statement: "none".into() };
    let view = ReleaseView {
        release,
        digest: bundle,
        manifest,
        bytes: 10,
        signatures: Signatures::default(),
        class,
        run: "toy-1".parse().unwrap(),
        created: testing::NOW,
        gates: GateReport { gates: Vec::new() },
        privacy,
    };
    let rings = ["lab", "canary", "region", "global"].map(|ring| ring.parse().unwrap()).to_vec();
    let policy =
        RolloutPolicy { strategy: Strategy::Rings, rings, soak: Duration::from_secs(60), health_timeout: Duration::from_secs(3600) };
    ReleaseDocument { view, reference, policy }
}

/// Commits a release as the last event of its run does.
async fn released(store: &MemoryStore, release: &str, at: Timestamp) {
    let (writer, _) = Writer::start(Arc::new(store.clone()));
    let lease = writer.take_lease(StreamName::new("test", release), "here".into(), at, at).await.unwrap();
    let document = document(release);
    let append = Append {
        lease,
        expected: 0,
        events: vec![NewEvent { kind: "fact", payload: b"1".to_vec() }],
        letters: Vec::new(),
        summary: None,
        ended: true,
        release: Some(ReleaseRow { name: document.reference.release.clone(), document: document.to_json(), at }),
        submitted: None,
        at,
    };
    writer.append(append).await.unwrap();
}

/// A node that runs whatever it is told, except what is known to fail.
async fn runner(name: NodeId, ring: &'static str, mut known: watch::Receiver<Option<State>>, fails: BTreeSet<Digest>) {
    let mut ticket = None;
    let mut status = NodeStatus { assignment: 0, running: None, health: Health::Healthy };
    loop {
        let Ok(state) = known.wait_for(Option::is_some).await.map(|state| state.clone().unwrap()) else { return };
        let serving = async {
            let labels = BTreeMap::from([("ring".into(), ring.into())]);
            let hello = NodeHello { labels, status: Some(status.clone()), ..hello(&name, ticket) };
            let Ok((next, mut orders)) = state.connect(hello).await else { return };
            ticket = Some(next);
            while let Some(order) = orders.next().await {
                let Order::Assignment(assignment) = order else { continue };
                let assignment: Assignment = serde_json::from_slice(&assignment).unwrap();
                if assignment.version <= status.assignment {
                    assert_eq!(assignment.version, status.assignment, "{name}: an order of the past");
                    continue;
                }
                let told = assignment.release.map(|release| release.bundle);
                let health = if told.is_some_and(|told| fails.contains(&told)) {
                    Health::Unhealthy { why: "it answers wrongly".into() }
                } else {
                    status.running = told;
                    Health::Healthy
                };
                status = NodeStatus { assignment: assignment.version, health, ..status.clone() };
                if state.report(&name, None, status.clone()).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            _ = state.killed() => {}
            () = serving => {}
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Until the rollout has come to rest; how it did, how many deaths that took, and what then runs where.
async fn roll_out(world: &World, release: &str, hook: Option<Hook>, fails: &BTreeSet<Digest>) -> (RolloutView, usize, Vec<Option<Digest>>) {
    let release: ReleaseId = release.parse().unwrap();
    let (coordinator, known) = watch::channel(None);
    let mut nodes = JoinSet::new();
    for (name, ring) in FLEET {
        nodes.spawn(runner(name.parse().unwrap(), ring, known.clone(), fails.clone()));
    }
    let life = async || -> Result<(RolloutView, Vec<Option<Digest>>), Killed> {
        let state = match world.start().await {
            Ok(state) => state,
            Err(CoordinatorError::Killed(killed)) => return Err(killed),
            Err(error) => panic!("{error:?}"),
        };
        coordinator.send_replace(Some(state.clone()));
        let outcome = tokio::select! {
            biased;
            killed = state.killed() => Err(killed),
            view = async {
                // All nodes must be known before the first ring opens, or it would be empty.
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    let Ok(mut watching) = state.watch_rollout(&release).await else { continue };
                    while let Some(view) = watching.next().await {
                        if view.outcome.is_some() {
                            return view;
                        }
                    }
                }
            } => Ok((view, state.nodes().into_iter().map(|node| node.running).collect())),
        };
        coordinator.send_replace(None);
        if outcome.is_ok() {
            state.shutdown().await;
        }
        outcome
    };
    let mut hook = hook;
    for deaths in 0.. {
        let lived = match hook.take() {
            Some(hook) => hook.scope(life()).await,
            None => life().await,
        };
        if let Ok((view, running)) = lived {
            return (view, deaths, running);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    unreachable!("it lives until the rollout has come to rest")
}

/// A world whose nodes are enrolled.
async fn fleet() -> World {
    let world = World::new();
    let state = world.start().await.unwrap();
    for (name, ring) in FLEET {
        let labels = BTreeMap::from([("ring".into(), ring.into())]);
        // Their tickets are lost with the lines; nobody has used them, so the nodes may begin anew.
        drop(state.connect(NodeHello { labels, ..hello(&name.parse().unwrap(), None) }).await.unwrap());
    }
    state.shutdown().await;
    world
}

#[tokio::test(start_paused = true)]
async fn killed_at_every_point_a_release_reaches_every_ring() {
    let digest = Some(document("toy-1").reference.bundle);
    let mut deaths = 0;
    for point in failpoints() {
        for nth in 1..=4 {
            let world = fleet().await;
            released(&world.store, "toy-1", testing::NOW).await;
            let (view, died, running) = roll_out(&world, "toy-1", Some(Hook::kill_at(point.name(), nth)), &BTreeSet::new()).await;
            assert!(matches!(view.outcome, Some(Outcome::Completed { nodes: 3 })), "{point} {nth}: {view:?}");
            assert_eq!(running, [digest; 3], "{point} {nth}");
            deaths += died;
            if died == 0 {
                break;
            }
        }
    }
    // created, started, ring-opened ×3, ring-skipped, node-confirmed ×3, ring-passed ×3, completed; before and after.
    assert_eq!(deaths, 2 * 13);
}

#[tokio::test(start_paused = true)]
async fn a_failing_ring_goes_back_and_the_others_never_see_it() {
    let mut world = fleet().await;
    released(&world.store, "toy-1", testing::NOW).await;
    let good = document("toy-1").reference.bundle;
    let bad = document("toy-2").reference.bundle;
    let (view, _, _) = roll_out(&world, "toy-1", None, &BTreeSet::new()).await;
    assert!(matches!(view.outcome, Some(Outcome::Completed { nodes: 3 })), "{view:?}");
    // The same fleet with new state: the nodes' own memory is not kept by this test.
    world = World { store: without_tickets(&world.store).await, ..world };
    released(&world.store, "toy-2", testing::NOW + Duration::from_secs(1)).await;
    let (view, _, running) = roll_out(&world, "toy-2", None, &BTreeSet::from([bad])).await;
    assert!(matches!(&view.outcome, Some(Outcome::RolledBack { ring }) if ring.as_str() == "lab"), "{view:?}");
    assert_eq!(view.previous.as_ref().map(ReleaseId::as_str), Some("toy-1"));
    assert_eq!(running, [Some(good); 3]);
    let state = world.start().await.unwrap();
    assert!(state.rollout(&"toy-1".parse().unwrap()).await.unwrap().outcome.is_some());
    assert!(state.rollout(&"toy-9".parse().unwrap()).await.is_err());
    state.shutdown().await;
}

/// The store as if no node had ever connected with a ticket.
async fn without_tickets(store: &MemoryStore) -> MemoryStore {
    let copy = store.copy();
    let (writer, _) = Writer::start(Arc::new(copy.clone()));
    for row in copy.nodes().await.unwrap() {
        writer.put_node(crate::store::NodeRow { ticket: None, previous_ticket: None, ..row }).await.unwrap();
    }
    copy
}
