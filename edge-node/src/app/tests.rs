//! A whole node against a server on loopback: from the token to an update, to a stop, to a death, and on.
#![allow(clippy::print_stdout, reason = "a test tells how many points it has killed at")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use sapwood_failpoint::Hook;
use sapwood_protocol::{
    Digest, SessionId,
    release::{sign::SigningKey, verify::ReleaseTrust},
    round::Task,
};
use tokio::sync::oneshot;

use super::*;
use crate::{
    points::POINTS,
    testing::{World, node},
    train::tests::{model, terms, write_data},
};

struct Site {
    world: Arc<World>,
    dir: tempfile::TempDir,
    address: SocketAddr,
}

impl Site {
    async fn new() -> Self {
        let world = World::new();
        let address = world.listen(false).await;
        let dir = tempfile::tempdir().unwrap();
        let random = ring::rand::SystemRandom::new();
        let key = SigningKey::from_pkcs8(&SigningKey::generate(&random).unwrap(), &random).unwrap();
        let trust = TrustFile { release: ReleaseTrust { threshold: 1, keys: vec![key.verifying_key()] }, ..world.trust() };
        std::fs::write(dir.path().join("trust.toml"), trust.to_toml().unwrap()).unwrap();
        write_data(&dir.path().join("records"), |_| ());
        Self { world, dir, address }
    }

    fn config(&self, token: bool) -> Config {
        let port = self.address.port();
        let token = if token { format!("[enrollment]\ntoken = \"{}\"\n", *self.world.token.reveal()) } else { String::new() };
        let text = format!(
            "name = \"{}\"\ncoordinator = \"localhost:{port}\"\ntrust = \"trust.toml\"\nstate_dir = \"state\"\n{token}\
             [data]\nsource = \"records\"\n[train]\nthreads = 1\nnice = 0\n\
             [policy]\nallow_clear = true\nallow_no_noise = true\n",
            node()
        );
        Config::parse(&text, self.dir.path()).unwrap()
    }

    /// Runs a node while `during` lasts.
    async fn run(&self, token: bool, during: impl Future<Output = ()>) -> Result<(), NodeError> {
        let (ready, is_ready) = oneshot::channel();
        let shutdown = async {
            let ready: Ready = is_ready.await.unwrap();
            assert!(ready.serving.port() != 0);
            during.await;
        };
        run(self.config(token), |r| ready.send(r).unwrap(), shutdown).await
    }

    /// The node's next line.
    async fn line(&self, connection: usize) -> mpsc::Sender<Result<sapwood_proto::v1::Instruction, tonic::Status>> {
        self.world.until(|script| script.line.clone().filter(|_| script.hellos.len() >= connection)).await
    }

    fn task(&self, n: u8) -> Task {
        let bytes = model().encode();
        let (layout, params) = sapwood_models::parameters(&model(), &[]).unwrap();
        let mut terms = terms(&bytes, layout.length(), 0.05);
        self.world.put(bytes);
        terms.params = self.world.put(params.iter().flat_map(|p| p.to_le_bytes()).collect::<Vec<_>>());
        terms.session = SessionId::new([n; 32]);
        terms.opened = crate::clock::now();
        terms.deadline = terms.opened + Duration::from_secs(3600);
        Task { terms }
    }

    async fn ask(&self, connection: usize, task: &Task) {
        let kind = sapwood_proto::v1::instruction::Kind::Task(convert::to_json(task));
        self.line(connection).await.send(Ok(sapwood_proto::v1::Instruction { kind: Some(kind) })).await.unwrap();
    }
}

/// A node enrols, trains, submits and stops when asked to; the next start needs no token and trains to the same bytes.
#[tokio::test]
async fn a_node_lives_stops_and_lives_again() {
    let site = Site::new().await;
    site.run(true, async {
        site.ask(1, &site.task(1)).await;
        site.world.until(|script| (script.receipts.len() == 1).then_some(())).await;
    })
    .await
    .unwrap();
    site.run(false, async {
        site.ask(2, &site.task(2)).await;
        site.world.until(|script| (script.receipts.len() == 2).then_some(())).await;
    })
    .await
    .unwrap();
    let (receipts, enrolled, hellos) = site.world.script(|script| (script.receipts.clone(), script.enrolled.len(), script.hellos.clone()));
    assert_eq!(receipts[0], receipts[1]);
    assert_eq!(enrolled, 1);
    assert!(hellos[0].ticket.is_empty() && hellos[1].ticket[..] == [1; 16]);
    assert!(hellos[0].profile.as_ref().unwrap().trains);
}

/// R12, R35: a coordinator that is away is no reason to end.
#[tokio::test]
async fn a_node_without_a_coordinator_waits() {
    let mut site = Site::new().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    site.address = nobody;
    site.run(true, async {}).await.unwrap();
}

#[tokio::test]
async fn what_a_person_must_mend_is_said() {
    let site = Site::new().await;
    let error = site.run(false, std::future::pending()).await.unwrap_err();
    assert!(matches!(error, NodeError::Identity(identity::IdentityError::NoToken)), "{error}");
    let mut config = site.config(true);
    config.enrollment.token = Some(crate::config::Secret::new("sw1.nonsense"));
    let error = run(config, |_| (), std::future::pending()).await.unwrap_err();
    assert!(matches!(&error, NodeError::Token { .. }) && !error.to_string().contains("nonsense"), "{error}");
    std::fs::write(site.dir.path().join("trust.toml"), "population = 1").unwrap();
    let error = run(site.config(true), |_| (), std::future::pending()).await.unwrap_err();
    assert!(matches!(error, NodeError::Trust { .. }), "{error}");
}

impl Site {
    /// A coordinator that has two tasks, one after the other, and says the present one again after each connection. Returns
    /// when it has both updates and the node has come back with the certificate that it was given in exchange for its first.
    async fn coordinate(&self) {
        let (first, mut second) = (self.task(1), self.task(2));
        second.terms.round = 2;
        let tasks = [first, second];
        let mut said = (0, 0);
        loop {
            let (now, line) = self
                .world
                .until(|script| {
                    let now = (script.hellos.len(), updates(&script.receipts).len());
                    script.line.clone().filter(|_| now != said).map(|line| (now, line))
                })
                .await;
            said = now;
            match tasks.get(now.1) {
                Some(Task { terms }) => {
                    let json = convert::to_json(&Task { terms: terms.clone() });
                    let kind = sapwood_proto::v1::instruction::Kind::Task(json);
                    // If the line is gone, the node comes back.
                    let _ = line.send(Ok(sapwood_proto::v1::Instruction { kind: Some(kind) })).await;
                }
                None if now.0 >= 2 => return,
                None => {}
            }
        }
    }
}

/// Each update once, however often it was sent.
fn updates(receipts: &[Digest]) -> Vec<Digest> {
    let mut updates = receipts.to_vec();
    updates.dedup();
    updates
}

/// A node from its token to its second update; `death`: where its first life ends.
async fn life(death: Option<(&str, u64)>) -> (Vec<Digest>, BTreeMap<String, u64>) {
    let site = Site::new().await;
    // Valid, but past two thirds of its life.
    let year = 1970 + i64::try_from(crate::clock::now().millis() / 31_556_952_000).unwrap();
    site.world.script(|script| script.validity = (year - 20, year + 2));
    if let Some((point, nth)) = death {
        let living = site.run(true, async {
            site.coordinate().await;
            std::future::pending::<()>().await;
        });
        let died = Hook::kill_at(point, nth).scope(living).await;
        assert!(matches!(&died, Err(NodeError::Killed(killed)) if *killed.point == *point), "{point}@{nth}: {died:?}");
    }
    let passed = Arc::new(Mutex::new(BTreeMap::new()));
    let hook = Hook::new({
        let passed = passed.clone();
        move |point| {
            *passed.lock().unwrap().entry(point.to_owned()).or_default() += 1;
            Ok(())
        }
    });
    hook.scope(site.run(true, site.coordinate())).await.unwrap();
    let passed = std::mem::take(&mut *passed.lock().unwrap());
    (site.world.script(|script| updates(&script.receipts)), passed)
}

/// "Failpoints sit after every commit … enumerated from the code, their number printed; all of them are killed." Here: those
/// of the node's enrolment, line and rounds. In its next life it trains to the same bits.
#[tokio::test]
async fn killed_at_every_point_a_node_delivers_the_same_updates() {
    let (undisturbed, passed) = life(None).await;
    assert_eq!(undisturbed.len(), 2, "two tasks, two updates: {undisturbed:?}");
    let mut deaths = 0;
    for point in POINTS {
        let times = passed.get(point.name()).copied().unwrap_or_default();
        assert!(times > 0, "no node comes by {point}");
        for nth in 1..=times.min(2) {
            assert_eq!(life(Some((point.name(), nth))).await.0, undisturbed, "killed at {point}@{nth}");
            deaths += 1;
        }
    }
    println!("{} failpoints of the node, {deaths} deaths", POINTS.len());
}
