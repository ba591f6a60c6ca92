//! Releases that spread, fail, go back and overtake one another, on nodes that do what they are told, or do not.

use std::time::Duration;

use sapwood_protocol::{
    Digest, ReleaseId, Timestamp,
    release::{
        GateReport, ReleaseRef, Signatures,
        manifest::{PrivacyStatement, RolloutPolicy, Strategy},
        view::{ReleaseView, RolloutView},
    },
};

use super::{
    peer::{Comes, Peer, Serving, peer},
    sweep::{Ending, Played},
    *,
};
use crate::store::{Append, NewEvent, ReleaseRow};

pub(super) fn document(release: &str) -> ReleaseDocument {
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
    let privacy = PrivacyStatement { secure_aggregation: "off".into(), unit: "none".into(), statement: "none".into(), budget: None };
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
async fn released(store: &MemoryStore, document: ReleaseDocument, at: Timestamp) {
    let name = document.reference.release.clone();
    let (writer, _) = Writer::start(Arc::new(store.clone()));
    let lease = writer.take_lease(StreamName::new("test", name.as_str()), "here".into(), at, at).await.unwrap();
    let append = Append {
        lease,
        expected: 0,
        events: vec![NewEvent { kind: "fact", payload: b"1".to_vec() }],
        letters: Vec::new(),
        summary: None,
        ended: true,
        release: Some(ReleaseRow { name, document: document.to_json(), at }),
        submitted: None,
        at,
    };
    writer.append(append).await.unwrap();
}

/// A newer release is committed while this coordinator lives, unless it was before.
async fn publish(world: &World, state: &State, release: &str) {
    if state.release(&release.parse().unwrap()).await.is_err() {
        released(&world.store, document(release), state.now()).await;
        state.0.shop.releases.send_modify(|count| *count += 1);
    }
}

/// Watches a rollout until it is as asked for.
pub(super) async fn until(state: &State, release: &str, enough: impl Fn(&RolloutView) -> bool) -> RolloutView {
    let release: ReleaseId = release.parse().unwrap();
    loop {
        if let Ok(mut watching) = state.watch_rollout(&release).await {
            while let Some(view) = watching.next().await {
                if enough(&view) {
                    return view;
                }
            }
        }
        // It does not exist yet, or the coordinator is about to die.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

pub(super) fn is_over(view: &RolloutView) -> bool {
    view.outcome.is_some()
}

/// A world where release toy-1 is out, and these nodes are enrolled, except for those that come when all is over.
async fn enrolled(peers: &[Peer], change: impl FnOnce(&mut ReleaseDocument)) -> World {
    let world = World::new();
    let state = world.start().await.unwrap();
    for peer in peers.iter().filter(|peer| !matches!(peer.comes, Comes::OnceOver(_))) {
        // Their tickets are lost with the lines; nobody has used them, so the nodes may begin anew.
        drop(state.connect(peer.hello()).await.unwrap());
    }
    state.shutdown().await;
    let mut document = document("toy-1");
    change(&mut document);
    released(&world.store, document, testing::NOW).await;
    world
}

/// Until the rollout of toy-1 has come to rest.
async fn roll_out(fate: Hook, peers: Vec<Peer>, change: impl FnOnce(&mut ReleaseDocument)) -> Played {
    let world = enrolled(&peers, change).await;
    let operate = async |state: &State| {
        let view = until(state, "toy-1", is_over).await;
        Ending::at(state).rollout(view)
    };
    world.lives(Some(fate), peers, operate).await
}

/// Its ring goes back to nothing, but one of its nodes is never heard of again.
pub(super) async fn a_lost_node(fate: Hook) -> Played {
    let peers = vec![
        Peer { serving: Serving::Fails("toy-1"), ..peer("n1", "lab") },
        Peer { serving: Serving::Deaf, ..peer("n2", "lab") },
        peer("n3", "canary"),
    ];
    roll_out(fate, peers, |_| ()).await
}

/// An operator stops it when one ring has passed and the next one is not open.
pub(super) async fn an_abort(fate: Hook) -> Played {
    let peers = vec![Peer { serving: Serving::RunsAndIsStopped, ..peer("n1", "lab") }, peer("n2", "canary")];
    roll_out(fate, peers, |document| document.policy.soak = Duration::ZERO).await
}

/// A node has had newer orders than the coordinator remembers, which was restored from an old backup.
pub(super) async fn an_old_backup(fate: Hook) -> Played {
    let peers = vec![Peer { recalls: 5, comes: Comes::OnceOpen("toy-1"), ..peer("n1", "lab") }, peer("n2", "canary")];
    roll_out(fate, peers, |_| ()).await
}

/// The next release fails in its first ring, which goes back to this one; the other rings never see it.
pub(super) async fn a_bad_successor(fate: Hook) -> Played {
    let fails = |name, ring| Peer { serving: Serving::Fails("toy-2"), ..peer(name, ring) };
    let peers = vec![fails("n1", "lab"), fails("n2", "canary"), fails("n3", "global")];
    let world = enrolled(&peers, |_| ()).await;
    let operate = async |state: &State| {
        let first = until(state, "toy-1", is_over).await;
        publish(&world, state, "toy-2").await;
        let second = until(state, "toy-2", is_over).await;
        assert_eq!(second.previous, Some(first.release.clone()));
        let good = Some(document("toy-1").reference.bundle);
        assert!(state.nodes().iter().all(|node| node.running == good), "{:?}", state.nodes());
        assert!(state.rollout(&"toy-9".parse().unwrap()).await.is_err());
        Ending::at(state).rollout(first).rollout(second)
    };
    world.lives(Some(fate), peers, operate).await
}

/// The next release takes over while this one hangs in its second ring, and a node of its first ring comes when all is over.
pub(super) async fn a_good_successor(fate: Hook) -> Played {
    let peers = vec![
        peer("n1", "lab"),
        Peer { serving: Serving::Ignores("toy-1"), ..peer("n2", "canary") },
        Peer { comes: Comes::OnceOver("toy-2"), ..peer("n3", "lab") },
    ];
    let world = enrolled(&peers, |_| ()).await;
    let operate = async |state: &State| {
        until(state, "toy-1", |view| is_over(view) || view.rings[1].state == "open").await;
        publish(&world, state, "toy-2").await;
        let second = until(state, "toy-2", |view| {
            let nodes: Vec<_> = view.rings.iter().flat_map(|ring| ring.nodes.values()).collect();
            is_over(view) && nodes.len() == 3 && nodes.iter().all(|how| how.starts_with("healthy"))
        });
        let second = second.await;
        let newest = Some(document("toy-2").reference.bundle);
        assert!(state.nodes().iter().all(|node| node.running == newest), "{:?}", state.nodes());
        let first = until(state, "toy-1", is_over).await;
        Ending::at(state).rollout(first).rollout(second)
    };
    world.lives(Some(fate), peers, operate).await
}
