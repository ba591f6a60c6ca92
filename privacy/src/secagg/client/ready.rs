//! The shares are there. Waits for this node's own vector, and masks it.

use std::num::NonZeroU32;

use super::{Masked, advertised::Place, masked::Held};
use crate::secagg::{
    Fault,
    channel::{Secret, own_seed},
    mask::{Mask, Sign, apply_and_pack},
    set::RankSet,
    shamir::Share,
    terms::{IdentityKey, Terms},
};

/// Holds everything: masks to be put on, and the neighbours' shares.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Ready {
    pub(super) place: Place,
    /// U2.
    pub(super) sharers: RankSet,
    pub(super) own_secret: Secret,
    /// Of the neighbours in U2.
    pub(super) holdings: Vec<Holding>,
}

#[cfg_attr(test, derive(Clone))]
pub(super) struct Holding {
    pub(super) rank: u32,
    pub(super) identity: IdentityKey,
    pub(super) pair_seed: Secret,
    /// Of its mask key and of its own-mask seed; nothing if the envelope could not be opened.
    pub(super) shares: Option<(Share, Share)>,
}

impl Ready {
    /// Whether `lanes` can be masked.
    pub(super) fn check(&self, terms: &Terms, lanes: &[u32]) -> Result<(), Fault> {
        let expected = NonZeroU32::get(terms.length) as usize;
        if lanes.len() != expected {
            return Err(crate::Fault::Length { what: "elements of the vector", expected, actual: lanes.len() }.into());
        }
        let mask = terms.bits.mask();
        match lanes.iter().position(|lane| lane & !mask != 0) {
            Some(index) => Err(crate::Fault::Element { index, value: lanes[index], bits: terms.bits.get() }.into()),
            None => Ok(()),
        }
    }

    /// y_i = x_i + PRG(b_i) + Σ ±PRG(s_ij) over the neighbours in U2. After it no mask can be computed here any more.
    pub(super) fn mask(&self, terms: &Terms, mut lanes: Vec<u32>, threads: usize) -> (Masked, Vec<u8>) {
        let Self { place, sharers, own_secret, holdings } = self;
        let rank = place.rank;
        let own = own_seed(own_secret, &terms.session, rank);
        let mut masks = vec![Mask::new(terms.suite, &own, Sign::Plus)];
        masks.extend(holdings.iter().map(|peer| Mask::new(terms.suite, &peer.pair_seed, Sign::between(rank, peer.rank))));
        // What stays in the lanes is masked too: there is nothing to wipe.
        let packed = apply_and_pack(&mut lanes, &masks, terms.bits, threads);
        let held = holdings.iter().map(|peer| Held { rank: peer.rank, identity: peer.identity, shares: peer.shares.clone() });
        (Masked { place: place.clone(), sharers: sharers.clone(), held: held.collect() }, packed)
    }
}
