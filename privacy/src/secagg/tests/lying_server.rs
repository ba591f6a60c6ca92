//! Attacks by the server on one client: each refused by name, and nothing is left of the client's secrets (notes 7.5).
//!
//! What "nothing is left" means: a step ends its state, every state's secrets are `Zeroizing` or `ZeroizeOnDrop`
//! (checked by the compiler below), and the client is in the state `Over`, which has no fields.

use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::*;
use crate::secagg::{
    message::{Advertise, Consistency, Delivery, Introduction, ShareKeys, Survivors, Unmask},
    shamir::Share,
};

fn malicious() -> Terms {
    terms(Profile::SemiMalicious, 0.2, 4)
}

/// An introduction with one advertisement changed by somebody who can sign for it if `key` is given, and the roll made to fit.
fn with_peer(world: &World, at: usize, key: Option<&Key>, change: impl Fn(&mut Advertise)) -> Introduction {
    let mut message: Introduction = world.message(0);
    let peer = &mut message.peers[at];
    change(peer);
    if let Some(key) = key {
        peer.signature = key.sign(&peer.signed_bytes(&world.terms));
    }
    let (identity, digest) = (peer.identity, peer.digest());
    message.roll.entries[at + 1] = (identity, digest);
    message
}

#[test]
fn secrets_wipe_themselves_on_drop() {
    fn wiped<T: ZeroizeOnDrop>() {}
    wiped::<Zeroizing<[u8; 32]>>();
    wiped::<Share>();
    wiped::<crate::Accumulator>();
}

/// R1: keys. Client 0 sees peer 1 at place 0 of its neighbours.
#[test]
fn forged_and_swapped_keys_are_refused() {
    let world = World::at(6, malicious(), 1);
    let honest: Introduction = world.message(0);
    let colluder = &world.keys[1];

    let forged = with_peer(&world, 0, None, |peer| peer.signature[0] ^= 1);
    assert_eq!(world.refused(0, &forged), Fault::Signature { rank: 1 });
    let stripped = with_peer(&world, 0, None, |peer| peer.signature = [0; 64]);
    assert_eq!(world.refused(0, &stripped), Fault::Signature { rank: 1 });
    for change in [|peer: &mut Advertise| peer.mask_key = [7; 32], |peer: &mut Advertise| peer.channel_key = [7; 32]] {
        assert_eq!(world.refused(0, &with_peer(&world, 0, None, change)), Fault::Signature { rank: 1 });
    }
    let context = with_peer(&world, 0, None, |peer| peer.context.push(7));
    assert_eq!(world.refused(0, &context), Fault::Signature { rank: 1 });
    let nonce = with_peer(&world, 0, None, |peer| peer.nonce = [7; 32]);
    assert_eq!(world.refused(0, &nonce), Fault::Signature { rank: 1 });
    // Keys that are signed, in the place of others that the roll commits to.
    let mut swapped = honest.clone();
    swapped.peers.swap(1, 2);
    assert_eq!(world.refused(0, &swapped), Fault::KeySwapped { rank: 2 });
    let mut swapped = honest.clone();
    swapped.roll.entries[3].1 = [0; 32];
    assert_eq!(world.refused(0, &swapped), Fault::KeySwapped { rank: 3 });
    // A signature of the same identity in another session.
    let old = World::new(6, malicious(), 999);
    let replayed: Advertise = Message::decode(&old.terms.session, &old.first[1]).unwrap();
    let mut terms_too = replayed.clone();
    terms_too.terms = world.terms.hash();
    assert_eq!(world.refused(0, &with_peer(&world, 0, None, |peer| *peer = replayed.clone())), Fault::TermsMismatch);
    assert_eq!(world.refused(0, &with_peer(&world, 0, None, |peer| *peer = terms_too.clone())), Fault::Signature { rank: 1 });

    let other_terms = with_peer(&world, 0, Some(colluder), |peer| peer.terms = [1; 32]);
    assert_eq!(world.refused(0, &other_terms), Fault::TermsMismatch);
    let stranger = with_peer(&world, 0, Some(colluder), |peer| peer.context = b"somebody".to_vec());
    assert_eq!(world.refused(0, &stranger), Fault::NotEnrolled { rank: 1 });
    for point in [[0; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        let low = with_peer(&world, 0, Some(colluder), |peer| peer.mask_key = point);
        assert_eq!(world.refused(0, &low), Fault::LowOrderKey { rank: 1 });
        let low = with_peer(&world, 0, Some(colluder), |peer| peer.channel_key = point);
        assert_eq!(world.refused(0, &low), Fault::LowOrderKey { rank: 1 });
    }
    // Unchanged, it is taken.
    assert!(matches!(world.clone().deliver(0, &honest.encode(&world.terms.session)), Ok(Reply::Send(_))));
}

#[test]
fn duplicated_identities_and_keys_are_refused() {
    let world = World::at(6, malicious(), 1);
    let honest: Introduction = world.message(0);
    let mut twice = honest.clone();
    twice.roll.entries[4] = twice.roll.entries[2];
    assert_eq!(world.refused(0, &twice), Fault::Duplicate { first: 2, second: 4 });
    let mut twice = honest.clone();
    twice.roll.entries[4].0 = twice.roll.entries[0].0;
    assert_eq!(world.refused(0, &twice), Fault::Duplicate { first: 0, second: 4 });
    // One key under two names, signed by both; a key of the client itself; one key for both uses.
    let mask_key = honest.peers[3].mask_key;
    let shared = with_peer(&world, 0, Some(&world.keys[1]), |peer| peer.mask_key = mask_key);
    assert_eq!(world.refused(0, &shared), Fault::Duplicate { first: 1, second: 4 });
    let own: Advertise = Message::decode(&world.terms.session, &world.first[0]).unwrap();
    let reflected = with_peer(&world, 0, Some(&world.keys[1]), |peer| peer.channel_key = own.channel_key);
    assert_eq!(world.refused(0, &reflected), Fault::Duplicate { first: 0, second: 1 });
    let both = with_peer(&world, 0, Some(&world.keys[1]), |peer| peer.channel_key = peer.mask_key);
    assert_eq!(world.refused(0, &both), Fault::Duplicate { first: 1, second: 1 });
}

#[test]
fn a_lowered_plan_is_refused() {
    let world = World::at(10, malicious(), 1);
    let honest: Introduction = world.message(0);
    assert_eq!((honest.roll.degree, honest.roll.threshold), (9, 6));
    for (degree, threshold) in [(9, 5), (9, 2), (4, 6), (9, 7)] {
        let mut lowered = honest.clone();
        (lowered.roll.degree, lowered.roll.threshold) = (degree, threshold);
        let expected = Fault::PlanMismatch { n: 10, degree, threshold, expected_degree: 9, expected_threshold: 6 };
        assert_eq!(world.refused(0, &lowered), expected);
    }
    let mut fewer = honest.clone();
    fewer.peers.pop();
    assert_eq!(world.refused(0, &fewer), Fault::Neighbours { actual: 8, expected: 9 });
    // A roll of two leaves one honest vector alone with a colluder's.
    let mut tiny = honest.clone();
    tiny.roll.entries.truncate(2);
    let refusal = world.refused(0, &tiny);
    assert!(matches!(refusal, Fault::Infeasible(Infeasible::BelowMinimum { n: 2, minimum: 3 })), "{refusal}");
    let mut nobody = honest;
    nobody.roll.entries.clear();
    assert!(matches!(world.refused(0, &nobody), Fault::Infeasible(_)));
}

#[test]
fn a_roll_without_the_client_is_refused() {
    let world = World::at(6, malicious(), 1);
    let mut without: Introduction = world.message(0);
    without.roll.entries[0].0 = Key::new(77).identity();
    assert_eq!(world.refused(0, &without), Fault::NotInRoll);
    let mut other_keys: Introduction = world.message(0);
    other_keys.roll.entries[0].1[0] ^= 1;
    assert_eq!(world.refused(0, &other_keys), Fault::NotInRoll);
}

/// R2: who shared.
#[test]
fn a_false_delivery_is_refused() {
    let world = World::at(10, malicious(), 2);
    let honest: Delivery = world.message(0);
    let with = |keep: &dyn Fn(u32) -> bool, envelopes: usize| Delivery {
        sharers: RankSet::of(10, keep),
        envelopes: honest.envelopes[..envelopes].to_vec(),
    };
    assert_eq!(world.refused(0, &with(&|rank| rank != 0, 9)), Fault::NotASurvivor);
    let few = Fault::TooFew { phase: "behind the sharing of keys", have: 7, need: 8 };
    assert_eq!(world.refused(0, &with(&|rank| rank < 7, 6)), few);
    assert_eq!(world.refused(0, &with(&|_| true, 8)), Fault::Count { actual: 8, expected: 9 });
    assert_eq!(world.refused(0, &with(&|rank| rank < 8, 8)), Fault::Count { actual: 8, expected: 7 });
    let larger = Delivery { sharers: RankSet::of(11, |_| true), ..honest.clone() };
    assert_eq!(world.refused(0, &larger), Fault::Count { actual: 11, expected: 10 });
}

/// Shares of an older session, shares for somebody else, damaged shares: below t they end the session, above it they only
/// count as missing.
#[test]
fn replayed_shares_are_refused() {
    let mut world = World::at(10, malicious(), 2);
    let honest: Delivery = world.message(0);
    let mut old = World::new(10, malicious(), 999);
    old.advertise(|_| true).unwrap();
    old.exchange(|_| true);
    old.server.close().unwrap();
    let replayed: Delivery = old.message(0);
    let all = Fault::Unreadable { readable: 0, need: 6, unreadable: (1..10).collect() };
    assert_eq!(world.refused(0, &replayed), all);
    let foreign: Delivery = world.message(1);
    assert_eq!(world.refused(0, &foreign), all);

    let mut four = honest.clone();
    four.envelopes[2..6].clone_from_slice(&replayed.envelopes[2..6]);
    let refusal = world.refused(0, &four);
    assert_eq!(refusal, Fault::Unreadable { readable: 5, need: 6, unreadable: vec![3, 4, 5, 6] });
    let mut three = honest;
    three.envelopes[2..5].clone_from_slice(&replayed.envelopes[2..5]);
    let bytes = three.encode(&world.terms.session);
    assert_eq!(world.deliver(0, &bytes), Ok(Reply::WantsVector));
}

/// R3: who survived.
#[test]
fn false_survivors_are_refused() {
    // Participant 9 leaves before sharing, 8 before its vector.
    let mut world = World::at(10, malicious(), 1);
    world.exchange(|i| i != 9);
    world.server.close().unwrap();
    world.exchange(|i| i != 8);
    world.server.close().unwrap();
    let with = |keep: &dyn Fn(u32) -> bool| Survivors { survivors: RankSet::of(10, keep) };
    assert_eq!(world.refused(0, &with(&|rank| rank != 8)), Fault::Resurrected { rank: 9 });
    assert_eq!(world.refused(0, &with(&|rank| (1..9).contains(&rank))), Fault::NotASurvivor);
    let few = Fault::TooFew { phase: "behind the masked input", have: 7, need: 8 };
    assert_eq!(world.refused(0, &with(&|rank| rank < 7)), few);
    let larger = Survivors { survivors: RankSet::of(12, |rank| rank < 8) };
    assert_eq!(world.refused(0, &larger), Fault::Count { actual: 12, expected: 10 });
    assert_eq!(world.message::<Survivors>(0), with(&|rank| rank < 8));
}

/// In a ring: survivors who fall apart, and a client with fewer than t neighbours left, though enough survive in all.
#[test]
fn isolated_survivors_are_refused() {
    let n = 300;
    let mut world = World::new(n, terms(Profile::Curious, 0.3, 4), 5);
    world.advertise(|_| true).unwrap();
    let plan = *world.server.plan().unwrap();
    let roll = world.message::<Introduction>(0).roll.digest(&world.terms);
    let graph = Graph::new(&plan, &roll);
    let near = graph.neighbours(0);
    // Only client 0 and its neighbours are played; the server claims the rest.
    let mut envelopes = Vec::new();
    for peer in &near {
        let Answer::Message(bytes) = world.answer(*peer) else { panic!("shares are a message") };
        let shares: ShareKeys = Message::decode(&world.terms.session, &bytes).unwrap();
        let place = graph.neighbours(*peer).binary_search(&0).unwrap();
        envelopes.push(shares.dealt[place].envelope);
    }
    world.answer(0);
    let lonely = Delivery { sharers: RankSet::of(n, |rank| !near[1..].contains(&rank)), envelopes: envelopes[..1].to_vec() };
    assert_eq!(world.refused(0, &lonely), Fault::TooFewNeighbours { have: 1, need: plan.threshold() });

    let bytes = Delivery { sharers: RankSet::of(n, |_| true), envelopes }.encode(&world.terms.session);
    assert_eq!(world.deliver(0, &bytes), Ok(Reply::WantsVector));
    world.masked(0);
    // All neighbours of somebody else are said to have left: it stands alone.
    let alone = (1..n).find(|rank| graph.neighbours(*rank).iter().all(|peer| *peer != 0 && !near.contains(peer))).unwrap();
    let gone = graph.neighbours(alone);
    assert!(gone.len() as u32 <= n - plan.survivors());
    let split = Survivors { survivors: RankSet::of(n, |rank| !gone.contains(&rank)) };
    assert_eq!(world.refused(0, &split), Fault::Disconnected);
    let few = plan.threshold() - 1;
    let lonely = Survivors { survivors: RankSet::of(n, |rank| !near[few as usize..].contains(&rank)) };
    assert_eq!(world.refused(0, &lonely), Fault::TooFewNeighbours { have: few, need: plan.threshold() });
}

/// R3 and R4: two stories. The clients that were told the second one cannot be shown enough signatures of theirs.
#[test]
fn two_sets_of_survivors_are_noticed() {
    let mut world = World::at(10, malicious(), 3);
    let session = world.terms.session;
    let sets = [RankSet::of(10, |rank| rank != 8), RankSet::of(10, |rank| rank != 9)];
    // Client 0 and 1 to 4 hear the first, 5 to 7 the second.
    let mut signatures = Vec::new();
    for i in 0..8u32 {
        let told = Survivors { survivors: sets[usize::from(i > 4)].clone() };
        let Ok(Reply::Send(bytes)) = world.deliver(i as usize, &told.encode(&session)) else { panic!("it signs") };
        let alive: message::Alive = Message::decode(&session, &bytes).unwrap();
        signatures.push((i, alive.signature));
    }
    let all = Consistency { signatures: signatures[1..].to_vec() };
    assert_eq!(world.refused(0, &all), Fault::OtherSurvivors { rank: 5 });
    let honest = Consistency { signatures: signatures[1..5].to_vec() };
    assert_eq!(world.refused(0, &honest), Fault::Inconsistent { have: 4, need: 6 });
    assert_eq!(world.refused(0, &Consistency { signatures: Vec::new() }), Fault::Inconsistent { have: 0, need: 6 });
    // A second story for one who has signed.
    let other = Survivors { survivors: sets[1].clone() };
    assert_eq!(world.refused(0, &other), Fault::Contradiction { message: "list of survivors" });
}

#[test]
fn false_signers_are_refused() {
    let mut world = World::at(10, malicious(), 3);
    world.exchange(|i| i != 9);
    let own = Message::decode(
        &world.terms.session,
        &match world.clone().answer(0) {
            Answer::Message(bytes) => bytes,
            Answer::Vector(_) => panic!("a signature"),
        },
    );
    let own: message::Alive = own.unwrap();
    world.server.close().unwrap();
    let honest: Consistency = world.message(0);
    assert_eq!(honest.signatures.len(), 6);
    type Signatures = Vec<(u32, [u8; 64])>;
    let with = |change: &dyn Fn(&mut Signatures)| {
        let mut message = honest.clone();
        change(&mut message.signatures);
        world.refused(0, &message)
    };
    assert_eq!(with(&|list| list[2].1[5] ^= 1), Fault::OtherSurvivors { rank: 3 });
    assert_eq!(with(&|list| list[2].1 = list[3].1), Fault::OtherSurvivors { rank: 3 });
    assert_eq!(with(&|list| list[2] = list[1]), Fault::Signer { rank: 2 });
    assert_eq!(with(&|list| list.insert(0, (0, own.signature))), Fault::Signer { rank: 0 });
    assert_eq!(with(&|list| list.push((10, list[0].1))), Fault::Signer { rank: 10 });
    assert_eq!(with(&|list| list.swap(0, 1)), Fault::Signer { rank: 1 });
    assert_eq!(with(&|list| list.truncate(5)), Fault::Inconsistent { have: 5, need: 6 });
    // Who left does not sign.
    let mut world = World::at(10, malicious(), 2);
    world.exchange(|i| i != 8);
    world.server.close().unwrap();
    world.exchange(|_| true);
    world.server.close().unwrap();
    let mut message: Consistency = world.message(0);
    message.signatures[5].0 = 8;
    assert_eq!(world.refused(0, &message), Fault::Signer { rank: 8 });
}

/// Issue 3, 1: the same request gets the same bytes, any other is refused; one share of each peer, of the right secret.
#[test]
fn shares_are_given_once_and_of_one_secret_each() {
    let mut world = World::at(10, malicious(), 1);
    let mut dealt = Vec::new();
    for i in 0..10 {
        let answer = world.answer(i);
        let Answer::Message(bytes) = &answer else { panic!("shares are a message") };
        dealt.push(ShareKeys::decode(&world.terms.session, bytes).unwrap());
        world.take(i, &answer);
    }
    world.server.close().unwrap();
    world.exchange(|i| i != 4);
    world.server.close().unwrap();
    world.exchange(|_| true);
    world.server.close().unwrap();

    let request = world.server.message_for(0).unwrap();
    let first = world.deliver(0, &request).unwrap();
    assert!(world.clients[0].as_ref().unwrap().is_done());
    assert_eq!(world.deliver(0, &request), Ok(first.clone_bytes()));
    let Reply::Send(bytes) = &first else { panic!("shares are a message") };
    let shares = Unmask::decode(&world.terms.session, bytes).unwrap().shares;
    assert_eq!(shares.len(), 9);
    for (owner, share) in (1..10).zip(&shares) {
        let [of_key, of_seed] = dealt[owner as usize].dealt[0].commitments;
        let commit = |which| channel::commit_share(share.as_ref().unwrap(), which, &world.terms.session, owner, 0);
        let which = if owner == 4 { channel::Which::Key } else { channel::Which::Seed };
        assert_eq!(commit(which), if owner == 4 { of_key } else { of_seed });
        assert_ne!(commit(which), if owner == 4 { of_seed } else { of_key });
    }

    // Asked for the other secret of 4, through another set of survivors, at any time behind the first.
    let resurrect = Survivors { survivors: RankSet::of(10, |_| true) };
    let mut late = world.clone();
    let refusal = late.deliver(0, &resurrect.encode(&world.terms.session)).unwrap_err();
    assert_eq!(refusal, Fault::OutOfTurn { message: "list of survivors" });
    let mut fewer: Consistency = world.message(0);
    fewer.signatures.pop();
    assert_eq!(world.refused(0, &fewer), Fault::Contradiction { message: "proof of consistency" });
}

impl Reply {
    fn clone_bytes(&self) -> Self {
        match self {
            Self::Send(bytes) => Self::Send(bytes.clone()),
            Self::WantsVector => Self::WantsVector,
        }
    }
}

/// What came too early, too late or from another session is ignored; what is no message ends the session.
#[test]
fn strays_are_ignored_and_garbage_is_not() {
    let mut world = World::at(6, malicious(), 1);
    let old = World::at(6, Terms { round: 9, ..malicious() }, 1).server.message_for(0).unwrap();
    let session = world.terms.session;
    let mut other = World::new(6, malicious(), 31);
    other.advertise(|_| true).unwrap();
    let replayed = other.server.message_for(0).unwrap();
    assert_eq!(world.deliver(0, &replayed), Err(Fault::WrongSession));
    let early = Survivors { survivors: RankSet::of(6, |_| true) }.encode(&session);
    assert_eq!(world.deliver(0, &early), Err(Fault::OutOfTurn { message: "list of survivors" }));
    // Sent back by mistake.
    let own = world.first[0].clone();
    assert_eq!(world.deliver(0, &own), Err(Fault::OutOfTurn { message: "key advertisement" }));
    let vector = world.vectors[0].clone();
    assert_eq!(world.clients[0].as_mut().unwrap().mask(vector, 1), Err(Fault::OutOfTurn { message: "a vector" }));
    assert!(!world.clients[0].as_ref().unwrap().is_over());
    let introduction = world.server.message_for(0).unwrap();
    let Ok(Reply::Send(first)) = world.deliver(0, &introduction) else { panic!("it goes on") };
    assert_eq!(world.deliver(0, &introduction), Ok(Reply::Send(first)));

    // The same session id with other terms is another world, but no other session by its header.
    assert!(matches!(world.clone().deliver(0, &old), Err(Fault::Contradiction { .. } | Fault::WrongSession)));
    for garbage in [&[][..], &[11], &[11, 1], &introduction[..40], &[&introduction[..], &[0]].concat()] {
        let mut world = World::at(6, malicious(), 1);
        let fault = world.deliver(0, garbage).unwrap_err();
        assert!(matches!(fault, Fault::Malformed(_)), "{fault}");
        world.assert_wiped(0);
    }
}

/// Issue 3, 6: the operator's policy is enforced by the node.
#[test]
fn terms_below_the_policy_are_refused() {
    let mut world = World::new(6, malicious(), 1);
    let strict = Policy { minimum: 3, corruption: Rate::from_ppm(50_000).unwrap(), profile: Profile::SemiMalicious };
    assert!(world.begin(0, &strict).is_ok());
    let cohort = Policy { minimum: 4, ..strict };
    assert_eq!(world.begin(0, &cohort).err(), Some(Fault::Policy { what: "the minimum cohort", offered: 3, required: 4 }));
    let rate = Policy { corruption: Rate::from_ppm(50_001).unwrap(), ..strict };
    assert!(matches!(world.begin(0, &rate).err(), Some(Fault::Policy { offered: 50_000, required: 50_001, .. })));
    world.terms.profile = Profile::Curious;
    assert!(matches!(world.begin(0, &strict).err(), Some(Fault::Policy { what: "the profile", .. })));
}

/// The caller's own mistakes with its vector cost nothing.
#[test]
fn a_vector_that_does_not_fit_can_be_given_again() {
    let mut world = World::at(6, malicious(), 2);
    let message = world.server.message_for(0).unwrap();
    world.deliver(0, &message).unwrap();
    let client = world.clients[0].as_mut().unwrap();
    assert!(matches!(client.mask(vec![0; 3], 1), Err(Fault::Vector(crate::Fault::Length { expected: 4, actual: 3, .. }))));
    let large = Fault::Vector(crate::Fault::Element { index: 2, value: 1 << 20, bits: 20 });
    assert_eq!(client.mask(vec![0, 1, 1 << 20, 0], 1), Err(large));
    assert!(client.mask(vec![0, 1, (1 << 20) - 1, 0], 1).is_ok());
    assert_eq!(client.mask(vec![0; 4], 1), Err(Fault::OutOfTurn { message: "a vector" }));
}

/// No state prints a secret.
#[test]
fn nothing_prints() {
    let mut world = World::at(4, terms(Profile::Curious, 0.25, 4), 1);
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(format!("{:?} {:?}", world.clients[0].as_ref().unwrap(), world.server));
        if world.server.can_open() || world.server.expected().is_empty() {
            break;
        }
        world.exchange(|_| true);
        let _ = world.server.close();
    }
    for text in seen {
        assert!(text.len() < 120, "{text}");
    }
}
