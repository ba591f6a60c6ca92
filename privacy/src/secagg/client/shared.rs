//! R1 is sent. Waits for the neighbours' shares.

use super::{Ready, advertised::Place, ready::Holding};
use crate::secagg::{
    Fault,
    channel::{Route, Secret, open},
    message::Delivery,
    terms::{IdentityKey, Terms},
};

/// Holds what the masks are made of; the mask key itself is gone.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Shared {
    pub(super) place: Place,
    pub(super) neighbours: Vec<Neighbour>,
    /// b_i.
    pub(super) own_secret: Secret,
}

/// What was agreed with a neighbour.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Neighbour {
    pub(super) rank: u32,
    pub(super) identity: IdentityKey,
    /// Of the envelope from it.
    pub(super) open_key: Secret,
    /// s_ij.
    pub(super) pair_seed: Secret,
}

impl Shared {
    /// An envelope that does not open costs its dealer's share, no more: otherwise one bad dealer could stop all its neighbours.
    pub(super) fn open(&self, terms: &Terms, message: &Delivery) -> Result<Ready, Fault> {
        let Self { place, neighbours, own_secret } = self;
        let (n, need) = (place.plan.participants(), place.plan.survivors());
        let sharers = &message.sharers;
        if sharers.universe() != n {
            return Err(Fault::Count { actual: sharers.universe(), expected: n });
        }
        if !sharers.contains(place.rank) {
            return Err(Fault::NotASurvivor);
        }
        if sharers.count() < need {
            return Err(Fault::TooFew { phase: "behind the sharing of keys", have: sharers.count(), need });
        }
        let neighbours: Vec<&Neighbour> = neighbours.iter().filter(|peer| sharers.contains(peer.rank)).collect();
        let threshold = place.plan.threshold();
        let have = neighbours.len() as u32;
        if have < threshold {
            return Err(Fault::TooFewNeighbours { have, need: threshold });
        }
        if message.envelopes.len() as u32 != have {
            return Err(Fault::Count { actual: message.envelopes.len() as u32, expected: have });
        }
        let mut unreadable = Vec::new();
        let mut holdings = Vec::with_capacity(neighbours.len());
        for (peer, envelope) in neighbours.into_iter().zip(&message.envelopes) {
            let route = Route { session: &terms.session, roll: &place.roll, from: peer.rank, to: place.rank };
            let shares = open(&peer.open_key, route, envelope);
            if shares.is_none() {
                unreadable.push(peer.rank);
            }
            holdings.push(Holding { rank: peer.rank, identity: peer.identity, pair_seed: peer.pair_seed.clone(), shares });
        }
        let readable = have - unreadable.len() as u32;
        if readable < threshold {
            return Err(Fault::Unreadable { readable, need: threshold, unreadable });
        }
        Ok(Ready { place: place.clone(), sharers: message.sharers.clone(), own_secret: own_secret.clone(), holdings })
    }
}
