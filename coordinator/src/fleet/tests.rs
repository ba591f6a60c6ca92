use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use sapwood_protocol::{
    fault::Misbehaviour,
    membership::{Identity, IdentityKey, Membership},
    rollout::Health,
};

use super::*;
use crate::{
    drive::Context,
    store::{Append, Intent, MemoryStore, NewEvent, StreamName},
    testing,
};

fn name(node: &str) -> NodeId {
    node.parse().unwrap()
}

async fn process(store: &MemoryStore) -> Context {
    testing::context(Arc::new(store.clone())).await
}

async fn connect(cx: &Context, node: &str, ticket: Option<Ticket>) -> Result<(Ticket, Orders), Fault> {
    connect_as(cx, node, ticket, b"{}".to_vec()).await
}

async fn connect_as(cx: &Context, node: &str, ticket: Option<Ticket>, membership: Vec<u8>) -> Result<(Ticket, Orders), Fault> {
    let hello = NodeHello {
        node: name(node),
        membership,
        labels: BTreeMap::from([("ring".into(), "lab".into())]),
        ticket,
        profile: testing::profile(),
        key: Vec::new(),
        status: None,
    };
    cx.fleet.connect(hello, &mut *testing::secrets()).await
}

fn status(assignment: u64) -> NodeStatus {
    NodeStatus { assignment, running: None, health: Health::Healthy }
}

fn letter(node: &str, topic: &str, body: &str) -> Letter {
    Letter { node: name(node), topic: topic.into(), kind: LetterKind::Task, body: Bytes::copy_from_slice(body.as_bytes()) }
}

/// Commits and posts, as a driver does.
async fn tell(cx: &Context, stream: &str, letters: Vec<Letter>) {
    let resource = StreamName::new("run", stream);
    let now = cx.clock.now();
    let lease = cx.writer.take_lease(resource.clone(), "here".into(), now, now).await.unwrap();
    let expected = cx.store.stream(&resource).await.unwrap().map_or(0, |row| row.length);
    let events = vec![NewEvent { kind: "fact", payload: b"1".to_vec() }];
    let (summary, release, submitted) = (None, None, None);
    let append = Append { lease, expected, events, letters: letters.clone(), summary, ended: false, release, submitted, at: now };
    cx.writer.write(Intent::Append(Box::new(append))).await.unwrap();
    cx.fleet.post(letters);
}

fn task(body: &'static str) -> Option<Order> {
    Some(Order::Task(Bytes::from_static(body.as_bytes())))
}

#[tokio::test(start_paused = true)]
async fn orders_are_levels_that_come_again_after_a_reconnection() {
    let store = MemoryStore::default();
    let cx = process(&store).await;
    let (ticket, mut orders) = connect(&cx, "n1", None).await.unwrap();
    tell(&cx, "a", vec![letter("n1", "round/a", "1"), letter("n2", "round/a", "x")]).await;
    assert_eq!(orders.next().await, task("1"));
    tell(&cx, "a", vec![letter("n1", "round/a", "2")]).await;
    tell(&cx, "a", vec![letter("n1", "round/a", "3")]).await;
    tell(&cx, "b", vec![letter("n1", "round/b", "4")]).await;
    assert_eq!(orders.next().await, task("3"), "what was replaced is not sent");
    assert_eq!(orders.next().await, task("4"));
    drop(orders);
    tell(&cx, "a", vec![letter("n1", "round/a", "5")]).await;

    // Another process on the same store, as after a crash.
    let cx = process(&store).await;
    let (_, mut orders) = connect(&cx, "n1", Some(ticket)).await.unwrap();
    assert_eq!(orders.next().await, task("5"));
    assert_eq!(orders.next().await, task("4"));
    cx.life.stop();
    assert!(matches!(orders.next().await, Some(Order::Goodbye(_))));
    assert_eq!(orders.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn who_is_here_is_known_and_changes_are_told() {
    let cx = process(&MemoryStore::default()).await;
    let mut changes = cx.fleet.changes();
    let (ticket, orders) = connect(&cx, "n1", None).await.unwrap();
    assert!(changes.has_changed().unwrap());
    assert_eq!(cx.fleet.trainers(), [name("n1")]);
    let (_, mut newer) = connect(&cx, "n1", Some(ticket)).await.unwrap();
    changes.mark_unchanged();
    drop(orders);
    assert!(!changes.has_changed().unwrap(), "the older line was replaced already");
    assert!(cx.fleet.node(&name("n1")).unwrap().connected);
    tell(&cx, "a", vec![letter("n1", "round/a", "1")]).await;
    assert_eq!(newer.next().await, task("1"));
    drop(newer);
    assert!(changes.has_changed().unwrap());
    assert_eq!(cx.fleet.trainers(), []);
    let info = cx.fleet.node(&name("n1")).unwrap();
    assert_eq!((info.connected, info.ring.unwrap().as_str()), (false, "lab"));
    assert!(cx.fleet.node(&name("n9")).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_replaced_line_ends() {
    let cx = process(&MemoryStore::default()).await;
    let (ticket, mut orders) = connect(&cx, "n1", None).await.unwrap();
    let (_, _newer) = connect(&cx, "n1", Some(ticket)).await.unwrap();
    assert_eq!(orders.next().await, None);
}

/// A membership of `n1`: the first byte of its identity, and when it was issued.
fn membership(identity: u8, issued: u64) -> Vec<u8> {
    let key = Identity::generate(&ring::rand::SystemRandom::new()).unwrap();
    let authority = Identity::from_pkcs8(&key).unwrap();
    let issued = Timestamp::from_millis(issued);
    let statement = Membership {
        population: "shops".parse().unwrap(),
        node: name("n1"),
        identity: IdentityKey::from_bytes([identity; 32]),
        labels: BTreeMap::new(),
        issued,
        expires: issued + Duration::from_secs(60),
    };
    serde_json::to_vec(&statement.sign(&authority)).unwrap()
}

/// Found with real processes: a node whose state was lost and that enrolled again was taken for a clone for ever.
#[tokio::test(start_paused = true)]
async fn a_node_that_enrolled_anew_begins_afresh() {
    let cx = process(&MemoryStore::default()).await;
    let (first, _orders) = connect_as(&cx, "n1", None, membership(1, 1000)).await.unwrap();
    let (lost, _orders) = connect_as(&cx, "n1", Some(first), membership(1, 1000)).await.unwrap();
    cx.fleet.report(&name("n1"), Some(lost), status(0)).await.unwrap();
    assert!(connect_as(&cx, "n1", None, membership(1, 2000)).await.is_err(), "the same identity without its state");
    assert!(connect_as(&cx, "n1", None, membership(2, 500)).await.is_err(), "an older membership");
    let (anew, _orders) = connect_as(&cx, "n1", None, membership(2, 2000)).await.unwrap();
    assert!(connect_as(&cx, "n1", Some(lost), membership(1, 1000)).await.is_err(), "what was lost has turned up elsewhere");
    assert!(connect_as(&cx, "n1", Some(anew), membership(2, 2000)).await.is_ok());
}

/// "A cloned identity": whoever comes second with a state that the other has moved on from is refused.
#[tokio::test(start_paused = true)]
async fn a_clone_is_refused_once_the_original_has_spoken() {
    let store = MemoryStore::default();
    let cx = process(&store).await;
    let (first, _orders) = connect(&cx, "n1", None).await.unwrap();
    let (second, _orders) = connect(&cx, "n1", Some(first)).await.unwrap();
    // It may not have received the second one; what was under way on its older line confirms nothing.
    cx.fleet.report(&name("n1"), Some(first), status(0)).await.unwrap();
    let (third, _orders) = connect(&cx, "n1", Some(first)).await.unwrap();
    cx.fleet.report(&name("n1"), Some(third), status(0)).await.unwrap();
    for copied in [Some(first), Some(second), None] {
        let Err(fault) = connect(&cx, "n1", copied).await else { panic!("{copied:?} was accepted") };
        assert!(matches!(fault, Fault::PeerMisbehaved(Misbehaviour::ClonedIdentity { .. })), "{fault}");
    }
    // The coordinator's own restart forgets nothing of this.
    let cx = process(&store).await;
    assert!(connect(&cx, "n1", Some(second)).await.is_err());
    assert!(connect(&cx, "n1", Some(third)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn reports_and_orders_are_remembered() {
    let store = MemoryStore::default();
    let cx = process(&store).await;
    let (_, _orders) = connect(&cx, "n1", None).await.unwrap();
    cx.fleet.report(&name("n1"), None, status(3)).await.unwrap();
    assert!(cx.fleet.report(&name("n9"), None, status(3)).await.is_err());
    let order = serde_json::to_vec(&Assignment { version: 7, release: None }).unwrap();
    let order = Letter { kind: LetterKind::Assignment, body: order.into(), ..letter("n1", ASSIGNMENT, "") };
    tell(&cx, "a", vec![order]).await;
    for cx in [cx, process(&store).await] {
        let [view] = &cx.fleet.views()[..] else { panic!("one node") };
        assert_eq!(view.assignment, 7);
        assert_eq!(cx.fleet.node(&name("n1")).unwrap().assignment, 3, "what it has confirmed");
    }
}
