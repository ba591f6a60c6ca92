//! A server that tells every client one of two stories about who is left.

use std::collections::BTreeSet;

use super::{simulation::Record, *};
use crate::secagg::message::{Alive, Consistency, Introduction, Survivors};

/// Issue 3, 1: a server that tells every client one of two stories at random, with a colluder who gives it everything: it never
/// has t shares of both secrets of an honest participant.
#[test]
fn a_server_with_two_stories_never_gets_both_secrets() {
    let mut answered = [0u32; 2];
    for profile in [Profile::SemiMalicious, Profile::Curious] {
        let n = 10;
        let mut base = World::at(n, terms(profile, 0.3, 2), 1);
        let threshold = base.server.plan().unwrap().threshold() as usize;
        let introduction = base.server.message_for(0).unwrap();
        let mut record = Record::new(&base);
        for i in 0..n {
            let answer = base.answer(i);
            record.shares_dealt(i, answer.bytes());
            base.take(i, &answer);
        }
        base.server.close().unwrap();
        base.exchange(|_| true);
        let session = base.terms.session;
        let colluder = 9;
        for seed in 0..150 {
            let mut dice = ChaCha20Rng::seed_from_u64(seed);
            let mut world = base.clone();
            // Two stories about participant 0, the victim, and others.
            let stories = [0, 1].map(|story| {
                let gone = 1 + dice.next_u32() % 8;
                RankSet::of(n, |rank| rank != gone && (rank != 0 || story == 0))
            });
            let lean = dice.next_u32() % 11;
            let told: Vec<usize> = (0..n).map(|_| usize::from(dice.next_u32() % 10 < lean)).collect();
            let mut signed: Vec<Option<[u8; 64]>> = vec![None; n as usize];
            for i in 0..n {
                let message = Survivors { survivors: stories[told[i as usize]].clone() }.encode(&session);
                if let Ok(Reply::Send(bytes)) = world.deliver(i as usize, &message) {
                    signed[i as usize] = Some(Alive::decode(&session, &bytes).unwrap().signature);
                }
            }
            // The colluder signs both.
            let roll = Introduction::decode(&session, &introduction).unwrap().roll.digest(&world.terms);
            let both = stories.clone().map(|survivors| world.keys[9].sign(&Survivors { survivors }.signed_bytes(&session, &roll)));
            let mut given = record.clone();
            for i in 0..n {
                let of = told[i as usize];
                let peers = (0..n).filter(|j| *j != i && told[*j as usize] == of && stories[of].contains(*j));
                let mut signatures: Vec<(u32, [u8; 64])> = peers.filter_map(|j| Some((j, signed[j as usize]?))).collect();
                if i != colluder && stories[of].contains(colluder) {
                    signatures.retain(|(j, _)| *j != colluder);
                    signatures.push((colluder, both[of]));
                }
                match world.deliver(i as usize, &Consistency { signatures }.encode(&session)) {
                    Ok(Reply::Send(bytes)) => {
                        answered[0] += 1;
                        assert!(given.shares_given(i, &bytes));
                    }
                    _ => answered[1] += 1,
                }
            }
            for (owner, [key, seed_shares]) in &given.given {
                let with_colluder =
                    |holders: &BTreeSet<u32>| holders.len() + usize::from(!holders.contains(&colluder) && *owner != colluder);
                assert!(
                    with_colluder(key) < threshold || with_colluder(seed_shares) < threshold,
                    "S2 broken for {owner} by seed {seed}, {profile:?}"
                );
            }
        }
    }
    // Some were convinced and some were not.
    assert!(answered.iter().all(|count| *count > 300), "{answered:?}");
}
