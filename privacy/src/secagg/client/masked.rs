//! The masked vector is made. Waits to be told whose vectors are in the sum, signs that once, and throws away one of the two
//! shares of each neighbour: from here on nothing can bring both together.

use super::{Agreed, advertised::Place, agreed::Peer};
use crate::secagg::{
    Fault,
    message::{Alive, Survivors},
    set::RankSet,
    shamir::Share,
    terms::{IdentityKey, Signer, Terms},
};

/// Holds both shares of each neighbour.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Masked {
    pub(super) place: Place,
    /// U2.
    pub(super) sharers: RankSet,
    pub(super) held: Vec<Held>,
}

#[cfg_attr(test, derive(Clone))]
pub(super) struct Held {
    pub(super) rank: u32,
    pub(super) identity: IdentityKey,
    /// Of the mask key and of the own-mask seed.
    pub(super) shares: Option<(Share, Share)>,
}

impl Masked {
    pub(super) fn agree(&self, terms: &Terms, message: Survivors, signer: &dyn Signer) -> Result<(Agreed, Alive), Fault> {
        let Self { place, sharers, held } = self;
        let (n, need) = (place.plan.participants(), place.plan.survivors());
        let survivors = &message.survivors;
        if survivors.universe() != n {
            return Err(Fault::Count { actual: survivors.universe(), expected: n });
        }
        if let Some(rank) = survivors.first_beyond(sharers) {
            return Err(Fault::Resurrected { rank });
        }
        if !survivors.contains(place.rank) {
            return Err(Fault::NotASurvivor);
        }
        if survivors.count() < need {
            return Err(Fault::TooFew { phase: "behind the masked input", have: survivors.count(), need });
        }
        if !place.graph.connects(survivors) {
            return Err(Fault::Disconnected);
        }
        let have = held.iter().filter(|peer| survivors.contains(peer.rank)).count() as u32;
        let threshold = place.plan.threshold();
        if have < threshold {
            return Err(Fault::TooFewNeighbours { have, need: threshold });
        }
        let signed = message.signed_bytes(&terms.session, &place.roll);
        let signature = signer.sign(&signed);
        let peers = held.iter().map(|Held { rank, identity, shares }| {
            let survives = survivors.contains(*rank);
            let share = shares.as_ref().map(|(of_key, of_seed)| if survives { of_seed } else { of_key }.clone());
            Peer { rank: *rank, identity: *identity, survives, share }
        });
        Ok((Agreed { signed, threshold, peers: peers.collect() }, Alive { signature }))
    }
}
