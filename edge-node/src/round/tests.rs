//! Rounds against a real server: fetch, train, submit, and again without training.

use std::sync::Arc;

use sapwood_protocol::{
    membership::Identity,
    round::{Task, Withdrawal},
};

use super::*;
use crate::{
    config::{Rules, Trainer},
    link::channel,
    store::Store,
    testing::{World, member, node},
    train::{
        Budget,
        tests::{data, model, terms, write_data},
    },
};

mod secure;

struct Site {
    world: Arc<World>,
    store: Store,
    /// The authority's word for this node.
    membership: Vec<u8>,
    orders: mpsc::Sender<RoundOrder>,
    task: Task,
    dir: tempfile::TempDir,
}

impl Site {
    async fn new() -> (Self, impl Future<Output = Result<(), Killed>>) {
        let world = World::new();
        let address = format!("localhost:{}", world.listen(false).await.port());
        let channel = channel(&address, world.ca.pem().as_bytes(), Some(world.ca.client())).await.unwrap();
        let (current, link) = Link::new();
        current.send_replace(Some(sapwood_proto::v1::node_client::NodeClient::new(channel)));
        let dir = tempfile::tempdir().unwrap();
        write_data(dir.path(), |_| ());
        let budget = Budget { threads: 1, memory: 1 << 30, nice: 0 };
        let workshop = Workshop::new(budget, Trainer::Model, Some(data(dir.path()))).unwrap();
        let rules = Rules { allow_clear: true, allow_no_noise: true, ..Rules::default() };
        let store = Store::open(&dir.path().join("state")).await.unwrap();
        let books = Books::open(store.clone(), &rules).await.unwrap();
        let identity = Identity::from_pkcs8(&Identity::generate(&ring::rand::SystemRandom::new()).unwrap()).unwrap();
        let membership = member(&world, &node(), identity.key());
        let standing = Standing { signer: Arc::new(identity), membership: membership.clone(), trust: Arc::new(world.trust()) };
        let rounds = Rounds::new(node(), link, standing, books, workshop, Objects::new(dir.path().join("objects")));

        let bytes = model().encode();
        let (layout, params) = sapwood_models::parameters(&model(), &[]).unwrap();
        let mut terms = terms(&bytes, layout.length(), 0.05);
        world.put(bytes);
        terms.params = world.put(params.iter().flat_map(|p| p.to_le_bytes()).collect::<Vec<_>>());
        terms.opened = clock::now();
        terms.deadline = terms.opened + Duration::from_secs(3600);
        let (orders, received) = mpsc::channel(8);
        let driving = async move {
            let _line = current;
            rounds.run(received).await
        };
        (Self { world, store, membership, orders, task: Task { terms }, dir }, driving)
    }
    async fn ask(&self, task: &Task) {
        self.orders.send(RoundOrder::Task(Box::new(task.clone()))).await.unwrap();
    }
    /// The same work in another attempt.
    fn again(&self, n: u8) -> Task {
        let mut task = self.task.clone();
        task.terms.session = SessionId::new([n; 32]);
        task.terms.attempt += u32::from(n);
        task.terms.opened = task.terms.opened + Duration::from_secs(u64::from(n));
        task
    }
}

#[tokio::test]
async fn a_trained_update_is_kept_for_the_next_attempt_and_then_forgotten() {
    let (site, driving) = Site::new().await;
    let driving = tokio::spawn(driving);
    site.ask(&site.task).await;
    let first = site.world.until(|script| script.receipts.first().copied()).await;

    // Now training would fail: what comes in the second attempt was kept.
    write_data(site.dir.path(), |x| x[0] = f32::NAN);
    let withdrawal = Withdrawal { run: site.task.terms.run.clone(), session: site.task.terms.session, keep: true };
    site.orders.send(RoundOrder::Withdraw(withdrawal)).await.unwrap();
    let second = site.again(2);
    site.ask(&second).await;
    let receipts = site.world.until(|script| (script.receipts.len() == 2).then(|| script.receipts.clone())).await;
    assert_eq!(receipts, [first, first]);

    // The round is over; the next one trains anew, on data that is bad by now: that costs this round and no more.
    let over = Withdrawal { run: second.terms.run.clone(), session: second.terms.session, keep: false };
    site.orders.send(RoundOrder::Withdraw(over)).await.unwrap();
    let mut next = site.again(3);
    next.terms.round = 2;
    site.ask(&next).await;
    let declined = site.world.until(|script| script.declined.first().cloned()).await;
    let reason: Decline = sapwood_proto::convert::from_json("decline", &declined.reason).unwrap();
    assert!(matches!(&reason, Decline::BadData { why } if why.contains("row 0")), "{reason}");

    write_data(site.dir.path(), |_| ());
    let mut last = site.again(4);
    last.terms.round = 3;
    site.ask(&last).await;
    site.world.until(|script| (script.receipts.len() == 3).then_some(())).await;
    drop(site.orders);
    driving.await.unwrap().unwrap();
}

#[tokio::test]
async fn two_runs_train_one_after_the_other() {
    let (site, driving) = Site::new().await;
    let driving = tokio::spawn(driving);
    let mut other = site.task.clone();
    other.terms.run = "r2".parse().unwrap();
    other.terms.session = SessionId::new([8; 32]);
    other.terms.train.seed = 99;
    site.ask(&site.task).await;
    site.ask(&other).await;
    let receipts = site.world.until(|script| (script.receipts.len() == 2).then(|| script.receipts.clone())).await;
    assert_ne!(receipts[0], receipts[1]);
    drop(site.orders);
    driving.await.unwrap().unwrap();
}
