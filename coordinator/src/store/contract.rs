//! The contract of [`Store`], run against every backend.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use sapwood_protocol::{Digest, NodeId, ReleaseId, Ticket, Timestamp};

use super::{
    watched::{Fate, Watched},
    *,
};

/// Runs every function of the contract against the store that `$open` gives: `(keep alive, store)`.
macro_rules! store_contract {
    ($backend:ident, $open:expr) => {
        mod $backend {
            use super::*;
            store_contract!(@ $open,
                an_append_is_there_as_a_whole, a_refused_append_leaves_no_trace, one_conflict_does_not_hurt_the_group,
                an_old_epoch_is_fenced, a_lease_is_held_until_it_expires, a_lease_given_back_is_free_at_once,
                letters_are_levels, a_stream_ends_once, a_node_row_is_written_by_who_has_read_it, a_token_enrols_once, requests_for_enrolment_are_bounded,
                a_submission_is_made_once, a_release_never_changes, a_constant_is_set_once, a_thousand_writers_share_commits,
            );
        }
    };
    (@ $open:expr, $($test:ident),* $(,)?) => {$(
        #[tokio::test]
        async fn $test() {
            let (_keep, store) = $open.await;
            super::$test(store).await;
        }
    )*};
}

store_contract!(memory, async { ((), Arc::new(MemoryStore::default()) as Arc<dyn Store>) });
store_contract!(sqlite, async {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("coordinator.db")).await.unwrap();
    (folder, Arc::new(store) as Arc<dyn Store>)
});

const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);

fn soon() -> Timestamp {
    NOW + Duration::from_secs(10)
}

fn stream(name: &str) -> StreamName {
    StreamName::new("run", name)
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn event(payload: &str) -> NewEvent {
    NewEvent { kind: "fact", payload: payload.into() }
}

fn letter(to: &str, topic: &str, body: &'static str) -> Letter {
    Letter { node: node(to), topic: topic.into(), kind: LetterKind::Task, body: Bytes::from_static(body.as_bytes()) }
}

fn append(lease: &Lease, expected: u64, events: &[&str]) -> Append {
    Append {
        lease: lease.clone(),
        expected,
        events: events.iter().map(|payload| event(payload)).collect(),
        letters: Vec::new(),
        summary: None,
        ended: false,
        release: None,
        submitted: None,
        at: NOW,
    }
}

async fn one(store: &Arc<dyn Store>, intent: Intent) -> Result<Done, StoreError> {
    store.write(vec![intent]).await.unwrap().remove(0)
}

async fn put(store: &Arc<dyn Store>, append: Append) -> Result<Done, StoreError> {
    one(store, Intent::Append(Box::new(append))).await
}

async fn lease(store: &Arc<dyn Store>, name: &str) -> Lease {
    let take = Intent::TakeLease { resource: stream(name), holder: "here".into(), now: NOW, expires: soon() };
    match one(store, take).await.unwrap() {
        Done::Leased(lease) => lease,
        other => panic!("{other:?}"),
    }
}

async fn an_append_is_there_as_a_whole(store: Arc<dyn Store>) {
    let lease = lease(&store, "a").await;
    assert_eq!(store.stream(&stream("a")).await.unwrap(), None, "a lease makes no stream");
    let first =
        Append { letters: vec![letter("n1", "round/a", "{}")], summary: Some(b"{\"s\":1}".to_vec()), ..append(&lease, 0, &["1", "2"]) };
    put(&store, first).await.unwrap();
    put(&store, append(&lease, 2, &["3"])).await.unwrap();

    let events = store.events(&stream("a"), 0).await.unwrap();
    let payloads: Vec<_> = events.iter().map(|event| (event.seq, event.payload.as_slice(), event.kind.as_str())).collect();
    assert_eq!(payloads, [(0, b"1".as_slice(), "fact"), (1, b"2", "fact"), (2, b"3", "fact")]);
    assert_eq!(store.events(&stream("a"), 2).await.unwrap().len(), 1);
    assert_eq!(store.events(&stream("other"), 0).await.unwrap(), []);
    let row = store.stream(&stream("a")).await.unwrap().unwrap();
    assert_eq!((row.length, row.live, row.summary.as_slice(), row.created), (3, true, b"{\"s\":1}".as_slice(), NOW));
    assert_eq!(store.letters(&node("n1")).await.unwrap(), [letter("n1", "round/a", "{}")]);
}

async fn a_refused_append_leaves_no_trace(store: Arc<dyn Store>) {
    let lease = lease(&store, "a").await;
    put(&store, append(&lease, 0, &["1"])).await.unwrap();
    for wrong in [0, 2] {
        let stale = Append { letters: vec![letter("n1", "round/a", "{}")], ended: true, ..append(&lease, wrong, &["x"]) };
        assert!(matches!(put(&store, stale).await, Err(StoreError::Conflict { .. })));
    }
    assert_eq!(store.events(&stream("a"), 0).await.unwrap().len(), 1);
    assert_eq!(store.letters(&node("n1")).await.unwrap(), []);
    assert!(store.stream(&stream("a")).await.unwrap().unwrap().live);
}

async fn one_conflict_does_not_hurt_the_group(store: Arc<dyn Store>) {
    let (a, b) = (lease(&store, "a").await, lease(&store, "b").await);
    let group = [append(&a, 0, &["1"]), append(&a, 0, &["again"]), append(&a, 1, &["2"]), append(&b, 7, &["x"]), append(&b, 0, &["1"])];
    let group = group.map(|append| Intent::Append(Box::new(append))).to_vec();
    let verdicts = store.write(group).await.unwrap();
    assert_eq!(verdicts.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true, false, true]);
    assert!(verdicts.iter().flat_map(Result::as_ref).all(|done| *done == Done::Written));
    assert_eq!(store.events(&stream("a"), 0).await.unwrap().len(), 2);
    assert_eq!(store.events(&stream("b"), 0).await.unwrap().len(), 1);
}

async fn an_old_epoch_is_fenced(store: Arc<dyn Store>) {
    let old = lease(&store, "a").await;
    put(&store, append(&old, 0, &["1"])).await.unwrap();
    let new = lease(&store, "a").await;
    assert!(new.epoch > old.epoch);
    assert!(matches!(put(&store, append(&old, 1, &["x"])).await, Err(StoreError::Fenced { .. })));
    let renew = |lease: &Lease| Intent::RenewLease { lease: lease.clone(), expires: soon() };
    assert!(matches!(one(&store, renew(&old)).await, Err(StoreError::Fenced { .. })));
    one(&store, Intent::ReleaseLease(old)).await.unwrap();
    one(&store, renew(&new)).await.unwrap();
    put(&store, append(&new, 1, &["2"])).await.unwrap();
    let forged = Lease { holder: "there".into(), ..new };
    assert!(matches!(put(&store, append(&forged, 2, &["x"])).await, Err(StoreError::Fenced { .. })));
}

async fn a_lease_is_held_until_it_expires(store: Arc<dyn Store>) {
    let mine = lease(&store, "a").await;
    let take = |now| Intent::TakeLease { resource: stream("a"), holder: "there".into(), now, expires: now + Duration::from_secs(10) };
    match one(&store, take(NOW)).await {
        Err(StoreError::Held { holder, until, .. }) => assert_eq!((holder.as_str(), until), ("here", soon())),
        other => panic!("{other:?}"),
    }
    let later = soon() + Duration::from_secs(5);
    one(&store, Intent::RenewLease { lease: mine.clone(), expires: later }).await.unwrap();
    assert!(one(&store, take(soon())).await.is_err(), "it was renewed");
    let Done::Leased(theirs) = one(&store, take(later)).await.unwrap() else { panic!("a lease") };
    assert!(theirs.epoch > mine.epoch);
    assert!(matches!(put(&store, append(&mine, 0, &["x"])).await, Err(StoreError::Fenced { .. })));
}

async fn a_lease_given_back_is_free_at_once(store: Arc<dyn Store>) {
    let mine = lease(&store, "a").await;
    one(&store, Intent::ReleaseLease(mine.clone())).await.unwrap();
    assert!(matches!(put(&store, append(&mine, 0, &["x"])).await, Err(StoreError::Fenced { .. })));
    let take = Intent::TakeLease { resource: stream("a"), holder: "there".into(), now: NOW, expires: soon() };
    assert!(matches!(one(&store, take).await, Ok(Done::Leased(theirs)) if theirs.epoch > mine.epoch));
}

async fn letters_are_levels(store: Arc<dyn Store>) {
    let lease = lease(&store, "a").await;
    let letters = vec![letter("n1", "round/a", "1"), letter("n1", "assignment", "2"), letter("n2", "round/a", "3")];
    put(&store, Append { letters, ..append(&lease, 0, &["1"]) }).await.unwrap();
    put(&store, Append { letters: vec![letter("n1", "round/a", "4")], ..append(&lease, 1, &[]) }).await.unwrap();
    assert_eq!(store.letters(&node("n1")).await.unwrap(), [letter("n1", "assignment", "2"), letter("n1", "round/a", "4")]);
    assert_eq!(store.letters_about("round/a").await.unwrap(), [letter("n1", "round/a", "4"), letter("n2", "round/a", "3")]);
    one(&store, Intent::Forget { topic: "round/a".into() }).await.unwrap();
    assert_eq!(store.letters(&node("n1")).await.unwrap(), [letter("n1", "assignment", "2")]);
    assert_eq!(store.letters(&node("n2")).await.unwrap(), []);
}

async fn a_stream_ends_once(store: Arc<dyn Store>) {
    let (a, b) = (lease(&store, "a").await, lease(&store, "b").await);
    put(&store, append(&a, 0, &["1"])).await.unwrap();
    put(&store, Append { at: soon(), ..append(&b, 0, &["1"]) }).await.unwrap();
    put(&store, Append { ended: true, ..append(&a, 1, &["2"]) }).await.unwrap();
    put(&store, append(&a, 2, &["3"])).await.unwrap();
    let names = |rows: Vec<StreamRow>| rows.into_iter().map(|row| row.name.name().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(store.streams("run", false).await.unwrap()), ["a", "b"]);
    assert_eq!(names(store.streams("run", true).await.unwrap()), ["b"]);
    assert_eq!(names(store.streams("rollout", false).await.unwrap()), Vec::<String>::new());
}

async fn a_node_row_is_written_by_who_has_read_it(store: Arc<dyn Store>) {
    let row = NodeRow {
        name: node("n1"),
        version: 0,
        membership: b"{}".to_vec(),
        labels: BTreeMap::from([("ring".into(), "lab".into())]),
        profile: b"{\"cores\":2}".to_vec(),
        status: None,
        ticket: Some(Ticket::new([1; 16])),
        previous_ticket: None,
        seen: NOW,
    };
    let write = |row: &NodeRow| Intent::PutNode(Box::new(row.clone()));
    one(&store, write(&row)).await.unwrap();
    assert!(matches!(one(&store, write(&row)).await, Err(StoreError::Conflict { .. })), "it has version 1 by now");
    let stored = store.node(&row.name).await.unwrap().unwrap();
    assert_eq!(stored, NodeRow { version: 1, ..row });
    let next = NodeRow { status: Some(b"{}".to_vec()), previous_ticket: stored.ticket, ticket: Some(Ticket::new([2; 16])), ..stored };
    one(&store, write(&next)).await.unwrap();
    assert_eq!(store.nodes().await.unwrap(), [NodeRow { version: 2, ..next }]);
    assert_eq!(store.node(&node("n2")).await.unwrap(), None);
}

async fn a_token_enrols_once(store: Arc<dyn Store>) {
    let request = |word: &str, token: &str| Enrollment {
        id: Digest::of(word.as_bytes()),
        token: token.parse().unwrap(),
        node: node("n1"),
        request: word.as_bytes().to_vec(),
        reply: None,
        at: NOW,
    };
    let enroll = |request: &Enrollment| Intent::Enroll(Box::new(request.clone()));
    let first = request("one", "t1");
    one(&store, enroll(&first)).await.unwrap();
    one(&store, enroll(&Enrollment { at: soon(), ..first.clone() })).await.unwrap();
    assert!(matches!(one(&store, enroll(&request("other", "t1"))).await, Err(StoreError::Conflict { .. })));
    assert_eq!(store.pending_enrollments().await.unwrap(), std::slice::from_ref(&first));
    let answer = |id, reply: &str| Intent::Answer { id, reply: reply.into() };
    one(&store, answer(first.id, "yes")).await.unwrap();
    one(&store, answer(first.id, "no")).await.unwrap();
    assert!(matches!(one(&store, answer(Digest::of(b"?"), "yes")).await, Err(StoreError::Missing { .. })));
    assert_eq!(store.pending_enrollments().await.unwrap(), []);
    assert_eq!(store.enrollment(first.id).await.unwrap().unwrap().reply.unwrap(), b"yes");
}

/// Strangers may ask without a certificate, so what waits for the authority is bounded in number and in time.
async fn requests_for_enrolment_are_bounded(store: Arc<dyn Store>) {
    let request = |n: usize, at: Timestamp| Enrollment {
        id: Digest::of(&n.to_le_bytes()),
        token: format!("t{n}").parse().unwrap(),
        node: node("n1"),
        request: Vec::new(),
        reply: None,
        at,
    };
    let enroll = |n, at| Intent::Enroll(Box::new(request(n, at)));
    let all = (0..Enrollment::MOST_PENDING).map(|n| enroll(n, NOW)).collect();
    assert!(store.write(all).await.unwrap().iter().all(Result::is_ok));
    assert!(matches!(one(&store, enroll(Enrollment::MOST_PENDING, NOW)).await, Err(StoreError::Full { .. })));
    one(&store, enroll(3, NOW)).await.unwrap();
    one(&store, Intent::Answer { id: request(7, NOW).id, reply: b"yes".to_vec() }).await.unwrap();
    one(&store, enroll(Enrollment::MOST_PENDING, NOW)).await.unwrap();
    let later = NOW + Enrollment::PENDING_FOR + Duration::from_secs(1);
    one(&store, enroll(Enrollment::MOST_PENDING + 1, later)).await.unwrap();
    assert_eq!(
        store.pending_enrollments().await.unwrap(),
        [request(Enrollment::MOST_PENDING + 1, later)],
        "the others were never answered"
    );
    assert!(store.enrollment(request(7, NOW).id).await.unwrap().is_some(), "an answer is kept");
}

async fn a_submission_is_made_once(store: Arc<dyn Store>) {
    let (a, b) = (lease(&store, "a").await, lease(&store, "b").await);
    let submitted = |name: &str| Submitted { token: "mine".into(), request: Digest::of(b"spec"), stream: stream(name) };
    put(&store, Append { submitted: Some(submitted("a")), ..append(&a, 0, &["1"]) }).await.unwrap();
    assert!(matches!(
        put(&store, Append { submitted: Some(submitted("b")), ..append(&b, 0, &["1"]) }).await,
        Err(StoreError::Conflict { .. })
    ));
    assert_eq!(store.stream(&stream("b")).await.unwrap(), None);
    assert_eq!(store.submission("mine").await.unwrap(), Some(submitted("a")));
    assert_eq!(store.submission("yours").await.unwrap(), None);
}

async fn a_release_never_changes(store: Arc<dyn Store>) {
    let lease = lease(&store, "a").await;
    let name: ReleaseId = "digits-1".parse().unwrap();
    let release = |document: &str| Some(ReleaseRow { name: name.clone(), document: document.into(), at: NOW });
    put(&store, Append { release: release("1"), ..append(&lease, 0, &["1"]) }).await.unwrap();
    put(&store, Append { release: release("1"), ..append(&lease, 1, &["2"]) }).await.unwrap();
    assert!(matches!(put(&store, Append { release: release("2"), ..append(&lease, 2, &["3"]) }).await, Err(StoreError::Conflict { .. })));
    assert_eq!(store.release(&name).await.unwrap(), release("1"));
    assert_eq!(store.releases().await.unwrap().len(), 1);
}

async fn a_constant_is_set_once(store: Arc<dyn Store>) {
    assert_eq!(store.constant("key", b"first".to_vec()).await.unwrap(), b"first");
    assert_eq!(store.constant("key", b"second".to_vec()).await.unwrap(), b"first");
}

async fn a_thousand_writers_share_commits(store: Arc<dyn Store>) {
    let writes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&writes);
    let counting = Watched::new(Arc::clone(&store), move || {
        count.fetch_add(1, Ordering::Relaxed);
        Fate::Go
    });
    let (writer, task) = Writer::start(Arc::new(counting));
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..1000 {
        let writer = writer.clone();
        waiting.spawn(async move {
            let lease = writer.take_lease(stream(&format!("s{n}")), "here".into(), NOW, soon()).await.unwrap();
            writer.append(append(&lease, 0, &["1"])).await.unwrap();
            // Every tenth one does something stupid in the same breath, and nobody else notices.
            if n % 10 == 0 {
                assert!(writer.append(append(&lease, 0, &["1"])).await.is_err());
            }
        });
    }
    while let Some(done) = waiting.join_next().await {
        done.unwrap();
    }
    drop(writer);
    task.await.unwrap();
    assert_eq!(store.streams("run", true).await.unwrap().len(), 1000);
    let writes = writes.load(Ordering::Relaxed);
    assert!(writes < 100, "2100 intentions took {writes} transactions");
}
