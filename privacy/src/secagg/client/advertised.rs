//! R0 is sent. Waits for the introduction; checks everything that the server claims about the others; deals shares.

use super::{Cx, Shared, shared::Neighbour};
use crate::secagg::{
    Fault,
    channel::{Route, Secret, Which, agree, commit_seed, commit_share, draw, pair_seed, public, seal},
    graph::Graph,
    message::{Advertise, Dealt, Introduction, MAX_CONTEXT, Malformed, ShareKeys},
    plan::Plan,
    shamir::share,
    terms::Terms,
};

/// Holds the secret halves of the advertised keys.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Advertised {
    pub(super) channel_secret: Secret,
    pub(super) mask_secret: Secret,
    pub(super) own: Advertise,
}

/// Where this client stands in the session. Nothing of it is secret.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) plan: Plan,
    pub(super) graph: Graph,
    /// Digest of the roll.
    pub(super) roll: [u8; 32],
    pub(super) rank: u32,
}

impl Advertised {
    pub(super) fn new(terms: &Terms, context: Vec<u8>, cx: &mut Cx<'_>) -> Result<(Self, Advertise), Fault> {
        if context.len() > MAX_CONTEXT as usize {
            let count = u32::try_from(context.len()).unwrap_or(u32::MAX);
            return Err(Malformed::TooLong { count, most: MAX_CONTEXT }.into());
        }
        let (channel_secret, mask_secret) = (draw(cx.random), draw(cx.random));
        let mut own = Advertise {
            identity: cx.signer.identity(),
            terms: terms.hash(),
            channel_key: public(&channel_secret),
            mask_key: public(&mask_secret),
            nonce: *draw(cx.random),
            context,
            signature: [0; 64],
        };
        own.signature = cx.signer.sign(&own.signed_bytes(terms));
        Ok((Self { channel_secret, mask_secret, own: own.clone() }, own))
    }

    pub(super) fn share(&self, terms: &Terms, message: Introduction, cx: &mut Cx<'_>) -> Result<(Shared, ShareKeys), Fault> {
        let place = self.place(terms, &message)?;
        let (neighbours, send_keys) = self.neighbours(terms, &place, &message, cx)?;

        let own_secret = draw(cx.random);
        let holders: Vec<u32> = neighbours.iter().map(|neighbour| neighbour.rank).collect();
        let threshold = place.plan.threshold();
        let of_key = share(&self.mask_secret, threshold, &holders, cx.random);
        let of_seed = share(&own_secret, threshold, &holders, cx.random);
        let mut dealt = Vec::with_capacity(holders.len());
        for ((holder, send_key), (of_key, of_seed)) in holders.iter().zip(&send_keys).zip(of_key.iter().zip(&of_seed)) {
            let route = Route { session: &terms.session, roll: &place.roll, from: place.rank, to: *holder };
            let commit = |share, which| commit_share(share, which, &terms.session, place.rank, *holder);
            dealt.push(Dealt {
                envelope: seal(send_key, route, of_key, of_seed),
                commitments: [commit(of_key, Which::Key), commit(of_seed, Which::Seed)],
            });
        }
        let seed_commitment = commit_seed(&own_secret, &terms.session, place.rank);
        Ok((Shared { place, neighbours, own_secret }, ShareKeys { seed_commitment, dealt }))
    }

    /// Checks the roll: the plan is the one that this client computes, nobody stands in it twice, this client does.
    fn place(&self, terms: &Terms, message: &Introduction) -> Result<Place, Fault> {
        let roll = &message.roll;
        let n = roll.entries.len() as u32;
        let plan = terms.plan(n)?;
        if (roll.degree, roll.threshold) != (plan.degree(), plan.threshold()) {
            return Err(Fault::PlanMismatch {
                n,
                degree: roll.degree,
                threshold: roll.threshold,
                expected_degree: plan.degree(),
                expected_threshold: plan.threshold(),
            });
        }
        distinct((0..).zip(roll.entries.iter().map(|(identity, _)| identity.0)).collect())?;
        let own = (self.own.identity, self.own.digest());
        let rank = (0..).zip(&roll.entries).find_map(|(rank, entry)| (*entry == own).then_some(rank)).ok_or(Fault::NotInRoll)?;
        let digest = roll.digest(terms);
        Ok(Place { graph: Graph::new(&plan, &digest), plan, roll: digest, rank })
    }

    /// Checks the keys of the neighbours and agrees with each; with the keys of the envelopes to them.
    fn neighbours(
        &self,
        terms: &Terms,
        place: &Place,
        message: &Introduction,
        cx: &Cx<'_>,
    ) -> Result<(Vec<Neighbour>, Vec<Secret>), Fault> {
        let ranks = place.graph.neighbours(place.rank);
        if message.peers.len() != ranks.len() {
            return Err(Fault::Neighbours { actual: message.peers.len() as u32, expected: ranks.len() as u32 });
        }
        let mut keys = vec![(place.rank, self.own.channel_key), (place.rank, self.own.mask_key)];
        let mut neighbours = Vec::with_capacity(ranks.len());
        let mut send_keys = Vec::with_capacity(ranks.len());
        for (rank, peer) in ranks.into_iter().zip(&message.peers) {
            if (peer.identity, peer.digest()) != message.roll.entries[rank as usize] {
                return Err(Fault::KeySwapped { rank });
            }
            if peer.terms != self.own.terms {
                return Err(Fault::TermsMismatch);
            }
            if !peer.identity.verifies(&peer.signed_bytes(terms), &peer.signature) {
                return Err(Fault::Signature { rank });
            }
            if !(cx.vouch)(&peer.identity, &peer.context) {
                return Err(Fault::NotEnrolled { rank });
            }
            keys.extend([(rank, peer.channel_key), (rank, peer.mask_key)]);
            let low = || Fault::LowOrderKey { rank };
            let channel = agree(&self.channel_secret, &peer.channel_key).ok_or_else(low)?;
            let mask = agree(&self.mask_secret, &peer.mask_key).ok_or_else(low)?;
            let route = |from, to| Route { session: &terms.session, roll: &place.roll, from, to };
            neighbours.push(Neighbour {
                rank,
                identity: peer.identity,
                open_key: route(rank, place.rank).key(&channel),
                pair_seed: pair_seed(&mask, &terms.session, place.rank, rank),
            });
            send_keys.push(route(place.rank, rank).key(&channel));
        }
        distinct(keys)?;
        Ok((neighbours, send_keys))
    }
}

/// # Errors
/// [`Fault::Duplicate`] names the owners of two equal keys.
fn distinct(mut keys: Vec<(u32, [u8; 32])>) -> Result<(), Fault> {
    keys.sort_unstable_by_key(|(rank, key)| (*key, *rank));
    match keys.windows(2).find(|pair| pair[0].1 == pair[1].1) {
        None => Ok(()),
        Some(pair) => Err(Fault::Duplicate { first: pair[0].0, second: pair[1].0 }),
    }
}
