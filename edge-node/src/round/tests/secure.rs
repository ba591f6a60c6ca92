//! A secure sum of this node with two others, under a coordinator that keeps its word or breaks it.

use std::{collections::BTreeMap, sync::Mutex};

use sapwood_privacy::secagg::{Client, Policy, Profile, Rate, Reply, client};
use sapwood_proto::{convert, v1};
use sapwood_protocol::{
    membership::{Vouching, participant},
    round::{NoiseTerms, SecureSession, SecureTerms, Stage, plan},
    spec::Spec,
};
use tonic::Status;

use super::*;
use crate::testing::{member, population};

/// What the coordinator says instead of the message that begins `stage`; the true one is given.
type Lie = Box<dyn FnMut(Stage, Vec<u8>) -> Vec<u8> + Send>;

/// The coordinator's side, and the two other nodes.
struct Table {
    terms: Terms,
    session: SecureSession,
    peers: Vec<Peer>,
    vouching: Vouching,
    lie: Lie,
    /// Messages of this node, by stage.
    heard: Arc<Mutex<Vec<Stage>>>,
    /// Elements of the opened sum.
    opened: Arc<Mutex<Option<usize>>>,
}

struct Peer {
    name: NodeId,
    identity: Identity,
    membership: Vec<u8>,
    client: Option<Client>,
}

impl Peer {
    fn new(world: &World, name: &str) -> Self {
        let identity = Identity::from_pkcs8(&Identity::generate(&ring::rand::SystemRandom::new()).unwrap()).unwrap();
        let name: NodeId = name.parse().unwrap();
        Self { membership: member(world, &name, identity.key()), client: None, identity, name }
    }
    fn step<T>(
        &mut self,
        vouching: &Vouching,
        terms: &Terms,
        step: impl FnOnce(&mut Option<Client>, Vec<u8>, &mut client::Cx<'_>) -> T,
    ) -> T {
        let vouch = |key: &_, context: &[u8]| vouching.vouches(terms, key, context);
        let mut secrets = SystemSecrets::default();
        let mut random = |bytes: &mut [u8]| secrets.fill(bytes);
        let mut cx = client::Cx { signer: &self.identity, vouch: &vouch, random: &mut random };
        step(&mut self.client, self.membership.clone(), &mut cx)
    }
}

impl Table {
    /// Closes `stage`, for which `message` of this node has come, and says what begins the next one.
    fn turn(&mut self, stage: Stage, message: &[u8], uploads: &HashMap<Digest, Vec<u8>>) -> Option<Vec<u8>> {
        self.heard.lock().unwrap().push(stage);
        let me = node();
        if stage == Stage::Inputs {
            let input = uploads.values().next().expect("it was submitted before");
            self.session.add(&me, &[input]).unwrap();
        } else {
            self.session.receive(&me, message).unwrap();
        }
        for peer in &mut self.peers {
            let asked = if stage == Stage::Keys { Vec::new() } else { self.session.message_for(&peer.name, stage).unwrap() };
            let answer = peer.step(&self.vouching, &self.terms, |client, membership, cx| {
                let Some(client) = client else {
                    let policy = Policy { minimum: 3, corruption: Rate::ZERO, profile: Profile::SemiMalicious };
                    let begun = Client::begin(self.terms.aggregation().unwrap().unwrap(), &policy, membership, cx).unwrap();
                    *client = Some(begun.0);
                    return begun.1;
                };
                match client.receive(&asked, cx).unwrap() {
                    Reply::Send(bytes) => bytes,
                    Reply::WantsVector => {
                        let codec = self.terms.codec().unwrap();
                        let elements = codec.accumulator(self.terms.dimension()).len();
                        client.mask(vec![0; elements], 1).unwrap()
                    }
                }
            });
            match stage {
                Stage::Inputs => self.session.add(&peer.name, &[answer]).unwrap(),
                _ => drop(self.session.receive(&peer.name, &answer).unwrap()),
            }
        }
        let Some(next) = stage.next() else {
            let (sum, complaints) = self.session.open(1).unwrap();
            assert!(complaints.is_empty());
            *self.opened.lock().unwrap() = Some(sum.len());
            return None;
        };
        self.session.close(stage).unwrap().unwrap();
        self.session.message_for(&me, next)
    }
}

/// What became of one secure sum.
struct Ended {
    /// Stages for which this node has said something.
    heard: Vec<Stage>,
    declined: Option<Decline>,
    /// Elements of the sum that was opened.
    opened: Option<usize>,
    submitted: usize,
    /// The session is in this node's own books.
    charged: bool,
}

/// One secure sum, with noise or without, under a coordinator that says `lie`.
async fn play(noised: bool, mut change: impl FnMut(&mut Terms), lie: Option<Lie>) -> Ended {
    let (mut site, driving) = Site::new().await;
    let driving = tokio::spawn(driving);
    let honest = lie.is_none();
    let privacy = if noised { "expected_units = 600\nepsilon = 8.0" } else { "unit = \"none\"" };
    let text = format!("[model]\nfile = \"m\"\n[cohort]\nsize = 3\n[secure_aggregation]\ndropout = 0.0\n[privacy]\n{privacy}\n");
    let spec = Spec::parse(&text).unwrap();
    let peers = ["store-018", "store-019"].map(|name| Peer::new(&site.world, name));
    let me = participant(&site.membership).unwrap();
    let terms = &mut site.task.terms;
    terms.cohort = [node()].into_iter().chain(peers.iter().map(|peer| peer.name.clone())).collect();
    (terms.size, terms.minimum, terms.secure) = (3, 3, Some(SecureTerms::of(&spec)));
    terms.noise = noised.then(|| NoiseTerms::of(&spec, &plan(&spec, terms.length).unwrap()));
    let known: BTreeMap<_, _> = peers.iter().map(|peer| (peer.name.clone(), participant(&peer.membership).unwrap())).collect();
    let find = |name: &NodeId| known.get(name).cloned().or_else(|| (*name == node()).then(|| me.clone()));
    let (heard, opened) = (Arc::default(), Arc::default());
    let mut table = Table {
        session: SecureSession::new(terms, find).unwrap().unwrap(),
        terms: terms.clone(),
        peers: peers.into(),
        vouching: Vouching { authority: site.world.authority.key(), population: population(), now: clock::now() },
        lie: lie.unwrap_or_else(|| Box::new(|_, message| message)),
        heard: Arc::clone(&heard),
        opened: Arc::clone(&opened),
    };
    change(terms);
    let exchange = move |request: v1::ExchangeRequest, uploads: &HashMap<Digest, Vec<u8>>| {
        let stage = Stage::from_number(request.stage).ok_or_else(|| Status::invalid_argument("stage"))?;
        let said = table.turn(stage, &request.message, uploads);
        // Behind the end there is nothing true to say.
        let said = match (said, stage.next()) {
            (Some(message), Some(next)) => (table.lie)(next, message),
            _ => (table.lie)(stage, Vec::new()),
        };
        let outcome = if said.is_empty() { convert::to_json(&Receipt::Accepted) } else { bytes::Bytes::new() };
        Ok(v1::ExchangeReply { message: said.into(), outcome })
    };
    site.world.script(|script| script.exchange = Some(Box::new(exchange)));
    site.ask(&site.task).await;
    let is_opened = Arc::clone(&opened);
    let declined = site
        .world
        .until(|script| match script.declined.first() {
            Some(declined) => Some(Some(convert::from_json("decline", &declined.reason).unwrap())),
            // Who was lied to says so, whatever has become of the sum.
            None => (honest && is_opened.lock().unwrap().is_some()).then_some(None),
        })
        .await;
    let submitted = site.world.script(|script| script.receipts.len());
    let sessions: Vec<serde_json::Value> = site.store.privacy_ledger().await.unwrap();
    drop(site.orders);
    driving.await.unwrap().unwrap();
    let (heard, opened) = (heard.lock().unwrap().clone(), *opened.lock().unwrap());
    Ended { heard, declined, opened, submitted, charged: sessions.len() == 1 }
}

/// Says something else at the begin of one stage.
fn lie_at(stage: Stage, mut other: impl FnMut(Vec<u8>) -> Vec<u8> + Send + 'static) -> Lie {
    Box::new(move |at, message| if at == stage { other(message) } else { message })
}

#[tokio::test]
async fn this_node_is_in_the_sum_and_in_its_own_books() {
    for noised in [false, true] {
        let ended = play(noised, |_| (), None).await;
        assert!(ended.declined.is_none() && ended.charged && ended.submitted == 1, "{:?}", ended.declined);
        assert!(ended.opened.is_some_and(|elements| elements > 40) && ended.heard.len() == 5);
    }
}

/// Whatever the coordinator bends, this node leaves and says why, and from then on says nothing; what was not masked was not charged.
#[tokio::test]
async fn a_coordinator_that_breaks_its_word_hears_no_more() {
    let flip = |message: Vec<u8>| {
        let (mut bent, middle) = (message.clone(), message.len() / 2);
        bent[middle] ^= 1;
        bent
    };
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    let cases: [(&str, Lie, Stage, bool); 5] = [
        ("keys are bent", lie_at(Stage::Shares, flip), Stage::Keys, false),
        ("shares are cut off", lie_at(Stage::Inputs, |message| message[..message.len() - 1].to_vec()), Stage::Shares, false),
        ("the survivors are bent", lie_at(Stage::Consistency, flip), Stage::Inputs, true),
        (
            "an old message comes again",
            Box::new(move |at, message| match at {
                Stage::Inputs => {
                    keep.lock().unwrap().clone_from(&message);
                    message
                }
                Stage::Consistency => kept.lock().unwrap().clone(),
                _ => message,
            }),
            Stage::Inputs,
            true,
        ),
        (
            "it goes on behind the end",
            lie_at(Stage::Unmasking, |message| if message.is_empty() { vec![1] } else { message }),
            Stage::Unmasking,
            true,
        ),
    ];
    for (what, lie, last, charged) in cases {
        let ended = play(false, |_| (), Some(lie)).await;
        assert!(matches!(&ended.declined, Some(Decline::SecureSum { .. })), "{what}: {:?}", ended.declined);
        assert_eq!((ended.heard.last(), ended.charged, ended.submitted), (Some(&last), charged, usize::from(charged)), "{what}");
    }
}

/// What the coordinator tells a node to agree to is held to the node's policy before any key is shown.
#[tokio::test]
async fn terms_below_the_policy_are_declined_before_anything_is_said() {
    for (what, noised) in [("minimum cohort", false), ("a share protects nobody", true)] {
        let lower = |terms: &mut Terms| {
            if noised {
                terms.secure = None;
            } else {
                (terms.size, terms.minimum) = (2, 2);
            }
        };
        let ended = play(noised, lower, None).await;
        assert!(matches!(&ended.declined, Some(Decline::Policy { why }) if why.contains(what)), "{what}: {:?}", ended.declined);
        assert!(ended.heard.is_empty() && !ended.charged && ended.submitted == 0, "{what}");
    }
}
